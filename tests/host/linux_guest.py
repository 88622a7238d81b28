# SPDX-License-Identifier: MIT
"""Runs in the emulated host: boots a Linux guest on one set of KVM modules after the
other, round after round, lets it power off, and writes KVM's own counts of each virtual
machine as a JSON line to $SLOTH_SHARE/rows. It prints nothing and goes on after the last
line there, so that the lab can start a host again that stopped.

Usage: linux_guest.py KERNEL INITRD ROUNDS NAME=MODULES,CPU...

MODULES is a directory with kvm.ko and kvm_amd.ko, CPU what QEMU's -cpu takes."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lab.linux_inside import counts

LIMIT = 180  # seconds for a guest
ARGUMENTS = ("console=ttyS0 quiet panic=-1 tsc=reliable nokaslr random.trust_cpu=on"
             " cryptomgr.notests")


def load(modules):
    with open("/proc/cpuinfo") as file:
        vendor = "kvm_amd" if " svm " in file.read() else "kvm_intel"
    subprocess.run(["busybox", "rmmod", vendor, "kvm"], check=True)
    for name in ("kvm", vendor):
        subprocess.run(["busybox", "insmod", f"{modules}/{name}.ko"], check=True)


def boot(kernel, initrd, cpu):
    """QEMU keeps the virtual machine after its power-off, for its counts to be read."""
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = socket.socketpair()
        began = time.monotonic()
        process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "kvm", "-cpu", cpu, "-m", "256", "-nodefaults",
             "-display", "none", "-no-reboot", "-no-shutdown", "-kernel", kernel,
             "-initrd", initrd, "-append", ARGUMENTS, "-serial", f"file:{place}/serial",
             "-chardev", f"socket,id=monitor,fd={theirs.fileno()}",
             "-mon", "chardev=monitor,mode=control"], pass_fds=[theirs.fileno()])
        theirs.close()
        ours.settimeout(LIMIT)
        found = {}
        try:
            ours.sendall(b'{"execute": "qmp_capabilities"}\n')
            for line in ours.makefile():
                event = json.loads(line)
                if event.get("event") == "SHUTDOWN":
                    found = {"end": event["data"]["reason"], "counts": counts(process)}
                    break
        except TimeoutError:
            found = {"end": f"not within {LIMIT} s"}
        finally:
            process.kill()
            process.wait()
        with open(f"{place}/serial", errors="replace") as file:
            return {**found, "seconds": round(time.monotonic() - began, 1),
                    "serial": file.read()}


def main():
    kernel, initrd, rounds, *kinds = sys.argv[1:]
    with open(os.environ["SLOTH_SHARE"] + "/rows", "a+") as rows:
        rows.seek(0)
        done = len(rows.readlines())
        for kind in (kinds * int(rounds))[done:]:
            name, _, rest = kind.partition("=")
            modules, _, cpu = rest.partition(",")
            load(modules)
            rows.write(json.dumps({"kind": name, **boot(kernel, initrd, cpu)}) + "\n")
            rows.flush()


main()
