// SPDX-License-Identifier: MIT
/*
 * Workload "tcp_rr": stands for netperf's TCP_RR over loopback between two CPUs, and
 * so for any request and response. CPUs 0 and 1, 2 and 3, ... are pairs; one of a
 * pair sends, wakes the other with an IPI, and halts until the answer comes. An
 * operation is one message.
 *
 * What happens to timers for each message received and answered. The message comes in an
 * interrupt, which finds the CPU idle, and TCP starts the delayed acknowledgement. The CPU
 * leaves idle, so its tick goes on, as with Linux' NO_HZ_IDLE. The answer carries the
 * acknowledgement, whose timer is cancelled, and pushes the retransmission out. The CPU
 * goes idle again, and the tick is stopped. So the earliest deadline changes three times a
 * message, as it does in Linux: neither of TCP's timers ever fires, and the tick does where
 * a whole period ends while the CPU is busy.
 *
 * A unikernel's stack handles a message to its end with interrupts off and then halts; so
 * all is deferred to the halt, and a tick that has come due meanwhile is run there.
 *
 * In an emulated host a message takes tens of times as long as on hardware. So the tick's
 * period is 20 ms here, not Linux' 4: published were 1.7 ticks to 100 messages.
 *
 * The connection is all that two CPUs share, and no part of the timer path.
 */
#include <stdatomic.h>

#include "drivers/tsc.h"
#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/smp.h"
#include "kernel/storm/storm.h"

#define RETRANSMIT 0
#define ACK	   1
#define TICK	   2
#define ACK_PART   5 /* delayed acknowledgement: 40 ms where retransmission is 200 */

/* Messages sent by each side, a cache line each. */
static struct side {
	_Atomic uint64_t sent;
} __attribute__((aligned(64))) sides[CPUS_MAX];

static bool tick_is_due(const struct storm_run *run)
{
	const struct storm_timer *t = &run->timers[TICK];

	return hrtimer_is_active(&t->timer) && t->due <= rdtsc();
}

/* The CPU is busy from now on. */
static void tick_start(struct storm_run *run)
{
	struct storm_timer *t = &run->timers[TICK];
	uint64_t now = rdtsc();

	if (t->period)
		storm_start(run, t, now - now % t->period + t->period);
}

/* The CPU goes idle. One that is due is left to the halt, which it ends at once. */
static void tick_stop(struct storm_run *run)
{
	if (!tick_is_due(run))
		storm_stop(run, &run->timers[TICK]);
}

static void send(struct storm_run *run, unsigned int number)
{
	storm_stop(run, &run->timers[ACK]);
	storm_start(run, &run->timers[RETRANSMIT], rdtsc() + run->timeout);
	sides[number].sent++;
	smp_wake(&cpus[number ^ 1]);
	tick_stop(run);
}

/* Until the other side has sent `messages`; no tick waits longer than for one of them. */
static void receive(struct storm_run *run, unsigned int number, uint64_t messages)
{
	while (sides[number ^ 1].sent < messages || tick_is_due(run))
		idle_halt();
	storm_start(run, &run->timers[ACK], rdtsc() + run->timeout / ACK_PART);
	tick_start(run);
}

static void tcp_rr_run(struct storm_run *run)
{
	unsigned int number = this_cpu()->number;
	bool server = number & 1;

	sides[number].sent = 0;
	storm_check_begin(run, storm_once); /* behind it, both sides are 0 */
	irq_disable();
	run->timers[TICK].period = tsc_from_ns(storm_tick(run));
	storm_open(run);
	idle_enter();
	for (uint64_t i = 1; i <= run->result.ops; i++) {
		if (server)
			receive(run, number, i);
		send(run, number);
		if (i == run->result.ops / 2 + 1)
			storm_fault(run, &run->timers[RETRANSMIT]);
		if (!server)
			receive(run, number, i);
	}
	tick_stop(run);
	idle_exit();
	storm_close(run);
	irq_enable();
}

const struct storm_workload storm_tcp_rr = {
	.name = "tcp_rr",
	.what = "request and response",
	.ops = 10000,
	.timers = 3,
	.timeout_ns = 200000000,
	.tick_ns = 20000000,
	.min_timers = 3,
	.max_timers = 3,
	.group = 2,
	.run = tcp_rr_run,
};
