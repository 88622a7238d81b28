// SPDX-License-Identifier: MIT
/*
 * Workload "rearm": stands for a busy server with many TCP connections. Each
 * packet pushes a connection's retransmission timer out to now + timeout, and
 * hardly any ever fires.
 *
 * Each operation takes the connection that is due first, so the earliest deadline
 * changes each time; with order=random it takes any. Where the host is so slow
 * that a timer does fire, its connection is closed, and the next operation opens
 * it again: the population stays what it was, and firing cannot outrun the
 * operations. Afterwards, uncounted, every timer is left to fire, to show that
 * none was lost.
 *
 * The timeout is long enough that eager, with an exit of up to a millisecond for
 * each operation, gets round its population before any timer is due.
 */
#include "kernel/cpu.h"
#include "kernel/storm/random.h"
#include "kernel/storm/storm.h"

static void connection_timed_out(struct hrtimer *timer)
{
	struct storm_timer *t = (struct storm_timer *)timer;
	struct storm_run *run = storm_this_run();

	storm_fired(run, t);
	t->closed = run->closed;
	run->closed = t;
}

static struct storm_timer *choose(struct storm_run *run)
{
	struct storm_timer *t = run->closed;
	struct hrtimer *first = hrtimer_first(&this_cpu()->timers);

	if (run->options->order == STORM_ORDER_RANDOM)
		return &run->timers[random_between(&run->random, 0,
						   run->result.timers - 1)];
	if (t) {
		run->closed = t->closed;
		return t;
	}
	return first ? (struct storm_timer *)first : run->timers;
}

static void push(struct storm_run *run, bool fault)
{
	struct storm_timer *t;

	irq_disable();
	t = choose(run);
	storm_start(run, t, rdtsc() + run->timeout);
	if (fault)
		storm_fault(run, t);
	irq_enable();
}

static void populate(struct storm_run *run)
{
	for (uint64_t i = 0; i < run->result.timers; i++) {
		irq_disable();
		storm_start(run, &run->timers[i], rdtsc() + run->timeout);
		irq_enable();
	}
}

static void rearm_run(struct storm_run *run)
{
	storm_check_begin(run, connection_timed_out);
	populate(run);
	storm_open(run);
	for (uint64_t i = 0; i < run->result.ops; i++)
		push(run, i == run->result.ops / 2);
	storm_close(run);
	storm_drain();
}

const struct storm_workload storm_rearm = {
	.name = "rearm",
	.what = "connections push out their timeouts",
	.ops = 50000,
	.timers = 1000,
	.timeout_ns = 1000000000,
	.max_timers = STORM_MAX_TIMERS,
	.run = rearm_run,
};
