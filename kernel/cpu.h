/* SPDX-License-Identifier: MIT */
/*
 * Per-CPU data: all that the timer path keeps is here, none of it in globals.
 */
#ifndef KERNEL_CPU_H
#define KERNEL_CPU_H

#include "arch/x86/cpu.h"
#include "arch/x86/trap.h"
#include "drivers/deadline.h"
#include "drivers/kvm.h"
#include "kernel/clockevent.h"
#include "kernel/hrtimer.h"

#define CPUS_MAX 16

struct cpu {
	struct cpu *self;    /* first: percpu_self() reads it */
	unsigned int number; /* 0: the one that the loader started */
	uint32_t lapic_id;
	struct hrtimer_base timers;
	struct clockevent clockevent;
	struct kvm_eoi eoi;
	struct trap_cpu trap;
	void (*_Atomic work)(void); /* what smp_call() wants of it */
} __attribute__((aligned(64)));

/* Of all CPUs there may be; smp_count() of them run. */
extern struct cpu cpus[CPUS_MAX];

/* This CPU's data. Interrupts off where it matters which CPU that is. */
static inline struct cpu *this_cpu(void)
{
	return percpu_self();
}

/* End of interrupt, without an exit where the host has a way. In the handler. */
static inline void cpu_eoi(struct cpu *cpu)
{
	if (!kvm_eoi_done(&cpu->eoi))
		lapic_write_eoi();
}

#endif
