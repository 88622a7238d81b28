# SPDX-License-Identifier: MIT
"""Runs in the debug host: storms of every workload, eager and lazy, and meanwhile all that a
VMM does to a guest: stop, continue, registers, snapshots saved and loaded, resets, and each vCPU's
thread moved from CPU to CPU. There a QEMU takes up to a minute to start, so one guest has
several workloads, one after the other. Then what the kernel's checkers say of themselves. Prints
lines of `name: what`.

Usage: debug.py IMAGE TINYVMM WORD...

WORD: a number of vCPUs, for the storms; init, reset_state (of vmm.py) or kill=COUNT, with
tinyvmm; checkers."""

import os
import subprocess
import sys
import threading
import time
import traceback

import vmm

# Workload/mode, in the order in which the guest has them; it has to be at each when it is stopped
# to be saved. An operation with an exit may take 20 ms here; more are needed where one exit is for
# many timers, and many more where nearly all exits disappear, but not too many: QEMU does not know
# the MSR, so when it has loaded the guest the feature is off, and what is left of that storm exits.
# To KVM mode rearm is as eager. The tick of mixed is a fiftieth of its timeout, and one that comes
# faster than it can be served leaves time for nothing else.
EXITS = ("sleep", "rearm", "cancel", "idle", "tcp_rr", "earlier")
NO_EXITS = ("rearm", "cancel")
GUESTS = {"exits": ("mode=eager,lazy ops=1000 timers=50 timeout=2ms",
                    [(workload, mode) for workload in EXITS for mode in ("eager", "lazy")
                     if workload not in NO_EXITS or mode == "eager"]),
          "mixed": ("mode=eager,lazy ops=2000 timers=50 timeout=1s",
                    [("mixed", "eager"), ("mixed", "lazy")]),
          "many": ("mode=eager,lazy ops=20000 timers=50 timeout=20ms",
                   [("expire", "eager"), ("expire", "lazy")]),
          "none": ("mode=lazy ops=300000 timers=50 timeout=20ms",
                   [(workload, "lazy") for workload in NO_EXITS])}
STOPS = 3           # at each
FIRMWARE = 0.2      # seconds that a guest has after a reset
vmm.LIMIT, vmm.AT_ONCE, vmm.WAIT = 1200, 5, 0.05


class Moves(threading.Thread):
    """Moves the vCPUs of a machine to another CPU, again and again."""

    def __init__(self, vm):
        super().__init__(daemon=True)
        self.threads = [cpu["thread-id"] for cpu in vm.command("query-cpus-fast")]
        self.count, self.over = 0, False

    def run(self):
        cpus = sorted(os.sched_getaffinity(0))
        while not self.over:
            for number, thread in enumerate(self.threads):
                try:
                    os.sched_setaffinity(thread, {cpus[(self.count + number) % len(cpus)]})
                except ProcessLookupError:
                    return
            self.count += 1
            time.sleep(0.1)


def disturb(vm, name):
    """All that there is, once: the guest is saved in this storm, goes on, is stopped, looked at,
    and reset; then it is loaded, and its storm goes on to the end. Whether it was in it, and what
    the steps took."""
    where = {"tag": name.replace("/", "-"), "vmstate": "disk", "devices": ["disk"]}
    clock = [time.monotonic()]

    def lap():
        clock.append(time.monotonic())

    vm.until(lambda: f"{name} ...\n" in vm.output(), f"{name} begins")
    vm.command("stop")
    storming = vm.output().endswith(f"{name} ...\n")
    lap()
    vmm.job(vm, "snapshot-save", **where)
    vm.command("cont")
    lap()
    for _ in range(STOPS):
        vm.command("stop")
        vm.command("human-monitor-command", **{"command-line": "info registers -a"})
        vm.command("cont")
    lap()
    vm.command("system_reset")
    time.sleep(FIRMWARE)
    lap()
    vmm.job(vm, "snapshot-load", **where)
    lap()
    return storming, ", ".join(f"{what} {after - before:.0f} s" for what, before, after in zip(
        ("begins", "save", "stops", "reset", "load"), clock, clock[1:]))


def start(words, cpus):
    """A guest that has come as far as to print. One of the first to boot here with four vCPUs
    ended in its firmware ("emulation failure" in real mode), before it had a storm or the
    feature: such are counted, and started again."""
    for failed in range(3):
        vm = vmm.Vm(words, "-S", "-smp", str(cpus))
        vmm.add_disk(vm)

        def astray():
            return vm.command("query-status")["status"] == "internal-error"

        began = time.monotonic()
        vm.command("cont")
        vm.until(lambda: vm.output() or astray(), "the guest prints")
        print(f"QEMU takes {vm.seconds:.0f} s to its monitor, {time.monotonic() - began:.0f} s"
              " more to the guest's first word", flush=True)
        if vm.output():
            return vm, failed
        vm.end()
    raise vmm.Wrong("three guests in a row never came to print")


def storm(options, stages, cpus):
    """One guest, in each mode of each workload; then a reset, and it boots and storms again."""
    names = ",".join(dict.fromkeys(workload for workload, _ in stages))
    vm, failed = start(f"storm={names} cpus={cpus} {options}", cpus)
    moves = Moves(vm)
    try:
        moves.start()
        for workload, mode in stages:
            name = f"{workload}/{mode}"
            storming, laps = disturb(vm, name)
            print(f"{name}-{cpus}: {'storming' if storming else 'over'}, {moves.count} moves,"
                  f" {laps}", flush=True)
            last = name
        vm.command("system_reset")
        booted = len(vm.output())
        vm.until(lambda: " ...\n" in vm.output()[booted:], "the guest boots after a reset")
        vmm.job(vm, "snapshot-load", tag=last.replace("/", "-"), vmstate="disk",
                devices=["disk"])
        status = vm.process.wait(vmm.LIMIT)
        if status != vmm.SUCCESS:
            raise vmm.Wrong(f"status {status}: {vm.output()[-1000:]}")
        return f"ok ({moves.count} moves, {failed} astray in firmware)"
    finally:
        moves.over = True
        vm.end()


def storms(cpus):
    """One guest after the other: what one does is time that the other would lose. Without huge
    pages, a fault for each page of a guest's memory is much of what a snapshot takes here."""
    subprocess.run(["mount", "-o", "remount,huge=always", "/dev/shm"], check=True)
    for name, (options, stages) in GUESTS.items():
        began = time.monotonic()
        try:
            result = storm(options, [stage for stage in stages
                                     if cpus > 1 or stage[0] != "tcp_rr"], cpus)
        except Exception as error:
            traceback.print_exc()
            result = f"{type(error).__name__}: {error}"
        print(f"{name}-{cpus}: {result}, {time.monotonic() - began:.0f} s", flush=True)


def kill(count):
    """VMMs that end of a sudden, in their guest's storm."""
    try:
        vmm.crowd(count, [vmm.TINY, vmm.IMAGE, vmm.ENDLESS], vmm.killed)
        print(f"kill: ok, {count}, {vmm.AT_ONCE} at a time", flush=True)
    except Exception as error:
        print(f"kill: {type(error).__name__}: {error}", flush=True)


def read(path):
    with open(path) as file:
        return file.read()


def checkers():
    """Whether all of them were at work to the end: most reports turn lockdep off. And leaks:
    two scans, as what is young may not be linked yet."""
    locks = [line.split()[-1] for line in read("/proc/lockdep_stats").splitlines()
             if line.strip().startswith("debug_locks:")]
    print("lockdep:", "ok" if locks == ["1"] else f"off: {locks}", flush=True)
    print("objects:", "ok" if "max_chain" in read("/sys/kernel/debug/debug_objects/stats")
          else "no statistics", flush=True)
    leaks = "/sys/kernel/debug/kmemleak"
    for _ in range(2):
        time.sleep(6)
        with open(leaks, "w") as file:
            file.write("scan")
    print("leaks:", read(leaks).replace("\n", "\\n") or "ok", flush=True)


if __name__ == "__main__":
    for word in sys.argv[3:]:
        if word == "checkers":
            checkers()
        elif word.startswith("kill="):
            kill(int(word[5:]))
        elif "=" in word:
            vmm.main([word])
        else:
            storms(int(word))
