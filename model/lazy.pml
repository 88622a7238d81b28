/* SPDX-License-Identifier: MIT */
/*
 * The lazy TSC deadline protocol for Spin: run model/check. docs/model.md says what is
 * left out here, and why it may. One vCPU, its area, its VMM; what each of them does
 * next, and when the host's timer fires, is anybody's guess.
 *
 * BUG=... takes a rule away or turns it round: model/check has the list. TSC, SPIV,
 * GONE and TSO add what makes the search longer.
 */
#ifndef BUG
#define BUG NONE
#endif
#ifdef FENCE		/* what it would take to read the area while the guest runs */
#define FENCED 1
#else
#define FENCED 0
#endif
#ifdef TRACE
#define NOTE(...) printf(__VA_ARGS__)
#else
#define NOTE(...) skip
#endif

#include "time.pml"

/* The vCPU and the area, but for what is a time. */
mtype = { none, wrmsr, rdmsr, hlt, enable, disable, mask, mode_off, mode_on, apic_off,
	  apic_on, adjust };
bool in_guest;		/* the vCPU is in guest mode */
mtype why = none;	/* what the guest did that exits */
bool sb;		/* a store to pending is in the store buffer */
byte host_word;		/* area.host */
bool gone;		/* the area's memory is not there */

/* struct kvm_lapic and kvm_timer; TIMER is lapic_timer.tscdeadline */
bool running;		/* hrtimer_active() or hv_timer_in_use */
bool fired;		/* lapic_timer.pending */
bool callback;		/* (REMOTE) apic_timer_fn() runs */
bool stale;		/* the timer was computed for another TSC */
bool fast;		/* (FAST) the host's clock was: it fired earlier than the timer advance */
bool irr;		/* the timer's vector waits in the IRR */
bool dl;		/* the LVT is in TSC-deadline mode */
bool masked = 1;	/* the LVT is masked */
bool apic;		/* apic_enabled() */

/* struct lazy_tscd, struct kvm_vcpu */
bool msr;		/* msr_val, bit 0 */
byte host;		/* 0, ACTIVE, or a token */
bool live;
bool moved;		/* tsc_moved */
bool req;		/* KVM_REQ_LAZY_TSCDEADLINE */
bool retry;		/* KVM_APIC_LAZY_TSCD_STALE */
bool out;		/* KVM_REQ_UNBLOCK, and the IPI: come out of guest mode */
bool halted;
bool offered = 1;	/* this host has the feature */
bool knows;		/* the VMM knows the MSR, and carries it with the rest */

/* Not in the code, but what the properties are about. */
bool on;		/* the guest follows the protocol */
bool mine;		/* the area is an area */
bool busy;		/* the guest is between the steps of an operation */
bool window;		/* between defer and halt or commit */
bool wiped;		/* KVM drops what has expired when the APIC is turned off */
bool torn;		/* (GONE) PARK could not be written */
bool calm;		/* nothing happens any more but what has to */
bool reboot;

#ifdef TSO
#define VIEW (sb -> BUFFERED : PENDING)		/* a CPU sees its own stores */
#else
#define VIEW PENDING
#endif

/* What must hold, 2, whenever the guest runs: armed means a timer that fires, or has. */
inline check_armed()
{
	assert(!on || gone || !ARMED || fired || callback || (running && ARMED == TIMER && !stale))
}

/* What must hold, 1, at any time but within an operation: it fires when it is wanted. */
inline check_timer()
{
	assert(!on || busy || window || !VIEW || irr || fired || callback || wiped ||
	       (running && TIMER <= VIEW && !(stale && live)))
}

#include "guest.pml"
#include "kvm.pml"
