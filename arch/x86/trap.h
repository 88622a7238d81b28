/* SPDX-License-Identifier: MIT */
/*
 * Interrupts and exceptions: descriptor tables and who handles which vector.
 */
#ifndef ARCH_X86_TRAP_H
#define ARCH_X86_TRAP_H

#include <stdint.h>

#include "arch/x86/paging.h"

#define TRAP_EXCEPTIONS	    32 /* vectors 0 to 31 belong to the CPU */
#define VECTOR_NMI	    2
#define VECTOR_DOUBLE_FAULT 8
#define VECTOR_PAGE_FAULT   14
#define VECTOR_TIMER	    0x40
#define VECTOR_WAKE	    0x41
#define VECTOR_ERROR	    0xfe
#define VECTOR_SPURIOUS	    0xff /* low bits all ones: SDM vol 3, 11.9 */

/*
 * What is on the stack when trap_entry() runs, lowest address first. The stubs
 * in entry.asm build it, the last five words are the CPU's (AMD APM vol 2, 8.9).
 */
struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7]; /* ist[0] is IST 1 */
	uint64_t reserved2;
	uint16_t reserved3, io_map;
} __attribute__((packed));

/* What each CPU has of its own. */
struct trap_cpu {
	uint64_t gdt[5]; /* null, code, data, and the TSS in two words */
	struct tss tss;
};

/* The stacks of #DF and #PF, and of NMI, that do not trust the one in use. */
struct trap_stacks {
	uint8_t fault_guard[PAGE_SIZE], fault[PAGE_SIZE];
	uint8_t nmi_guard[PAGE_SIZE], nmi[PAGE_SIZE];
} __attribute__((aligned(PAGE_SIZE)));

typedef void (*trap_handler)(struct trap_frame *frame);

/*
 * Makes `t`, zeroed, this CPU's tables and loads them. Interrupts off; call once on
 * each CPU.
 */
void trap_init(struct trap_cpu *t, struct trap_stacks *stacks);

/*
 * Makes `handler` answer `vector` (0 to 255; vectors without a stub in
 * entry.asm never arrive). Handlers run with interrupts off on the interrupted
 * stack, #DF, #PF and NMI on their own. Returning resumes what was interrupted.
 */
void trap_handle(unsigned int vector, trap_handler handler);

#endif
