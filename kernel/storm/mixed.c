// SPDX-License-Identifier: MIT
/*
 * Workload "mixed": stands for a server that does a bit of everything. A tick goes on
 * at a fiftieth of the timeout; of the other timers each is a connection. Of ten
 * operations seven push a connection's timeout out, two close one and open it again,
 * and one waits, for about half a tick, for something that does not come.
 */
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/storm/random.h"
#include "kernel/storm/storm.h"

#define TICK	    0
#define SLEEPER	    1
#define CONNECTIONS 2  /* the first of them */
#define TICKS	    50 /* in a timeout */

static void wait(struct storm_run *run)
{
	struct storm_timer *t = &run->timers[SLEEPER];
	uint64_t most = run->timeout / TICKS;

	idle_enter();
	storm_start(run, t, rdtsc() + random_between(&run->random, most / 8, most));
	while (hrtimer_is_active(&t->timer))
		idle_halt();
	idle_exit();
}

static void operate(struct storm_run *run, bool fault)
{
	struct storm_timer *t = &run->timers[random_between(
		&run->random, CONNECTIONS, run->result.timers - 1)];
	uint64_t which = random_between(&run->random, 0, 9);

	irq_disable();
	if (which == 9) {
		wait(run);
	} else {
		if (which >= 7)
			storm_stop(run, t);
		storm_start(run, t, rdtsc() + run->timeout);
	}
	if (fault)
		storm_fault(run, t);
	irq_enable();
}

static void mixed_run(struct storm_run *run)
{
	struct storm_timer *t = &run->timers[TICK];

	storm_check_begin(run, storm_once);
	storm_open(run);
	irq_disable();
	storm_start_tick(run, t, run->timeout / TICKS);
	irq_enable();
	for (uint64_t i = 0; i < run->result.ops; i++)
		operate(run, i == run->result.ops / 2);
	storm_close(run);
	irq_disable();
	storm_stop(run, t);
	irq_enable();
	storm_drain();
}

const struct storm_workload storm_mixed = {
	.name = "mixed",
	.what = "a server that does a bit of everything",
	.ops = 5000,
	.timers = 100,
	.timeout_ns = 200000000,
	.min_timers = 3,
	.max_timers = STORM_MAX_TIMERS,
	.run = mixed_run,
};
