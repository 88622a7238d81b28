# SPDX-License-Identifier: MIT
"""Debian's kernel packages: find the version, download, unpack under build/.

Nothing is installed. A kernel is five packages of one version: the signed image
(what linux-image-amd64 would install), the headers (amd64 and common), kbuild, and
the source."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from lab import system, ui
from lab.system import BUILD
from lab.ui import Fail

CACHE = BUILD / "cache"
ROOM = 2 << 30  # bytes needed below build/ for packages, sources and objects


@dataclasses.dataclass(frozen=True)
class Kernel:
    series: str     # "6.1"
    version: str    # of the packages: "6.1.192-2"
    release: str    # uname -r: "6.1.0-56-amd64"
    common: str     # package of the shared headers
    kbuild: str     # package of the build tools
    source: str     # package of the source

    @property
    def packages(self):
        return {"image": f"linux-image-{self.release}",
                "headers": f"linux-headers-{self.release}",
                "common": self.common, "kbuild": self.kbuild, "source": self.source}

    @property
    def directory(self):
        return BUILD / "kernel" / self.version

    def file(self, name):
        """The downloaded package, or None."""
        # A file name quotes ':' of an epoch; kernel versions have none.
        found = sorted(CACHE.glob(f"{name}_{self.version}_*.deb"))
        return found[0] if found else None

    def cached(self):
        return all(self.file(name) for name in self.packages.values())

    def compiler(self):
        """The one that Debian built it with, which the makefiles of its headers call."""
        _, wants = system.call(["dpkg-deb", "-f", self.file(self.packages["headers"]), "Depends"])
        found = re.search(r"\bgcc-\d+", wants)
        if not found:
            raise Fail(f"{self.packages['headers']} {self.version} names no compiler")
        return found.group()


# Which packages make up the kernel.

def apt_cache(*argv):
    done = subprocess.run(["apt-cache", *argv], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def newest_first(versions):
    def compare(a, b):
        if a == b:
            return 0
        less = subprocess.run(["dpkg", "--compare-versions", a, "lt", b]).returncode == 0
        return 1 if less else -1
    return sorted(set(versions), key=functools.cmp_to_key(compare))


def parse_madison(text):
    """`name | version | origin` lines to {name: {versions}}."""
    table = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) >= 2:
            table.setdefault(fields[0], set()).add(fields[1])
    return table


def release_key(release):
    return [int(n) for n in re.findall(r"\d+", release)]


def choose(series, table, depends):
    """The newest version of which all five packages exist. `table` says which
    versions a package has; depends(name, version) gives its Depends line."""
    source = f"linux-source-{series}"
    image = re.compile(rf"linux-image-({re.escape(series)}[.+\d][^_]*?-amd64)$")
    for version in newest_first(table.get(source, ())):
        names = [image.match(name).group(1) for name, has in table.items()
                 if image.match(name) and version in has
                 and not re.search(r"-(rt|cloud)-amd64$", name)]
        for release in sorted(names, key=release_key, reverse=True):
            headers = f"linux-headers-{release}"
            if version not in table.get(headers, ()):
                continue
            wants = depends(headers, version)
            common = re.search(r"linux-headers-\S+-common\b", wants)
            kbuild = re.search(r"linux-kbuild-[^\s,]+", wants)
            if common and kbuild:
                return Kernel(series, version, release, common.group(), kbuild.group(), source)
    return None


def lists_state():
    """Changes whenever apt-get update has brought something else."""
    lists = Path("/var/lib/apt/lists")
    names = sorted(lists.glob("*")) if lists.is_dir() else []
    return "\n".join(f"{file.name} {file.stat().st_mtime_ns}" for file in names if file.is_file())


def resolve(series):
    """The newest complete kernel in the apt lists, or None. To ask apt takes seconds,
    so its answer is kept until the lists change."""
    note = CACHE / f"resolved-{series}.json"
    state = hashlib.sha256((lists_state() + Path(__file__).read_text()).encode()).hexdigest()
    if note.is_file():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            known = json.loads(note.read_text())
            if known["state"] == state:
                return Kernel(**known["kernel"]) if known["kernel"] else None
    kernel = ask_apt(series)
    CACHE.mkdir(parents=True, exist_ok=True)
    system.write_atomically(note, json.dumps({
        "state": state, "kernel": kernel and dataclasses.asdict(kernel)}))
    return kernel


def ask_apt(series):
    prefix = f"linux-image-{series}"
    names = [name for name in apt_cache("pkgnames", prefix).split()
             if re.fullmatch(rf"{re.escape(prefix)}[.+\d]\S*-amd64", name)]
    headers = [name.replace("image", "headers", 1) for name in names]
    table = parse_madison(apt_cache("madison", f"linux-source-{series}", *names, *headers))

    def depends(name, version):
        shown = apt_cache("show", f"{name}={version}")
        found = re.search(r"^Depends: (.*)$", shown, re.M)
        return found.group(1) if found else ""

    kernel = choose(series, table, depends)
    if kernel is None:
        return None
    # The two that only the Depends line names must exist at this version too.
    rest = parse_madison(apt_cache("madison", kernel.common, kernel.kbuild))
    complete = all(kernel.version in rest.get(n, ()) for n in (kernel.common, kernel.kbuild))
    return kernel if complete else None


def cached_kernels(series):
    """Kernels whose packages are all in the cache, newest first."""
    found = {}
    for image in CACHE.glob(f"linux-image-{series}*_*_amd64.deb"):
        name, version, _ = image.name.split("_")
        release = name.removeprefix("linux-image-")
        base = release.removesuffix("-amd64")
        for kbuild in (f"linux-kbuild-{series}", f"linux-kbuild-{base}"):
            kernel = Kernel(series, version, release, f"linux-headers-{base}-common", kbuild,
                            f"linux-source-{series}")
            if kernel.cached():
                found[version] = kernel
    return [found[version] for version in newest_first(found)]


# Download.

def apt_options():
    # As root apt drops to the user _apt, who may not write to our directory.
    return ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []


def update_lists():
    """apt-get update, where we may. True when it was done."""
    if os.geteuid() != 0:
        return False
    with ui.step("refreshing the package lists (apt-get update)"):
        status, _ = system.call(["apt-get", "-q", "update"])
    return status == 0


def why(output):
    """The line of apt-get's output that says what went wrong."""
    if "No space left on device" in output:
        return "no space left on the disk"
    errors = [line[2:].strip() for line in output.splitlines() if line.startswith("E:")]
    return errors[0] if errors else (output.strip().splitlines() or ["no reason given"])[-1]


def download(kernel):
    """Fetch what the cache lacks. apt-get checks sizes and checksums itself; a file
    reaches the cache only when it is complete."""
    missing = [name for name in kernel.packages.values() if not kernel.file(name)]
    if not missing:
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(BUILD).free
    if free < ROOM:
        raise Fail(f"{BUILD} has {free >> 20} MB left, the kernel packages need {ROOM >> 20} MB")
    wanted = [f"{name}={kernel.version}" for name in missing]
    status, listing = system.call(["apt-get", *apt_options(), "download", "--print-uris", *wanted])
    total = sum(int(size) for size in re.findall(r"^'\S+' \S+ (\d+) ", listing, re.M))
    with tempfile.TemporaryDirectory(prefix="partial-", dir=CACHE) as partial, \
         ui.step(f"downloading the packages of Linux {kernel.version}") as step:
        process = system.spawn(["apt-get", *apt_options(), "-q", "download", *wanted], cwd=partial,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            while process.poll() is None:
                have = sum(f.stat().st_size for f in Path(partial).rglob("*") if f.is_file())
                step.note(f"{have >> 20} of {total >> 20} MB")
                time.sleep(0.25)
            output = process.stdout.read()
        finally:
            system.kill(process)
        if process.returncode != 0:
            raise Fail(f"cannot download {', '.join(missing)} {kernel.version}: {why(output)}")
        for file in Path(partial).glob("*.deb"):
            file.replace(CACHE / file.name)
    if not kernel.cached():
        raise Fail(f"apt-get downloaded, but not all of {', '.join(missing)} {kernel.version}")


def package(name):
    """A package that is no part of a kernel: the file in the cache, else the newest there is."""
    found = sorted(CACHE.glob(f"{name}_*.deb"), key=lambda file: file.stat().st_mtime)
    if found:
        return found[-1]
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="partial-", dir=CACHE) as partial, \
         ui.step(f"downloading the package {name}"):
        argv = ["apt-get", *apt_options(), "-q", "download", name]
        status, output = system.call(argv, cwd=partial)
        if status != 0 and update_lists():
            status, output = system.call(argv, cwd=partial)
        files = list(Path(partial).glob("*.deb"))
        if status != 0 or not files:
            raise Fail(f"cannot download {name}: {why(output)}")
        return files[0].replace(CACHE / files[0].name)


def not_in_lists(series):
    return Fail(f"the apt lists have no complete Linux {series} (image, headers, kbuild and"
                " source of one version); as root run: apt-get update")


@functools.cache
def get(series):
    """The kernel to use, its packages in the cache."""
    kernel = resolve(series)
    if kernel is None and not cached_kernels(series) and update_lists():
        kernel = resolve(series)
    if kernel:
        try:
            download(kernel)
            return kernel
        except Fail as fail:
            problem = fail
    else:
        problem = not_in_lists(series)
    # A cache that is complete serves without a network, or when the lists moved on.
    for kernel in cached_kernels(series):
        ui.say(f"{problem}; using Linux {kernel.version}, which is in the cache")
        return kernel
    # Stale lists name versions that the mirror has dropped.
    if kernel is None and resolve(series) and update_lists():
        kernel = resolve(series)
        download(kernel)
        return kernel
    raise problem


# Unpack.

def unpack(package, target, *patterns):
    """Members of a package that match the patterns (all without any), into target."""
    target.mkdir(parents=True, exist_ok=True)
    pick = ["--wildcards", *patterns] if patterns else []
    read = system.spawn(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL)
    tar = system.spawn(["tar", "-x", "-C", target, "--no-same-owner", *pick], stdin=read.stdout,
                       stderr=subprocess.PIPE, text=True)
    read.stdout.close()
    try:
        errors = tar.communicate()[1]
        broken = read.wait() != 0 or tar.returncode != 0
    finally:
        system.kill(read)
        system.kill(tar)
    if broken:
        reason = (errors.strip().splitlines() or ["damaged"])[0]
        raise Fail(f"cannot unpack {package} ({reason}); remove it and try again")


def unpacked(directory, stamp, make):
    """Make `directory` by make(draft directory) unless it is there with this stamp."""
    note = directory / ".stamp"
    if note.is_file() and note.read_text() == stamp:
        return directory
    draft = directory.with_name(directory.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    make(draft)
    (draft / ".stamp").write_text(stamp)
    shutil.rmtree(directory, ignore_errors=True)
    draft.rename(directory)
    return directory


def contents(module):
    """Of a module's file, which may be compressed."""
    return lzma.decompress(module.read_bytes()) if module.suffix == ".xz" else module.read_bytes()


def depends_of(module):
    """Modules that this one needs, from its .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", contents(module))
    names = found.group(1).decode() if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def load_order(names, modules):
    """Names and all they depend on, each after what it needs."""
    order = []

    def add(name):
        name = name.replace("-", "_")
        if name in order:
            return
        if name not in modules:
            raise Fail(f"the kernel package has no module {name}")
        for other in depends_of(modules[name]):
            add(other)
        order.append(name)

    for name in names:
        add(name)
    return order


def uncompressed(bzimage):
    """The ELF kernel inside a bzImage (layout: Documentation/x86/boot.rst). It boots
    by its PVH entry, and to unpack it here spares the emulator ten seconds a boot."""
    setup_sectors = bzimage[0x1F1]
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start:start + length]
    if payload[:6] == b"\xfd7zXZ\0":            # Debian's 6.1
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":    # 6.12; behind the frame stands its size
        elf = subprocess.run(["zstd", "-dcq"], input=payload[:-4], capture_output=True).stdout
    else:
        raise Fail("the kernel image is compressed neither with xz nor with zstd")
    if elf[:4] != b"\x7fELF":
        raise Fail("there is no ELF kernel in the kernel image")
    return elf


def image(kernel, names):
    """Directory with `vmlinux`, modules/NAME.ko for names and what they need, and
    `builtin`, which of the names need no module."""

    def make(draft):
        with ui.step(f"unpacking {kernel.packages['image']}"):
            unpack(kernel.file(kernel.packages["image"]), draft / "all",
                   # In /usr/lib from Debian 13 on.
                   "./boot/vmlinuz-*", "*/lib/modules/*.ko*", "*/lib/modules/*/modules.builtin")
            (vmlinuz,) = (draft / "all" / "boot").glob("vmlinuz-*")
            (draft / "vmlinux").write_bytes(uncompressed(vmlinuz.read_bytes()))
            modules = {file.name.split(".ko")[0].replace("-", "_"): file
                       for file in (draft / "all").rglob("*.ko*")}
            (builtin,) = (draft / "all").rglob("modules.builtin")
            present = {Path(line).stem.replace("-", "_") for line in builtin.read_text().split()}
            (draft / "builtin").write_text(" ".join(name for name in names if name in present))
            (draft / "modules").mkdir()
            for name in load_order([name for name in names if name not in present], modules):
                (draft / "modules" / f"{name}.ko").write_bytes(contents(modules[name]))
            shutil.rmtree(draft / "all")

    return unpacked(kernel.directory / "image", "3 " + " ".join(names), make)


def boot_image(kernel):
    """The kernel as a boot loader loads it."""
    directory = unpacked(kernel.directory / "boot", "1", lambda draft: unpack(
        kernel.file(kernel.packages["image"]), draft, "./boot/vmlinuz-*"))
    (file,) = (directory / "boot").iterdir()
    return file


def headers(kernel):
    """Headers and build tools, as /usr would hold them; returns the tree to pass to
    `make -C`. Its one absolute path is made relative to the copy."""

    def make(draft):
        with ui.step(f"unpacking {kernel.packages['headers']}"):
            for part in ("headers", "common", "kbuild"):
                unpack(kernel.file(kernel.packages[part]), draft)
        stub = draft / "usr/src" / kernel.packages["headers"] / "Makefile"
        text = stub.read_text()
        moved = text.replace("include /usr/src/", "include $(dir $(lastword $(MAKEFILE_LIST)))../")
        if moved == text:
            raise Fail(f"{stub} is not the stub that this builder knows")
        stub.write_text(moved)

    top = unpacked(kernel.directory / "headers", "1", make)
    return top / "usr/src" / kernel.packages["headers"]


def source(kernel, paths, directory=None, leave_out=()):
    """The source tree, only the paths asked for (those that do not exist are new
    files of a patch), all without any; less what matches leave_out. Which of these a
    directory has is part of its stamp, so each choice needs one of its own."""

    def make(draft):
        package = kernel.file(kernel.packages["source"])
        name = f"linux-source-{kernel.series}"
        with ui.step(f"unpacking {name}, what is needed of it"):
            pick = ["--anchored", *(f"--exclude={name}/{path}" for path in leave_out),
                    *(f"{name}/{path}" for path in paths)]
            stages = [["dpkg-deb", "--fsys-tarfile", package],
                      ["tar", "-xO", f"./usr/src/{name}.tar.xz"],
                      ["xz", "-dc", "-T0"]]
            running, feed = [], None
            try:
                for argv in stages:
                    stage = system.spawn(argv, stdin=feed or subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                    if feed:
                        feed.close()
                    running.append(stage)
                    feed = stage.stdout
                last = system.spawn(["tar", "-x", "-C", draft, "--no-same-owner",
                                     "--strip-components=1", *pick], stdin=feed,
                                    stderr=subprocess.PIPE, text=True)
                feed.close()
                running.append(last)
                errors = last.communicate()[1]
                good = all(stage.wait() == 0 for stage in running[:3])
            finally:
                for stage in running:
                    system.kill(stage)
        lines = [line for line in errors.splitlines()
                 if "Not found in archive" not in line and "Exiting with failure" not in line]
        if not good or lines:
            raise Fail(f"cannot unpack {package}: {(lines or ['damaged'])[0]}")

    stamp = "1 " + " ".join([*paths, *(f"-{path}" for path in leave_out)])
    return unpacked(directory or kernel.directory / "source", stamp, make)
