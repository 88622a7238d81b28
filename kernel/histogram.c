// SPDX-License-Identifier: MIT
/*
 * Log-linear buckets: values below 64 have one each; from there on the highest
 * bit chooses the group and the six bits below it the bucket in the group.
 */
#include "kernel/histogram.h"

#define SUB_BITS 6

static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < HISTOGRAM_SUB)
		return (unsigned int)value;
	shift = 63 - SUB_BITS - (unsigned int)__builtin_clzll(value);
	return shift * HISTOGRAM_SUB + (unsigned int)(value >> shift);
}

static uint64_t bucket_end(unsigned int bucket)
{
	unsigned int shift;
	uint64_t start;

	if (bucket < 2 * HISTOGRAM_SUB)
		return bucket;
	shift = bucket / HISTOGRAM_SUB - 1;
	start = (uint64_t)(bucket % HISTOGRAM_SUB + HISTOGRAM_SUB) << shift;
	return start + ((1ull << shift) - 1);
}

void histogram_clear(struct histogram *h)
{
	*h = (struct histogram){ 0 };
}

void histogram_add(struct histogram *h, uint64_t value)
{
	h->count++;
	h->buckets[bucket_of(value)]++;
	if (value > h->max)
		h->max = value;
}

void histogram_merge(struct histogram *h, const struct histogram *from)
{
	h->count += from->count;
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++)
		h->buckets[i] += from->buckets[i];
	if (from->max > h->max)
		h->max = from->max;
}

uint64_t histogram_quantile(const struct histogram *h, unsigned int share)
{
	/* rounded up */
	uint64_t rank = (h->count * share + HISTOGRAM_ALL - 1) / HISTOGRAM_ALL;
	uint64_t seen = 0, end;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen && seen >= rank) {
			end = bucket_end(i);
			return end < h->max ? end : h->max;
		}
	}
	return 0;
}
