/* SPDX-License-Identifier: MIT */
/*
 * What a timer path never does to its local APIC: the storm "faults" does it on
 * purpose. All of it is about this CPU's; interrupts off.
 */
#ifndef DRIVERS_LAPIC_FAULTS_H
#define DRIVERS_LAPIC_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

/* The LVT's mask of the timer. */
void lapic_timer_mask(bool masked);

/*
 * Another LVT mode: one-shot, or periodic where one-shot is the usual one. It counts
 * down from `ticks`, 0: not at all.
 */
void lapic_timer_other_mode(uint32_t ticks);

/* Back to the usual mode, unmasked. The timer is off, and has to be programmed. */
void lapic_timer_usual_mode(void);

/*
 * The software-enable bit of the spurious-interrupt vector register. Turning it off
 * masks every LVT entry (SDM vol 3, 11.4.7.2); turning it on brings back those that
 * are in use.
 */
void lapic_software_enable(bool on);

/* Whether the vector has been accepted, but not delivered yet; whether it is in service. */
bool lapic_requested(unsigned int vector);
bool lapic_in_service(unsigned int vector);

#endif
