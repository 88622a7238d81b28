// SPDX-License-Identifier: MIT
/*
 * libev's timers: a four-ary heap of pairs in an array. Its loop never runs here, so
 * its idea of now stands still, and a timer's repeat is the time from there. It does
 * not tell its next expiry, so it is not asked.
 */
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

union node {
	ev_timer timer;
	char line[LINE];
};

static struct ev_loop *loop;
static union node *nodes;

static void fired(struct ev_loop *l, ev_timer *timer, int events)
{
	(void)l, (void)timer, (void)events;
}

static void libev_init(size_t timers)
{
	if (loop)
		ev_loop_destroy(loop);
	loop = ev_loop_new(EVFLAG_AUTO);
	if (!loop) {
		fprintf(stderr, "bench: libev gives no loop\n");
		exit(1);
	}
	nodes = bench_memory(nodes, timers, sizeof(*nodes));
	for (size_t i = 0; i < timers; i++)
		ev_timer_init(&nodes[i].timer, fired, 0, 1);
}

static void libev_start(size_t i, uint64_t deadline)
{
	nodes[i].timer.repeat = (double)deadline * (1.0 / (double)CYCLES_S);
	ev_timer_again(loop, &nodes[i].timer);
}

static void libev_cancel(size_t i)
{
	ev_timer_stop(loop, &nodes[i].timer);
}

const struct peer peer_libev = {
	"libev", libev_init, libev_start, libev_cancel, NULL, NULL,
};
