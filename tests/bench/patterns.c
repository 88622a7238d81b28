// SPDX-License-Identifier: MIT
/*
 * What the benchmark does to each peer. Times are cycles of its own clock, which
 * moves STEP with each operation: about what one takes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define STEP	250ull
#define LONGEST (10 * CYCLES_S)
#define SLEEPS	16 /* at the same time, of the short ones */

static uint64_t now;	 /* of the generator: bench_now follows it */
static uint64_t counter; /* operations so far */

/* A heap of what is pending, for patterns that go by what is due first. */
struct due {
	uint64_t deadline;
	uint32_t i;
};

static struct due *heap;
static size_t heap_size, heap_room;

static uint64_t state;

uint64_t bench_random(void)
{
	uint64_t x = state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

void bench_seed(uint64_t seed)
{
	state = seed;
	now = bench_now = CYCLES_S;
	counter = 0;
}

static void out_of_memory(void)
{
	fprintf(stderr, "bench: out of memory\n");
	exit(1);
}

/* Moves the heap's element at `at` down to its place. */
static void heap_down(size_t at)
{
	struct due due = heap[at];

	for (size_t child; (child = 2 * at + 1) < heap_size; at = child) {
		if (child + 1 < heap_size &&
		    heap[child + 1].deadline < heap[child].deadline)
			child++;
		if (due.deadline <= heap[child].deadline)
			break;
		heap[at] = heap[child];
	}
	heap[at] = due;
}

/* Moves the heap's element at `at` up to its place. */
static void heap_up(size_t at)
{
	struct due due = heap[at];

	for (; at && heap[(at - 1) / 2].deadline > due.deadline; at = (at - 1) / 2)
		heap[at] = heap[(at - 1) / 2];
	heap[at] = due;
}

static void heap_fill(const uint64_t *deadlines, size_t timers)
{
	free(heap);
	heap_room = timers + 64;
	heap = malloc(heap_room * sizeof(*heap));
	if (!heap)
		out_of_memory();
	heap_size = timers;
	for (size_t i = 0; i < timers; i++)
		heap[i] = (struct due){ deadlines[i], (uint32_t)i };
	for (size_t i = timers / 2; i-- > 0;)
		heap_down(i);
}

static void heap_add(uint64_t deadline, uint32_t i)
{
	if (heap_size == heap_room) {
		heap_room += heap_room / 2;
		heap = realloc(heap, heap_room * sizeof(*heap));
		if (!heap)
			out_of_memory();
	}
	heap[heap_size] = (struct due){ deadline, i };
	heap_up(heap_size++);
}

static struct due heap_pop(void)
{
	struct due due = heap[0];

	heap[0] = heap[--heap_size];
	if (heap_size)
		heap_down(0);
	return due;
}

static uint64_t within(uint64_t range)
{
	return now + 1 + bench_random() % range;
}

/*
 * Patterns in which some timers come due by the way: each is expired before the next
 * is pushed out. The heap keeps what has been pushed out; pending[] knows better.
 */
static uint64_t *pending;

static void pending_begin(const uint64_t *deadlines, size_t timers)
{
	heap_fill(deadlines, timers);
	pending = realloc(pending, timers * sizeof(*pending));
	if (!pending)
		out_of_memory();
	memcpy(pending, deadlines, timers * sizeof(*pending));
}

static bool pending_expires(struct op *op)
{
	while (heap_size && heap[0].deadline <= now) {
		struct due due = heap_pop();

		if (pending[due.i] != due.deadline)
			continue;
		pending[due.i] = 0;
		*op = (struct op){ OP_EXPIRE, due.i, 0, 0 };
		return true;
	}
	return false;
}

static void pending_start(struct op *op, uint32_t i, uint64_t deadline)
{
	pending[i] = deadline;
	heap_add(deadline, i);
	*op = (struct op){ OP_START, i, STEP, deadline };
}

static void random_begin(uint64_t *deadlines, size_t timers)
{
	for (size_t i = 0; i < timers; i++)
		deadlines[i] = within(LONGEST);
	pending_begin(deadlines, timers);
}

/* Any timer is pushed out to any time: requests with timeouts of all kinds. */
static void random_next(struct op *op, size_t timers)
{
	if (pending_expires(op))
		return;
	now += STEP;
	pending_start(op, (uint32_t)(bench_random() % timers), within(LONGEST));
}

/* The oldest is pushed out: connections of equal timeout, each in its turn. */
static void order_begin(uint64_t *deadlines, size_t timers)
{
	for (size_t i = 0; i < timers; i++)
		deadlines[i] = now + LONGEST - (timers - i) * STEP;
}

static void order_next(struct op *op, size_t timers)
{
	now += STEP;
	*op = (struct op){ OP_START, (uint32_t)(counter++ % timers), STEP,
			   now + LONGEST };
}

/* A new timer is started and cancelled: a request that is answered. */
static void cancel_next(struct op *op, size_t timers)
{
	uint32_t i = (uint32_t)(timers + counter / 2 % SPARE);

	*op = (struct op){ counter++ % 2 ? OP_CANCEL : OP_START, i, 0,
			   within(LONGEST) };
}

/* From 10 us to 10 s, each power of two as often as any other. */
static uint64_t mixed(void)
{
	unsigned int doublings = (unsigned int)(bench_random() % 20);
	uint64_t low = 10 * CYCLES_US << doublings;

	return within(low) + low;
}

static void mixed_begin(uint64_t *deadlines, size_t timers)
{
	for (size_t i = 0; i < timers; i++)
		deadlines[i] = mixed();
	pending_begin(deadlines, timers);
}

static void mixed_next(struct op *op, size_t timers)
{
	if (pending_expires(op))
		return;
	now += STEP;
	pending_start(op, (uint32_t)(bench_random() % timers), mixed());
}

/* Everything fires, one after the other. */
static void expiry_next(struct op *op, size_t timers)
{
	struct due due = heap_pop();
	uint64_t step = due.deadline > now ? due.deadline - now : 0;

	(void)timers;
	now += step;
	*op = (struct op){ OP_EXPIRE, due.i, (uint32_t)step, 0 };
}

/*
 * A timer's whole life: what is due first fires and is started again, at any time.
 * "Pure expiry" leaves out what a structure has paid for order when it was filled.
 */
static void life_next(struct op *op, size_t timers)
{
	static uint32_t fired;

	if (counter++ % 2 == 0) {
		expiry_next(op, timers);
		fired = op->i;
		return;
	}
	*op = (struct op){ OP_START, fired, 0, within(LONGEST) };
	heap_add(op->deadline, fired);
}

/*
 * Sleeps of 10 to 60 us before timers of 50 to 60 s. There are up to SLEEPS: each
 * start is followed by the expiry of the one that is due first, and now and then
 * all are left to expire.
 */
static void sleep_begin(uint64_t *deadlines, size_t timers)
{
	for (size_t i = 0; i < timers; i++)
		deadlines[i] = within(LONGEST) + 5 * LONGEST;
	heap_fill(deadlines, SLEEPS); /* for its room */
	heap_size = 0;
}

static void sleep_next(struct op *op, size_t timers)
{
	static uint32_t idle[SLEEPS], idle_count;
	static bool draining;

	if (!counter++)
		for (idle_count = 0; idle_count < SLEEPS; idle_count++)
			idle[idle_count] = (uint32_t)(timers + idle_count);
	draining = heap_size && (draining || counter % 1000 == 0);
	if (!idle_count || draining) {
		expiry_next(op, timers);
		idle[idle_count++] = op->i;
		return;
	}
	*op = (struct op){ OP_START, idle[--idle_count], 0,
			   within(50 * CYCLES_US) + 10 * CYCLES_US };
	heap_add(op->deadline, op->i);
}

/*
 * The worst for the wheel: what is due first is pushed out by any time, while the
 * clock stands still. So each minimum has to be found without time's help.
 */
static void first_next(struct op *op, size_t timers)
{
	(void)timers;
	heap[0].deadline += bench_random() % LONGEST;
	*op = (struct op){ OP_START, heap[0].i, 0, heap[0].deadline };
	heap_down(0);
}

const struct pattern patterns[] = {
	{ "random re-arm", random_begin, random_next, false, true },
	{ "re-arm in order", order_begin, order_next, false, true },
	{ "start and cancel", random_begin, cancel_next, false, true },
	{ "mixed timeouts", mixed_begin, mixed_next, false, false },
	{ "pure expiry", random_begin, expiry_next, true, false },
	{ "short sleeps", sleep_begin, sleep_next, false, false },
	{ "adversary", random_begin, first_next, false, false },
	{ "start and expire", random_begin, life_next, false, false },
};
const size_t pattern_count = sizeof(patterns) / sizeof(*patterns);
