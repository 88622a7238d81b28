// SPDX-License-Identifier: MIT
/*
 * Local APIC set-up and the one-shot fallback. Register offsets and bits: Intel
 * SDM vol 3, table 11-1; as MSRs they are 0x800 + offset / 16 (11.12.1.2).
 */
#include "drivers/lapic.h"

#include "arch/x86/trap.h"
#include "drivers/lapic_faults.h"
#include "drivers/scale.h"
#include "drivers/tsc.h"

#define CPUID1_ECX_X2APIC	(1u << 21)
#define CPUID1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID1_EDX_APIC		(1u << 9)

#define APIC_BASE_X2APIC  (1u << 10)
#define APIC_BASE_ENABLE  (1u << 11)
#define APIC_BASE_ADDRESS 0xfffff000

#define REG_ID		  0x020
#define REG_TPR		  0x080
#define REG_EOI		  0x0b0
#define REG_SPURIOUS	  0x0f0
#define REG_ISR		  0x100 /* and seven more */
#define REG_IRR		  0x200
#define REG_ESR		  0x280
#define REG_ICR		  0x300
#define REG_ICR_HIGH	  0x310
#define REG_LVT_TIMER	  0x320
#define REG_LVT_LINT0	  0x350
#define REG_LVT_LINT1	  0x360
#define REG_LVT_ERROR	  0x370
#define REG_INITIAL_COUNT 0x380
#define REG_CURRENT_COUNT 0x390
#define REG_DIVIDE	  0x3e0

#define SPURIOUS_ENABLE	 (1u << 8)
#define LVT_MASKED	 (1u << 16)
#define LVT_PERIODIC	 (1u << 17)
#define LVT_TSC_DEADLINE (2u << 17)
#define ICR_NMI		 (4u << 8)
#define ICR_INIT	 (5u << 8)
#define ICR_STARTUP	 (6u << 8)
#define ICR_PENDING	 (1u << 12)
#define ICR_ASSERT	 (1u << 14)
#define DIVIDE_BY_1	 0x0b
#define LARGEST_COUNT	 0xffffffffu

#define PIC1_DATA 0x21
#define PIC2_DATA 0xa1

#define CALIBRATE_NS 10000000
#define INIT_NS	     10000000 /* both waits: SDM vol 3, 9.4.4.1 */
#define STARTUP_NS   200000

struct lapic lapic;

static uintptr_t mmio;	      /* register base where not x2APIC */
static struct scale to_ticks; /* TSC cycles to one-shot ticks */

static uint32_t reg_read(unsigned int reg)
{
	if (lapic.x2apic)
		return (uint32_t)rdmsr(MSR_X2APIC + reg / 16);
	return *(volatile uint32_t *)(mmio + reg);
}

static void reg_write(unsigned int reg, uint32_t value)
{
	if (lapic.x2apic)
		wrmsr(MSR_X2APIC + reg / 16, value);
	else
		*(volatile uint32_t *)(mmio + reg) = value;
}

static void enable(void)
{
	uint64_t base = rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE;

	mmio = base & APIC_BASE_ADDRESS;
	wrmsr(MSR_APIC_BASE, base); /* x2APIC is entered from enabled only */
	if (lapic.x2apic)
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
	reg_write(REG_SPURIOUS, SPURIOUS_ENABLE | VECTOR_SPURIOUS);
	reg_write(REG_TPR, 0);
	reg_write(REG_LVT_LINT0, LVT_MASKED);
	reg_write(REG_LVT_LINT1, LVT_MASKED);
	reg_write(REG_LVT_ERROR, VECTOR_ERROR);
	lapic_read_errors();
}

/*
 * Ticks of the down counter for each cycle of the TSC, by letting both run for
 * 10 ms. False if the counter stands still.
 */
static bool calibrate(void)
{
	uint64_t start, cycles;
	uint32_t ticks;

	reg_write(REG_DIVIDE, DIVIDE_BY_1);
	reg_write(REG_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	reg_write(REG_INITIAL_COUNT, LARGEST_COUNT);
	start = rdtsc_ordered();
	do
		cycles = rdtsc_ordered() - start;
	while (cycles < tsc_from_ns(CALIBRATE_NS));
	ticks = LARGEST_COUNT - reg_read(REG_CURRENT_COUNT);
	reg_write(REG_INITIAL_COUNT, 0);
	to_ticks = scale_make(ticks, cycles);
	return ticks != 0;
}

static void timer_on(void)
{
	if (!lapic.tsc_deadline) {
		reg_write(REG_DIVIDE, DIVIDE_BY_1);
		reg_write(REG_LVT_TIMER, VECTOR_TIMER);
		return;
	}
	reg_write(REG_LVT_TIMER, LVT_TSC_DEADLINE | VECTOR_TIMER);
	mfence(); /* before the first deadline: SDM vol 3, 11.5.4.1 */
}

void lapic_enable(void)
{
	enable();
	timer_on();
}

bool lapic_init(void)
{
	struct cpuid_regs features = cpuid(1);

	if (!(features.edx & CPUID1_EDX_APIC))
		return false;
	lapic.x2apic = features.ecx & CPUID1_ECX_X2APIC;
	lapic.tsc_deadline = features.ecx & CPUID1_ECX_TSC_DEADLINE;
	outb(PIC1_DATA, 0xff);
	outb(PIC2_DATA, 0xff);
	enable();
	if (!lapic.tsc_deadline && !calibrate())
		return false;
	timer_on();
	return true;
}

void lapic_write_eoi(void)
{
	reg_write(REG_EOI, 0);
}

uint32_t lapic_id(void)
{
	uint32_t id = reg_read(REG_ID);

	return lapic.x2apic ? id : id >> 24;
}

/* One write in x2APIC mode; else two, and the first not before the last is sent. */
static void send(uint32_t id, uint32_t what)
{
	if (lapic.x2apic) {
		wrmsr(MSR_X2APIC + REG_ICR / 16, (uint64_t)id << 32 | what);
		return;
	}
	while (reg_read(REG_ICR) & ICR_PENDING)
		;
	reg_write(REG_ICR_HIGH, id << 24);
	reg_write(REG_ICR, what);
}

void lapic_ipi(uint32_t id, unsigned int vector)
{
	mfence(); /* a WRMSR to the x2APIC may overtake stores: SDM vol 3, 11.12.3 */
	send(id, ICR_ASSERT | vector);
}

static void wait_ns(uint64_t ns)
{
	uint64_t end = rdtsc() + tsc_from_ns(ns);

	while (rdtsc() < end)
		;
}

void lapic_start_cpu(uint32_t id, uint32_t page)
{
	mfence();
	send(id, ICR_ASSERT | ICR_INIT);
	wait_ns(INIT_NS);
	send(id, ICR_ASSERT | ICR_STARTUP | page >> 12);
	wait_ns(STARTUP_NS);
	send(id, ICR_ASSERT | ICR_STARTUP | page >> 12);
}

void lapic_nmi(uint32_t id)
{
	send(id, ICR_ASSERT | ICR_NMI);
}

uint32_t lapic_read_errors(void)
{
	reg_write(REG_ESR, 0); /* latches what was collected */
	return reg_read(REG_ESR);
}

/*
 * One tick more than the cycles come to, so that rounding is never early; what
 * does not fit the 32-bit counter interrupts early and is programmed again.
 */
void lapic_oneshot(uint64_t deadline)
{
	uint64_t now = rdtsc(), ticks = 0;

	if (deadline)
		ticks = 1;
	if (deadline > now)
		ticks += scale_apply(to_ticks, deadline - now);
	reg_write(REG_INITIAL_COUNT,
		  ticks < LARGEST_COUNT ? (uint32_t)ticks : LARGEST_COUNT);
}

void lapic_timer_mask(bool masked)
{
	reg_write(REG_LVT_TIMER, (lapic.tsc_deadline ? LVT_TSC_DEADLINE : 0) |
					 (masked ? LVT_MASKED : 0) | VECTOR_TIMER);
}

void lapic_timer_other_mode(uint32_t ticks)
{
	reg_write(REG_INITIAL_COUNT, 0); /* a short one, periodic, is too much for QEMU */
	reg_write(REG_LVT_TIMER, (lapic.tsc_deadline ? 0 : LVT_PERIODIC) | VECTOR_TIMER);
	reg_write(REG_DIVIDE, DIVIDE_BY_1);
	reg_write(REG_INITIAL_COUNT, ticks);
}

void lapic_timer_usual_mode(void)
{
	reg_write(REG_INITIAL_COUNT, 0);
	timer_on();
}

void lapic_software_enable(bool on)
{
	reg_write(REG_SPURIOUS, (on ? SPURIOUS_ENABLE : 0) | VECTOR_SPURIOUS);
	if (!on)
		return;
	reg_write(REG_LVT_ERROR, VECTOR_ERROR);
	timer_on();
}

/* 32 vectors to a register, which are 16 bytes apart. */
static bool vector_bit(unsigned int reg, unsigned int vector)
{
	return reg_read(reg + vector / 32 * 16) >> vector % 32 & 1;
}

bool lapic_requested(unsigned int vector)
{
	return vector_bit(REG_IRR, vector);
}

bool lapic_in_service(unsigned int vector)
{
	return vector_bit(REG_ISR, vector);
}
