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
 * On the first CPU: chooses x2APIC and the TSC-deadline timer where offered, masks
 * the 8259s, and does what lapic_enable() does. Interrupts off; after tsc_init().
 * False if there is no LAPIC, or one whose timer stands still.
 */
bool lapic_init(void);

/*
 * Turns this CPU's LAPIC on: LINT pins masked, timer interrupts at VECTOR_TIMER.
 * Interrupts off; on each CPU but the first.
 */
void lapic_enable(void);

/* The EOI register. In the handler, interrupts off. See kvm_eoi(). */
void lapic_write_eoi(void);

/* This CPU's number as IPIs want it. */
uint32_t lapic_id(void);

/*
 * Interrupt `vector` on the CPU with that LAPIC id; what was stored before, it sees.
 * Interrupts off.
 */
void lapic_ipi(uint32_t id, unsigned int vector);

/*
 * INIT and two start-ups: the CPU begins in real mode at `page`, below 1 MiB and
 * page aligned. Returns before it has begun. Interrupts off.
 */
void lapic_start_cpu(uint32_t id, uint32_t page);

/* An NMI for the CPU with that LAPIC id. Any context. */
void lapic_nmi(uint32_t id);

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
