// SPDX-License-Identifier: MIT
/*
 * Page tables: one to one, as boot/start.asm made them, in pages of 2 MiB up to 4 GiB,
 * but for the first 2 MiB, which have pages of 4 KiB: code, constants and stacks are
 * there. Formats: Intel SDM vol 3, 4.5 (entries), 4.7 (error code).
 */
#include "arch/x86/paging.h"

#define PRESENT	   (1ull << 0)
#define WRITE	   (1ull << 1)
#define NO_EXECUTE (1ull << 63)

#define ERROR_PRESENT (1u << 0)
#define ERROR_FETCH   (1u << 4)

#define ENTRIES 512ull

/* boot/start.asm: the root, and the page directories of 4 GiB, one behind the other */
extern uint64_t pml4[], page_dirs[4 * ENTRIES];

/* linker.ld */
extern const char text_start[], text_end[], rodata_end[];

static uint64_t table[ENTRIES] __attribute__((aligned(PAGE_SIZE)));

static uint64_t rights(uintptr_t address)
{
	if (address == 0)
		return 0;
	if (address >= (uintptr_t)text_start && address < (uintptr_t)text_end)
		return PRESENT;
	if (address >= (uintptr_t)text_end && address < (uintptr_t)rodata_end)
		return PRESENT | NO_EXECUTE;
	return PRESENT | WRITE | NO_EXECUTE;
}

void paging_init(void)
{
	for (uint64_t i = 0; i < ENTRIES; i++)
		table[i] = i * PAGE_SIZE | rights(i * PAGE_SIZE);
	page_dirs[0] = (uintptr_t)table | PRESENT | WRITE;
	for (uint64_t i = 1; i < 4 * ENTRIES; i++)
		page_dirs[i] |= NO_EXECUTE;
	__asm__ volatile("movq %0, %%cr3" : : "r"(pml4) : "memory");
}

void paging_unmap(void *page)
{
	table[(uintptr_t)page / PAGE_SIZE] = 0;
	__asm__ volatile("invlpg (%0)" : : "r"(page) : "memory");
}

const char *paging_fault(uint64_t error, uint64_t address)
{
	if (error & ERROR_PRESENT)
		return error & ERROR_FETCH ? ": execution of data"
					   : ": write to read-only memory";
	if (address < PAGE_SIZE)
		return ": null pointer";
	return address < ENTRIES * PAGE_SIZE ? ": guard page below a stack"
					     : ": nothing mapped";
}
