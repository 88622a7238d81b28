// SPDX-License-Identifier: MIT
/*
 * Tests of kernel/hrtimer.c against a model that is too simple to be wrong: an
 * array, searched from end to end. The wheel's invariants are checked after every
 * step.
 */
#include "unit.h"

#include "kernel/hrtimer.h"

#define TIMERS 64

struct model {
	struct hrtimer timer; /* first */
	bool active;
	uint64_t deadline, order; /* order: of starting, for ties */
};

static struct hrtimer_base base;
static struct model models[TIMERS];
static uint64_t now, orders, events, seen_next, fired_count;
static bool seen_any;
static void (*in_callback)(struct model *m);

static uint64_t clock_now(void)
{
	return now;
}

static void event(struct hrtimer_base *b)
{
	events++;
	seen_any = hrtimer_next(b, &seen_next);
}

static uint64_t random64(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static struct model *model_first(void)
{
	struct model *best = NULL;

	for (struct model *m = models; m < models + TIMERS; m++)
		if (m->active &&
		    (!best || m->deadline < best->deadline ||
		     (m->deadline == best->deadline && m->order < best->order)))
			best = m;
	return best;
}

static void check(void)
{
	size_t found = 0, active = 0;
	const char *wrong = hrtimer_check(&base, &found);
	struct model *first = model_first();

	if (wrong)
		fail_msg("%s", wrong);
	for (int i = 0; i < TIMERS; i++) {
		active += models[i].active;
		assert_true(hrtimer_is_active(&models[i].timer) ==
			    models[i].active);
	}
	assert_int_equal(found, active);
	assert_ptr_equal(hrtimer_first(&base), first ? &first->timer : NULL);
}

/* What the event was told last is still true, outside of expiry. */
static void check_event(void)
{
	struct model *first = model_first();

	assert_true(seen_any == (first != NULL));
	if (first)
		assert_true(seen_next == first->deadline);
}

static void start(struct model *m, uint64_t deadline)
{
	m->active = true;
	m->deadline = deadline;
	m->order = orders++;
	hrtimer_start(&base, &m->timer, deadline);
}

static void cancel(struct model *m)
{
	assert_true(hrtimer_cancel(&base, &m->timer) == m->active);
	m->active = false;
}

/* Each callback must be the model's first, and due. */
static void fired(struct hrtimer *timer)
{
	struct model *m = (struct model *)timer;

	assert_ptr_equal(m, model_first());
	assert_true(m->deadline <= now);
	m->active = false;
	fired_count++;
	if (in_callback)
		in_callback(m);
	check();
}

static int setup(void **state)
{
	(void)state;
	now = 1000000;
	orders = events = fired_count = 0;
	seen_any = false;
	in_callback = NULL;
	hrtimer_base_init(&base, clock_now, event);
	for (int i = 0; i < TIMERS; i++) {
		models[i] = (struct model){ 0 };
		hrtimer_init(&models[i].timer, fired);
	}
	return 0;
}

static void expire(void)
{
	uint64_t before = events;

	hrtimer_expire(&base);
	assert_int_equal(events, before + 1);
	check();
	check_event();
	assert_true(!model_first() || model_first()->deadline > now);
}

/* A deadline as the configuration likes them; see the table below. */
struct shape {
	const char *name;
	uint64_t start;	   /* of the clock */
	uint64_t range;	   /* deadlines are at most so far ahead */
	uint64_t grain;	   /* multiples of it: ties */
	uint64_t past;	   /* or so far back */
	uint64_t step;	   /* the clock moves at most so far */
};

static uint64_t pick(const struct shape *s)
{
	uint64_t ahead = random64() % s->range / s->grain * s->grain;

	if (s->past && random64() % 4 == 0)
		return now - random64() % (now < s->past ? now + 1 : s->past);
	if (random64() % 8 == 0) /* next to a boundary between digits */
		ahead = (1ull << random64() % 63) - 1 + random64() % 3;
	return now + ahead < now ? UINT64_MAX - ahead % 3 : now + ahead;
}

static const struct shape *shape;

/* What callbacks do in the random test: start itself, others, cancel others. */
static void mischief(struct model *m)
{
	struct model *other = &models[random64() % TIMERS];

	switch (random64() % 4) {
	case 0:
		start(m, now + 1 + random64() % shape->range / 2);
		break;
	case 1:
		start(other, now + 1 + random64() % shape->range / 2);
		break;
	case 2:
		cancel(other);
		break;
	}
}

static void advance(void)
{
	uint64_t step = random64() % (shape->step + 1);

	now = now + step < now ? UINT64_MAX : now + step;
	if (random64() % 2)
		expire();
}

static void one_step(void)
{
	struct model *m = &models[random64() % TIMERS];

	switch (random64() % 8) {
	case 0:
	case 1:
	case 2:
		start(m, pick(shape));
		break;
	case 3:
		cancel(m);
		break;
	case 4:
		if (model_first())
			start(model_first(), pick(shape));
		break;
	default:
		advance();
		return;
	}
	check();
	check_event();
}

/* A clock at the end of its range cannot move on: no callback may start then. */
static void run_shape(const struct shape *s, bool callbacks)
{
	setup(NULL);
	shape = s;
	now = s->start;
	hrtimer_base_init(&base, clock_now, event);
	in_callback = callbacks ? mischief : NULL;
	for (int i = 0; i < 3000; i++) {
		if (now > UINT64_MAX - s->range)
			in_callback = NULL;
		one_step();
	}
}

static const struct shape shapes[] = {
	{ "close", 0, 64, 1, 0, 16 },
	{ "equal", 5000, 1000, 100, 0, 200 },
	{ "all the same slot", 1ull << 40, 1u << 20, 1u << 18, 0, 1u << 17 },
	{ "milliseconds", 123456789, 3000000, 1, 0, 500000 },
	{ "seconds", 1ull << 32, 9000000000, 1, 0, 100000000 },
	{ "years", 1ull << 50, 1ull << 58, 1, 0, 1ull << 52 },
	{ "past", 1ull << 36, 100000, 1, 200000, 5000 },
	{ "past and equal", 4096, 4096, 64, 4096, 64 },
	{ "from zero", 0, 1ull << 62, 1, 100, 1ull << 60 },
	{ "end of range", UINT64_MAX - 1000000, 100000, 1, 1000, 1000 },
	{ "whole range", 0, UINT64_MAX, 1, 0, 1ull << 57 },
};

static void random_steps(void **state)
{
	(void)state;
	for (unsigned int round = 0; round < 20; round++)
		for (unsigned int i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
			run_shape(&shapes[i], round % 2);
}

static void equal_in_order(void **state)
{
	(void)state;
	for (int i = 0; i < TIMERS; i++)
		start(&models[i * 37 % TIMERS], now + 5000);
	now += 5000;
	expire(); /* fired() compares the order */
	assert_int_equal(fired_count, TIMERS);
}

static void not_before(void **state)
{
	(void)state;
	start(&models[0], now + 100);
	now += 99;
	expire();
	assert_int_equal(fired_count, 0);
	now++;
	expire();
	assert_int_equal(fired_count, 1);
}

static void head_later(void **state)
{
	(void)state;
	start(&models[0], now + 100);
	start(&models[1], now + 300);
	assert_int_equal(seen_next, now + 100);
	start(&models[0], now + 200);
	assert_int_equal(seen_next, now + 200);
	start(&models[0], now + 400);
	assert_int_equal(seen_next, now + 300);
	cancel(&models[1]);
	assert_int_equal(seen_next, now + 400);
	cancel(&models[0]);
	assert_false(seen_any);
}

static void later_is_silent(void **state)
{
	(void)state;
	start(&models[0], now + 100);
	events = 0;
	start(&models[1], now + 200);
	start(&models[1], now + 150);
	start(&models[1], now + 100); /* a tie: the deadline does not change */
	cancel(&models[1]);
	start(&models[0], now + 100);
	assert_int_equal(events, 0);
}

static void extremes(void **state)
{
	uint64_t next;

	(void)state;
	start(&models[0], UINT64_MAX);
	start(&models[1], 0);
	assert_true(hrtimer_next(&base, &next) && next == 0);
	expire();
	assert_int_equal(fired_count, 1);
	assert_true(hrtimer_next(&base, &next) && next == UINT64_MAX);
	now = UINT64_MAX;
	expire();
	assert_int_equal(fired_count, 2);
	assert_false(hrtimer_next(&base, &next));
}

static void restart_self(struct model *m)
{
	if (fired_count < 10)
		start(m, m->deadline + 10);
}

static void periodic(void **state)
{
	(void)state;
	in_callback = restart_self;
	start(&models[0], now + 10);
	now += 1000; /* all ten are due: one expiry runs them all */
	expire();
	assert_int_equal(fired_count, 10);
}

static void cancel_the_next(struct model *m)
{
	if (m == &models[0])
		cancel(&models[1]);
}

static void callback_cancels(void **state)
{
	(void)state;
	in_callback = cancel_the_next;
	start(&models[0], now + 1);
	start(&models[1], now + 1);
	start(&models[2], now + 1);
	now++;
	expire();
	assert_int_equal(fired_count, 2);
}

static void cancel_idle(void **state)
{
	(void)state;
	assert_false(hrtimer_cancel(&base, &models[0].timer));
	assert_int_equal(events, 0);
	assert_int_equal(hrtimer_expire(&base), 0);
}

#define FRESH(function, sentence) { sentence, function, setup, NULL, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		FRESH(random_steps, "random steps agree with a brute-force model"),
		FRESH(equal_in_order, "equal deadlines fire in order of starting"),
		FRESH(not_before, "a timer does not fire one tick before its time"),
		FRESH(head_later, "a head moved later is told, and so is the new one"),
		FRESH(later_is_silent, "a change behind the head is not told"),
		FRESH(extremes, "0 and the largest number are deadlines too"),
		FRESH(periodic, "a callback may start its own timer, due at once"),
		FRESH(callback_cancels, "a callback may cancel the next one due"),
		FRESH(cancel_idle, "cancelling an idle timer does nothing"),
	};

	return cmocka_run_group_tests_name("hrtimer", tests, NULL, NULL);
}
