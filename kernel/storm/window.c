// SPDX-License-Identifier: MIT
/*
 * The counted window of a run: counters are read at both ends of it, and nothing
 * is printed in between.
 */
#include "drivers/tsc.h"
#include "kernel/cpu.h"
#include "kernel/storm/storm.h"

void storm_open(struct storm_run *run)
{
	const struct clockevent *ce = &this_cpu()->clockevent;
	struct storm_result *r = &run->result;

	r->msr_writes = ce->deadline.timer.writes;
	r->interrupts = ce->interrupts;
	r->spurious = ce->spurious;
	r->wakeups = ce->wakeups;
	clockevent_measure(&run->set_cycles);
	run->open = true;
	counts_read(&run->before);
	run->start = rdtsc_ordered();
}

void storm_close(struct storm_run *run)
{
	const struct clockevent *ce = &this_cpu()->clockevent;
	struct storm_result *r = &run->result;
	uint64_t end = rdtsc_ordered();
	struct counts after;

	counts_read(&after);
	run->open = false;
	clockevent_measure(NULL);
	counts_subtract(&r->exits, &after, &run->before);
	r->ns = tsc_to_ns(end - run->start);
	r->msr_writes = ce->deadline.timer.writes - r->msr_writes;
	r->interrupts = ce->interrupts - r->interrupts;
	r->spurious = ce->spurious - r->spurious;
	r->wakeups = ce->wakeups - r->wakeups;
}
