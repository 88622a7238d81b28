/* SPDX-License-Identifier: MIT */
/*
 * What a deadline mode does, step by step, for the storm's option trace=. The modes are
 * compiled a second time with these steps written down, so the first costs nothing.
 *
 * Each CPU writes down its own steps, in program order. A store or a WRMSR is written down
 * right before it is done, a load right after: so each lies between its own time and that
 * of a neighbour.
 */
#ifndef KERNEL_TRACE_H
#define KERNEL_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel/cpu.h"

enum trace_kind {
	/* what is asked of the mode; value: the deadline */
	TRACE_ENABLE,
	TRACE_DISABLE,
	TRACE_SET,
	TRACE_CANCEL,
	TRACE_DEFER,
	TRACE_COMMIT,
	TRACE_INTERRUPT, /* the timer's */
	/* what it does about it; value: what is read or written */
	TRACE_STORE_PENDING,
	TRACE_LOAD_ARMED,
	TRACE_LOAD_HOST,
	TRACE_WRITE, /* IA32_TSC_DEADLINE */
	TRACE_MSR,   /* MSR_KVM_LAZY_TSCDEADLINE */
	/* the CPU's HLT */
	TRACE_HALT,
	TRACE_WAKE,
	TRACE_KINDS
};

#define TRACE_MAX 400000 /* events of all CPUs together */

/* From now on `count` events of each of so many CPUs are kept. On CPU 0, nobody traced. */
void trace_begin(const struct deadline_ops *mode, unsigned int used, uint64_t count);

/* The mode that does what the one of trace_begin() does, and writes it down. */
extern const struct deadline_ops deadline_traced;

/* Prints what was kept; docs/results.md has the format. On CPU 0, nobody traced. */
void trace_print(const char *workload, unsigned int used);

void trace_event(enum trace_kind kind, uint64_t value);

/* Any context, interrupts off. */
static inline void trace_idle(enum trace_kind kind)
{
	if (__builtin_expect(this_cpu()->clockevent.mode == &deadline_traced, false))
		trace_event(kind, 0);
}

#endif
