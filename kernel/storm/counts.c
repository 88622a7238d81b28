// SPDX-License-Identifier: MIT
/*
 * Reading the exit counters: KVM_HC_EXIT_COUNTS where the host has it, else what
 * we know ourselves, which is how often we wrote the deadline.
 */
#include "kernel/storm/counts.h"

#include "drivers/kvm.h"
#include "kernel/cpu.h"

void counts_read(struct counts *counts)
{
	uint64_t buffer[COUNTS]; /* where it lies is its physical address, too */
	int64_t size = kvm_hypercall(KVM_HC_EXIT_COUNTS, (uintptr_t)buffer,
				     sizeof(buffer));

	*counts = (struct counts){ .from_host = size >= 0 };
	if (size < 0) {
		counts->known[COUNT_TSC_DEADLINE] = true;
		counts->value[COUNT_TSC_DEADLINE] =
			this_cpu()->clockevent.deadline.timer.writes;
		return;
	}
	for (uint64_t i = 0; i < COUNTS && (i + 1) * 8 <= (uint64_t)size; i++) {
		counts->known[i] = true;
		counts->value[i] = buffer[i];
	}
}

void counts_add(struct counts *sum, const struct counts *part)
{
	sum->from_host = sum->from_host && part->from_host;
	for (unsigned int i = 0; i < COUNTS; i++) {
		sum->known[i] = sum->known[i] && part->known[i];
		sum->value[i] += part->value[i];
	}
}

void counts_subtract(struct counts *result, const struct counts *after,
		     const struct counts *before)
{
	result->from_host = after->from_host;
	for (unsigned int i = 0; i < COUNTS; i++) {
		result->known[i] = after->known[i] && before->known[i];
		result->value[i] = after->value[i] - before->value[i];
	}
}
