/* SPDX-License-Identifier: MIT */
/*
 * VM-exit counters of this vCPU, as the host counts them (docs/protocol.md).
 */
#ifndef KERNEL_STORM_COUNTS_H
#define KERNEL_STORM_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

/* In the order in which the hypercall delivers them. */
enum count_index {
	COUNT_EXITS,
	COUNT_HALT,
	COUNT_MSR_WRITE,
	COUNT_TSC_DEADLINE,
	COUNT_ICR,
	COUNT_PREEMPTION_TIMER,
	COUNT_EXTERNAL_INTERRUPT,
	COUNT_IO,
	COUNT_HYPERCALL,
	COUNT_KICK,
	COUNT_REARM,
	COUNT_CANCELLED,
	COUNT_HALT_SYNC,
	COUNT_TIMER_INTERRUPT,
	COUNTS
};

struct counts {
	uint64_t value[COUNTS];
	bool known[COUNTS];
	bool from_host; /* else only what the guest itself can count is known */
	uint64_t writes; /* of IA32_TSC_DEADLINE, as the guest counts them */
};

/* The names of the counters in JSON. */
extern const char *const count_keys[COUNTS];

/* Reads all counters of this CPU. One exit. */
void counts_read(struct counts *counts);

/* sum + part, for what both know. */
void counts_add(struct counts *sum, const struct counts *part);

/*
 * after - before. A guest that was moved to another host or put back in time between
 * the two is left with its own count: the host's started again, or went on.
 */
void counts_subtract(struct counts *result, const struct counts *after,
		     const struct counts *before);

#endif
