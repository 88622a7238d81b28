// SPDX-License-Identifier: MIT
/*
 * The results of one workload side by side, one column a mode, in at most 100
 * characters a line.
 */
#include "drivers/tsc.h"
#include "kernel/console.h"
#include "kernel/print.h"
#include "kernel/storm/storm.h"

#define LABEL_WIDTH 22
#define COUNT_WIDTH 11
#define RATE_WIDTH  9
#define SAVED_WIDTH 9
#define NS_IN_S	    1000000000ull

static const struct {
	enum count_index index;
	const char *label;
} count_rows[] = {
	{ COUNT_EXITS, "all exits" },
	{ COUNT_HALT, "halt" },
	{ COUNT_MSR_WRITE, "msr-write" },
	{ COUNT_TSC_DEADLINE, "tsc-deadline" },
	{ COUNT_ICR, "apic-icr" },
	{ COUNT_PREEMPTION_TIMER, "preemption-timer" },
	{ COUNT_EXTERNAL_INTERRUPT, "external-interrupt" },
	{ COUNT_IO, "io" },
	{ COUNT_HYPERCALL, "hypercall" },
	{ COUNT_TIMER_INTERRUPT, "timer interrupts" },
	{ COUNT_KICK, "kicks" },
	{ COUNT_REARM, "kicks re-armed" },
	{ COUNT_CANCELLED, "kicks cancelled" },
	{ COUNT_HALT_SYNC, "halt-sync" },
};

static bool is_eager(const struct storm_result *r)
{
	return r->mode == &deadline_eager;
}

static const struct storm_result *find_eager(const struct storm_result *results,
					     unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		if (is_eager(&results[i]))
			return &results[i];
	return NULL;
}

#define LARGEST_LOSS 9999 /* in 0.1 %: what fits the column */

/* How much less than eager's, as "99.9 %"; "-" where that means nothing. */
static const char *saved(char *buf, size_t size, const struct storm_result *r,
			 const struct storm_result *eager, unsigned int index)
{
	char number[40];
	int64_t was, is, less;

	if (!eager || !eager->exits.known[index] || !r->exits.known[index] ||
	    !eager->exits.value[index])
		return "-";
	was = (int64_t)eager->exits.value[index];
	is = (int64_t)r->exits.value[index];
	less = (was - is) * 1000 / was;
	print_to(buf, size, "%s%s %%", less < -LARGEST_LOSS ? "<" : "",
		 print_fixed(number, sizeof(number),
			     less < -LARGEST_LOSS ? -LARGEST_LOSS : less, 1));
	return buf;
}

static void count_cell(const struct storm_result *r,
		       const struct storm_result *eager, unsigned int index)
{
	uint64_t value = r->exits.value[index];
	char rate[40], share[48];

	if (r->exits.known[index])
		print("%'*lu%*s", COUNT_WIDTH, value, RATE_WIDTH,
		      print_fixed(rate, sizeof(rate),
				  (int64_t)(value * 1000 / r->ops), 3));
	else
		print("%*s%*s", COUNT_WIDTH, "-", RATE_WIDTH, "-");
	if (!is_eager(r))
		print("%*s", SAVED_WIDTH,
		      saved(share, sizeof(share), r, eager, index));
}

static void print_label(const char *label)
{
	print("  %-*s", LABEL_WIDTH - 2, label);
}

static void count_rows_print(const struct storm_result *results,
			     unsigned int count)
{
	const struct storm_result *eager = find_eager(results, count);

	for (unsigned int row = 0; row < COUNTS; row++) {
		print_label(count_rows[row].label);
		for (unsigned int i = 0; i < count; i++)
			count_cell(&results[i], eager, count_rows[row].index);
		print("\n");
	}
}

/* How far the count of column i ends behind that of the column before. */
static int column_end(const struct storm_result *results, unsigned int i)
{
	if (i == 0)
		return COUNT_WIDTH;
	return RATE_WIDTH + (is_eager(&results[i - 1]) ? 0 : SAVED_WIDTH) +
	       COUNT_WIDTH;
}

/* A value of a plain row; false where it is not known. */
typedef bool (*plain_value)(const struct storm_result *r, uint64_t *value);

/* A row of numbers with no rate and no share: value / 10^decimals. */
static void plain_row(const char *label, const struct storm_result *results,
		      unsigned int count, plain_value value,
		      unsigned int decimals)
{
	char number[40];
	uint64_t v;

	print_label(label);
	for (unsigned int i = 0; i < count; i++)
		print("%*s", column_end(results, i),
		      value(&results[i], &v)
			      ? print_fixed(number, sizeof(number), (int64_t)v,
					    decimals)
			      : "-");
	print("\n");
}

/* The functions of the plain rows: what is printed, in which unit. */
#define PLAIN_VALUE(name, is_known, expression)                         \
	static bool name(const struct storm_result *r, uint64_t *value) \
	{                                                               \
		*value = (expression);                                  \
		return is_known;                                        \
	}

PLAIN_VALUE(writes, true, r->msr_writes)
PLAIN_VALUE(interrupts, true, r->interrupts)
PLAIN_VALUE(spurious, true, r->spurious)
PLAIN_VALUE(lost, true, r->lost)
PLAIN_VALUE(early, true, r->early)
PLAIN_VALUE(late_p50, r->late_ns.count, r->late_ns.p50 / 100) /* 0.1 us */
PLAIN_VALUE(late_p99, r->late_ns.count, r->late_ns.p99 / 100)
PLAIN_VALUE(late_p9999, r->late_ns.count >= STORM_P9999_NEEDS, r->late_ns.p9999 / 100)
PLAIN_VALUE(late_max, r->late_ns.count, r->late_ns.max / 100)
PLAIN_VALUE(set_p50, r->set_cycles.count, r->set_cycles.p50)
PLAIN_VALUE(set_p99, r->set_cycles.count, r->set_cycles.p99)
PLAIN_VALUE(set_p9999, r->set_cycles.count >= STORM_P9999_NEEDS, r->set_cycles.p9999)
PLAIN_VALUE(set_max, r->set_cycles.count, r->set_cycles.max)
PLAIN_VALUE(wakeups, r->ns != 0, r->wakeups * 10 * NS_IN_S / r->ns) /* 0.1 a second */
PLAIN_VALUE(run_time, true, r->ns / 100000)			    /* 0.1 ms */

static const struct {
	const char *label;
	plain_value value;
	unsigned int decimals;
} plain_rows[] = {
	{ "guest's own counts:", NULL, 0 },
	{ "deadline writes", writes, 0 },
	{ "interrupts", interrupts, 0 },
	{ "spurious", spurious, 0 },
	{ "lost", lost, 0 },
	{ "early", early, 0 },
	{ "late p50, us", late_p50, 1 },
	{ "late p99, us", late_p99, 1 },
	{ "late p99.99, us", late_p9999, 1 },
	{ "late max, us", late_max, 1 },
	{ "set p50, cycles", set_p50, 0 },
	{ "set p99, cycles", set_p99, 0 },
	{ "set p99.99, cycles", set_p9999, 0 },
	{ "set max, cycles", set_max, 0 },
	{ "wake-ups a second", wakeups, 1 },
	{ "run time, ms", run_time, 1 },
};

/* Of the workload that makes them: those that it has made. */
static void trouble_rows_print(const struct storm_result *results, unsigned int count)
{
	char label[40];

	for (unsigned int kind = 0; kind < TROUBLES; kind++) {
		uint64_t all = 0;

		for (unsigned int i = 0; i < count; i++)
			all += results[i].troubles[kind];
		if (!all)
			continue;
		print_to(label, sizeof(label), "fault %s", storm_trouble_names[kind]);
		print_label(label);
		for (unsigned int i = 0; i < count; i++)
			print("%'*lu", column_end(results, i), results[i].troubles[kind]);
		print("\n");
	}
}

static void print_head(const struct storm_result *results, unsigned int count)
{
	const struct storm_result *r = results;
	char us[40];

	print("\n%s: %s", r->workload->name, r->workload->what);
	if (r->cpus > 1)
		print(", on %u CPUs", r->cpus);
	print("\n");
	print("%'lu operations, %'lu timer%s%s, timeout %s us, seed %lu, exits "
	      "counted by the %s\n\n",
	      r->ops, r->timers, r->timers == 1 ? "" : "s",
	      r->cpus == 1 ? "" : " a CPU",
	      print_fixed(us, sizeof(us), (int64_t)(r->timeout_ns / 1000), 0),
	      r->seed, r->exits.from_host ? "host" : "guest");
	print_label("");
	for (unsigned int i = 0; i < count; i++)
		print("%*s", column_end(results, i), results[i].mode->name);
	print("\n");
	print_label("");
	for (unsigned int i = 0; i < count; i++) {
		print("%*s%*s", COUNT_WIDTH, "count", RATE_WIDTH, "per op");
		if (!is_eager(&results[i]))
			print("%*s", SAVED_WIDTH, "saved");
	}
	print("\n");
}

void storm_table(const struct storm_result *results, unsigned int count)
{
	print_head(results, count);
	count_rows_print(results, count);
	for (unsigned int i = 0; i < sizeof(plain_rows) / sizeof(*plain_rows); i++)
		if (plain_rows[i].value)
			plain_row(plain_rows[i].label, results, count,
				  plain_rows[i].value, plain_rows[i].decimals);
		else
			print("%s\n", plain_rows[i].label);
	trouble_rows_print(results, count);
}
