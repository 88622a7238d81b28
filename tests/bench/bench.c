// SPDX-License-Identifier: MIT
/*
 * Measures the peers side by side: one process, one CPU, the same operations, peers
 * taking turns in short bursts. Prints a JSON object a line.
 *
 * Two passes a round: ns from a whole burst, with nothing between the operations;
 * the quantiles from the time stamp counter around each single operation, less
 * what that takes with a peer that does nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "bench.h"

#define BURST	   1000000 /* operations between two changes of peer */
#define ROUND_OPS  200000  /* of each peer, each pass, in a round */
#define MAX_ROUNDS 101

uint64_t bench_now;

static const struct peer *const all_peers[] = {
	&peer_wheel, &peer_rbtree, &peer_libev, &peer_dpdk, &peer_list,
};
#define PEERS (sizeof(all_peers) / sizeof(*all_peers))

/* What is known of one peer in one row. */
struct result {
	double ns[MAX_ROUNDS];
	uint32_t *cycles[OP_KINDS]; /* single operations of all rounds */
	size_t count[OP_KINDS];
	uint64_t burst_ns, burst_ops;
};

/* Volatile, so that it is called as the others are. */
static const struct peer *volatile hidden_peer = &peer_none;
static struct result results[PEERS];
static uint64_t stamp_cost, wrong_next;
static unsigned int rounds = 5;
static size_t round_ops;

static void fail(const char *what)
{
	fprintf(stderr, "bench: %s\n", what);
	exit(1);
}

void *bench_memory(void *old, size_t timers, size_t size)
{
	void *memory;

	free(old);
	memory = aligned_alloc(LINE, timers * size);
	if (!memory)
		fail("out of memory");
	return memset(memory, 0, timers * size);
}

/* This process' own time: what others take from the CPU does not count. */
static uint64_t nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* One operation and the question that follows each. Always inlined: no call more. */
static inline __attribute__((always_inline)) uint64_t
operate(const struct peer *peer, const struct op *op)
{
	uint64_t next = 0;

	bench_now += op->step;
	if (op->kind == OP_START)
		peer->start(op->i, op->deadline);
	else if (op->kind == OP_CANCEL || !peer->expire)
		peer->cancel(op->i);
	else
		peer->expire();
	if (peer->next)
		next = peer->next();
	return next;
}

static uint64_t stamp(void)
{
	uint64_t t;

	_mm_lfence();
	t = __rdtsc();
	_mm_lfence();
	return t;
}

static int compare_cycles(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* What the readings take around a peer that does nothing: the median. */
static void measure_stamp(void)
{
	static uint32_t costs[100001];
	struct op op = { .kind = OP_START };
	size_t count = sizeof(costs) / sizeof(*costs);

	for (size_t i = 0; i < count; i++) {
		uint64_t start = stamp();

		operate(hidden_peer, &op);
		costs[i] = (uint32_t)(stamp() - start);
	}
	qsort(costs, count, sizeof(*costs), compare_cycles);
	stamp_cost = costs[count / 2];
}

static void burst_whole(const struct peer *peer, struct result *r,
			const struct op *ops, size_t count)
{
	uint64_t sum = 0, start = nanoseconds();

	for (size_t i = 0; i < count; i++)
		sum += operate(peer, &ops[i]);
	r->burst_ns += nanoseconds() - start;
	r->burst_ops += count;
	wrong_next += sum == 1; /* keeps the answers alive */
}

static void burst_single(const struct peer *peer, struct result *r,
			 const struct op *ops, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t start = stamp();

		operate(peer, &ops[i]);
		start = stamp() - start;
		start = start > stamp_cost ? start - stamp_cost : 0;
		r->cycles[ops[i].kind][r->count[ops[i].kind]++] =
			start < UINT32_MAX ? (uint32_t)start : UINT32_MAX;
	}
}

static bool takes_part(const struct peer *peer, const struct pattern *pattern)
{
	return peer != &peer_list || pattern->floor;
}

static void populate(const struct pattern *pattern, size_t timers, uint64_t seed)
{
	uint64_t *deadlines = malloc(timers * sizeof(*deadlines));

	if (!deadlines)
		fail("out of memory");
	bench_seed(seed);
	pattern->begin(deadlines, timers);
	for (size_t p = 0; p < PEERS; p++) {
		if (!takes_part(all_peers[p], pattern))
			continue;
		all_peers[p]->init(timers + SPARE);
		for (size_t i = 0; i < timers; i++)
			all_peers[p]->start(i, deadlines[i]);
	}
	free(deadlines);
}

/* All peers must agree on what is due first, or they have not done the same. */
static void compare(const struct pattern *pattern)
{
	uint64_t wheel = peer_wheel.next(), tree = peer_rbtree.next();

	if (wheel != tree) {
		fprintf(stderr, "bench: %s: the wheel's next expiry is %lu, the tree's %lu\n",
			pattern->name, wheel, tree);
		exit(1);
	}
}

static void run_round(const struct pattern *pattern, size_t timers, size_t ops)
{
	static struct op burst[BURST]; /* long: each peer warms up its caches anew */
	uint64_t start;
	bool single = false;
	size_t count, burst_ops = ops / 2 < BURST ? (ops + 1) / 2 : BURST;

	for (size_t done = 0; done < ops; done += count, single = !single) {
		count = ops - done < burst_ops ? ops - done : burst_ops;

		for (size_t i = 0; i < count; i++)
			pattern->next(&burst[i], timers);
		start = bench_now;
		for (size_t p = 0; p < PEERS; p++) {
			if (!takes_part(all_peers[p], pattern))
				continue;
			bench_now = start;
			if (single)
				burst_single(all_peers[p], &results[p], burst, count);
			else
				burst_whole(all_peers[p], &results[p], burst, count);
		}
		compare(pattern);
	}
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static uint32_t quantile(const uint32_t *sorted, size_t count, double q)
{
	size_t at = (size_t)((double)count * q);

	return sorted[at < count ? at : count - 1];
}

static void print_row(const struct peer *peer, const char *pattern, size_t timers,
		      double ns, uint32_t *cycles, size_t count)
{
	qsort(cycles, count, sizeof(*cycles), compare_cycles);
	printf("{\"structure\": \"%s\", \"pattern\": \"%s\", \"timers\": %zu, ",
	       peer->name, pattern, timers);
	if (ns > 0)
		printf("\"ns\": %.1f, ", ns);
	else
		printf("\"ns\": null, ");
	printf("\"p50\": %u, \"p99\": %u, \"p9999\": %u, \"worst\": %u}\n",
	       quantile(cycles, count, 0.5), quantile(cycles, count, 0.99),
	       quantile(cycles, count, 0.9999), cycles[count - 1]);
	fflush(stdout);
}

static void print_rows(const struct pattern *pattern, const struct peer *peer,
		       struct result *r, size_t timers)
{
	static const char *const kinds[] = { "start", "cancel" };
	size_t total = 0;
	uint32_t *all;

	qsort(r->ns, rounds, sizeof(*r->ns), compare_doubles);
	for (int k = 0; k < OP_KINDS; k++)
		total += r->count[k];
	all = malloc(total * sizeof(*all));
	if (!all)
		fail("out of memory");
	total = 0;
	for (int k = 0; k < OP_KINDS; k++) {
		memcpy(all + total, r->cycles[k], r->count[k] * sizeof(*all));
		total += r->count[k];
	}
	print_row(peer, pattern->name, timers, r->ns[rounds / 2], all, total);
	for (int k = OP_START; k <= OP_CANCEL && r->count[OP_CANCEL]; k++)
		print_row(peer, kinds[k], timers, 0, r->cycles[k], r->count[k]);
	free(all);
}

static void results_begin(size_t ops)
{
	for (size_t p = 0; p < PEERS; p++)
		for (int k = 0; k < OP_KINDS; k++) {
			free(results[p].cycles[k]);
			results[p].cycles[k] = malloc((ops / 2 + BURST) * rounds * 4);
			if (!results[p].cycles[k])
				fail("out of memory");
			results[p].count[k] = 0;
		}
}

static void run_pattern(const struct pattern *pattern, size_t timers)
{
	size_t ops = pattern->drains ? timers : round_ops;

	results_begin(ops);
	for (unsigned int round = 0; round < rounds; round++) {
		if (round == 0 || pattern->drains)
			populate(pattern, timers, round + 1);
		for (size_t p = 0; p < PEERS; p++)
			results[p].burst_ns = results[p].burst_ops = 0;
		run_round(pattern, timers, ops);
		for (size_t p = 0; p < PEERS; p++)
			results[p].ns[round] =
				(double)results[p].burst_ns /
				(double)(results[p].burst_ops + !results[p].burst_ops);
	}
	for (size_t p = 0; p < PEERS; p++)
		if (takes_part(all_peers[p], pattern))
			print_rows(pattern, all_peers[p], &results[p], timers);
}

/* bench ROUNDS OPS TIMERS [PATTERN]: the lab checks what it passes. */
int main(int argc, char **argv)
{
	size_t timers;

	if (argc < 4)
		fail("usage: bench ROUNDS OPS TIMERS [PATTERN]");
	rounds = (unsigned int)strtoul(argv[1], NULL, 10);
	round_ops = strtoull(argv[2], NULL, 10);
	timers = strtoull(argv[3], NULL, 10);
	if (!rounds || rounds > MAX_ROUNDS || !round_ops || !timers)
		fail("rounds, operations or timers out of range");
	measure_stamp();
	for (size_t i = 0; i < pattern_count; i++)
		if (argc < 5 || !strcmp(argv[4], patterns[i].name))
			run_pattern(&patterns[i], timers);
	return 0;
}
