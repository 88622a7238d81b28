// SPDX-License-Identifier: MIT
/*
 * The invariants of the timer wheel, checked one by one. Only hosted tests
 * compile it: they include hrtimer.c for its static functions.
 */
#ifdef HRTIMER_CHECK

#include "kernel/hrtimer.c"

static bool earlier(const struct hrtimer *a, const struct hrtimer *b)
{
	return !b || a->deadline < b->deadline;
}

static const char *check_list(const struct hrtimer_base *base,
			      unsigned int list, const struct hrtimer **best,
			      size_t *active)
{
	const struct hrtimer_link *head = &base->lists[list];
	uint64_t last = 0;

	for (struct hrtimer_link *l = head->next; l != head; l = l->next) {
		const struct hrtimer *t = timer_of(l);

		if (l->next->prev != l || l->prev->next != l)
			return "a list is broken";
		if (t->list != list || list_of(t->deadline, base->time) != list)
			return "a timer is on the wrong list";
		if (list == HRTIMER_PAST && t->deadline < last)
			return "the past list is not in order";
		last = t->deadline;
		if (earlier(t, *best))
			*best = t;
		(*active)++;
	}
	return NULL;
}

static const char *check_bit(const struct hrtimer_base *base, unsigned int list)
{
	bool used = base->lists[list].next != &base->lists[list];
	uint64_t bits;

	if (list == HRTIMER_PAST)
		return NULL;
	bits = base->occupied[list / HRTIMER_SLOTS];
	if ((bits >> list % HRTIMER_SLOTS & 1) != used)
		return "an occupancy bit does not tell the truth";
	return NULL;
}

const char *hrtimer_check(const struct hrtimer_base *base, size_t *active)
{
	const struct hrtimer *best = NULL;
	const char *wrong = NULL;

	*active = 0;
	if (base->time > base->clock())
		return "the wheel's time is ahead of the clock";
	for (unsigned int list = 0; !wrong && list < HRTIMER_LISTS; list++) {
		wrong = check_list(base, list, &best, active);
		if (!wrong)
			wrong = check_bit(base, list);
	}
	if (!wrong && best != base->first)
		wrong = "first is not the earliest timer";
	return wrong;
}

#endif
