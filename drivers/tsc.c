// SPDX-License-Identifier: MIT
/*
 * TSC frequency: kvmclock first, because there the host knows what it gives us;
 * then CPUID 0x15 (crystal and ratio), the hypervisors' leaf 0x40000010 (kHz),
 * 0x16 (nominal, in MHz); last a measurement. Intel SDM vol 2, CPUID, and vol 3,
 * 20.7.3 ("Determining the Processor Base Frequency").
 */
#include "drivers/tsc.h"

#include "arch/x86/cpu.h"
#include "drivers/kvm.h"
#include "drivers/pit.h"
#include "drivers/scale.h"

#define NS_PER_S 1000000000ull

#define CPUID_TSC_RATIO	      0x15
#define CPUID_CPU_FREQUENCY   0x16
#define CPUID_HYPERVISOR_BASE 0x40000000
#define CPUID_HYPERVISOR_TSC  0x40000010
#define CPUID_EXTENDED	      0x80000000
#define CPUID_POWER	      0x80000007
#define EDX_INVARIANT_TSC     (1u << 8)

static uint64_t hz;
static const char *source = "unknown";
static struct scale to_ns, from_ns;

static uint64_t crystal_hz(void)
{
	struct cpuid_regs r;

	if (cpuid(0).eax < CPUID_TSC_RATIO)
		return 0;
	r = cpuid(CPUID_TSC_RATIO);
	return r.eax ? (uint64_t)r.ecx * r.ebx / r.eax : 0;
}

static uint64_t hypervisor_hz(void)
{
	if (!(cpuid(1).ecx >> 31) ||
	    cpuid(CPUID_HYPERVISOR_BASE).eax < CPUID_HYPERVISOR_TSC)
		return 0;
	return cpuid(CPUID_HYPERVISOR_TSC).eax * 1000ull;
}

static uint64_t nominal_hz(void)
{
	if (cpuid(0).eax < CPUID_CPU_FREQUENCY)
		return 0;
	return (cpuid(CPUID_CPU_FREQUENCY).eax & 0xffff) * 1000000ull;
}

static const struct {
	const char *name;
	uint64_t (*find)(void);
} sources[] = {
	{ "kvmclock", kvm_clock_tsc_hz },
	{ "CPUID 0x15", crystal_hz },
	{ "CPUID 0x40000010", hypervisor_hz },
	{ "CPUID 0x16", nominal_hz },
	{ "PIT measurement", pit_measure_tsc_hz },
};

bool tsc_init(void)
{
	for (unsigned int i = 0; !hz && i < sizeof(sources) / sizeof(*sources);
	     i++) {
		hz = sources[i].find();
		source = sources[i].name;
	}
	if (!hz)
		return false;
	to_ns = scale_make(NS_PER_S, hz);
	from_ns = scale_make(hz, NS_PER_S);
	return true;
}

uint64_t tsc_hz(void)
{
	return hz;
}

const char *tsc_source(void)
{
	return source;
}

bool tsc_invariant(void)
{
	return cpuid(CPUID_EXTENDED).eax >= CPUID_POWER &&
	       cpuid(CPUID_POWER).edx & EDX_INVARIANT_TSC;
}

uint64_t tsc_to_ns(uint64_t cycles)
{
	return scale_apply(to_ns, cycles);
}

uint64_t tsc_from_ns(uint64_t ns)
{
	return scale_apply(from_ns, ns);
}
