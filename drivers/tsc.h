/* SPDX-License-Identifier: MIT */
/*
 * The clock: the time stamp counter and its frequency.
 */
#ifndef DRIVERS_TSC_H
#define DRIVERS_TSC_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Finds the frequency: kvmclock, else CPUID, else measured with the PIT.
 * Interrupts off; after kvm_init(). False if no source knows.
 */
bool tsc_init(void);

uint64_t tsc_hz(void);
const char *tsc_source(void); /* which of them told, for people */
bool tsc_invariant(void);     /* CPUID promises the same rate in all states */

/* Cycles to ns and back, rounded down; saturate at 2^64 - 1 (500 years fit). */
uint64_t tsc_to_ns(uint64_t cycles);
uint64_t tsc_from_ns(uint64_t ns);

#endif
