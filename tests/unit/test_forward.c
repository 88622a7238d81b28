// SPDX-License-Identifier: MIT
/* Tests of hrtimer_forward(): periods without drift. */
#include "unit.h"

#include "kernel/hrtimer.h"

static uint64_t forward(uint64_t from, uint64_t now, uint64_t period,
			uint64_t *next)
{
	struct hrtimer t;

	hrtimer_init(&t, NULL);
	t.deadline = from;
	return hrtimer_forward(&t, now, period, next);
}

static void on_time(void **state)
{
	uint64_t next;

	(void)state;
	assert_int_equal(forward(1000, 1000, 10, &next), 1);
	assert_int_equal(next, 1010);
	assert_int_equal(forward(1000, 1009, 10, &next), 1);
	assert_int_equal(next, 1010);
}

static void missed(void **state)
{
	uint64_t next;

	(void)state;
	assert_int_equal(forward(1000, 1010, 10, &next), 2);
	assert_int_equal(next, 1020);
	assert_int_equal(forward(1000, 1999, 10, &next), 100);
	assert_int_equal(next, 2000);
}

static void before_time(void **state)
{
	uint64_t next;

	(void)state;
	assert_int_equal(forward(1000, 5, 10, &next), 1);
	assert_int_equal(next, 1010);
}

static void end_of_range(void **state)
{
	uint64_t next;

	(void)state;
	forward(UINT64_MAX - 3, UINT64_MAX - 2, 10, &next);
	assert_true(next == UINT64_MAX);
	forward(0, UINT64_MAX, UINT64_MAX - 1, &next);
	assert_true(next == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_THAT(on_time, "one period on, whatever the lateness within it"),
		CHECK_THAT(missed, "missed periods are counted and skipped"),
		CHECK_THAT(before_time, "called early it still goes one period on"),
		CHECK_THAT(end_of_range, "at the end of the range it saturates"),
	};

	return cmocka_run_group_tests_name("forward", tests, NULL, NULL);
}
