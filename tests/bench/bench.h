/* SPDX-License-Identifier: MIT */
/*
 * The wheel's benchmark: structures (peers) that do the same operations, given by
 * patterns, and are measured side by side.
 */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE	   64	   /* bytes of a cache line, and of each timer */
#define CYCLES_US  2500ull /* of the benchmark's own clock, which is a number */
#define CYCLES_S   (1000000 * CYCLES_US)
#define BENCH_NONE UINT64_MAX

/* The benchmark's clock. Patterns move it; peers that can, follow it. */
extern uint64_t bench_now;

/* A structure under test. Timers are numbered from 0. */
struct peer {
	const char *name;
	void (*init)(size_t timers); /* an empty one, what was before is gone */
	void (*start)(size_t i, uint64_t deadline); /* pending or not */
	void (*cancel)(size_t i);		    /* pending */
	/*
	 * Runs all that is due at bench_now. NULL for libraries that go by the real
	 * time: of those the timer that is due is cancelled instead, which is the
	 * smaller part of what they would do.
	 */
	void (*expire)(void);
	uint64_t (*next)(void); /* when what is due first is; NULL if it does not tell */
};

extern const struct peer peer_none, peer_wheel, peer_rbtree, peer_libev, peer_dpdk, peer_list;

/* Zeroed memory for timers, aligned to cache lines; ends the program if there is none. */
void *bench_memory(void *old, size_t timers, size_t size);

enum op_kind { OP_START, OP_CANCEL, OP_EXPIRE, OP_KINDS };

/* Small: a burst of them passes through the caches beside the timers. */
struct op {
	uint32_t kind : 2, i : 30;
	uint32_t step;	   /* the clock moves so far, before */
	uint64_t deadline; /* OP_EXPIRE: unused */
};

/*
 * A pattern gives the same operations to each peer: begin() fills in the deadlines
 * of the timers that are pending at the start, next() the operations that follow.
 */
struct pattern {
	const char *name;
	void (*begin)(uint64_t *deadlines, size_t timers);
	void (*next)(struct op *op, size_t timers);
	bool drains; /* `timers` operations empty it, so each round begins anew */
	bool floor;  /* the plain list takes part */
};

extern const struct pattern patterns[];
extern const size_t pattern_count;

#define SPARE 64 /* timers beyond those pending, for patterns that start new ones */

uint64_t bench_random(void);
void bench_seed(uint64_t seed);

#endif
