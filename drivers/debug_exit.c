// SPDX-License-Identifier: MIT
/*
 * isa-debug-exit at its customary port (QEMU hw/misc/debugexit.c).
 */
#include "drivers/debug_exit.h"

#include "arch/x86/cpu.h"

#define DEBUG_EXIT_PORT 0xf4

void debug_exit(enum exit_code code)
{
	outl(DEBUG_EXIT_PORT, code);
}
