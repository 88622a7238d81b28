/* SPDX-License-Identifier: MIT */
/*
 * High-resolution timers: a callback at an absolute time.
 *
 * Times are unsigned 64-bit counts of one clock (the guest's: TSC cycles), the
 * whole range of them allowed. This module knows neither the CPU nor how an
 * interrupt is asked for: it calls two functions that its owner gives it. It
 * compiles hosted as it is.
 *
 * One base belongs to one CPU. Call everything on that CPU with interrupts off.
 */
#ifndef KERNEL_HRTIMER_H
#define KERNEL_HRTIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hrtimer;
struct hrtimer_base;

/*
 * Runs in the timer interrupt, interrupts off. The timer is no longer active; the
 * callback may start it again, free it, and start or cancel any other.
 */
typedef void (*hrtimer_callback)(struct hrtimer *timer);

struct hrtimer_link {
	struct hrtimer_link *next, *prev;
};

/* Embed it in what it times. All fields are private. */
struct hrtimer {
	struct hrtimer_link link; /* first: a link is its timer. next NULL: idle */
	uint64_t deadline;
	hrtimer_callback callback;
	uint16_t list; /* which list of the base it is on */
};

/*
 * The wheel. A deadline is read as eleven digits in base 64, the highest of four
 * bits only. Level L holds the timers whose highest digit that differs from the
 * same digit of `time` is digit L, and that digit's value is the slot. So all of a
 * lower level is due before any of a higher one, a lower slot before a higher one,
 * and the slots of level 0 hold one single deadline each. When time enters a slot,
 * its timers move to lower levels: each at most ten times in its life.
 */
#define HRTIMER_LEVELS 11
#define HRTIMER_SLOTS  64
#define HRTIMER_PAST   (HRTIMER_LEVELS * HRTIMER_SLOTS) /* one more list */
#define HRTIMER_LISTS  (HRTIMER_PAST + 1)

struct hrtimer_base {
	uint64_t time;	       /* never ahead of the clock */
	struct hrtimer *first; /* due first; of equal ones, started first */
	bool expiring;	       /* inside hrtimer_expire() */
	uint64_t (*clock)(void);
	void (*event)(struct hrtimer_base *base);
	uint64_t occupied[HRTIMER_LEVELS]; /* a bit for each slot not empty */
	struct hrtimer_link lists[HRTIMER_LISTS];
};

_Static_assert(sizeof(struct hrtimer) <= 64, "a timer fits a cache line");
_Static_assert(sizeof(struct hrtimer_base) <= 16384, "a base stays small");

/*
 * Makes an empty base. `clock` tells the time and never goes back. `event` is
 * called each time the earliest deadline has changed (hrtimer_next() tells to
 * what), but during hrtimer_expire() only once, at its end, changed or not.
 */
void hrtimer_base_init(struct hrtimer_base *base, uint64_t (*clock)(void),
		       void (*event)(struct hrtimer_base *base));

/* Makes an idle timer. */
void hrtimer_init(struct hrtimer *timer, hrtimer_callback callback);

/*
 * Calls the timer's callback at `deadline`, or as soon as possible after it. One
 * that is active is moved. One in the past is due at once.
 */
void hrtimer_start(struct hrtimer_base *base, struct hrtimer *timer,
		   uint64_t deadline);

/* Stops a timer; false if it was not active. */
bool hrtimer_cancel(struct hrtimer_base *base, struct hrtimer *timer);

/* True from start to callback or cancel. */
static inline bool hrtimer_is_active(const struct hrtimer *timer)
{
	return timer->link.next != NULL;
}

/* The timer that is due first, NULL if none is active. */
static inline struct hrtimer *hrtimer_first(const struct hrtimer_base *base)
{
	return base->first;
}

/* Stores the earliest deadline, exactly; false if no timer is active. */
bool hrtimer_next(const struct hrtimer_base *base, uint64_t *deadline);

/*
 * Runs what is due, in order of deadline, equal ones in the order in which they
 * were started, until nothing is; returns how many. A callback that always starts
 * a timer in the past keeps it here for ever.
 */
unsigned int hrtimer_expire(struct hrtimer_base *base);

/*
 * For periodic timers, in their callback: the first time later than `now` that is
 * a whole number of periods (not 0) after the timer's deadline, at least one, in
 * *deadline; start the timer with it. Returns how many periods that is, so all
 * above one were missed. If the sum leaves the range it is the largest number.
 */
uint64_t hrtimer_forward(const struct hrtimer *timer, uint64_t now,
			 uint64_t period, uint64_t *deadline);

#ifdef HRTIMER_CHECK
/*
 * For tests: NULL if everything in the base is as the comments above promise,
 * else what is wrong. *active is the number of timers found.
 */
const char *hrtimer_check(const struct hrtimer_base *base, size_t *active);
#endif

#endif
