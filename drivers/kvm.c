// SPDX-License-Identifier: MIT
/*
 * KVM's paravirtual interface: Linux Documentation/virt/kvm/x86/cpuid.rst,
 * hypercalls.rst and msr.rst.
 */
#include "drivers/kvm.h"

#include "arch/x86/cpu.h"

#define CPUID_HYPERVISOR_BASE 0x40000000
#define CPUID_HYPERVISOR_END  0x40010000
#define CPUID_HYPERVISOR_STEP 0x100
#define CPUID1_ECX_HYPERVISOR (1u << 31)

#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01
#define MSR_KVM_PV_EOI_EN	0x4b564d04
#define KVM_ENOSYS		1000

/* struct pvclock_vcpu_time_info of the Linux document, what we need of it. */
struct kvm_clock {
	uint32_t version, pad;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_ns_mul; /* in units of 2^-32 */
	int8_t tsc_shift;	/* applied to the TSC before */
	uint8_t flags, pad2[2];
};

static bool present;
static bool uses_vmmcall;
static uint32_t features_leaf;
static char signature[13] = "none";

static struct cpuid_regs signature_at(uint32_t leaf)
{
	struct cpuid_regs r = cpuid(leaf);
	const uint32_t words[3] = { r.ebx, r.ecx, r.edx };

	for (int i = 0; i < 12; i++)
		signature[i] = (char)(words[i / 4] >> i % 4 * 8);
	return r;
}

static bool is_kvm(const struct cpuid_regs *r)
{
	return r->ebx == 0x4b4d564b && r->ecx == 0x564b4d56 && r->edx == 0x4d;
}

/* VMMCALL is AMD's and Hygon's, VMCALL everybody else's. */
static bool vendor_has_vmmcall(void)
{
	uint32_t start = cpuid(0).ebx;

	return start == 0x68747541 /* "Auth" */ || start == 0x6f677948; /* "Hygo" */
}

/*
 * KVM's leaves come first as a rule, and 0x100 or more further on where it
 * imitates another hypervisor as well.
 */
void kvm_init(void)
{
	if (!(cpuid(1).ecx & CPUID1_ECX_HYPERVISOR))
		return;
	uses_vmmcall = vendor_has_vmmcall();
	for (uint32_t leaf = CPUID_HYPERVISOR_BASE;
	     !present && leaf < CPUID_HYPERVISOR_END;
	     leaf += CPUID_HYPERVISOR_STEP) {
		struct cpuid_regs r = signature_at(leaf);

		present = is_kvm(&r);
		features_leaf = leaf + 1;
	}
	if (!present)
		signature_at(CPUID_HYPERVISOR_BASE);
}

bool kvm_present(void)
{
	return present;
}

const char *hypervisor_name(void)
{
	return signature;
}

bool kvm_has_feature(unsigned int bit)
{
	return present && cpuid(features_leaf).eax >> bit & 1;
}

int64_t kvm_hypercall(uint64_t number, uint64_t a0, uint64_t a1)
{
	int64_t result;

	if (!present)
		return -KVM_ENOSYS;
	if (uses_vmmcall)
		__asm__ volatile("vmmcall"
				 : "=a"(result)
				 : "a"(number), "b"(a0), "c"(a1), "d"(0), "S"(0)
				 : "memory");
	else
		__asm__ volatile("vmcall"
				 : "=a"(result)
				 : "a"(number), "b"(a0), "c"(a1), "d"(0), "S"(0)
				 : "memory");
	return result;
}

void kvm_eoi_enable(struct kvm_eoi *eoi)
{
	if (!kvm_has_feature(KVM_FEATURE_PV_EOI))
		return;
	eoi->word = 0;
	compiler_barrier();
	wrmsr(MSR_KVM_PV_EOI_EN, (uintptr_t)eoi | 1);
}

/*
 * The host fills the structure while it handles the MSR write that turns the
 * clock on, so one look is enough, and it can be turned off again.
 */
uint64_t kvm_clock_tsc_hz(void)
{
	static volatile struct kvm_clock clock __attribute__((aligned(64)));
	uint64_t hz;

	if (!kvm_has_feature(KVM_FEATURE_CLOCKSOURCE2))
		return 0;
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (uintptr_t)&clock | 1);
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
	if (!clock.tsc_to_ns_mul)
		return 0;
	hz = (1000000000ull << 32) / clock.tsc_to_ns_mul;
	return clock.tsc_shift < 0 ? hz << -clock.tsc_shift
				   : hz >> clock.tsc_shift;
}
