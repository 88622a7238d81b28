// SPDX-License-Identifier: MIT
/*
 * Workload "tcp_rr": stands for netperf's TCP_RR over loopback between two CPUs, and
 * so for any request and response. CPUs 0 and 1, 2 and 3, ... are pairs; one of a
 * pair sends, wakes the other with an IPI, and halts until the answer comes. An
 * operation is one message.
 *
 * What TCP does with its timers for each message received and answered: it starts the
 * delayed acknowledgement, cancels it since the answer carries one, and pushes the
 * retransmission out. No timer ever fires. A unikernel's stack handles a message to
 * its end with interrupts off and then halts; so all is deferred to the halt.
 *
 * The connection is all that two CPUs share, and no part of the timer path.
 */
#include <stdatomic.h>

#include "kernel/cpu.h"
#include "kernel/idle.h"
#include "kernel/smp.h"
#include "kernel/storm/storm.h"

#define RETRANSMIT 0
#define ACK	   1
#define ACK_PART   5 /* delayed acknowledgement: 40 ms where retransmission is 200 */

/* Messages sent by each side, a cache line each. */
static struct side {
	_Atomic uint64_t sent;
} __attribute__((aligned(64))) sides[CPUS_MAX];

static void timed_out(struct hrtimer *timer)
{
	storm_fired(storm_this_run(), (struct storm_timer *)timer);
}

static void send(struct storm_run *run, unsigned int number)
{
	storm_stop(run, &run->timers[ACK]);
	storm_start(run, &run->timers[RETRANSMIT], rdtsc() + run->timeout);
	sides[number].sent++;
	smp_wake(&cpus[number ^ 1]);
}

/* Until the other side has sent `messages`. */
static void receive(struct storm_run *run, unsigned int number, uint64_t messages)
{
	while (sides[number ^ 1].sent < messages)
		idle_halt();
	storm_start(run, &run->timers[ACK], rdtsc() + run->timeout / ACK_PART);
}

static void tcp_rr_run(struct storm_run *run)
{
	unsigned int number = this_cpu()->number;
	bool server = number & 1;

	sides[number].sent = 0;
	storm_check_begin(run, timed_out); /* behind it, both sides are 0 */
	irq_disable();
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
	idle_exit();
	storm_close(run);
	irq_enable();
}

const struct storm_workload storm_tcp_rr = {
	.name = "tcp_rr",
	.what = "request and response",
	.ops = 10000,
	.timers = 2,
	.timeout_ns = 200000000,
	.min_timers = 2,
	.max_timers = 2,
	.group = 2,
	.run = tcp_rr_run,
};
