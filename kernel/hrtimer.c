// SPDX-License-Identifier: MIT
/*
 * The timer wheel of hrtimer.h.
 *
 * What the proofs below rely on, and hrtimer_check() tests:
 * 1. A timer is on the list that list_of(deadline, time) names, at all times.
 *    So equal deadlines share a list, and its order is that of starting.
 * 2. A deadline before `time` is on the PAST list, kept sorted.
 * 3. A bit of `occupied` is set where the list is not empty.
 * 4. `first` is the earliest of all; of equal ones, the one started first.
 */
#include "kernel/hrtimer.h"

#define DIGIT_BITS 6
#define DIGIT_MASK 63u

static unsigned int digit(uint64_t value, unsigned int level)
{
	return value >> (level * DIGIT_BITS) & DIGIT_MASK;
}

static unsigned int list_of(uint64_t deadline, uint64_t time)
{
	uint64_t differ = deadline ^ time;
	unsigned int level;

	if (deadline < time)
		return HRTIMER_PAST;
	level = differ ? (63 - (unsigned int)__builtin_clzll(differ)) / DIGIT_BITS
		       : 0;
	return level * HRTIMER_SLOTS + digit(deadline, level);
}

static struct hrtimer *timer_of(struct hrtimer_link *link)
{
	return (struct hrtimer *)link;
}

static void insert_after(struct hrtimer_link *prev, struct hrtimer_link *link)
{
	link->prev = prev;
	link->next = prev->next;
	prev->next->prev = link;
	prev->next = link;
}

/* Where a timer goes on the PAST list: from its end, as late ones are rare. */
static struct hrtimer_link *past_position(struct hrtimer_link *head,
					  uint64_t deadline)
{
	struct hrtimer_link *at = head->prev;

	while (at != head && timer_of(at)->deadline > deadline)
		at = at->prev;
	return at;
}

static void link_timer(struct hrtimer_base *base, struct hrtimer *timer)
{
	unsigned int list = list_of(timer->deadline, base->time);
	struct hrtimer_link *head = &base->lists[list];
	struct hrtimer_link *after = head->prev;

	if (list == HRTIMER_PAST)
		after = past_position(head, timer->deadline);
	else
		base->occupied[list / HRTIMER_SLOTS] |= 1ull << list % HRTIMER_SLOTS;
	timer->list = (uint16_t)list;
	insert_after(after, &timer->link);
}

static void unlink_timer(struct hrtimer_base *base, struct hrtimer *timer)
{
	unsigned int list = timer->list;
	struct hrtimer_link *head = &base->lists[list];

	timer->link.prev->next = timer->link.next;
	timer->link.next->prev = timer->link.prev;
	timer->link.next = NULL;
	if (list != HRTIMER_PAST && head->next == head)
		base->occupied[list / HRTIMER_SLOTS] &=
			~(1ull << list % HRTIMER_SLOTS);
}

/* The time at which a slot begins: the digits of `time` above it, zeros below. */
static uint64_t slot_start(uint64_t time, unsigned int level, unsigned int slot)
{
	unsigned int shift = level * DIGIT_BITS;
	uint64_t above = shift + DIGIT_BITS < 64 ? ~0ull << (shift + DIGIT_BITS)
						 : 0;

	return (time & above) | (uint64_t)slot << shift;
}

/*
 * Lets time enter the earliest slot in use: its timers go to lower levels, which
 * are empty now, in the order they have.
 */
static void cascade(struct hrtimer_base *base, struct hrtimer_link *head,
		    uint64_t start)
{
	base->time = start;
	while (head->next != head) {
		struct hrtimer *timer = timer_of(head->next);

		unlink_timer(base, timer);
		link_timer(base, timer);
	}
}

/*
 * The list that holds the earliest timer, NULL if there is none. On the way time
 * is moved as far as the clock allows, so that the list is short: slots that have
 * begun are broken up, those that have not are left alone.
 */
static struct hrtimer_link *earliest_list(struct hrtimer_base *base)
{
	struct hrtimer_link *past = &base->lists[HRTIMER_PAST];
	unsigned int level = 0;

	if (past->next != past)
		return past;
	while (level < HRTIMER_LEVELS) {
		struct hrtimer_link *head;
		unsigned int slot;
		uint64_t start;

		if (!base->occupied[level]) {
			level++;
			continue;
		}
		slot = (unsigned int)__builtin_ctzll(base->occupied[level]);
		head = &base->lists[level * HRTIMER_SLOTS + slot];
		start = slot_start(base->time, level, slot);
		if (level == 0 || start > base->clock())
			return head;
		cascade(base, head, start);
		level = 0;
	}
	return NULL;
}

/* Finds `first` anew. Of equal deadlines the one nearer to the head is older. */
static void find_first(struct hrtimer_base *base)
{
	struct hrtimer_link *head = earliest_list(base);
	struct hrtimer *best;

	base->first = NULL;
	if (!head)
		return;
	best = timer_of(head->next);
	for (struct hrtimer_link *l = best->link.next; l != head; l = l->next)
		if (timer_of(l)->deadline < best->deadline)
			best = timer_of(l);
	base->first = best;
}

/* Tells the owner if the earliest deadline is no longer what it was. */
static void tell(struct hrtimer_base *base, bool had, uint64_t before)
{
	uint64_t after;
	bool has = hrtimer_next(base, &after);

	if (!base->expiring && (had != has || (has && before != after)))
		base->event(base);
}

void hrtimer_base_init(struct hrtimer_base *base, uint64_t (*clock)(void),
		       void (*event)(struct hrtimer_base *base))
{
	*base = (struct hrtimer_base){ .clock = clock, .event = event };
	base->time = clock();
	for (unsigned int i = 0; i < HRTIMER_LISTS; i++)
		base->lists[i] = (struct hrtimer_link){ &base->lists[i],
							&base->lists[i] };
}

void hrtimer_init(struct hrtimer *timer, hrtimer_callback callback)
{
	*timer = (struct hrtimer){ .callback = callback };
}

void hrtimer_start(struct hrtimer_base *base, struct hrtimer *timer,
		   uint64_t deadline)
{
	uint64_t before = 0;
	bool had = hrtimer_next(base, &before);

	if (hrtimer_is_active(timer))
		unlink_timer(base, timer);
	timer->deadline = deadline;
	link_timer(base, timer);
	if (base->first == timer)
		find_first(base);
	else if (!had || deadline < before)
		base->first = timer;
	tell(base, had, before);
}

bool hrtimer_cancel(struct hrtimer_base *base, struct hrtimer *timer)
{
	uint64_t before = 0;
	bool had = hrtimer_next(base, &before);

	if (!hrtimer_is_active(timer))
		return false;
	unlink_timer(base, timer);
	if (base->first == timer)
		find_first(base);
	tell(base, had, before);
	return true;
}

bool hrtimer_next(const struct hrtimer_base *base, uint64_t *deadline)
{
	if (base->first)
		*deadline = base->first->deadline;
	return base->first != NULL;
}

unsigned int hrtimer_expire(struct hrtimer_base *base)
{
	unsigned int count = 0;
	struct hrtimer *timer;

	base->expiring = true;
	while ((timer = base->first) && timer->deadline <= base->clock()) {
		unlink_timer(base, timer);
		find_first(base);
		timer->callback(timer);
		count++;
	}
	base->expiring = false;
	base->event(base);
	return count;
}

uint64_t hrtimer_forward(const struct hrtimer *timer, uint64_t now,
			 uint64_t period, uint64_t *deadline)
{
	uint64_t from = timer->deadline;
	uint64_t periods = now < from ? 1 : (now - from) / period + 1;
	uint64_t step;

	if (__builtin_mul_overflow(periods, period, &step) ||
	    __builtin_add_overflow(from, step, deadline))
		*deadline = UINT64_MAX;
	return periods;
}
