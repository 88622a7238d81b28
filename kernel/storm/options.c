// SPDX-License-Identifier: MIT
/*
 * The table of storm options.
 */
#include "kernel/storm/options.h"

#include "kernel/print.h"

#define US 1000ull
#define S  1000000000ull

const char *const storm_workload_names[] = { "sleep", "rearm", "expire",
					     "cancel", "idle", "tcp_rr",
					     "mixed", "earlier", "faults", NULL };
const char *const storm_mode_names[] = { "eager", "rearm", "lazy", NULL };
const char *const storm_trouble_names[] = { "nmi",     "spurious", "timer",
					    "tsc",     "mask",	   "apic",
					    "oneshot", "feature",  "area",
					    NULL };
static const char *const orders[] = { "first", "random", NULL };
static const char *const faults[] = { "none", "panic", "exception", "hang",
				      "lost", "early", "forgotten", "text",
				      "constant", "data", "null", "stack",
				      "stack1", NULL };
static const char *const switches[] = { "on", "off", NULL };
static const char *const ends[] = { "exit", "halt", NULL };

#define FIELD(name) offsetof(struct storm_options, name)

static const struct cmdline_option table[] = {
	{ "storm", CMDLINE_LIST, FIELD(workloads), "workload",
	  storm_workload_names, 0, STORM_ALL },
	{ "mode", CMDLINE_LIST, FIELD(modes), "mode", storm_mode_names,
	  0, 0 },
	{ "faults", CMDLINE_LIST, FIELD(troubles), "fault", storm_trouble_names,
	  0, 0 },
	{ "ops", CMDLINE_NUMBER, FIELD(ops), NULL, NULL, 1, STORM_MAX_OPS },
	{ "timers", CMDLINE_NUMBER, FIELD(timers), NULL, NULL, 1,
	  STORM_MAX_TIMERS },
	{ "timeout", CMDLINE_DURATION, FIELD(timeout), NULL, NULL, 1 * US,
	  10 * S },
	{ "slack", CMDLINE_DURATION, FIELD(slack), NULL, NULL, 0, 10 * S },
	{ "tick", CMDLINE_DURATION, FIELD(tick), NULL, NULL, 0, 10 * S },
	{ "seed", CMDLINE_NUMBER, FIELD(seed), NULL, NULL, 0, UINT64_MAX },
	{ "trace", CMDLINE_NUMBER, FIELD(trace), NULL, NULL, 0, STORM_MAX_TRACE },
	{ "repeat", CMDLINE_NUMBER, FIELD(repeat), NULL, NULL, 1, 1000 },
	{ "soak", CMDLINE_DURATION, FIELD(soak), NULL, NULL, 0, 1000000 * S },
	{ "cpus", CMDLINE_NUMBER, FIELD(cpus), NULL, NULL, 1, STORM_MAX_CPUS },
	{ "pveoi", CMDLINE_CHOICE, FIELD(pveoi), "setting", switches, 0, 0 },
	{ "order", CMDLINE_CHOICE, FIELD(order), "order", orders, 0, 0 },
	{ "host", CMDLINE_LABEL, FIELD(host), NULL, NULL, 0, 0 },
	{ "fault", CMDLINE_CHOICE, FIELD(fault), "fault", faults, 0, 0 },
	{ "end", CMDLINE_CHOICE, FIELD(end), "end", ends, 0, 0 },
};

void storm_options_begin(struct storm_options *options, struct cmdline *c)
{
	*options = (struct storm_options){
		.workloads = STORM_ALL,
		.troubles = (1u << TROUBLES) - 1,
		.modes = (1u << STORM_MODES) - 1,
		.tick = STORM_OWN,
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

int storm_options_end(const struct storm_options *options, struct cmdline *c)
{
	uint64_t cpus = options->cpus ? options->cpus : 1;

	if (options->timers <= STORM_MAX_TIMERS / cpus)
		return 0;
	print_to(c->error, sizeof(c->error),
		 "sloth: timers=%lu: at most %lu on each of %lu CPUs",
		 options->timers, STORM_MAX_TIMERS / cpus, cpus);
	return -1;
}
