// SPDX-License-Identifier: MIT
/* The wheel under test, as the guest has it. */
#include "bench.h"
#include "kernel/hrtimer.h"

union node {
	struct hrtimer timer;
	char line[LINE];
};

static struct hrtimer_base base __attribute__((aligned(LINE)));
static union node *nodes;

static uint64_t wheel_clock(void)
{
	return bench_now;
}

/* What a clock event reads; the benchmark asks itself. */
static void event(struct hrtimer_base *b)
{
	(void)b;
}

static void fired(struct hrtimer *timer)
{
	(void)timer;
}

static void wheel_init(size_t timers)
{
	nodes = bench_memory(nodes, timers, sizeof(*nodes));
	for (size_t i = 0; i < timers; i++)
		hrtimer_init(&nodes[i].timer, fired);
	hrtimer_base_init(&base, wheel_clock, event);
}

static void wheel_start(size_t i, uint64_t deadline)
{
	hrtimer_start(&base, &nodes[i].timer, deadline);
}

static void wheel_cancel(size_t i)
{
	hrtimer_cancel(&base, &nodes[i].timer);
}

static void wheel_expire(void)
{
	hrtimer_expire(&base);
}

static uint64_t wheel_next(void)
{
	uint64_t deadline = BENCH_NONE;

	hrtimer_next(&base, &deadline);
	return deadline;
}

const struct peer peer_wheel = {
	"wheel",
	wheel_init,
	wheel_start,
	wheel_cancel,
	wheel_expire,
	wheel_next,
};
