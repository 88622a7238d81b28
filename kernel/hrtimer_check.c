// SPDX-License-Identifier: MIT
/*
 * The invariants of the timer wheel, checked one by one. Only hosted tests
 * compile it: they include hrtimer.c for its static functions.
 */
#ifdef HRTIMER_CHECK

#include "kernel/hrtimer.c"

/* What one walk through the base collects. */
struct survey {
	const struct hrtimer_base *base;
	const struct hrtimer *best;
	size_t active;
};

static const char *check_timer(struct survey *s, const struct hrtimer *t,
			       unsigned int list)
{
	if (t->list != list)
		return "a timer does not bear its list's number";
	if (t->order >= s->base->orders || t->deadline > t->latest)
		return "a timer's order or window is impossible";
	if (!s->best || earlier(t, s->best))
		s->best = t;
	s->active++;
	return NULL;
}

/* The list that a timer on a prepared row was moved to, from its level above. */
static unsigned int prepared_list(const struct hrtimer_base *base, uint64_t time,
				  unsigned int level)
{
	uint64_t start = slot_start(base->cursor, level + 1, base->ahead[level + 1]);

	if ((time ^ start) >> ((level + 1) * DIGIT_BITS))
		return HRTIMER_LISTS; /* in no slot of it */
	return prepared_row(base, level) * HRTIMER_SLOTS + digit(time, level);
}

static const char *check_place(const struct hrtimer_base *base,
			       const struct hrtimer *t)
{
	unsigned int row = t->list / HRTIMER_SLOTS, level = row % HRTIMER_LEVELS;

	if (t->latest < base->cursor)
		return "a timer before the cursor is on a list";
	if (row == row_of(base, level)
		    ? t->list != list_of(base, t->latest)
		    : t->list != prepared_list(base, t->latest, level))
		return "a timer is on the wrong list";
	return NULL;
}

static const char *check_list(struct survey *s, unsigned int list)
{
	const struct hrtimer_base *base = s->base;
	unsigned int row = list / HRTIMER_SLOTS, slot = list % HRTIMER_SLOTS;
	const struct hrtimer_link *head = &base->lists[list], *l = head->next;
	bool unsorted = base->unsorted[row] >> slot & 1;
	const struct hrtimer *last = NULL;
	const char *wrong = NULL;

	if ((base->occupied[row] >> slot & 1) != (l != head))
		return "an occupancy bit does not tell the truth";
	if (l == head && unsorted)
		return "an empty list is said not to be in order";
	for (; !wrong && l != head; l = l->next) {
		if (l->next->prev != l || l->prev->next != l)
			return "a list is broken";
		wrong = check_timer(s, timer_of(l), list);
		if (!wrong)
			wrong = check_place(base, timer_of(l));
		if (last && timer_of(l)->latest < last->latest && !unsorted)
			return "a list said to be in order is not";
		last = timer_of(l);
	}
	return wrong;
}

/* Roots (no parent) of growing rank, or children of falling rank. */
static const char *check_trees(struct survey *s, const struct hrtimer_link *first,
			       const struct hrtimer *parent)
{
	const struct hrtimer_link *prev = parent ? &parent->link : NULL;
	int rank = parent ? parent->rank : -1;
	const char *wrong = NULL;

	for (const struct hrtimer_link *l = first; !wrong && l; l = l->next) {
		const struct hrtimer *t = timer_of(l);

		if (l->prev != prev)
			return "the heap is broken";
		if (parent ? t->rank >= rank : t->rank <= rank)
			return "the ranks in the heap are wrong";
		if (parent && earlier(t, parent))
			return "a timer is due before its parent";
		if (t->latest >= s->base->cursor)
			return "a timer in the heap belongs on a list";
		wrong = check_timer(s, t, HRTIMER_HEAP);
		if (!wrong)
			wrong = check_trees(s, t->child, t);
		rank = t->rank;
		prev = l;
	}
	return wrong;
}

/* What is kept of a list that is left unsorted is its first, the oldest of equals. */
static const char *check_far(const struct hrtimer_base *base)
{
	const struct hrtimer_link *head = &base->lists[base->far_list % HRTIMER_LISTS];
	const struct hrtimer *best = NULL;

	if (!base->far)
		return NULL;
	if (base->far_list >= HRTIMER_LISTS)
		return "a first timer is kept of no list";
	for (const struct hrtimer_link *l = head->next; l != head; l = l->next)
		if (!best || earlier(timer_of(l), best))
			best = timer_of(l);
	return best == base->far ? NULL : "the timer kept of a list is not its first";
}

static const char *check_row(const struct hrtimer_base *base, unsigned int row)
{
	if ((base->rows >> row & 1) != (base->occupied[row] != 0))
		return "a row's bit does not tell the truth";
	return NULL;
}

const char *hrtimer_check(const struct hrtimer_base *base, size_t *active)
{
	struct survey s = { .base = base };
	const char *wrong = check_trees(&s, base->roots, NULL);

	for (unsigned int row = 0; !wrong && row < HRTIMER_ROWS; row++)
		wrong = check_row(base, row);
	for (unsigned int list = 0; !wrong && list < HRTIMER_LISTS; list++)
		wrong = check_list(&s, list);
	if (!wrong)
		wrong = check_far(base);
	*active = s.active;
	if (!wrong && s.best != base->first)
		wrong = "first is not the earliest timer";
	return wrong;
}

#endif
