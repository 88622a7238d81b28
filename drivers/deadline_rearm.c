// SPDX-License-Identifier: MIT
/*
 * Deadline mode "rearm": laziness without the host's help. A deadline that is not
 * earlier than what the timer holds costs nothing now; when the timer fires and
 * nothing is due, the interrupt programs the next one. The idea is Linux'
 * HRTIMER_MODE_LAZY_REARM.
 */
#include "drivers/deadline.h"

static const char *rearm_missing(void)
{
	return 0;
}

static void rearm_enable(struct deadline *d, uint64_t deadline)
{
	d->armed = deadline;
	lapic_timer_program(&d->timer, deadline);
}

static void rearm_set(struct deadline *d, uint64_t deadline)
{
	if (!d->armed || deadline < d->armed)
		rearm_enable(d, deadline);
}

static void rearm_nothing(struct deadline *d)
{
	(void)d;
}

/* The timer is off once it has fired, whatever the interrupt finds. */
static void rearm_interrupt(struct deadline *d)
{
	d->armed = 0;
}

const struct deadline_ops deadline_rearm = {
	.name = "rearm",
	.missing = rearm_missing,
	.enable = rearm_enable,
	.disable = rearm_nothing,
	.set = rearm_set,
	.cancel = rearm_nothing,
	.defer = rearm_set,
	.commit = rearm_nothing,
	.interrupt = rearm_interrupt,
};
