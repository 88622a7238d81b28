// SPDX-License-Identifier: MIT
/*
 * Measures the TSC with channel 2 of the 8254, whose gate and output are bits of
 * port 0x61 and which nothing else uses (Intel 8254 data sheet, mode 0).
 */
#include "drivers/pit.h"

#include "arch/x86/cpu.h"

#define PIT_HZ	     1193182
#define PIT_CHANNEL2 0x42
#define PIT_CONTROL  0x43
#define PIT_MODE0_C2 0xb0 /* channel 2, low then high byte, count down once */

#define PORT_B	     0x61
#define PORT_B_GATE2 0x01
#define PORT_B_SPEAK 0x02
#define PORT_B_OUT2  0x20

#define MEASURE_TICKS (PIT_HZ / 50)
#define GIVE_UP_LOOPS 10000000

/* TSC cycles while the PIT counts MEASURE_TICKS down to 0; 0 if it never does. */
static uint64_t measure_once(void)
{
	uint8_t port_b = inb(PORT_B) & ~(PORT_B_SPEAK | PORT_B_GATE2);
	uint64_t start;

	outb(PORT_B, port_b | PORT_B_GATE2);
	outb(PIT_CONTROL, PIT_MODE0_C2);
	outb(PIT_CHANNEL2, MEASURE_TICKS & 0xff);
	outb(PIT_CHANNEL2, MEASURE_TICKS >> 8);
	if (inb(PORT_B) & PORT_B_OUT2)
		return 0; /* counting has begun, the output is low: no such port */
	start = rdtsc_ordered();
	for (int i = 0; i < GIVE_UP_LOOPS; i++)
		if (inb(PORT_B) & PORT_B_OUT2)
			return rdtsc_ordered() - start;
	return 0;
}

static uint64_t middle(uint64_t a, uint64_t b, uint64_t c)
{
	if (a > b)
		return middle(b, a, c);
	return c < a ? a : c > b ? b : c;
}

uint64_t pit_measure_tsc_hz(void)
{
	uint64_t a = measure_once();
	uint64_t b = measure_once();
	uint64_t c = measure_once();

	return middle(a, b, c) * PIT_HZ / MEASURE_TICKS;
}
