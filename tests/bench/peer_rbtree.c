// SPDX-License-Identifier: MIT
/*
 * Linux' red-black tree with the leftmost node cached, used as lib/timerqueue.c
 * uses it. Compiled with rbtree.c and its headers from Debian's linux-source.
 */
#include <linux/rbtree.h>

#include "bench.h"

struct node {
	struct rb_node rb;
	uint64_t expires;
	bool pending;
	void (*callback)(struct node *node);
} __attribute__((aligned(LINE)));

static struct rb_root_cached root;
static struct node *nodes;

static struct node *node_of(struct rb_node *rb)
{
	return rb_entry(rb, struct node, rb);
}

static bool less(struct rb_node *a, const struct rb_node *b)
{
	return node_of(a)->expires < rb_entry(b, struct node, rb)->expires;
}

static void fired(struct node *node)
{
	(void)node;
}

static void rbtree_init(size_t timers)
{
	nodes = bench_memory(nodes, timers, sizeof(*nodes));
	for (size_t i = 0; i < timers; i++)
		nodes[i].callback = fired;
	root = RB_ROOT_CACHED;
}

static void take(struct node *node)
{
	rb_erase_cached(&node->rb, &root);
	node->pending = false;
}

static void rbtree_start(size_t i, uint64_t deadline)
{
	struct node *node = &nodes[i];

	if (node->pending)
		take(node);
	node->expires = deadline;
	node->pending = true;
	rb_add_cached(&node->rb, &root, less);
}

static void rbtree_cancel(size_t i)
{
	take(&nodes[i]);
}

static uint64_t rbtree_next(void)
{
	struct rb_node *first = rb_first_cached(&root);

	return first ? node_of(first)->expires : BENCH_NONE;
}

static void rbtree_expire(void)
{
	struct rb_node *first;

	while ((first = rb_first_cached(&root)) &&
	       node_of(first)->expires <= bench_now) {
		take(node_of(first));
		node_of(first)->callback(node_of(first));
	}
}

const struct peer peer_rbtree = {
	"rbtree",
	rbtree_init,
	rbtree_start,
	rbtree_cancel,
	rbtree_expire,
	rbtree_next,
};
