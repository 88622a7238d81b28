# SPDX-License-Identifier: MIT
"""Runs in the emulated host: what a VMM that does not know the protocol does to a
guest in its storm, COUNT times each. Prints one line for each, `name: ok, figures` or
`name: what went wrong`.

    vmm.py IMAGE TINYVMM NAME=COUNT...

A timer that is lost is found at once: after each fault the guest has to set further
deadlines, and sleep does that only when a timer has fired. Looking at the guest must not
help it, and each exit to QEMU would, so its memory is a file that is looked at from here."""

import contextlib
import glob
import json
import mmap
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lab.results import Serial

IMAGE, TINY = sys.argv[1:3]
LIMIT = 180     # seconds for a guest to end by itself, or to boot
WAIT = 0.005    # seconds between two looks
HANG = 30       # seconds without a timer; an emulated host may stand still for a few
MEMORY = 32     # megabytes
PAGE = 4096
HOST, PENDING, END = 8, 16, 64      # in the area, as docs/protocol.md has it
SUCCESS = 33    # the guest's, through isa-debug-exit
AT_ONCE = 20    # guests
SHORT = "storm=sleep mode=lazy ops=50 timeout=300us"


class Wrong(Exception):
    """What a test has found."""


begun = []      # processes of this test


def begin(command, **settings):
    begun.append(subprocess.Popen(command, **settings))
    return begun[-1]


def feature_of(process):
    """MSR_KVM_LAZY_TSCDEADLINE of a process' guest as KVM has it, 0 without."""
    for path in glob.glob(f"/sys/kernel/debug/kvm/{process.pid}-*/vcpu0/lazy-tscdeadline"):
        with contextlib.suppress(OSError), open(path) as file:
            return int(file.readline().split()[1], 0)
    return 0


def hanging(process, path):
    """What to say of a guest that hangs: its last words, and what KVM knows, twice."""
    found = [open(path, errors="replace").read()[-300:]]
    for _ in range(2):
        time.sleep(1)
        with open(f"/proc/{process.pid}/stat") as file:
            found.append(f"state {file.read().split()[2]}")
        for name in ("vcpu0/lazy-tscdeadline", "exit_counts.exits", "exit_counts.halt",
                     "exit_counts.kick", "exit_counts.timer_interrupt", "halt_wakeup"):
            for file in glob.glob(f"/sys/kernel/debug/kvm/{process.pid}-*/{name}"):
                found.append(f"{name} {open(file).read().split()}")
    return "a guest hangs: " + "; ".join(map(repr, found))


def judge(status, text):
    """Raises Wrong unless the guest has ended well and every timer fired in time."""
    serial = Serial()
    serial.write(text.encode())
    serial.finish()
    if serial.error:
        raise Wrong(str(serial.error))
    for row in serial.rows:
        if row["lost"] or row["early"]:
            raise Wrong(f"{row['workload']}/{row['mode']}: {row['lost']} lost, {row['early']} early,"
                        f" {row['timer_counts']}, latest {row['late_ns']['max']} ns")
    if status != SUCCESS or not serial.rows:
        raise Wrong(f"status {status}: {text[-400:]!r}")


def qemu(options, *more):
    return ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host,migratable=off",
            "-m", str(MEMORY), "-nodefaults", "-display", "none", "-kernel", IMAGE,
            "-append", options, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", *more]


class Vm:
    def __init__(self, options, *more):
        self.directory = tempfile.mkdtemp(dir="/dev/shm")
        self.serial, path, ram = (os.path.join(self.directory, name)
                                  for name in ("serial", "qmp", "ram"))
        self.area = 0
        began = time.monotonic()
        self.process = begin(qemu(
            options, "-serial", "file:" + self.serial, "-qmp", f"unix:{path},server=on,wait=off",
            "-object", f"memory-backend-file,id=ram,size={MEMORY}M,mem-path={ram},share=on",
            "-machine", "pc,memory-backend=ram", *more))
        self.socket = socket.socket(socket.AF_UNIX)
        self.until(lambda: not self.socket.connect_ex(path), "QEMU starts", wait=0.05)
        self.stream = self.socket.makefile("rw")
        self.stream.readline()
        self.command("qmp_capabilities")
        self.seconds = time.monotonic() - began
        with open(ram, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), MEMORY << 20)

    def command(self, name, **arguments):
        self.stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            line = self.stream.readline()
            if not line:
                raise EOFError(name)
            answer = json.loads(line)
            if "error" in answer:
                raise Wrong(f"{name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def monitor(self, line):
        """A command of the human monitor, which says nothing if all is well."""
        said = self.command("human-monitor-command", **{"command-line": line})
        if said:
            raise Wrong(f"{line}: {said.strip()}")

    def output(self):
        try:
            with open(self.serial, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def until(self, condition, what, limit=None, wait=None):
        end = time.monotonic() + (limit or LIMIT)
        while not condition():
            if time.monotonic() > end:
                raise Wrong(f"not: {what}; {self.state()}")
            time.sleep(wait or WAIT)

    def feature(self):
        return feature_of(self.process)

    def word(self, offset):
        return struct.unpack_from("<Q", self.memory, self.area + offset)[0]

    def state(self):
        words = [hex(self.word(offset)) for offset in (0, HOST, PENDING)] if self.area else []
        return f"msr {self.feature():#x}, area {words}, said {self.output()[-200:]!r}"

    def wait_for_storm(self):
        """Until the guest has turned the feature on and set deadlines."""
        self.until(self.feature, "the guest turns the feature on", wait=0.02)
        self.area = self.feature() & -64
        self.wait_for_timers()
        time.sleep(random.random() * 0.003)

    def wait_for_timers(self, count=3):
        """Until the guest has set so many deadlines more; False if it has ended instead."""
        for _ in range(count):
            last = self.word(PENDING)
            self.until(lambda: self.word(PENDING) != last or self.process.poll() is not None,
                       "the guest sets another deadline", HANG, wait=0.001)
        return self.process.poll() is None

    def finish(self):
        try:
            status = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            status = f"hangs, {self.state()}"
        judge(status, self.output())
        self.end()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.memory.close()
        shutil.rmtree(self.directory)


def stop_continue(count):
    """The feature stays on over each, but for the one at the very end of a storm."""
    times = on = guests = 0
    while times < count:
        vm = Vm(f"storm=sleep mode=lazy ops={max(1000, 12 * count)} timeout=300us")
        vm.wait_for_storm()
        with contextlib.suppress(EOFError, ConnectionError):
            while times < count and vm.wait_for_timers(2):
                time.sleep(random.random() * 0.003)
                vm.command("stop")
                vm.command("cont")
                times += 1
                on += vm.feature() != 0
        vm.finish()
        guests += 1
    if on < count - guests:
        raise Wrong(f"the feature was on after {on} of {count} only")
    return f"feature on after {on}, {guests} guests"


def scribble(vm, kept):
    """Over the area's page, but for the words by which KVM would know its area again."""
    page = vm.area & -PAGE
    vm.memory[page:page + PAGE] = b"\x5a" * PAGE
    vm.memory[vm.area + HOST:vm.area + PENDING + 8] = kept
    return vm.memory[page:page + PAGE]


def watch(vm, expected, enough):
    """Not one byte of the old area may be written while the firmware runs, until the loader
    overwrites all of its page with the image, or for so many looks. Returns how often nothing
    was."""
    page = vm.area & -PAGE
    inside = range(vm.area - page, vm.area - page + END)
    for looks in range(enough):
        now = vm.memory[page:page + PAGE]
        if now != expected:
            time.sleep(0.1)
            now = vm.memory[page:page + PAGE]
            if all(number in inside for number in range(PAGE) if now[number] != expected[number]):
                raise Wrong(f"the old area is written: {now[inside.start:inside.stop].hex()}")
            return looks
        time.sleep(0.005)
    return enough


def job(vm, name, **arguments):
    """Runs a QMP command that is a job, to its end."""
    vm.command(name, **{"job-id": "job", **arguments})
    vm.until(lambda: vm.command("query-jobs")[0]["status"] == "concluded", name)
    (state,) = vm.command("query-jobs")
    vm.command("job-dismiss", id="job")
    if "error" in state:
        raise Wrong(state["error"])


def add_disk(vm):
    path = os.path.join(vm.directory, "disk")
    job(vm, "blockdev-create", options={"driver": "file", "filename": path, "size": 0})
    vm.command("blockdev-add", **{"driver": "file", "filename": path, "node-name": "file"})
    job(vm, "blockdev-create", options={"driver": "qcow2", "file": "file", "size": 1 << 20})
    vm.command("blockdev-add", **{"driver": "qcow2", "file": "file", "node-name": "disk"})


def before_storm(*more):
    """A guest that has been saved as it was before it turned the feature on."""
    vm = Vm("storm=sleep mode=lazy ops=3000 timeout=300us", *more)
    add_disk(vm)
    vm.until(vm.output, "the guest says something", wait=0.001)
    vm.command("stop")
    for _ in range(20):
        if not vm.feature() and "/lazy" not in vm.output():
            break
        os.truncate(vm.serial, 0)
        vm.command("system_reset")
        vm.command("cont")
        vm.until(vm.output, "the guest says something", wait=0.001)
        vm.command("stop")
    else:
        raise Wrong("the guest is always in its storm before it can be stopped")
    vm.monitor("savevm before")
    vm.command("cont")
    return vm


def reset(count):
    """Nine in ten while QEMU has stopped the guest, so that memory can be compared. Then it is
    loaded, as a boot through the firmware takes seconds here; one in a hundred boots."""
    looks = booted = 0
    # The firmware waits at its menu, so that there is something to look at.
    vm = before_storm("-boot", "menu=on,splash-time=100")
    for number in range(count):
        vm.wait_for_storm()
        stopped = number % 10 != 9
        if stopped:
            vm.command("stop")
            if not vm.feature():
                raise Wrong("the storm was over")
            kept = vm.memory[vm.area + HOST:vm.area + PENDING + 8]
        storms = vm.output().count("sleep/lazy")
        vm.command("system_reset")
        vm.until(lambda: not vm.feature(), "a reset turns the feature off", 10)
        if stopped:
            expected = scribble(vm, kept)   # QEMU has put the image there
            vm.command("cont")
            looks += watch(vm, expected, 20)
        if number % 100 == 4:   # a few of them, too, have one
            vm.until(lambda: vm.output().count("sleep/lazy") > storms, f"boots after {number}")
            booted += 1
        else:
            vm.monitor("loadvm before")
    vm.finish()
    if looks < 5 * count:
        raise Wrong(f"only {looks} looks at the old area")
    return f"{looks} looks at the old area, {booted} boots"


def snapshot(count):
    """Each round loads the guest as it was before it turned the feature on, saves it in its
    storm, lets it go on, and loads it back, which turns the feature off."""
    vm = before_storm()
    for number in range(count):
        if number:
            vm.monitor("loadvm before")
        vm.wait_for_storm()
        vm.monitor("savevm storm")
        if not vm.feature():
            raise Wrong(f"savevm {number} turns the feature off")
        vm.wait_for_timers(2)
        vm.monitor("loadvm storm")
        vm.until(lambda: not vm.feature(), "loadvm turns the feature off", 10)
        vm.wait_for_timers()
    vm.finish()
    return f"{count} savevm, {2 * count - 1} loadvm"


def send(vm, uri):
    vm.command("migrate", uri=uri)
    vm.until(lambda: vm.command("query-migrate").get("status") == "completed", "migrates",
             wait=0.02)


STORM = "storm=sleep mode=lazy ops=6000 timeout=300us"


def sources(count, prepare=lambda number: None):
    """A guest in its storm each time, and what prepare(number) made before that. It is booted
    anew in between."""
    vm = Vm(STORM, "-S")
    for number in range(count):
        prepared = prepare(number)
        vm.command("system_reset")
        vm.until(lambda: not vm.feature(), "a reset turns the feature off", 10)
        vm.command("cont")
        vm.wait_for_storm()
        yield number, vm, prepared
        vm.until(lambda: vm.command("query-status")["status"] == "postmigrate", "has migrated")
    vm.end()


def go_on(vm, area):
    """On the host that it has come to, where KVM does not know of the feature."""
    vm.area = area
    if vm.feature():
        raise Wrong("the feature is on")
    if not vm.wait_for_timers():
        raise Wrong("the storm was over")
    vm.finish()


def migrate(count):
    """On one machine, from QEMU to QEMU."""
    path = "/dev/shm/migrate"
    for _, vm, to in sources(count, lambda _: Vm(STORM, "-incoming", f"unix:{path}")):
        send(vm, f"unix:{path}")
        go_on(to, vm.area)
    return ""


def migrate_out(count):
    """To files, for migrate_in on another host."""
    share = os.environ["SLOTH_SHARE"]
    for number, vm, _ in sources(count):
        send(vm, "exec:cat >/dev/shm/out")
        shutil.move("/dev/shm/out", f"{share}/{number}-{vm.area}")
    return ""


def migrate_in(count):
    share = os.environ["SLOTH_SHARE"]
    files = os.listdir(share)
    if len(files) != count:
        raise Wrong(f"{len(files)} files")
    for name in files:
        vm = Vm(STORM, "-incoming", f"exec:cat {share}/{name}")
        vm.until(lambda: vm.command("query-status")["status"] == "running", "comes in")
        go_on(vm, int(name.split("-")[1]))
    return ""


def tiny(fault, count, storm="storm=sleep mode=lazy timeout=300us"):
    """See tinyvmm.c. How often it was done, and with the feature on."""
    done = subprocess.run([TINY, IMAGE, storm, fault, str(count), str(random.randrange(1 << 30))],
                          capture_output=True, text=True)
    figures = re.match(r"(\d+) times, ACTIVE in (\d+)$", done.stderr)
    if not figures:
        raise Wrong(f"status {done.returncode}: {done.stderr.strip()}")
    judge(done.returncode, done.stdout)
    return map(int, figures.groups())


def in_place(fault, count, storm="storm=sleep mode=lazy timeout=300us ops={}", ops=12):
    """Faults after which the guest goes on, as many guests as it takes."""
    times = active = guests = 0
    while times < count:
        rest = count - times
        more, on = tiny(fault, rest, storm.format(ops * rest + 200))
        times, active, guests = times + more, active + on, guests + 1
    return f"ACTIVE in {active}, {guests} guests"


def init(count):
    return "ACTIVE in {1}".format(*tiny("init", count))


def reset_state(count):
    return "ACTIVE in {1}".format(*tiny("reset", count))


def stop_tiny(count):
    return in_place("stop", count)


def snapshot_tiny(count):
    """The guest turns the feature off and on all the time: after a loadvm it would stay off."""
    return in_place("snapshot", count, "storm=faults faults=feature mode=lazy ops={}", 4)


def tsc(count):
    return in_place("tsc", count)


def meanwhile(count, ops, what, wait=0):
    """A guest whose storm goes on while what(process, number) is done count times. The guests
    that it took."""
    number = guests = 0
    while number < count:
        guest = begin([TINY, IMAGE, f"storm=sleep mode=lazy timeout=300us ops={ops}"],
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = guest.stdout.readline()
        while said and "/lazy" not in said:
            said = guest.stdout.readline()
        while number < count and guest.poll() is None:
            what(guest, number)
            number += 1
            time.sleep(wait)
        try:
            rest = guest.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            raise Wrong(f"hangs after {number}") from None
        judge(guest.returncode, rest)
        guests += 1
    return guests


def sigstop(count):
    """The whole VM, for seconds, many VMs at a time; no longer than what the storm takes for a
    lost timer, 5 s."""
    command = [TINY, IMAGE, "storm=sleep mode=lazy timeout=300us ops=5000"]
    running = {}        # process: output file, when it began, until when it is stopped
    seconds, guests = [], 0
    while len(seconds) < count or running:
        if len(seconds) < count and len(running) < AT_ONCE:
            path = f"/dev/shm/guest-{guests}"
            guests += 1
            with open(path, "wb") as file:
                running[begin(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)] = [
                    path, time.monotonic(), None]
        for process, entry in list(running.items()):
            path, began, until = entry
            if until is not None:
                if time.monotonic() > until:
                    process.send_signal(signal.SIGCONT)
                    entry[2] = None
            elif has_ended(process, path):
                del running[process]
                os.unlink(path)
            elif time.monotonic() - began > 3 * LIMIT:
                raise Wrong(hanging(process, path))
            elif (len(seconds) < count and random.random() < 0.03
                  and b"/lazy" in open(path, "rb").read()):
                seconds.append(random.uniform(0.5, 3))
                entry[2] = time.monotonic() + seconds[-1]
                process.send_signal(signal.SIGSTOP)
        time.sleep(0.01)
    return f"{sum(seconds):.0f} s in all, the longest {max(seconds):.1f} s, {guests} guests"


def sigstop_short(count):
    """For up to 2 ms."""

    def stop(guest, number):
        guest.send_signal(signal.SIGSTOP)
        time.sleep(random.random() * 0.002)
        guest.send_signal(signal.SIGCONT)

    return f"{meanwhile(count, 6 * count, stop, 0.003)} guests"


def clock(count):
    """The host's CLOCK_REALTIME is set, by up to an hour from the true time."""
    began, mono = time.time(), time.monotonic()

    def jump(guest, number):
        true = began + time.monotonic() - mono
        time.clock_settime(time.CLOCK_REALTIME, true + random.uniform(-3600, 3600))

    try:
        return f"{meanwhile(count, 6 * count, jump, 0.002)} guests"
    finally:
        time.clock_settime(time.CLOCK_REALTIME, began + time.monotonic() - mono)


GAP, STOLEN = 0.0004, 0.9


def burn(count):
    """Takes that share of the CPU from all that is not real time, in so many bursts. A command of
    its own. A gap is longer than asked for, and the burst behind it as much longer."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    began = time.monotonic()
    given = 0
    for _ in range(count):
        left = time.monotonic()
        time.sleep(GAP)
        now = time.monotonic()
        given += now - left
        # One that the emulator stood still for would make a burst of seconds.
        end = now + STOLEN / (1 - STOLEN) * min(now - left, 5 * GAP)
        while now < end:
            now = time.monotonic()
    return f"{1 - given / (now - began):.1%} of the CPU taken"


def steal(count):
    """Host load that takes 90 % of the only CPU's time while the guest is in its storm: a fault
    is one burst of it."""
    with open("/proc/sys/kernel/sched_rt_runtime_us", "w") as file:
        file.write("-1")
    burner = []

    def start(guest, number):
        burner.append(begin([sys.executable, "-B", __file__, IMAGE, TINY, f"burn={count}"],
                            stdout=subprocess.PIPE, text=True))

    guests = meanwhile(1, count, start)
    while burner[0].poll() is None:
        guests += meanwhile(1, count // 4, lambda guest, number: None)
    said = burner[0].stdout.read().strip()
    if ": ok, " not in said:
        raise Wrong(said)
    return f"{said.rpartition(', ')[2]}, {guests} guests"


def crowd(count, command, ended):
    """count processes, AT_ONCE at a time, of QEMU what fits into the host's memory.
    ended(process, output file), polled, tells when one is over."""
    running = []
    started = 0
    at_once = AT_ONCE if command[0] == TINY else AT_ONCE // 3
    while started < count or running:
        if started < count and len(running) < at_once:
            path = f"/dev/shm/guest-{started}"
            with open(path, "wb") as file:
                running.append((begin(command, stdin=subprocess.DEVNULL, stdout=file,
                                      stderr=file), path, time.monotonic()))
            started += 1
        for entry in list(running):
            process, path, began = entry
            if ended(process, path):
                running.remove(entry)
                os.unlink(path)
            elif time.monotonic() - began > 3 * LIMIT:
                raise Wrong(hanging(process, path))
        time.sleep(0.01)


def has_ended(process, path):
    if process.poll() is None:
        return False
    with open(path, errors="replace") as file:
        judge(process.returncode, file.read())
    return True


def killed(process, path):
    """At a random moment of its storm."""
    if process.poll() is not None:
        raise Wrong(f"status {process.returncode}: {open(path, errors='replace').read()[-300:]!r}")
    if b"/lazy" not in open(path, "rb").read():
        return False
    if random.random() < 0.7:
        return False
    process.kill()
    process.wait()
    return True


def slabs():
    """Objects in use of the caches that KVM takes from, after the unused are given back."""
    found = {}
    for name in os.listdir("/sys/kernel/slab"):
        if name.startswith(("kvm", "x86_emulator", "kmalloc")):
            with contextlib.suppress(OSError), open(f"/sys/kernel/slab/{name}/shrink", "w") as file:
                file.write("1")
    with open("/proc/slabinfo") as file:
        for line in file:
            name, active, *_ = line.split()
            if name.startswith(("kvm", "x86_emulator", "kmalloc")):
                found[name] = int(active)
    return found


def uses():
    with open("/proc/modules") as file:
        return {line.split()[0]: int(line.split()[2]) for line in file if line.startswith("kvm")}


def without_leak(count, command, ended):
    """A leak of one object each would show as count objects in some cache."""
    idle = uses()
    crowd(AT_ONCE, command, ended)
    before = slabs()
    crowd(count, command, ended)
    time.sleep(1)
    after = slabs()
    if uses() != idle:
        raise Wrong(f"module use counts {idle} before, {uses()} after")
    if glob.glob("/sys/kernel/debug/kvm/*-*"):
        raise Wrong("machines are left in debugfs")
    more = {name: after[name] - before.get(name, 0) for name in after
            if after[name] != before.get(name, 0)}
    if any(number > max(count // 4, 100) for number in more.values()) or after.get("kvm_vcpu"):
        raise Wrong(f"objects left: {more}, kvm_vcpu {after.get('kvm_vcpu')}")
    return f"objects more than before: {more or 'none'}"


# Of QEMU's machines the one that takes half the time to start.
QUICK = "-serial", "stdio", "-monitor", "none", "-M", "microvm"
ENDLESS = "storm=sleep mode=lazy ops=1000000 timeout=300us"


def many(count):
    return without_leak(count, [TINY, IMAGE, SHORT], has_ended)


def many_qemu(count):
    return without_leak(count, qemu(SHORT, *QUICK), has_ended)


def kill(count):
    return without_leak(count, [TINY, IMAGE, ENDLESS], killed)


def kill_qemu(count):
    return without_leak(count, qemu(ENDLESS, *QUICK), killed)


def unload(count):
    """Last of all: the modules can be taken out, and the kernel had nothing to say."""
    for _ in range(count):
        vendor = next(name for name in uses() if name != "kvm")
        subprocess.run(["busybox", "rmmod", vendor, "kvm"], check=True)
    if uses():
        raise Wrong(f"still loaded: {uses()}")
    log = subprocess.run(["busybox", "dmesg"], capture_output=True, text=True).stdout
    if "BUG" in log or "WARNING" in log or "Objects remaining" in log:
        raise Wrong(log[-2000:])
    return ""


def main(words):
    for word in words:
        name, number = word.split("=")
        began = time.monotonic()
        try:
            figures = globals()[name](int(number))
            print(f"{name}: ok, {number} in {time.monotonic() - began:.0f} s"
                  f"{', ' if figures else ''}{figures}", flush=True)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error} ({time.monotonic() - began:.0f} s)",
                  flush=True)
        for process in begun:
            process.kill()
            process.wait()
        begun.clear()


if __name__ == "__main__":
    main(sys.argv[3:])
