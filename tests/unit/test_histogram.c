// SPDX-License-Identifier: MIT
/* Tests of kernel/histogram.c. */
#include "unit.h"

#include "kernel/histogram.h"

static struct histogram h;

static void small_values(void **state)
{
	(void)state;
	histogram_clear(&h);
	for (uint64_t v = 1; v <= 100; v++)
		histogram_add(&h, v);
	assert_int_equal(histogram_quantile(&h, 5000), 50);
	assert_int_equal(histogram_quantile(&h, 9900), 99);
	assert_int_equal(histogram_quantile(&h, 100), 1);
	assert_int_equal(histogram_quantile(&h, 10000), 100);
	assert_int_equal(h.max, 100);
}

static void rank_rounds_up(void **state)
{
	(void)state;
	histogram_clear(&h);
	for (uint64_t v = 1; v <= 3; v++)
		histogram_add(&h, v);
	assert_int_equal(histogram_quantile(&h, 5000), 2);
	assert_int_equal(histogram_quantile(&h, 9900), 3);
}

static void empty(void **state)
{
	(void)state;
	histogram_clear(&h);
	assert_int_equal(histogram_quantile(&h, 5000), 0);
	assert_int_equal(histogram_quantile(&h, 10000), 0);
}

/* One value: every percentile is that value, whatever its bucket. */
static void every_power(void **state)
{
	(void)state;
	for (unsigned int bit = 0; bit < 64; bit++) {
		for (int offset = -1; offset <= 1; offset++) {
			uint64_t v = (1ull << bit) + (uint64_t)offset;

			histogram_clear(&h);
			histogram_add(&h, v);
			assert_int_equal(histogram_quantile(&h, 5000), v);
		}
	}
	histogram_clear(&h);
	histogram_add(&h, UINT64_MAX);
	assert_true(histogram_quantile(&h, 100) == UINT64_MAX);
}

static void bounded_error(void **state)
{
	(void)state;
	for (uint64_t v = 1; v < 1ull << 62; v = v * 3 + 1) {
		uint64_t p;

		histogram_clear(&h);
		histogram_add(&h, v);
		histogram_add(&h, UINT64_MAX);
		p = histogram_quantile(&h, 5000);
		assert_true(p >= v && p - v <= v / 64);
	}
}

static void outlier(void **state)
{
	(void)state;
	histogram_clear(&h);
	for (int i = 0; i < 990; i++)
		histogram_add(&h, 10);
	for (int i = 0; i < 10; i++)
		histogram_add(&h, 1000000);
	assert_int_equal(histogram_quantile(&h, 9900), 10);
	assert_int_equal(histogram_quantile(&h, 10000), 1000000);
}

/* One in ten thousand is above p99.99, and nothing of it is lost in rounding. */
static void rare(void **state)
{
	(void)state;
	histogram_clear(&h);
	for (int i = 0; i < 9999; i++)
		histogram_add(&h, 10);
	histogram_add(&h, 1000000);
	assert_int_equal(histogram_quantile(&h, 9990), 10);
	assert_int_equal(histogram_quantile(&h, 9999), 10);
	assert_int_equal(histogram_quantile(&h, 10000), 1000000);
	histogram_add(&h, 1000000);
	assert_int_equal(histogram_quantile(&h, 9999), 1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_THAT(small_values, "percentiles of small values are exact"),
		CHECK_THAT(rank_rounds_up, "of three values the second is p50"),
		CHECK_THAT(empty, "an empty histogram has percentile 0"),
		CHECK_THAT(every_power, "a single value is its own percentile"),
		CHECK_THAT(bounded_error, "a percentile is never too low, at most "
					  "one part in 64 too high"),
		CHECK_THAT(outlier, "one percent of outliers is above p99"),
		CHECK_THAT(rare, "one in ten thousand is above p99.99"),
	};

	return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
