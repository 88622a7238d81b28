// SPDX-License-Identifier: MIT
/*
 * The kinds of faults that the workload "faults" makes, and what has to hold of each
 * besides: no timer is lost or early.
 *
 * nmi	     An NMI, for this CPU or another of the run. Counted is what was taken: two that
 *	     come at once may be one.
 * spurious  The spurious-interrupt vector, as nmi.
 * timer     The timer's vector without its timer: an interrupt that finds nothing due.
 * tsc	     IA32_TSC_ADJUST is written, so the TSC jumps, by up to a timeout from its true
 *	     value. Early is who calls before the deadline by the TSC as it is then. Now and
 *	     then it goes back before a deadline that has been given, which is set once more.
 * mask	     The timer's LVT entry is masked for as long as a timeout: none of its interrupts
 *	     may come meanwhile (unless it had been accepted before). The mask inhibits the
 *	     interrupt (SDM vol 3, 11.5.1), so one that is due then may be gone, and who unmasks
 *	     programs it again. KVM keeps it until then, so there it is not always programmed.
 * apic	     The APIC is disabled by software and enabled again: what has expired may be gone,
 *	     what is still to come is not, in KVM.
 * oneshot   LVT mode one-shot and back, which disarms; one-shot's own interrupt may come.
 * feature   The deadline mode is left for another and comes back, at once or when the timers
 *	     have fired; in lazy that is MSR_KVM_LAZY_TSCDEADLINE, which is now and then
 *	     written once more while it is on.
 * area	     lazy: the area moves to another place. The old one must never be written again.
 */
#include "arch/x86/trap.h"
#include "drivers/kvm.h"
#include "drivers/lapic_faults.h"
#include "drivers/tsc.h"
#include "kernel/console.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/panic.h"
#include "kernel/storm/faults.h"
#include "kernel/storm/random.h"

#define CPUID_FEATURES 7
#define EBX_TSC_ADJUST (1u << 1)
#define AGAIN_NS       300000 /* how long before a deadline that is set once more */

/* Of each CPU. */
static struct trouble {
	const struct deadline_ops *home; /* the run's mode */
	uint64_t tsc_adjust;		 /* as it was found */
} troubles[CPUS_MAX];

static struct trouble *this_trouble(void)
{
	return &troubles[this_cpu()->number];
}

static void took_nmi(struct trap_frame *frame)
{
	(void)frame;
	if (panic_has_begun())
		cpu_stop();
	storm_this_run()->result.troubles[TROUBLE_NMI]++;
}

/* One that was sent is in service, and wants its end told; a real one is not. */
static void took_spurious(struct trap_frame *frame)
{
	(void)frame;
	if (lapic_in_service(VECTOR_SPURIOUS))
		cpu_eoi(this_cpu());
	storm_this_run()->result.troubles[TROUBLE_SPURIOUS]++;
}

static bool has_tsc_adjust(void)
{
	return cpuid(0).eax >= CPUID_FEATURES && cpuid(CPUID_FEATURES).ebx & EBX_TSC_ADJUST;
}

unsigned int trouble_kinds(const struct storm_run *run)
{
	unsigned int kinds = run->options->troubles;

	if (!has_tsc_adjust())
		kinds &= ~(1u << TROUBLE_TSC);
	if (run->result.mode != &deadline_lazy || run->options->trace)
		kinds &= ~(1u << TROUBLE_AREA);
	for (unsigned int i = 0; i < TROUBLES; i++)
		if (this_cpu()->number == 0 && (run->options->troubles & ~kinds) >> i & 1)
			print("fault %s left out\n", storm_trouble_names[i]);
	return kinds;
}

/* Of any mode to any, whatever is pending. */
static void change_mode(const struct deadline_ops *mode)
{
	struct cpu *cpu = this_cpu();
	struct clockevent *ce = &cpu->clockevent;
	uint64_t next = 0;

	(void)hrtimer_next(&cpu->timers, &next);
	if (ce->mode != mode)
		ce->mode->disable(&ce->deadline);
	ce->mode = mode;
	mode->enable(&ce->deadline, next);
}

void trouble_begin(unsigned int kinds)
{
	struct trouble *t = this_trouble();

	trap_handle(VECTOR_NMI, took_nmi);
	trap_handle(VECTOR_SPURIOUS, took_spurious);
	if (has_tsc_adjust())
		t->tsc_adjust = rdmsr(MSR_TSC_ADJUST);
	if (kinds >> TROUBLE_AREA & 1)
		change_mode(&trouble_area_mode);
	t->home = this_cpu()->clockevent.mode;
}

/* Programs what is pending, whatever the mode believes to be armed. */
static void program_again(void)
{
	struct cpu *cpu = this_cpu();

	cpu->clockevent.mode->interrupt(&cpu->clockevent.deadline);
	clockevent_program(&cpu->timers);
}

void trouble_end(struct storm_run *run)
{
	struct trouble *t = this_trouble();

	if (run->result.troubles[TROUBLE_TSC])
		wrmsr(MSR_TSC_ADJUST, t->tsc_adjust);
	if (t->home == &trouble_area_mode)
		trouble_area_check(run);
}

static void spin_for(uint64_t cycles)
{
	uint64_t start = rdtsc();

	while (rdtsc() - start < cycles)
		compiler_barrier();
}

static bool coin(struct storm_run *run)
{
	return random_next(&run->random) & 1;
}

static uint64_t any_while(struct storm_run *run)
{
	return random_between(&run->random, 0, run->timeout);
}

static uint32_t any_cpu(struct storm_run *run)
{
	return cpus[random_between(&run->random, 0, run->result.cpus - 1)].lapic_id;
}

/* Up to a timeout from where it was, forth or back. */
static void move_tsc(struct storm_run *run)
{
	wrmsr(MSR_TSC_ADJUST, this_trouble()->tsc_adjust + run->timeout - 2 * any_while(run));
}

/*
 * The deadline that was given last, when nothing else has been asked for since, is to come
 * once more: deferred, and past when the CPU halts.
 */
static void tsc_again(struct storm_run *run)
{
	struct storm_timer *t = run->timers;
	uint64_t due = t->due, lead = tsc_from_ns(AGAIN_NS);

	for (uint64_t i = 0; i < run->result.timers; i++)
		storm_stop(run, &run->timers[i]);
	idle_enter();
	wrmsr(MSR_TSC_ADJUST, rdmsr(MSR_TSC_ADJUST) + due - lead - rdtsc());
	storm_start(run, t, due);
	spin_for(2 * lead);
	while (hrtimer_is_active(&t->timer))
		idle_halt();
	idle_exit();
}

static void mask(struct storm_run *run, enum trouble_place place)
{
	struct clockevent *ce = &this_cpu()->clockevent;
	bool accepted;
	uint64_t before;

	lapic_timer_mask(true);
	accepted = lapic_requested(VECTOR_TIMER);
	before = ce->interrupts;
	if (place == IN_THREAD)
		irq_enable();
	spin_for(any_while(run));
	irq_disable();
	run->result.wrong += !accepted && ce->interrupts != before;
	lapic_timer_mask(false);
	if (!kvm_present() || coin(run))
		program_again();
}

static void apic_off(struct storm_run *run)
{
	uint64_t next;

	spin_for(any_while(run) / 4);
	lapic_software_enable(false);
	spin_for(any_while(run) / 4);
	lapic_software_enable(true);
	if (!kvm_present() || run->result.mode == &deadline_rearm ||
	    !hrtimer_next(&this_cpu()->timers, &next) || next <= rdtsc() || coin(run))
		program_again();
}

static void oneshot(struct storm_run *run, enum trouble_place place)
{
	struct clockevent *ce = &this_cpu()->clockevent;

	ce->mode->cancel(&ce->deadline);
	/* A periodic one that short would leave no time for anything else. */
	lapic_timer_other_mode(lapic.tsc_deadline ? (uint32_t)any_while(run) / 8 : 0);
	if (place == IN_THREAD)
		irq_enable();
	spin_for(any_while(run) / 4);
	irq_disable();
	lapic_timer_usual_mode();
	program_again();
}

static void feature(struct storm_run *run)
{
	const struct deadline_ops *home = this_trouble()->home;
	const struct deadline_ops *other = &deadline_eager;

	if (home == other)
		other = deadline_lazy.missing() || run->options->trace ? &deadline_rearm
								       : &deadline_lazy;
	if (coin(run)) {
		change_mode(other);
		if (coin(run))
			return; /* trouble_over() */
	}
	change_mode(home);
}

static void area(struct storm_run *run)
{
	uint64_t next = 0;

	(void)hrtimer_next(&this_cpu()->timers, &next);
	trouble_area_move(run, next);
}

void trouble_make(struct storm_run *run, enum storm_trouble kind, enum trouble_place place)
{
	switch (kind) {
	case TROUBLE_NMI: /* who takes it counts it */
		lapic_nmi(any_cpu(run));
		return;
	case TROUBLE_SPURIOUS:
		lapic_ipi(any_cpu(run), VECTOR_SPURIOUS);
		return;
	case TROUBLE_TIMER:
		lapic_ipi(this_cpu()->lapic_id, VECTOR_TIMER);
		break;
	case TROUBLE_TSC:
		move_tsc(run);
		break;
	case TROUBLE_MASK:
		mask(run, place);
		break;
	case TROUBLE_APIC:
		apic_off(run);
		break;
	case TROUBLE_ONESHOT:
		oneshot(run, place);
		break;
	case TROUBLE_FEATURE:
		feature(run);
		break;
	case TROUBLE_AREA:
		area(run);
		break;
	case TROUBLES:
		return;
	}
	run->result.troubles[kind]++;
}

void trouble_over(struct storm_run *run)
{
	if (this_cpu()->clockevent.mode != this_trouble()->home)
		change_mode(this_trouble()->home);
	if (run->result.troubles[TROUBLE_TSC] % 8 == 7) {
		tsc_again(run);
		run->result.troubles[TROUBLE_TSC]++;
	}
}
