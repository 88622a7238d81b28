// SPDX-License-Identifier: MIT
/*
 * Tests of the deadline modes on a fake host that keeps the protocol's UPDATE,
 * KICK and HALT rules. The question is always the same: when does the guest's
 * interrupt come?
 */
#include "unit.h"

#include "drivers/deadline.h"
#include "drivers/kvm.h"

#define NEVER UINT64_MAX

struct lapic lapic = { .x2apic = true, .tsc_deadline = true };

static struct deadline d;
static uint64_t now, timer, writes; /* timer: what the host holds, 0: none */
static volatile struct lazy_area *area;
static bool kvm, feature;

bool kvm_present(void)
{
	return kvm;
}

bool kvm_has_feature(unsigned int bit)
{
	return feature && bit == KVM_FEATURE_LAZY_TSCDEADLINE;
}

void lapic_oneshot(uint64_t deadline)
{
	(void)deadline;
	fail_msg("the one-shot timer was used");
}

static void enable_lazy(uint64_t value)
{
	area = value & 1 ? (volatile struct lazy_area *)(uintptr_t)(value & ~63ull)
			 : NULL;
	assert_int_equal(value & 0x3e, 0);
	if (!area)
		return;
	assert_int_equal(area->armed, 0);
	assert_true(area->pending == timer);
	area->armed = timer;
	area->host = 1;
}

void wrmsr(uint32_t msr, uint64_t value)
{
	if (msr == MSR_KVM_LAZY_TSCDEADLINE) {
		assert_true(feature); /* else #GP */
		enable_lazy(value);
		return;
	}
	assert_int_equal(msr, MSR_TSC_DEADLINE);
	writes++;
	timer = value;
	if (area)
		area->armed = value;
}

/* HALT: SYNC. */
static void halt(void)
{
	if (!area)
		return;
	timer = area->pending;
	area->armed = timer;
}

/*
 * Lets the host's timer fire; true if the guest gets an interrupt. Without the
 * protocol it always does.
 */
static bool host_fires(void)
{
	uint64_t armed = timer, p;

	if (now < armed)
		now = armed;
	timer = 0;
	if (!area)
		return true;
	p = area->pending;
	area->armed = 0;
	if (p == 0)
		return false;
	if (p > armed && p > now) {
		timer = area->armed = p;
		return false;
	}
	return true;
}

/*
 * When the guest's callback for `wanted` would run: interrupts that find nothing
 * due program again, as clockevent.c does.
 */
static uint64_t fires_at(const struct deadline_ops *ops, uint64_t wanted)
{
	while (timer) {
		if (!host_fires())
			continue;
		ops->interrupt(&d);
		if (wanted && now >= wanted)
			return now;
		if (wanted)
			ops->set(&d, wanted);
		else
			ops->cancel(&d);
	}
	return NEVER;
}

static const struct deadline_ops *const all[] = { &deadline_eager,
						  &deadline_rearm,
						  &deadline_lazy };

static void begin(const struct deadline_ops *ops, uint64_t programmed)
{
	d = (struct deadline){ 0 };
	d.area.armed = 77; /* left over from something */
	d.area.host = 77;
	now = 1000;
	timer = writes = 0;
	area = NULL;
	kvm = feature = true;
	ops->enable(&d, programmed);
	writes = 0;
}

#define IN_EACH_MODE(ops)                                              \
	for (unsigned int mode_ = 0; mode_ < 3; mode_++)               \
		for (const struct deadline_ops *ops = all[mode_]; ops; \
		     ops = NULL)

static void simple(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->set(&d, 2000);
		assert_int_equal(writes, 1);
		assert_int_equal(fires_at(ops, 2000), 2000);
	}
}

static void moved_later(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->set(&d, 2000);
		ops->set(&d, 3000);
		assert_int_equal(writes, ops == &deadline_eager ? 2 : 1);
		assert_int_equal(fires_at(ops, 3000), 3000);
	}
}

static void moved_earlier(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->set(&d, 3000);
		ops->set(&d, 2000);
		assert_int_equal(writes, 2);
		assert_int_equal(fires_at(ops, 2000), 2000);
	}
}

/* Hermit 2126: later, and then to something between what is armed and that. */
static void to_and_fro(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->set(&d, 2000);
		ops->set(&d, 9000);
		ops->set(&d, 2500);
		assert_int_equal(fires_at(ops, 2500), 2500);
	}
}

static void cancelled(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->set(&d, 2000);
		ops->cancel(&d);
		assert_int_equal(writes, ops == &deadline_eager ? 2 : 1);
		assert_true(fires_at(ops, 0) == NEVER);
		ops->set(&d, 5000); /* `armed` must not be stale now */
		assert_int_equal(fires_at(ops, 5000), 5000);
	}
}

static void cancelled_is_absorbed(void **state)
{
	(void)state;
	begin(&deadline_lazy, 0);
	deadline_lazy.set(&d, 2000);
	deadline_lazy.cancel(&d);
	assert_false(host_fires());
	assert_int_equal(timer, 0);
}

static void after_interrupt(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->set(&d, 2000);
		assert_true(host_fires());
		ops->interrupt(&d);
		writes = 0;
		ops->cancel(&d);
		assert_int_equal(writes, 0);
		ops->set(&d, 1500); /* earlier than what was armed before */
		assert_int_equal(writes, 1);
		ops->set(&d, 9000);
		assert_int_equal(fires_at(ops, 9000), 9000);
	}
}

static void equal_again(void **state)
{
	(void)state;
	begin(&deadline_rearm, 2000);
	deadline_rearm.set(&d, 2000);
	assert_int_equal(writes, 0);
	begin(&deadline_lazy, 2000);
	deadline_lazy.set(&d, 2000);
	assert_int_equal(writes, 0);
	assert_int_equal(fires_at(&deadline_lazy, 2000), 2000);
}

static void enabled_while_pending(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 4000);
		assert_int_equal(fires_at(ops, 4000), 4000);
	}
}

static void deferred_then_halted(void **state)
{
	(void)state;
	begin(&deadline_lazy, 0);
	deadline_lazy.defer(&d, 2000);
	assert_int_equal(writes, 0);
	halt();
	assert_int_equal(fires_at(&deadline_lazy, 2000), 2000);
}

static void deferred_earlier(void **state)
{
	(void)state;
	begin(&deadline_lazy, 0);
	deadline_lazy.set(&d, 9000);
	writes = 0;
	deadline_lazy.defer(&d, 2000);
	assert_int_equal(writes, 0);
	deadline_lazy.commit(&d);
	assert_int_equal(writes, 1);
	assert_int_equal(fires_at(&deadline_lazy, 2000), 2000);
}

static void deferred_then_committed(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->defer(&d, 2000);
		ops->commit(&d);
		assert_int_equal(writes, 1);
		assert_int_equal(fires_at(ops, 2000), 2000);
	}
}

static void nothing_to_commit(void **state)
{
	(void)state;
	IN_EACH_MODE(ops) {
		begin(ops, 0);
		ops->commit(&d);
		ops->set(&d, 2000);
		writes = 0;
		ops->commit(&d);
		assert_int_equal(writes, 0);
	}
}

static void host_not_active(void **state)
{
	(void)state;
	begin(&deadline_lazy, 0);
	d.area.host = 0x1234567890abcde0; /* a token of PARK */
	deadline_lazy.defer(&d, 2000);
	assert_int_equal(writes, 1);
	assert_int_equal(fires_at(&deadline_lazy, 2000), 2000);
}

/* PARK clears `armed` under the guest; whoever resumes holds no timer. */
static void parked_for_good(void **state)
{
	(void)state;
	begin(&deadline_lazy, 0);
	deadline_lazy.set(&d, 2000);
	area->armed = 0;
	area->host = 0x10;
	area = NULL;
	timer = 0;
	deadline_lazy.set(&d, 3000);
	assert_int_equal(writes, 2);
	assert_int_equal(fires_at(&deadline_lazy, 3000), 3000);
}

/* To a host without the feature: the MSR is not there, and eager is what is left. */
static void moved_to_stock(void **state)
{
	(void)state;
	begin(&deadline_lazy, 0);
	d.area.armed = 0;
	d.area.host = 0x10;
	area = NULL;
	feature = false;
	deadline_lazy.disable(&d);
	deadline_lazy.enable(&d, 0);
	for (uint64_t t = 2000; t < 5000; t += 1000) {
		writes = 0;
		deadline_lazy.defer(&d, t);
		assert_int_equal(writes, 1);
		assert_int_equal(fires_at(&deadline_lazy, t), t);
	}
}

static void disabled(void **state)
{
	(void)state;
	begin(&deadline_lazy, 3000);
	assert_non_null(area);
	deadline_lazy.disable(&d);
	assert_null(area);
}

static void when_missing(void **state)
{
	(void)state;
	kvm = feature = false;
	assert_non_null(deadline_lazy.missing());
	kvm = true;
	assert_non_null(deadline_lazy.missing());
	feature = true;
	assert_null(deadline_lazy.missing());
	lapic.tsc_deadline = false;
	assert_non_null(deadline_lazy.missing());
	lapic.tsc_deadline = true;
	assert_null(deadline_eager.missing());
	assert_null(deadline_rearm.missing());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_THAT(simple, "a deadline fires at its time"),
		CHECK_THAT(moved_later, "a deadline moved later fires later, once"),
		CHECK_THAT(moved_earlier, "a deadline moved earlier is written"),
		CHECK_THAT(to_and_fro, "of several deadlines the last one counts"),
		CHECK_THAT(cancelled, "after a cancelled one a new one still fires"),
		CHECK_THAT(cancelled_is_absorbed, "lazy's cancelled one interrupts "
						  "nobody"),
		CHECK_THAT(after_interrupt, "an interrupt leaves nothing stale"),
		CHECK_THAT(equal_again, "the armed deadline again needs no write"),
		CHECK_THAT(enabled_while_pending, "a mode takes over what is pending"),
		CHECK_THAT(deferred_then_halted, "a deferred one is armed by the halt"),
		CHECK_THAT(deferred_earlier, "deferring an earlier one is no write, "
					     "committing it is"),
		CHECK_THAT(deferred_then_committed, "without a halt commit writes"),
		CHECK_THAT(nothing_to_commit, "commit with nothing new is no write"),
		CHECK_THAT(host_not_active, "defer writes when the host is not active"),
		CHECK_THAT(parked_for_good, "a guest on a new host writes again"),
		CHECK_THAT(moved_to_stock, "a guest on a stock host goes on eagerly"),
		CHECK_THAT(disabled, "disable takes the area back from the host"),
		CHECK_THAT(when_missing, "lazy says when it cannot be used"),
	};

	return cmocka_run_group_tests_name("deadline", tests, NULL, NULL);
}
