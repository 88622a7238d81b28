# SPDX-License-Identifier: MIT
"""--host=bochs: the host on an emulated Intel CPU. Bochs has what QEMU's emulation
lacks: VMX, and with it kvm-intel and the preemption timer.

    status = Host(series="6.12").run(["qemu-system-x86_64", ...], files=[image])

The machine is as poor as Bochs is slow: no virtio, no shared files. What the command
needs is put into the initramfs, and output comes over serial lines, which Bochs
writes to files. Bochs counts instructions for time (`sync=none`), so nothing here
depends on how fast, or how busy, this machine is, only how long it takes."""

import os
import re
import struct
import subprocess
import time
from pathlib import Path

from lab import host, initramfs, modules, system, ui
from lab.system import BUILD
from lab.ui import Fail

CPU = "corei7_haswell_4770"
# Instructions to the second, by the emulated machine's clocks. The more, the faster the
# host seems to its guest: with this many an exit costs some microseconds, as on real
# hardware. Above 429 million kvm-intel would not use the preemption timer, which counts
# at this rate and has 32 bits. Bochs itself does thirty to fifty million.
SPEED = 420_000_000
MEMORY = 512            # megabytes
BOOT_LIMIT = 600        # seconds from start to the command
LIMIT = 1800            # seconds for the command, when --timeout does not say otherwise
ASSEMBLY = Path(__file__).with_name("bochs.asm")
INIT = Path(__file__).with_name("bochs-init.sh")

# clearcpuid: this CPU claims to have threads and then counts one, of which Linux 6.12 warns.
KERNEL_ARGUMENTS = ("quiet loglevel=5 console=ttyS0,115200 tsc=reliable mitigations=off nokaslr"
                    " no5lvl random.trust_cpu=on panic=0 cryptomgr.notests audit=0 no_timer_check"
                    " rodata=off clearcpuid=ht")

# Not to be seen: `error` of the CPU would be a line for each MSR that Bochs does not
# know, and KVM reads one such at each entry.
SETTINGS = """\
config_interface: textconfig
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
vga: update_freq=1
memory: guest={memory}, host={memory}
cpu: model={cpu}, count=1, ips={speed}, reset_on_triple_fault=0
clock: sync=none, time0=utc
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path="disk", mode=flat, cylinders={cylinders}, heads={heads}, spt={sectors}
boot: disk
com1: enabled=1, mode=file, dev="console"
com2: enabled=1, mode=file, dev="stdout"
com3: enabled=1, mode=file, dev="stderr"
sound: driver=dummy
log: log
debugger_log: -
panic: action=fatal
error: action=report, cpu0=ignore
info: action=ignore
"""
HEADS, SECTORS = 16, 63

SAID = re.compile(r"^\[ *\d+\.\d+\] sloth: (.*)$", re.M)


# The disk: a boot sector (lab/bochs.asm), a block that says what to load where, Linux'
# segments, the initramfs.

PT_LOAD, PT_NOTE = 1, 4
PHYS32_ENTRY = 18           # the note that names the PVH entry
START_INFO_MAGIC = 0x336EC578
SECTOR = 512
BLOCK, BLOCK_SECTORS = 0x8000, 8    # these three as in lab/bochs.asm
MAP = 0xA000
START_INFO = BLOCK + 0x400          # the loads have the block up to here
MODULE = START_INFO + 56            # behind struct hvm_start_info
ARGUMENTS = MODULE + 32             # behind struct hvm_modlist_entry


def segments(vmlinux):
    """[(physical address, contents, size in memory)] of a 64-bit ELF kernel, and its
    32-bit PVH entry."""
    (headers,) = struct.unpack_from("<Q", vmlinux, 32)
    (count,) = struct.unpack_from("<H", vmlinux, 56)
    found, entry = [], None
    for number in range(count):
        kind, _, offset, _, address, size, room, _ = struct.unpack_from(
            "<IIQQQQQQ", vmlinux, headers + 56 * number)
        if kind == PT_LOAD:
            found.append((address, vmlinux[offset:offset + size].rstrip(b"\0"), room))
        elif kind == PT_NOTE:
            entry = entry or pvh_entry(vmlinux[offset:offset + size])
    if entry is None:
        raise Fail("the kernel has no PVH entry")
    return sorted(found), entry


def pvh_entry(notes):
    at = 0
    while at < len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name = at + 12
        value = name + (name_size + 3) // 4 * 4
        if notes[name:name + name_size] == b"Xen\0" and kind == PHYS32_ENTRY:
            return int.from_bytes(notes[value:value + size], "little")
        at = value + (size + 3) // 4 * 4
    return None


def block(entry, loads, initrd_address, initrd_size):
    """What the boot sector reads first, and what it hands on to Linux."""
    listed = b"".join(struct.pack("<4I", *load) for load in loads) + bytes(16)
    head = struct.pack("<2I", entry, START_INFO) + listed
    # The count of memory regions, last but one, is filled in by the boot sector.
    start_info = struct.pack("<4I4Q2I", START_INFO_MAGIC, 1, 0, 1, MODULE, ARGUMENTS, 0, MAP, 0, 0)
    module = struct.pack("<4Q", initrd_address, initrd_size, 0, 0)
    whole = (head.ljust(START_INFO - BLOCK, b"\0") + start_info + module
             + KERNEL_ARGUMENTS.encode() + b"\0")
    assert len(head) <= START_INFO - BLOCK and len(whole) <= BLOCK_SECTORS * SECTOR
    return whole.ljust(BLOCK_SECTORS * SECTOR, b"\0")


def disk(place, vmlinux, initrd):
    """Writes the disk to boot from; returns its number of cylinders."""
    status, output = system.call(["nasm", "-f", "bin", "-o", place / "boot-sector", ASSEMBLY])
    if status != 0:
        raise Fail(f"{ASSEMBLY.name} does not assemble: {output.strip()}")
    parts, entry = segments(vmlinux)
    address, _, room = parts[-1]
    initrd_address = -(-(address + room) // 0x200000) * 0x200000
    parts.append((initrd_address, initrd, len(initrd)))
    loads, contents, sector = [], [], 1 + BLOCK_SECTORS
    for address, data, room in parts:
        sectors = -(-len(data) // SECTOR)
        zeros = max(0, room - sectors * SECTOR)
        loads.append((sector, sectors, address, -(-zeros // 4) * 4))
        contents.append(data.ljust(sectors * SECTOR, b"\0"))
        sector += sectors
    with open(place / "disk", "wb") as image:
        image.write((place / "boot-sector").read_bytes())
        image.write(block(entry, loads, initrd_address, len(initrd)))
        image.writelines(contents)
        cylinders = -(-sector // (HEADS * SECTORS))
        image.truncate(cylinders * HEADS * SECTORS * SECTOR)
    return cylinders


class Host(host.Host):
    """As host.Host, for one command with no input and no files but those given."""

    boot_modules = ()
    vendors = ("kvm_intel",)
    init = INIT
    memory = MEMORY

    def __init__(self, series=None, stock=False, options=()):
        super().__init__(series, stock, "bochs", options)
        if self.options["kvm_amd"]:
            raise ui.Usage("--kvm-arg: the CPU that Bochs emulates is Intel's")

    def run(self, argv, *, files=(), programs=(), stdout=None, stderr=None, environment=None,
            limit=None):
        """Runs argv in the host and returns its exit status. programs: others that it starts.
        files: what all of these need beside their libraries. stdout, stderr: objects with
        write(bytes). limit: seconds for the command, boot not included."""
        _, known = system.call(["bochs", "--help", "cpu"])
        if CPU not in known.split():
            raise Fail(f"this Bochs does not emulate the CPU {CPU}")
        self.prepare()
        marker = "sloth-" + os.urandom(16).hex()
        settings = {"kvm": " ".join(self.kvm_list), "marker": marker,
                    **{f"{name}_options": " ".join(words) for name, words in self.options.items()},
                    "command": host.script(argv, "/", environment or {})}
        initrd = (self.base + initramfs.programs([argv[0], *programs], files)
                  + initramfs.command(settings))
        with system.run_directory() as place:
            with ui.step("making the disk to boot from"):
                cylinders = disk(place, self.vmlinux.read_bytes(), initrd)
            with Boot(self, place, cylinders, marker, argv, stdout or host.Descriptor(1),
                      stderr or host.Descriptor(2), limit or LIMIT) as boot:
                return boot.supervise()


class Boot:
    """One run of Bochs."""

    def __init__(self, machine, place, cylinders, marker, argv, stdout, stderr, limit):
        self.machine, self.place, self.argv, self.limit = machine, place, argv, limit
        mark = b"\0" + marker.encode()
        self.streams = {"stdout": host.Ending(mark, stdout), "stderr": host.Ending(mark, stderr)}
        self.files = {}
        self.log = ""
        self.ready, self.began = False, None
        self.exit_status = None
        (place / "settings").write_text(SETTINGS.format(
            memory=machine.memory, cpu=CPU, speed=SPEED, cylinders=cylinders, heads=HEADS,
            sectors=SECTORS))
        # Debian's Bochs has a debugger, which waits for the first of these; the second is
        # for when it thinks that there is something to debug.
        (place / "debugger").write_text("c\nq\n")
        for name in ("console", "stdout", "stderr"):
            (place / name).touch()

    def __enter__(self):
        # The display needs a terminal. Nobody looks at it, so somebody has to read it.
        ours, theirs = os.openpty()
        self.terminal = ours
        os.set_blocking(ours, False)
        try:
            self.bochs = system.spawn(
                ["bochs", "-q", "-f", "settings", "-rc", "debugger"], cwd=self.place,
                stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
                env={**os.environ, "TERM": "vt100", "LC_ALL": "C"})
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        for name in ("console", *self.streams):
            self.files[name] = open(self.place / name, "rb")
        self.started = time.monotonic()
        return self

    def __exit__(self, kind, value, trace):
        system.kill(self.bochs)
        os.close(self.terminal)
        for file in self.files.values():
            file.close()
        (BUILD / "host-console.log").write_text(self.log)

    def supervise(self):
        with ui.step(f"starting the {'stock' if self.machine.stock else 'patched'} host (Linux"
                     f" {self.machine.kernel.version}, bochs)") as step:
            while not self.ready:
                self.turn()
                step.note(self.stage())
        while not self.complete():
            self.turn()
        self.machine.complaints = self.show_complaint()
        return self.exit_status

    def stage(self):
        if "sloth: " in self.log:
            return "KVM is loaded"
        return "its kernel runs" if self.log else "its kernel is loaded"

    def turn(self):
        time.sleep(0.2)
        ended = self.bochs.poll()
        self.drain()
        for name, stream in self.streams.items():
            stream.feed(self.files[name].read())
        self.log += self.files["console"].read().decode(errors="replace").replace("\r", "")
        self.listen()
        if not self.complete():
            self.check(ended)

    def complete(self):
        return self.exit_status is not None and all(s.complete for s in self.streams.values())

    def drain(self):
        """What Bochs draws on its display."""
        try:
            while os.read(self.terminal, 65536):
                pass
        except OSError:  # nothing now, or the other end is closed
            pass

    def listen(self):
        complete = self.log[:self.log.rfind("\n") + 1]
        for line in SAID.findall(complete):
            if line == "ready":
                self.ready, self.began = True, self.began or time.monotonic()
            elif line == "preemption timer N":
                raise Fail("kvm-intel finds no VMX preemption timer in the emulated CPU", 125)
            elif line.startswith("init: "):
                self.show_complaint()
                raise Fail(f"the emulated host did not come up: {line.removeprefix('init: ')}",
                           125)
            elif line.startswith("exit "):
                self.exit_status = int(line[5:])

    def check(self, ended):
        now = time.monotonic()
        if "Kernel panic" in self.log:
            self.show_complaint()
            raise Fail("the emulated host's kernel failed; all of its log:"
                       " build/host-console.log", 125)
        if ended is not None:
            self.show_complaint()
            self.quote_log()
            raise Fail(f"Bochs ended with status {ended}: {self.last_words()}", 125)
        if not self.ready and now - self.started > BOOT_LIMIT:
            self.show_complaint()
            self.quote_log()
            raise Fail(f"the emulated host did not come up within {BOOT_LIMIT} s", 125)
        if self.ready and now - self.began > self.limit:
            self.show_complaint()
            raise host.TimeLimit(self.limit, f"running {self.argv[0]}")

    def last_words(self):
        log = self.place / "log"
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        panics = [line for line in lines if ">>PANIC<<" in line]
        return (panics or lines or ["it said nothing"])[-1].strip()

    def quote_log(self):
        lines = self.log.splitlines()[-20:]
        if lines:
            ui.say("the last lines of the emulated host's kernel:")
        for line in lines:
            ui.say("| " + line)

    def show_complaint(self):
        return host.complains(self.log)
