// SPDX-License-Identifier: MIT
/*
 * Idle: how deferring and committing deadlines bracket the HLT.
 */
#include "kernel/idle.h"

#include "kernel/cpu.h"
#include "kernel/trace.h"

void idle_enter(void)
{
	this_cpu()->clockevent.idle = true;
}

void idle_halt(void)
{
	trace_idle(TRACE_HALT);
	cpu_wait();
	trace_idle(TRACE_WAKE);
	this_cpu()->clockevent.wakeups++;
}

void idle_exit(void)
{
	struct clockevent *ce = &this_cpu()->clockevent;

	ce->idle = false;
	ce->mode->commit(&ce->deadline);
}
