/* SPDX-License-Identifier: MIT */
/*
 * The other CPUs: how they are started, given work and woken.
 *
 * Nothing here is on the timer path: each CPU has its own wheel, clock event and
 * lazy area, and no other CPU touches them.
 */
#ifndef KERNEL_SMP_H
#define KERNEL_SMP_H

#include <stdbool.h>

#include "kernel/cpu.h"

/*
 * Makes the first CPU, which calls it before anything else, CPU 0: its per-CPU data
 * and its trap tables. Interrupts off.
 */
void smp_first_cpu(void);

/*
 * The per-CPU part of starting, after lapic_init() or lapic_enable(): clock event and,
 * if wanted, PV EOI. Interrupts off.
 */
void smp_cpu_ready(void);

/*
 * How many CPUs ACPI tells of, at least 1; at most CPUS_MAX are ever started. After
 * smp_start().
 */
unsigned int smp_present(void);

/*
 * Starts CPUs until `count` run, or as many as there are; returns how many run. `rsdp`
 * as for acpi_find_cpus(). On CPU 0, interrupts off, once. Panics if one that should be
 * there does not come.
 */
unsigned int smp_start(unsigned int count, uint64_t rsdp, bool pv_eoi);

/* How many run. */
unsigned int smp_count(void);

/*
 * Runs `function` on CPUs 0 to count - 1 at the same time, interrupts on, and returns
 * when all have done it. On CPU 0, interrupts on.
 */
void smp_call(unsigned int count, void (*function)(void));

/*
 * Runs `last` on each other CPU, which stops for good after it, and then on this one. On
 * CPU 0, interrupts on.
 */
void smp_retire(void (*last)(void));

/* Makes another CPU that is halted, or about to halt, go on. Interrupts off. */
void smp_wake(struct cpu *cpu);

/*
 * Sends every other CPU that was started an NMI, which panic.c makes it stop at. (One
 * that was not started is the firmware's, and might run anything.) Any context.
 */
void smp_stop_others(void);

/*
 * Returns when all of the `count` CPUs that smp_call() runs on have called it. Waits in
 * HLT. Interrupts on.
 */
void smp_meet(unsigned int count);

#endif
