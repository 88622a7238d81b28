/* SPDX-License-Identifier: MIT */
/*
 * The timer storm: workloads that live on timers, each run in each deadline mode
 * in the same boot, checking itself.
 */
#ifndef KERNEL_STORM_STORM_H
#define KERNEL_STORM_STORM_H

#include <stdbool.h>
#include <stdint.h>

#include "drivers/deadline.h"
#include "drivers/debug_exit.h"
#include "kernel/histogram.h"
#include "kernel/hrtimer.h"
#include "kernel/storm/counts.h"
#include "kernel/storm/options.h"

/* A timer and what the storm remembers of it, apart from the wheel. */
struct storm_timer {
	struct hrtimer timer; /* first: its callback casts it back */
	uint64_t due;	 /* the window in which it should fire: from here, */
	uint64_t latest; /* to here */
	uint64_t period;	    /* expire: cycles */
	struct storm_timer *closed; /* rearm: next of those that have fired */
	bool armed;		    /* should fire, but has not yet */
};

struct storm_run;

struct storm_workload {
	const char *name;
	const char *what;		  /* one line for the table's title */
	uint64_t ops, timers, timeout_ns; /* defaults, */
	uint64_t tick_ns;		  /* and this too: 0 is none */
	uint64_t min_timers, max_timers;  /* whatever timers= says */
	unsigned int group; /* CPUs that work together; 0: each for itself */
	void (*run)(struct storm_run *run);
};

struct storm_quantiles {
	uint64_t count; /* of values that were measured */
	uint64_t p50, p90, p99, p999, p9999, max;
};

/* Below so many values p999 and p9999 would only be the largest: they are unknown. */
#define STORM_P999_NEEDS  1000
#define STORM_P9999_NEEDS 10000

/* Of all timers of a run; see check.c. armed: each start is one. */
struct storm_counts {
	uint64_t armed, fired, cancelled, pending;
};

/* What one run has found, in its counted window unless it says otherwise. */
struct storm_result {
	const struct storm_workload *workload;
	const struct deadline_ops *mode;
	unsigned int cpus;
	uint64_t ops;	 /* of all CPUs together, as all counts below */
	uint64_t timers; /* of each CPU */
	uint64_t timeout_ns, seed;
	uint64_t ns, msr_writes, interrupts, spurious;
	uint64_t wakeups;	     /* from HLT */
	uint64_t lost, early;	     /* of the whole run, as what follows */
	uint64_t troubles[TROUBLES]; /* faults: how many of each */
	uint64_t wrong;		     /* faults: what must not happen meanwhile, and did */
	struct storm_counts counts;
	struct storm_quantiles late_ns, set_cycles;
	struct counts exits;
};

/* One CPU's part of a run while it goes on. No other CPU touches it meanwhile. */
struct storm_run {
	const struct storm_options *options;
	struct storm_result result; /* ops: this CPU's share */
	struct storm_timer *timers;
	struct storm_timer *closed; /* rearm: connections whose timer has fired */
	uint64_t timeout;	    /* cycles */
	uint64_t slack;		    /* cycles; workloads set it that have use for it */
	uint64_t random;	    /* state of random.h */
	uint64_t overdue;	    /* cycles of lateness that count as lost */
	struct storm_counts counts;
	uint64_t dropped, late; /* of all timers: lost */
	bool open;		/* the counted window is */
	struct counts before;
	uint64_t start;
	struct histogram lateness, set_cycles; /* both in cycles */
};

/* One file each. */
extern const struct storm_workload storm_sleep, storm_rearm, storm_expire,
	storm_cancel, storm_earlier, storm_idle, storm_tcp_rr, storm_mixed,
	storm_faults;

/* run.c: this CPU's part of the run. Callbacks find it here. */
struct storm_run *storm_this_run(void);

/* run.c: the period of the tick in ns, 0: none. */
uint64_t storm_tick(const struct storm_run *run);

/* How many CPUs there should be for these options, where they do not say. */
unsigned int storm_cpus(const struct storm_options *options);

/* Everything the options ask for; returns how the guest should end. */
enum exit_code storm_main(const struct storm_options *options);

/*
 * check.c: starting and firing with a record. Interrupts off for start, stop and
 * fired; begin and end are called with interrupts on. Begin waits until all CPUs of
 * the run have come to it.
 */
void storm_check_begin(struct storm_run *run, hrtimer_callback callback);
void storm_start(struct storm_run *run, struct storm_timer *t, uint64_t due);
void storm_stop(struct storm_run *run, struct storm_timer *t);
void storm_fired(struct storm_run *run, struct storm_timer *t);

/* The callback of a timer that does nothing more. */
void storm_once(struct hrtimer *timer);

/* Starts a timer that starts itself again each `period` cycles. Interrupts off. */
void storm_start_tick(struct storm_run *run, struct storm_timer *t, uint64_t period);

void storm_check_end(struct storm_run *run);

/* armed = fired + cancelled + pending. */
bool storm_adds_up(const struct storm_result *result);

/* Leaves every timer of this CPU to fire. Interrupts on. */
void storm_drain(void);

/* window.c: what is between open and close is counted and measured. */
void storm_open(struct storm_run *run);
void storm_close(struct storm_run *run);

/*
 * fault.c: does once what the option fault= asks for, to an armed timer. To be
 * called in the middle of each run with interrupts off.
 */
void storm_fault(const struct storm_run *run, struct storm_timer *t);

/* table.c and json.c: results on the console. */
void storm_table(const struct storm_result *results, unsigned int count);
void storm_json(const struct storm_result *result, const char *host);
void storm_json_total(unsigned int cpu, const struct counts *total);

#endif
