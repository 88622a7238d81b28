/* SPDX-License-Identifier: MIT */
/*
 * A list of hrtimer.c's wheel by itself, a ring through its head: linking, and putting
 * it in order. What a list means is hrtimer.c's.
 */
#ifndef KERNEL_HRTIMER_LIST_H
#define KERNEL_HRTIMER_LIST_H

#include "kernel/hrtimer_heap.h" /* timer_of() */

#define BUCKET_BITS 6
#define BUCKETS	    (1 << BUCKET_BITS)

static inline void insert_after(struct hrtimer_link *prev, struct hrtimer_link *link)
{
	link->prev = prev;
	link->next = prev->next;
	prev->next->prev = link;
	prev->next = link;
}

static inline void link_out(struct hrtimer_link *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
}

/*
 * Walking along a list waits for the memory at each step. So each timer on it knows,
 * as well as it can be kept without work, which comes three behind it: `child`. It
 * is only fetched, never read: it may long be elsewhere, or freed.
 */
static inline void fetch(const struct hrtimer_link *link)
{
	__builtin_prefetch(((const struct hrtimer *)link)->child);
}

/* True if a list has `most` timers at most. */
static inline bool is_short(const struct hrtimer_link *head, unsigned int most)
{
	const struct hrtimer_link *link = head->next;

	for (; most && link != head; most--) {
		fetch(link);
		link = link->next;
	}
	return link == head;
}

/* Sorts a short list by insertion. */
static inline void sort(struct hrtimer_link *head)
{
	struct hrtimer_link *link = head->next->next, *next;

	for (; link != head; link = next) {
		struct hrtimer_link *at = link->prev;

		next = link->next;
		while (at != head && timer_of(at)->latest > timer_of(link)->latest)
			at = at->prev;
		if (at != link->prev) {
			link_out(link);
			insert_after(at, link);
		}
	}
}

/*
 * Makes a list almost ordered: puts the timers into buckets by the highest bits in
 * which they can differ, and the buckets behind one another.
 */
static inline void spread(struct hrtimer_link *head)
{
	struct hrtimer_link *first[BUCKETS], **end[BUCKETS], **tail = &head->next;
	struct hrtimer_link *link, *prev = head;
	uint64_t low = UINT64_MAX, high = 0;
	unsigned int shift;

	for (link = head->next; link != head; link = link->next) {
		uint64_t latest = timer_of(link)->latest;

		low = latest < low ? latest : low;
		high = latest > high ? latest : high;
	}
	shift = 64 - BUCKET_BITS -
		(unsigned int)__builtin_clzll((high - low) | (BUCKETS - 1));
	for (unsigned int i = 0; i < BUCKETS; i++)
		end[i] = &first[i];
	for (link = head->next; link != head; link = link->next) {
		unsigned int i = (unsigned int)((timer_of(link)->latest - low) >> shift);

		*end[i] = link;
		end[i] = &link->next;
	}
	for (unsigned int i = 0; i < BUCKETS; i++) {
		*tail = first[i]; /* of an empty one, overwritten at once */
		tail = end[i] == &first[i] ? tail : end[i];
	}
	*tail = head;
	for (link = head->next; link != head; link = link->next) {
		link->prev = prev;
		prev = link;
	}
	head->prev = prev;
}

#endif
