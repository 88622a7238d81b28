# SPDX-License-Identifier: MIT
"""Runs in the emulated host: boots the Linux guest, gives it its orders over the serial line
(lab/linux-guest.sh carries them out), and writes what came of each as a JSON line to
$SLOTH_SHARE/rows, after which it goes on when it is started again. Where that is no
directory, rows go to standard output and what the guest says to standard error.

Usage: linux_inside.py KERNEL INITRD CPUS MEMORY SLOW LIMIT ORDERS [ARGUMENT...]

MEMORY is in megabytes, ARGUMENTs are the guest's kernel's.

SLOW is by how much the guest's clock shall be slower than the host's: it has no clock but the
TSC, and is told that this is so much faster than it is.

ORDERS is a file, a JSON list: {"key": ..., "boot": [the guest's kernel's arguments], "mode": ...,
"order": what the guest is told}. The guest is booted anew where its arguments change.
LIMIT is in seconds, for one order and for the guest to come up."""

import glob
import json
import os
import re
import select
import socket
import subprocess
import sys
import time

DEBUGFS = "/sys/kernel/debug/kvm"
ARGUMENTS = ("console=ttyS0 quiet panic=-1 tsc=reliable nokaslr random.trust_cpu=on"
             " cryptomgr.notests mitigations=off audit=0")
BAD = re.compile(r"\bBUG\b|\bOops\b|WARNING:|general protection|Kernel panic|lockup|LOCKUP"
                 r"|unchecked MSR access|rcu.*stall|blocked for more than")


ASLEEP, PATIENCE = 2, 20    # seconds: of a suspend; for an answer to what ends it
MOST_KHZ = 34_000_000   # of a TSC: Linux reckons an eighth of it in 32 bits of Hz


class Failed(Exception):
    pass


def slowed(factor):
    """The guest's kernel arguments for that."""
    if factor == 1:
        return []
    with open("/proc/cpuinfo") as file:
        khz = float(re.search(r"cpu MHz\s*: ([\d.]+)", file.read()).group(1)) * 1000
    return ["no-kvmclock", f"tsc_early_khz={min(khz * factor, MOST_KHZ):.0f}", "hpet=disable",
            "pmtmr=0", "clocksource=tsc"]


def counts(process):
    """KVM's, of the only virtual machine there is."""
    (machine,) = [name for name in os.listdir(DEBUGFS) if name.startswith(f"{process.pid}-")]
    found = {}
    for name in os.listdir(f"{DEBUGFS}/{machine}"):
        path = f"{DEBUGFS}/{machine}/{name}"
        if os.path.isfile(path):
            with open(path) as file:
                text = file.read().strip()
            if text.isdigit():
                found[name] = int(text)
    return found


def lazy_vcpus(process):
    """How many vCPUs have the feature on."""
    found = 0
    for path in glob.glob(f"{DEBUGFS}/{process.pid}-*/vcpu*/lazy-tscdeadline"):
        with open(path) as file:
            found += int(file.readline().split()[1], 16) & 1
    return found


class Guest:
    def __init__(self, kernel, initrd, cpus, memory, arguments, limit, log):
        self.line, theirs = socket.socketpair()
        self.line.settimeout(limit)
        self.log, self.held = log, b""
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host,migratable=off", "-m", memory,
             "-smp", cpus, "-nodefaults", "-display", "none", "-no-reboot", "-kernel", kernel,
             "-initrd", initrd, "-append", " ".join([ARGUMENTS, *arguments]),
             "-chardev", f"socket,id=line,fd={theirs.fileno()}", "-serial", "chardev:line"],
            pass_fds=[theirs.fileno()], stderr=log)
        theirs.close()
        self.ready = self.wait("@ready")[0].split()[1:]

    def read(self):
        while b"\n" not in self.held:
            try:
                data = self.line.recv(65536)
            except TimeoutError:
                raise Failed("the guest has said nothing for"
                             f" {self.line.gettimeout():g} s") from None
            if not data:
                raise Failed("the guest ended")
            self.held += data
        line, _, self.held = self.held.partition(b"\n")
        text = line.decode(errors="replace").replace("\r", "")
        self.log.write(text + "\n")
        self.log.flush()
        if BAD.search(text):
            raise Failed(f"the guest's kernel complains: {text}")
        return text

    def wait(self, *marks):
        """The lines up to the one that begins so; that one first."""
        lines = []
        while True:
            line = self.read()
            at = line.find("@")
            if at >= 0 and line[at:].startswith(marks):
                return [line[at:], *lines]
            lines.append(line)

    def say(self, text=""):
        self.line.sendall(text.encode() + b"\n")

    def wake(self):
        """Lets it sleep, and wakes it by a byte; one that came before it slept does not."""
        time.sleep(ASLEEP)
        if select.select([self.line], [], [], 0)[0] or self.held:
            raise Failed(f"the guest did not sleep: {self.read()}")
        self.say()
        while not select.select([self.line], [], [], PATIENCE)[0]:
            self.say()
        self.wait("@awake")
        self.say("up")

    def end(self):
        self.process.kill()
        self.process.wait()

    def obey(self, order, measured):
        """What came of an order: its status, lines of output, KVM's counts."""
        self.say(order)
        found = {}
        if measured:
            self.wait("@begin")
            before = counts(self.process)
            self.say()
            self.wait("@end")
            after = counts(self.process)
            self.say()
            found["exits"] = {name: after[name] - before.get(name, 0) for name in sorted(after)}
        done, *lines = self.wait("@done", "@ready", "@sleep")
        while done == "@sleep":
            self.wake()
            done, *lines = self.wait("@done", "@ready", "@sleep")
        for what in ("before", "after", "out"):
            found[what] = [line[len(what) + 2:] for line in lines if line.startswith(f"@{what} ")]
        found["booted"] = done.startswith("@ready")
        found["status"] = 0 if found["booted"] else int(done.split()[1])
        found["on"] = lazy_vcpus(self.process)
        found["log"] = [line for line in lines if not line.startswith("@")]
        return found


def outputs():
    """Where rows and what the guest says go, and how many rows there are already."""
    share = os.environ["SLOTH_SHARE"]
    if not os.path.isdir(share):
        return sys.stdout, sys.stderr, 0
    rows = open(f"{share}/rows", "a+")
    rows.seek(0)
    return rows, open(f"{share}/serial", "a"), len(rows.readlines())


def main():
    kernel, initrd, cpus, memory, slow, limit, orders, *arguments = sys.argv[1:]
    with open(orders) as file:
        orders = json.load(file)
    rows, log, done = outputs()
    if done == len(orders):
        return
    guest = mode = booted = None
    try:
        for order in orders[done:]:
            if order["boot"] != booted:
                if guest:
                    guest.end()
                print("booting the guest", flush=True)
                mode, booted = None, order["boot"]
                guest = Guest(kernel, initrd, cpus, memory,
                              [*slowed(int(slow)), *arguments, *booted], float(limit), log)
            if order["mode"] != mode:
                mode = order["mode"]
                found = guest.obey(f"mode {mode}", False)
                if found["status"]:
                    raise Failed(f"mode {mode}: {' '.join(found['log'])}")
            print(order["key"], flush=True)
            row = {**order, **guest.obey(order["order"], order["measured"])}
            if row["booted"]:
                mode = None
            rows.write(json.dumps(row) + "\n")
            rows.flush()
        guest.say("off")
    except Failed as failed:
        print(f"failed: {failed}", flush=True)
        sys.exit(1)
    finally:
        if guest:
            guest.end()


if __name__ == "__main__":
    main()
