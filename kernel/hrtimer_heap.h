/* SPDX-License-Identifier: MIT */
/*
 * The heap of hrtimer.c, for the timers that are due before the wheel's cursor:
 * mostly none, or a few. A forest of trees in which no timer is due before its
 * parent; a tree gets rank r + 1 by joining two of rank r, and there is one root of
 * each rank at most.
 *
 * A timer that leaves does not change the ranks above it, so a tree of rank r may
 * hold fewer than 2^r timers, but took 2^r starts to make: n in the costs is the
 * number of starts since the heap was empty.
 *
 * Roots and children are lists that end with NULL; the first child's prev is its
 * parent, the first root's is NULL.
 */
#ifndef KERNEL_HRTIMER_HEAP_H
#define KERNEL_HRTIMER_HEAP_H

#include "kernel/hrtimer.h"

static inline bool earlier(const struct hrtimer *a, const struct hrtimer *b)
{
	return a->latest < b->latest ||
	       (a->latest == b->latest && a->order < b->order);
}

/* A link is the first member of its timer. */
static inline struct hrtimer *timer_of(const struct hrtimer_link *link)
{
	return (struct hrtimer *)link;
}

/* Makes the later of two roots of equal rank the first child of the other. */
static inline struct hrtimer *heap_join(struct hrtimer *a, struct hrtimer *b)
{
	struct hrtimer *root = earlier(b, a) ? b : a;
	struct hrtimer *child = root == a ? b : a;

	child->link.next = root->child;
	child->link.prev = &root->link;
	if (root->child)
		root->child->prev = &child->link;
	root->child = &child->link;
	root->rank++;
	return root;
}

/* Adds a tree to the roots as one adds a power of two to a binary number. */
static inline void heap_add_tree(struct hrtimer_link **roots, struct hrtimer *tree)
{
	struct hrtimer_link *prev = NULL, *next = *roots;

	while (next && timer_of(next)->rank < tree->rank) {
		prev = next;
		next = next->next;
	}
	while (next && timer_of(next)->rank == tree->rank) {
		struct hrtimer *same = timer_of(next);

		next = next->next;
		tree = heap_join(tree, same);
	}
	tree->link.prev = prev;
	tree->link.next = next;
	if (next)
		next->prev = &tree->link;
	if (prev)
		prev->next = &tree->link;
	else
		*roots = &tree->link;
}

/* O(log n), O(1) on average. */
static inline void heap_add(struct hrtimer_link **roots, struct hrtimer *timer)
{
	timer->list = HRTIMER_HEAP;
	timer->rank = 0;
	timer->child = NULL;
	heap_add_tree(roots, timer);
}

/* Takes out any timer; its children become roots. O(log n) squared at worst. */
static inline void heap_remove(struct hrtimer_link **roots, struct hrtimer *timer)
{
	struct hrtimer_link *prev = timer->link.prev, *next = timer->link.next;
	struct hrtimer_link *child = timer->child;

	if (!prev)
		*roots = next;
	else if (timer_of(prev)->child == &timer->link)
		timer_of(prev)->child = next;
	else
		prev->next = next;
	if (next)
		next->prev = prev;
	while (child) {
		next = child->next;
		heap_add_tree(roots, timer_of(child));
		child = next;
	}
}

/* The earliest timer; there must be one. O(log n). */
static inline struct hrtimer *heap_first(const struct hrtimer_link *roots)
{
	struct hrtimer *best = timer_of(roots);

	for (const struct hrtimer_link *l = best->link.next; l; l = l->next)
		if (earlier(timer_of(l), best))
			best = timer_of(l);
	return best;
}

#endif
