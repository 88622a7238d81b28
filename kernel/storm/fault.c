// SPDX-License-Identifier: MIT
/*
 * Faults on request, so that tests can see each check of the storm, and of what
 * watches the guest, fail.
 */
#include "drivers/tsc.h"
#include "kernel/cpu.h"
#include "kernel/panic.h"
#include "kernel/storm/storm.h"

static void take_out(struct storm_timer *t)
{
	hrtimer_cancel(&this_cpu()->timers, &t->timer);
}

/* Hidden from the compiler, which would say that it cannot be meant. */
static void write_at(uintptr_t address)
{
	__asm__ volatile("movb $0, (%0)" : : "r"(address) : "memory");
}

static void execute_data(void)
{
	static uint8_t code[] = { 0xc3 }; /* RET */

	__asm__ volatile("call *%0" : : "r"(code) : "memory");
}

static void overflow_stack(void)
{
	__asm__ volatile("1: push $0; jmp 1b");
}

void storm_fault(const struct storm_run *run, struct storm_timer *t)
{
	enum storm_fault fault = (enum storm_fault)run->options->fault;
	static bool done;

	if (done || this_cpu()->number != (fault == STORM_FAULT_STACK1))
		return;
	done = true;
	switch (fault) {
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
		t->due += tsc_hz(); /* a second: however long this has taken */
		t->timer.callback(&t->timer);
		break;
	case STORM_FAULT_FORGOTTEN: /* by the record too: only the sums can tell */
		take_out(t);
		t->armed = false;
		break;
	case STORM_FAULT_TEXT:
		write_at((uintptr_t)storm_fault);
		break;
	case STORM_FAULT_CONSTANT:
		write_at((uintptr_t)storm_workload_names[0]);
		break;
	case STORM_FAULT_DATA:
		execute_data();
		break;
	case STORM_FAULT_NULL:
		write_at(0);
		break;
	case STORM_FAULT_STACK:
	case STORM_FAULT_STACK1:
		overflow_stack();
		break;
	}
}
