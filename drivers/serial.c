// SPDX-License-Identifier: MIT
/*
 * 16550 output. Registers: National Semiconductor PC16550D, table II.
 *
 * Under a hypervisor each port access is an exit, and an expensive one. So a
 * whole FIFO goes out with one string instruction after one look at the status.
 */
#include "drivers/serial.h"

#include "arch/x86/cpu.h"

#define COM1 0x3f8

#define DATA	     (COM1 + 0) /* divisor low byte while LCR_DLAB */
#define IRQ_ENABLE   (COM1 + 1) /* divisor high byte while LCR_DLAB */
#define FIFO_CONTROL (COM1 + 2)
#define LINE_CONTROL (COM1 + 3)
#define LINE_STATUS  (COM1 + 5)

#define LCR_8N1	  0x03
#define LCR_DLAB  0x80
#define FCR_ON	  0x07 /* on, both FIFOs emptied */
#define LSR_EMPTY 0x20

#define FIFO_SIZE  16
#define WAIT_LOOPS 100000 /* 16 bytes take 1.4 ms; a port read about 1 us */

void serial_init(void)
{
	outb(IRQ_ENABLE, 0);
	outb(LINE_CONTROL, LCR_DLAB | LCR_8N1);
	outb(DATA, 1); /* 115200 / 1 */
	outb(IRQ_ENABLE, 0);
	outb(LINE_CONTROL, LCR_8N1);
	outb(FIFO_CONTROL, FCR_ON);
}

static void wait_empty(void)
{
	for (int i = 0; i < WAIT_LOOPS; i++)
		if (inb(LINE_STATUS) & LSR_EMPTY)
			return;
}

void serial_write(const char *bytes, size_t size)
{
	while (size > 0) {
		size_t part = size < FIFO_SIZE ? size : FIFO_SIZE;

		wait_empty();
		outs(DATA, bytes, part);
		bytes += part;
		size -= part;
	}
}
