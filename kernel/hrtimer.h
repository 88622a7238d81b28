/* SPDX-License-Identifier: MIT */
/*
 * High-resolution timers: a callback at an absolute time, or in a window of time.
 *
 * Times are unsigned 64-bit counts of one clock (the guest's: TSC cycles), the
 * whole range of them allowed. This module knows neither the CPU nor how an
 * interrupt is asked for: it calls two functions that its owner gives it. It
 * allocates nothing, and compiles hosted as it is.
 *
 * One base belongs to one CPU. Call everything on that CPU with interrupts off;
 * from callbacks everything but hrtimer_expire() may be called.
 *
 * Costs are given for n active timers; docs/wheel.md has the reasons and figures.
 * "Amortised" spreads a cost over the calls that made it necessary: each timer is
 * moved at most once for each of the 13 levels, mostly once or twice, and
 * usually 64 in one call. What can make one call long stands at hrtimer_cancel().
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
	struct hrtimer_link link;   /* first: a link is its timer */
	uint64_t latest;	    /* end of its window: what all is ordered by */
	uint64_t deadline;	    /* begin of its window */
	uint64_t order;		    /* of starting */
	struct hrtimer_link *child; /* in the heap: its first; on a list: fetch() */
	hrtimer_callback callback;
	uint16_t list; /* its list's number, or one of the two below */
	uint8_t rank;  /* in the heap */
};

/*
 * A time is read as thirteen digits in base 32. Level L holds the timers whose
 * highest digit that differs from the cursor's is digit L, in the slot of that
 * digit. So all of a lower level is due before any of a higher one, a lower slot
 * before a higher one.
 *
 * Each level has two rows of slots. One is in use. The other may hold timers of a
 * slot one level above, `ahead`, that will be entered soon.
 */
#define HRTIMER_LEVELS 13
#define HRTIMER_SLOTS  32
#define HRTIMER_ROWS   (2 * HRTIMER_LEVELS)
#define HRTIMER_LISTS  (HRTIMER_ROWS * HRTIMER_SLOTS)
#define HRTIMER_HEAP   0xfffe /* not on a list, but in the heap */
#define HRTIMER_IDLE   0xffff

struct hrtimer_base {
	struct hrtimer *first;	    /* due first; of equal ones, started first */
	uint64_t cursor;	    /* the time that slots are relative to */
	uint64_t orders;	    /* timers started so far */
	struct hrtimer *far;	    /* the first of a list left as it is, see far_list */
	struct hrtimer_link *roots; /* the heap: what is due before the cursor */
	uint32_t rows;		    /* a bit for each row that is not empty */
	uint32_t sides;		    /* a bit for each level: the row in use */
	uint32_t turns;		    /* how often the first timer went */
	uint16_t far_list;	    /* which has been searched; HRTIMER_IDLE: none */
	uint16_t spread;	    /* the list that spread() saw last */
	bool expiring;		    /* inside hrtimer_expire() */
	uint64_t (*clock)(void);
	void (*event)(struct hrtimer_base *base);
	uint32_t occupied[HRTIMER_ROWS]; /* a bit for each slot not empty */
	uint32_t unsorted[HRTIMER_ROWS]; /* a bit for each slot not in order */
	uint8_t ahead[HRTIMER_LEVELS];	 /* the slot that is prepared below */
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
 * Calls the timer's callback at a time from `deadline` to `deadline + slack`
 * (cycles; the sum ends at the largest number), never before, and after the window
 * only by what the interrupt and the callbacks before it take. What is programmed
 * is the earliest end of all windows, and then every timer runs whose window has
 * begun and that is not behind one whose has not: no choice of times needs fewer
 * interrupts. One that is active is moved. One in the past is due at once.
 *
 * O(1); if the timer is the first, the same as hrtimer_cancel().
 */
void hrtimer_start_range(struct hrtimer_base *base, struct hrtimer *timer,
			 uint64_t deadline, uint64_t slack);

/* The same without slack: at `deadline` exactly. */
static inline void hrtimer_start(struct hrtimer_base *base, struct hrtimer *timer,
				 uint64_t deadline)
{
	hrtimer_start_range(base, timer, deadline, 0);
}

/*
 * Stops a timer; false if it was not active.
 *
 * O(1), if it is not the first; else the next is found, O(1) amortised. If the
 * timer is due before the cursor, O(log n).
 *
 * The longest calls are those that take out the first timer of all when the slot
 * that follows is long, was not filled in order, and has not been prepared: they
 * touch each timer of that slot, so n in the worst case. Preparing moves 64 timers
 * for every 16 that go first; so that happens where a slot follows that holds four
 * times as many as fired before it, as after the last of a few timers that stand
 * alone before many.
 */
bool hrtimer_cancel(struct hrtimer_base *base, struct hrtimer *timer);

/* True from start to callback or cancel. O(1). */
static inline bool hrtimer_is_active(const struct hrtimer *timer)
{
	return timer->list != HRTIMER_IDLE;
}

/* The timer that is due first, NULL if none is active. O(1). */
static inline struct hrtimer *hrtimer_first(const struct hrtimer_base *base)
{
	return base->first;
}

/*
 * Stores the earliest deadline, exactly (with slack the earliest end of a window);
 * false if no timer is active. O(1), one cache line.
 */
static inline bool hrtimer_next(const struct hrtimer_base *base, uint64_t *deadline)
{
	if (base->first)
		*deadline = base->first->latest;
	return base->first != NULL;
}

/*
 * Runs what is due, in order of deadline (of the end of the window), equal ones in
 * the order in which they were started, until nothing is; returns how many. A
 * callback that always starts a timer in the past keeps it here for ever. For each
 * timer what hrtimer_cancel() of the first costs.
 */
unsigned int hrtimer_expire(struct hrtimer_base *base);

/*
 * For periodic timers, in their callback: the first time later than `now` that is
 * a whole number of periods (not 0) after the timer's deadline, at least one, in
 * *deadline; start the timer with it. Returns how many periods that is, so all
 * above one were missed. If the sum leaves the range it is the largest number. O(1).
 */
static inline uint64_t hrtimer_forward(const struct hrtimer *timer, uint64_t now,
				       uint64_t period, uint64_t *deadline)
{
	uint64_t from = timer->deadline;
	uint64_t periods = now < from ? 1 : (now - from) / period + 1;
	uint64_t step;

	if (__builtin_mul_overflow(periods, period, &step) ||
	    __builtin_add_overflow(from, step, deadline))
		*deadline = UINT64_MAX;
	return periods;
}

#ifdef HRTIMER_CHECK
/*
 * For tests: NULL if everything in the base is as the comments promise, else what
 * is wrong. *active is the number of timers found.
 */
const char *hrtimer_check(const struct hrtimer_base *base, size_t *active);
#endif

#endif
