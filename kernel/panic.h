/* SPDX-License-Identifier: MIT */
/*
 * How the guest ends: on purpose, or in a panic.
 */
#ifndef KERNEL_PANIC_H
#define KERNEL_PANIC_H

#include <stdbool.h>

#include "drivers/debug_exit.h"

/*
 * Turns the deadline mode off, so that the host no longer looks at our memory,
 * and ends the machine; where nothing ends it, says so and halts. Any context.
 */
_Noreturn void machine_end(enum exit_code code);

/* Prints "PANIC: " and the text, then ends the machine. Any context. */
__attribute__((format(printf, 1, 2))) _Noreturn void panic(const char *format,
							   ...);

/* Whether this or another CPU is in a panic: an NMI comes from it, and ends this CPU. */
bool panic_has_begun(void);

/* Makes every exception end in a panic that shows all registers. Call once. */
void panic_catch_exceptions(void);

#endif
