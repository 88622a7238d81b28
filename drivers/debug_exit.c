// SPDX-License-Identifier: MIT
/*
 * isa-debug-exit at its customary port (QEMU hw/misc/debugexit.c).
 */
#include "drivers/debug_exit.h"

#include "arch/x86/cpu.h"

#define DEBUG_EXIT_PORT 0xf4
#define PVPANIC_PORT	0x505 /* QEMU docs/specs/pvpanic */
#define PVPANIC_PAUSE	1
#define NO_DEVICE	0xff

bool debug_pause(void)
{
	if (inb(PVPANIC_PORT) == NO_DEVICE)
		return false;
	outb(PVPANIC_PORT, PVPANIC_PAUSE);
	return true;
}

void debug_exit(enum exit_code code)
{
	outl(DEBUG_EXIT_PORT, code);
	/*
	 * With QEMU 10, not with 7, the machine ends a moment later, here or after the return,
	 * and nothing may be said meanwhile. The device reads as 0, an empty port does not.
	 */
	if (inb(DEBUG_EXIT_PORT) == 0)
		cpu_stop();
}
