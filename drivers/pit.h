/* SPDX-License-Identifier: MIT */
/*
 * The 8254 interval timer, used only to measure the TSC where nobody tells its
 * frequency.
 */
#ifndef DRIVERS_PIT_H
#define DRIVERS_PIT_H

#include <stdint.h>

/*
 * The TSC's frequency in Hz, measured over three times 20 ms of the PIT's; the
 * middle result, so that one disturbance does no harm. 0 if the PIT does not
 * count. Interrupts off.
 */
uint64_t pit_measure_tsc_hz(void);

#endif
