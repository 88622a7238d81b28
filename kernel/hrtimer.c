// SPDX-License-Identifier: MIT
/*
 * The timer wheel of hrtimer.h; docs/wheel.md draws it and gives its figures.
 *
 * What the code relies on, and hrtimer_check() tests:
 * 1. A timer due at the cursor or later is on a list, one due before it is in the
 *    heap (hrtimer_heap.h). So equal deadlines are together.
 * 2. The list is the one that list_of() names, or, for a slot that is moved ahead,
 *    the one of the prepared row that its next digit names.
 * 3. A list is in order, or its bit in `unsorted` is set. In any list equal
 *    deadlines are in the order of starting: timers come to its end and are moved
 *    from its beginning.
 * 4. Bits of `occupied` and `rows` are set where a list or a row is not empty.
 * 5. `first` is the earliest of all; of equal ones, the one started first.
 *
 * Order is made as late as possible, since most timers never fire: start and
 * cancel only link. When the first timer goes and the next is looked for, a list of
 * up to 128 timers is sorted, a longer one is split over the lower levels. The
 * cursor goes there, and that may be ahead of the clock: what is started before it
 * goes to the heap. So a long list that is far away is searched the first time, and
 * left as it is.
 */
#include "kernel/hrtimer_heap.h"
#include "kernel/hrtimer_list.h"
#include "kernel/hrtimer_slots.h"

/*
 * An unsorted list of SORT_MAX timers at most is sorted by insertion. One of up to
 * SPREAD_MAX is spread first, unless it was before and new timers have come since, or
 * is on a low level, where new ones come at any time: these are split.
 */
#define SORT_MAX     12
#define SPREAD_MAX   128
#define SPREAD_LEVEL 4

/*
 * Each so many times that the first timer goes, so many are moved ahead; the next
 * slot is looked for less often.
 */
#define AHEAD_TURNS  16
#define AHEAD_TIMERS 64
#define SEARCH_TURNS 64

/*
 * No branch depends on what is there: it could not be predicted. The third last
 * timer is told of the new one, see fetch().
 */
static void list_add(struct hrtimer_base *base, struct hrtimer *timer,
		     unsigned int list)
{
	unsigned int row = list / HRTIMER_SLOTS, slot = list % HRTIMER_SLOTS;
	struct hrtimer_link *head = &base->lists[list], *tail = head->prev;
	const struct hrtimer *last = timer_of(tail == head ? &timer->link : tail);
	struct hrtimer_link *third = tail->prev->prev;

	timer->list = (uint16_t)list;
	base->rows |= 1u << row;
	base->occupied[row] |= 1u << slot;
	base->unsorted[row] |= (uint32_t)(timer->latest < last->latest) << slot;
	if (list == base->far_list && base->far && timer->latest < base->far->latest)
		base->far = timer;
	timer_of(third == head ? &timer->link : third)->child = &timer->link;
	insert_after(tail, &timer->link);
}

static void list_emptied(struct hrtimer_base *base, unsigned int list)
{
	unsigned int row = list / HRTIMER_SLOTS;
	uint32_t bit = 1u << list % HRTIMER_SLOTS;

	if (list == base->far_list)
		base->far_list = HRTIMER_IDLE;
	base->occupied[row] &= ~bit;
	base->unsorted[row] &= ~bit;
	if (!base->occupied[row])
		base->rows &= ~(1u << row);
}

static void list_remove(struct hrtimer_base *base, struct hrtimer *timer)
{
	struct hrtimer_link *next = timer->link.next;

	if (timer == base->far)
		base->far = NULL;
	link_out(&timer->link);
	if (next == timer->link.prev) /* the head is on both sides */
		list_emptied(base, timer->list);
}

static void add(struct hrtimer_base *base, struct hrtimer *timer)
{
	if (timer->latest < base->cursor)
		heap_add(&base->roots, timer);
	else
		list_add(base, timer, list_of(base, timer->latest));
}

static void take(struct hrtimer_base *base, struct hrtimer *timer)
{
	if (timer->list == HRTIMER_HEAP)
		heap_remove(&base->roots, timer);
	else
		list_remove(base, timer);
	timer->list = HRTIMER_IDLE;
}

/*
 * True if a slot is more than its own length away from the clock, and from the
 * cursor: what is started until then should not have to go to the heap.
 */
static bool is_far(const struct hrtimer_base *base, unsigned int level,
		   unsigned int slot)
{
	uint64_t start = slot_start(base->cursor, level, slot), now = base->clock();

	now = now < base->cursor ? base->cursor : now;
	return start > now && (start - now) >> (level * DIGIT_BITS);
}

/* Searches a list that stays as it is, and keeps what it finds in `far`. */
static struct hrtimer *search_far(struct hrtimer_base *base, unsigned int list)
{
	const struct hrtimer_link *head = &base->lists[list], *l = head->next;
	struct hrtimer *best = timer_of(l);

	for (l = l->next; l != head; l = l->next)
		if (timer_of(l)->latest < best->latest)
			best = timer_of(l);
	base->far_list = (uint16_t)list;
	return base->far = best;
}

/*
 * Lets the cursor enter the earliest slot in use: its timers go to lower levels,
 * which are empty now, in the order they have.
 */
static void split(struct hrtimer_base *base, unsigned int level, unsigned int slot)
{
	unsigned int list = row_of(base, level) * HRTIMER_SLOTS + slot;
	struct hrtimer_link *head = &base->lists[list];
	struct hrtimer_link *link = head->next, *next;

	base->cursor = slot_start(base->cursor, level, slot);
	*head = (struct hrtimer_link){ head, head };
	base->far = list == base->far_list ? NULL : base->far;
	list_emptied(base, list);
	for (; link != head; link = next) {
		next = link->next;
		fetch(link);
		list_add(base, timer_of(link), list_of(base, timer_of(link)->latest));
	}
}

/*
 * Moves up to `count` timers of a slot to the prepared row one level below; returns
 * what is left of `count`.
 */
static unsigned int move_ahead(struct hrtimer_base *base, unsigned int level,
			       unsigned int slot, unsigned int count)
{
	unsigned int list = row_of(base, level) * HRTIMER_SLOTS + slot;
	unsigned int below = prepared_row(base, level - 1) * HRTIMER_SLOTS;
	struct hrtimer_link *head = &base->lists[list];

	base->ahead[level] = (uint8_t)slot;
	if (list == base->far_list)
		base->far = NULL;
	for (; count && head->next != head; count--) {
		struct hrtimer *timer = timer_of(head->next);

		fetch(&timer->link);
		link_out(&timer->link);
		list_add(base, timer, below + digit(timer->latest, level - 1));
	}
	if (head->next == head && base->occupied[list / HRTIMER_SLOTS] >> slot & 1)
		list_emptied(base, list);
	return count;
}

/*
 * Lets the cursor enter a slot that has been moved ahead: what is left follows, and
 * the prepared row becomes the one in use. The cursor stands in its slot 0 then,
 * which must not hold anything.
 */
static void enter(struct hrtimer_base *base, unsigned int level, unsigned int slot)
{
	unsigned int row = prepared_row(base, level - 1);

	move_ahead(base, level, slot, UINT32_MAX);
	base->cursor = slot_start(base->cursor, level, slot);
	base->sides ^= 1u << (level - 1);
	if (base->occupied[row] & 1 && level > 1)
		split(base, level - 1, 0);
}

/*
 * Does some of the work that is to come, so that it need not be done at once: of
 * each level the next slot that is long and not in order is moved ahead, a few
 * timers each time, the lowest level first.
 */
static void prepare(struct hrtimer_base *base)
{
	uint32_t levels = used_levels(base) & ~1u; /* level 0 is in order */
	unsigned int budget = AHEAD_TIMERS;

	for (; levels && budget; levels &= levels - 1) {
		unsigned int level = (unsigned int)__builtin_ctz(levels);
		unsigned int row = row_of(base, level), slot;
		uint32_t slots = base->occupied[row] & base->unsorted[row];

		if (!slots)
			continue;
		slot = (unsigned int)__builtin_ctz(slots);
		if (ahead_levels(base) >> level & 1
			    ? base->ahead[level] != slot
			    : base->turns % SEARCH_TURNS ||
				      is_far(base, level, slot) ||
				      is_short(&base->lists[row * HRTIMER_SLOTS + slot],
					       SPREAD_MAX))
			continue;
		budget = move_ahead(base, level, slot, budget);
	}
}

/*
 * The lowest slot of the lowest level in use: its list's number, or HRTIMER_LISTS
 * if all are empty. Enters slots that were moved ahead on the way.
 */
static unsigned int first_list(struct hrtimer_base *base)
{
	for (;;) {
		uint32_t ahead = ahead_levels(base), levels = used_levels(base) | ahead;
		unsigned int level, row, slot;

		if (!levels)
			return HRTIMER_LISTS;
		level = (unsigned int)__builtin_ctz(levels);
		row = row_of(base, level);
		ahead = ahead >> level & 1;
		slot = (unsigned int)__builtin_ctz(base->occupied[row] |
						   ahead << base->ahead[level]);
		if (!ahead || slot != base->ahead[level])
			return row * HRTIMER_SLOTS + slot;
		enter(base, level, slot);
	}
}

/* Sorts a list where it is, if that is the best to do. */
static bool put_in_order(struct hrtimer_base *base, unsigned int list)
{
	struct hrtimer_link *head = &base->lists[list];

	if (!is_short(head, SORT_MAX)) {
		if (list / HRTIMER_SLOTS % HRTIMER_LEVELS < SPREAD_LEVEL ||
		    list == base->spread || !is_short(head, SPREAD_MAX))
			return false;
		base->spread = (uint16_t)list;
		spread(head);
	}
	sort(head);
	return true;
}

/* The earliest timer on the lists; NULL if they are empty: time may be skipped. */
static struct hrtimer *list_first(struct hrtimer_base *base)
{
	unsigned int list;

	while ((list = first_list(base)) < HRTIMER_LISTS) {
		unsigned int row = list / HRTIMER_SLOTS, slot = list % HRTIMER_SLOTS;

		if (base->unsorted[row] >> slot & 1) {
			if (list == base->far_list && base->far)
				return base->far;
			if (put_in_order(base, list)) {
				base->unsorted[row] &= ~(1u << slot);
			} else if (list != base->far_list &&
				   is_far(base, row % HRTIMER_LEVELS, slot)) {
				return search_far(base, list);
			} else {
				split(base, row % HRTIMER_LEVELS, slot);
				continue;
			}
		}
		return timer_of(base->lists[list].next);
	}
	base->cursor = base->clock();
	return NULL;
}

/* Takes the first timer out. The one behind it on a list in order is the next. */
static void take_first(struct hrtimer_base *base)
{
	struct hrtimer *timer = base->first;
	unsigned int list = timer->list;
	struct hrtimer_link *next = timer->link.next;
	bool known = list < HRTIMER_LISTS && next != timer->link.prev &&
		     !(base->unsorted[list / HRTIMER_SLOTS] >> list % HRTIMER_SLOTS & 1);

	take(base, timer);
	base->first = timer_of(next);
	if (known)
		__builtin_prefetch(next->next); /* first soon, and cold by then */
	else
		base->first = base->roots ? heap_first(base->roots) : list_first(base);
	/* The first may be on a list that is not in order: then it must stay there. */
	if (base->first != base->far && ++base->turns % AHEAD_TURNS == 0)
		prepare(base);
}

/* The earliest deadline is no longer what it was: tells the owner. */
static void changed(struct hrtimer_base *base)
{
	if (!base->expiring)
		base->event(base);
}

void hrtimer_base_init(struct hrtimer_base *base, uint64_t (*clock)(void),
		       void (*event)(struct hrtimer_base *base))
{
	*base = (struct hrtimer_base){
		.clock = clock, .event = event, .far_list = HRTIMER_IDLE, .spread = HRTIMER_IDLE
	};
	base->cursor = clock();
	for (unsigned int i = 0; i < HRTIMER_LISTS; i++)
		base->lists[i] = (struct hrtimer_link){ &base->lists[i],
							&base->lists[i] };
}

void hrtimer_init(struct hrtimer *timer, hrtimer_callback callback)
{
	*timer = (struct hrtimer){ .callback = callback, .list = HRTIMER_IDLE };
}

void hrtimer_start_range(struct hrtimer_base *base, struct hrtimer *timer,
			 uint64_t deadline, uint64_t slack)
{
	const struct hrtimer *first = base->first;
	uint64_t before = first ? first->latest : 0;

	if (first == timer)
		take_first(base);
	else if (hrtimer_is_active(timer))
		take(base, timer);
	timer->deadline = deadline;
	timer->latest = slack > UINT64_MAX - deadline ? UINT64_MAX : deadline + slack;
	timer->order = base->orders++;
	add(base, timer);
	if (!base->first || timer->latest < base->first->latest)
		base->first = timer;
	if (!first || base->first->latest != before)
		changed(base);
}

bool hrtimer_cancel(struct hrtimer_base *base, struct hrtimer *timer)
{
	uint64_t before = timer->latest;

	if (!hrtimer_is_active(timer))
		return false;
	if (base->first != timer) {
		take(base, timer);
		return true;
	}
	take_first(base);
	if (!base->first || base->first->latest != before)
		changed(base);
	return true;
}

unsigned int hrtimer_expire(struct hrtimer_base *base)
{
	unsigned int count = 0;
	struct hrtimer *timer;

	base->expiring = true;
	while ((timer = base->first) && timer->deadline <= base->clock()) {
		take_first(base);
		timer->callback(timer);
		count++;
	}
	base->expiring = false;
	base->event(base);
	return count;
}
