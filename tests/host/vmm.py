# SPDX-License-Identifier: MIT
"""Runs in the emulated host: what a VMM that does not know the protocol does to a
guest in its storm. Prints one line for each, `name: ok` or `name: what went wrong`.

Usage: vmm.py IMAGE NAME..."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time

IMAGE = sys.argv[1]
LIMIT = 90  # seconds for a guest to end by itself


class Vm:
    def __init__(self, options, *extra):
        self.directory = tempfile.mkdtemp()
        self.serial = os.path.join(self.directory, "serial")
        path = os.path.join(self.directory, "qmp")
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host,migratable=off", "-m", "64",
             "-nodefaults", "-display", "none", "-kernel", IMAGE, "-append", options,
             "-serial", "file:" + self.serial, "-qmp", f"unix:{path},server=on,wait=off",
             "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", *extra])
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(300):
            try:
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.1)
        self.stream = self.socket.makefile("rw")
        self.stream.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            line = self.stream.readline()
            if not line:
                raise EOFError(name)
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def output(self):
        with open(self.serial, errors="replace") as file:
            return file.read()

    def wait_for(self, text, limit=LIMIT):
        end = time.monotonic() + limit
        while text not in self.output():
            if time.monotonic() > end:
                raise TimeoutError(f"{text!r} did not come: {self.output()[-300:]!r}")
            time.sleep(0.02)

    def finish(self):
        """Status of the guest, through isa-debug-exit: 33 is success."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return f"hangs: {self.output()[-300:]!r}"

    def end(self):
        self.process.kill()
        self.process.wait()


def passed(status, vm):
    return "ok" if status == 33 else f"status {status}: {vm.output()[-400:]!r}"


def stop_continue():
    vm = Vm("storm=sleep,rearm mode=lazy ops=20000 timeout=300us")
    vm.wait_for("sleep/lazy")
    count = 0
    try:
        while vm.process.poll() is None and count < 200:
            vm.command("stop")
            vm.command("cont")
            count += 1
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    return passed(vm.finish(), vm) if count >= 100 else f"ended after {count} stops"


def reset():
    vm = Vm("storm=sleep mode=lazy ops=8000 timeout=300us")
    for times in range(1, 6):
        end = time.monotonic() + LIMIT
        while vm.output().count("sleep/lazy") < times:
            if time.monotonic() > end:
                return f"reset {times} does not boot: {vm.output()[-300:]!r}"
            time.sleep(0.02)
        time.sleep(0.3)
        vm.command("system_reset")
    return passed(vm.finish(), vm)


def migrate():
    options = "storm=sleep,expire mode=lazy ops=20000 timeout=5ms"
    vm = Vm("storm=sleep mode=lazy ops=20000 timeout=1ms")
    vm.wait_for("sleep/lazy")
    for _ in range(5):
        time.sleep(0.3)
        path = os.path.join(vm.directory, "migrate")
        to = Vm(options, "-incoming", f"unix:{path}")
        vm.command("migrate", uri=f"unix:{path}")
        end = time.monotonic() + LIMIT
        while vm.command("query-migrate").get("status") != "completed":
            if time.monotonic() > end:
                return f"does not migrate: {vm.command('query-migrate')}"
            time.sleep(0.02)
        vm.end()
        vm = to
    return passed(vm.finish(), vm)


def job(vm, name, **arguments):
    """Runs a QMP command that is a job, to its end."""
    vm.command(name, **{"job-id": "job", **arguments})
    while True:
        state = vm.command("query-jobs")[0]
        if state["status"] == "concluded":
            vm.command("job-dismiss", id="job")
            if "error" in state:
                raise RuntimeError(state["error"])
            return
        time.sleep(0.02)


def snapshot():
    vm = Vm("storm=sleep mode=lazy ops=20000 timeout=1ms")
    path = os.path.join(vm.directory, "disk")
    job(vm, "blockdev-create", options={"driver": "file", "filename": path, "size": 0})
    vm.command("blockdev-add", **{"driver": "file", "filename": path, "node-name": "file"})
    job(vm, "blockdev-create", options={"driver": "qcow2", "file": "file", "size": 1 << 26})
    vm.command("blockdev-add", **{"driver": "qcow2", "file": "file", "node-name": "disk"})
    vm.wait_for("sleep/lazy")
    time.sleep(0.3)
    job(vm, "snapshot-save", tag="one", vmstate="disk", devices=["disk"])
    for _ in range(10):
        time.sleep(0.3)
        job(vm, "snapshot-load", tag="one", vmstate="disk", devices=["disk"])
    return passed(vm.finish(), vm)


for name in sys.argv[2:]:
    try:
        print(f"{name}: {globals()[name]()}", flush=True)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
