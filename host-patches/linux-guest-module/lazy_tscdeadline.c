// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest side of the lazy TSC deadline for a stock kernel, as a module. What guest and
 * host agree on is in docs/protocol.md of the project that this file belongs to.
 *
 * Each CPU's timer is a clock event device named "lapic-deadline". The module puts its own
 * functions in front of the device's and takes them away again, each time on the CPU that
 * the device belongs to with interrupts off, which is how the kernel calls them too.
 *
 * The devices are in a list that only the kernel can name. A device that is registered is
 * put into that list: so for a moment there is one of our own, of a kind that the kernel
 * has no use for, and the others are found from there. All that is needed for that is
 * exported, and no code of the kernel is changed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cc_platform.h>
#include <linux/clockchips.h>
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/hrtimer.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/tracepoint.h>

#include <asm/kvm_para.h>
#include <asm/msr.h>
#include <asm/processor.h>
#include <asm/tsc.h>

/* The host's series adds these to asm/kvm_para.h; a stock kernel lacks them. */
#ifndef MSR_KVM_LAZY_TSCDEADLINE
#define KVM_FEATURE_LAZY_TSCDEADLINE	18
#define MSR_KVM_LAZY_TSCDEADLINE	0x4b564d09
#define KVM_LAZY_TSCDEADLINE_ACTIVE	1

struct kvm_lazy_tscdeadline {
	__u64 armed;
	__u64 host;
	__u64 pending;
	__u64 reserved[5];
};
#endif

#define TSC_DIVISOR 8	/* of arch/x86/kernel/apic/apic.c: the device counts in 8 cycles */

static bool defer = true;
module_param(defer, bool, 0444);
MODULE_PARM_DESC(defer, "leave the deadlines of an idle CPU to its HLT (default on)");

static bool keep = true;
module_param(keep, bool, 0444);
MODULE_PARM_DESC(keep, "in brief idle times leave the tick's deadline where it is (default on)");

struct lazy_cpu {
	struct kvm_lazy_tscdeadline *area;
	struct clock_event_device *evt;	/* while our functions are in it */
	int (*set_next_event)(unsigned long delta, struct clock_event_device *evt);
	int (*set_state_oneshot)(struct clock_event_device *evt);
	int (*set_state_oneshot_stopped)(struct clock_event_device *evt);
	int (*set_state_shutdown)(struct clock_event_device *evt);
	ktime_t expires;	/* what area->pending stands for */
	u64 tried;		/* when the feature was last asked for */
	u64 idle_from;		/* when the CPU became idle */
	u64 idled;		/* how long it was idle the last time */
	bool deferred;		/* area->pending may be with nobody, see commit() */
	bool stopped;		/* stopped by us, with the LVT left as it was */
};

static DEFINE_PER_CPU(struct lazy_cpu, lazy_cpu);
static bool stopping;		/* reboot or suspend: the feature stays off */

/* Asked anew each time: the guest may have been moved to a host without it. */
static bool offered(void)
{
	u32 base = hypervisor_cpuid_base(KVM_SIGNATURE, 0);

	return base && (cpuid_eax(base | KVM_CPUID_FEATURES) & BIT(KVM_FEATURE_LAZY_TSCDEADLINE));
}

static void program(u64 deadline)
{
	weak_wrmsr_fence();
	wrmsrl(MSR_IA32_TSC_DEADLINE, deadline);
}

static void enable(struct lazy_cpu *c)
{
	c->tried = rdtsc();
	if (READ_ONCE(stopping) || !offered())
		return;
	WRITE_ONCE(c->area->armed, 0);
	WRITE_ONCE(c->area->host, 0);
	barrier();
	wrmsrl_safe(MSR_KVM_LAZY_TSCDEADLINE, slow_virt_to_phys(c->area) | 1);
}

static void disable(void)
{
	if (offered())
		wrmsrl_safe(MSR_KVM_LAZY_TSCDEADLINE, 0);
}

/* pending is stored before armed is loaded: the host may look at any moment in between. */
static void set(struct lazy_cpu *c, u64 deadline)
{
	u64 armed;

	WRITE_ONCE(c->area->pending, deadline);
	barrier();
	armed = READ_ONCE(c->area->armed);
	if (armed && armed <= deadline)
		return;
	program(deadline);
}

/*
 * A snapshot, a migration or a reset of the LAPIC by userspace turns the feature off. That
 * the vCPU is not ACTIVE may also mean that its HLT does not exit: so ask, but seldom.
 */
static void revive(struct lazy_cpu *c, u64 now)
{
	u64 msr;

	if (now - c->tried < tsc_khz * 1000ULL)
		return;
	c->tried = now;
	if (offered() && !rdmsrl_safe(MSR_KVM_LAZY_TSCDEADLINE, &msr) && !msr)
		enable(c);
}

/*
 * A CPU that is idle either halts, which makes the host look at pending, or stops to be
 * idle or polls or runs a softirq, and then commit() makes up for what was left out.
 */
static bool idle(void)
{
	return defer && is_idle_task(current) && !in_softirq();
}

/*
 * The first deadline that an idle CPU sets is later than its tick, and the first that it
 * sets when it is idle no more is the tick again. Where it will have work long before the
 * tick, going by its last idle time, the tick's deadline is left alone; where that is wrong
 * it is an interrupt too many.
 */
static bool keep_pending(struct lazy_cpu *c, u64 now)
{
	u64 pending = READ_ONCE(c->area->pending);

	if (!c->deferred) {
		c->deferred = true;
		c->idle_from = now;
	}
	return keep && pending > now && c->idled < (pending - now) / 2;
}

static int lazy_next_event(unsigned long delta, struct clock_event_device *evt)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);
	u64 now = rdtsc(), deadline = now + (u64)delta * TSC_DIVISOR;
	u64 pending = READ_ONCE(c->area->pending);
	bool active = READ_ONCE(c->area->host) & KVM_LAZY_TSCDEADLINE_ACTIVE;

	if (!active)
		revive(c, now);
	/* The same time is the same deadline, and not one that is some cycles earlier. */
	if (evt->next_event == c->expires && pending > now)
		deadline = pending;
	if (active && idle()) {
		if (keep_pending(c, now) && pending < deadline)
			return 0;
		c->expires = evt->next_event;
		WRITE_ONCE(c->area->pending, deadline);
		barrier();
		if (READ_ONCE(c->area->host) & KVM_LAZY_TSCDEADLINE_ACTIVE)
			return 0;
	}
	c->expires = evt->next_event;
	set(c, deadline);
	return 0;
}

static void commit(struct lazy_cpu *c)
{
	unsigned long flags;
	u64 pending;

	local_irq_save(flags);
	c->deferred = false;
	pending = READ_ONCE(c->area->pending);
	if (c->stopped) {
		/* It was only kept, see lazy_oneshot_stopped(), and nobody waits for it. */
		if (pending <= rdtsc())
			WRITE_ONCE(c->area->pending, 0);
	} else if (pending) {
		set(c, pending);
	}
	local_irq_restore(flags);
}

static int lazy_oneshot_stopped(struct clock_event_device *evt)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	c->stopped = true;
	if (idle() && keep_pending(c, rdtsc()))
		return 0;
	c->expires = 0;
	WRITE_ONCE(c->area->pending, 0);
	return 0;
}

static int lazy_oneshot(struct clock_event_device *evt)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	if (!c->stopped)
		return c->set_state_oneshot(evt);
	c->stopped = false;
	return 0;
}

static int lazy_shutdown(struct clock_event_device *evt)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	c->stopped = false;
	c->expires = 0;
	WRITE_ONCE(c->area->pending, 0);
	return c->set_state_shutdown(evt);
}

/* Where an idle CPU may turn away from its HLT. */

static void on_sched_switch(void *data, bool preempt, struct task_struct *prev,
			    struct task_struct *next, unsigned int prev_state)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	if (c->deferred) {
		c->idled = rdtsc() - c->idle_from;
		commit(c);
	}
}

static void on_cpu_idle(void *data, unsigned int state, unsigned int cpu)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	if (!state && c->deferred) {	/* 0 is to poll */
		c->idled = U64_MAX;	/* no HLT, so an earlier deadline costs nothing */
		commit(c);
	}
}

static void on_softirq_entry(void *data, unsigned int vec_nr)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	if (c->deferred)
		commit(c);
}

static struct {
	const char *name;
	void *probe;
	struct tracepoint *found;
	bool on;
} points[] = {
	{ "sched_switch", on_sched_switch },
	{ "cpu_idle", on_cpu_idle },
	{ "softirq_entry", on_softirq_entry },
};

static void look_at_point(struct tracepoint *tp, void *data)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(points); i++)
		if (!strcmp(tp->name, points[i].name))
			points[i].found = tp;
}

static void remove_points(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(points); i++)
		if (points[i].on)
			tracepoint_probe_unregister(points[i].found, points[i].probe, NULL);
	tracepoint_synchronize_unregister();
}

static int add_points(void)
{
	int i, err;

	for_each_kernel_tracepoint(look_at_point, NULL);
	for (i = 0; i < ARRAY_SIZE(points); i++) {
		err = points[i].found ? tracepoint_probe_register(points[i].found, points[i].probe,
								  NULL) : -ENOENT;
		if (err) {
			pr_err("no tracepoint %s: %d\n", points[i].name, err);
			remove_points();
			return err;
		}
		points[i].on = true;
	}
	return 0;
}

/* The devices. */

static struct clock_event_device *find_device(unsigned int cpu)
{
	struct clock_event_device *found = NULL, *evt, *ours;

	ours = kzalloc(sizeof(*ours), GFP_KERNEL);
	if (!ours)
		return NULL;
	ours->name = KBUILD_MODNAME;
	ours->features = CLOCK_EVT_FEAT_DUMMY | CLOCK_EVT_FEAT_PERCPU;
	ours->cpumask = cpumask_of(cpu);
	clockevents_register_device(ours);
	/* A new device is the first. The list does not change while CPUs cannot come or go. */
	list_for_each_entry(evt, ours->list.prev, list) {
		if (evt->cpumask == ours->cpumask && !strcmp(evt->name, "lapic-deadline") &&
		    !clockevent_state_detached(evt)) {
			found = evt;
			break;
		}
	}
	if (clockevents_unbind_device(ours, cpu))
		pr_err("cannot take back a device\n");	/* it leaks */
	else
		kfree(ours);
	return found;
}

/* On the CPU of c, with interrupts off, as all that follows up to the notifiers. */
static void hook(struct lazy_cpu *c, struct clock_event_device *evt)
{
	u64 deadline;

	rdmsrl(MSR_IA32_TSC_DEADLINE, deadline);
	memset(c->area, 0, sizeof(*c->area));
	c->area->pending = deadline;
	c->expires = 0;
	c->idled = U64_MAX;
	c->deferred = false;
	c->stopped = false;

	c->set_next_event = evt->set_next_event;
	c->set_state_oneshot = evt->set_state_oneshot;
	c->set_state_oneshot_stopped = evt->set_state_oneshot_stopped;
	c->set_state_shutdown = evt->set_state_shutdown;
	evt->set_next_event = lazy_next_event;
	evt->set_state_oneshot = lazy_oneshot;
	evt->set_state_oneshot_stopped = lazy_oneshot_stopped;
	evt->set_state_shutdown = lazy_shutdown;
	c->evt = evt;
	enable(c);
}

/* The host's timer is then the one for pending already; to write it is to be sure. */
static void unhook(struct lazy_cpu *c)
{
	struct clock_event_device *evt = c->evt;

	if (!evt)
		return;
	c->evt = NULL;
	evt->set_next_event = c->set_next_event;
	evt->set_state_oneshot = c->set_state_oneshot;
	evt->set_state_oneshot_stopped = c->set_state_oneshot_stopped;
	evt->set_state_shutdown = c->set_state_shutdown;

	c->deferred = false;
	disable();
	if (c->stopped)
		evt->set_state_oneshot_stopped(evt);
	else if (c->area->pending)
		program(c->area->pending);
}

static int lazy_online(unsigned int cpu)
{
	struct lazy_cpu *c = per_cpu_ptr(&lazy_cpu, cpu);
	struct clock_event_device *evt;

	/* Not in the module's own memory: its address would not be one for the host. */
	if (!c->area)
		c->area = kzalloc_node(sizeof(*c->area), GFP_KERNEL, cpu_to_node(cpu));
	evt = c->area ? find_device(cpu) : NULL;
	if (!evt) {
		pr_warn("CPU %u: no TSC deadline timer\n", cpu);
		return 0;	/* anything else would keep the CPU from coming up */
	}
	local_irq_disable();
	hook(c, evt);
	local_irq_enable();
	return 0;
}

static int lazy_offline(unsigned int cpu)
{
	local_irq_disable();
	unhook(per_cpu_ptr(&lazy_cpu, cpu));
	local_irq_enable();
	return 0;
}

static void turn_off(void *unused)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	if (!c->evt)
		return;
	disable();
	if (c->area->pending)
		program(c->area->pending);
}

static void turn_on(void *unused)
{
	struct lazy_cpu *c = this_cpu_ptr(&lazy_cpu);

	if (c->evt)
		enable(c);
}

/*
 * With the feature off, armed and host are 0 and each deadline is a write: the functions
 * may stay. The memory of a kernel that is left must not be the host's any more.
 */
static int on_reboot(struct notifier_block *nb, unsigned long action, void *unused)
{
	WRITE_ONCE(stopping, true);
	on_each_cpu(turn_off, NULL, 1);
	return NOTIFY_DONE;
}

static int on_suspend(struct notifier_block *nb, unsigned long action, void *unused)
{
	switch (action) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		WRITE_ONCE(stopping, true);
		on_each_cpu(turn_off, NULL, 1);
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		WRITE_ONCE(stopping, false);
		on_each_cpu(turn_on, NULL, 1);
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block reboot_notifier = { .notifier_call = on_reboot };
static struct notifier_block pm_notifier = { .notifier_call = on_suspend };

/* The one CPU that goes on into a crash kernel; the others are stopped, or reset there. */
static int on_crash(struct kprobe *probe, struct pt_regs *regs)
{
	WRITE_ONCE(stopping, true);
	disable();
	return 0;
}

static struct kprobe crash = { .symbol_name = "machine_crash_shutdown", .pre_handler = on_crash };
static bool crash_seen;
static int online;

static int count_hooked(void)
{
	int cpu, count = 0;

	for_each_possible_cpu(cpu)
		count += !!per_cpu(lazy_cpu, cpu).evt;
	return count;
}

static void free_areas(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		kfree(per_cpu(lazy_cpu, cpu).area);
}

static int __init lazy_init(void)
{
	int err;

	if (!offered()) {
		pr_err("this host does not offer the lazy TSC deadline\n");
		return -ENODEV;
	}
	if (cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT)) {
		pr_err("the host cannot read this guest's memory\n");
		return -ENODEV;
	}
	if (hrtimer_resolution != 1) {	/* else a needless interrupt may end a stopped tick */
		pr_err("high resolution timers are off\n");
		return -ENODEV;
	}
	if (boot_cpu_has(X86_FEATURE_MWAIT))
		defer = false;		/* it may idle without a HLT */
	err = add_points();
	if (err)
		return err;
	err = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "x86/kvm/lazy_tscdeadline:online",
				lazy_online, lazy_offline);
	if (err < 0)
		goto no_cpus;
	online = err;
	if (!count_hooked()) {
		err = -ENODEV;
		goto no_device;
	}
	register_reboot_notifier(&reboot_notifier);
	register_pm_notifier(&pm_notifier);
	crash_seen = !register_kprobe(&crash);
	pr_info("on, %d CPUs%s%s%s\n", count_hooked(), defer ? ", defer" : "",
		defer && keep ? ", keep" : "", crash_seen ? "" : ", not safe for a crash kernel");
	return 0;

no_device:
	cpuhp_remove_state(online);
no_cpus:
	remove_points();
	free_areas();
	return err;
}

static void __exit lazy_exit(void)
{
	if (crash_seen)
		unregister_kprobe(&crash);
	unregister_pm_notifier(&pm_notifier);
	unregister_reboot_notifier(&reboot_notifier);
	cpuhp_remove_state(online);
	remove_points();
	free_areas();
	pr_info("off\n");
}

module_init(lazy_init);
module_exit(lazy_exit);

MODULE_DESCRIPTION("Lazy TSC deadline for guests on KVM");
MODULE_LICENSE("GPL");
