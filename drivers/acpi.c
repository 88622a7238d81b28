// SPDX-License-Identifier: MIT
/*
 * From the root pointer to the MADT. ACPI Specification 6.5: 5.2.5 (RSDP), 5.2.6
 * (header), 5.2.7 (RSDT), 5.2.8 (XSDT), 5.2.12 (MADT).
 */
#include "drivers/acpi.h"

#include <stdbool.h>
#include <stddef.h>

#define EBDA_LOWEST 0x20000 /* what is lower is no EBDA, but chance */
#define EBDA_SIZE   1024
#define BIOS_START  0xe0000
#define BIOS_END    0x100000
#define RSDP_ALIGN  16
#define RSDP_SUMMED 20 /* bytes of revision 0; the rest has a sum of its own */

#define SIGNATURE_APIC 0x43495041 /* "APIC" */

#define ENTRY_LAPIC  0
#define ENTRY_X2APIC 9
#define CPU_ENABLED  1u

/* boot/start.asm: the EBDA's address / 16, as the BIOS left it */
extern const uint16_t bios_ebda;

struct rsdp {
	char signature[8];
	uint8_t sum;
	char oem[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
} __attribute__((packed));

struct header {
	uint32_t signature;
	uint32_t length;
	uint8_t revision, sum;
	char rest[26];
} __attribute__((packed));

struct madt_entry {
	uint8_t type, length;
	union {
		struct {
			uint8_t processor, id;
			uint32_t flags;
		} __attribute__((packed)) lapic;
		struct {
			uint16_t reserved;
			uint32_t id, flags;
		} __attribute__((packed)) x2apic;
	};
} __attribute__((packed));

#define MADT_ENTRIES (sizeof(struct header) + 8)

static bool sums_to_zero(const void *from, size_t size)
{
	const uint8_t *bytes = from;
	uint8_t sum = 0;

	while (size--)
		sum += *bytes++;
	return sum == 0;
}

/* The compiler takes an address that it knows to be low for NULL's neighbour. */
static const void *at(uint64_t address)
{
	__asm__("" : "+r"(address));
	return (const void *)(uintptr_t)address;
}

static bool is_rsdp(const struct rsdp *r)
{
	static const char expected[8] = "RSD PTR ";

	for (unsigned int i = 0; i < sizeof(expected); i++)
		if (r->signature[i] != expected[i])
			return false;
	return sums_to_zero(r, RSDP_SUMMED);
}

static const struct rsdp *search(uint64_t from, uint64_t end)
{
	for (; from < end; from += RSDP_ALIGN)
		if (is_rsdp(at(from)))
			return at(from);
	return NULL;
}

static const struct rsdp *find_rsdp(void)
{
	uint64_t ebda = (uint64_t)bios_ebda << 4;
	const struct rsdp *found = NULL;

	if (ebda >= EBDA_LOWEST)
		found = search(ebda, ebda + EBDA_SIZE);
	return found ? found : search(BIOS_START, BIOS_END);
}

/* A table in the part of memory that is mapped, whole; else NULL. */
static const struct header *table_at(uint64_t address)
{
	const struct header *h = at(address);

	if (!address || address >> 32 || h->length < sizeof(*h) ||
	    !sums_to_zero(h, h->length))
		return NULL;
	return h;
}

/* The table among those that the root table lists, by `wide` or narrow address. */
static const struct header *find_in(const struct header *root, bool wide,
				    uint32_t signature)
{
	const uint32_t *word = (const void *)(root + 1);
	size_t count = (root->length - sizeof(*root)) / (wide ? 8 : 4);

	for (size_t i = 0; i < count; i++) {
		uint64_t address = wide ? word[2 * i] | (uint64_t)word[2 * i + 1] << 32 : word[i];
		const struct header *h = table_at(address);

		if (h && h->signature == signature)
			return h;
	}
	return NULL;
}

static const struct header *find_madt(const struct rsdp *r)
{
	bool wide = r->revision >= 2 && r->xsdt;
	const struct header *root = table_at(wide ? r->xsdt : r->rsdt);

	return root ? find_in(root, wide, SIGNATURE_APIC) : NULL;
}

/* Whether the entry is a CPU that can be used; its LAPIC id. */
static bool usable_cpu(const struct madt_entry *e, uint32_t *id)
{
	if (e->type == ENTRY_LAPIC) {
		*id = e->lapic.id;
		return e->lapic.flags & CPU_ENABLED;
	}
	*id = e->x2apic.id;
	return e->type == ENTRY_X2APIC && e->x2apic.flags & CPU_ENABLED;
}

unsigned int acpi_find_cpus(uint64_t rsdp, uint32_t *ids, unsigned int most)
{
	const struct rsdp *r = rsdp ? at(rsdp) : find_rsdp();
	const struct header *madt = r ? find_madt(r) : NULL;
	const uint8_t *from, *end;
	unsigned int count = 0;
	uint32_t id;

	if (!madt)
		return 0;
	from = (const uint8_t *)madt + MADT_ENTRIES;
	end = (const uint8_t *)madt + madt->length;
	while (from + 2 <= end && from[1] >= 2 && from + from[1] <= end) {
		if (usable_cpu((const void *)from, &id)) {
			if (count < most)
				ids[count] = id;
			count++;
		}
		from += from[1];
	}
	return count;
}
