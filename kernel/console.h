/* SPDX-License-Identifier: MIT */
/*
 * Text for people and programs on the serial line.
 */
#ifndef KERNEL_CONSOLE_H
#define KERNEL_CONSOLE_H

/*
 * Prints formatted text (kernel/print.h), cut after 1,023 characters. Held back
 * until a line is complete, or CONSOLE_BUFFER is full. Any context; an interrupt
 * handler that prints may cut another line in two.
 */
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);

/* Sends what is held back. */
void console_flush(void);

#endif
