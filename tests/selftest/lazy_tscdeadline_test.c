// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests for MSR_KVM_LAZY_TSCDEADLINE, the lazy TSC deadline, and for
 * KVM_HC_EXIT_COUNTS.
 *
 * Each sub-test runs in a process of its own with a time limit, as what a
 * broken host does to a timer is mostly to lose it.
 *
 *   lazy_tscdeadline_test [-l] [NAME...]
 */
#define _GNU_SOURCE
#include <asm/kvm_para.h>
#include <linux/kvm_para.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "apic.h"

#define X86_FEATURE_KVM_LAZY_TSCDEADLINE \
	KVM_X86_CPU_FEATURE(0x40000001, 0, EAX, KVM_FEATURE_LAZY_TSCDEADLINE)

#ifndef MSR_IA32_TSC_DEADLINE
#define MSR_IA32_TSC_DEADLINE	0x6e0
#endif
#ifndef MSR_IA32_TSC_ADJUST
#define MSR_IA32_TSC_ADJUST	0x3b
#endif

#define LVTT			0x320
#define LVTT_MASKED		(1u << 16)
#define LVTT_TSCDEADLINE	(2u << 17)
#define TIMER_VECTOR		0x60
#define OTHER_VECTOR		0x61
#define TEST_PORT		0x2f0

/* Two pages with the areas, in a memslot of their own, and then the rest. */
#define AREA_SLOT		10
#define AREA_GPA		0x40000000ul
#define AREA_PAGES		2
#define LAST_GPA		(AREA_GPA + AREA_PAGES * 4096 - 64)
#define DATA_SLOT		11
#define DATA_GPA		0x50000000ul
#define DATA_PAGES		4
#define COUNTS_GPA		(DATA_GPA + 4096)
#define NO_RAM_GPA		0x70000000ul

#define ACTIVE			KVM_LAZY_TSCDEADLINE_ACTIVE
#define area_at(gpa)		((volatile struct kvm_lazy_tscdeadline *)(gpa))
#define A			area_at(AREA_GPA)
#define G			((volatile struct guest_data *)DATA_GPA)

/* What both sides see; mapped at DATA_GPA in the guest. */
struct guest_data {
	uint64_t khz;
	uint64_t irqs, irq_tsc;		/* timer interrupts, TSC of the last */
	uint64_t others;		/* of another vector */
	uint64_t step;			/* handshakes without an exit */
	uint64_t arg;
	uint64_t shadows;		/* interrupts between STI and HLT */
	uint64_t noise;			/* what a sub-test wants printed */
};

/* The sentence says what is claimed; x and y help to see what was wrong. */
#define CLAIM(cond, sentence, x, y) \
	__GUEST_ASSERT(cond, sentence " [" #cond "]", 2, (uint64_t)(x), (uint64_t)(y))

static struct kvm_vm *vm;
static struct kvm_vcpu *vcpu;
static struct guest_data *h;		/* G, for the host */
static struct kvm_lazy_tscdeadline *area;

/*
 * Guest.  Interrupts are off but for the moments of window() and halt(),
 * which spare the red zone of whatever they are inlined into.
 */
#define barrier_() asm volatile("" ::: "memory")
#define XMM "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
	    "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static inline void window(void)
{
	asm volatile("lea -128(%%rsp), %%rsp; sti; nop; nop; cli; lea 128(%%rsp), %%rsp"
		     ::: "memory", XMM);
}

static inline void halt(void)
{
	asm volatile("lea -128(%%rsp), %%rsp; sti; hlt; cli; lea 128(%%rsp), %%rsp"
		     ::: "memory", XMM);
}

static inline uint64_t ms(uint64_t n)
{
	return n * G->khz;
}

static inline uint64_t us(uint64_t n)
{
	return n * G->khz / 1000;
}

/*
 * SVM as emulated by QEMU loses the interrupt shadow of STI at VMRUN.  Step over
 * the HLT then, as the interrupt would have ended it.
 */
static void fix_shadow(struct ex_regs *regs)
{
	if (*(unsigned char *)regs->rip == 0xf4) {
		regs->rip++;
		G->shadows++;
	}
}

static void timer_interrupt(struct ex_regs *regs)
{
	fix_shadow(regs);
	G->irq_tsc = rdtsc();
	G->irqs++;
	x2apic_write_reg(APIC_EOI, 0);
}

static void other_interrupt(struct ex_regs *regs)
{
	fix_shadow(regs);
	G->others++;
	x2apic_write_reg(APIC_EOI, 0);
}

static void spin_until(uint64_t tsc)
{
	while (rdtsc() < tsc)
		barrier_();
}

/* With interrupts on; ends early at the n-th timer interrupt. */
static void wait_until(uint64_t tsc, uint64_t n)
{
	while (G->irqs < n && rdtsc() < tsc)
		window();
	window();
}

static void deadline(uint64_t t)
{
	wrmsr(MSR_IA32_TSC_DEADLINE, t);
}

static void set(uint64_t t)
{
	uint64_t a;

	A->pending = t;
	barrier_();
	a = A->armed;
	if (!a || t < a)
		deadline(t);
}

static void cancel(void)
{
	A->pending = 0;
}

static void defer(uint64_t t)
{
	A->pending = t;
	barrier_();
	if (!(A->host & ACTIVE))
		set(t);
}

static void commit(void)
{
	uint64_t a = A->armed, p = A->pending;

	if (p && (!a || p < a))
		deadline(p);
}

static void lvtt(uint32_t bits)
{
	x2apic_write_reg(LVTT, bits | TIMER_VECTOR);
}

static void guest_init(void)
{
	x2apic_enable();
	lvtt(LVTT_TSCDEADLINE);
	G->irqs = G->others = 0;
}

static void lazy_on_at(uint64_t gpa, uint64_t pending)
{
	int i;

	area_at(gpa)->armed = 0;
	area_at(gpa)->host = 0;
	area_at(gpa)->pending = pending;
	for (i = 0; i < 5; i++)
		area_at(gpa)->reserved[i] = 0;
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, gpa | 1);
}

static void lazy_init(void)
{
	guest_init();
	lazy_on_at(AREA_GPA, 0);
}

static struct kvm_exit_counts counts(void)
{
	uint64_t r;

	barrier_();
	r = kvm_hypercall(KVM_HC_EXIT_COUNTS, COUNTS_GPA, sizeof(struct kvm_exit_counts), 0, 0);
	barrier_();
	CLAIM(r == sizeof(struct kvm_exit_counts), "the hypercall writes all counters", r, 0);
	return *(struct kvm_exit_counts *)COUNTS_GPA;
}

static struct kvm_exit_counts since;

static void mark(void)
{
	G->irqs = G->others = 0;
	since = counts();
}

#define delta(field) (counts().field - since.field)

/* Claims that the timer interrupt of a deadline came, and not before it. */
static void expect(uint64_t t)
{
	wait_until(t + ms(1000), 1);
	CLAIM(G->irqs == 1, "a deadline gives one interrupt", G->irqs, t - rdtsc());
	CLAIM(G->irq_tsc >= t, "the interrupt does not come before the deadline",
	      G->irq_tsc, t);
	CLAIM(!A->armed || A->armed > G->irq_tsc,
	      "after the interrupt armed is 0 or a deadline to come", A->armed, t);
}

static void expect_none(uint64_t n)
{
	uint64_t before = G->irqs;

	wait_until(rdtsc() + ms(n), -1ul);
	CLAIM(G->irqs == before, "no interrupt comes", G->irqs, before);
}

/*
 * Host.
 */
static void setup_vcpu(struct kvm_vcpu *v)
{
	vcpu_set_cpuid_feature(v, X86_FEATURE_TSC_DEADLINE_TIMER);
	vcpu_set_cpuid_feature(v, X86_FEATURE_KVM_LAZY_TSCDEADLINE);
	vcpu_init_descriptor_tables(v);
}

static void setup_vm(void)
{
	vm_init_descriptor_tables(vm);
	vm_install_exception_handler(vm, TIMER_VECTOR, timer_interrupt);
	vm_install_exception_handler(vm, OTHER_VECTOR, other_interrupt);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, AREA_GPA, AREA_SLOT, AREA_PAGES, 0);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, DATA_GPA, DATA_SLOT, DATA_PAGES, 0);
	virt_map(vm, AREA_GPA, AREA_GPA, AREA_PAGES);
	virt_map(vm, DATA_GPA, DATA_GPA, DATA_PAGES);
	area = addr_gpa2hva(vm, AREA_GPA);
	h = addr_gpa2hva(vm, DATA_GPA);
}

static void start(void *guest_code)
{
	vm = __vm_create_with_one_vcpu(&vcpu, 64, guest_code);
	setup_vm();
	setup_vcpu(vcpu);
	h->khz = __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT((int)h->khz > 0, "KVM knows the frequency of the guest's TSC");
}

static void guest_failed(struct ucall *uc)
{
	REPORT_GUEST_ASSERT_2((*uc), "\t%#lx %#lx");
}

/* Until the guest wants something: its stage, or 0 at the end. */
static uint64_t run(void)
{
	struct ucall uc;

	for (;;) {
		if (__vcpu_run(vcpu)) {
			TEST_ASSERT(errno == EINTR, "KVM_RUN ends with EINTR only, not %d", errno);
			continue;
		}
		if (vcpu->run->exit_reason == KVM_EXIT_IO && vcpu->run->io.port == TEST_PORT)
			continue;
		TEST_ASSERT(vcpu->run->exit_reason == KVM_EXIT_IO, "unexpected exit %u (%s)",
			    vcpu->run->exit_reason, exit_reason_str(vcpu->run->exit_reason));
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_SYNC:
			return uc.args[1];
		case UCALL_DONE:
			return 0;
		case UCALL_ABORT:
			guest_failed(&uc);
		case UCALL_UNHANDLED:
			TEST_FAIL("unexpected exception or interrupt %#lx", uc.args[0]);
		default:
			TEST_FAIL("unknown ucall %lu", uc.cmd);
		}
	}
}

static void run_to_end(void)
{
	while (run())
		;
}

static void nap(int n)
{
	struct timespec t = { n / 1000, n % 1000 * 1000000l };

	nanosleep(&t, NULL);
}

static void nothing(int sig)
{
}

/* KVM_RUN for n ms. */
static void run_for(struct kvm_vcpu *v, int n)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec time = { .it_value = { n / 1000, n % 1000 * 1000000l },
				   .it_interval = { 0, 20000000l } };
	struct sigaction action = { .sa_handler = nothing };
	timer_t timer;
	int r;

	sigaction(SIGUSR1, &action, NULL);
	TEST_ASSERT(!timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create()");
	timer_settime(timer, 0, &time, NULL);
	r = __vcpu_run(v);
	TEST_ASSERT(r == -1 && errno == EINTR, "the vCPU runs until the signal, not r %d, exit %u",
		    r, v->run->exit_reason);
	timer_delete(timer);
}

static void send_msi(uint32_t vector)
{
	struct kvm_msi msi = { .address_lo = APIC_DEFAULT_GPA, .data = vector };

	__vm_ioctl(vm, KVM_SIGNAL_MSI, &msi);
}

/* Ends a HLT that no timer ends. */
static pthread_t thread;
static volatile int thread_stop;
static int thread_ms;

static void *msi_thread(void *arg)
{
	do {
		nap(thread_ms);
		send_msi(OTHER_VECTOR);
	} while (!thread_stop && arg);
	return NULL;
}

static void wait_step(uint64_t step)
{
	while (*(volatile uint64_t *)&h->step != step)
		nap(1);
}

static void start_thread(void *(*code)(void *), void *arg)
{
	sigset_t all, old;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	TEST_ASSERT(!pthread_create(&thread, NULL, code, arg), "pthread_create()");
	sigprocmask(SIG_SETMASK, &old, NULL);
}

static uint64_t lazy_msr(void)
{
	return vcpu_get_msr(vcpu, MSR_KVM_LAZY_TSCDEADLINE);
}

static uint64_t deadline_msr(void)
{
	return vcpu_get_msr(vcpu, MSR_IA32_TSC_DEADLINE);
}

/* The guest tells the step to a thread of the host, and waits, without an exit. */
static void guest_step(uint64_t step)
{
	G->step = step;
	while (G->step == step)
		barrier_();
}

/*
 * CPUID, MSR
 */
static void guest_cpuid(void)
{
	uint32_t eax, ebx, ecx, edx;

	for (;;) {
		cpuid(KVM_CPUID_FEATURES, &eax, &ebx, &ecx, &edx);
		GUEST_SYNC(eax & (1 << KVM_FEATURE_LAZY_TSCDEADLINE) ? 2 : 1);
	}
}

/* What the guest sees if userspace passes on the feature, and perhaps the timer. */
static bool offered(bool timer)
{
	uint32_t *ecx = &vcpu_get_cpuid_entry(vcpu, 1)->ecx;

	*ecx = timer ? *ecx | 1 << 24 : *ecx & ~(1 << 24);
	vcpu_get_cpuid_entry(vcpu, KVM_CPUID_FEATURES)->eax |= 1 << KVM_FEATURE_LAZY_TSCDEADLINE;
	vcpu_set_cpuid(vcpu);
	return run() == 2;
}

static void test_cpuid(void)
{
	int timer, r;

	TEST_ASSERT(kvm_cpu_has(X86_FEATURE_KVM_LAZY_TSCDEADLINE),
		    "KVM_GET_SUPPORTED_CPUID offers the feature");
	TEST_ASSERT(kvm_msr_is_in_save_restore_list(MSR_KVM_LAZY_TSCDEADLINE),
		    "KVM_GET_MSR_INDEX_LIST has the MSR");

	for (timer = 0; timer < 2; timer++) {
		vm = vm_create_with_one_vcpu(&vcpu, guest_cpuid);
		TEST_ASSERT(offered(timer) == timer,
			    "the feature is offered if there is the TSC-deadline timer (%d)", timer);
		TEST_ASSERT(lazy_msr() == 0, "the MSR of a new vCPU is 0");
		r = _vcpu_set_msr(vcpu, MSR_KVM_LAZY_TSCDEADLINE, 2);
		TEST_ASSERT(r != 1, "userspace cannot set reserved bits");
		r = _vcpu_set_msr(vcpu, MSR_KVM_LAZY_TSCDEADLINE, 64);
		TEST_ASSERT((r == 1) == timer, "userspace can write the MSR if it is offered (%d)",
			    timer);
		kvm_vm_free(vm);
	}

	vm = ____vm_create(VM_MODE_DEFAULT, 1024);
	kvm_vm_elf_load(vm, program_invocation_name);
	vcpu = vm_vcpu_add(vm, 0, guest_cpuid);
	TEST_ASSERT(!offered(true), "the feature is not offered without a local APIC in KVM");
	r = _vcpu_set_msr(vcpu, MSR_KVM_LAZY_TSCDEADLINE, 0);
	TEST_ASSERT(r == 1, "a VMM may restore the 0 of a vCPU without the feature");
	r = _vcpu_set_msr(vcpu, MSR_KVM_LAZY_TSCDEADLINE, 1);
	TEST_ASSERT(r != 1, "userspace cannot enable what is not offered");
	TEST_ASSERT(lazy_msr() == 0, "the MSR of a vCPU without the feature is 0");
	kvm_vm_free(vm);
}

static void guest_cpuid_again(void)
{
	GUEST_SYNC(1);
	GUEST_DONE();
}

static void test_cpuid_again(void)
{
	struct kvm_cpuid2 *asked = allocate_kvm_cpuid2(kvm_get_supported_cpuid()->nent);
	int round, r;

	for (round = 0; round < 2; round++) {
		vm = vm_create_with_one_vcpu(&vcpu, guest_cpuid_again);
		/* The whole of the supported CPUID, as a VMM might pass it on, */
		memcpy(asked, kvm_get_supported_cpuid(), kvm_cpuid2_size(asked->nent));
		if (round)
			((struct kvm_cpuid_entry2 *)get_cpuid_entry(asked, 1, 0))->ecx |= 1 << 24;
		r = __vcpu_ioctl(vcpu, KVM_SET_CPUID2, asked);
		TEST_ASSERT(!r, "KVM_SET_CPUID2 succeeds");
		run();
		r = __vcpu_ioctl(vcpu, KVM_SET_CPUID2, asked);
		TEST_ASSERT(!r, "the same KVM_SET_CPUID2 succeeds after KVM_RUN (round %d)", round);
		kvm_vm_free(vm);
	}
}

static void guest_no_feature(void)
{
	uint64_t value;
	uint8_t v;

	guest_init();
	v = wrmsr_safe(MSR_KVM_LAZY_TSCDEADLINE, AREA_GPA | 1);
	CLAIM(v == GP_VECTOR, "enabling what is not offered gives #GP", v, 0);
	v = wrmsr_safe(MSR_KVM_LAZY_TSCDEADLINE, 0);
	CLAIM(v == GP_VECTOR, "writing the MSR of a feature that is not offered gives #GP", v, 0);
	v = rdmsr_safe(MSR_KVM_LAZY_TSCDEADLINE, &value);
	CLAIM(v == GP_VECTOR, "reading the MSR of a feature that is not offered gives #GP", v, 0);
	deadline(rdtsc() + ms(10));
	wait_until(rdtsc() + ms(1000), 1);
	CLAIM(G->irqs == 1, "without the feature the timer is as ever", G->irqs, 0);
	GUEST_DONE();
}

static void test_no_feature(void)
{
	start(guest_no_feature);
	vcpu_clear_cpuid_feature(vcpu, X86_FEATURE_KVM_LAZY_TSCDEADLINE);
	run_to_end();
}

static void guest_msr(void)
{
	static const uint64_t bad[] = {
		AREA_GPA | 1 | 2, AREA_GPA | 1 | 4, AREA_GPA | 1 | 8, AREA_GPA | 1 | 16,
		AREA_GPA | 1 | 32, 2, 0x3e, 0x20 | AREA_GPA,
		NO_RAM_GPA | 1, 0xfee00001, (AREA_GPA + AREA_PAGES * 4096) | 1,
		(AREA_GPA - 64) | 1, ~0x3eul, (1ul << 52) | 1, 0xffffffffffc1ul,
	};
	uint64_t far, v;
	unsigned int i;

	guest_init();
	v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
	CLAIM(v == 0, "the MSR is 0 after creation", v, 0);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		v = wrmsr_safe(MSR_KVM_LAZY_TSCDEADLINE, bad[i]);
		CLAIM(v == GP_VECTOR, "a bad value gives #GP", v, bad[i]);
		v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
		CLAIM(v == 0, "a refused value leaves the MSR", v, bad[i]);
	}

	lazy_on_at(AREA_GPA, 0);
	CLAIM(A->host == ACTIVE, "host is ACTIVE once enabled", A->host, 0);
	v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
	CLAIM(v == (AREA_GPA | 1), "the MSR reads as written", v, 0);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		far = rdtsc() + ms(10000);
		A->pending = far;
		v = wrmsr_safe(MSR_KVM_LAZY_TSCDEADLINE, bad[i]);
		CLAIM(v == GP_VECTOR, "a bad value gives #GP while enabled", v, bad[i]);
		v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
		CLAIM(v == (AREA_GPA | 1), "a refused value leaves the MSR as it was", v, bad[i]);
		CLAIM(A->host == ACTIVE, "a refused value does not park the area", A->host, bad[i]);
		deadline(far);
		CLAIM(A->armed == far, "after a refused value the area is in use", A->armed, far);
		GUEST_SYNC(1);
		CLAIM(A->host == ACTIVE && A->armed == far,
		      "after a refused value the area is in use at RESUME", A->armed, A->host);
	}
	cancel();
	set(rdtsc() + ms(5));
	expect(A->pending);
	GUEST_DONE();
}

static void test_msr(void)
{
	start(guest_msr);
	run_to_end();
}

static void guest_readonly(void)
{
	uint8_t v;

	guest_init();
	v = wrmsr_safe(MSR_KVM_LAZY_TSCDEADLINE, AREA_GPA | 1);
	CLAIM(v == GP_VECTOR, "an area in a read-only memslot gives #GP", v, 0);
	GUEST_DONE();
}

static void test_readonly(void)
{
	struct kvm_userspace_memory_region *r;

	start(guest_readonly);
	r = &memslot2region(vm, AREA_SLOT)->region;
	vm_set_user_memory_region(vm, AREA_SLOT, 0, r->guest_phys_addr, 0, NULL);
	vm_set_user_memory_region(vm, AREA_SLOT, KVM_MEM_READONLY, r->guest_phys_addr,
				  r->memory_size, (void *)r->userspace_addr);
	run_to_end();
}

static void guest_area(void)
{
	volatile struct kvm_lazy_tscdeadline *last = area_at(LAST_GPA);
	uint64_t far, v;
	int i;

	lazy_init();
	far = rdtsc() + ms(10000);
	set(far);
	CLAIM(A->armed == far, "armed is the deadline", A->armed, far);

	lazy_on_at(LAST_GPA, far + 1);
	CLAIM(A->armed == 0 && A->host == 0, "enabling while enabled parks the old area",
	      A->armed, A->host);
	CLAIM(last->host == ACTIVE, "the area at the end of a memslot is used", last->host, 0);
	CLAIM(last->armed == far + 1, "enabling arms what is pending", last->armed, far + 1);
	for (i = 0; i < 8; i++)
		((volatile uint64_t *)AREA_GPA)[i] = 0;
	far = rdtsc() + ms(20);
	last->pending = far;
	deadline(far);
	CLAIM(last->armed == far, "the new area is written", last->armed, far);
	wait_until(far + ms(1000), 1);
	CLAIM(G->irqs == 1 && G->irq_tsc >= far, "a timer of the new area fires", G->irqs, 0);
	CLAIM(last->armed == 0, "armed is 0 after the interrupt", last->armed, 0);
	GUEST_SYNC(1);
	for (i = 0; i < 8; i++)
		CLAIM(((volatile uint64_t *)AREA_GPA)[i] == 0, "the old area is left alone", i, 0);

	/* A deadline that only the area knows survives the end of the feature. */
	G->irqs = 0;
	far = rdtsc() + ms(30);
	last->pending = far;
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, NO_RAM_GPA & ~63ul);
	v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
	CLAIM(v == (NO_RAM_GPA & ~63ul), "disabling takes any address", v, 0);
	CLAIM(last->armed == 0 && last->host == 0, "disabling parks with a host of 0",
	      last->armed, last->host);
	for (i = 0; i < 8; i++)
		((volatile uint64_t *)LAST_GPA)[i] = 0x5a5a5a5a5a5a0000 + i;
	last->pending = 0;
	wait_until(far + ms(1000), 1);
	CLAIM(G->irqs == 1 && G->irq_tsc >= far, "a pending deadline fires after disabling",
	      G->irqs, 0);
	for (i = 0; i < 5; i++) {
		deadline(rdtsc() + ms(2));
		GUEST_SYNC(2);
		v = rdmsr(MSR_IA32_TSC_DEADLINE);
		wait_until(rdtsc() + ms(1000), i + 2);
		CLAIM(G->irqs == i + 2, "the timer is as ever after disabling", G->irqs, i);
		deadline(rdtsc() + ms(2));
		halt();
		G->irqs = i + 2;
	}
	last->pending = 0x5a5a5a5a5a5a0002;
	for (i = 0; i < 8; i++)
		CLAIM(((volatile uint64_t *)LAST_GPA)[i] == 0x5a5a5a5a5a5a0000 + i,
		      "a disabled area is never written", i, ((volatile uint64_t *)LAST_GPA)[i]);

	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, 0);
	lazy_on_at(AREA_GPA, 0);
	v = rdtsc() + ms(5);
	G->irqs = 0;
	defer(v);
	halt();
	expect(v);
	GUEST_DONE();
}

static void test_area(void)
{
	start(guest_area);
	run_to_end();
}

/*
 * The rows of the table.
 */
static void guest_update(void)
{
	uint64_t far, now;

	lazy_init();
	now = rdtsc();
	far = now + ms(10000);
	mark();
	A->pending = far;
	deadline(far);
	CLAIM(A->armed == far, "UPDATE to the future: armed is it", A->armed, far);
	deadline(far + 5);
	CLAIM(A->armed == far + 5, "UPDATE to later: armed is it, whatever pending says",
	      A->armed, far);
	deadline(far - 5);
	CLAIM(A->armed == far - 5, "UPDATE to earlier: armed is it", A->armed, far);
	cancel();
	deadline(0);
	CLAIM(A->armed == 0, "UPDATE to 0: armed is 0", A->armed, 0);
	CLAIM(delta(kick) == 0, "no kick so far", delta(kick), 0);

	mark();
	A->pending = now;
	deadline(now);
	CLAIM(A->armed == 0, "UPDATE to the past: armed is 0", A->armed, now);
	window();
	CLAIM(G->irqs == 1, "UPDATE to the past: the interrupt comes at once", G->irqs, 0);
	CLAIM(delta(kick) == 1, "UPDATE to the past is a kick", delta(kick), 0);
	cancel();

	mark();
	deadline(now);
	CLAIM(A->armed == 0, "UPDATE to the past with pending 0: armed is 0", A->armed, 0);
	expect_none(20);
	CLAIM(delta(cancelled) == 1, "UPDATE to the past with pending 0 is cancelled",
	      delta(cancelled), delta(kick));

	mark();
	far = rdtsc() + ms(60);
	A->pending = far;
	deadline(now);
	CLAIM(A->armed == far, "UPDATE to the past with pending later: armed is pending",
	      A->armed, far);
	CLAIM(delta(rearm) == 1, "which is a rearm", delta(rearm), 0);
	expect(far);
	GUEST_DONE();
}

static void test_update(void)
{
	start(guest_update);
	run_to_end();
}

static void guest_kick(void)
{
	uint64_t t, end;

	lazy_init();

	mark();
	t = rdtsc() + ms(10);
	set(t);
	CLAIM(A->armed == t, "set() without a timer arms it", A->armed, t);
	cancel();
	spin_until(t + ms(20));
	expect_none(1);
	CLAIM(A->armed == 0, "KICK with pending 0: armed is 0", A->armed, 0);
	CLAIM(delta(kick) == 1 && delta(cancelled) == 1 && delta(rearm) == 0,
	      "KICK with pending 0 counts as cancelled", delta(kick), delta(cancelled));
	CLAIM(delta(timer_interrupt) == 0, "and as no interrupt", delta(timer_interrupt), 0);

	mark();
	t = rdtsc() + ms(10);
	set(t);
	t += ms(90);
	set(t);
	CLAIM(delta(tsc_deadline) == 1, "a deadline after armed needs no write",
	      delta(tsc_deadline), 0);
	CLAIM(A->armed == t - ms(90), "armed is what was written", A->armed, t);
	wait_until(t - ms(60), -1ul);
	CLAIM(G->irqs == 0, "KICK with pending later: no interrupt", G->irqs, 0);
	CLAIM(A->armed == t, "KICK with pending later: armed moves to it", A->armed, t);
	CLAIM(delta(rearm) == 1 && delta(cancelled) == 0, "which is a rearm", delta(rearm), 0);
	expect(t);
	CLAIM(A->armed == 0, "KICK with pending = armed: armed is 0", A->armed, 0);
	CLAIM(delta(kick) == 2 && delta(timer_interrupt) == 1, "two kicks, one interrupt",
	      delta(kick), delta(timer_interrupt));

	/* Against the rules of set(), but the interrupt must come. */
	mark();
	t = rdtsc() + ms(30);
	set(t);
	A->pending = t - ms(10);
	expect(t);
	CLAIM(A->armed == 0, "KICK with pending earlier: armed is 0", A->armed, 0);

	mark();
	t = rdtsc() + ms(60);
	set(t);
	t -= ms(50);
	set(t);
	CLAIM(A->armed == t, "a deadline before armed is written", A->armed, t);
	expect(t);

	/* Pushed on and on: one kick for each horizon, no interrupt but the last. */
	mark();
	end = rdtsc() + ms(200);
	for (t = end - ms(150); rdtsc() < end; t = rdtsc() + ms(50)) {
		set(t);
		window();
	}
	t = A->pending;
	CLAIM(G->irqs == 0, "a timer that is pushed on gives no interrupt", G->irqs, 0);
	expect(t);
	CLAIM(delta(tsc_deadline) == 1, "a timer that is pushed on is written once",
	      delta(tsc_deadline), 0);
	CLAIM(delta(kick) == delta(rearm) + 1, "all kicks but the last are rearms",
	      delta(kick), delta(rearm));
	GUEST_DONE();
}

static void test_kick(void)
{
	start(guest_kick);
	run_to_end();
}

static void guest_halt(void)
{
	uint64_t t;

	lazy_init();

	mark();
	t = rdtsc() + ms(30);
	defer(t);
	CLAIM(A->armed == 0, "defer() does not arm", A->armed, 0);
	halt();
	CLAIM(G->irqs == 1 && G->irq_tsc >= t, "a deferred deadline ends the HLT",
	      G->irqs, t - G->irq_tsc);
	CLAIM(G->irq_tsc < t + ms(1000), "a deferred deadline fires in time", G->irq_tsc - t, 0);
	CLAIM(delta(tsc_deadline) == 0, "a deferred deadline is not written",
	      delta(tsc_deadline), 0);
	CLAIM(delta(halt) == 1 && delta(halt_sync) == 1, "HALT counts a timer set",
	      delta(halt), delta(halt_sync));
	CLAIM(delta(kick) == 1 && delta(rearm) == 0, "one kick, no rearm", delta(kick), 0);

	mark();
	t = rdtsc() + ms(20);
	set(t);
	t += ms(80);
	set(t);
	halt();
	CLAIM(G->irqs == 1 && G->irq_tsc >= t, "the HLT ends at a deadline moved later",
	      G->irqs, t - G->irq_tsc);
	CLAIM(delta(kick) == 1 && delta(rearm) == 0, "no kick while the vCPU is halted",
	      delta(kick), delta(rearm));
	CLAIM(delta(halt) == 1 && delta(halt_sync) == 1, "HALT counts a timer moved",
	      delta(halt), delta(halt_sync));

	mark();
	set(rdtsc() + ms(2000));
	t = rdtsc() + ms(20);
	defer(t);
	halt();
	CLAIM(G->irqs == 1 && G->irq_tsc >= t && G->irq_tsc < t + ms(1000),
	      "the HLT ends at a deadline deferred to earlier", G->irqs, G->irq_tsc - t);
	CLAIM(delta(halt_sync) == 1, "HALT counts a timer moved to earlier", delta(halt_sync), 0);

	mark();
	set(rdtsc() + ms(20));
	halt();
	CLAIM(G->irqs == 1, "the HLT ends", G->irqs, 0);
	CLAIM(delta(halt) == 1 && delta(halt_sync) == 0, "HALT does not count an unchanged timer",
	      delta(halt), delta(halt_sync));
	cancel();

	/* A deadline that is past at HLT ends it at once. */
	mark();
	t = rdtsc() + us(50);
	defer(t);
	spin_until(t + us(50));
	halt();
	CLAIM(G->irqs == 1, "a deferred deadline that is past ends the HLT", G->irqs, 0);
	cancel();

	mark();
	t = rdtsc();
	set(t + ms(20));
	cancel();
	GUEST_SYNC(1);		/* armed goes to 0; the helper starts */
	set(rdtsc() + ms(20));
	cancel();
	mark();
	halt();
	CLAIM(G->irqs == 0 && G->others == 1, "a HLT with no deadline is ended by others only",
	      G->irqs, G->others);
	CLAIM(delta(kick) == 0, "a timer that was cancelled does not fire in HLT", delta(kick), 0);
	CLAIM(delta(halt_sync) == 1, "HALT counts a timer stopped", delta(halt_sync), 0);
	CLAIM(A->armed == 0, "armed is 0 then", A->armed, 0);
	GUEST_DONE();
}

static void test_halt(void)
{
	start(guest_halt);
	TEST_ASSERT(run() == 1, "the guest comes to its last part");
	thread_ms = 200;
	start_thread(msi_thread, NULL);
	run_to_end();
	pthread_join(thread, NULL);
}

/* A vCPU in HLT that is taken out of KVM_RUN and put back again and again. */
static void guest_halt_signals(void)
{
	uint64_t t;

	lazy_init();
	mark();
	t = rdtsc() + ms(200);
	defer(t);
	GUEST_SYNC(1);
	t = rdtsc() + ms(300);
	defer(t);
	halt();
	CLAIM(G->irqs == 1 && G->irq_tsc >= t, "signals do not end a HLT or lose its timer",
	      G->irqs, t - G->irq_tsc);
	CLAIM(delta(kick) == 1, "a signal is no kick", delta(kick), 0);
	GUEST_DONE();
}

static void test_halt_signals(void)
{
	uint64_t t;
	int i;

	start(guest_halt_signals);
	run();
	for (i = 0; i < 5; i++) {
		run_for(vcpu, 20);
		if (!i)
			t = area->pending;
		TEST_ASSERT(area->armed == 0, "armed is 0 while parked in HLT");
		TEST_ASSERT(!(area->host & 1) && area->host, "a vCPU in HLT is parked with a token");
		TEST_ASSERT(deadline_msr() == t, "IA32_TSC_DEADLINE is the deadline of the HLT");
	}
	run_to_end();
}

static void guest_read(void)
{
	uint64_t t, v;

	lazy_init();
	mark();
	t = rdtsc() + ms(10000);
	A->pending = t;
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == t, "READ gives what is pending", v, t);
	CLAIM(A->armed == t, "READ arms what is pending", A->armed, t);
	A->pending = t + 7;
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == t + 7 && A->armed == t + 7, "READ follows pending to later", v, A->armed);
	A->pending = t - 7;
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == t - 7 && A->armed == t - 7, "READ follows pending to earlier", v, A->armed);
	cancel();
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == 0 && A->armed == 0, "READ gives 0 if nothing is pending", v, A->armed);
	expect_none(5);
	t = rdtsc() - 10;
	A->pending = t;
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(A->armed == 0, "armed is 0 after READ of a past deadline", A->armed, 0);
	window();
	CLAIM(G->irqs == 1, "READ of a past deadline gives the interrupt", G->irqs, 0);
	cancel();

	mark();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() + ms(5);
	set(t);
	spin_until(t + ms(10));
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == t, "READ gives a past deadline that waits for the LVT", v, t);
	CLAIM(G->irqs == 0, "whose interrupt has not come", G->irqs, 0);
	lvtt(LVTT_TSCDEADLINE);
	window();
	CLAIM(G->irqs == 1, "it comes with the LVT unmasked", G->irqs, 0);
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == 0, "READ gives 0 after the interrupt, with pending left standing", v, t);
	GUEST_DONE();
}

static void test_msr_read(void)
{
	start(guest_read);
	run_to_end();
}

static void guest_park(void)
{
	uint64_t t = 0;
	int i;

	lazy_init();
	for (i = 0; i < 20; i++) {
		t = i % 4 == 3 ? 0 : rdtsc() + ms(10000) + i;
		if (i & 4)
			deadline(rdtsc() + ms(20000));
		A->pending = t;
		GUEST_SYNC(1);
		CLAIM(A->armed == t, "RESUME arms the deadline", A->armed, t);
		CLAIM(A->host == ACTIVE, "RESUME sets ACTIVE", A->host, 0);
		CLAIM(rdmsr(MSR_KVM_LAZY_TSCDEADLINE) == (AREA_GPA | 1), "the MSR stays", 0, 0);
	}
	GUEST_SYNC(2);
	CLAIM(A->host == ACTIVE, "a VMM may write the MSR that it has read, whatever the token",
	      A->host, rdmsr(MSR_KVM_LAZY_TSCDEADLINE));
	t = rdtsc() + ms(20);
	G->irqs = 0;
	A->pending = 0;
	set(t);
	expect(t);
	GUEST_DONE();
}

static void test_park(void)
{
	uint64_t token = 0, stage;

	start(guest_park);
	while ((stage = run()) == 1) {
		TEST_ASSERT(area->armed == 0, "PARK writes an armed of 0, not %#llx", area->armed);
		TEST_ASSERT(area->host && !(area->host & 1), "PARK leaves a token, not %#llx",
			    area->host);
		TEST_ASSERT(area->host != token, "the token differs each time");
		TEST_ASSERT(deadline_msr() == area->pending,
			    "IA32_TSC_DEADLINE is complete for userspace: %#lx, pending %#llx",
			    deadline_msr(), area->pending);
		TEST_ASSERT(deadline_msr() == area->pending, "and so it is the second time");
		TEST_ASSERT(lazy_msr() == (AREA_GPA | 1), "userspace reads the MSR");
		token = area->host;
		vcpu->run->immediate_exit = 1;
		TEST_ASSERT(__vcpu_run(vcpu) == -1 && errno == EINTR, "immediate_exit works");
		vcpu->run->immediate_exit = 0;
		TEST_ASSERT(area->host == token && area->armed == 0,
			    "a parked vCPU is not parked again");
		/* As QEMU does for each look at the vCPU. */
		vcpu_set_msr(vcpu, MSR_IA32_TSC_DEADLINE, deadline_msr());
	}
	TEST_ASSERT(stage == 2, "the guest is at its end");
	area->host = 0x1234;
	vcpu_set_msr(vcpu, MSR_KVM_LAZY_TSCDEADLINE, lazy_msr());
	run_to_end();
}

static void guest_token(void)
{
	uint64_t t, v, round;
	int i;

	for (round = 1; round <= 3; round++) {
		lazy_init();
		mark();
		t = rdtsc() + ms(60);
		A->pending = t;
		GUEST_SYNC(round);
		v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
		CLAIM(v == 0, "a changed token turns the feature off", v, round);
		wait_until(t + ms(1000), 1);
		CLAIM(G->irqs == 1 && G->irq_tsc >= t, "the deadline fires all the same",
		      G->irqs, round);
		for (i = 0; i < 3; i++) {
			G->irqs = 0;
			deadline(rdtsc() + ms(2));
			v = rdmsr(MSR_IA32_TSC_DEADLINE);
			GUEST_SYNC(10);
			wait_until(rdtsc() + ms(1000), 1);
			CLAIM(G->irqs == 1, "the timer is as ever then", G->irqs, round);
			deadline(rdtsc() + ms(2));
			halt();
		}
		GUEST_SYNC(11);
	}
	GUEST_DONE();
}

static void test_token(void)
{
	struct kvm_lazy_tscdeadline now;
	uint64_t stage;

	start(guest_token);
	while ((stage = run())) {
		switch (stage) {
		case 1:			/* one bit */
			area->host ^= 1ul << 63;
			break;
		case 2:			/* as cleared memory */
			memset(area, 0, sizeof(*area));
			break;
		case 3:			/* as another host left it */
			memset(area, 0xff, sizeof(*area));
			area->pending = 0;
			break;
		case 11:
			TEST_ASSERT(!memcmp(&now, area, sizeof(now)),
				    "the area is left alone after a changed token: %llx %llx %llx",
				    area->armed, area->host, area->pending);
		}
		now = *area;
	}
}

static void guest_clear(void)
{
	uint64_t t, v;

	lazy_init();
	mark();
	t = rdtsc() + ms(20);
	set(t);
	lvtt(0);
	CLAIM(A->armed == 0, "another mode of the LVT: armed is 0", A->armed, 0);
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == 0, "another mode of the LVT: READ gives 0", v, 0);
	expect_none(40);
	lvtt(LVTT_TSCDEADLINE);
	CLAIM(A->armed == 0, "back in TSC-deadline mode armed is 0", A->armed, 0);
	cancel();
	expect_none(20);
	t = rdtsc() + ms(20);
	set(t);
	CLAIM(A->armed == t, "the next deadline is written", A->armed, t);
	expect(t);

	/* In another mode the host uses neither word. */
	cancel();
	mark();
	lvtt(0);
	A->pending = rdtsc() + ms(10);
	GUEST_SYNC(1);
	CLAIM(A->armed == 0, "in another mode armed is 0 after RESUME", A->armed, 0);
	expect_none(30);
	x2apic_write_reg(0x3e0, 0xb);	/* divide by 1 */
	x2apic_write_reg(0x380, 1000000);
	CLAIM(A->armed == 0, "a one-shot timer is not armed", A->armed, 0);
	wait_until(rdtsc() + ms(1000), 1);
	CLAIM(G->irqs == 1, "a one-shot timer fires, whatever is pending", G->irqs, 0);
	CLAIM(delta(kick) == 0, "which is no kick", delta(kick), 0);
	mark();
	cancel();
	x2apic_write_reg(0x380, 1000000);
	wait_until(rdtsc() + ms(1000), 1);
	CLAIM(G->irqs == 1, "a one-shot timer fires with nothing pending", G->irqs, 0);

	/* Masking is not clearing. */
	lvtt(LVTT_TSCDEADLINE);
	mark();
	t = rdtsc() + ms(30);
	set(t);
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	lvtt(LVTT_TSCDEADLINE);
	CLAIM(A->armed == t || !A->armed, "armed is true after masking", A->armed, t);
	expect(t);
	GUEST_DONE();
}

static void test_clear(void)
{
	start(guest_clear);
	run_to_end();
}

static void spiv(bool on)
{
	x2apic_write_reg(APIC_SPIV, 0xff | (on ? APIC_SPIV_APIC_ENABLED : 0));
}

static void guest_spiv(void)
{
	uint64_t t, v;

	lazy_init();

	/* Outstanding. */
	mark();
	t = rdtsc() + ms(40);
	set(t);
	spiv(false);
	CLAIM(A->armed == 0 || A->armed == t, "armed is true while the APIC is off", A->armed, t);
	spiv(true);
	lvtt(LVTT_TSCDEADLINE);
	CLAIM(A->armed == 0 || A->armed == t, "armed is true after the APIC was off",
	      A->armed, t);
	set(t);
	expect(t);
	cancel();

	/* Expired, its interrupt held back by the LVT: KVM wipes it. */
	mark();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() + ms(5);
	set(t);
	spin_until(t + ms(10));
	spiv(false);
	CLAIM(A->armed == 0, "armed is 0 when KVM has wiped the timer", A->armed, t);
	spiv(true);
	lvtt(LVTT_TSCDEADLINE);
	CLAIM(A->armed == 0, "and still is when the APIC is on again", A->armed, t);
	v = G->irqs;
	GUEST_SYNC(1);
	wait_until(rdtsc() + ms(1000), 1);
	CLAIM(G->irqs == 1, "a wiped timer comes again at the next SYNC", G->irqs, v);
	cancel();

	/* The same, and the guest goes on with another deadline. */
	mark();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() + ms(5);
	set(t);
	spin_until(t + ms(10));
	spiv(false);
	spiv(true);
	lvtt(LVTT_TSCDEADLINE);
	t = rdtsc() + ms(20);
	G->irqs = 0;
	set(t);
	wait_until(t + ms(1000), 1);
	CLAIM(G->irqs == 1, "a deadline set after it fires", G->irqs, A->armed);
	cancel();

	/* Off by IA32_APIC_BASE. */
	mark();
	t = rdtsc() + ms(20);
	set(t);
	apic_disable();
	CLAIM(A->armed == 0, "armed is 0 while the APIC is disabled", A->armed, t);
	GUEST_SYNC(2);
	CLAIM(A->armed == 0, "armed is 0 while the APIC is disabled, after RESUME", A->armed, t);
	wrmsr(MSR_IA32_APICBASE, rdmsr(MSR_IA32_APICBASE) | MSR_IA32_APICBASE_ENABLE);
	x2apic_enable();
	lvtt(LVTT_TSCDEADLINE);
	t = rdtsc() + ms(40);
	set(t);
	wait_until(t + ms(1000), 1);
	CLAIM(G->irqs == 1, "a deadline set after the APIC was disabled fires", G->irqs, A->armed);
	GUEST_DONE();
}

static void test_spiv(void)
{
	start(guest_spiv);
	run_to_end();
}

static void guest_reset(void)
{
	uint64_t t, v;
	int i;

	lazy_init();
	mark();
	t = rdtsc() + ms(50);
	A->pending = t;
	GUEST_SYNC(1);		/* KVM_SET_LAPIC with the same: nothing happens */
	v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
	CLAIM(v == (AREA_GPA | 1), "LAPIC state in TSC-deadline mode leaves the feature on", v, 0);
	CLAIM(A->host == ACTIVE, "and the area in use", A->host, 0);
	expect(t);
	A->pending = rdtsc() + ms(20);
	mark();
	GUEST_SYNC(2);		/* KVM_SET_LAPIC as for a reset */
	v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
	CLAIM(v == 0, "LAPIC state in another mode turns the feature off", v, 0);
	expect_none(40);
	lvtt(LVTT_TSCDEADLINE);
	for (i = 0; i < 5; i++) {
		G->irqs = 0;
		t = rdtsc() + ms(3);
		deadline(t);
		v = rdmsr(MSR_IA32_TSC_DEADLINE);
		CLAIM(v == t || rdtsc() >= t, "IA32_TSC_DEADLINE is the guest's own after RESET",
		      v, t);
		GUEST_SYNC(3);
		wait_until(t + ms(1000), 1);
		CLAIM(G->irqs == 1, "the timer is as ever after RESET", G->irqs, i);
		deadline(rdtsc() + ms(2));
		halt();
	}
	lvtt(0);
	lvtt(LVTT_TSCDEADLINE);
	GUEST_DONE();
}

static void check_untouched(const char *what)
{
	uint64_t *word = (uint64_t *)area;
	int i;

	for (i = 0; i < 8; i++)
		TEST_ASSERT(word[i] == (i == 2 ? 0 : 0x5a5a5a5a5a5a5a5a),
			    "not one byte of the area is written after %s: word %d is %#lx",
			    what, i, word[i]);
}

static void fill_area(void)
{
	memset(area, 0x5a, sizeof(*area));
	area->pending = 0;
}

static void test_reset(void)
{
	struct kvm_lapic_state lapic;
	struct kvm_lazy_tscdeadline before;

	start(guest_reset);
	TEST_ASSERT(run() == 1, "the guest is ready");
	vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic);
	vcpu_ioctl(vcpu, KVM_SET_LAPIC, &lapic);
	TEST_ASSERT(lazy_msr() == (AREA_GPA | 1), "the same LAPIC state leaves the MSR");
	TEST_ASSERT(run() == 2, "the guest goes on");
	before = *area;
	vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic);
	*(uint32_t *)(lapic.regs + LVTT) = LVTT_MASKED | TIMER_VECTOR;
	vcpu_ioctl(vcpu, KVM_SET_LAPIC, &lapic);
	TEST_ASSERT(lazy_msr() == 0, "the LAPIC state of a reset turns the feature off");
	TEST_ASSERT(!memcmp(&before, area, sizeof(before)), "RESET itself writes nothing");
	fill_area();
	do {
		vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic);
		check_untouched("RESET");
	} while (run());
	check_untouched("RESET");
}

static void guest_init_target(void)
{
	lazy_init();
	A->pending = rdtsc() + ms(50);
	GUEST_SYNC(1);
	CLAIM(false, "a vCPU that got an INIT does not go on", 0, 0);
}

static void guest_init_sender(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_ICR, 1ull << 32 | APIC_INT_ASSERT | APIC_DM_INIT);
	GUEST_DONE();
}

static void test_init(void)
{
	struct kvm_vcpu *vcpus[2];
	int i;

	vm = __vm_create_with_vcpus(VM_MODE_DEFAULT, 2, 128, guest_init_sender, vcpus);
	setup_vm();
	h->khz = __vcpu_ioctl(vcpus[0], KVM_GET_TSC_KHZ, NULL);
	for (i = 0; i < 2; i++)
		setup_vcpu(vcpus[i]);
	/* The second runs something else. */
	{
		struct kvm_regs regs;

		vcpu_regs_get(vcpus[1], &regs);
		regs.rip = (unsigned long)guest_init_target;
		vcpu_regs_set(vcpus[1], &regs);
	}
	vcpu = vcpus[1];
	TEST_ASSERT(run() == 1, "the second vCPU is ready");
	TEST_ASSERT(lazy_msr() == (AREA_GPA | 1), "the second vCPU has the feature on");
	vcpu = vcpus[0];
	run_to_end();
	vcpu = vcpus[1];
	run_for(vcpu, 100);
	TEST_ASSERT(lazy_msr() == 0, "INIT turns the feature off");
	TEST_ASSERT(deadline_msr() == 0, "INIT stops the timer");
	fill_area();
	for (i = 0; i < 3; i++) {
		run_for(vcpu, 30);
		check_untouched("INIT");
	}
}

static void guest_masked(void)
{
	uint64_t t;

	lazy_init();
	mark();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() + ms(5);
	set(t);
	wait_until(t + ms(20), -1ul);
	CLAIM(G->irqs == 0, "no interrupt while masked", G->irqs, 0);
	lvtt(LVTT_TSCDEADLINE);
	window();
	CLAIM(G->irqs == 1, "the interrupt comes when unmasked", G->irqs, 0);
	CLAIM(A->armed == 0, "armed is 0 then", A->armed, 0);
	cancel();
	expect_none(10);

	mark();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() + ms(5);
	set(t);
	spin_until(t + ms(10));
	t = rdtsc() + ms(60);
	set(t);
	lvtt(LVTT_TSCDEADLINE);
	window();
	CLAIM(G->irqs == 0, "unmasked with pending moved later: no interrupt", G->irqs, 0);
	CLAIM(A->armed == t, "unmasked with pending moved later: armed is it", A->armed, t);
	expect(t);

	mark();
	cancel();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() + ms(5);
	set(t);
	spin_until(t + ms(10));
	cancel();
	lvtt(LVTT_TSCDEADLINE);
	expect_none(20);
	CLAIM(A->armed == 0, "unmasked with nothing pending: armed is 0", A->armed, 0);

	mark();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() + ms(5);
	set(t);
	set(t + ms(5));
	spin_until(t + ms(10));
	lvtt(LVTT_TSCDEADLINE);
	window();
	CLAIM(G->irqs == 1, "unmasked with pending later than armed, but past: interrupt",
	      G->irqs, 0);
	CLAIM(delta(kick) == 1 && delta(rearm) == 0, "and no rearm", delta(kick), delta(rearm));
	CLAIM(A->armed == 0, "and armed is 0", A->armed, 0);

	/* A past deadline written while masked, and out to userspace with it. */
	mark();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() - 1000;
	A->pending = t;
	deadline(t);
	GUEST_SYNC(1);
	t = rdtsc() + ms(30);
	set(t);
	lvtt(LVTT_TSCDEADLINE);
	expect(t);

	mark();
	cancel();
	lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
	t = rdtsc() - 1000;
	A->pending = t;
	deadline(t);
	GUEST_SYNC(1);
	lvtt(LVTT_TSCDEADLINE);
	wait_until(rdtsc() + ms(1000), 1);
	CLAIM(G->irqs == 1, "an interrupt that waits for the LVT survives userspace", G->irqs, 0);
	GUEST_DONE();
}

static void test_masked(void)
{
	start(guest_masked);
	while (run())	/* as a VMM that saves and restores it */
		vcpu_set_msr(vcpu, MSR_IA32_TSC_DEADLINE, deadline_msr());
}

/*
 * A KICK that moves the timer to a deadline so near that KVM's timer advance
 * has it fire again at once.
 */
static void guest_advance(void)
{
	uint64_t t, i, from = 0, near = 0;

	lazy_init();
	for (i = 0; i < 4000; i++) {
		G->irqs = 0;
		lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
		t = rdtsc();
		A->pending = t;
		deadline(t);
		/* Aim at what is just ahead when the KICK comes. */
		t = rdtsc() + from + i % 16 * G->khz / 5000;
		A->pending = t;
		lvtt(LVTT_TSCDEADLINE);
		window();
		if (G->irqs)	/* too early: the KICK saw it past */
			from += us(1);
		else if (from)
			from -= us(1);
		near += !G->irqs;
		wait_until(t + ms(500), 1);
		CLAIM(G->irqs == 1, "a rearm that expires at once is not lost", i, near);
		cancel();
	}
	GUEST_DONE();
}

static void test_advance(void)
{
	start(guest_advance);
	run_to_end();
}

static void guest_standing(void)
{
	uint64_t t, v;
	int i;

	lazy_init();
	mark();
	t = rdtsc() + ms(10);
	set(t);
	expect(t);
	for (i = 0; i < 20; i++) {
		GUEST_SYNC(1);
		window();
		CLAIM(G->irqs == 1, "pending left standing gives no second interrupt", G->irqs, i);
		v = rdmsr(MSR_IA32_TSC_DEADLINE);
		CLAIM(v == 0, "pending left standing is no deadline", v, i);
		CLAIM(A->armed == 0, "pending left standing is not armed", A->armed, i);
	}
	G->step = 1;
	for (i = 0; i < 3; i++) {
		halt();
		CLAIM(G->irqs == 1, "pending left standing does not end a HLT", G->irqs, i);
	}
	for (i = 0; i < 10; i++) {
		G->irqs = 0;
		t = rdtsc() + ms(3);
		if (i & 1)
			set(t);
		else
			defer(t);
		while (!G->irqs && rdtsc() < t + ms(1000))
			halt();
		CLAIM(G->irqs == 1 && G->irq_tsc >= t, "the next deadline fires", G->irqs, i);
		GUEST_SYNC(2);
		window();
		CLAIM(G->irqs == 1, "pending left standing gives no second interrupt", G->irqs, i);
	}
	GUEST_DONE();
}

static void test_standing(void)
{
	start(guest_standing);
	thread_ms = 50;
	start_thread(msi_thread, &thread);
	while (run())	/* as QEMU does at stop and cont, or info registers */
		vcpu_set_msr(vcpu, MSR_IA32_TSC_DEADLINE, deadline_msr());
	thread_stop = 1;
	pthread_join(thread, NULL);
}

/*
 * KVM's timer fires early where (deadline - TSC) * 1000000 overflows, and if
 * NTP has the host's clock run faster than its TSC.  The guest finds nothing
 * due, and the deadline stays.
 */
static void guest_early(void)
{
	uint64_t t, v;

	lazy_init();
	mark();
	t = rdtsc() + ~0ul / 1000000 + ms(40);
	set(t);
	CLAIM(A->armed == t, "armed is the far deadline", A->armed, t);
	wait_until(rdtsc() + ms(300), 1);
	G->noise = G->irqs;
	CLAIM(delta(kick) == G->irqs && !delta(rearm),
	      "KICK with pending = armed gives the interrupt, even early", delta(kick), G->irqs);
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == t, "a deadline to come stays one after an early interrupt", v, t);
	CLAIM(A->armed == t, "a deadline to come is armed by SYNC after an early interrupt",
	      A->armed, t);
	cancel();
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	CLAIM(v == 0, "it can be cancelled", v, 0);
	GUEST_DONE();
}

static void test_early(void)
{
	start(guest_early);
	run_to_end();
	pr_info("# early: the timer for a far deadline fired %s\n",
		h->noise ? "early" : "not early");
}

static void guest_tsc(void)
{
	uint64_t t;
	int i;

	lazy_init();

	mark();
	t = rdtsc() + ms(10000);
	set(t);
	wrmsr(MSR_IA32_TSC_ADJUST, rdmsr(MSR_IA32_TSC_ADJUST) + ms(9970));
	expect(t);
	CLAIM(rdtsc() < t + ms(1000), "the TSC set ahead: the deadline fires in time", rdtsc(), t);
	cancel();

	mark();
	t = rdtsc() + ms(30);
	set(t);
	wrmsr(MSR_IA32_TSC_ADJUST, rdmsr(MSR_IA32_TSC_ADJUST) - ms(100));
	wait_until(t - ms(20), -1ul);
	CLAIM(G->irqs == 0, "the TSC set back: the deadline does not fire early", G->irqs, 0);
	expect(t);
	cancel();

	/* In HLT: the deadline is deferred after the TSC has moved. */
	mark();
	t = rdtsc() + ms(10000);
	set(t);
	wrmsr(MSR_IA32_TSC_ADJUST, rdmsr(MSR_IA32_TSC_ADJUST) + ms(9970));
	halt();
	CLAIM(G->irqs == 1 && G->irq_tsc >= t && G->irq_tsc < t + ms(1000),
	      "the TSC set ahead: the HLT ends in time", G->irqs, G->irq_tsc - t);
	cancel();

	/* By userspace. */
	for (i = 0; i < 2; i++) {
		mark();
		t = rdtsc() + ms(20000);
		if (i)
			A->pending = t;
		else
			set(t);
		G->arg = ms(19900);
		GUEST_SYNC(1);
		wait_until(t + ms(1000), 1);
		CLAIM(G->irqs == 1 && G->irq_tsc >= t, "userspace sets the TSC: the deadline fires",
		      G->irqs, t - rdtsc());
		CLAIM(G->irq_tsc < t + ms(1000), "and in time", G->irq_tsc - t, i);
		cancel();
	}
	GUEST_DONE();
}

static void test_tsc(void)
{
	start(guest_tsc);
	while (run())
		vcpu_set_msr(vcpu, MSR_IA32_TSC, vcpu_get_msr(vcpu, MSR_IA32_TSC) + h->arg);
}

/*
 * Save and restore
 */
static struct kvm_x86_state *state;
static struct kvm_lapic_state saved_lapic;
static struct kvm_lazy_tscdeadline saved_area;

static void save(void)
{
	state = vcpu_save_state(vcpu);
	vcpu_ioctl(vcpu, KVM_GET_LAPIC, &saved_lapic);
	saved_area = *area;
}

static void restore_msrs(bool lazy)
{
	struct kvm_msr_entry *e;
	int i;

	for (i = 0; i < state->msrs.nmsrs; i++) {
		e = &state->msrs.entries[i];
		if ((e->index == MSR_KVM_LAZY_TSCDEADLINE) != lazy)
			continue;
		/* Some do not read back as they may be written; none of them matters. */
		_vcpu_set_msr(vcpu, e->index, e->data);
	}
}

/* A new VM with the old memory; order: M(SRs), L(APIC), A(rea), Z: the lazy MSR. */
static void restore(const char *order)
{
	kvm_vm_release(vm);
	memset(area, 0, sizeof(*area));
	vcpu = vm_recreate_with_one_vcpu(vm);
	vcpu_set_cpuid_feature(vcpu, X86_FEATURE_TSC_DEADLINE_TIMER);
	vcpu_set_cpuid_feature(vcpu, X86_FEATURE_KVM_LAZY_TSCDEADLINE);
	vcpu_sregs_set(vcpu, &state->sregs);
	for (; *order; order++) {
		switch (*order) {
		case 'M':
			restore_msrs(false);
			break;
		case 'Z':
			restore_msrs(true);
			break;
		case 'L':
			vcpu_ioctl(vcpu, KVM_SET_LAPIC, &saved_lapic);
			break;
		case 'A':
			*area = saved_area;
			break;
		}
	}
	vcpu_xcrs_set(vcpu, &state->xcrs);
	vcpu_xsave_set(vcpu, state->xsave);
	vcpu_events_set(vcpu, &state->events);
	vcpu_mp_state_set(vcpu, &state->mp_state);
	vcpu_debugregs_set(vcpu, &state->debugregs);
	vcpu_regs_set(vcpu, &state->regs);
	kvm_x86_state_cleanup(state);
}

static void guest_save(void)
{
	uint64_t t, v, i = 0;

	lazy_init();
	for (;; i++) {
		G->irqs = 0;
		t = rdtsc() + ms(60);
		if (i & 1)
			set(t);
		else
			defer(t);	/* which only the area knows */
		GUEST_SYNC(1);
		if (G->arg) {
			v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
			CLAIM(v == (AREA_GPA | 1), "a VMM that knows the MSR restores it", v, i);
			CLAIM(A->host == ACTIVE, "the guest goes on lazily", A->host, i);
		} else {
			v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
			CLAIM(v == 0, "the MSR is 0 where a VMM does not know it", v, i);
			CLAIM(A->armed == 0 && !(A->host & ACTIVE),
			      "the guest finds out that it has to write", A->armed, A->host);
		}
		if (i & 2) {
			wait_until(t + ms(1000), 1);
		} else {
			while (!G->irqs && rdtsc() < t + ms(1000))
				halt();
		}
		CLAIM(G->irqs >= 1, "a deadline survives save and restore", G->irqs, i);
		if (G->irq_tsc < t) {
			/* Spurious is allowed: then the guest sets it again. */
			G->noise++;
			G->irqs = 0;
			defer(t);
			while (!G->irqs && rdtsc() < t + ms(1000))
				halt();
			CLAIM(G->irqs && G->irq_tsc >= t, "and is there after a spurious interrupt",
			      G->irqs, i);
		}
		cancel();
		/* One more, as the guest of a VMM that may know nothing. */
		G->irqs = 0;
		t = rdtsc() + ms(5);
		defer(t);
		while (!G->irqs && rdtsc() < t + ms(1000))
			halt();
		CLAIM(G->irqs, "the next deadline fires after restore", G->irqs, i);
		cancel();
		if (!G->arg)
			lazy_on_at(AREA_GPA, 0);
	}
}

static void test_save(void)
{
	static const char * const orders[] = {
		"LMZA", "LMAZ", "LZMA", "LZAM", "LAMZ", "LAZM",
		"MLZA", "MLAZ", "MZLA", "MZAL", "MALZ", "MAZL",
		"ZLMA", "ZLAM", "ZMLA", "ZMAL", "ZALM", "ZAML",
		"ALMZ", "ALZM", "AMLZ", "AMZL", "AZLM", "AZML",
	};
	int i, round;

	start(guest_save);
	h->arg = 1;
	TEST_ASSERT(run() == 1, "the guest is ready");
	for (i = 0; i < ARRAY_SIZE(orders); i++)
		for (round = 0; round < 2; round++) {
			pr_debug("# order %s\n", orders[i]);
			save();
			TEST_ASSERT(area->armed == 0 && !(area->host & 1),
				    "what is saved says that nothing is armed");
			restore(orders[i]);
			run();
		}
	pr_info("# save: %lu spurious interrupts in %lu restores\n", h->noise,
		2 * ARRAY_SIZE(orders));
}

/* The VMM has never heard of the MSR, and restores as QEMU does. */
static void test_save_unknown(void)
{
	static const char * const orders[] = { "LMA", "LAM", "ALM" };
	int i, round;

	start(guest_save);
	TEST_ASSERT(run() == 1, "the guest is ready");
	for (i = 0; i < ARRAY_SIZE(orders); i++)
		for (round = 0; round < 4; round++) {
			save();
			restore(orders[i]);
			run();
		}
}

/* A vCPU in HLT, to a VMM that knows the MSR and to one that does not. */
static void guest_save_halted(void)
{
	uint64_t t;

	lazy_init();
	for (;;) {
		G->irqs = 0;
		t = rdtsc() + ms(250);
		defer(t);
		do {
			halt();
		} while (!G->irqs && rdtsc() < t + ms(1000));
		CLAIM(G->irqs == 1 && G->irq_tsc >= t,
		      "a deadline survives save and restore in HLT", G->irqs, t - rdtsc());
		cancel();
		GUEST_SYNC(1);
		lazy_on_at(AREA_GPA, 0);
	}
}

static void test_save_halted(void)
{
	static const char * const orders[] = { "LMZA", "ZAML", "LMA", "ALM" };
	struct kvm_mp_state mp;
	int i;

	start(guest_save_halted);
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		run_for(vcpu, 50);
		vcpu_mp_state_get(vcpu, &mp);
		TEST_ASSERT(mp.mp_state == KVM_MP_STATE_HALTED, "the vCPU is in HLT");
		save();
		restore(orders[i]);
		run();
	}
}

/*
 * Memory
 */
static void guest_dirty(void)
{
	uint64_t far;

	lazy_init();
	G->step = 0;
	GUEST_SYNC(1);
	far = rdtsc() + ms(20000);
	A->pending = far;
	guest_step(1);		/* the log is cleared */
	deadline(far);		/* UPDATE writes armed */
	guest_step(2);		/* the log is looked at, which clears it */
	GUEST_SYNC(2);		/* PARK writes armed and host */
	GUEST_DONE();
}

static unsigned long dirty_pages(void)
{
	unsigned long log = 0;

	kvm_vm_get_dirty_log(vm, AREA_SLOT, &log);
	return log;
}

static void *dirty_thread(void *arg)
{
	wait_step(1);
	dirty_pages();
	TEST_ASSERT(dirty_pages() == 0, "nothing is dirty while the guest does nothing");
	h->step = 11;
	wait_step(2);
	TEST_ASSERT(dirty_pages() == 1, "UPDATE's write of armed is in the dirty log");
	h->step = 12;
	return NULL;
}

static void test_dirty(void)
{
	start(guest_dirty);
	vm_mem_region_set_flags(vm, AREA_SLOT, KVM_MEM_LOG_DIRTY_PAGES);
	TEST_ASSERT(run() == 1, "the guest is ready");
	start_thread(dirty_thread, NULL);
	TEST_ASSERT(run() == 2, "the guest has done its UPDATE");
	pthread_join(thread, NULL);
	TEST_ASSERT(dirty_pages() == 1, "PARK's writes are in the dirty log");
	TEST_ASSERT(dirty_pages() == 0, "nothing is dirty while parked");
	vm_mem_region_set_flags(vm, AREA_SLOT, 0);
	run_to_end();
}

static void slot_remove(void)
{
	vm_set_user_memory_region(vm, AREA_SLOT, 0, AREA_GPA, 0, NULL);
}

static void slot_add(void)
{
	vm_set_user_memory_region(vm, AREA_SLOT, 0, AREA_GPA, AREA_PAGES * 4096, area);
}

/* The thread takes the memslot away at odd steps and puts it back at even ones. */
static void *slot_thread(void *arg)
{
	uint64_t step;

	for (step = 1; !thread_stop; step++) {
		while (h->step != step && !thread_stop)
			nap(1);
		if (thread_stop)
			break;
		if (step & 1)
			slot_remove();
		else
			slot_add();
		h->step = 0;
	}
	return NULL;
}

static void guest_slot(void)
{
	uint64_t t, v;

	lazy_init();
	mark();
	t = rdtsc() + ms(50);
	set(t);
	guest_step(1);
	wait_until(t + ms(1000), 1);
	CLAIM(G->irqs == 1, "a timer fires though its area is gone", G->irqs, t - rdtsc());
	GUEST_SYNC(1);
	v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
	CLAIM(v == 0, "an area that is gone at RESUME turns the feature off", v, 0);
	G->irqs = 0;
	t = rdtsc() + ms(10);
	deadline(t);
	wait_until(t + ms(1000), 1);
	CLAIM(G->irqs == 1, "the timer is as ever then", G->irqs, 0);
	guest_step(2);
	lazy_on_at(AREA_GPA, 0);
	CLAIM(A->host == ACTIVE, "the feature can be enabled again", A->host, 0);

	/* A HLT, a READ and writes without the area. */
	mark();
	t = rdtsc() + ms(50);
	set(t);
	guest_step(3);
	v = rdmsr(MSR_IA32_TSC_DEADLINE);
	deadline(t);
	while (!G->irqs && rdtsc() < t + ms(1000))
		halt();
	CLAIM(G->irqs >= 1, "a HLT ends though the area is gone", G->irqs, v);
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, 0);
	guest_step(4);
	GUEST_DONE();
}

static void test_memslot(void)
{
	start(guest_slot);
	start_thread(slot_thread, NULL);
	run_to_end();
	thread_stop = 1;
	pthread_join(thread, NULL);
}

/* The memslot is away while the timer fires, and nobody leaves KVM_RUN. */
static void guest_slot_stale(void)
{
	uint64_t t;

	lazy_init();
	mark();
	t = rdtsc() + ms(30);
	set(t);
	guest_step(1);
	spin_until(t + ms(60));
	guest_step(2);
	wait_until(rdtsc() + ms(1000), 1);
	CLAIM(G->irqs >= 1, "a timer that fired while the area was gone gives its interrupt",
	      G->irqs, 0);
	G->irqs = 0;
	t = rdtsc() + ms(20);
	set(t);
	wait_until(t + ms(1000), 1);
	CLAIM(G->irqs >= 1, "the deadline after it is not lost to a stale armed", A->armed, t);
	GUEST_DONE();
}

static void test_memslot_stale(void)
{
	start(guest_slot_stale);
	start_thread(slot_thread, NULL);
	run_to_end();
	thread_stop = 1;
	pthread_join(thread, NULL);
}

/* The memslot is away while the vCPU leaves KVM_RUN, and back when it enters. */
static void guest_slot_exit(void)
{
	uint64_t t;
	int i;

	lazy_init();
	for (i = 0; i < 2; i++) {
		mark();
		t = rdtsc() + ms(60);
		set(t);
		guest_step(1);
		GUEST_SYNC(1);
		wait_until(t + ms(1000), 1);
		CLAIM(G->irqs >= 1, "the timer fires", G->irqs, 0);
		cancel();
		G->irqs = 0;
		t = rdtsc() + ms(20);
		if (i) {
			set(t);
			wait_until(t + ms(1000), 1);
		} else {
			G->step = 7;	/* the thread's MSIs end the HLT, if need be */
			defer(t);
			while (!G->irqs && rdtsc() < t + ms(1000))
				halt();
		}
		CLAIM(G->irqs >= 1, "a deadline is not lost to an area that PARK could not write",
		      A->armed, A->host);
		cancel();
		if (i == 0) {
			G->step = 0;
			lazy_on_at(AREA_GPA, 0);
		}
	}
	GUEST_DONE();
}

static void *slot_exit_thread(void *arg)
{
	while (!thread_stop) {
		nap(5);
		if (h->step == 1) {
			slot_remove();
			h->step = 0;
		} else if (h->step == 7) {
			send_msi(OTHER_VECTOR);
		}
	}
	return NULL;
}

static void test_memslot_exit(void)
{
	start(guest_slot_exit);
	start_thread(slot_exit_thread, NULL);
	while (run())
		slot_add();
	thread_stop = 1;
	pthread_join(thread, NULL);
}

/*
 * Hostile guests
 */
static void guest_hostile(void)
{
	static const uint64_t values[] = {
		~0ul, 0, 1, 2, 1ul << 63, ~0ul >> 1, 0xffffffff, 1ul << 32, 0x8000000000000001,
	};
	volatile uint64_t *word = (volatile uint64_t *)AREA_GPA;
	uint64_t v, round, end;
	unsigned int i, j;

	lazy_init();
	/* Values by the guest in the first round, by another thread in the second. */
	for (round = 0; round < 2; round++) {
		G->step = round + 1;
		for (i = 0; i < ARRAY_SIZE(values); i++)
			for (j = 0; j < 8 * 9; j++) {
				if (!round)
					word[j % 8] = values[(i + j / 8) % 9];
				switch (j % 6) {
				case 0:
					deadline(values[(i * 5 + j) % 9]);
					break;
				case 1:
					v = rdmsr(MSR_IA32_TSC_DEADLINE);
					break;
				case 2:
					GUEST_SYNC(1);
					wrmsr(MSR_KVM_LAZY_TSCDEADLINE, AREA_GPA | 1);
					break;
				case 3:
					lvtt(j & 8 ? LVTT_TSCDEADLINE : LVTT_TSCDEADLINE | LVTT_MASKED);
					break;
				case 4:
					if (j % 12 == 4)
						halt();
					break;
				case 5:
					lvtt(0);
					lvtt(LVTT_TSCDEADLINE);
					break;
				}
				window();
			}
	}
	/* Deadlines for all of 200 ms, under fire. */
	end = rdtsc() + ms(200);
	while (rdtsc() < end) {
		defer(rdtsc() + us(200));
		halt();
		set(rdtsc() + us(100));
		halt();
	}
	/* The area is where the host has something to say, too. */
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, COUNTS_GPA | 1);
	for (i = 0; i < 100; i++) {
		counts();
		deadline(rdtsc() + us(20));
		window();
	}
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, 0);
	G->step = 9;
	lvtt(LVTT_TSCDEADLINE);
	lazy_on_at(LAST_GPA, 0);
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, 0);
	deadline(0);
	window();
	G->irqs = 0;
	v = rdtsc() + ms(20);
	deadline(v);
	wait_until(v + ms(1000), 1);
	CLAIM(G->irqs == 1 && G->irq_tsc >= v, "the timer works after all that", G->irqs, 0);
	GUEST_DONE();
}

static void *hostile_thread(void *arg)
{
	uint64_t *word = (uint64_t *)area;
	unsigned int seed = 1;
	int n = 0;

	while (!thread_stop) {
		if (h->step == 2)
			word[rand_r(&seed) % 3] = rand_r(&seed) % 3 ? rand_r(&seed) :
				(uint64_t)rand_r(&seed) << 33 | rand_r(&seed);
		if (n++ % 64 == 0) {
			nap(1);
			send_msi(OTHER_VECTOR);
		}
	}
	return NULL;
}

static void test_hostile(void)
{
	start(guest_hostile);
	start_thread(hostile_thread, NULL);
	run_to_end();
	thread_stop = 1;
	pthread_join(thread, NULL);
}

/*
 * Counters
 */
static void guest_hypercall(void)
{
	static const struct { uint64_t size, result; } cases[] = {
		{ 0, 0 }, { 7, 0 }, { 8, 8 }, { 15, 8 }, { 111, 104 }, { 112, 112 },
		{ 4096, 112 }, { ~0ul, 112 }, { 1ul << 32, 112 },
	};
	volatile unsigned char *byte = (volatile unsigned char *)COUNTS_GPA;
	uint64_t r, at;
	unsigned int i, j;

	for (at = 0; at < 6; at += 5)
		for (i = 0; i < ARRAY_SIZE(cases); i++) {
			for (j = 0; j < 256; j++)
				byte[j] = 0xa5;
			barrier_();
			r = kvm_hypercall(KVM_HC_EXIT_COUNTS, COUNTS_GPA + at, cases[i].size, 0, 0);
			barrier_();
			CLAIM(r == cases[i].result, "as many whole counters as fit are written",
			      r, cases[i].size);
			for (j = 0; j < 256; j++)
				CLAIM((j >= at && j < at + r) || byte[j] == 0xa5,
				      "nothing else is written", j, cases[i].size);
			if (r)
				CLAIM(byte[at + 7] == 0, "the counters are written", byte[at + 7], 0);
		}
	r = kvm_hypercall(KVM_HC_EXIT_COUNTS, NO_RAM_GPA, 112, 0, 0);
	CLAIM(r == -KVM_EFAULT, "a bad address gives -EFAULT", r, 0);
	r = kvm_hypercall(KVM_HC_EXIT_COUNTS, ~0ul, 112, 0, 0);
	CLAIM(r == -KVM_EFAULT, "an address beyond all gives -EFAULT", r, 0);
	r = kvm_hypercall(KVM_HC_EXIT_COUNTS, DATA_GPA + DATA_PAGES * 4096 - 8, 112, 0, 0);
	CLAIM(r == -KVM_EFAULT, "a buffer that leaves the RAM gives -EFAULT", r, 0);
	r = kvm_hypercall(0x4c55, COUNTS_GPA, 112, 0, 0);
	CLAIM(r == -KVM_ENOSYS, "another number gives -ENOSYS", r, 0);
	GUEST_DONE();
}

static void test_hypercall(void)
{
	start(guest_hypercall);
	run_to_end();
}

static void guest_counters(void)
{
	struct kvm_exit_counts a, b;
	uint64_t sum, i, lazy;

	guest_init();
	for (lazy = 0; lazy < 2; lazy++) {
		if (lazy)
			lazy_on_at(AREA_GPA, 0);
		G->irqs = G->others = G->shadows = 0;
		a = counts();
		for (i = 0; i < 10; i++) {
			if (lazy)
				defer(rdtsc() + ms(1));
			else
				deadline(rdtsc() + ms(1));
			halt();
		}
		cancel();
		CLAIM(G->irqs == 10, "ten deadlines end ten HLTs", G->irqs, lazy);
		for (i = 0; i < 20; i++)
			deadline(rdtsc() + ms(10000));
		deadline(0);
		for (i = 0; i < 5; i++) {
			x2apic_write_reg(APIC_ICR, APIC_DEST_SELF | APIC_DM_FIXED | OTHER_VECTOR);
			window();
		}
		CLAIM(G->others == 5, "five IPIs come", G->others, lazy);
		for (i = 0; i < 30; i++)
			inw(TEST_PORT);
		for (i = 0; i < 40; i++)
			kvm_hypercall(KVM_HC_EXIT_COUNTS, COUNTS_GPA, 0, 0, 0);
		b = counts();
		CLAIM(b.halt - a.halt + G->shadows == 10, "each HLT is counted",
		      b.halt - a.halt, G->shadows);
		CLAIM(b.tsc_deadline - a.tsc_deadline == (lazy ? 21 : 31),
		      "each write of IA32_TSC_DEADLINE is counted",
		      b.tsc_deadline - a.tsc_deadline, lazy);
		CLAIM(b.icr - a.icr == 5, "each write of the ICR is counted", b.icr - a.icr, lazy);
		sum = b.msr_write - a.msr_write;
		CLAIM(sum == (lazy ? 21 : 31) + 5 + 15 || sum == (lazy ? 21 : 31) + 5,
		      "each WRMSR is counted, EOIs among them", sum, lazy);
		CLAIM(b.io - a.io == 30, "each port access is counted", b.io - a.io, lazy);
		CLAIM(b.hypercall - a.hypercall == 41, "each hypercall is counted",
		      b.hypercall - a.hypercall, lazy);
		CLAIM(b.timer_interrupt - a.timer_interrupt == 10,
		      "each timer interrupt is counted", b.timer_interrupt - a.timer_interrupt, lazy);
		CLAIM(b.kick - a.kick == (lazy ? 10 : 0), "kicks are counted with the feature on only",
		      b.kick - a.kick, lazy);
		CLAIM(b.halt_sync - a.halt_sync == (lazy ? 10 : 0), "so are the HALTs that set a timer",
		      b.halt_sync - a.halt_sync, lazy);
		CLAIM(b.rearm == a.rearm && b.cancelled == a.cancelled, "nothing was rearmed",
		      b.rearm, b.cancelled);
		sum += 10 + 30 + 41;
		CLAIM(b.exits - a.exits >= sum, "all exits are counted", b.exits - a.exits, sum);
		CLAIM(b.exits - a.exits < sum + 2000, "no exit is counted twice",
		      b.exits - a.exits, sum);
		for (i = 0; i < sizeof(a) / 8; i++)
			CLAIM(((uint64_t *)&b)[i] >= ((uint64_t *)&a)[i], "no counter goes back", i, 0);
	}
	GUEST_DONE();
}

static void test_counters(void)
{
	start(guest_counters);
	run_to_end();
}

static void guest_hlt_runs(void)
{
	uint64_t t, v;

	lazy_init();
	CLAIM(!(A->host & ACTIVE), "without HLT exits ACTIVE is clear", A->host, 0);
	mark();
	t = rdtsc() + ms(30);
	defer(t);
	CLAIM(A->armed == t, "defer() then writes the MSR", A->armed, t);
	GUEST_SYNC(1);
	CLAIM(!(A->host & ACTIVE), "without HLT exits ACTIVE is clear after RESUME", A->host, 0);
	CLAIM(A->armed == t, "and the area is in use", A->armed, t);
	v = rdmsr(MSR_KVM_LAZY_TSCDEADLINE);
	CLAIM(v == (AREA_GPA | 1), "and the feature is on", v, 0);
	while (!G->irqs && rdtsc() < t + ms(1000))
		halt();
	CLAIM(G->irqs == 1 && G->irq_tsc >= t, "the HLT ends", G->irqs, 0);
	GUEST_DONE();
}

static void test_hlt_runs(void)
{
	int exits = kvm_check_cap(KVM_CAP_X86_DISABLE_EXITS);

	if (!(exits & KVM_X86_DISABLE_EXITS_HLT))
		exit(KSFT_SKIP);
	vm = __vm_create(VM_MODE_DEFAULT, 1, 64);
	vm_enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT);
	vcpu = vm_vcpu_add(vm, 0, guest_hlt_runs);
	setup_vm();
	setup_vcpu(vcpu);
	h->khz = __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);
	run_to_end();
}

/*
 * Much of the same
 */
static uint64_t seed_;

static uint64_t rnd(uint64_t n)
{
	seed_ = seed_ * 6364136223846793005ull + 1442695040888963407ull;
	return (seed_ >> 33) % n;
}

static void guest_hammer(void)
{
	uint64_t i, t = 0, lazy = 0, spurious = 0, fired = 0;

	guest_init();
	seed_ = G->arg;
	for (i = 0; i < 10000; i++) {
		if (!t) {
			t = rdtsc() + us(20 + rnd(1500));
			if (!lazy)
				deadline(t);
			else
				set(t);
		} else if (lazy && !rnd(4)) {
			t = rdtsc() + us(20 + rnd(1500));
			set(t);
		}
		if (lazy)
			wrmsr(MSR_KVM_LAZY_TSCDEADLINE, rnd(2) ? 0 : AREA_GPA);
		else
			lazy_on_at(AREA_GPA, t);
		lazy = !lazy;
		if (!rnd(50))
			GUEST_SYNC(i + 1);
		window();
		while (t && rdtsc() > t + ms(1)) {	/* late, so wait for it */
			window();
			if (G->irqs && G->irq_tsc >= t)
				break;
			CLAIM(rdtsc() < t + ms(1000), "no timer is lost in enabling and disabling",
			      i, lazy);
		}
		if (G->irqs) {
			if (t && G->irq_tsc >= t) {
				t = 0;
				if (lazy)
					cancel();
				fired++;
			} else {
				spurious++;
				if (t && !lazy)
					deadline(t);
			}
			G->irqs = 0;
		}
	}
	G->noise = fired << 32 | spurious;
	CLAIM(fired > 100, "timers have fired", fired, spurious);
	CLAIM(spurious <= 200, "few interrupts are spurious", fired, spurious);
	GUEST_DONE();
}

static void test_hammer(void)
{
	start(guest_hammer);
	h->arg = time(NULL);
	run_to_end();
	pr_info("# hammer: %lu timers fired, %lu spurious\n", h->noise >> 32,
		h->noise & 0xffffffff);
}

static void guest_sleeps(void)
{
	uint64_t i, t, spurious = 0;

	lazy_init();
	seed_ = G->arg;
	mark();
	for (i = 0; i < 1000; i++) {
		t = rdtsc() + us(10 + rnd(rnd(10) ? 300 : 3000));
		G->irqs = 0;
		do {
			if (rnd(4))
				defer(t);
			else
				set(t);
			if (!rnd(30))
				GUEST_SYNC(i + 1);
			halt();
			if (rdtsc() < t)
				spurious++;
			CLAIM(rdtsc() < t + ms(1000), "no sleep is longer than asked", rdtsc() - t, i);
		} while (rdtsc() < t);
		if (rnd(2))
			cancel();
	}
	CLAIM(spurious <= 20, "few sleeps end early", spurious, 0);
	/* The last deadline left standing may be given again, but not for ever. */
	CLAIM(delta(kick) <= 1100, "one kick a sleep", delta(kick), delta(rearm));
	G->noise = spurious;
	GUEST_DONE();
}

static void test_sleeps(void)
{
	start(guest_sleeps);
	h->arg = time(NULL);
	run_to_end();
	pr_info("# sleeps: %lu of 1000 had a spurious wake-up\n", h->noise);
}

static void guest_random(void)
{
	uint64_t i, want = 0, v, spurious = 0, fired = 0, armed;

	lazy_init();
	seed_ = G->arg;
	for (i = 0; i < 20000; i++) {
		switch (rnd(24)) {
		case 0 ... 9:
			want = rdtsc() + us(5 + rnd(1000));
			set(want);
			break;
		case 10 ... 12:
			want = 0;
			cancel();
			break;
		case 13:
			want = 0;
			cancel();
			deadline(0);
			break;
		case 14:
			if (!rnd(20))
				GUEST_SYNC(i + 1);
			break;
		case 15:
			v = rdmsr(MSR_IA32_TSC_DEADLINE);
			CLAIM(v == want || (want && v == 0 && rdtsc() >= want),
			      "READ gives what the guest wants", v, want);
			break;
		case 16 ... 17:
			want = rdtsc() + us(5 + rnd(300));
			defer(want);
			halt();
			if (!G->irqs || G->irq_tsc < want)
				commit();	/* woken by an earlier one */
			break;
		case 18:
			if (!want)
				break;
			halt();
			if (!G->irqs || G->irq_tsc < want)
				commit();	/* woken by an earlier one */
			break;
		case 19:	/* mask and unmask */
			lvtt(LVTT_TSCDEADLINE | LVTT_MASKED);
			if (rnd(2)) {
				want = rdtsc() + us(5 + rnd(100));
				set(want);
			}
			spin_until(rdtsc() + us(rnd(50)));
			lvtt(LVTT_TSCDEADLINE);
			break;
		case 20:	/* another mode and back: the guest's timer is off */
			if (rnd(8))
				break;
			lvtt(0);
			want = 0;
			cancel();
			lvtt(LVTT_TSCDEADLINE);
			break;
		default:
			spin_until(rdtsc() + us(rnd(40)));
		}
		armed = A->armed;
		CLAIM(!armed || armed + ms(1000) > rdtsc(), "armed is never long past", armed, i);
		if (want && rdtsc() < want)
			CLAIM(armed, "a deadline to come is armed", armed, i);
		window();
		while (want && rdtsc() > want + ms(1)) {
			window();
			if (G->irqs && G->irq_tsc >= want)
				break;
			CLAIM(rdtsc() < want + ms(1000), "no deadline is lost", i, want);
		}
		if (G->irqs) {
			if (want && G->irq_tsc >= want) {
				want = 0;
				if (rnd(2))
					cancel();
				fired++;
			} else {
				spurious++;
				if (want)
					set(want);
			}
			G->irqs = 0;
		}
	}
	G->noise = fired << 32 | spurious;
	CLAIM(fired > 100, "timers have fired", fired, spurious);
	CLAIM(spurious < 200, "few interrupts are spurious", fired, spurious);
	GUEST_DONE();
}

static void test_random(void)
{
	start(guest_random);
	h->arg = time(NULL);
	run_to_end();
	pr_info("# random: %lu timers fired, %lu spurious; STI's shadow was lost %lu times\n",
		h->noise >> 32, h->noise & 0xffffffff, h->shadows);
}

static const struct subtest {
	const char *name;
	void (*code)(void);
	int limit;		/* seconds */
} subtests[] = {
	{ "cpuid", test_cpuid, 20 },
	{ "cpuid_again", test_cpuid_again, 20 },
	{ "no_feature", test_no_feature, 20 },
	{ "msr", test_msr, 20 },
	{ "readonly", test_readonly, 20 },
	{ "area", test_area, 20 },
	{ "update", test_update, 20 },
	{ "kick", test_kick, 20 },
	{ "halt", test_halt, 20 },
	{ "halt_signals", test_halt_signals, 20 },
	{ "read", test_msr_read, 20 },
	{ "park", test_park, 20 },
	{ "token", test_token, 20 },
	{ "clear", test_clear, 20 },
	{ "spiv", test_spiv, 20 },
	{ "reset", test_reset, 20 },
	{ "init", test_init, 20 },
	{ "masked", test_masked, 20 },
	{ "advance", test_advance, 20 },
	{ "standing", test_standing, 20 },
	{ "early", test_early, 20 },
	{ "tsc", test_tsc, 20 },
	{ "save", test_save, 60 },
	{ "save_unknown", test_save_unknown, 20 },
	{ "save_halted", test_save_halted, 20 },
	{ "dirty", test_dirty, 20 },
	{ "memslot", test_memslot, 20 },
	{ "memslot_stale", test_memslot_stale, 20 },
	{ "memslot_exit", test_memslot_exit, 20 },
	{ "hostile", test_hostile, 30 },
	{ "hypercall", test_hypercall, 20 },
	{ "counters", test_counters, 20 },
	{ "hlt_runs", test_hlt_runs, 20 },
	{ "hammer", test_hammer, 60 },
	{ "sleeps", test_sleeps, 60 },
	{ "random", test_random, 60 },
};

/* What the vCPU was at when the time was over; KVM_RUN has returned for it. */
static void time_over(int sig)
{
	struct kvm_lapic_state lapic;
	struct kvm_regs regs;

	printf("# the time limit has passed\n");
	if (vcpu && !__vcpu_ioctl(vcpu, KVM_GET_REGS, &regs) &&
	    !__vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic))
		printf("# rip %#llx rflags %#llx tsc %#lx deadline %#lx msr %#lx lvtt %#x irr %#x isr %#x\n",
		       regs.rip, regs.rflags, vcpu_get_msr(vcpu, MSR_IA32_TSC), deadline_msr(),
		       lazy_msr(), *(uint32_t *)(lapic.regs + LVTT),
		       *(uint32_t *)(lapic.regs + 0x230), *(uint32_t *)(lapic.regs + 0x130));
	if (area)
		printf("# armed %#llx host %#llx pending %#llx; step %lu irqs %lu\n", area->armed,
		       area->host, area->pending, h ? h->step : 0, h ? h->irqs : 0);
	fflush(stdout);
	_exit(124);
}

static bool run_subtest(const struct subtest *t)
{
	struct sigaction action = { .sa_handler = time_over };
	struct timespec began;
	int status, waited;
	pid_t child;

	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &began);
	child = fork();
	TEST_ASSERT(child >= 0, "fork()");
	if (!child) {
		sigaction(SIGALRM, &action, NULL);
		alarm(t->limit);
		t->code();
		fflush(stdout);
		_exit(0);
	}
	/* In case that even the alarm is not served. */
	for (waited = 0; !waitpid(child, &status, WNOHANG); waited++) {
		if (waited == (t->limit + 5) * 100)
			kill(child, SIGKILL);
		nap(10);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP) {
		ksft_test_result_skip("%s\n", t->name);
		return true;
	}
	ksft_test_result(WIFEXITED(status) && !WEXITSTATUS(status), "%s%s (%.1f s)\n", t->name,
			 WIFEXITED(status) && WEXITSTATUS(status) == 124 ? " timed out" :
			 WIFSIGNALED(status) ? " was killed" : "",
			 timespec_to_ns(timespec_elapsed(began)) / 1e9);
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

int main(int argc, char *argv[])
{
	unsigned int i, n = 0;
	int j;

	if (argc > 1 && !strcmp(argv[1], "-l")) {
		for (i = 0; i < ARRAY_SIZE(subtests); i++)
			puts(subtests[i].name);
		return 0;
	}
	ksft_print_header();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_TSC_DEADLINE_TIMER));
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_KVM_LAZY_TSCDEADLINE));

	ksft_set_plan(argc > 1 ? argc - 1 : ARRAY_SIZE(subtests));
	for (i = 0; i < ARRAY_SIZE(subtests); i++) {
		for (j = 1; j < argc && strcmp(argv[j], subtests[i].name); j++)
			;
		if (argc > 1 && j == argc)
			continue;
		n++;
		run_subtest(&subtests[i]);
	}
	TEST_ASSERT(n == ksft_plan, "no such sub-test");
	ksft_print_cnts();
	return ksft_cnt.ksft_fail ? KSFT_FAIL : KSFT_PASS;
}
