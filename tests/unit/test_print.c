// SPDX-License-Identifier: MIT
/* Tests of kernel/print.c. */
#include "unit.h"

#include "kernel/print.h"

static char buf[128];

#define SAYS(expected, ...)                              \
	do {                                             \
		print_to(buf, sizeof(buf), __VA_ARGS__); \
		assert_string_equal(buf, expected);      \
	} while (0)

static void numbers(void **state)
{
	(void)state;
	SAYS("0", "%d", 0);
	SAYS("-1", "%d", -1);
	SAYS("-2147483648", "%d", -2147483647 - 1);
	SAYS("4294967295", "%u", 4294967295u);
	SAYS("18446744073709551615", "%lu", UINT64_MAX);
	SAYS("-9223372036854775808", "%ld", INT64_MIN);
	SAYS("deadbeef", "%x", 0xdeadbeef);
	SAYS("ffffffffffffffff", "%lx", UINT64_MAX);
	SAYS("0x1234", "%p", (void *)0x1234);
}

static void padding(void **state)
{
	(void)state;
	SAYS("   42|", "%5d|", 42);
	SAYS("42   |", "%-5d|", 42);
	SAYS("00042|", "%05d|", 42);
	SAYS("-0042|", "%05d|", -42);
	SAYS("  -42|", "%5d|", -42);
	SAYS("123456|", "%3d|", 123456);
	SAYS("   ab|", "%*s|", 5, "ab");
	SAYS("ab   |", "%-5s|", "ab");
	SAYS("  x|", "%3c|", 'x');
}

static void thousands(void **state)
{
	(void)state;
	SAYS("999", "%'d", 999);
	SAYS("1,000", "%'d", 1000);
	SAYS("-1,234,567", "%'d", -1234567);
	SAYS("18,446,744,073,709,551,615", "%'lu", UINT64_MAX);
	SAYS("   1,000|", "%'8d|", 1000);
}

static void texts(void **state)
{
	const char *volatile none = NULL;

	(void)state;
	SAYS("a b 100%", "%s %c 100%%", "a", 'b');
	SAYS("(null)", "%s", none);
	SAYS("", "%s", "");
}

static void cutting(void **state)
{
	char small[5] = "xxxx";

	(void)state;
	assert_int_equal(print_to(small, sizeof(small), "%s", "abcdefgh"), 4);
	assert_string_equal(small, "abcd");
	assert_int_equal(print_to(small, 1, "%d", 7), 0);
	assert_string_equal(small, "");
}

static void fixed_point(void **state)
{
	(void)state;
	assert_string_equal(print_fixed(buf, 40, 1234567, 3), "1,234.567");
	assert_string_equal(print_fixed(buf, 40, 5, 3), "0.005");
	assert_string_equal(print_fixed(buf, 40, -5, 1), "-0.5");
	assert_string_equal(print_fixed(buf, 40, 42, 0), "42");
	assert_string_equal(print_fixed(buf, 40, INT64_MIN, 3),
			    "-9,223,372,036,854,775.808");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_THAT(numbers, "numbers of both signs and sizes print"),
		CHECK_THAT(padding, "width pads on the side that the flags say"),
		CHECK_THAT(thousands, "the thousands flag puts commas"),
		CHECK_THAT(texts, "texts, characters and percent signs print"),
		CHECK_THAT(cutting, "a text that does not fit is cut and ended"),
		CHECK_THAT(fixed_point, "fixed point keeps zeros and the sign"),
	};

	return cmocka_run_group_tests_name("print", tests, NULL, NULL);
}
