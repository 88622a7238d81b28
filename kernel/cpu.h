/* SPDX-License-Identifier: MIT */
/*
 * Per-CPU data: all that the timer path keeps is here, none of it in globals.
 */
#ifndef KERNEL_CPU_H
#define KERNEL_CPU_H

#include "arch/x86/cpu.h"
#include "drivers/deadline.h"
#include "kernel/clockevent.h"
#include "kernel/hrtimer.h"

struct cpu {
	struct cpu *self; /* first: percpu_self() reads it */
	struct hrtimer_base timers;
	struct clockevent clockevent;
};

/* This CPU's data. Interrupts off where it matters which CPU that is. */
static inline struct cpu *this_cpu(void)
{
	return percpu_self();
}

#endif
