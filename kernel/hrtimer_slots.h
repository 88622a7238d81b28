/* SPDX-License-Identifier: MIT */
/*
 * Where a time goes in hrtimer.c's wheel: arithmetic only. The numbers of lists run
 * through the rows: list = row * HRTIMER_SLOTS + slot.
 */
#ifndef KERNEL_HRTIMER_SLOTS_H
#define KERNEL_HRTIMER_SLOTS_H

#include "kernel/hrtimer.h"

#define DIGIT_BITS  5
#define DIGIT_MASK  31u
#define LEVELS_MASK ((1u << HRTIMER_LEVELS) - 1)

static inline unsigned int digit(uint64_t time, unsigned int level)
{
	return (unsigned int)(time >> (level * DIGIT_BITS)) & DIGIT_MASK;
}

/* The row of a level that is in use. */
static inline unsigned int row_of(const struct hrtimer_base *base, unsigned int level)
{
	return level + (base->sides >> level & 1 ? HRTIMER_LEVELS : 0);
}

/* The other one, for a slot moved ahead. */
static inline unsigned int prepared_row(const struct hrtimer_base *base, unsigned int level)
{
	return level + (base->sides >> level & 1 ? 0 : HRTIMER_LEVELS);
}

/* A bit for each level whose row in use holds timers. */
static inline uint32_t used_levels(const struct hrtimer_base *base)
{
	return (base->rows & ~base->sides & LEVELS_MASK) |
	       (base->rows >> HRTIMER_LEVELS & base->sides);
}

/* A bit for each level that has a slot whose timers are prepared, a level below. */
static inline uint32_t ahead_levels(const struct hrtimer_base *base)
{
	return ((base->rows & base->sides) | (base->rows >> HRTIMER_LEVELS & ~base->sides)) << 1;
}

/* For a time not before the cursor. */
static inline unsigned int list_of(const struct hrtimer_base *base, uint64_t time)
{
	uint64_t differ = (time ^ base->cursor) | 1;
	unsigned int level = (63 - (unsigned int)__builtin_clzll(differ)) / DIGIT_BITS;

	return row_of(base, level) * HRTIMER_SLOTS + digit(time, level);
}

/* The time at which a slot begins: the digits of the cursor above it, zeros below. */
static inline uint64_t slot_start(uint64_t cursor, unsigned int level, unsigned int slot)
{
	unsigned int shift = level * DIGIT_BITS;

	return (cursor >> shift & ~(uint64_t)DIGIT_MASK) << shift |
	       (uint64_t)slot << shift;
}

#endif
