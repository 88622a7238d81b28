/* SPDX-License-Identifier: MIT */
/*
 * Clock event: keeps the LAPIC timer at the wheel's earliest deadline, in the
 * deadline mode that is chosen, and answers the timer interrupt.
 */
#ifndef KERNEL_CLOCKEVENT_H
#define KERNEL_CLOCKEVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "drivers/deadline.h"
#include "kernel/histogram.h"

struct cpu;
struct hrtimer_base;

/* One per CPU, in struct cpu. */
struct clockevent {
	const struct deadline_ops *mode;
	struct deadline deadline;
	bool idle;		      /* will halt or commit: see idle.h */
	uint64_t interrupts;	      /* timer interrupts since boot */
	uint64_t spurious;	      /* of these, found nothing due */
	uint64_t wakeups;	      /* times idle_halt() came back, since boot */
	struct histogram *set_cycles; /* NULL: programming is not measured */
};

/*
 * Gives this CPU an empty wheel and the eager mode, and takes the timer vector.
 * Interrupts off; after lapic_init().
 */
void clockevent_init(struct cpu *cpu);

/*
 * Brings the timer to the earliest deadline of this CPU's wheel. The wheel calls
 * it as its event. Interrupts off.
 */
void clockevent_program(struct hrtimer_base *base);

/*
 * Changes the mode of this CPU, whatever is pending. Any context but the timer
 * interrupt. The caller has asked mode->missing().
 */
void clockevent_set_mode(const struct deadline_ops *mode);

/* Times each programming from now on, in TSC cycles; NULL: stops that. */
void clockevent_measure(struct histogram *set_cycles);

/* Leaves the mode for good and stops the timer. Any context, even too early. */
void clockevent_off(void);

#endif
