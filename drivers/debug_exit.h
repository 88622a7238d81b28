/* SPDX-License-Identifier: MIT */
/*
 * Ends the machine through QEMU's isa-debug-exit device.
 */
#ifndef DRIVERS_DEBUG_EXIT_H
#define DRIVERS_DEBUG_EXIT_H

#include <stdbool.h>

/* QEMU's exit status is twice the code plus one: 33, 35, 37, 39. */
enum exit_code {
	EXIT_SUCCESS_CODE = 0x10,
	EXIT_FAILURE_CODE = 0x11,
	EXIT_PANIC_CODE = 0x12, /* boot/start.asm knows it too */
	EXIT_USAGE_CODE = 0x13, /* bad command line */
};

/*
 * Where there is QEMU's pvpanic device, has it pause the machine; whoever paused it lets
 * it go on, and this returns. QEMU calls that a panic: it is the one device by which a guest
 * can tell QEMU's client that its counters, and its memory, may be looked at. False where
 * there is none. Any context.
 */
bool debug_pause(void);

/*
 * Has the device end QEMU. Returns where there is no such device: the caller
 * then says so and stops. Any context.
 */
void debug_exit(enum exit_code code);

#endif
