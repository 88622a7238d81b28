# SPDX-License-Identifier: MIT
"""The emulated host: a Debian kernel under QEMU with this machine's files, in which
one command runs.

    host = Host(series="6.12", stock=False, accel="tcg")
    status = host.run(["uname", "-r"])

Three ends are told apart. The command ends: its status. The emulated host stops
(its heartbeat, a byte each second from a loop outside of everything else, is silent
while the emulator lives): it is started again, at most RETRIES times, unless the
command has already said something or the kernel has complained. The time limit
passes: a failure, whatever the reason.

QEMU's software SVM can lose the interrupt of the host's own timer: the timer's thread
and the CPU's, at VMRUN and #VMEXIT, both change CPUState.interrupt_request, and the
CPU's does so without a lock. The vector then waits in the emulated APIC, nobody looks,
and as the timer is a one-shot the host stands still. Any other interrupt makes QEMU look
again. So after NUDGE seconds of silence the lab sends the host one."""

import contextlib
import dataclasses
import fcntl
import os
import re
import selectors
import shlex
import shutil
import signal
import socket
import stat
import struct
import termios
import time
import tty

from lab import debs, initramfs, modules, system, ui
from lab.system import BUILD
from lab.ui import Fail

BOOT_MODULES = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay")
MEMORY = 1536           # megabytes of the emulated host
BOOT_LIMIT = 60         # seconds from start to the command
NUDGE = 1.5             # seconds without a heartbeat: the host may have lost an interrupt
SILENCE = 10            # seconds without a heartbeat: the host is dead
RETRIES = 2
ESCAPE = b"\x1d"        # Ctrl-] ends a host with a terminal

CONSOLE_LOG = BUILD / "host-console.log"
COMPLAINT = re.compile(r"\bBUG\b|\bOops\b|WARNING: CPU|general protection|Kernel panic|soft lockup"
                       r"|hard LOCKUP|unchecked MSR access|sloth: init:")
KERNEL_ARGUMENTS = ("quiet loglevel=5 console=ttyS0 tsc=reliable mitigations=off nokaslr no5lvl"
                    " random.trust_cpu=on panic=-1 cryptomgr.notests audit=0 no_timer_check idle=poll")
ENVIRONMENT = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER")


class Dead(Exception):
    """The emulated host stopped. `why` for the user; `harmless` if its kernel did not
    complain; `retry` if, besides, the command has not said or read anything."""

    def __init__(self, why, harmless, retry=False):
        super().__init__(why)
        self.harmless, self.retry = harmless, retry


class TimeLimit(Fail):
    """The command did not end in time."""

    def __init__(self, seconds, doing, alive=""):
        super().__init__(f"time limit of {seconds:g} s passed while {doing}", 124)
        self.alive = alive


@dataclasses.dataclass
class Descriptor:
    """Where output goes: a file descriptor of ours."""

    number: int

    def write(self, data):
        while data:
            data = data[os.write(self.number, data):]


def complains(log, complaint=COMPLAINT):
    """Whether a kernel's log holds a complaint; then the lines from there on are shown."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if complaint.search(line):
            ui.say("the emulated host's kernel complains:")
            for quoted_line in lines[number:number + 40]:
                ui.say("| " + quoted_line.rstrip())
            return True
    return False


class Ending:
    """Passes a stream on up to the marker that says it is complete."""

    def __init__(self, marker, sink):
        self.marker, self.sink = marker, sink
        self.held = b""
        self.complete = False
        self.passed = 0

    def feed(self, data):
        if self.complete:
            return
        data = self.held + data
        at = data.find(self.marker)
        if at >= 0:
            self.complete, out, self.held = True, data[:at], b""
        else:
            # Keep back an end that may be the beginning of the marker.
            keep = next((n for n in range(min(len(self.marker) - 1, len(data)), 0, -1)
                         if data.endswith(self.marker[:n])), 0)
            out, self.held = data[:len(data) - keep], data[len(data) - keep:]
        if out:
            self.passed += len(out)
            self.sink.write(out)


def terminal_size(descriptor):
    packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
    rows, columns = struct.unpack("HHHH", packed)[:2]
    return (rows, columns) if rows and columns else (24, 80)


def forwarded_stdin():
    """Our standard input where the command shall have it: a file or a pipe."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return None
    return 0 if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def script(argv, directory, extra):
    """The shell script that becomes the command, quoted throughout."""
    environment = {name: value for name, value in os.environ.items()
                   if name in ENVIRONMENT or name.startswith("LC_")}
    environment.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    environment.setdefault("HOME", "/root")
    environment.update(SLOTH_SHARE="/run/sloth", PWD=str(directory), **extra)
    words = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    return (f"cd {shlex.quote(str(directory))} || exit 125\n"
            f"exec env -i {words} {' '.join(shlex.quote(str(word)) for word in argv)}\n")


class Host:
    boot_modules = BOOT_MODULES             # what its init needs before KVM
    vendors = ("kvm_amd", "kvm_intel")      # which of the two is its own shows at boot
    init = initramfs.INIT
    cpus, memory = 1, MEMORY
    boot_limit, silence = BOOT_LIMIT, SILENCE
    complaint = COMPLAINT

    def __init__(self, series=None, stock=False, accel="tcg", options=()):
        """options: module options, "kvm.NAME=VALUE" and the like."""
        self.series = series or modules.default_series()
        self.stock, self.accel = stock, accel
        self.options = self.sort_options(options)
        self.share = None

    @staticmethod
    def sort_options(options):
        table = {name: [] for name in modules.NAMES}
        for option in options:
            match = re.fullmatch(r"(kvm|kvm[-_]amd|kvm[-_]intel)\.(\w+=[\w.,-]*)", option)
            if not match:
                raise ui.Usage(f"--kvm-arg={option}: expected MODULE.NAME=VALUE, MODULE one of"
                               f" kvm, kvm_amd, kvm_intel")
            table[match.group(1).replace("-", "_")].append(match.group(2))
        return table

    @property
    def label(self):
        return f"{self.accel}-stock" if self.stock else self.accel

    def prepare(self):
        """Everything a boot needs; slow the first time."""
        kernel = debs.get(self.series)
        patched = None if self.stock else modules.build(self.series)
        with system.build_lock("image"):
            image = debs.image(kernel, BOOT_MODULES + modules.NAMES)
        files = {file.stem: file for file in (image / "modules").glob("*.ko")}
        if patched:
            files.update({file.stem: file for file in patched.glob("*.ko")})
        self.kernel = kernel
        self.vmlinux = image / "vmlinux"
        builtin = (image / "builtin").read_text().split()
        self.boot_list = debs.load_order([name for name in self.boot_modules
                                          if name not in builtin], files)
        everything = debs.load_order(("kvm", *self.vendors), files)
        self.kvm_list = [name for name in everything
                         if name not in self.boot_list and name not in self.vendors]
        self.base = initramfs.base([files[name] for name in dict.fromkeys(
            self.boot_list + everything)], self.init)

    def emulation(self):
        """QEMU's options for the machine, and the kernel's arguments."""
        cpu = "max,la57=off" if self.accel == "tcg" else "host"
        return ["-accel", self.accel, "-cpu", cpu], KERNEL_ARGUMENTS

    # One command.

    def run(self, argv, *, stdin=None, stdout=None, stderr=None, terminal=False, directory=None,
            environment=None, limit=None, share=None, quiet=False, start=None, again=None):
        """Runs argv in the host and returns its exit status, 128 + n for signal n.

        stdin: a descriptor, or None. stdout, stderr: objects with write(bytes). limit:
        seconds for the command, boot not included. share: a directory that the command
        sees, writable, as $SLOTH_SHARE. start: called when the command starts. again:
        called before the command is started once more although it has said something;
        without it such a command is not."""
        self.prepare()
        offset = self.position(stdin)
        for attempt in range(1, RETRIES + 2):
            with system.run_directory() as place:
                try:
                    with Boot(self, place, argv, stdin=stdin, stdout=stdout or Descriptor(1),
                              stderr=stderr or Descriptor(2), terminal=terminal,
                              directory=directory or os.getcwd(), extra=environment or {},
                              share=share or place / "share", limit=limit, quiet=quiet,
                              start=start) as boot:
                        return boot.supervise()
                except Dead as dead:
                    log = BUILD / f"host-dead-{attempt}.log"
                    if not (dead.retry or (again and dead.harmless)) or attempt > RETRIES:
                        raise Fail(f"{dead}; see {log} and {CONSOLE_LOG}", 125) from None
                    ui.say(f"{dead}; its state is in {log}; starting it again"
                           f" ({attempt} of {RETRIES})")
                    self.attempt = attempt + 1
                    if again:
                        again()
                    if offset is not None:
                        os.lseek(stdin, offset, os.SEEK_SET)
        raise AssertionError("not reached")

    attempt = 1
    complaints = False  # whether the kernel of the last run's host complained

    @staticmethod
    def position(stdin):
        try:
            return None if stdin is None else os.lseek(stdin, 0, os.SEEK_CUR)
        except OSError:
            return None


class Boot:
    """One start of the emulated host."""

    def __init__(self, host, place, argv, **settings):
        self.host, self.place, self.argv = host, place, argv
        self.__dict__.update(settings)
        self.selector = selectors.DefaultSelector()
        self.ports = {}
        self.saved_terminal = None
        self.ready = False
        self.exit_status = None
        self.used_stdin = 0

    # Start and end.

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, value, trace):
        if getattr(self, "qemu", None):
            system.kill(self.qemu)
        if self.saved_terminal:
            termios.tcsetattr(0, termios.TCSAFLUSH, self.saved_terminal)
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        for port in self.ports.values():
            port.close()
        self.selector.close()
        log = self.place / "console.log"
        if log.is_file():
            shutil.copyfile(log, CONSOLE_LOG)

    def begin(self):
        marker = "sloth-" + os.urandom(16).hex()
        mark = b"\0" + marker.encode()
        self.streams = {}
        if self.terminal:
            self.streams["console"] = Ending(mark, self.stdout)
        else:
            self.streams["stdout"] = Ending(mark, self.stdout)
            self.streams["stderr"] = Ending(mark, self.stderr)
        (self.place / "share").mkdir()
        rows, columns = terminal_size(0) if self.terminal else (24, 80)
        settings = {
            "boot": " ".join(self.host.boot_list), "kvm": " ".join(self.host.kvm_list),
            **{f"{name}_options": " ".join(options)
               for name, options in self.host.options.items()},
            "mode": "tty" if self.terminal else "pipe", "marker": marker,
            "size": f"rows {rows} cols {columns}",
            "stdin": "no" if self.stdin is None else "yes",
            "command": script(self.argv, self.directory, self.extra)}
        (self.place / "initrd").write_bytes(self.host.base + initramfs.command(settings))
        theirs = {}
        for name in ("heartbeat", "control", "stdout", "stderr", "stdin", "console", "monitor"):
            ours, theirs[name] = socket.socketpair()
            self.ports[name] = ours
        self.qemu = system.spawn(self.command_line(theirs), pass_fds=[s.fileno()
                                 for s in theirs.values()], stdout=open(self.place / "qemu.log",
                                 "wb"), stderr=open(self.place / "qemu.log", "ab"))
        for end in theirs.values():
            end.close()
        self.started = self.beat = self.nudged = time.monotonic()
        for name in ("heartbeat", "control", *self.streams):
            self.selector.register(self.ports[name], selectors.EVENT_READ, name)
        if self.terminal:
            self.saved_terminal = termios.tcgetattr(0)
            tty.setraw(0)
            signal.signal(signal.SIGWINCH, lambda *_: self.send_size())
            self.selector.register(0, selectors.EVENT_READ, "keyboard")

    def command_line(self, ends):
        machine, arguments = self.host.emulation()
        argv = ["qemu-system-x86_64", "-name", "sloth-host", "-nodefaults", "-no-user-config",
                "-display", "none", "-no-reboot", *machine,
                "-smp", str(self.host.cpus), "-m", str(self.host.memory),
                "-kernel", self.host.vmlinux, "-initrd", self.place / "initrd",
                "-append", arguments,
                "-serial", f"file:{self.place / 'console.log'}",
                "-virtfs", "local,path=/,mount_tag=machine,readonly=on,security_model=none,"
                           "multidevs=remap",
                "-virtfs", f"local,path={quoted(self.share)},mount_tag=share,security_model=none,"
                           "multidevs=remap",
                "-device", "virtio-serial-pci,max_ports=8"]
        for name, end in ends.items():
            argv += ["-chardev", f"socket,id={name},fd={end.fileno()}"]
        for number, name in enumerate(("heartbeat", "control", "stdout", "stderr", "stdin"), 1):
            argv += ["-device", f"virtserialport,nr={number},chardev={name},name=sloth.{name}"]
        return argv + ["-device", "virtconsole,nr=0,chardev=console",
                       "-mon", "chardev=monitor,mode=readline"]

    # While it runs.

    def supervise(self):
        """Until the command's exit status is known and all its output has passed."""
        with ui.step(f"starting the {'stock' if self.host.stock else 'patched'} host (Linux"
                     f" {self.host.kernel.version}, {self.host.accel})",
                     quiet=self.quiet or self.terminal):
            while not self.ready:
                self.turn()
        if self.start:
            self.start()
        while self.exit_status is None or not all(s.complete for s in self.streams.values()):
            self.turn()
        self.host.complaints = self.show_complaint()
        return self.exit_status

    def turn(self):
        events = self.selector.select(0.5)
        for key, mask in events:
            self.serve(key.data, mask)
        if self.exit_status is None:
            self.check()

    def serve(self, name, mask):
        if name == "keyboard":
            data = os.read(0, 4096)
            if not data or ESCAPE in data:
                raise Fail("ended by Ctrl-]" if data else "the terminal is gone", 125)
            self.ports["console"].sendall(data)
        elif name == "feed":
            self.feed_stdin()
        else:
            data = self.ports[name].recv(65536)
            if not data:
                self.selector.unregister(self.ports[name])
            elif name == "heartbeat":
                self.heard()
            elif name == "control":
                self.told(data.decode())
            else:
                self.streams[name].feed(data)

    def heard(self):
        now = time.monotonic()
        # A beat right behind the nudge is its work; one much later was only late.
        if self.nudged > self.beat and now - self.nudged < 0.3 and not self.terminal:
            ui.tell(f"the emulated host stood still for {now - self.beat:.1f} s, until it was"
                    " nudged on (docs/architecture.md)")
        self.beat = now

    def nudge(self):
        """An interrupt for the host: a line on the control port, which means nothing."""
        self.nudged = time.monotonic()
        with contextlib.suppress(OSError):
            self.ports["control"].send(b"\n", socket.MSG_DONTWAIT)

    def told(self, text):
        for line in text.splitlines():
            if line == "ready":
                self.ready, self.began = True, time.monotonic()
                if self.stdin is not None:
                    self.pending_input = b""
                    self.ports["stdin"].setblocking(False)
                    self.selector.register(self.ports["stdin"], selectors.EVENT_WRITE, "feed")
            elif line.startswith("exit "):
                self.exit_status = int(line[5:])

    def feed_stdin(self):
        """The port takes more. Reading our own input may block only for a moment: a
        pipe is asked first."""
        if not self.pending_input:
            readable = selectors.SelectSelector()
            readable.register(self.stdin, selectors.EVENT_READ)
            if not readable.select(0):
                time.sleep(0.02)
                return
            self.pending_input = os.read(self.stdin, 65536)
        port = self.ports["stdin"]
        if not self.pending_input:
            self.selector.unregister(port)
            port.shutdown(socket.SHUT_WR)
            return
        try:
            sent = port.send(self.pending_input)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.selector.unregister(port)
            return
        self.used_stdin += sent
        self.pending_input = self.pending_input[sent:]

    def send_size(self):
        rows, columns = terminal_size(0)
        self.ports["control"].sendall(f"size {rows} {columns}\n".encode())

    # Watching over it.

    def check(self):
        now = time.monotonic()
        ended = self.qemu.poll()
        if ended is not None:
            self.host_ended(ended)
        if self.ready and self.limit and now - self.began > self.limit:
            self.show_complaint()
            raise TimeLimit(self.limit, f"running {self.argv[0]}", "the emulated host was alive:"
                            f" its last heartbeat came {now - self.beat:.1f} s before")
        if self.ready and now - max(self.beat, self.nudged) > NUDGE:
            self.nudge()
        late = now - self.started > self.host.boot_limit and not self.ready
        if late or (self.ready and now - self.beat > self.host.silence):
            self.host_dead("did not come up" if late else "stopped: no heartbeat for"
                           f" {self.host.silence} s")

    def show_complaint(self):
        log = self.place / "console.log"
        return complains(log.read_text(errors="replace") if log.is_file() else "",
                         self.host.complaint)

    def host_ended(self, status):
        if self.show_complaint():
            raise Fail(f"the emulated host's kernel failed; all of its log: {CONSOLE_LOG}", 125)
        said = (self.place / "qemu.log").read_text(errors="replace").strip()
        if status != 0:
            last = said.splitlines()[-1] if said else "it said nothing"
            raise Fail(f"the emulator ended with status {status}: {last}", 125)
        raise Fail("the emulated host was powered off before the command ended", 125)

    def host_dead(self, what):
        self.diagnose(BUILD / f"host-dead-{self.host.attempt}.log", what)
        if self.show_complaint():
            raise Dead(f"the emulated host {what}, and its kernel had complained", harmless=False)
        # To run the command again is harmless only while it has said and read nothing
        # (a pipe cannot be read twice; a file is wound back).
        said = any(stream.passed for stream in self.streams.values())
        eaten = self.used_stdin and self.host.position(self.stdin) is None
        raise Dead(f"the emulated host {what}", harmless=True, retry=not (said or eaten))

    def diagnose(self, path, what):
        """What the emulator knows about its processor, three times a second apart."""
        parts = [f"{what}, {time.monotonic() - self.started:.1f} s after its start\n"]
        monitor = self.ports["monitor"]
        monitor.settimeout(2)
        for sample in range(3):
            for command in ("info status", "info registers", "info lapic", "info pic",
                            "info irq"):
                answer = ask(monitor, command)
                parts.append(f"== {sample}: {command}\n{answer}")
                if SILENT in answer:
                    break  # the emulator itself has stopped
            with open(f"/proc/{self.qemu.pid}/stat") as stat_file:
                parts.append(f"== emulator: {stat_file.read()}")
            time.sleep(1)
        log = self.place / "console.log"
        if log.is_file():
            parts.append("== kernel log\n" + log.read_text(errors="replace"))
        path.write_text("\n".join(parts))


def quoted(path):
    """A path as part of a QEMU option: commas are doubled."""
    return str(path).replace(",", ",,")


SILENT = "[no answer"


def ask(monitor, command):
    """Answer of QEMU's monitor to one command; says so when there is none."""
    answer = b""
    try:
        monitor.sendall(command.encode() + b"\n")
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            answer += monitor.recv(65536)
            if answer.endswith(b"(qemu) ") and answer.count(b"\n") > 1:
                break
    except OSError as error:
        answer += f"{SILENT}: {error}]".encode()
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[^\n]*\x08", "", answer.decode(errors="replace"))
    return text.replace("\r", "")
