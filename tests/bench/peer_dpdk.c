// SPDX-License-Identifier: MIT
/*
 * DPDK's rte_timer: a skip list a core, here of one core, without huge pages. It goes
 * by the real time stamp counter, so deadlines are taken relative to the benchmark's
 * clock, and nothing is ever run.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_timer.h>

#include "bench.h"

static struct rte_timer *nodes;
static size_t node_count;
static unsigned int core;

static void fired(struct rte_timer *timer, void *arg)
{
	(void)timer, (void)arg;
}

/* Its environment wants to choose this thread's CPU: let it choose the present. */
static void eal_start(void)
{
	static char cpu[24];
	static char *argv[] = { "bench", "--no-huge", "-m", "64", "--no-pci",
				"--no-telemetry", "--no-shconf",
				"--log-level=error", "--lcores", cpu, NULL };

	snprintf(cpu, sizeof(cpu), "0@%d", sched_getcpu());
	if (rte_eal_init(10, argv) < 0 || rte_timer_subsystem_init() < 0) {
		fprintf(stderr, "bench: DPDK does not start\n");
		exit(1);
	}
	core = rte_lcore_id();
}

static void dpdk_init(size_t timers)
{
	if (!nodes)
		eal_start();
	for (size_t i = 0; i < node_count; i++)
		rte_timer_stop_sync(&nodes[i]);
	nodes = bench_memory(nodes, timers, sizeof(*nodes));
	node_count = timers;
	for (size_t i = 0; i < timers; i++)
		rte_timer_init(&nodes[i]);
}

static void dpdk_start(size_t i, uint64_t deadline)
{
	rte_timer_reset(&nodes[i], deadline - bench_now, SINGLE, core, fired, NULL);
}

static void dpdk_cancel(size_t i)
{
	rte_timer_stop(&nodes[i]);
}

static uint64_t dpdk_next(void)
{
	return (uint64_t)rte_timer_next_ticks();
}

const struct peer peer_dpdk = {
	"dpdk", dpdk_init, dpdk_start, dpdk_cancel, NULL, dpdk_next,
};
