// SPDX-License-Identifier: MIT
/*
 * Between the wheel (hrtimer.c) and the deadline modes (drivers/deadline_*.c).
 */
#include "kernel/clockevent.h"

#include "arch/x86/trap.h"
#include "kernel/cpu.h"

/* The deadline 0 means none to the hardware; both it and 1 are long past. */
static uint64_t usable(uint64_t deadline)
{
	return deadline ? deadline : 1;
}

static void program(struct cpu *cpu)
{
	struct clockevent *ce = &cpu->clockevent;
	uint64_t next;

	if (!hrtimer_next(&cpu->timers, &next))
		ce->mode->cancel(&ce->deadline);
	else if (ce->idle && next > rdtsc())
		ce->mode->defer(&ce->deadline, next);
	else
		ce->mode->set(&ce->deadline, usable(next));
}

static void program_measured(struct cpu *cpu)
{
	uint64_t start = rdtsc_ordered();

	program(cpu);
	histogram_add(cpu->clockevent.set_cycles, rdtsc_ordered() - start);
}

void clockevent_program(struct hrtimer_base *base)
{
	struct cpu *cpu = this_cpu();

	(void)base; /* the only one of this CPU */
	if (cpu->clockevent.set_cycles)
		program_measured(cpu);
	else
		program(cpu);
}

/*
 * hrtimer_expire() ends with clockevent_program(), so the timer is programmed
 * once for each interrupt, whatever the callbacks did.
 */
static void timer_interrupt(struct trap_frame *frame)
{
	struct cpu *cpu = this_cpu();
	struct clockevent *ce = &cpu->clockevent;

	(void)frame;
	cpu_eoi(cpu);
	ce->interrupts++;
	ce->mode->interrupt(&ce->deadline);
	if (hrtimer_expire(&cpu->timers) == 0)
		ce->spurious++;
}

void clockevent_init(struct cpu *cpu)
{
	hrtimer_base_init(&cpu->timers, rdtsc, clockevent_program);
	cpu->clockevent.mode = &deadline_eager;
	deadline_eager.enable(&cpu->clockevent.deadline, 0);
	trap_handle(VECTOR_TIMER, timer_interrupt);
}

void clockevent_set_mode(const struct deadline_ops *mode)
{
	struct cpu *cpu = this_cpu();
	struct clockevent *ce = &cpu->clockevent;
	uint64_t next = 0;

	irq_disable();
	if (hrtimer_next(&cpu->timers, &next))
		next = usable(next);
	ce->mode->disable(&ce->deadline);
	ce->mode = mode;
	mode->enable(&ce->deadline, next);
	irq_enable();
}

void clockevent_measure(struct histogram *set_cycles)
{
	this_cpu()->clockevent.set_cycles = set_cycles;
}

void clockevent_off(void)
{
	struct cpu *cpu = this_cpu();

	if (!cpu || !cpu->clockevent.mode)
		return;
	cpu->clockevent.mode->disable(&cpu->clockevent.deadline);
	lapic_timer_program(&cpu->clockevent.deadline.timer, 0);
}
