# SPDX-License-Identifier: MIT
"""The debug host: a kernel made from linux-source (lab/kernelbuild.py) with what looks for
faults (KASAN, lockdep, RCU, sleeping where one may not, timers and lists used wrongly, leaks)
and the patched KVM built in.

    status = Host(series="6.1").run(["qemu-system-x86_64", ...])

Otherwise it is host.Host, slower, with more time for everything and a second CPU."""

import re
from pathlib import Path

from lab import debs, host, initramfs, kernelbuild, modules
from lab.system import BUILD

CONFIG = Path(__file__).with_name("debug-host.config")

# The PVH entry, by which QEMU boots, runs before KASAN has any shadow memory.
VARIABLES = ("KASAN_SANITIZE_enlighten.o=n", "KASAN_SANITIZE_string.o=n")

# What the kernel says at each boot: nothing is wrong with it.
HARMLESS = (r"Lock dependency validator: Copyright", r"\.\.\. \w+: +\d+$",
            r" memory used (by lock dependency info|for stack traces): \d+ kB$",
            r" per task-struct memory footprint: \d+ bytes$",
            # What the selftest asks of KVM, and KVM's own word for it.
            r"user requested TSC rate below hardware speed$",
            # It was slow: so is the emulator.
            r"hrtimer: interrupt took \d+ ns$", r"tsc: Unable to calibrate against PIT$")


def series(kernel):
    modules.build(kernel.series)    # the series as a repository, and whether it builds at all
    return modules.repository(kernel.series)


def recipe(series_name):
    return kernelbuild.Recipe("the debug host's kernel", BUILD / "debug-host" / series_name,
                              CONFIG, modules.patches(series_name), series, VARIABLES)


class Host(host.Host):
    """As host.Host. Whatever its kernel says at level warning or worse, but for what it says
    of itself at each boot, is a complaint."""

    cpus, memory = 2, 2048
    boot_limit, silence = 600, 60
    vendors = ()
    complaint = re.compile(r"^(?!\[ *[\d.]+\] (?:" + "|".join(HARMLESS) + r")|\s*$)")

    def __init__(self, series=None, options=()):
        super().__init__(series, False, "tcg", options)

    def prepare(self):
        self.kernel = debs.get(self.series)
        self.vmlinux = kernelbuild.build(recipe(self.series), self.kernel)
        self.boot_list = self.kvm_list = []
        self.base = initramfs.base([], self.init)

    def emulation(self):
        """A thread for each CPU: where they take turns, QEMU delivers an interrupt of the guest
        a second time now and then (docs/architecture.md)."""
        arguments = [word for word in host.KERNEL_ARGUMENTS.split() if word != "idle=poll"]
        arguments += [f"{module}.{option}" for module, options in self.options.items()
                      for option in options]
        # What is slow because it is emulated is not stalled.
        arguments += ["rcupdate.rcu_cpu_stall_timeout=300", "sysctl.kernel.watchdog_thresh=60",
                      "sysctl.kernel.hung_task_timeout_secs=600"]
        # KVM, which is built in, takes the TSC's frequency before Linux has measured it well, and
        # where that is corrected later, it has each guest's TSC stand still: so it is measured by
        # nobody. All clocks there are the TSC, so that it is about right is enough.
        with open("/proc/cpuinfo") as file:
            khz = float(re.search(r"cpu MHz\s*: ([\d.]+)", file.read())[1]) * 1000
        arguments += [f"tsc_early_khz={khz:.0f}", "hpet=disable", "pmtmr=0"]
        # q35, as the other machine's firmware routes interrupts in loops for which so slow a
        # kernel loses patience.
        return ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"], \
            " ".join(arguments)
