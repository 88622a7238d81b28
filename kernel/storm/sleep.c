// SPDX-License-Identifier: MIT
/*
 * Workload "sleep": stands for a program that waits a moment, does a little and
 * waits again, as usleep() in a polling loop or a paced network sender does. One
 * timer; each operation is one sleep of random length in HLT.
 */
#include "drivers/tsc.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/storm/random.h"
#include "kernel/storm/storm.h"

#define SHORTEST_NS 50000 /* or an eighth of the longest, where that is less */

static uint64_t shortest(const struct storm_run *run)
{
	uint64_t usual = tsc_from_ns(SHORTEST_NS), eighth = run->timeout / 8;

	return usual < eighth ? usual : eighth;
}

/*
 * Idle begins before the timer is started, so that it can be deferred to the
 * halt. A timer neither active nor fired would sleep for ever: leave that to the
 * check.
 */
static void sleep_once(struct storm_run *run, uint64_t length, bool fault)
{
	struct storm_timer *t = run->timers;

	irq_disable();
	idle_enter();
	storm_start(run, t, rdtsc() + length);
	if (fault)
		storm_fault(run, t);
	while (hrtimer_is_active(&t->timer))
		idle_halt();
	idle_exit();
	irq_enable();
}

static void sleep_run(struct storm_run *run)
{
	uint64_t low = shortest(run);

	storm_check_begin(run, storm_once);
	storm_open(run);
	for (uint64_t i = 0; i < run->result.ops; i++)
		sleep_once(run,
			   random_between(&run->random, low, run->timeout),
			   i == run->result.ops / 2);
	storm_close(run);
}

const struct storm_workload storm_sleep = {
	.name = "sleep",
	.what = "short sleeps of random length",
	.ops = 5000,
	.timers = 1,
	.timeout_ns = 400000,
	.max_timers = 1,
	.run = sleep_run,
};
