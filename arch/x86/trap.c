// SPDX-License-Identifier: MIT
/*
 * Descriptor tables and the dispatch of interrupts and exceptions.
 *
 * Segments do nothing in long mode, but the CPU wants a code segment, a TSS for
 * the stacks of #DF, #PF and NMI, and an IDT. Formats: Intel SDM vol 3, 3.4.5, 6.14.1
 * and 8.7.
 */
#include "arch/x86/trap.h"

#include "arch/x86/cpu.h"

#define SEL_CODE 0x08
#define SEL_TSS	 0x18

#define IST_FAULT 1
#define IST_NMI	  2

#define GATE_INTERRUPT 0x8e /* present, ring 0, interrupts off on entry */

struct gate {
	uint16_t low, selector;
	uint8_t ist, type;
	uint16_t middle;
	uint32_t high, reserved;
};

struct table_pointer {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

struct trap_stub {
	uint64_t vector, address;
};

/* entry.asm */
extern const struct trap_stub trap_stubs[], trap_stubs_end[];
void load_tables(const struct table_pointer *gdt,
		 const struct table_pointer *idt, uint16_t tss);
void trap_entry(struct trap_frame *frame);
extern const char cpu_wait_hlt[];

#define HLT_LENGTH 1

static struct gate idt[256];
static trap_handler handlers[256];

static void gdt_fill(struct trap_cpu *t, struct trap_stacks *stacks)
{
	uint64_t base = (uintptr_t)&t->tss;

	t->tss.io_map = sizeof(t->tss);
	/* Stacks grow down: each begins where its array ends. */
	t->tss.ist[IST_FAULT - 1] = (uintptr_t)(&stacks->fault + 1);
	t->tss.ist[IST_NMI - 1] = (uintptr_t)(&stacks->nmi + 1);

	t->gdt[1] = 0x00209a0000000000; /* 64-bit code */
	t->gdt[2] = 0x0000920000000000; /* data */
	t->gdt[3] = (sizeof(t->tss) - 1) | (base & 0xffffff) << 16 |
		    0x89ull << 40 | (base >> 24 & 0xff) << 56;
	t->gdt[4] = base >> 32;
}

static uint8_t ist_of(uint64_t vector)
{
	if (vector == VECTOR_DOUBLE_FAULT || vector == VECTOR_PAGE_FAULT)
		return IST_FAULT;
	return vector == VECTOR_NMI ? IST_NMI : 0;
}

static void idt_fill(void)
{
	for (const struct trap_stub *s = trap_stubs; s < trap_stubs_end; s++)
		idt[s->vector] = (struct gate){
			.low = (uint16_t)s->address,
			.middle = (uint16_t)(s->address >> 16),
			.high = (uint32_t)(s->address >> 32),
			.selector = SEL_CODE,
			.ist = ist_of(s->vector),
			.type = GATE_INTERRUPT,
		};
}

void trap_init(struct trap_cpu *t, struct trap_stacks *stacks)
{
	const struct table_pointer g = { sizeof(t->gdt) - 1, (uintptr_t)t->gdt };
	const struct table_pointer i = { sizeof(idt) - 1, (uintptr_t)idt };

	gdt_fill(t, stacks);
	idt_fill(); /* all CPUs' is the same: filling it again changes nothing */
	load_tables(&g, &i, SEL_TSS);
}

void trap_handle(unsigned int vector, trap_handler handler)
{
	handlers[vector] = handler;
}

/* Called by entry.asm for every interrupt and exception, interrupts off. */
void trap_entry(struct trap_frame *frame)
{
	trap_handler handler = handlers[frame->vector];

	if (!handler)
		cpu_stop(); /* nobody to tell: main installs all of them first */
	handler(frame);
	if (frame->rip == (uintptr_t)cpu_wait_hlt)
		frame->rip += HLT_LENGTH;
}
