// SPDX-License-Identifier: MIT
/*
 * peer_none does nothing: what it takes is the measuring.
 *
 * The floor: doubly linked lists of 64-byte nodes, a power of two of them, with the
 * least that starting and stopping can be: a link and an unlink. It knows no time
 * and no order.
 */
#include "bench.h"

#define LISTS 64

struct link {
	struct link *next, *prev;
};

union node {
	struct link link;
	char line[LINE];
};

static struct link heads[LISTS];
static union node *nodes;

static void list_init(size_t timers)
{
	nodes = bench_memory(nodes, timers, sizeof(*nodes));
	for (int i = 0; i < LISTS; i++)
		heads[i] = (struct link){ &heads[i], &heads[i] };
}

static void list_cancel(size_t i)
{
	struct link *link = &nodes[i].link;

	link->prev->next = link->next;
	link->next->prev = link->prev;
	link->next = NULL;
}

static void list_start(size_t i, uint64_t deadline)
{
	struct link *link = &nodes[i].link, *head = &heads[deadline % LISTS];

	if (link->next)
		list_cancel(i);
	link->next = head->next;
	link->prev = head;
	head->next->prev = link;
	head->next = link;
}

static void none_init(size_t timers)
{
	(void)timers;
}

static void none_start(size_t i, uint64_t deadline)
{
	(void)i, (void)deadline;
}

static void none_cancel(size_t i)
{
	(void)i;
}

static uint64_t none_next(void)
{
	return BENCH_NONE;
}

const struct peer peer_none = {
	"none", none_init, none_start, none_cancel, NULL, none_next,
};

const struct peer peer_list = {
	"floor (list)", list_init, list_start, list_cancel, NULL, NULL,
};
