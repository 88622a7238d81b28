// SPDX-License-Identifier: MIT
/*
 * Runs the storm: for each workload that was asked for each mode in turn, a table
 * and a line of JSON for each run, and the verdict.
 */
#include "drivers/tsc.h"
#include "kernel/clockevent.h"
#include "kernel/console.h"
#include "kernel/cpu.h"
#include "kernel/smp.h"
#include "kernel/storm/storm.h"
#include "kernel/trace.h"

_Static_assert(STORM_MAX_TRACE == TRACE_MAX, "trace= takes what there is room for");

static struct storm_run runs[CPUS_MAX];
static struct storm_timer pool[STORM_MAX_TIMERS]; /* in equal parts */

static const struct storm_workload *const workloads[STORM_WORKLOADS] = {
	[STORM_SLEEP] = &storm_sleep,
	[STORM_REARM] = &storm_rearm,
	[STORM_EXPIRE] = &storm_expire,
	[STORM_CANCEL] = &storm_cancel,
	[STORM_IDLE] = &storm_idle,
	[STORM_TCP_RR] = &storm_tcp_rr,
	[STORM_MIXED] = &storm_mixed,
	[STORM_EARLIER] = &storm_earlier,
	[STORM_FAULTS] = &storm_faults,
};

static const struct deadline_ops *const modes[STORM_MODES] = {
	[STORM_EAGER] = &deadline_eager,
	[STORM_REARM_MODE] = &deadline_rearm,
	[STORM_LAZY] = &deadline_lazy,
};

/* How many runs there were, how many failed, and the first of these. */
static struct {
	unsigned int runs, failed;
	struct storm_result first;
} verdict;

static uint64_t given_or(uint64_t given, uint64_t otherwise)
{
	return given ? given : otherwise;
}

struct storm_run *storm_this_run(void)
{
	return &runs[this_cpu()->number];
}

uint64_t storm_tick(const struct storm_run *run)
{
	return run->options->tick == STORM_OWN ? run->result.workload->tick_ns
					       : run->options->tick;
}

/* A workload whose CPUs work in groups gets whole groups, or none. */
static unsigned int cpus_for(const struct storm_options *o,
			     const struct storm_workload *w)
{
	unsigned int group = w->group ? w->group : 1;
	unsigned int wanted = o->cpus ? (unsigned int)o->cpus : group;
	unsigned int running = smp_count();

	return (wanted < running ? wanted : running) / group * group;
}

unsigned int storm_cpus(const struct storm_options *o)
{
	unsigned int most = 1;

	for (unsigned int i = 0; i < STORM_WORKLOADS; i++)
		if (o->workloads >> i & 1 && workloads[i]->group > most)
			most = workloads[i]->group;
	return most;
}

/* One CPU's part. Operations are shared out, rounded up. */
static void prepare(struct storm_run *run, unsigned int number,
		    const struct storm_options *o,
		    const struct storm_workload *w,
		    const struct deadline_ops *mode)
{
	unsigned int count = cpus_for(o, w);
	uint64_t timers = given_or(o->timers, w->timers);
	uint64_t most = STORM_MAX_TIMERS / count;

	if (w->max_timers < most)
		most = w->max_timers;
	if (timers < w->min_timers)
		timers = w->min_timers;
	*run = (struct storm_run){
		.options = o,
		.timers = pool + number * (STORM_MAX_TIMERS / count),
		.random = o->seed + number,
		.result = {
			.workload = w,
			.mode = mode,
			.cpus = count,
			.ops = (given_or(o->ops, w->ops) + count - 1) / count,
			.timers = timers < most ? timers : most,
			.timeout_ns = given_or(o->timeout, w->timeout_ns),
			.seed = o->seed,
		},
	};
	run->timeout = tsc_from_ns(run->result.timeout_ns);
}

/* What each CPU does, at the same time. */
static void run_part(void)
{
	struct storm_run *run = storm_this_run();

	clockevent_set_mode(run->options->trace ? &deadline_traced : run->result.mode);
	run->result.workload->run(run);
	storm_check_end(run);
	clockevent_set_mode(&deadline_eager);
}

static void add(struct storm_run *sum, const struct storm_run *part)
{
	struct storm_result *s = &sum->result;
	const struct storm_result *p = &part->result;

	s->ops += p->ops;
	if (p->ns > s->ns)
		s->ns = p->ns;
	s->msr_writes += p->msr_writes;
	s->interrupts += p->interrupts;
	s->spurious += p->spurious;
	s->lost += p->lost;
	s->early += p->early;
	s->wrong += p->wrong;
	for (unsigned int i = 0; i < TROUBLES; i++)
		s->troubles[i] += p->troubles[i];
	s->wakeups += p->wakeups;
	s->counts.armed += p->counts.armed;
	s->counts.fired += p->counts.fired;
	s->counts.cancelled += p->counts.cancelled;
	s->counts.pending += p->counts.pending;
	counts_add(&s->exits, &p->exits);
	histogram_merge(&sum->lateness, &part->lateness);
	histogram_merge(&sum->set_cycles, &part->set_cycles);
}

static uint64_t same(uint64_t cycles)
{
	return cycles;
}

static struct storm_quantiles quantiles(const struct histogram *h,
					uint64_t (*unit)(uint64_t cycles))
{
	return (struct storm_quantiles){
		.count = h->count,
		.p50 = unit(histogram_quantile(h, 5000)),
		.p90 = unit(histogram_quantile(h, 9000)),
		.p99 = unit(histogram_quantile(h, 9900)),
		.p999 = unit(histogram_quantile(h, 9990)),
		.p9999 = unit(histogram_quantile(h, 9999)),
		.max = unit(h->max),
	};
}

static void judge(const struct storm_result *r)
{
	verdict.runs++;
	if (!r->lost && !r->early && !r->wrong && storm_adds_up(r))
		return;
	if (verdict.failed++ == 0)
		verdict.first = *r;
}

static void run_mode(const struct storm_options *o,
		     const struct storm_workload *w,
		     const struct deadline_ops *mode,
		     struct storm_result *result)
{
	struct storm_run *sum = &runs[0];
	unsigned int count = cpus_for(o, w);

	print("%s/%s ...\n", w->name, mode->name);
	for (unsigned int i = 0; i < count; i++)
		prepare(&runs[i], i, o, w, mode);
	if (o->trace)
		trace_begin(mode, count, o->trace);
	smp_call(count, run_part);
	if (o->trace)
		trace_print(w->name, count);
	for (unsigned int i = 1; i < count; i++)
		add(sum, &runs[i]);
	sum->result.late_ns = quantiles(&sum->lateness, tsc_to_ns);
	sum->result.set_cycles = quantiles(&sum->set_cycles, same);
	*result = sum->result;
	judge(result);
}

static void run_workload(const struct storm_options *o,
			 const struct storm_workload *w, unsigned int usable)
{
	static struct storm_result results[STORM_MODES];
	unsigned int count = 0;

	if (!cpus_for(o, w)) {
		print("workload %s left out: it needs %u CPUs\n", w->name, w->group);
		return;
	}
	for (unsigned int i = 0; i < STORM_MODES; i++) {
		if (!(usable >> i & 1))
			continue;
		run_mode(o, w, modes[i], &results[count]);
		storm_json(&results[count++], o->host); /* at once: it may be the last */
	}
	if (!o->soak)
		storm_table(results, count);
	print("\n");
}

/* The modes that were asked for and that this machine has. */
static unsigned int usable_modes(unsigned int wanted)
{
	unsigned int usable = 0;

	for (unsigned int i = 0; i < STORM_MODES; i++) {
		const char *missing = modes[i]->missing();

		if (!(wanted >> i & 1))
			continue;
		if (missing)
			print("mode %s left out: the host does not offer it (%s)\n",
			      modes[i]->name, missing);
		else
			usable |= 1u << i;
	}
	return usable;
}

static struct counts totals[CPUS_MAX];

static void read_total(void)
{
	counts_read(&totals[this_cpu()->number]);
}

/*
 * What each CPU has cost from the beginning to its last step but one: afterwards the
 * others only halt, and this one only prints, so the lab can compare every counter with
 * what the host says then.
 */
static void print_totals(void)
{
	smp_retire(read_total);
	if (!totals[0].from_host)
		return;
	print("exits since creation%s: %lu\n",
	      smp_count() > 1 ? ", CPU 0" : "", totals[0].value[COUNT_EXITS]);
	for (unsigned int i = 0; i < smp_count(); i++)
		storm_json_total(i, &totals[i]);
}

static enum exit_code print_verdict(void)
{
	const struct storm_result *r = &verdict.first;

	if (!verdict.failed) {
		print("sloth: %u run%s, all passed\n", verdict.runs,
		      verdict.runs == 1 ? "" : "s");
		return EXIT_SUCCESS_CODE;
	}
	print("sloth: FAILED: %u of %u runs, first %s/%s: %lu lost, %lu early",
	      verdict.failed, verdict.runs, r->workload->name, r->mode->name,
	      r->lost, r->early);
	if (r->wrong)
		print(", %lu wrong", r->wrong);
	if (!storm_adds_up(r))
		print(", %lu armed, but %lu fired, %lu cancelled, %lu pending",
		      r->counts.armed, r->counts.fired, r->counts.cancelled,
		      r->counts.pending);
	print("\n");
	return EXIT_FAILURE_CODE;
}

/* Nothing more is begun once a run has failed. */
static bool soak_goes_on(const struct storm_options *options, uint64_t start)
{
	return !verdict.failed && tsc_to_ns(rdtsc() - start) < options->soak;
}

enum exit_code storm_main(const struct storm_options *options)
{
	unsigned int usable = usable_modes(options->modes);
	struct storm_options round = *options;
	uint64_t start = rdtsc();

	if (!usable) {
		print("sloth: FAILED: no mode of those asked for can be used here\n");
		return EXIT_FAILURE_CODE;
	}
	for (uint64_t n = 0; n < options->repeat || soak_goes_on(options, start); n++) {
		round.seed = options->seed + (options->soak ? n : 0);
		for (unsigned int i = 0; i < STORM_WORKLOADS; i++)
			if (options->workloads >> i & 1)
				run_workload(&round, workloads[i], usable);
	}
	print_totals();
	return print_verdict();
}
