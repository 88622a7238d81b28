/* SPDX-License-Identifier: MIT */
/*
 * The storm's options: what may stand on the command line. Pure C, also part of
 * the hosted build/storm-args.
 */
#ifndef KERNEL_STORM_OPTIONS_H
#define KERNEL_STORM_OPTIONS_H

#include <stdint.h>

#include "kernel/cmdline.h"

#define STORM_MAX_CPUS	 16
#define STORM_MAX_OPS	 10000000
#define STORM_MAX_TIMERS 100000
#define STORM_MAX_TRACE	 400000 /* TRACE_MAX */
#define STORM_OWN	 UINT64_MAX /* of an option that may be 0: the workload's own */

/* Bit numbers of storm_options.workloads and .modes, in the order of a run. */
enum storm_workload_index {
	STORM_SLEEP,
	STORM_REARM,
	STORM_EXPIRE,
	STORM_CANCEL,
	STORM_IDLE,
	STORM_TCP_RR,
	STORM_MIXED,
	STORM_EARLIER,
	STORM_FAULTS, /* only where it is named: storm=all is without it */
	STORM_WORKLOADS
};
#define STORM_ALL ((1u << STORM_FAULTS) - 1)
enum storm_mode_index { STORM_EAGER, STORM_REARM_MODE, STORM_LAZY };
#define STORM_MODES 3

/* What the workload "faults" does to its timers; see faults.c. Bit numbers, too. */
enum storm_trouble {
	TROUBLE_NMI,
	TROUBLE_SPURIOUS,
	TROUBLE_TIMER,
	TROUBLE_TSC,
	TROUBLE_MASK,
	TROUBLE_APIC,
	TROUBLE_ONESHOT,
	TROUBLE_FEATURE,
	TROUBLE_AREA,
	TROUBLES
};

/* Their names, as on the command line; NULL ends the list. */
extern const char *const storm_workload_names[], *const storm_mode_names[];
extern const char *const storm_trouble_names[];

enum storm_order { STORM_ORDER_FIRST, STORM_ORDER_RANDOM };
enum storm_switch { STORM_ON, STORM_OFF };
enum storm_end { STORM_END_EXIT, STORM_END_HALT };
enum storm_fault {
	STORM_FAULT_NONE,
	STORM_FAULT_PANIC,
	STORM_FAULT_EXCEPTION,
	STORM_FAULT_HANG,
	STORM_FAULT_LOST,
	STORM_FAULT_EARLY,
	STORM_FAULT_FORGOTTEN,
	STORM_FAULT_TEXT,
	STORM_FAULT_CONSTANT,
	STORM_FAULT_DATA,
	STORM_FAULT_NULL,
	STORM_FAULT_STACK,
	STORM_FAULT_STACK1,
};

struct storm_options {
	unsigned int workloads, modes; /* a bit each */
	unsigned int troubles;	       /* the same, for the workload "faults" */
	uint64_t ops, timers, timeout; /* 0: the workload's own; timeout in ns */
	uint64_t slack;		       /* ns: how much later than due expire's timers may fire */
	uint64_t tick;		       /* ns: period of idle's and tcp_rr's tick, 0: none */
	uint64_t seed;
	uint64_t trace;	 /* events of each run and CPU that are printed */
	uint64_t repeat; /* how often all that was asked for is run */
	uint64_t soak;	    /* ns: and again with other seeds, until they have passed */
	uint64_t cpus;	    /* 0: each workload's own number */
	unsigned int pveoi; /* enum storm_switch */
	unsigned int order; /* enum storm_order */
	unsigned int fault; /* enum storm_fault, injected once for tests */
	unsigned int end;   /* enum storm_end: how the guest ends */
	char host[CMDLINE_LABEL_SIZE];
};

/* Fills in the defaults and prepares `c` to read words into the options. */
void storm_options_begin(struct storm_options *options, struct cmdline *c);

/* Once all words are read: 0, or -1 with c->error if they do not go together. */
int storm_options_end(const struct storm_options *options, struct cmdline *c);

#endif
