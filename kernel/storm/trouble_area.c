// SPDX-License-Identifier: MIT
/*
 * The lazy mode, in an area that moves from page to page and within them. What it leaves is
 * filled with a pattern, which has to stay.
 */
#include "kernel/cpu.h"
#include "kernel/storm/faults.h"
#include "kernel/storm/random.h"

#define PLACES	16
#define PATTERN 0x5a5a5a5a5a5a5a5aull

/* Three of them are a little more than half a page. */
struct place {
	struct deadline deadline;
	uint8_t rest[576];
} __attribute__((aligned(64)));

static struct place places[CPUS_MAX][PLACES];
static unsigned int current[CPUS_MAX];

static struct deadline *here(void)
{
	unsigned int cpu = this_cpu()->number;

	return &places[cpu][current[cpu]].deadline;
}

/* The writes are this CPU's, wherever they are counted. */
static void count_writes(struct deadline *d)
{
	d->timer.writes += here()->timer.writes;
	here()->timer.writes = 0;
}

static volatile uint64_t *words_of(struct deadline *d)
{
	return (volatile uint64_t *)&d->area;
}

#define WORDS (sizeof(struct lazy_area) / sizeof(uint64_t))

static void leave(struct deadline *d)
{
	for (unsigned int i = 0; i < WORDS; i++)
		words_of(d)[i] = PATTERN;
}

/* One that was never used is 0. */
void trouble_area_check(struct storm_run *run)
{
	unsigned int cpu = this_cpu()->number;

	for (unsigned int p = 0; p < PLACES; p++)
		for (unsigned int i = 0; p != current[cpu] && i < WORDS; i++) {
			uint64_t word = words_of(&places[cpu][p].deadline)[i];

			run->result.wrong += word != 0 && word != PATTERN;
		}
}

/* Enabling while it is enabled leaves the old one first; half the times we do. */
void trouble_area_move(struct storm_run *run, uint64_t next)
{
	struct deadline *old = here();

	trouble_area_check(run);
	if (random_next(&run->random) & 1)
		deadline_lazy.disable(old);
	current[this_cpu()->number] += random_between(&run->random, 1, PLACES - 1);
	current[this_cpu()->number] %= PLACES;
	deadline_lazy.enable(here(), next);
	count_writes(&this_cpu()->clockevent.deadline);
	leave(old);
}

static const char *area_missing(void)
{
	return deadline_lazy.missing();
}

static void area_enable(struct deadline *d, uint64_t deadline)
{
	deadline_lazy.enable(here(), deadline);
	count_writes(d);
}

static void area_disable(struct deadline *d)
{
	(void)d;
	deadline_lazy.disable(here());
}

static void area_set(struct deadline *d, uint64_t deadline)
{
	deadline_lazy.set(here(), deadline);
	count_writes(d);
}

static void area_cancel(struct deadline *d)
{
	(void)d;
	deadline_lazy.cancel(here());
}

static void area_defer(struct deadline *d, uint64_t deadline)
{
	deadline_lazy.defer(here(), deadline);
	count_writes(d);
}

static void area_commit(struct deadline *d)
{
	deadline_lazy.commit(here());
	count_writes(d);
}

static void area_interrupt(struct deadline *d)
{
	(void)d;
	deadline_lazy.interrupt(here());
}

const struct deadline_ops trouble_area_mode = {
	.name = "lazy",
	.missing = area_missing,
	.enable = area_enable,
	.disable = area_disable,
	.set = area_set,
	.cancel = area_cancel,
	.defer = area_defer,
	.commit = area_commit,
	.interrupt = area_interrupt,
};
