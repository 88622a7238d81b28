// SPDX-License-Identifier: MIT
/*
 * A result as one line of JSON. Programs outside this project read it: names and
 * meaning are fixed.
 */
#include "kernel/console.h"
#include "kernel/storm/storm.h"

static const char *const count_keys[COUNTS] = {
	[COUNT_EXITS] = "exits",
	[COUNT_HALT] = "halt",
	[COUNT_MSR_WRITE] = "msr_write",
	[COUNT_TSC_DEADLINE] = "tsc_deadline",
	[COUNT_ICR] = "icr",
	[COUNT_PREEMPTION_TIMER] = "preemption_timer",
	[COUNT_EXTERNAL_INTERRUPT] = "external_interrupt",
	[COUNT_IO] = "io",
	[COUNT_HYPERCALL] = "hypercall",
	[COUNT_KICK] = "kick",
	[COUNT_REARM] = "rearm",
	[COUNT_CANCELLED] = "cancelled",
	[COUNT_HALT_SYNC] = "halt_sync",
	[COUNT_TIMER_INTERRUPT] = "timer_interrupt",
};

static void print_quantiles(const char *key, const struct storm_quantiles *q)
{
	if (!q->known) {
		print(", \"%s\": {\"p50\": null, \"p99\": null, \"max\": null}", key);
		return;
	}
	print(", \"%s\": {\"p50\": %lu, \"p99\": %lu, \"max\": %lu}", key,
	      q->p50, q->p99, q->max);
}

static void print_counts(const struct counts *c)
{
	print(", \"exits\": {\"source\": \"%s\"", c->from_host ? "host" : "guest");
	for (unsigned int i = 0; i < COUNTS; i++) {
		print(", \"%s\": ", count_keys[i]);
		if (c->known[i])
			print("%lu", c->value[i]);
		else
			print("null");
	}
	print("}");
}

void storm_json(const struct storm_result *r, const char *host)
{
	print("{\"workload\": \"%s\", \"mode\": \"%s\", \"host\": \"%s\"",
	      r->workload->name, r->mode->name, host);
	print(", \"cpus\": %u, \"ops\": %lu, \"timers\": %lu, \"seed\": %lu",
	      r->cpus, r->ops, r->timers, r->seed);
	print(", \"ns\": %lu, \"msr_writes\": %lu, \"interrupts\": %lu", r->ns,
	      r->msr_writes, r->interrupts);
	print(", \"spurious\": %lu, \"lost\": %lu, \"early\": %lu", r->spurious,
	      r->lost, r->early);
	print_quantiles("late_ns", &r->late_ns);
	print_quantiles("set_cycles", &r->set_cycles);
	print_counts(&r->exits);
	print("}\n");
}
