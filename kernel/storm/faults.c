// SPDX-License-Identifier: MIT
/*
 * Workload "faults": stands for nothing that anybody runs on purpose, but for what
 * happens to a machine meanwhile. It is not part of storm=all. An operation is one fault
 * (trouble.c; faults= chooses the kinds, which take turns) in the middle of a few changes
 * of one timer, which then has to fire.
 *
 * Nothing may mend what a fault has broken. So there is no other timer that would fire
 * first, and half of the times the CPU does not halt, since a halt programs the timer anew,
 * but spins until the timer has fired, or for as long as makes it lost (check.c). The other
 * half waits in HLT, and a timer that is lost there hangs the guest.
 *
 * The fault comes between two changes: in a thread, with interrupts on or off; on the way
 * to a halt, when a deadline is deferred; or in the interrupt, in another timer's callback.
 */
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/storm/faults.h"
#include "kernel/storm/random.h"

#define TIMER	     0
#define FAR	     1 /* never the earliest, unless the machine is slow */
#define STRIKER	     2 /* its callback makes the fault */
#define MOST_CHANGES 4

static enum storm_trouble next_kind[CPUS_MAX];

static bool coin(struct storm_run *run)
{
	return random_next(&run->random) & 1;
}

/* One that is past now and then: it fires at once. */
static uint64_t deadline(struct storm_run *run)
{
	uint64_t now = rdtsc();

	if (random_between(&run->random, 0, 15) == 0)
		return now - 1;
	return now + random_between(&run->random, run->timeout / 16, run->timeout);
}

static void strike(struct hrtimer *timer)
{
	struct storm_run *run = storm_this_run();

	storm_fired(run, (struct storm_timer *)timer);
	trouble_make(run, next_kind[this_cpu()->number], IN_CALLBACK);
}

static void change(struct storm_run *run, bool idle)
{
	if (random_between(&run->random, 0, 3) == 0)
		storm_stop(run, &run->timers[TIMER]);
	else
		storm_start(run, &run->timers[TIMER], deadline(run));
	if (coin(run))
		storm_start(run, &run->timers[FAR], rdtsc() + 10 * run->timeout);
	if (!idle && coin(run)) { /* lets in what has come */
		irq_enable();
		irq_disable();
	}
}

static bool done(const struct storm_run *run)
{
	return !hrtimer_is_active(&run->timers[TIMER].timer) &&
	       !hrtimer_is_active(&run->timers[STRIKER].timer);
}

/* Neither halts nor programs anything while it waits. */
static void spin(struct storm_run *run)
{
	uint64_t last = rdtsc() + 2 * run->timeout + run->overdue;

	irq_enable();
	while (!done(run) && rdtsc() < last)
		compiler_barrier();
	irq_disable();
	if (done(run))
		return;
	run->late++;
	storm_stop(run, &run->timers[TIMER]);
	storm_stop(run, &run->timers[STRIKER]);
}

static void halt(struct storm_run *run)
{
	while (!done(run))
		idle_halt();
}

/* Interrupts off, on both ends. */
static void operate(struct storm_run *run, enum storm_trouble kind, bool fault)
{
	uint64_t changes = random_between(&run->random, 1, MOST_CHANGES);
	uint64_t when = random_between(&run->random, 0, changes);
	bool idle = coin(run), in_callback = random_between(&run->random, 0, 3) == 0;

	if (coin(run))
		storm_stop(run, &run->timers[FAR]);
	if (idle)
		idle_enter();
	for (uint64_t i = 0; i <= changes; i++) {
		if (i == when && in_callback) {
			next_kind[this_cpu()->number] = kind;
			storm_start(run, &run->timers[STRIKER], deadline(run));
		} else if (i == when) {
			trouble_make(run, kind, idle ? IN_IDLE : IN_THREAD);
		}
		if (i < changes)
			change(run, idle);
	}
	if (!hrtimer_is_active(&run->timers[TIMER].timer))
		storm_start(run, &run->timers[TIMER], deadline(run));
	if (fault)
		storm_fault(run, &run->timers[TIMER]);
	if (idle && coin(run)) {
		halt(run);
		idle_exit();
	} else {
		if (idle)
			idle_exit();
		spin(run);
	}
	trouble_over(run);
}

static void faults_run(struct storm_run *run)
{
	unsigned int kinds = trouble_kinds(run), kind = 0;

	storm_check_begin(run, storm_once);
	hrtimer_init(&run->timers[STRIKER].timer, strike);
	irq_disable();
	trouble_begin(kinds);
	storm_open(run);
	for (uint64_t i = 0; kinds && i < run->result.ops; i++) {
		while (!(kinds >> kind & 1))
			kind = (kind + 1) % TROUBLES;
		operate(run, kind, i == run->result.ops / 2);
		kind = (kind + 1) % TROUBLES;
	}
	trouble_end(run);
	storm_close(run);
	irq_enable();
	storm_drain();
}

const struct storm_workload storm_faults = {
	.name = "faults",
	.what = "what happens to a machine meanwhile",
	.ops = 9000,
	.timers = 3,
	.timeout_ns = 400000,
	.min_timers = 3,
	.max_timers = 3,
	.run = faults_run,
};
