# SPDX-License-Identifier: MIT
"""The debug host: a kernel made from linux-source with what looks for faults (KASAN, lockdep,
RCU, sleeping where one may not, timers and lists used wrongly, leaks) and the patched KVM
built in.

    status = Host(series="6.1").run(["qemu-system-x86_64", ...])

Three steps, each under build/debug-host/SERIES:

source    linux-source, less what this kernel does not need, and the series' files over it
objects   the configuration (lab/debug-host.config) and what is compiled
result    the kernel, kept until a patch, the configuration, the compiler or this file changes

Otherwise it is host.Host, slower, with more time for everything and a second CPU."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from lab import debs, host, initramfs, modules, system, ui
from lab.system import BUILD
from lab.ui import Fail

CONFIG = Path(__file__).with_name("debug-host.config")
PLACE = BUILD / "debug-host"
ROOM = 2 << 30      # bytes for source and objects

# Half of the source, and nothing in it is compiled here. Kconfig reads all Kconfig files.
LEAVE_OUT = ("arch/[!x]*/*.[chS]", "arch/*.dts*", "Documentation/*/*", "drivers/gpu/*.[ch]",
             "drivers/infiniband/*.[ch]", "drivers/media/*.[ch]", "drivers/net/*/*.[ch]",
             "drivers/scsi/*.[ch]", "drivers/staging/*.[ch]", "sound/*.[ch]")

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


# The kernel.

def overlay(source, repository):
    """The series' files over those of the package; only what differs is written."""
    note = source / ".series"
    before = note.read_text().split() if note.is_file() else []
    changed = [name for name in modules.git_or_fail(repository, "diff", "--name-only", "base",
                                                    "HEAD").split()
               if not name.startswith(modules.IGNORED)]
    for name in {*before, *changed}:
        new, path = repository / name, source / name
        if not new.is_file():
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_bytes() != new.read_bytes():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(new.read_bytes())
    note.write_text("\n".join(changed))


def make(source, objects, *words, step=None):
    """make, nice to whatever else the machine does; its output, all of it in build.log."""
    log = objects.parent / "build.log"
    process = system.spawn(
        ["nice", "-n", "5", "make", "-C", source, f"O={objects}", "ARCH=x86_64",
         f"-j{os.cpu_count() or 1}", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env={**os.environ, "LC_ALL": "C", "MAKEFLAGS": ""})
    lines, compiled = [], 0
    try:
        with open(log, "a") as file:
            for line in process.stdout:
                file.write(line)
                lines.append(line)
                compiled += bool(re.match(r"  (CC|AS) ", line))
                if step:
                    step.note(f"{compiled} files compiled")
        status = process.wait()
    finally:
        system.kill(process)
        process.stdout.close()
    if status != 0:
        raise Fail(f"the debug host's kernel does not build: {modules.first_error(''.join(lines))}"
                   f" (all of it: {log})")


def configured(wanted, result):
    """Lines of a configuration that its result does not have. An option that is wanted off is
    off, too, when the result does not know it."""
    lines = set(result.splitlines())
    missing = []
    for line in wanted.splitlines():
        off = re.fullmatch(r"# (CONFIG_\w+) is not set", line)
        if off and any(other.startswith(f"{off.group(1)}=") for other in lines) \
                or line.startswith("CONFIG_") and line not in lines:
            missing.append(line)
    return missing


def configure(source, objects):
    make(source, objects, f"KCONFIG_ALLCONFIG={CONFIG}", "allnoconfig")
    missing = configured(CONFIG.read_text(), (objects / ".config").read_text())
    if missing:
        raise Fail(f"{CONFIG.name}: this kernel's configuration does not come to have"
                   f" {', '.join(missing)}")


def digest(kernel, patch_files):
    total = hashlib.sha256(modules.digest(kernel, patch_files).encode())
    for file in (Path(__file__), CONFIG):
        total.update(file.read_bytes())
    return total.hexdigest()


def tree(kernel):
    """The source with the series applied."""
    modules.build(kernel.series)    # the series as a repository, and whether it builds at all
    source = PLACE / kernel.series / "source"
    source.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(source.parent).free
    if free < ROOM and not source.is_dir():
        raise Fail(f"{source.parent} has {free >> 20} MB left, the debug host needs"
                   f" {ROOM >> 20} MB")
    debs.source(kernel, [], source, LEAVE_OUT)
    overlay(source, modules.repository(kernel.series))
    return source


def build(series):
    """The kernel, an ELF file to boot."""
    kernel = debs.get(series)
    place = PLACE / series
    objects, result, stamp = place / "objects", place / "vmlinux", place / "stamp"
    with system.build_lock("debug-host"):
        key = digest(kernel, modules.patches(series))
        if stamp.is_file() and stamp.read_text() == key:
            return result
        stamp.unlink(missing_ok=True)
        source = tree(kernel)
        objects.mkdir(exist_ok=True)
        (place / "build.log").unlink(missing_ok=True)
        with ui.step(f"building the debug host's kernel, Linux {kernel.version}, from source"
                     " (README says how long)") as step:
            configure(source, objects)
            make(source, objects, *VARIABLES, "vmlinux", step=step)
        status, output = system.call(["objcopy", "-S", objects / "vmlinux", result])
        if status != 0:
            raise Fail(f"objcopy failed: {output.strip()}")
        stamp.write_text(key)
    return result


# The host.

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
        self.vmlinux = build(self.series)
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
        # q35, as the other machine's firmware routes interrupts in loops for which so slow a
        # kernel loses patience.
        return ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"], \
            " ".join(arguments)
