# SPDX-License-Identifier: MIT
"""What the Linux guest of ./sloth linux boots from: Debian's kernel and the module, or a kernel
that is compiled with the guest's series; an initramfs of busybox and the programs that are run,
out of Debian packages, which are unpacked under build/ and not installed."""

import hashlib
import os
import shutil
from pathlib import Path

from lab import debs, initramfs, kernelbuild, modules, system, ui
from lab.system import BUILD, ROOT
from lab.ui import Fail

MODULE = ROOT / "host-patches" / "linux-guest-module"
NAME = "lazy_tscdeadline"
CONFIG = Path(__file__).with_name("linux-guest.config")
BZIMAGE = "arch/x86/boot/bzImage"

TOOLS = {"sockperf": ("sockperf",), "rt-tests": ("hackbench", "cyclictest")}
# The kernel's own, those that its Makefile calls safe (tools/testing/selftests/timers), less
# rtcpie, which is about another clock.
SELFTESTS = "tools/testing/selftests"
TIMERS = ("posix_timers", "nanosleep", "nsleep-lat", "set-timer-lat", "mqueue-lat",
          "inconsistency-check", "raw_skew", "threadtest")
APPLETS = ("cat", "cpio", "echo", "find", "grep", "ifconfig", "insmod", "kill", "mkdir", "mount",
           "netstat", "poweroff", "rmmod", "sed", "sh", "stty", "taskset", "uname", "usleep")

# What tells the guest what to do, in the host.
INSIDE = ROOT / "lab/linux_inside.py"
PYTHON = ["/usr/bin/python3", "-I", "-S", "-B"]
IMPORTED = f"""import runpy, sys
runpy.run_path({str(INSIDE)!r})
print(*(m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)), sep="\\n")
"""


def module(kernel):
    """The guest's module for that kernel, which is the host's too."""
    sources = sorted(path for path in MODULE.iterdir() if path.is_file())
    key = hashlib.sha256(f"{kernel.version} {BUILD}".encode())
    for path in sources:
        key.update(path.read_bytes())
    place = BUILD / "linux-guest" / kernel.version
    result, stamp = place / f"{NAME}.ko", place / "stamp"
    with system.build_lock("linux-guest"):
        if stamp.is_file() and stamp.read_text() == key.hexdigest():
            return result
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for path in sources:
            shutil.copy(path, place)
        headers = debs.headers(kernel)
        with ui.step(f"building the guest's module for Linux {kernel.version}"):
            status, output = system.call(["make", "-C", headers, f"M={place}", *modules.WITHOUT,
                                          "modules"], env={**os.environ, "LC_ALL": "C",
                                                           "MAKEFLAGS": ""})
        if status != 0:
            raise Fail(f"the guest's module does not build: {modules.first_error(output)}")
        stamp.write_text(key.hexdigest())
    return result


def series(kernel):
    """The files that the guest's series touches, in a repository with it applied."""
    patches = modules.patches(f"guest-{kernel.series}")
    place = recipe(kernel.series).place
    base = debs.source(kernel, sorted(modules.touched(patches)), place / "base")
    modules.apply(base, patches, place / "series", kernel.version)
    return place / "series"


def recipe(name):
    return kernelbuild.Recipe("the guest's kernel", BUILD / "linux-guest-kernel" / name, CONFIG,
                              modules.patches(f"guest-{name}"), series,
                              targets=("vmlinux", BZIMAGE))


def tools():
    """Directories with the programs of each package."""
    found = []
    for package in TOOLS:
        file = debs.package(package)
        found.append(debs.unpacked(BUILD / "tools" / package, file.name,
                                   lambda draft, file=file: debs.unpack(file, draft)))
    return found


def compiled(target, source, *options):
    with ui.step(f"building {target.name} for the guest"):
        status, output = system.call(["gcc", "-O2", *options, "-o", target, source, "-pthread",
                                      "-lrt"], env={**os.environ, "LC_ALL": "C"})
    if status != 0:
        raise Fail(f"{source.name} does not build: {modules.first_error(output)}")
    return target


def own_tools(kernel, workloads, image):
    """{path in the guest: file} of what is made here, and the kernel to go to (image, if it is
    none of Debian's)."""
    found = {}
    with system.build_lock("linux-guest"):
        place = BUILD / "linux-guest" / "tools"
        place.mkdir(parents=True, exist_ok=True)
        if "kexec" in workloads:
            found["kexec"] = compiled(place / "kexec", ROOT / "lab" / "kexec.c")
            found["kernel"] = image or debs.boot_image(kernel)
        if "timers" in workloads:
            tree = debs.source(kernel, [f"{SELFTESTS}/timers", f"{SELFTESTS}/kselftest.h"],
                               kernel.directory / "timers") / SELFTESTS
            for name in TIMERS:
                found[f"timers/{name}"] = compiled(place / name, tree / "timers" / f"{name}.c",
                                                   "-w", f"-I{tree}")
    return found


def initrd(module_file, directories, programs):
    archive, made = initramfs.Archive(), set()

    def add(path, contents, mode=0o755):
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in made:
                made.add(directory)
                archive.directory(directory)
        archive.file(path, contents, mode)

    for name in ("dev", "proc", "sys", "tmp"):
        archive.directory(name)
    add("bin/busybox", initramfs.busybox().read_bytes())
    for applet in APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    add("init", initramfs.INIT.with_name("linux-guest.sh").read_bytes())
    if module_file:
        add(f"{NAME}.ko", module_file.read_bytes(), 0o644)
    libraries = {}
    for path, program in programs.items():
        add(path, program.read_bytes())
        libraries.update((str(path), path) for path in initramfs.libraries(program))
    for directory, names in zip(directories, TOOLS.values()):
        for name in names:
            program = directory / "usr/bin" / name
            add(f"usr/bin/{name}", program.read_bytes())
            libraries.update((str(path), path) for path in initramfs.libraries(program))
    for path, file in libraries.items():
        add(path.lstrip("/"), file.read_bytes())
    return archive.finish()


def imported():
    """Under Bochs, which sees no files of this machine: those of the Python modules that INSIDE
    needs, and what these need."""
    status, output = system.call([*PYTHON, "-c", IMPORTED])
    if status != 0:
        raise Fail(f"{INSIDE.name} cannot be loaded: {output.strip()}")
    files = output.split()
    return [*files, *(path for file in files if ".so" in file
                      for path in initramfs.libraries(file))]
