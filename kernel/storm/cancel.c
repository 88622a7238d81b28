// SPDX-License-Identifier: MIT
/*
 * Workload "cancel": stands for a client of databases and services that gives each
 * request a timeout. The answer always comes in time, so each timer is started,
 * cancelled and never fires. An operation is one request begun and one answered:
 * the oldest, which is the one that is due first.
 *
 * Eager programs the next deadline for each cancelled one. Where the host is so slow
 * that a timeout passes, the request is simply begun again.
 */
#include "kernel/cpu.h"
#include "kernel/storm/storm.h"

static void request(struct storm_run *run, struct storm_timer *t, bool fault)
{
	irq_disable();
	storm_stop(run, t);
	storm_start(run, t, rdtsc() + run->timeout);
	if (fault)
		storm_fault(run, t);
	irq_enable();
}

static void cancel_run(struct storm_run *run)
{
	uint64_t oldest = 0;

	storm_check_begin(run, storm_once);
	for (uint64_t i = 0; i < run->result.timers; i++)
		request(run, &run->timers[i], false);
	storm_open(run);
	for (uint64_t i = 0; i < run->result.ops; i++) {
		request(run, &run->timers[oldest], i == run->result.ops / 2);
		oldest = oldest + 1 < run->result.timers ? oldest + 1 : 0;
	}
	storm_close(run);
	storm_drain();
}

const struct storm_workload storm_cancel = {
	.name = "cancel",
	.what = "requests are answered before their timeout",
	.ops = 20000,
	.timers = 100,
	.timeout_ns = 500000000,
	.max_timers = STORM_MAX_TIMERS,
	.run = cancel_run,
};
