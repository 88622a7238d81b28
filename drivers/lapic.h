/* SPDX-License-Identifier: MIT */
/*
 * The local APIC: its timer, and the little else that a guest without devices
 * needs of it. Intel SDM vol 3, chapter 11.
 *
 * This is the last step of the timer path: lapic_timer_program() is the WRMSR.
 */
#ifndef DRIVERS_LAPIC_H
#define DRIVERS_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86/cpu.h"

/* What lapic_init() found; read-only after it. */
struct lapic {
	bool x2apic;	   /* registers are MSRs, else memory */
	bool tsc_deadline; /* else the timer is a one-shot down counter */
};

extern struct lapic lapic;

/* One per CPU. */
struct lapic_timer {
	uint64_t writes; /* times the timer was programmed since boot */
};

/*
 * Turns this CPU's LAPIC on: x2APIC and the TSC-deadline timer where offered,
 * LINT pins and the 8259s masked, timer interrupts at VECTOR_TIMER. Interrupts
 * off; after tsc_init(). False if there is no LAPIC, or one whose timer stands
 * still.
 */
bool lapic_init(void);

/* End of interrupt. In the handler, interrupts off. */
void lapic_eoi(void);

/* Errors since the last call (SDM vol 3, 11.5.3), for the error vector. */
uint32_t lapic_read_errors(void);

/* lapic_timer_program() where there is no TSC-deadline timer. */
void lapic_oneshot(uint64_t deadline);

/*
 * Programs the timer: one interrupt at TSC value `deadline` or, for one in the
 * past, at once; 0 stops it. The one-shot fallback may interrupt too early by
 * what its counter cannot hold; whoever handles the interrupt looks at the clock
 * anyway. Interrupts off.
 */
static inline void lapic_timer_program(struct lapic_timer *timer,
				       uint64_t deadline)
{
	timer->writes++;
	if (lapic.tsc_deadline)
		wrmsr(MSR_TSC_DEADLINE, deadline);
	else
		lapic_oneshot(deadline);
}

#endif
