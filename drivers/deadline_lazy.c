// SPDX-License-Identifier: MIT
/*
 * Deadline mode "lazy": the guest's side of the lazy TSC deadline protocol, as
 * docs/protocol.md has it.
 *
 * The order of two accesses is what the protocol hangs on: `pending` is stored
 * before `armed` or `host` is loaded. If the host parks the vCPU in between, it
 * has seen the new deadline; the other way round it would be lost. Both words
 * are read and written by the same CPU, in guest mode and out of it, and a
 * VM-exit orders them: so it is only the compiler that must keep the order, and
 * volatile makes it.
 */
#include "drivers/deadline.h"

#include "drivers/kvm.h"

#define LAZY_ENABLE 1ull
#define HOST_ACTIVE 1ull

static const char *lazy_missing(void)
{
	if (!kvm_present())
		return "not a KVM guest";
	if (!lapic.tsc_deadline)
		return "no TSC-deadline timer";
	if (!kvm_has_feature(KVM_FEATURE_LAZY_TSCDEADLINE))
		return "KVM feature bit 18 is not set";
	return 0;
}

/*
 * A guest that was moved to a host without the feature would get a #GP. There
 * `armed` stays 0, and the mode goes on as eager.
 */
static void write_msr(uint64_t value)
{
	if (kvm_has_feature(KVM_FEATURE_LAZY_TSCDEADLINE))
		wrmsr(MSR_KVM_LAZY_TSCDEADLINE, value);
}

#ifndef LAZY_ACCESS /* kernel/trace.c has its own */
static void store_pending(struct deadline *d, uint64_t deadline)
{
	d->area.pending = deadline;
}

static uint64_t load_armed(const struct deadline *d)
{
	return d->area.armed;
}

static uint64_t load_host(const struct deadline *d)
{
	return d->area.host;
}
#endif

static void lazy_enable(struct deadline *d, uint64_t deadline)
{
	lapic_timer_program(&d->timer, deadline);
	d->area.armed = 0;
	d->area.host = 0;
	store_pending(d, deadline);
	for (int i = 0; i < 5; i++)
		d->area.reserved[i] = 0;
	compiler_barrier();
	write_msr((uintptr_t)&d->area | LAZY_ENABLE);
}

static void lazy_disable(struct deadline *d)
{
	(void)d;
	write_msr(0);
}

static void lazy_set(struct deadline *d, uint64_t deadline)
{
	uint64_t armed;

	store_pending(d, deadline);
	compiler_barrier();
	armed = load_armed(d);
	if (!armed || deadline < armed)
		lapic_timer_program(&d->timer, deadline);
}

static void lazy_cancel(struct deadline *d)
{
	store_pending(d, 0);
}

/* The halt that follows is an exit, and there the host reads `pending`. */
static void lazy_defer(struct deadline *d, uint64_t deadline)
{
	store_pending(d, deadline);
	compiler_barrier();
	if (!(load_host(d) & HOST_ACTIVE))
		lazy_set(d, deadline);
}

/*
 * Nothing was halted, so nobody may hold a timer for what was deferred. Loading
 * `pending` is no race: only this CPU writes it.
 */
static void lazy_commit(struct deadline *d)
{
	uint64_t pending = d->area.pending;

	if (pending)
		lazy_set(d, pending);
}

/* The host has cleared `armed` already. */
static void lazy_interrupt(struct deadline *d)
{
	(void)d;
}

const struct deadline_ops deadline_lazy = {
	.name = "lazy",
	.missing = lazy_missing,
	.enable = lazy_enable,
	.disable = lazy_disable,
	.set = lazy_set,
	.cancel = lazy_cancel,
	.defer = lazy_defer,
	.commit = lazy_commit,
	.interrupt = lazy_interrupt,
};
