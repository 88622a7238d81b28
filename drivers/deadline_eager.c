// SPDX-License-Identifier: MIT
/*
 * Deadline mode "eager": the LAPIC timer follows each change at once, as Linux'
 * lapic_next_deadline() does. Each change is a VM-exit; this is what the others
 * are measured against.
 */
#include "drivers/deadline.h"

static const char *eager_missing(void)
{
	return 0;
}

static void eager_set(struct deadline *d, uint64_t deadline)
{
	d->armed = deadline;
	lapic_timer_program(&d->timer, deadline);
}

/* A timer that has fired is off already: stopping it would be a wasted exit. */
static void eager_cancel(struct deadline *d)
{
	if (d->armed)
		eager_set(d, 0);
}

static void eager_disable(struct deadline *d)
{
	(void)d;
}

static void eager_commit(struct deadline *d)
{
	(void)d;
}

static void eager_interrupt(struct deadline *d)
{
	d->armed = 0;
}

const struct deadline_ops deadline_eager = {
	.name = "eager",
	.missing = eager_missing,
	.enable = eager_set,
	.disable = eager_disable,
	.set = eager_set,
	.cancel = eager_cancel,
	.defer = eager_set,
	.commit = eager_commit,
	.interrupt = eager_interrupt,
};
