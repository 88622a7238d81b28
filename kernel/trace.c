// SPDX-License-Identifier: MIT
/*
 * The deadline modes once more, writing down what they do, and the printing of it.
 *
 * Their files are included here with the three accesses to the shared area and the two
 * MSR writes replaced by ones that leave an event; everything else is the same source.
 */
#include "kernel/trace.h"

#include "drivers/debug_exit.h"
#include "drivers/tsc.h"
#include "kernel/console.h"

struct event {
	uint64_t tsc, armed, pending, value;
	enum trace_kind kind;
};

static struct event trace_pool[TRACE_MAX]; /* lab/watch.py knows it by its name */

static struct {
	struct event *events;
	uint64_t count, missed;
} logs[CPUS_MAX];

static const struct deadline_ops *inner;
static uint64_t limit; /* of events of each CPU */

static const char *const names[TRACE_KINDS] = {
	[TRACE_ENABLE] = "enable",
	[TRACE_DISABLE] = "disable",
	[TRACE_SET] = "set",
	[TRACE_CANCEL] = "cancel",
	[TRACE_DEFER] = "defer",
	[TRACE_COMMIT] = "commit",
	[TRACE_INTERRUPT] = "interrupt",
	[TRACE_STORE_PENDING] = "pending",
	[TRACE_LOAD_ARMED] = "armed",
	[TRACE_LOAD_HOST] = "host",
	[TRACE_WRITE] = "write",
	[TRACE_MSR] = "msr",
	[TRACE_HALT] = "halt",
	[TRACE_WAKE] = "wake",
};

void trace_event(enum trace_kind kind, uint64_t value)
{
	const struct deadline *d = &this_cpu()->clockevent.deadline;
	unsigned int cpu = this_cpu()->number;
	bool shared = inner == &deadline_lazy;

	if (logs[cpu].count == limit) {
		logs[cpu].missed++;
		return;
	}
	logs[cpu].events[logs[cpu].count++] = (struct event){
		.tsc = rdtsc(),
		.armed = shared ? d->area.armed : d->armed,
		.pending = shared ? d->area.pending : 0,
		.value = value,
		.kind = kind,
	};
}

#define LAZY_ACCESS

static void store_pending(struct deadline *d, uint64_t deadline)
{
	trace_event(TRACE_STORE_PENDING, deadline);
	d->area.pending = deadline;
}

static uint64_t load_armed(const struct deadline *d)
{
	uint64_t armed = d->area.armed;

	trace_event(TRACE_LOAD_ARMED, armed);
	return armed;
}

static uint64_t load_host(const struct deadline *d)
{
	uint64_t host = d->area.host;

	trace_event(TRACE_LOAD_HOST, host);
	return host;
}

static void traced_program(struct lapic_timer *timer, uint64_t deadline)
{
	trace_event(TRACE_WRITE, deadline);
	lapic_timer_program(timer, deadline);
}

static void traced_wrmsr(uint32_t msr, uint64_t value)
{
	trace_event(TRACE_MSR, value);
	wrmsr(msr, value);
}

#define lapic_timer_program traced_program
#define wrmsr		    traced_wrmsr
#define deadline_eager	    inner_eager
#define deadline_rearm	    inner_rearm
#define deadline_lazy	    inner_lazy
#include "drivers/deadline_eager.c"
#include "drivers/deadline_rearm.c"
#include "drivers/deadline_lazy.c"
#undef deadline_eager
#undef deadline_rearm
#undef deadline_lazy

/* As `inner`, but the copy of it that is compiled here. */
static const struct deadline_ops *copy(void)
{
	if (inner == &deadline_lazy)
		return &inner_lazy;
	return inner == &deadline_rearm ? &inner_rearm : &inner_eager;
}

static const char *traced_missing(void)
{
	return inner->missing();
}

static void traced_enable(struct deadline *d, uint64_t deadline)
{
	trace_event(TRACE_ENABLE, deadline);
	copy()->enable(d, deadline);
}

static void traced_disable(struct deadline *d)
{
	trace_event(TRACE_DISABLE, 0);
	copy()->disable(d);
}

static void traced_set(struct deadline *d, uint64_t deadline)
{
	trace_event(TRACE_SET, deadline);
	copy()->set(d, deadline);
}

static void traced_cancel(struct deadline *d)
{
	trace_event(TRACE_CANCEL, 0);
	copy()->cancel(d);
}

static void traced_defer(struct deadline *d, uint64_t deadline)
{
	trace_event(TRACE_DEFER, deadline);
	copy()->defer(d, deadline);
}

static void traced_commit(struct deadline *d)
{
	trace_event(TRACE_COMMIT, 0);
	copy()->commit(d);
}

static void traced_interrupt(struct deadline *d)
{
	trace_event(TRACE_INTERRUPT, 0);
	copy()->interrupt(d);
}

const struct deadline_ops deadline_traced = {
	.name = "traced",
	.missing = traced_missing,
	.enable = traced_enable,
	.disable = traced_disable,
	.set = traced_set,
	.cancel = traced_cancel,
	.defer = traced_defer,
	.commit = traced_commit,
	.interrupt = traced_interrupt,
};

void trace_begin(const struct deadline_ops *mode, unsigned int used, uint64_t count)
{
	inner = mode;
	limit = count < TRACE_MAX / used ? count : TRACE_MAX / used;
	for (unsigned int i = 0; i < used; i++) {
		logs[i].events = trace_pool + i * limit;
		logs[i].count = logs[i].missed = 0;
	}
}

/* Times as distances from the first, since those are short; "=": as in the line before. */
static void print_time(uint64_t value, uint64_t before, uint64_t base)
{
	if (value == 0)
		print(" -");
	else if (value == before)
		print(" =");
	else
		print(" %lx", value - base);
}

static bool is_time(enum trace_kind kind)
{
	return kind != TRACE_LOAD_HOST && kind != TRACE_MSR;
}

static void print_events(unsigned int cpu, uint64_t base)
{
	struct event before = { .tsc = base };

	for (uint64_t n = 0; n < logs[cpu].count; n++) {
		const struct event *e = &logs[cpu].events[n];

		print("@%lx %s", e->tsc - before.tsc, names[e->kind]);
		print_time(e->armed, before.armed, base);
		print_time(e->pending, before.pending, base);
		print_time(e->value, before.value, is_time(e->kind) ? base : 0);
		print("\n");
		before = *e;
	}
}

void trace_print(const char *workload, unsigned int used)
{
	bool seen = debug_pause(); /* by the lab, in our memory: printing takes long */

	for (unsigned int i = 0; i < used; i++) {
		uint64_t base = logs[i].count ? logs[i].events[0].tsc : 0;

		print("@ %s/%s %u %lu %lu %lx %lu %lu\n", workload, inner->name, i,
		      logs[i].count, logs[i].missed, base, tsc_hz(), i * limit);
		if (!seen)
			print_events(i, base);
	}
}
