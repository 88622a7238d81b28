// SPDX-License-Identifier: MIT
/*
 * Starting CPUs (Intel SDM vol 3, 9.4.4) and sharing out work.
 */
#include "kernel/smp.h"

#include <stdatomic.h>

#include "drivers/acpi.h"
#include "drivers/tsc.h"
#include "kernel/idle.h"
#include "kernel/panic.h"
#include "kernel/string.h"

#define AP_PAGE	      0x8000	     /* as in boot/ap.asm */
#define START_WAIT_NS 10000000000ull /* a starved host is slow, not broken */
#define STACK_SIZE    16384

struct cpu cpus[CPUS_MAX];

/* boot/ap.asm */
extern const char ap_trampoline[], ap_trampoline_end[];
extern void *ap_stack;
extern struct cpu *ap_cpu;
_Noreturn void smp_ap_main(struct cpu *cpu);

/* Of each CPU. The first begins on its `main` in boot/start.asm. */
struct stacks {
	struct trap_stacks trap;
	uint8_t main_guard[PAGE_SIZE], main[STACK_SIZE];
};
extern struct stacks stacks[CPUS_MAX];
struct stacks stacks[CPUS_MAX] __attribute__((section(".bss.stacks")));
_Static_assert(sizeof(struct stacks) == 0x9000, "STACKS_SIZE in boot/start.asm");

static _Atomic unsigned int running; /* CPUs that wait for work, or work */
static _Atomic unsigned int busy;    /* of those that smp_call() gave work */
static _Atomic unsigned int met;     /* calls of smp_meet() so far */
static bool want_pv_eoi;

/* Whoever is woken looks for itself what there is to do. */
static void woken(struct trap_frame *frame)
{
	(void)frame;
	cpu_eoi(this_cpu());
}

void smp_first_cpu(void)
{
	for (unsigned int i = 0; i < CPUS_MAX; i++) {
		paging_unmap(stacks[i].trap.fault_guard);
		paging_unmap(stacks[i].trap.nmi_guard);
		paging_unmap(stacks[i].main_guard);
	}
	cpus[0].self = &cpus[0];
	percpu_install(&cpus[0]);
	trap_init(&cpus[0].trap, &stacks[0].trap);
	running = 1;
}

void smp_cpu_ready(void)
{
	struct cpu *cpu = this_cpu();

	cpu->lapic_id = lapic_id();
	clockevent_init(cpu);
	if (want_pv_eoi)
		kvm_eoi_enable(&cpu->eoi);
}

static void do_work(struct cpu *cpu)
{
	void (*work)(void) = cpu->work;

	irq_enable();
	work();
	irq_disable();
	cpu->work = NULL;
	if (--busy == 0 && cpu->number != 0)
		smp_wake(&cpus[0]);
}

/* boot/ap.asm calls it on ap_stack, interrupts off. */
_Noreturn void smp_ap_main(struct cpu *cpu)
{
	percpu_install(cpu);
	trap_init(&cpu->trap, &stacks[cpu->number].trap);
	lapic_enable();
	smp_cpu_ready();
	running++;
	for (;;) {
		while (!cpu->work)
			cpu_wait();
		do_work(cpu);
	}
}

/*
 * Waits without PAUSE: QEMU's software CPU takes a lock for each, and a CPU that does
 * nothing else keeps the emulator from its own timers.
 */
static void start_one(struct cpu *cpu, uint32_t id)
{
	unsigned int before = running;
	uint64_t end = rdtsc() + tsc_from_ns(START_WAIT_NS);

	cpu->self = cpu;
	cpu->number = before;
	ap_cpu = cpu;
	ap_stack = &stacks[before].main + 1;
	lapic_start_cpu(id, AP_PAGE);
	while (running == before) {
		if (rdtsc() > end)
			panic("CPU %u (local APIC %u) does not start", before, id);
	}
}

static uint32_t ids[CPUS_MAX];
static unsigned int present;

unsigned int smp_present(void)
{
	return present;
}

unsigned int smp_start(unsigned int count, uint64_t rsdp, bool pv_eoi)
{
	present = acpi_find_cpus(rsdp, ids, CPUS_MAX);
	if (!present)
		present = 1; /* only this one, whose id is not in the list */
	trap_handle(VECTOR_WAKE, woken);
	want_pv_eoi = pv_eoi;
	smp_cpu_ready();
	memcpy((void *)(uintptr_t)AP_PAGE, ap_trampoline,
	       (size_t)(ap_trampoline_end - ap_trampoline));
	for (unsigned int i = 0; i < present && i < CPUS_MAX && running < count; i++)
		if (ids[i] != cpus[0].lapic_id)
			start_one(&cpus[running], ids[i]);
	return running;
}

unsigned int smp_count(void)
{
	return running;
}

void smp_wake(struct cpu *cpu)
{
	lapic_ipi(cpu->lapic_id, VECTOR_WAKE);
}

void smp_stop_others(void)
{
	for (unsigned int i = 0; i < running; i++)
		if (&cpus[i] != this_cpu())
			lapic_nmi(cpus[i].lapic_id);
}

void smp_call(unsigned int count, void (*function)(void))
{
	irq_disable();
	busy = count;
	met = 0;
	for (unsigned int i = 0; i < count; i++)
		cpus[i].work = function;
	for (unsigned int i = 1; i < count; i++)
		smp_wake(&cpus[i]);
	do_work(&cpus[0]);
	while (busy)
		cpu_wait();
	irq_enable();
}

static void (*last_work)(void);
static _Atomic unsigned int retired;

static void retire(void)
{
	irq_disable();
	last_work();
	retired++;
	cpu_stop();
}

/* They are not long: as in start_one(), neither HLT nor PAUSE. */
void smp_retire(void (*last)(void))
{
	last_work = last;
	for (unsigned int i = 1; i < running; i++) {
		cpus[i].work = retire;
		smp_wake(&cpus[i]);
	}
	while (retired + 1 < running)
		;
	last();
}

void smp_meet(unsigned int count)
{
	unsigned int before = met++, all = (before / count + 1) * count;

	irq_disable();
	if (before + 1 == all) {
		for (unsigned int i = 0; i < count; i++)
			if (&cpus[i] != this_cpu())
				smp_wake(&cpus[i]);
	}
	while (met < all)
		idle_halt();
	irq_enable();
}
