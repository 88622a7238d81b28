/* SPDX-License-Identifier: MIT */
/*
 * A fake CPU for hosted tests: the MSR writes of the deadline modes go to a
 * function of the test. It stands before the real header on the include path.
 */
#ifndef ARCH_X86_CPU_H
#define ARCH_X86_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define MSR_TSC_DEADLINE 0x000006e0

void wrmsr(uint32_t msr, uint64_t value);

static inline void compiler_barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

#endif
