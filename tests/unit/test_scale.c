// SPDX-License-Identifier: MIT
/* Tests of drivers/scale.h: cycles, nanoseconds and ticks. */
#include "unit.h"

#include "drivers/scale.h"

#define NS  1000000000ull
#define DAY (86400 * NS)

static const uint64_t rates[] = { 1000000,     999999937,   1000000000,
				  2500123456u, 4294967296u, 5700000000u };

static void exact_for_a_day(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
		struct scale s = scale_make(NS, rates[i]);
		uint64_t ns = scale_apply(s, rates[i] * 86400);

		assert_true(ns <= DAY && DAY - ns < DAY / 100000000);
	}
}

static void there_and_back(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(rates) / sizeof(*rates); i++) {
		struct scale to = scale_make(NS, rates[i]);
		struct scale back = scale_make(rates[i], NS);
		uint64_t cycles = rates[i] * 3600;
		uint64_t again = scale_apply(back, scale_apply(to, cycles));

		assert_true(again <= cycles);
		assert_true(cycles - again <= cycles / 100000000 + 2 +
						      rates[i] / NS);
	}
}

static void saturates(void **state)
{
	struct scale up = scale_make(3 * NS, NS), down = scale_make(NS, 3 * NS);

	(void)state;
	assert_true(scale_apply(up, UINT64_MAX) == UINT64_MAX);
	assert_true(scale_apply(up, UINT64_MAX / 3 - 10) < UINT64_MAX);
	assert_true(scale_apply(down, UINT64_MAX) <= UINT64_MAX / 3);
	assert_int_equal(scale_apply(up, 0), 0);
}

static void five_hundred_years(void **state)
{
	struct scale s = scale_make(NS, NS);
	uint64_t years = 500 * 365 * DAY;

	(void)state;
	assert_true(scale_apply(s, years) == years);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_THAT(exact_for_a_day, "a day in cycles is a day in ns"),
		CHECK_THAT(there_and_back, "ns and back are the same cycles"),
		CHECK_THAT(saturates, "what does not fit saturates"),
		CHECK_THAT(five_hundred_years, "500 years do not overflow"),
	};

	return cmocka_run_group_tests_name("scale", tests, NULL, NULL);
}
