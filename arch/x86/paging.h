/* SPDX-License-Identifier: MIT */
/*
 * What may be done where in memory: nothing can be both written and executed.
 */
#ifndef ARCH_X86_PAGING_H
#define ARCH_X86_PAGING_H

#include <stdint.h>

#define PAGE_SIZE 4096

/*
 * Takes from the pages of boot/start.asm what they need not allow: code can be read and
 * executed, constants read, all else read and written, and address 0 nothing. On CPU 0,
 * before other CPUs run.
 */
void paging_init(void);

/* Takes the page that begins at `page`, below 2 MiB, out altogether. As paging_init(). */
void paging_unmap(void *page);

/* What a page fault was, to be read behind its name: by its error code and address. */
const char *paging_fault(uint64_t error, uint64_t address);

#endif
