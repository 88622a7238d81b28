// SPDX-License-Identifier: MIT
/*
 * Reading the exit counters: KVM_HC_EXIT_COUNTS where the host has it, else what
 * we know ourselves, which is how often we wrote the deadline.
 */
#include "kernel/storm/counts.h"

#include "arch/x86/cpu.h"
#include "drivers/kvm.h"
#include "drivers/lapic.h"
#include "kernel/cpu.h"

const char *const count_keys[COUNTS] = {
	[COUNT_EXITS] = "exits",
	[COUNT_HALT] = "halt",
	[COUNT_MSR_WRITE] = "msr_write",
	[COUNT_TSC_DEADLINE] = "tsc_deadline",
	[COUNT_ICR] = "icr",
	[COUNT_PREEMPTION_TIMER] = "preemption_timer",
	[COUNT_EXTERNAL_INTERRUPT] = "external_interrupt",
	[COUNT_IO] = "io",
	[COUNT_HYPERCALL] = "hypercall",
	[COUNT_KICK] = "kick",
	[COUNT_REARM] = "rearm",
	[COUNT_CANCELLED] = "cancelled",
	[COUNT_HALT_SYNC] = "halt_sync",
	[COUNT_TIMER_INTERRUPT] = "timer_interrupt",
};

/* Interrupts are off, so that both counts are of one moment. */
void counts_read(struct counts *counts)
{
	uint64_t buffer[COUNTS]; /* where it lies is its physical address, too */
	bool interrupts = irq_enabled();
	int64_t size;

	irq_disable();
	size = kvm_hypercall(KVM_HC_EXIT_COUNTS, (uintptr_t)buffer,
			     sizeof(buffer));
	*counts = (struct counts){
		.from_host = size >= 0,
		.writes = this_cpu()->clockevent.deadline.timer.writes,
	};
	for (uint64_t i = 0; i < COUNTS && (int64_t)(i + 1) * 8 <= size; i++) {
		counts->known[i] = true;
		counts->value[i] = buffer[i];
	}
	if (interrupts)
		irq_enable();
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
	uint64_t writes = after->writes - before->writes;
	uint64_t writes_by_host = after->value[COUNT_TSC_DEADLINE] -
				  before->value[COUNT_TSC_DEADLINE];

	*result = (struct counts){
		.writes = writes,
		.from_host = after->from_host && before->from_host &&
			     (!lapic.tsc_deadline || writes == writes_by_host),
	};
	if (!result->from_host) {
		result->known[COUNT_TSC_DEADLINE] = true;
		result->value[COUNT_TSC_DEADLINE] = writes;
		return;
	}
	for (unsigned int i = 0; i < COUNTS; i++) {
		result->known[i] = after->known[i] && before->known[i];
		result->value[i] = after->value[i] - before->value[i];
	}
}
