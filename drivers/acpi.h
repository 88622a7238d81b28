/* SPDX-License-Identifier: MIT */
/*
 * ACPI tables, as far as they say which CPUs there are.
 */
#ifndef DRIVERS_ACPI_H
#define DRIVERS_ACPI_H

#include <stdint.h>

/*
 * Stores the LAPIC ids of the enabled CPUs, at most `most`, in the table's order;
 * returns how many there are, 0 where there is no usable table. `rsdp`: its physical
 * address where a loader gave one, else 0: it is looked for where a BIOS leaves it.
 * Reads memory below 4 GiB only.
 */
unsigned int acpi_find_cpus(uint64_t rsdp, uint32_t *ids, unsigned int most);

#endif
