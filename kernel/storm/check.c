// SPDX-License-Identifier: MIT
/*
 * The storm's self-check: a record of every timer, kept beside the wheel and
 * compared with what the wheel does.
 *
 * Each start ends in exactly one of: fired, cancelled (stopped or moved), or pending
 * (in the wheel when the run is over). Starts and firings are counted where they
 * happen, cancelled and pending by what the wheel says, so the sums agree only if
 * wheel and record do. A timer is lost if it was dropped (the record says armed, the
 * wheel does not know it), or fired so long after its window that something else must
 * have found it. Five seconds: a starved host was seen to stop a guest for one.
 */
#include "drivers/tsc.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/panic.h"
#include "kernel/smp.h"
#include "kernel/storm/storm.h"

#define OVERDUE_NS 5000000000ull

void storm_check_begin(struct storm_run *run, hrtimer_callback callback)
{
	run->overdue = tsc_from_ns(OVERDUE_NS);
	smp_meet(run->result.cpus);
	for (uint64_t i = 0; i < run->result.timers; i++) {
		run->timers[i] = (struct storm_timer){ 0 };
		hrtimer_init(&run->timers[i].timer, callback);
	}
}

/* Record and wheel change together, or an interrupt in between finds them apart. */
static void need_irqs_off(void)
{
	if (irq_enabled())
		panic("storm: a timer is changed with interrupts on");
}

/* Closes the record of a timer that is about to be moved, stopped or forgotten. */
static void settle(struct storm_run *run, struct storm_timer *t)
{
	if (t->armed && hrtimer_is_active(&t->timer))
		run->counts.cancelled++;
	else if (t->armed)
		run->dropped++;
	t->armed = false;
}

void storm_start(struct storm_run *run, struct storm_timer *t, uint64_t due)
{
	need_irqs_off();
	settle(run, t);
	run->counts.armed++;
	t->armed = true;
	t->due = due;
	t->latest = due + run->slack;
	hrtimer_start_range(&this_cpu()->timers, &t->timer, due, run->slack);
}

void storm_stop(struct storm_run *run, struct storm_timer *t)
{
	need_irqs_off();
	settle(run, t);
	hrtimer_cancel(&this_cpu()->timers, &t->timer);
}

void storm_fired(struct storm_run *run, struct storm_timer *t)
{
	uint64_t now = rdtsc(), lateness = now < t->latest ? 0 : now - t->latest;

	run->counts.fired++;
	t->armed = false;
	if (now < t->due) {
		run->result.early++;
		return;
	}
	if (run->open)
		histogram_add(&run->lateness, lateness);
	if (lateness > run->overdue)
		run->late++;
}

void storm_once(struct hrtimer *timer)
{
	storm_fired(storm_this_run(), (struct storm_timer *)timer);
}

static void tick(struct hrtimer *timer)
{
	struct storm_timer *t = (struct storm_timer *)timer;
	struct storm_run *run = storm_this_run();
	uint64_t next;

	storm_fired(run, t);
	hrtimer_forward(timer, rdtsc(), t->period, &next);
	storm_start(run, t, next);
}

void storm_start_tick(struct storm_run *run, struct storm_timer *t, uint64_t period)
{
	hrtimer_init(&t->timer, tick);
	t->period = period;
	storm_start(run, t, rdtsc() + period);
}

void storm_drain(void)
{
	irq_disable();
	idle_enter();
	while (hrtimer_first(&this_cpu()->timers))
		idle_halt();
	idle_exit();
	irq_enable();
}

void storm_check_end(struct storm_run *run)
{
	struct hrtimer_base *wheel = &this_cpu()->timers;
	struct storm_result *r = &run->result;

	/* A timer that fires in here would be stopped and fired at once. */
	irq_disable();
	for (uint64_t i = 0; i < r->timers; i++) {
		struct storm_timer *t = &run->timers[i];
		bool known = hrtimer_cancel(wheel, &t->timer);

		run->counts.pending += known;
		run->dropped += t->armed && !known;
		t->armed = false;
	}
	irq_enable();
	r->lost = run->dropped + run->late;
	r->counts = run->counts;
}

bool storm_adds_up(const struct storm_result *r)
{
	const struct storm_counts *c = &r->counts;

	return c->armed == c->fired + c->cancelled + c->pending;
}
