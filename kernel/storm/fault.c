// SPDX-License-Identifier: MIT
/*
 * Faults on request, so that tests can see each check of the storm, and of what
 * watches the guest, fail.
 */
#include "kernel/cpu.h"
#include "kernel/panic.h"
#include "kernel/storm/storm.h"

static void take_out(struct storm_timer *t)
{
	hrtimer_cancel(&this_cpu()->timers, &t->timer);
}

void storm_fault(const struct storm_run *run, struct storm_timer *t)
{
	static bool done;

	if (done || this_cpu()->number != 0)
		return;
	done = true;
	switch ((enum storm_fault)run->options->fault) {
	case STORM_FAULT_NONE:
		break;
	case STORM_FAULT_PANIC:
		panic("fault=panic was asked for");
	case STORM_FAULT_EXCEPTION:
		__asm__ volatile("ud2");
		break;
	case STORM_FAULT_HANG:
		for (;;)
			compiler_barrier();
	case STORM_FAULT_LOST:
		take_out(t);
		break;
	case STORM_FAULT_EARLY:
		take_out(t);
		t->timer.callback(&t->timer);
		break;
	case STORM_FAULT_FORGOTTEN: /* by the record too: only the sums can tell */
		take_out(t);
		t->armed = false;
		break;
	}
}
