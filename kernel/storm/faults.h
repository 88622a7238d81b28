/* SPDX-License-Identifier: MIT */
/*
 * Inside the workload "faults": faults.c says when, trouble.c what, and trouble_area.c is
 * the lazy mode with an area that moves.
 */
#ifndef KERNEL_STORM_FAULTS_H
#define KERNEL_STORM_FAULTS_H

#include "kernel/storm/storm.h"

/* What the CPU is in the middle of. Interrupts are off. */
enum trouble_place {
	IN_THREAD,   /* they may be turned on for a while */
	IN_IDLE,     /* a deadline may be deferred */
	IN_CALLBACK, /* in the timer interrupt */
};

/* trouble.c: a bit for each kind that this machine has, in this mode. */
unsigned int trouble_kinds(const struct storm_run *run);

/* Before the first and after the last, on each CPU. Interrupts off. */
void trouble_begin(unsigned int kinds);
void trouble_end(struct storm_run *run);

/* Makes one fault of that kind, and counts it. */
void trouble_make(struct storm_run *run, enum storm_trouble kind, enum trouble_place place);

/*
 * After the timers that it was about have fired: takes back what it has left so until
 * then. Interrupts off.
 */
void trouble_over(struct storm_run *run);

/*
 * trouble_area.c: as lazy, in an area that can be moved. Begins where it was left; the
 * first time at the first of its areas.
 */
extern const struct deadline_ops trouble_area_mode;

/* Moves this CPU's, in that mode. Adds to `wrong` what was written to one it has left. */
void trouble_area_move(struct storm_run *run, uint64_t next);

/* Looks at all that it has left. */
void trouble_area_check(struct storm_run *run);

#endif
