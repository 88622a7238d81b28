/* SPDX-License-Identifier: MIT */
/*
 * What KVM offers to its guests: features, hypercalls, its own clock.
 */
#ifndef DRIVERS_KVM_H
#define DRIVERS_KVM_H

#include <stdbool.h>
#include <stdint.h>

/* Bits of KVM_CPUID_FEATURES (Linux Documentation/virt/kvm/x86/cpuid.rst). */
#define KVM_FEATURE_CLOCKSOURCE2     3
#define KVM_FEATURE_PV_EOI	     6
#define KVM_FEATURE_LAZY_TSCDEADLINE 18

/* docs/protocol.md */
#define MSR_KVM_LAZY_TSCDEADLINE 0x4b564d09
#define KVM_HC_EXIT_COUNTS	 0x4c54

/* Looks for KVM in CPUID. Call once, before the rest. */
void kvm_init(void);

/* True if this is a KVM guest. */
bool kvm_present(void);

/* The hypervisor's signature, twelve characters, or "none". */
const char *hypervisor_name(void);

/*
 * True if KVM offers the feature with this bit number (0 to 31) to this CPU. CPUID is
 * asked each time, an exit: a guest may have been moved to another host meanwhile.
 */
bool kvm_has_feature(unsigned int bit);

/*
 * Hypercall `number`. Returns what the host returns, negative for an error;
 * -1000 (-KVM_ENOSYS) where there is no KVM or no such call. Any context.
 */
int64_t kvm_hypercall(uint64_t number, uint64_t a0, uint64_t a1);

/*
 * End of interrupt without an exit (Linux msr.rst, MSR_KVM_PV_EOI_EN): the host sets
 * bit 0 while it takes clearing it for an EOI. One per CPU.
 */
struct kvm_eoi {
	uint32_t word;
};

/* Turns it on for this CPU, where the host offers it. */
void kvm_eoi_enable(struct kvm_eoi *eoi);

/*
 * Ends the interrupt if the host lets us do it so; else false, and the LAPIC must be
 * told. In the handler, interrupts off. One instruction clears and asks: between two,
 * the host could take the bit back.
 */
static inline bool kvm_eoi_done(struct kvm_eoi *eoi)
{
	bool was_set;

	__asm__ volatile("btrl $0, %0"
			 : "+m"(eoi->word), "=@ccc"(was_set)
			 :
			 : "memory");
	return was_set;
}

/* The TSC frequency in Hz as kvmclock tells it, 0 where there is no kvmclock. */
uint64_t kvm_clock_tsc_hz(void);

#endif
