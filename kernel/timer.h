/* SPDX-License-Identifier: MIT */
/*
 * Timers of this CPU in nanoseconds, for those who do not count in cycles.
 */
#ifndef KERNEL_TIMER_H
#define KERNEL_TIMER_H

#include "drivers/tsc.h"
#include "kernel/cpu.h"

/* Nanoseconds since the TSC was 0. */
static inline uint64_t timer_now_ns(void)
{
	return tsc_to_ns(rdtsc());
}

/*
 * hrtimer_start() on this CPU at an absolute time in nanoseconds, as
 * timer_now_ns() counts; never before it, up to a microsecond after. Interrupts
 * off.
 */
static inline void timer_start_ns(struct hrtimer *timer, uint64_t ns)
{
	uint64_t cycles = tsc_from_ns(ns);

	hrtimer_start(&this_cpu()->timers, timer, cycles + (cycles < UINT64_MAX));
}

#endif
