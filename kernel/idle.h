/* SPDX-License-Identifier: MIT */
/*
 * The idle loop's three steps, interrupts off around all of them:
 *
 *	irq_disable();
 *	idle_enter();
 *	while (nothing to do)
 *		idle_halt();
 *	idle_exit();
 *	irq_enable();
 *
 * Between enter and exit a new earliest deadline is deferred: the halt that
 * follows arms it. So what starts a timer only to sleep enters first.
 */
#ifndef KERNEL_IDLE_H
#define KERNEL_IDLE_H

/* This CPU will halt, or call idle_exit(), before anything else. */
void idle_enter(void);

/* Halts until an interrupt has been handled. */
void idle_halt(void);

/* This CPU goes on: what was deferred and not seen by a halt is programmed. */
void idle_exit(void);

#endif
