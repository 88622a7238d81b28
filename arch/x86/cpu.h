/* SPDX-License-Identifier: MIT */
/*
 * What only the CPU knows, as inline functions: MSRs, CPUID, the time stamp
 * counter, port I/O, the interrupt flag.
 *
 * None of them checks anything: a wrong MSR number is a #GP. All may be called
 * in any context.
 */
#ifndef ARCH_X86_CPU_H
#define ARCH_X86_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* Numbers from the Intel SDM vol 4, table 2-2. */
#define MSR_APIC_BASE	 0x0000001b
#define MSR_TSC_ADJUST	 0x0000003b
#define MSR_TSC_DEADLINE 0x000006e0
#define MSR_X2APIC	 0x00000800
#define MSR_GS_BASE	 0xc0000101

struct cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_regs cpuid(uint32_t leaf)
{
	struct cpuid_regs r;

	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "a"(leaf), "c"(0));
	return r;
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"(msr), "a"((uint32_t)value),
			   "d"((uint32_t)(value >> 32))
			 : "memory");
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/*
 * The counter, read after everything before it in the program has completed:
 * RDTSC alone may run ahead (Intel SDM vol 2, RDTSC).
 */
static inline uint64_t rdtsc_ordered(void)
{
	__asm__ volatile("lfence" : : : "memory");
	return rdtsc();
}

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* Writes `count` bytes to one port; under a hypervisor one exit for all. */
static inline void outs(uint16_t port, const char *bytes, uint64_t count)
{
	__asm__ volatile("rep outsb"
			 : "+S"(bytes), "+c"(count)
			 : "d"(port)
			 : "memory");
}

static inline void irq_disable(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/*
 * The NOP is a place where an interrupt can be taken: STI holds interrupts back
 * for one more instruction, so STI directly followed by CLI would let none in
 * (Intel SDM vol 2, STI).
 */
static inline void irq_enable(void)
{
	__asm__ volatile("sti; nop" : : : "memory");
}

/* Whether interrupts are on: RFLAGS.IF (Intel SDM vol 1, 3.4.3). */
static inline bool irq_enabled(void)
{
	uint64_t rflags;

	__asm__ volatile("pushfq; popq %0" : "=r"(rflags) : : "memory");
	return rflags & 1u << 9;
}

/*
 * Sleeps until an interrupt and returns, after its handler, with interrupts off.
 * Call with interrupts off: STI lets none in before HLT has begun (Intel SDM vol
 * 2, STI), so one that arrives after the caller's last look cannot be slept
 * through. In entry.asm.
 */
void cpu_wait(void);

static inline void mfence(void)
{
	__asm__ volatile("mfence" : : : "memory");
}

/* Keeps the compiler, not the CPU, from moving memory accesses across it. */
static inline void compiler_barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

/* Stops this CPU for good. */
static inline _Noreturn void cpu_stop(void)
{
	for (;;)
		__asm__ volatile("cli; hlt" : : : "memory");
}

/* The pointer that the per-CPU area begins with: its own address. */
static inline void *percpu_self(void)
{
	void *self;

	__asm__ volatile("movq %%gs:0, %0" : "=r"(self));
	return self;
}

/* Makes `area`, whose first word is its own address, this CPU's. */
static inline void percpu_install(void *area)
{
	wrmsr(MSR_GS_BASE, (uint64_t)(uintptr_t)area);
}

#endif
