// SPDX-License-Identifier: MIT
/*
 * The first lines: what a reader must know of the machine to read the figures.
 */
#include "kernel/banner.h"

#include "arch/x86/cpu.h"
#include "drivers/deadline.h"
#include "drivers/kvm.h"
#include "drivers/tsc.h"
#include "kernel/console.h"
#include "kernel/print.h"
#include "kernel/smp.h"
#include "kernel/string.h"
#include "kernel/version.h"

#define CPUID_EXTENDED	0x80000000
#define CPUID_BRAND	0x80000002 /* to ...04: 48 characters */
#define CPUID_BRAND_END 0x80000005

/* The CPU's own name, or its vendor where it has none. */
static void cpu_name(char name[49])
{
	struct cpuid_regs r = cpuid(0);

	memset(name, 0, 49);
	memcpy(name, (uint32_t[]){ r.ebx, r.edx, r.ecx }, 12);
	if (cpuid(CPUID_EXTENDED).eax < CPUID_BRAND_END - 1)
		return;
	for (uint32_t leaf = CPUID_BRAND; leaf < CPUID_BRAND_END; leaf++) {
		r = cpuid(leaf);
		memcpy(name + (leaf - CPUID_BRAND) * 16, &r, 16);
	}
}

void banner_print(void)
{
	const char *missing = deadline_lazy.missing();
	char name[49], mhz[40];

	cpu_name(name);
	print("Sloth %s\n", SLOTH_VERSION);
	print("cpu          %s\n", name);
	print("hypervisor   %s\n", hypervisor_name());
	print("clock        TSC, %s MHz by %s, %sinvariant\n",
	      print_fixed(mhz, sizeof(mhz), (int64_t)(tsc_hz() / 1000), 3),
	      tsc_source(), tsc_invariant() ? "" : "not ");
	print("cpus         %u of %u started\n", smp_count(), smp_present());
	print("local APIC   %s, timer %s\n", lapic.x2apic ? "x2APIC" : "xAPIC",
	      lapic.tsc_deadline ? "TSC-deadline"
				 : "one-shot (its writes count as deadlines)");
	if (missing)
		print("lazy         not offered by the host: %s\n", missing);
	else
		print("lazy         offered by the host\n");
}
