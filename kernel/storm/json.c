// SPDX-License-Identifier: MIT
/*
 * A result as one line of JSON. Programs outside this project read it: names and
 * meaning are fixed.
 */
#include "kernel/console.h"
#include "kernel/storm/storm.h"

/* One member of an object: its number, or null where it is not known. */
static void print_member(const char *before, const char *key, bool known, uint64_t value)
{
	print("%s\"%s\": ", before, key);
	if (known)
		print("%lu", value);
	else
		print("null");
}

static void print_quantiles(const char *key, const struct storm_quantiles *q)
{
	bool any = q->count != 0;

	print(", \"%s\": {", key);
	print_member("", "p50", any, q->p50);
	print_member(", ", "p90", any, q->p90);
	print_member(", ", "p99", any, q->p99);
	print_member(", ", "p999", q->count >= STORM_P999_NEEDS, q->p999);
	print_member(", ", "p9999", q->count >= STORM_P9999_NEEDS, q->p9999);
	print_member(", ", "max", any, q->max);
	print("}");
}

static void print_counts(const struct counts *c)
{
	print(", \"exits\": {\"source\": \"%s\"", c->from_host ? "host" : "guest");
	for (unsigned int i = 0; i < COUNTS; i++)
		print_member(", ", count_keys[i], c->known[i], c->value[i]);
	print("}");
}

/* Only of the workload that makes them. */
static void print_troubles(const struct storm_result *r)
{
	print(", \"faults\": {");
	for (unsigned int i = 0; i < TROUBLES; i++)
		print("\"%s\": %lu, ", storm_trouble_names[i], r->troubles[i]);
	print("\"wrong\": %lu}", r->wrong);
}

void storm_json(const struct storm_result *r, const char *host)
{
	print("{\"workload\": \"%s\", \"mode\": \"%s\", \"host\": \"%s\"",
	      r->workload->name, r->mode->name, host);
	print(", \"cpus\": %u, \"ops\": %lu, \"timers\": %lu, \"seed\": %lu",
	      r->cpus, r->ops, r->timers, r->seed);
	print(", \"timeout_ns\": %lu", r->timeout_ns);
	print(", \"ns\": %lu, \"msr_writes\": %lu, \"interrupts\": %lu", r->ns,
	      r->msr_writes, r->interrupts);
	print(", \"spurious\": %lu, \"lost\": %lu, \"early\": %lu", r->spurious,
	      r->lost, r->early);
	print(", \"wakeups\": %lu, \"timer_counts\": {\"armed\": %lu, \"fired\": %lu, "
	      "\"cancelled\": %lu, \"pending\": %lu}",
	      r->wakeups, r->counts.armed, r->counts.fired, r->counts.cancelled,
	      r->counts.pending);
	if (r->workload == &storm_faults)
		print_troubles(r);
	print_quantiles("late_ns", &r->late_ns);
	print_quantiles("set_cycles", &r->set_cycles);
	print_counts(&r->exits);
	print("}\n");
}

void storm_json_total(unsigned int cpu, const struct counts *total)
{
	print("{\"total\": %u, \"msr_writes\": %lu", cpu, total->writes);
	print_counts(total);
	print("}\n");
}
