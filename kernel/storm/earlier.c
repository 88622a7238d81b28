// SPDX-License-Identifier: MIT
/*
 * Workload "earlier": stands for nothing that anybody runs on purpose, but for the
 * worst case: each deadline is earlier than the one before, as where a scheduler
 * keeps finding something more urgent. Every mode must write each of them, and what
 * lazy does besides is wasted. It shows by how much.
 *
 * One timer moves towards the present in equal steps; the last leaves it half the
 * timeout away, and then it is stopped.
 */
#include "kernel/cpu.h"
#include "kernel/storm/storm.h"

static void earlier_run(struct storm_run *run)
{
	uint64_t step = run->timeout / 2 / run->result.ops, due = 0;

	storm_check_begin(run, storm_once);
	storm_open(run);
	for (uint64_t i = 0; i < run->result.ops; i++) {
		irq_disable();
		due = i ? due - step : rdtsc() + run->timeout;
		storm_start(run, run->timers, due);
		if (i == run->result.ops / 2)
			storm_fault(run, run->timers);
		irq_enable();
	}
	storm_close(run);
}

const struct storm_workload storm_earlier = {
	.name = "earlier",
	.what = "each deadline before the last, the worst case",
	.ops = 5000,
	.timers = 1,
	.timeout_ns = 10000000000,
	.max_timers = 1,
	.run = earlier_run,
};
