// SPDX-License-Identifier: MIT
/*
 * Tests of kernel/hrtimer.c against a model that is too simple to be wrong: an
 * array, searched from end to end. The wheel's invariants are checked after every
 * step.
 */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#define MODEL_FAIL(text) fail_msg("%s: %s", doing, text)
static char doing[200] = "wheel"; /* the configuration, if one is run */

#include "wheel_model.h"

#define TIMERS 64 /* of the tests that are not random */

static uint64_t random64(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void start(struct model *m, uint64_t deadline)
{
	start_range(m, deadline, 0);
}

static int setup(void **state)
{
	(void)state;
	model_begin(TIMERS, 1000000);
	return 0;
}

/* What a random run is like. */
struct shape {
	unsigned int timers;
	uint64_t start; /* of the clock */
	uint64_t range; /* deadlines are at most so far ahead */
	uint64_t grain; /* multiples of it: ties */
	uint64_t past;	/* or so far back */
	uint64_t step;	/* the clock moves at most so far */
	uint64_t slack; /* at most */
	bool callbacks; /* start and cancel timers */
	bool in_order;	/* deadlines mostly grow */
};

static struct shape shape;

static uint64_t upto(uint64_t most)
{
	return most == UINT64_MAX ? random64() : random64() % (most + 1);
}

static uint64_t after(uint64_t time, uint64_t distance)
{
	return time + distance < time ? UINT64_MAX : time + distance;
}

/* 2^0 to 2^63, at times next to a boundary between digits. */
static uint64_t random_size(void)
{
	uint64_t size = 1ull << random64() % 64;

	return random64() % 2 ? size : size + upto(size - 1);
}

static uint64_t pick(void)
{
	static uint64_t last;
	uint64_t ahead = upto(shape.range) / shape.grain * shape.grain;

	if (shape.past && random64() % 4 == 0)
		return now - upto(now < shape.past ? now : shape.past);
	if (random64() % 16 == 0)
		ahead = random_size() - random64() % 2;
	if (shape.in_order && random64() % 8 && last > now)
		return last = after(last, upto(shape.range / 64));
	return last = after(now, ahead);
}

static uint64_t pick_slack(void)
{
	return random64() % 2 ? upto(shape.slack) : 0;
}

/* What callbacks do in the random test: start itself, others, cancel others. */
static void mischief(struct model *m)
{
	struct model *other = &models[random64() % timers];

	if (now > UINT64_MAX - shape.range) /* the clock's end: they would be due */
		return;
	switch (random64() % 4) {
	case 0:
		start_range(m, after(now, 1 + upto(shape.range) / 2), pick_slack());
		break;
	case 1:
		start(other, after(now, 1 + upto(shape.range) / 2));
		break;
	case 2:
		cancel(other);
		break;
	}
}

static void advance(void)
{
	now = after(now, upto(shape.step));
	if (random64() % 2)
		expire();
}

/* To the next expiry exactly, as a timer interrupt does. */
static void interrupt(void)
{
	uint64_t next;

	if (hrtimer_next(&base, &next) && next > now)
		now = next;
	expire();
}

static void one_step(void)
{
	struct model *m = &models[random64() % timers];

	switch (random64() % 8) {
	case 0:
	case 1:
	case 2:
		start_range(m, pick(), pick_slack());
		break;
	case 3:
		cancel(m);
		break;
	case 4:
		if (model_first())
			start_range(model_first(), pick(), pick_slack());
		break;
	case 5:
		interrupt();
		return;
	default:
		advance();
		return;
	}
	check();
	check_event();
}

static void run_shape(unsigned int steps)
{
	model_begin(shape.timers, shape.start);
	in_callback = shape.callbacks ? mischief : NULL;
	snprintf(doing, sizeof(doing),
		 "timers %u start %#lx range %#lx grain %#lx past %#lx step %#lx slack %#lx"
		 " callbacks %d in order %d",
		 shape.timers, shape.start, shape.range, shape.grain, shape.past, shape.step,
		 shape.slack, shape.callbacks, shape.in_order);
	for (unsigned int i = 0; i < timers; i++)
		start_range(&models[i], pick(), pick_slack());
	for (unsigned int i = 0; i < steps; i++)
		one_step();
}

static void random_shape(void)
{
	uint64_t range = random_size();
	static const unsigned int counts[] = { 1, 3, 14, 64, MODEL_TIMERS };

	shape = (struct shape){
		.timers = counts[random64() % 5],
		.start = random64() % 4 ? upto(random_size()) : UINT64_MAX - upto(range),
		.range = range,
		.grain = random64() % 3 ? 1 : 1 + range / (1 + random64() % 100),
		.past = random64() % 3 ? 0 : range,
		.step = range >> random64() % 16,
		.slack = random64() % 3 ? 0 : range >> random64() % 8,
		.callbacks = random64() % 2,
		.in_order = random64() % 3 == 0,
	};
}

#define STEPS  1500
#define SHAPES 200 /* or WHEEL_SHAPES in the environment */

static void random_steps(void **state)
{
	const char *more = getenv("WHEEL_SHAPES");
	unsigned long shapes = more ? strtoul(more, NULL, 10) : SHAPES;

	(void)state;
	assert_true(shapes > 0);
	for (unsigned long i = 0; i < shapes; i++) {
		random_shape();
		run_shape(STEPS);
	}
}

/* Deadlines one before, at, and one after where each digit carries. */
static void boundaries(void **state)
{
	(void)state;
	for (unsigned int bit = 0; bit < 64; bit++) {
		model_begin(9, (1ull << bit) - 1);
		for (unsigned int i = 0; i < 9; i++)
			start(&models[i], (1ull << bit) + (i / 3) * (1ull << bit / 2) + i % 3 - 1);
		check();
		while (model_first())
			interrupt();
		assert_int_equal(fired_count, 9);
	}
}

/* A thousand times the last cycle of a slot, then the first of the next. */
static void many_in_one_slot(void **state)
{
	(void)state;
	model_begin(MODEL_TIMERS, 1ull << 40);
	for (unsigned int i = 0; i < timers; i++)
		start(&models[i], (1ull << 41) + random64() % (1ull << 30) * 2);
	for (unsigned int i = 0; i < timers; i += 3)
		cancel(&models[i]);
	check();
	while (model_first())
		interrupt();
	assert_int_equal(fired_count, timers - (timers + 2) / 3);
}

/* Many before where the cursor went: it went there when they were not yet. */
static void many_before_the_cursor(void **state)
{
	(void)state;
	model_begin(MODEL_TIMERS, 1000);
	for (unsigned int i = 0; i < 40; i++)
		start(&models[i], (1ull << 50) - i * 1000000);
	cancel(model_first()); /* the rest has to be put in order */
	for (unsigned int i = 40; i < timers; i++) {
		start(&models[i], 2000 + random64() % 5000);
		check();
	}
	for (unsigned int i = 40; i < timers; i += 2) {
		cancel(&models[i]);
		check();
	}
	while (model_first())
		interrupt();
	assert_int_equal(fired_count, 39 + (timers - 40) / 2);
}

/* Makes the wheel look for what comes behind the first timer. */
static void one_before_goes(struct model *m)
{
	start(m, now + 1);
	check();
	cancel(m);
	check();
}

/*
 * A long list far away is searched, not split; it must notice what comes and goes,
 * and then, while near timers fire, be moved ahead bit by bit.
 */
static void far_list_comes_near(void **state)
{
	const uint64_t far = 1ull << 35, length = 1ull << 30;

	(void)state;
	model_begin(MODEL_TIMERS, 0);
	for (unsigned int i = 100; i < timers; i++)
		start(&models[i], far + 1000 + random64() % (length - 1000));
	one_before_goes(&models[0]);
	start(&models[1], far + 500); /* earlier on the same list */
	one_before_goes(&models[0]);
	start(&models[2], far + 500); /* equal: not before it */
	one_before_goes(&models[0]);
	for (unsigned int i = 100; i < 120; i++) /* so that these are not the last */
		start(&models[i], far + 1000 + random64() % (length - 1000));
	now = far - length / 2;
	for (unsigned int i = 3; i < 100; i++)
		start(&models[i], now + i * (1u << 20));
	while (model_first()) {
		interrupt();
		one_before_goes(&models[0]);
	}
	assert_int_equal(fired_count, timers - 1);
}

/*
 * While the first timer is on a list that is not in order, that list must not be
 * moved ahead: half of it, in order, would seem to be all.
 */
static void far_first_stays(void **state)
{
	const uint64_t far = 1ull << 35;

	(void)state;
	model_begin(MODEL_TIMERS, 0);
	for (unsigned int i = 1; i < 200; i++)
		start(&models[i], far + i * 1000);
	for (unsigned int i = 200; i < timers; i++)
		start(&models[i], far + (i - 199) * 1000); /* equal to an older one */
	one_before_goes(&models[0]);
	now = far - 1000;
	base.turns = UINT32_MAX; /* slots to move ahead are looked for at once */
	one_before_goes(&models[0]);
	for (int i = 0; i < 10; i++) {
		cancel(model_first());
		check();
	}
	while (model_first())
		interrupt();
	assert_int_equal(fired_count, timers - 11);
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

/* How many interrupts it takes until all have fired. */
static unsigned int interrupts(void)
{
	unsigned int count = 0;

	for (; model_first(); count++)
		interrupt();
	return count;
}

static void windows_share(void **state)
{
	(void)state;
	start_range(&models[0], now + 100, 50);
	start_range(&models[1], now + 140, 1000);
	start_range(&models[2], now + 120, 100);
	assert_int_equal(seen_next, now + 150);
	assert_int_equal(interrupts(), 1);
	start_range(&models[0], now + 100, 50);
	start_range(&models[1], now + 151, 50);
	assert_int_equal(interrupts(), 2);
}

static void slack_at_the_end(void **state)
{
	(void)state;
	start_range(&models[0], now + 5, UINT64_MAX);
	assert_true(seen_next == UINT64_MAX);
	now += 4;
	expire();
	assert_int_equal(fired_count, 0);
	now++;
	expire(); /* another timer's interrupt takes it along */
	assert_int_equal(fired_count, 1);
}

/*
 * The fewest points that stab all windows: again and again the earliest end of
 * those not stabbed.
 */
static unsigned int fewest_points(void)
{
	unsigned int points = 0;
	struct model *best;
	bool done[MODEL_TIMERS] = { false };

	for (;; points++) {
		best = NULL;
		for (struct model *m = models; m < models + timers; m++)
			if (!done[m - models] && (!best || m->latest < best->latest))
				best = m;
		if (!best)
			return points;
		for (struct model *m = models; m < models + timers; m++)
			done[m - models] |= m->deadline <= best->latest;
	}
}

static void no_choice_needs_fewer(void **state)
{
	(void)state;
	for (int round = 0; round < 200; round++) {
		model_begin(60, 1000000);
		for (unsigned int i = 0; i < timers; i++)
			start_range(&models[i], now + 1 + random64() % 10000,
				    random64() % (1u << round % 14));
		assert_int_equal(fewest_points(), interrupts());
	}
}

static void cancel_idle(void **state)
{
	(void)state;
	assert_false(hrtimer_cancel(&base, &models[0].timer));
	assert_int_equal(events, 0);
	assert_int_equal(hrtimer_expire(&base), 0);
}

#define FRESH(function, sentence)                     \
	{                                             \
		sentence, function, setup, NULL, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FRESH(random_steps, "random steps agree with a brute-force model"),
		FRESH(boundaries, "deadlines around each power of two fire in order"),
		FRESH(many_in_one_slot, "a long slot is broken up in order"),
		FRESH(many_before_the_cursor, "many timers before the cursor fire in order"),
		FRESH(far_list_comes_near, "a far list knows its first, until it is near"),
		FRESH(far_first_stays, "the first of a far list is not moved ahead"),
		FRESH(windows_share, "windows that overlap share an interrupt"),
		FRESH(slack_at_the_end, "a window may end at the largest number"),
		FRESH(no_choice_needs_fewer, "no choice of times needs fewer interrupts"),
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
