# SPDX-License-Identifier: MIT
"""Runs in the debug host: storms of every workload in every mode, one virtual machine for
each workload at the same time, and meanwhile all that a VMM does to a guest: stop, continue,
registers, snapshots saved and loaded, resets, and each vCPU's thread moved from CPU to CPU.
Then what the kernel's checkers say of themselves. Prints lines of `name: what`.

Usage: debug.py IMAGE (VCPUS | checkers)..."""

import os
import sys
import threading
import time
import traceback

import vmm

WORKLOADS = {"sleep": "ops=600 timeout=2ms", "rearm": "ops=20000 timers=50 timeout=2ms",
             "expire": "ops=3000 timers=16 timeout=20ms", "mixed": "ops=3000 timeout=100ms",
             "tcp_rr": "ops=3000"}
MODES = ("eager", "rearm", "lazy")
STOPS, LOADS = 5, 2  # in each mode, and between them a snapshot
vmm.LIMIT = 600


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
            time.sleep(0.03)


def disturb(vm, done, mode):
    for _ in range(STOPS):
        vm.command("stop")
        vm.command("human-monitor-command", **{"command-line": "info registers -a"})
        vm.command("cont")
        done["stops"] += 1
    vmm.job(vm, "snapshot-save", tag=mode, vmstate="disk", devices=["disk"])
    done["saves"] += 1
    for _ in range(LOADS):
        vmm.job(vm, "snapshot-load", tag=mode, vmstate="disk", devices=["disk"])
        done["loads"] += 1
    done["storming"] += vm.output().rstrip().endswith(f"{mode} ...")


def start(workload, cpus):
    """A guest that has come as far as to print. One of the first to boot here with four vCPUs
    ended in its firmware ("emulation failure" in real mode), before it had a storm or the
    feature: such are counted, and started again."""
    for failed in range(3):
        vm = vmm.Vm(f"storm={workload} mode=all cpus={cpus} {WORKLOADS[workload]}",
                    "-smp", str(cpus))

        def astray():
            return vm.command("query-status")["status"] == "internal-error"

        vm.until(lambda: vm.output() or astray(), "the guest prints", wait=1)
        if vm.output():
            return vm, failed
        vm.end()
    raise vmm.Wrong("three guests in a row never came to print")


def storm(workload, cpus):
    """In each mode all disturbances; then a reset, and the whole once more to its end. Counts
    in `storming` the modes that were still at it after the last snapshot was loaded."""
    vm, failed = start(workload, cpus)
    moves = Moves(vm)
    done = dict.fromkeys(("stops", "saves", "loads", "resets", "storming"), 0)
    try:
        vmm.add_disk(vm)
        moves.start()
        for mode in MODES:
            vm.until(lambda: f"{workload}/{mode}" in vm.output(), f"{workload}/{mode} begins")
            disturb(vm, done, mode)
        vm.command("system_reset")
        done["resets"] += 1
        vm.finish()
        said = ", ".join(f"{count} {what}" for what, count in done.items())
        return f"ok ({said}, {moves.count} moves, {failed} astray in firmware)"
    finally:
        moves.over = True
        vm.process.kill()


def storms(cpus):
    def one(workload):
        try:
            result = storm(workload, cpus)
        except Exception as error:
            traceback.print_exc()
            result = f"{type(error).__name__}: {error}"
        print(f"{workload}-{cpus}: {result}", flush=True)

    threads = [threading.Thread(target=one, args=(workload,)) for workload in WORKLOADS
               if cpus > 1 or workload != "tcp_rr"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
    for word in sys.argv[2:]:
        if word == "checkers":
            checkers()
        else:
            storms(int(word))
