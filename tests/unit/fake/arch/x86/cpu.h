/* SPDX-License-Identifier: MIT */
/*
 * A fake CPU for hosted tests: what it does is a function of the test's. It stands
 * before the real header on the include path.
 */
#ifndef ARCH_X86_CPU_H
#define ARCH_X86_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define MSR_TSC_DEADLINE 0x000006e0

void wrmsr(uint32_t msr, uint64_t value);
uint64_t rdtsc(void);
uint64_t rdtsc_ordered(void);
void irq_disable(void);
void irq_enable(void);
void cpu_wait(void);
void *percpu_self(void);

static inline void compiler_barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

#endif
