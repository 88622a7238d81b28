/* SPDX-License-Identifier: MIT */
/*
 * A log-linear histogram of 64-bit numbers: 64 buckets for each power of two, so
 * a value is known to one part in 64, and exactly below 128. Pure C.
 */
#ifndef KERNEL_HISTOGRAM_H
#define KERNEL_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB	  64
#define HISTOGRAM_BUCKETS (HISTOGRAM_SUB * 59)

struct histogram {
	uint64_t count, max;
	uint32_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *h);

/* Adds all that `from` has seen. */
void histogram_merge(struct histogram *h, const struct histogram *from);

/* Any value, any context; a bucket holds up to 2^32 - 1. */
void histogram_add(struct histogram *h, uint64_t value);

/*
 * The value that `share` (1 to 10,000 of HISTOGRAM_ALL) of all are not above: the upper
 * end of its bucket, but never more than the largest. 0 if there are none.
 */
#define HISTOGRAM_ALL 10000
uint64_t histogram_quantile(const struct histogram *h, unsigned int share);

#endif
