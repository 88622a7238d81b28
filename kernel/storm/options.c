// SPDX-License-Identifier: MIT
/*
 * The table of storm options.
 */
#include "kernel/storm/options.h"

#define US 1000ull
#define S  1000000000ull

static const char *const workloads[] = { "sleep", "rearm", "expire", NULL };
static const char *const modes[] = { "eager", "rearm", "lazy", NULL };
static const char *const orders[] = { "first", "random", NULL };
static const char *const faults[] = { "none", "panic", "exception", "hang",
				      "lost", "early", NULL };
static const char *const ends[] = { "exit", "halt", NULL };

#define FIELD(name) offsetof(struct storm_options, name)

static const struct cmdline_option table[] = {
	{ "storm", CMDLINE_LIST, FIELD(workloads), "workload", workloads, 0, 0 },
	{ "mode", CMDLINE_LIST, FIELD(modes), "mode", modes, 0, 0 },
	{ "ops", CMDLINE_NUMBER, FIELD(ops), NULL, NULL, 1, STORM_MAX_OPS },
	{ "timers", CMDLINE_NUMBER, FIELD(timers), NULL, NULL, 1,
	  STORM_MAX_TIMERS },
	{ "timeout", CMDLINE_DURATION, FIELD(timeout), NULL, NULL, 1 * US,
	  10 * S },
	{ "slack", CMDLINE_DURATION, FIELD(slack), NULL, NULL, 0, 10 * S },
	{ "seed", CMDLINE_NUMBER, FIELD(seed), NULL, NULL, 0, UINT64_MAX },
	{ "repeat", CMDLINE_NUMBER, FIELD(repeat), NULL, NULL, 1, 1000 },
	{ "order", CMDLINE_CHOICE, FIELD(order), "order", orders, 0, 0 },
	{ "host", CMDLINE_LABEL, FIELD(host), NULL, NULL, 0, 0 },
	{ "fault", CMDLINE_CHOICE, FIELD(fault), "fault", faults, 0, 0 },
	{ "end", CMDLINE_CHOICE, FIELD(end), "end", ends, 0, 0 },
};

void storm_options_begin(struct storm_options *options, struct cmdline *c)
{
	*options = (struct storm_options){
		.workloads = (1u << STORM_WORKLOADS) - 1,
		.modes = (1u << STORM_MODES) - 1,
		.seed = 1,
		.repeat = 1,
		.host = "unknown",
	};
	*c = (struct cmdline){
		.options = table,
		.count = sizeof(table) / sizeof(*table),
		.target = options,
	};
}
