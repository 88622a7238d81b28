/* SPDX-License-Identifier: MIT */
/*
 * The storm's random numbers: splitmix64 (Steele, Lea, Flood 2014). Any seed will
 * do; equal seeds give equal storms.
 */
#ifndef KERNEL_STORM_RANDOM_H
#define KERNEL_STORM_RANDOM_H

#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* low to high, both included, low <= high; the range is far below 2^64. */
static inline uint64_t random_between(uint64_t *state, uint64_t low,
				      uint64_t high)
{
	return low + random_next(state) % (high - low + 1);
}

#endif
