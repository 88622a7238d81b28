// SPDX-License-Identifier: GPL-2.0-only
/*
 * A storm on several vCPUs of one virtual machine, each with an area of its own,
 * while userspace takes them out of KVM_RUN, saves and restores them, resets them
 * and moves their threads from CPU to CPU. The last of several vCPUs is hotplugged: it
 * comes when the others are in their storm. It is there for what a debug kernel has
 * to say; that no vCPU stands still for long is checked, too.
 *
 *   smp_storm [SECONDS [VCPUS]]
 *
 * Built by build.sh against the library of the kernel's selftests.
 */
#define _GNU_SOURCE
#include <asm/kvm_para.h>
#include <linux/kvm_para.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#include "test_util.h"
#include "kvm_util.h"
#include "processor.h"
#include "apic.h"

#define TSC_DEADLINE  0x6e0
#define LVTT	      0x320
#define DEADLINE_MODE BIT(18)
#define TIMER_VECTOR  0x60
#define AREA_GPA      0x40000000ul
#define SLOT	      10
#define MAX_VCPUS     16
#define STANDSTILL    30 /* seconds without an expiry: a timer was lost */
#define PLUG_AFTER    20 /* expiries of each other vCPU */
#define ACTIVE	      KVM_LAZY_TSCDEADLINE_ACTIVE

/* Linux 6.12's library does by itself what 6.1's has to be asked for. */
void vm_init_descriptor_tables(struct kvm_vm *vm) __attribute__((weak));
void vcpu_init_descriptor_tables(struct kvm_vcpu *vcpu) __attribute__((weak));

/* One page: the areas, and behind them what guest and host tell each other. */
struct shared {
	struct kvm_lazy_tscdeadline area[MAX_VCPUS];
	struct {
		u64 irqs, expired, starts, seed;
	} vcpu[MAX_VCPUS];
	u64 khz, stop;
};

#define G ((volatile struct shared *)AREA_GPA)

/*
 * Guest.
 */
static u64 self(void)
{
	return x2apic_read_reg(APIC_ID);
}

static u64 below(u64 id, u64 n)
{
	G->vcpu[id].seed = G->vcpu[id].seed * 6364136223846793005ul + 1442695040888963407ul;
	return (G->vcpu[id].seed >> 33) % n;
}

static u64 in_us(u64 n)
{
	return rdtsc() + n * G->khz / 1000;
}

/* See fix_shadow() in lazy_tscdeadline_test.c. */
static void timer_interrupt(struct ex_regs *regs)
{
	if (*(unsigned char *)regs->rip == 0xf4)
		regs->rip++;
	G->vcpu[self()].irqs++;
	x2apic_write_reg(APIC_EOI, 0);
}

/* Interrupts are on in these two only, which spare the red zone and know of no SSE. */
#define XMM "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
	    "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static void halt(void)
{
	asm volatile("lea -128(%%rsp), %%rsp; sti; hlt; cli; lea 128(%%rsp), %%rsp"
		     :
		     :
		     : "memory", XMM);
}

static void window(void)
{
	asm volatile("lea -128(%%rsp), %%rsp; sti; nop; nop; cli; lea 128(%%rsp), %%rsp"
		     :
		     :
		     : "memory", XMM);
}

static void set(u64 id, u64 t)
{
	u64 a;

	G->area[id].pending = t;
	a = G->area[id].armed;
	if (!a || t < a)
		wrmsr(TSC_DEADLINE, t);
}

static void defer(u64 id, u64 t)
{
	G->area[id].pending = t;
	if (!(G->area[id].host & ACTIVE))
		set(id, t);
}

/* An interrupt that comes early or finds nothing due sets the deadline again. */
static void sleep_until(u64 id, u64 t)
{
	while (rdtsc() < t) {
		defer(id, t);
		halt();
	}
	G->area[id].pending = 0;
	G->vcpu[id].expired++;
}

static void turn(u64 id)
{
	u64 i, t = in_us(100 + below(id, 3000));

	switch (below(id, 6)) {
	case 0: /* pushed out, mostly without an exit */
		for (i = 0; i < 200; i++)
			set(id, in_us(500 + below(id, 1000)));
		break;
	case 1: /* a deadline that passes while the guest is busy */
		set(id, in_us(200));
		set(id, t);
		while (rdtsc() < t)
			window();
		break;
	case 2:
		set(id, t);
		G->area[id].pending = 0;
		set(id, in_us(50));
		break;
	case 3:
		G->area[id].pending = 0;
		wrmsr(TSC_DEADLINE, below(id, 2) ? in_us(300) : 0);
		break;
	case 4: /* off and on again */
		wrmsr(MSR_KVM_LAZY_TSCDEADLINE, 0);
		G->area[id].pending = 0;
		wrmsr(MSR_KVM_LAZY_TSCDEADLINE, (AREA_GPA + id * 64) | 1);
		break;
	case 5:
		rdmsr(TSC_DEADLINE);
		break;
	}
	sleep_until(id, t);
}

static void guest_code(void)
{
	u64 id;

	x2apic_enable();
	id = self();
	x2apic_write_reg(LVTT, DEADLINE_MODE | TIMER_VECTOR);
	G->vcpu[id].starts++;
	G->area[id].armed = 0;
	G->area[id].host = 0;
	G->area[id].pending = 0;
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, (AREA_GPA + id * 64) | 1);
	while (!G->stop)
		turn(id);
	wrmsr(MSR_KVM_LAZY_TSCDEADLINE, 0);
	GUEST_DONE();
}

/*
 * Host.
 */
struct runner {
	pthread_t thread;
	struct kvm_vcpu *vcpu;
	struct kvm_x86_state *first; /* before it has run, for resets */
	struct kvm_lapic_state first_lapic;
	volatile bool ended;
	time_t seen; /* when its last expiry was noticed */
	u64 expired;
	unsigned int kicks, restores, resets, moves;
};

static struct runner runners[MAX_VCPUS];
static struct shared *shared;

static void nap(unsigned int ms)
{
	struct timespec t = { .tv_nsec = ms * 1000000 };

	nanosleep(&t, NULL);
}

static void restore(struct kvm_vcpu *vcpu, struct kvm_x86_state *state,
		    struct kvm_lapic_state *lapic)
{
	vcpu_load_state(vcpu, state);
	vcpu_ioctl(vcpu, KVM_SET_LAPIC, lapic);
	/* Once more, as KVM ignores the deadline before the LAPIC's mode. */
	vcpu_msrs_set(vcpu, &state->msrs);
}

static void disturb(struct runner *r)
{
	struct kvm_lapic_state lapic;
	struct kvm_x86_state *state;

	switch (++r->kicks % 16) {
	case 3:
	case 11:
		state = vcpu_save_state(r->vcpu);
		vcpu_ioctl(r->vcpu, KVM_GET_LAPIC, &lapic);
		restore(r->vcpu, state, &lapic);
		kvm_x86_state_cleanup(state);
		r->restores++;
		break;
	case 0:
		restore(r->vcpu, r->first, &r->first_lapic);
		r->resets++;
		break;
	}
}

static void *run(void *arg)
{
	struct runner *r = arg;
	struct ucall uc;

	for (;;) {
		if (__vcpu_run(r->vcpu)) {
			TEST_ASSERT(errno == EINTR, "KVM_RUN ends with EINTR only, not %d", errno);
			if (!shared->stop)
				disturb(r);
			continue;
		}
		TEST_ASSERT(get_ucall(r->vcpu, &uc) == UCALL_DONE, "the guest ends well");
		r->ended = true;
		return NULL;
	}
}

static void kicked(int sig)
{
}

static void move(struct runner *r, int cpus)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(r->moves++ % cpus, &set);
	pthread_setaffinity_np(r->thread, sizeof(set), &set);
}

static void plug(struct kvm_vm *vm, int id)
{
	struct runner *r = &runners[id];

	r->vcpu = vm_vcpu_add(vm, id, guest_code);
	shared->vcpu[id].seed = id + 1;
	vcpu_set_cpuid_feature(r->vcpu, X86_FEATURE_TSC_DEADLINE_TIMER);
	vcpu_set_cpuid_feature(r->vcpu, KVM_X86_CPU_FEATURE(0x40000001, 0, EAX,
							    KVM_FEATURE_LAZY_TSCDEADLINE));
	if (vcpu_init_descriptor_tables)
		vcpu_init_descriptor_tables(r->vcpu);
	if (id) /* not to wait for a SIPI */
		vcpu_mp_state_set(r->vcpu, &(struct kvm_mp_state){ KVM_MP_STATE_RUNNABLE });
	r->first = vcpu_save_state(r->vcpu);
	vcpu_ioctl(r->vcpu, KVM_GET_LAPIC, &r->first_lapic);
	r->seen = time(NULL);
	TEST_ASSERT(!pthread_create(&r->thread, NULL, run, r), "pthread_create()");
}

/* Whether it is still in its storm; if not asked to stop, it must get on. */
static bool look_after(struct runner *r, int id, int cpus)
{
	u64 now = shared->vcpu[id].expired;

	if (r->ended)
		return false;
	if (now != r->expired) {
		r->expired = now;
		r->seen = time(NULL);
	}
	TEST_ASSERT(time(NULL) - r->seen < STANDSTILL,
		    "vCPU %d goes on: armed %#llx host %#llx pending %#llx", id,
		    shared->area[id].armed, shared->area[id].host, shared->area[id].pending);
	move(r, cpus);
	/* A halted vCPU must come back for its timer, not for the signal. */
	if (!shared->stop)
		pthread_kill(r->thread, SIGUSR1);
	nap(5);
	return true;
}

int main(int argc, char *argv[])
{
	int seconds = argc > 1 ? atoi(argv[1]) : 10, n = argc > 2 ? atoi(argv[2]) : 4;
	int i, left, storming, plugged, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct sigaction action = { .sa_handler = kicked };
	struct kvm_vm *vm;
	time_t end;

	TEST_ASSERT(n >= 1 && n <= MAX_VCPUS, "%d vCPUs", n);
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_TSC_DEADLINE_TIMER));
	sigaction(SIGUSR1, &action, NULL);
	vm = vm_create(n);
	if (vm_init_descriptor_tables)
		vm_init_descriptor_tables(vm);
	vm_install_exception_handler(vm, TIMER_VECTOR, timer_interrupt);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, AREA_GPA, SLOT, 1, 0);
	virt_map(vm, AREA_GPA, AREA_GPA, 1);
	shared = addr_gpa2hva(vm, AREA_GPA);
	shared->khz = __vm_ioctl(vm, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT((int)shared->khz > 0, "KVM knows the frequency of the guest's TSC");
	end = time(NULL) + seconds;
	for (plugged = 0; plugged < n - (n > 1); plugged++)
		plug(vm, plugged);
	do {
		shared->stop = time(NULL) >= end && plugged == n;
		for (i = left = storming = 0; i < plugged; i++) {
			left += look_after(&runners[i], i, cpus);
			storming += shared->vcpu[i].expired >= PLUG_AFTER;
		}
		if (plugged < n && storming == plugged)
			plug(vm, plugged++);
	} while (left);
	for (i = 0; i < n; i++) {
		struct runner *r = &runners[i];

		pthread_join(r->thread, NULL);
		kvm_x86_state_cleanup(r->first);
		printf("vCPU %d: %lu expiries, %lu interrupts, %u kicks, "
		       "%u restores, %u resets, %u moves\n",
		       i, shared->vcpu[i].expired, shared->vcpu[i].irqs, r->kicks, r->restores,
		       r->resets, r->moves);
		TEST_ASSERT(shared->vcpu[i].expired && shared->vcpu[i].starts == r->resets + 1,
			    "vCPU %d expires timers and starts anew at each reset", i);
	}
	kvm_vm_free(vm);
	return 0;
}
