# SPDX-License-Identifier: MIT
"""What the emulated host boots from: busybox, kernel modules, and `init` (a shell
script beside this file), as a cpio archive in the kernel's "newc" format.

The archive has parts. The kernel unpacks concatenated archives one after the other,
so what changes with each run (the command) is a small part of its own. A host that
does not see this machine's files gets those that the command needs as another."""

import os
import re
import shutil
import stat
from pathlib import Path

from lab import system
from lab.ui import Fail

INIT = Path(__file__).with_name("init.sh")
APPLETS = ("sh", "cat", "chroot", "echo", "env", "grep", "insmod", "kill", "mkdir", "mkfifo",
           "mount", "printf", "setsid", "sleep", "stty", "sync", "usleep")


def busybox():
    for path in (Path("/usr/bin/busybox"), Path("/bin/busybox")):
        if path.is_file():
            return path
    raise Fail("busybox is not installed (package busybox-static)")


class Archive:
    def __init__(self):
        self.parts = []
        self.number = 0

    def _add(self, name, mode, contents=b""):
        self.number += 1
        encoded = name.encode() + b"\0"
        # ino mode uid gid nlink mtime filesize dev(2) rdev(2) namesize check
        fields = (self.number, mode, 0, 0, 1, 0, len(contents), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        for piece in (head, contents):
            self.parts += [piece, b"\0" * (-len(piece) % 4)]

    def directory(self, name):
        self._add(name, stat.S_IFDIR | 0o755)

    def file(self, name, contents, mode=0o644):
        self._add(name, stat.S_IFREG | mode, contents)

    def link(self, name, target):
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self._add("TRAILER!!!", 0)
        whole = b"".join(self.parts)
        return whole + b"\0" * (-len(whole) % 512)


def base(module_files, init=INIT):
    """The part that stays the same: modules are loaded in the order given."""
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "lower", "writes", "root", "pipes", "sloth",
                 "modules"):
        archive.directory(name)
    archive.file("bin/busybox", busybox().read_bytes(), 0o755)
    for applet in APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    archive.file("init", init.read_bytes(), 0o755)
    for file in module_files:
        archive.file(f"modules/{file.name}", file.read_bytes())
    return archive.finish()


def command(settings):
    """The part of one run: {name: text} becomes files in /sloth."""
    archive = Archive()
    for name, text in settings.items():
        archive.file(f"sloth/{name}", os.fsencode(text))
    return archive.finish()


def libraries(program):
    """What the dynamic linker loads for a program, itself included."""
    status, output = system.call(["ldd", program])
    if status != 0:
        return []  # statically linked, or a script
    missing = re.findall(r"^\s*(\S+) => not found$", output, re.M)
    if missing:
        raise Fail(f"{program} needs {missing[0]}, which is not installed")
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", output)]


def programs(names, files):
    """The part with programs, the libraries they need, and other files, all of them at
    their own paths. Symbolic links become what they point to."""
    wanted = []
    for name in names:
        found = shutil.which(name)
        if not found:
            raise Fail(f"{name} is not installed")
        program = Path(os.path.abspath(found))
        wanted += [program, *libraries(program)]
    wanted += [Path(os.path.abspath(file)) for file in files]
    archive, directories = Archive(), set()
    for path in dict.fromkeys(wanted):
        for parent in reversed(path.parents[:-1]):
            if parent not in directories:
                directories.add(parent)
                archive.directory(str(parent).lstrip("/"))
        archive.file(str(path).lstrip("/"), path.read_bytes(),
                     0o755 if os.access(path, os.X_OK) else 0o644)
    return archive.finish()
