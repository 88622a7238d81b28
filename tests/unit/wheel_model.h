/* SPDX-License-Identifier: MIT */
/*
 * A model of the timer wheel that is too simple to be wrong, an array searched from
 * end to end, and both of them driven in step. For the unit tests and the fuzzer.
 *
 * After each operation the two are compared: who is active, who is first, what the
 * owner was told; and the wheel's own invariants are checked. MODEL_FAIL(text) says
 * what to do with a difference.
 */
#ifndef TESTS_WHEEL_MODEL_H
#define TESTS_WHEEL_MODEL_H

#include "kernel/hrtimer.h"

#define MODEL_TIMERS 400

struct model {
	struct hrtimer timer; /* first */
	bool active;
	uint64_t deadline, latest, order; /* order: of starting, for ties */
};

static struct hrtimer_base base;
static struct model models[MODEL_TIMERS];
static unsigned int timers; /* of them in use */
static uint64_t now, orders, events, seen_next, fired_count;
static bool seen_any;
static void (*in_callback)(struct model *m);

#define MODEL_CHECK(condition)                  \
	do {                                    \
		if (!(condition))               \
			MODEL_FAIL(#condition); \
	} while (0)

static inline uint64_t clock_now(void)
{
	return now;
}

static inline void event(struct hrtimer_base *b)
{
	events++;
	seen_any = hrtimer_next(b, &seen_next);
}

static inline struct model *model_first(void)
{
	struct model *best = NULL;

	for (struct model *m = models; m < models + timers; m++)
		if (m->active &&
		    (!best || m->latest < best->latest ||
		     (m->latest == best->latest && m->order < best->order)))
			best = m;
	return best;
}

static inline void check(void)
{
	size_t found = 0, active = 0;
	const char *wrong = hrtimer_check(&base, &found);
	struct model *first = model_first();

	if (wrong)
		MODEL_FAIL(wrong);
	for (unsigned int i = 0; i < timers; i++) {
		active += models[i].active;
		MODEL_CHECK(hrtimer_is_active(&models[i].timer) ==
			    models[i].active);
	}
	MODEL_CHECK(found == active);
	MODEL_CHECK(hrtimer_first(&base) == (first ? &first->timer : NULL));
}

/* What the owner was told last is still true, outside of expiry. */
static inline void check_event(void)
{
	struct model *first = model_first();

	MODEL_CHECK(seen_any == (first != NULL));
	if (first)
		MODEL_CHECK(seen_next == first->latest);
}

static inline void start_range(struct model *m, uint64_t deadline, uint64_t slack)
{
	m->active = true;
	m->deadline = deadline;
	m->latest = deadline + slack < deadline ? UINT64_MAX : deadline + slack;
	m->order = orders++;
	hrtimer_start_range(&base, &m->timer, deadline, slack);
}

static inline void cancel(struct model *m)
{
	MODEL_CHECK(hrtimer_cancel(&base, &m->timer) == m->active);
	m->active = false;
}

/* Each callback must be the model's first, and its window must have begun. */
static inline void fired(struct hrtimer *timer)
{
	struct model *m = (struct model *)timer;

	MODEL_CHECK(m == model_first());
	MODEL_CHECK(m->deadline <= now);
	m->active = false;
	fired_count++;
	if (in_callback)
		in_callback(m);
	check();
}

static inline void expire(void)
{
	uint64_t before = events, fired_before = fired_count;
	unsigned int count = hrtimer_expire(&base);

	MODEL_CHECK(events == before + 1);
	MODEL_CHECK(count == fired_count - fired_before);
	check();
	check_event();
	MODEL_CHECK(!model_first() || model_first()->deadline > now);
}

static inline void model_begin(unsigned int count, uint64_t time)
{
	timers = count;
	now = time;
	orders = events = fired_count = 0;
	seen_any = false;
	in_callback = NULL;
	hrtimer_base_init(&base, clock_now, event);
	for (unsigned int i = 0; i < timers; i++) {
		models[i] = (struct model){ 0 };
		hrtimer_init(&models[i].timer, fired);
	}
}

#endif
