// SPDX-License-Identifier: MIT
/*
 * Workload "expire": stands for the periodic work of a machine that is otherwise
 * idle: ticks, watchdogs, statistics, media frames. Timers of mixed rates, all of
 * which fire, with HLT in between. An operation is one expiration. As with ticks,
 * periods are whole multiples of a unit, so timers that meet share an interrupt,
 * and others are further apart than programming one takes, in every mode.
 *
 * With slack= each may fire later by so much, and the wheel lets those share an
 * interrupt whose windows overlap. Lateness is what comes after the window.
 *
 * Here lazy has nothing to save but the write before each halt, and must cost
 * nothing either.
 */
#include "drivers/tsc.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/storm/random.h"
#include "kernel/storm/storm.h"

#define UNITS 20 /* periods are 1 to 20 times timeout / 20 */

/* Whole periods from the first deadline on, so that nothing drifts. */
static void tick(struct hrtimer *timer)
{
	struct storm_timer *t = (struct storm_timer *)timer;
	struct storm_run *run = storm_this_run();
	uint64_t next;

	storm_fired(run, t);
	if (run->counts.fired >= run->result.ops)
		return;
	hrtimer_forward(timer, rdtsc(), t->period, &next);
	storm_start(run, t, next);
}

static void populate(struct storm_run *run)
{
	uint64_t unit = run->timeout / UNITS, start = rdtsc();

	for (uint64_t i = 0; i < run->result.timers; i++) {
		struct storm_timer *t = &run->timers[i];

		t->period = unit * random_between(&run->random, 1, UNITS);
		storm_start(run, t, start + t->period);
	}
}

/* Interrupts are off but in HLT, so nothing fires before the window is open. */
static void expire_run(struct storm_run *run)
{
	storm_check_begin(run, tick);
	run->slack = tsc_from_ns(run->options->slack);
	irq_disable();
	populate(run);
	storm_open(run);
	storm_fault(run, run->timers);
	idle_enter();
	while (run->counts.fired < run->result.ops &&
	       hrtimer_first(&this_cpu()->timers))
		idle_halt();
	idle_exit();
	storm_close(run);
	irq_enable();
}

const struct storm_workload storm_expire = {
	.name = "expire",
	.what = "periodic timers of mixed rates",
	.ops = 4000,
	.timers = 16,
	.timeout_ns = 40000000,
	.max_timers = STORM_MAX_TIMERS,
	.run = expire_run,
};
