// SPDX-License-Identifier: MIT
/*
 * The console collects text to whole lines, so that the serial driver can send
 * sixteen bytes at a time.
 */
#include "kernel/console.h"

#include "drivers/serial.h"
#include "kernel/print.h"

#define PRINT_SIZE     1024
#define CONSOLE_BUFFER 256

static char held[CONSOLE_BUFFER];
static unsigned int held_count;

void console_flush(void)
{
	unsigned int count = held_count;

	held_count = 0;
	serial_write(held, count);
}

static void put(char c)
{
	held[held_count++] = c;
	if (c == '\n' || held_count == CONSOLE_BUFFER)
		console_flush();
}

void print(const char *format, ...)
{
	static char text[PRINT_SIZE]; /* static: handlers have small stacks */
	va_list args;
	size_t size;

	va_start(args, format);
	size = print_va(text, sizeof(text), format, args);
	va_end(args);
	for (size_t i = 0; i < size; i++)
		put(text[i]);
}
