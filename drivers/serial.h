/* SPDX-License-Identifier: MIT */
/*
 * The first serial port, a 16550: output only.
 */
#ifndef DRIVERS_SERIAL_H
#define DRIVERS_SERIAL_H

#include <stddef.h>

/* 115200 baud, eight bits, FIFO on, no interrupts. Call once. */
void serial_init(void);

/*
 * Sends `size` bytes as they are: no carriage return is added, since what reads
 * this line is a file or a terminal that adds its own. Any context. Where no port
 * answers the bytes are dropped, it never hangs.
 */
void serial_write(const char *bytes, size_t size);

#endif
