// SPDX-License-Identifier: MIT
/*
 * A virtual machine monitor that boots Sloth without firmware and without devices,
 * and that does not know the protocol. A guest is up in milliseconds where QEMU
 * takes seconds, so faults can be made a thousand times.
 *
 *   tinyvmm IMAGE OPTIONS [FAULT N SEED]
 *
 * IMAGE: build/sloth.elf. OPTIONS: its command line. The guest's serial line goes
 * to standard output; the exit status is the guest's as through QEMU's
 * isa-debug-exit: 33 is success.
 *
 * FAULT is one of these, N times.
 *
 * init, reset: at a random moment of the lazy storm, an INIT is sent to
 * the vCPU while it is in the guest (an MSI, as a chipset sends it), or its state is
 * set to that of a reset as QEMU does it. From then on the vCPU runs a few bytes of
 * ROM, which leave KVM_RUN fifty times and halt, and the page with the area
 * has to stay as it is. Then the guest boots anew; after the last time it runs to its
 * end.
 *
 * stop, snapshot, tsc: at a random moment of the lazy storm the vCPU is taken out of KVM_RUN,
 * and then: nothing, but that IA32_TSC_DEADLINE may be read and written back; the machine is
 * saved, and the next time what was saved is loaded; the TSC is moved, by up to 2 ms, and the
 * deadline written back before or after, or not at all. Then the storm goes on, to its end,
 * even if it was less often than N times.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (32u << 20)
#define INFO   0x9000 /* multiboot information, and behind it the line */
#define ROM    0xfffff000u
#define PAGE   4096ul

#define MSR_TSC_DEADLINE      0x6e0
#define MSR_LAZY_TSC_DEADLINE 0x4b564d09
#define ACTIVE		      1

#define COM1	   0x3f8
#define DEBUG_EXIT 0xf4
#define ROM_PORT   0xf5
#define ROM_OUTS   50

#define RFLAGS_IF (1 << 9)
#define TSC_JUMP  5000000 /* cycles; of two milliseconds or so */

/* Of the deadline, in the storm "sleep", and more than "faults" makes for one timer. */
#define CHANGES	     3
#define MANY_CHANGES 10
#define HANG_SECONDS 30 /* without a timer in the storm; an emulated host may stand still */

/* The area, as docs/protocol.md has it. */
struct area {
	uint64_t armed, host, pending, reserved[5];
};

/* mov cx, ROM_OUTS; 1: out ROM_PORT, al; loop 1b; hlt; jmp back to the hlt */
static const uint8_t rom_code[] = { 0xb9, ROM_OUTS, 0, 0xe6, ROM_PORT, 0xe2, 0xfc, 0xf4,
				    0xeb, 0xfd };

static int vm, vcpu;
static struct kvm_run *run;
static uint8_t *memory;
static const uint8_t *image;
static int image_fd;
static const char *options;
static enum { NONE, INIT, RESET, STOP, SNAPSHOT, TSC } fault;
static const char *const fault_names[] = { "none", "init", "reset", "stop", "snapshot", "tsc" };
static unsigned int wanted, done, active;

/* The state of the vCPU as KVM has made it: that after a reset. */
static struct {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
} fresh;

/*
 * What the guest says. A snapshot takes back what was said after it, so there it is in memory
 * until the end.
 */
static FILE *output;
static char *output_text;
static size_t output_size;

static void flush_output(void)
{
	if (output)
		fflush(output);
	if (output_text)
		fwrite(output_text, 1, output_size, stdout);
	fflush(stdout);
}

static __attribute__((format(printf, 1, 2))) _Noreturn void fail(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	flush_output();
	fprintf(stderr, "tinyvmm: ");
	vfprintf(stderr, format, list);
	fprintf(stderr, "\n");
	_exit(1);
}

static int need(int result, const char *what)
{
	if (result < 0)
		fail("%s: %s", what, strerror(errno));
	return result;
}

/* Whether the guest goes on after the fault. */
static bool in_place(void)
{
	return fault >= STOP;
}

#define IOCTL(fd, name, argument) need(ioctl(fd, name, argument), #name)

/*
 * The machine.
 */
static void set_cpuid(int kvm)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[200];
	} cpuid = { .head.nent = 200 };

	IOCTL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	for (uint32_t i = 0; i < cpuid.head.nent; i++)
		if (cpuid.head.entries[i].function == 1) {
			/* TSC-deadline timer, hypervisor; the APIC's number is 0 */
			cpuid.head.entries[i].ecx |= 1u << 24 | 1u << 31;
			cpuid.head.entries[i].ebx &= 0xffffff;
		}
	IOCTL(vcpu, KVM_SET_CPUID2, &cpuid);
}

static void *map(size_t size, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return p;
}

static void add_memory(uint32_t slot, uint32_t flags, uint64_t address, size_t size,
		       void *where)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = address,
		.memory_size = size,
		.userspace_addr = (uintptr_t)where,
	};

	IOCTL(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static void make_machine(void)
{
	int kvm = need(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	uint8_t *rom = map(PAGE, -1);

	vm = IOCTL(kvm, KVM_CREATE_VM, 0);
	IOCTL(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	IOCTL(vm, KVM_CREATE_IRQCHIP, 0);
	memory = map(MEMORY, -1);
	add_memory(0, fault == SNAPSHOT ? KVM_MEM_LOG_DIRTY_PAGES : 0, 0, MEMORY, memory);
	memcpy(rom + 0xff0, rom_code, sizeof(rom_code));
	add_memory(1, 0, ROM, PAGE, rom);
	vcpu = IOCTL(vm, KVM_CREATE_VCPU, 0);
	run = map(IOCTL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), vcpu);
	set_cpuid(kvm);
	IOCTL(vcpu, KVM_GET_REGS, &fresh.regs);
	IOCTL(vcpu, KVM_GET_SREGS, &fresh.sregs);
	IOCTL(vcpu, KVM_GET_LAPIC, &fresh.lapic);
}

static uint64_t msr(uint32_t index)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { { .nmsrs = 1 }, { .index = index } };

	return IOCTL(vcpu, KVM_GET_MSRS, &m) == 1 ? m.entry.data : 0;
}

static void set_msr(uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { { .nmsrs = 1 }, { .index = index, .data = value } };

	IOCTL(vcpu, KVM_SET_MSRS, &m);
}

/* With what QEMU knows. */
static void reset(void)
{
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	struct kvm_vcpu_events none = { 0 };

	IOCTL(vcpu, KVM_SET_REGS, &fresh.regs);
	IOCTL(vcpu, KVM_SET_SREGS, &fresh.sregs);
	IOCTL(vcpu, KVM_SET_LAPIC, &fresh.lapic);
	set_msr(MSR_TSC_DEADLINE, 0);
	IOCTL(vcpu, KVM_SET_VCPU_EVENTS, &none);
	IOCTL(vcpu, KVM_SET_MP_STATE, &runnable);
}

/*
 * What the guest only reads stays the image's own pages: an emulated CPU has to
 * translate code anew that was written.
 */
static void load_part(const Elf32_Phdr *part, bool first)
{
	uint8_t *to = memory + part->p_paddr, *end = to + part->p_memsz;
	uint8_t *zeroes = (uint8_t *)(((uintptr_t)to + part->p_filesz + PAGE - 1) & -PAGE);

	if (!(part->p_flags & PF_W)) {
		if (first && mmap(to, part->p_filesz, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_FIXED, image_fd, part->p_offset) != to)
			fail("mmap: %s", strerror(errno));
		return;
	}
	memcpy(to, image + part->p_offset, part->p_filesz);
	memset(to + part->p_filesz, 0, (size_t)(zeroes - to - part->p_filesz));
	if (zeroes < end)
		madvise(zeroes, (size_t)(end - zeroes), MADV_DONTNEED);
}

/* What a multiboot loader leaves: Multiboot Specification 0.6.96, section 3.2. */
static void boot(void)
{
	const Elf32_Ehdr *elf = (const void *)image;
	const Elf32_Phdr *part = (const void *)(image + elf->e_phoff);
	uint32_t info[32] = { [0] = 1u << 2, [4] = INFO + sizeof(info) };
	const struct kvm_segment flat = {
		.limit = ~0u, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1, .selector = 0x10
	};
	struct kvm_regs regs = fresh.regs;
	struct kvm_sregs sregs = fresh.sregs;
	static bool first = true;

	reset();
	for (int i = 0; i < elf->e_phnum; i++)
		if (part[i].p_type == PT_LOAD)
			load_part(&part[i], first);
	first = false;
	memcpy(memory + INFO, info, sizeof(info));
	snprintf((char *)memory + INFO + sizeof(info), PAGE / 2, "/sloth %s%s", options,
		 in_place() ? ""
		 : fault    ? " ops=1000000"
		 : wanted   ? " ops=1000"
			    : "");

	regs.rip = elf->e_entry;
	regs.rax = 0x2badb002;
	regs.rbx = INFO;
	sregs.cr0 |= 1;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.cs = flat;
	sregs.cs.type = 11;
	sregs.cs.selector = 8;
	IOCTL(vcpu, KVM_SET_REGS, &regs);
	IOCTL(vcpu, KVM_SET_SREGS, &sregs);
}

/*
 * Ports. The serial line is an 8250 that is always ready.
 */
static bool line_control_dlab;
static char said[64]; /* the end of what the guest has said */

static void serial(uint8_t c)
{
	if (line_control_dlab)
		return;
	putc(c, output);
	memmove(said, said + 1, sizeof(said) - 2);
	said[sizeof(said) - 2] = (char)c;
}

static void port_out(uint16_t port, uint8_t value)
{
	if (port == COM1)
		serial(value);
	else if (port == COM1 + 3)
		line_control_dlab = value & 0x80;
	else if (port == DEBUG_EXIT) {
		flush_output();
		if (wanted)
			fprintf(stderr, "%u times, ACTIVE in %u\n", done, active);
		_exit(value << 1 | 1);
	}
}

static void port_access(void)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	bool status = run->io.port == COM1 + 5;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
		if (run->io.direction == KVM_EXIT_IO_IN)
			memset(data, status ? 0x60 : 0xff, run->io.size);
		else
			port_out(run->io.port, *data);
}

/*
 * Faults. A thread waits until the storm goes on, waits a little more, and acts.
 */
static volatile enum { BOOTING, STORM, STRUCK, IN_ROM } state;
static struct area *volatile area; /* known once the guest has enabled the feature */
static pthread_t main_thread;
static uint8_t expected[PAGE];
static unsigned int outs;
static volatile bool struck; /* set by the thread, cleared when the fault is made */

static void nap(unsigned long us)
{
	struct timespec t = { 0, (long)us * 1000 };

	nanosleep(&t, NULL);
}

static uint64_t pending(void)
{
	return *(volatile uint64_t *)&area->pending;
}

static time_t seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static void wait_for_timers(int count)
{
	time_t end = seconds() + HANG_SECONDS;
	uint64_t last = pending();

	while (count > 0) {
		if (pending() != last) {
			last = pending();
			count--;
		}
		if (seconds() > end)
			fail("the storm stands still after %u: armed %#lx host %#lx pending %#lx",
			     done, area->armed, area->host, area->pending);
		nap(300);
	}
}

static void strike_soon(void)
{
	pthread_kill(main_thread, SIGUSR1);
	while (struck)
		nap(100);
}

static void *trouble(void *argument)
{
	const struct kvm_msi init = { .address_lo = 0xfee00000, .data = 5 << 8 | 1 << 14 };

	while (fault) {
		if (state != STORM) {
			nap(200);
			continue;
		}
		if (area) {
			wait_for_timers(fault == SNAPSHOT ? MANY_CHANGES : CHANGES);
			nap((unsigned long)random() % 2000);
			active += *(volatile uint64_t *)&area->host == ACTIVE;
			if (in_place()) {
				struck = true;
				strike_soon();
				continue;
			}
			if (fault == INIT) {
				state = STRUCK;
				IOCTL(vm, KVM_SIGNAL_MSI, &init);
				continue;
			}
		} else {
			nap(5000);
		}
		pthread_kill(main_thread, SIGUSR1);
		nap(5000);
	}
	return argument;
}

static void leave(int number)
{
	(void)number;
	run->immediate_exit = 1;
}

static uint8_t *page(void)
{
	return (uint8_t *)((uintptr_t)area & -(uintptr_t)PAGE);
}

static void check(const char *when)
{
	const uint64_t *is = (void *)page(), *was = (void *)expected;

	for (unsigned int i = 0; i < PAGE / 8; i++)
		if (is[i] != was[i])
			fail("%s %u writes after %s (%u exits): area %+ld is %#lx, was %#lx",
			     fault == INIT ? "INIT" : "reset", done + 1, when, outs,
			     (long)((uint8_t *)&is[i] - (uint8_t *)area), is[i], was[i]);
}

/* Everything but the host's own word, by which it would know the area again. */
static void scribble(void)
{
	uint64_t host = area->host, wish = area->pending;

	memset(page(), 0x5a, PAGE);
	area->host = host;
	area->pending = wish;
	memcpy(expected, page(), PAGE);
}

static void check_off(void)
{
	if (msr(MSR_LAZY_TSC_DEADLINE) || msr(MSR_TSC_DEADLINE))
		fail("after fault %u the MSR is %#lx, the deadline %#lx", done + 1,
		     msr(MSR_LAZY_TSC_DEADLINE), msr(MSR_TSC_DEADLINE));
}

static void enter_rom(void)
{
	state = IN_ROM;
	outs = 0;
	/* This is the first exit to us since: a PARK would have replaced the word. */
	if (fault == INIT && area->host != ACTIVE)
		fail("INIT %u: host is %#lx", done + 1, area->host);
	check_off();
	scribble();
}

/*
 * Faults after which the guest goes on.
 */

/* What a VMM saves that does not know the protocol. */
static struct {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	uint64_t deadline, tsc_offset;
	uint64_t msrs[3];
	long output;
	bool there;
} saved;

static const uint32_t saved_msrs[] = { 0x10 /* TSC */, 0x3b /* TSC_ADJUST */,
				       0x4b564d04 /* PV EOI */ };
static uint8_t *saved_memory;

/* Exact, where a write of the TSC within a second of what is expected leaves it (x86.c). */
static uint64_t tsc_offset(void)
{
	uint64_t value;
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL,
					.attr = KVM_VCPU_TSC_OFFSET,
					.addr = (uintptr_t)&value };

	IOCTL(vcpu, KVM_GET_DEVICE_ATTR, &attr);
	return value;
}

static void set_tsc_offset(uint64_t value)
{
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL,
					.attr = KVM_VCPU_TSC_OFFSET,
					.addr = (uintptr_t)&value };

	IOCTL(vcpu, KVM_SET_DEVICE_ATTR, &attr);
}

/* Copies what was written since the last time. */
static void copy_dirty(uint8_t *to, const uint8_t *from)
{
	static uint64_t bits[MEMORY / PAGE / 64];
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bits };

	IOCTL(vm, KVM_GET_DIRTY_LOG, &log);
	for (uint32_t i = 0; i < MEMORY / PAGE; i++)
		if (bits[i / 64] >> i % 64 & 1)
			memcpy(to + i * PAGE, from + i * PAGE, PAGE);
}

static void save(void)
{
	IOCTL(vcpu, KVM_GET_REGS, &saved.regs);
	IOCTL(vcpu, KVM_GET_SREGS, &saved.sregs);
	IOCTL(vcpu, KVM_GET_LAPIC, &saved.lapic);
	IOCTL(vcpu, KVM_GET_VCPU_EVENTS, &saved.events);
	IOCTL(vcpu, KVM_GET_MP_STATE, &saved.mp);
	saved.deadline = msr(MSR_TSC_DEADLINE);
	saved.tsc_offset = tsc_offset();
	saved.output = ftell(output);
	for (unsigned int i = 0; i < sizeof(saved_msrs) / sizeof(*saved_msrs); i++)
		saved.msrs[i] = msr(saved_msrs[i]);
	if (saved_memory) {
		copy_dirty(saved_memory, memory);
		return;
	}
	saved_memory = map(MEMORY, -1);
	copy_dirty(saved_memory, memory);
	memcpy(saved_memory, memory, MEMORY);
}

/* In QEMU's order: the LAPIC first, the deadline last. */
static void restore(void)
{
	copy_dirty(memory, saved_memory);
	fseek(output, saved.output, SEEK_SET);
	IOCTL(vcpu, KVM_SET_LAPIC, &saved.lapic);
	IOCTL(vcpu, KVM_SET_REGS, &saved.regs);
	IOCTL(vcpu, KVM_SET_SREGS, &saved.sregs);
	for (unsigned int i = 0; i < sizeof(saved_msrs) / sizeof(*saved_msrs); i++)
		set_msr(saved_msrs[i], saved.msrs[i]);
	if (random() & 1)
		set_tsc_offset(saved.tsc_offset - (uint64_t)random() % TSC_JUMP);
	IOCTL(vcpu, KVM_SET_VCPU_EVENTS, &saved.events);
	IOCTL(vcpu, KVM_SET_MP_STATE, &saved.mp);
	set_msr(MSR_TSC_DEADLINE, saved.deadline);
}

static void snapshot(void)
{
	if (saved.there)
		restore();
	else
		save();
	saved.there = !saved.there;
	done += !saved.there;
}

/*
 * A deadline that is written back is what was read: as QEMU does it at each stop. Back the TSC goes
 * only while the guest takes interrupts: set back after the guest has found a timer due and
 * before its callback looks at the TSC again, it would make that timer early in the guest's count.
 */
static void move_tsc(void)
{
	static uint64_t true_offset;
	uint64_t deadline = msr(MSR_TSC_DEADLINE), offset;
	long when = random() % 3;
	struct kvm_regs regs;

	if (!true_offset)
		true_offset = tsc_offset();
	IOCTL(vcpu, KVM_GET_REGS, &regs);
	offset = true_offset + (uint64_t)(random() % (2 * TSC_JUMP) - TSC_JUMP);
	if (!(regs.rflags & RFLAGS_IF) && (int64_t)(offset - tsc_offset()) < 0)
		offset = true_offset + TSC_JUMP;
	if (when == 0)
		set_msr(MSR_TSC_DEADLINE, deadline);
	set_tsc_offset(offset);
	if (when == 1)
		set_msr(MSR_TSC_DEADLINE, deadline);
	done++;
}

static void stop(void)
{
	uint64_t deadline = random() & 1 ? msr(MSR_TSC_DEADLINE) : 0;

	nap((unsigned long)random() % 1000);
	if (deadline)
		set_msr(MSR_TSC_DEADLINE, deadline);
	done++;
}

static void strike(void)
{
	if (fault == SNAPSHOT)
		snapshot();
	else if (fault == TSC)
		move_tsc();
	else
		stop();
	if (done == wanted)
		fault = NONE;
}

/* KVM_RUN has returned for a signal. */
static void interrupted(void)
{
	run->immediate_exit = 0;
	if (struck) {
		strike();
		struck = false;
	} else if (state == STORM && !area) {
		uint64_t value = msr(MSR_LAZY_TSC_DEADLINE);

		if (value & 1)
			area = (void *)(memory + (value & -64ull));
	} else if (state == STORM && fault == RESET) {
		memcpy(expected, page(), PAGE);
		reset();
		check("it");
		enter_rom();
	} else if (state == IN_ROM && outs >= ROM_OUTS) {
		check("the halt");
		check_off();
		if (++done == wanted)
			fault = NONE;
		boot();
		memset(said, ' ', sizeof(said) - 1);
		state = BOOTING;
	}
}

static void rom_out(void)
{
	const struct itimerval soon = { .it_value.tv_usec = 2000 };

	if (state == STRUCK)
		enter_rom();
	check("an exit");
	if (++outs == ROM_OUTS)
		setitimer(ITIMER_REAL, &soon, NULL);
}

/*
 * All of it.
 */
static void handle_exit(void)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		if (run->io.port == ROM_PORT) {
			rom_out();
			break;
		}
		port_access();
		if (state == BOOTING && strstr(said, "/lazy ...\n"))
			state = STORM;
		break;
	case KVM_EXIT_MMIO:
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		break;
	case KVM_EXIT_INTR:
		break;
	default:
		fail("exit %u", run->exit_reason);
	}
}

static void load(const char *path)
{
	struct stat about;

	image_fd = need(open(path, O_RDONLY | O_CLOEXEC), path);
	need(fstat(image_fd, &about), path);
	image = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, image_fd, 0);
	if (image == MAP_FAILED || memcmp(image, ELFMAG "\1", 5))
		fail("%s is not a 32-bit ELF image", path);
}

static void choose(const char *name)
{
	do
		if (++fault > TSC)
			fail("%s: no such fault", name);
	while (strcmp(name, fault_names[fault]));
}

int main(int argc, char **argv)
{
	const struct sigaction action = { .sa_handler = leave };
	sigset_t all;
	pthread_t thread;

	if (argc != 3 && argc != 6)
		fail("usage: IMAGE OPTIONS [FAULT N SEED]");
	setvbuf(stdout, NULL, _IOLBF, 0);
	load(argv[1]);
	options = argv[2];
	memset(said, ' ', sizeof(said) - 1);
	if (argc == 6)
		choose(argv[3]);
	output = fault == SNAPSHOT ? open_memstream(&output_text, &output_size) : stdout;
	make_machine();
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	main_thread = pthread_self();
	if (argc == 6) {
		wanted = (unsigned int)atoi(argv[4]);
		srandom((unsigned int)atoi(argv[5]));
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, NULL); /* the thread wants no signals */
		pthread_create(&thread, NULL, trouble, NULL);
		pthread_sigmask(SIG_UNBLOCK, &all, NULL);
	}
	boot();
	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0) == 0)
			handle_exit();
		else if (errno == EINTR)
			interrupted();
		else if (errno != EAGAIN)
			fail("KVM_RUN: %s", strerror(errno));
	}
}
