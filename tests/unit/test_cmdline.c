// SPDX-License-Identifier: MIT
/* Tests of kernel/cmdline.c with the storm's options. */
#include "unit.h"

#include <string.h>

#include "kernel/storm/options.h"

static struct storm_options o;
static struct cmdline c;

static int parse(const char *line)
{
	storm_options_begin(&o, &c);
	return cmdline_line(&c, line);
}

/* The line is refused with exactly this message. */
#define REFUSES(line, message)                         \
	do {                                           \
		assert_int_equal(parse(line), -1);     \
		assert_string_equal(c.error, message); \
	} while (0)

/* The line is refused, and the message has all of `part` in it. */
#define REFUSES_NAMING(line, part)                      \
	do {                                            \
		assert_int_equal(parse(line), -1);      \
		assert_non_null(strstr(c.error, part)); \
		assert_null(strchr(c.error, '\n'));     \
	} while (0)

#define ALL STORM_ALL

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(parse(""), 0);
	assert_int_equal(o.workloads, ALL);
	assert_int_equal(o.modes, 7);
	assert_int_equal(o.ops, 0);
	assert_int_equal(o.seed, 1);
	assert_int_equal(o.repeat, 1);
	assert_string_equal(o.host, "unknown");
	assert_int_equal(o.fault, STORM_FAULT_NONE);
}

static void all_options(void **state)
{
	(void)state;
	assert_int_equal(parse("  storm=rearm,sleep mode=lazy ops=10 timers=3 "
			       "timeout=5ms seed=0 repeat=9 order=random host=tcg-6.1 "
			       "fault=early end=halt cpus=4 pveoi=off tick=4ms "),
			 0);
	assert_int_equal(o.workloads, 1 << STORM_SLEEP | 1 << STORM_REARM);
	assert_int_equal(o.modes, 1 << STORM_LAZY);
	assert_int_equal(o.ops, 10);
	assert_int_equal(o.timers, 3);
	assert_int_equal(o.timeout, 5000000);
	assert_int_equal(o.seed, 0);
	assert_int_equal(o.repeat, 9);
	assert_int_equal(o.order, STORM_ORDER_RANDOM);
	assert_string_equal(o.host, "tcg-6.1");
	assert_int_equal(o.fault, STORM_FAULT_EARLY);
	assert_int_equal(o.end, STORM_END_HALT);
	assert_int_equal(o.cpus, 4);
	assert_int_equal(o.pveoi, STORM_OFF);
	assert_int_equal(o.tick, 4000000);
}

static void do_not_go_together(void **state)
{
	(void)state;
	for (unsigned int cpus = 1; cpus <= STORM_MAX_CPUS; cpus++) {
		storm_options_begin(&o, &c);
		o.cpus = cpus;
		o.timers = STORM_MAX_TIMERS / cpus;
		assert_int_equal(storm_options_end(&o, &c), 0);
		o.timers++;
		assert_int_equal(storm_options_end(&o, &c), -1);
	}
	assert_string_equal(c.error, "sloth: timers=6251: at most 6250 on each of 16 CPUs");
}

static void durations(void **state)
{
	(void)state;
	assert_int_equal(parse("timeout=7"), 0);
	assert_int_equal(o.timeout, 7000);
	assert_int_equal(parse("timeout=1000ns"), 0);
	assert_int_equal(o.timeout, 1000);
	assert_int_equal(parse("timeout=10s"), 0);
	assert_int_equal(o.timeout, 10000000000);
	REFUSES("timeout=999ns",
		"sloth: timeout=999ns is too small (valid: 1us to 10s)");
	REFUSES("timeout=11s", "sloth: timeout=11s is too large (valid: 1us to 10s)");
	assert_int_equal(parse("slack=0"), 0);
	assert_int_equal(o.slack, 0);
	assert_int_equal(parse("slack=1500us"), 0);
	assert_int_equal(o.slack, 1500000);
	REFUSES("slack=11s", "sloth: slack=11s is too large (valid: 0us to 10s)");
	REFUSES("timeout=5min",
		"sloth: timeout=5min is not a duration (valid: 1us to 10s)");
	REFUSES_NAMING("timeout=ms", "timeout=ms is not a duration");
	REFUSES_NAMING("timeout=99999999999999999999s", "too large");
}

static void numbers(void **state)
{
	(void)state;
	REFUSES("ops=0", "sloth: ops=0 is too small (valid: 1 to 10,000,000)");
	REFUSES("ops=10000001",
		"sloth: ops=10000001 is too large (valid: 1 to 10,000,000)");
	REFUSES("timers=0", "sloth: timers=0 is too small (valid: 1 to 100,000)");
	REFUSES("repeat=0", "sloth: repeat=0 is too small (valid: 1 to 1,000)");
	REFUSES_NAMING("timers=100001", "too large");
	REFUSES_NAMING("ops=-5", "ops=-5 is not a number");
	REFUSES_NAMING("ops=5x", "ops=5x is not a number");
	REFUSES_NAMING("ops=0x10", "not a number");
	REFUSES_NAMING("ops=18446744073709551617", "too large");
	REFUSES_NAMING("seed=18446744073709551616", "too large");
	assert_int_equal(parse("ops=10000000 timers=100000"), 0);
	assert_int_equal(parse("seed=18446744073709551615"), 0);
}

static void names(void **state)
{
	(void)state;
	REFUSES("storm=foo", "sloth: unknown workload 'foo' in storm=foo "
			     "(valid: sleep, rearm, expire, cancel, idle, tcp_rr, mixed, earlier, "
			     "faults, all)");
	REFUSES("mode=eager,fast", "sloth: unknown mode 'fast' in "
				   "mode=eager,fast (valid: eager, rearm, lazy, all)");
	REFUSES("order=last",
		"sloth: unknown order 'last' in order=last (valid: first, random)");
	REFUSES_NAMING("storm=sleep,", "storm=sleep,");
	REFUSES_NAMING("storm=,sleep", "storm=,sleep");
	REFUSES_NAMING("storm=slee", "'slee'");
	REFUSES_NAMING("storm=sleeps", "'sleeps'");
	REFUSES_NAMING("order=all", "'all'");
	assert_int_equal(parse("storm=all mode=all"), 0);
	assert_int_equal(o.workloads, ALL);
	assert_int_equal(o.modes, 7);
	assert_int_equal(parse("storm=faults"), 0);
	assert_int_equal(o.workloads, 1 << STORM_FAULTS);
	assert_int_equal(o.troubles, (1 << TROUBLES) - 1);
	assert_int_equal(parse("storm=all,faults faults=nmi,area"), 0);
	assert_int_equal(o.workloads, ALL | 1 << STORM_FAULTS);
	assert_int_equal(o.troubles, 1 << TROUBLE_NMI | 1 << TROUBLE_AREA);
	REFUSES_NAMING("faults=nmis", "unknown fault 'nmis' in faults=nmis (valid: nmi, ");
}

static void words(void **state)
{
	(void)state;
	REFUSES_NAMING("opps=5", "unknown option 'opps' in opps=5 (valid: storm=,");
	REFUSES_NAMING("fast", "expected name=value, found 'fast'");
	REFUSES_NAMING("=5", "unknown option ''");
	REFUSES_NAMING("ops=", "ops= is empty (valid: 1 to");
	REFUSES_NAMING("storm=", "storm= is empty (valid: sleep");
	REFUSES_NAMING("host=", "host= is empty");
	REFUSES_NAMING("ops=5 ops=5", "option given twice: 'ops' in ops=5");
	REFUSES_NAMING("host=a\"b", "host=a\"b is not a label");
	REFUSES_NAMING("ops=\x01\xff", "ops=?? is not a number");
}

static void long_words(void **state)
{
	char line[4000];

	(void)state;
	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	REFUSES_NAMING(line, "xxx...");
	memcpy(line, "storm=", 6);
	REFUSES_NAMING(line, "(valid: sleep, rearm, expire, cancel, idle, tcp_rr, mixed, "
			     "earlier, faults, all)");
	memcpy(line, "host=y", 6);
	REFUSES_NAMING(line, "not a label");
}

static void a_word_with_a_space(void **state)
{
	(void)state;
	storm_options_begin(&o, &c);
	assert_int_equal(cmdline_word(&c, "storm=sleep rearm", 17), -1);
	assert_non_null(strstr(c.error, "'sleep rearm'"));
}

static void image_path(void **state)
{
	(void)state;
	assert_string_equal(cmdline_skip_image("build/s.elf ops=5", "qemu"),
			    " ops=5");
	assert_string_equal(cmdline_skip_image("s.elf ops=5", "qemu"), " ops=5");
	assert_string_equal(cmdline_skip_image("s.elf", "qemu"), "");
	assert_string_equal(cmdline_skip_image("ops=5", "GRUB 2.06"), "ops=5");
	assert_string_equal(cmdline_skip_image("/boot/s.elf ops=5", "other"),
			    " ops=5");
	assert_string_equal(cmdline_skip_image("/x=y/s.elf ops=5", NULL),
			    " ops=5");
	assert_string_equal(cmdline_skip_image(NULL, NULL), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_THAT(defaults, "an empty line means everything"),
		CHECK_THAT(all_options, "every option reaches its field"),
		CHECK_THAT(durations, "durations have units and a range"),
		CHECK_THAT(numbers, "numbers have a range and no rubbish"),
		CHECK_THAT(names, "an unknown name is named, the known are listed"),
		CHECK_THAT(words, "a malformed word is named"),
		CHECK_THAT(long_words, "a very long word is cut in the message"),
		CHECK_THAT(a_word_with_a_space, "a space in a word is no separator"),
		CHECK_THAT(do_not_go_together,
			   "more timers than there is memory for are refused"),
		CHECK_THAT(image_path, "the image's path is skipped, if it is there"),
	};

	return cmocka_run_group_tests_name("cmdline", tests, NULL, NULL);
}
