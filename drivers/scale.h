/* SPDX-License-Identifier: MIT */
/*
 * Multiplication by a fraction, exact to 128 bits: how cycles become
 * nanoseconds or timer ticks and back. Pure arithmetic.
 */
#ifndef DRIVERS_SCALE_H
#define DRIVERS_SCALE_H

#include <stdint.h>

/* The factor mul / 2^shift; shift is 0 to 63. */
struct scale {
	uint64_t mul;
	unsigned int shift;
};

/*
 * The factor to / from, neither of them 0. It is too small by at most from / 2^62
 * of its value: for 10 GHz that is one second in fourteen years.
 */
static inline struct scale scale_make(uint64_t to, uint64_t from)
{
	unsigned int shift = 0;

	while (shift < 63 && !(to << shift >> 63))
		shift++;
	return (struct scale){ (to << shift) / from, shift };
}

/* value * factor, rounded down; the largest number where it would not fit. */
static inline uint64_t scale_apply(struct scale s, uint64_t value)
{
	unsigned __int128 product = (unsigned __int128)value * s.mul >> s.shift;

	return product >> 64 ? UINT64_MAX : (uint64_t)product;
}

#endif
