/* SPDX-License-Identifier: MIT */
/*
 * The deadline modes: three ways to keep the LAPIC timer at the earliest
 * deadline, behind one set of operations.
 *
 * eager  WRMSR at each change
 * rearm  WRMSR only for a deadline earlier than what is armed; the guest itself
 *        takes the needless interrupt of each armed deadline that went away
 * lazy   the lazy TSC deadline protocol: the host takes it (docs/protocol.md)
 *
 * All operations run with interrupts off on the CPU that owns the struct.
 * Deadlines are TSC values and never 0, which means none.
 */
#ifndef DRIVERS_DEADLINE_H
#define DRIVERS_DEADLINE_H

#include <stdint.h>

#include "drivers/lapic.h"

/* What guest and host share, in the order that docs/protocol.md gives. */
struct lazy_area {
	uint64_t armed;	  /* by the host: what it holds a timer for */
	uint64_t host;	  /* by the host: bit 0, this vCPU's HLT exits */
	uint64_t pending; /* by the guest: what it wants */
	uint64_t reserved[5];
};

/* One per CPU: the LAPIC timer and what the modes remember about it. */
struct deadline {
	struct lapic_timer timer;
	uint64_t armed; /* eager, rearm: what the timer holds, 0 if it fired */
	volatile struct lazy_area area __attribute__((aligned(64)));
};

struct deadline_ops {
	const char *name;

	/* NULL if the mode can be used on this machine, else why not. */
	const char *(*missing)(void);

	/* Begins the mode with `deadline` programmed, 0: none. */
	void (*enable)(struct deadline *d, uint64_t deadline);

	/* Leaves the mode. What the timer holds afterwards is undefined. */
	void (*disable)(struct deadline *d);

	/* The earliest deadline is `deadline` now. */
	void (*set)(struct deadline *d, uint64_t deadline);

	/* There is no deadline any more. */
	void (*cancel)(struct deadline *d);

	/*
	 * As set, for a CPU that will halt or commit before it does anything
	 * else; `deadline` is in the future.
	 */
	void (*defer)(struct deadline *d, uint64_t deadline);

	/* The CPU goes on without having halted since the last defer. */
	void (*commit)(struct deadline *d);

	/* The timer interrupt has arrived; set or cancel follows. */
	void (*interrupt)(struct deadline *d);
};

extern const struct deadline_ops deadline_eager, deadline_rearm, deadline_lazy;

#endif
