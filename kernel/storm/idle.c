// SPDX-License-Identifier: MIT
/*
 * Workload "idle": stands for a machine that waits: long sleeps, from a tenth of the
 * timeout to all of it, one an operation. With tick=PERIOD a tick goes on meanwhile,
 * as in a kernel without NO_HZ; it wakes the CPU and is no operation.
 */
#include "drivers/tsc.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/storm/random.h"
#include "kernel/storm/storm.h"

#define SLEEPER 0
#define TICK	1

/* Idle throughout: what is started between two halts is armed by the second. */
static void idle_run(struct storm_run *run)
{
	struct storm_timer *sleeper = &run->timers[SLEEPER], *t = &run->timers[TICK];

	storm_check_begin(run, storm_once);
	irq_disable();
	storm_open(run);
	idle_enter();
	if (storm_tick(run))
		storm_start_tick(run, t, tsc_from_ns(storm_tick(run)));
	for (uint64_t i = 0; i < run->result.ops; i++) {
		storm_start(run, sleeper,
			    rdtsc() + random_between(&run->random, run->timeout / 10,
						     run->timeout));
		if (i == run->result.ops / 2)
			storm_fault(run, sleeper);
		while (hrtimer_is_active(&sleeper->timer))
			idle_halt();
	}
	storm_stop(run, t);
	idle_exit();
	storm_close(run);
	irq_enable();
}

const struct storm_workload storm_idle = {
	.name = "idle",
	.what = "long sleeps",
	.ops = 200,
	.timers = 2,
	.timeout_ns = 30000000,
	.min_timers = 2,
	.max_timers = 2,
	.run = idle_run,
};
