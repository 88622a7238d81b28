// SPDX-License-Identifier: MIT
/*
 * Tests of kernel/clockevent.c and kernel/idle.c, between the real wheel and a mode
 * that writes down what it is told.
 */
#include "unit.h"

#include <string.h>

#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/trace.h"

struct lapic lapic = { .x2apic = true, .tsc_deadline = true };

static struct cpu cpu;
static struct cpu *self; /* what GS points to; NULL: not yet */
static uint64_t now;
static unsigned int eois, callbacks;
static bool interrupts_off;
static trap_handler timer;
static char said[200];
static struct hrtimer a, b;

static void say(const char *what, uint64_t value)
{
	size_t length = strlen(said);

	assert_true(interrupts_off);
	snprintf(said + length, sizeof(said) - length, "%s %lu. ", what, value);
}

/* What was said since the last call. */
static void expect(const char *text)
{
	assert_string_equal(said, text);
	said[0] = 0;
}

void *percpu_self(void)
{
	return self;
}

uint64_t rdtsc(void)
{
	return now;
}

uint64_t rdtsc_ordered(void)
{
	return now;
}

void irq_disable(void)
{
	interrupts_off = true;
}

void irq_enable(void)
{
	interrupts_off = false;
}

void cpu_wait(void)
{
	say("halt", now);
}

void wrmsr(uint32_t msr, uint64_t value)
{
	assert_int_equal(msr, MSR_TSC_DEADLINE);
	say("write", value);
}

void lapic_oneshot(uint64_t deadline)
{
	(void)deadline;
	fail_msg("the one-shot timer was used");
}

void lapic_write_eoi(void)
{
	eois++;
}

void trap_handle(unsigned int vector, trap_handler handler)
{
	assert_int_equal(vector, VECTOR_TIMER);
	timer = handler;
}

void trace_event(enum trace_kind kind, uint64_t value)
{
	(void)kind;
	(void)value;
	fail_msg("a mode that is not traced left an event");
}

const struct deadline_ops deadline_traced;

static void mode_enable(struct deadline *d, uint64_t deadline)
{
	(void)d;
	say("enable", deadline);
}

static void mode_disable(struct deadline *d)
{
	(void)d;
	say("disable", now);
}

static void mode_set(struct deadline *d, uint64_t deadline)
{
	(void)d;
	say("set", deadline);
}

static void mode_cancel(struct deadline *d)
{
	(void)d;
	say("cancel", now);
}

static void mode_defer(struct deadline *d, uint64_t deadline)
{
	(void)d;
	say("defer", deadline);
}

static void mode_commit(struct deadline *d)
{
	(void)d;
	say("commit", now);
}

static void mode_interrupt(struct deadline *d)
{
	(void)d;
	say("interrupt", now);
}

static const struct deadline_ops mode = {
	.enable = mode_enable,
	.disable = mode_disable,
	.set = mode_set,
	.cancel = mode_cancel,
	.defer = mode_defer,
	.commit = mode_commit,
	.interrupt = mode_interrupt,
};

static void callback(struct hrtimer *t)
{
	(void)t;
	callbacks++;
}

static int setup(void **state)
{
	(void)state;
	memset(&cpu, 0, sizeof(cpu));
	self = &cpu;
	now = 10;
	eois = callbacks = 0;
	interrupts_off = true;
	clockevent_init(&cpu);
	clockevent_set_mode(&mode);
	irq_disable();
	hrtimer_init(&a, callback);
	hrtimer_init(&b, callback);
	said[0] = 0;
	return 0;
}

static void earliest(void **state)
{
	(void)state;
	hrtimer_start(&cpu.timers, &a, 100);
	expect("set 100. ");
	hrtimer_start(&cpu.timers, &b, 200);
	expect("");
	hrtimer_start(&cpu.timers, &b, 50);
	expect("set 50. ");
	hrtimer_cancel(&cpu.timers, &b);
	expect("set 100. ");
	hrtimer_cancel(&cpu.timers, &a);
	expect("cancel 10. ");
}

static void long_past(void **state)
{
	(void)state;
	hrtimer_start(&cpu.timers, &a, 0);
	expect("set 1. ");
	clockevent_set_mode(&mode);
	irq_disable();
	expect("disable 10. enable 1. ");
}

static void idle(void **state)
{
	(void)state;
	idle_enter();
	hrtimer_start(&cpu.timers, &a, 100);
	expect("defer 100. ");
	hrtimer_start(&cpu.timers, &a, 10);
	expect("set 10. ");
	idle_halt();
	expect("halt 10. ");
	assert_int_equal(cpu.clockevent.wakeups, 1);
	hrtimer_start(&cpu.timers, &a, 11);
	expect("defer 11. ");
	idle_exit();
	expect("commit 10. ");
	hrtimer_start(&cpu.timers, &a, 100);
	expect("set 100. ");
}

static void fires(void **state)
{
	(void)state;
	hrtimer_start(&cpu.timers, &a, 100);
	hrtimer_start(&cpu.timers, &b, 101);
	expect("set 100. ");
	now = 100;
	timer(NULL);
	expect("interrupt 100. set 101. ");
	assert_int_equal(callbacks, 1);
	now = 200;
	timer(NULL);
	expect("interrupt 200. cancel 200. ");
	assert_int_equal(callbacks, 2);
	assert_int_equal(cpu.clockevent.interrupts, 2);
	assert_int_equal(cpu.clockevent.spurious, 0);
}

static void fires_early(void **state)
{
	(void)state;
	hrtimer_start(&cpu.timers, &a, 100);
	expect("set 100. ");
	timer(NULL);
	expect("interrupt 10. set 100. ");
	assert_int_equal(callbacks, 0);
	assert_int_equal(cpu.clockevent.interrupts, 1);
	assert_int_equal(cpu.clockevent.spurious, 1);
}

static void end_of_interrupt(void **state)
{
	(void)state;
	timer(NULL);
	assert_int_equal(eois, 1);
	cpu.eoi.word = 1;
	timer(NULL);
	assert_int_equal(eois, 1);
	assert_int_equal(cpu.eoi.word, 0);
	timer(NULL);
	assert_int_equal(eois, 2);
}

static void new_mode(void **state)
{
	(void)state;
	clockevent_set_mode(&mode);
	assert_false(interrupts_off);
	expect("disable 10. enable 0. ");
	irq_disable();
	hrtimer_start(&cpu.timers, &a, 100);
	clockevent_set_mode(&mode);
	expect("set 100. disable 10. enable 100. ");
}

static void measured(void **state)
{
	static struct histogram h;

	(void)state;
	clockevent_measure(&h);
	hrtimer_start(&cpu.timers, &a, 100);
	expect("set 100. ");
	assert_int_equal(h.count, 1);
	clockevent_measure(NULL);
	hrtimer_start(&cpu.timers, &a, 90);
	assert_int_equal(h.count, 1);
}

static void off(void **state)
{
	(void)state;
	clockevent_off();
	expect("disable 10. write 0. ");
	cpu.clockevent.mode = NULL;
	clockevent_off();
	self = NULL;
	clockevent_off();
	expect("");
}

#define FRESH(function, sentence)                     \
	{                                             \
		sentence, function, setup, NULL, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FRESH(earliest, "the mode is told of the earliest deadline, once"),
		FRESH(long_past, "the deadline 0, which would mean none, becomes 1"),
		FRESH(idle, "only what is to come is deferred, and only when idle"),
		FRESH(fires, "an interrupt runs what is due and programs once"),
		FRESH(fires_early, "one that finds nothing due programs again, counted"),
		FRESH(end_of_interrupt, "the LAPIC hears of its end, or the host's word"),
		FRESH(new_mode, "a new mode begins with what is pending"),
		FRESH(measured, "programming is measured while it is asked for"),
		FRESH(off, "turned off, mode and timer are, and too early nothing is"),
	};

	return cmocka_run_group_tests_name("clockevent", tests, NULL, NULL);
}
