# SPDX-License-Identifier: MIT
"""Kernels that are compiled from linux-source, each with a configuration of its own: the debug
host (lab/debughost.py) and the Linux guest with its series (lab/linux.py).

    vmlinux = build(recipe, kernel)

Three steps, each under the recipe's place:

source    linux-source, less what these kernels do not need, and the series' files over it
objects   the configuration and what is compiled
vmlinux   the kernel, kept until a patch, the configuration, the compiler or this file changes"""

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from lab import debs, modules, system, ui
from lab.ui import Fail

ROOM = 2 << 30      # bytes for source and objects

# Half of the source, and nothing in it is compiled here. Kconfig reads all Kconfig files.
LEAVE_OUT = ("arch/[!x]*/*.[chS]", "arch/*.dts*", "Documentation/*/*", "drivers/gpu/*.[ch]",
             "drivers/infiniband/*.[ch]", "drivers/media/*.[ch]", "drivers/net/*/*.[ch]",
             "drivers/scsi/*.[ch]", "drivers/staging/*.[ch]", "sound/*.[ch]")


@dataclasses.dataclass
class Recipe:
    """name: for messages. place: the directory. config: for allnoconfig; each line must hold in
    the result. patches: of the series. series(kernel): makes a repository of files with the
    series applied, tagged `base` before it. variables, targets: make's, and in objects."""

    name: str
    place: Path
    config: Path
    patches: list
    series: object
    variables: tuple = ()
    targets: tuple = ("vmlinux",)


def overlay(source, repository):
    """The series' files over those of the package; only what differs is written."""
    note = source / ".series"
    before = note.read_text().split() if note.is_file() else []
    changed = [name for name in modules.git_or_fail(repository, "diff", "--name-only", "base",
                                                    "HEAD").split()
               if not name.startswith(modules.IGNORED)]
    for name in {*before, *changed}:
        new, path = repository / name, source / name
        if not new.is_file():
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_bytes() != new.read_bytes():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(new.read_bytes())
    note.write_text("\n".join(changed))


def make(recipe, *words, step=None):
    """make, nice to whatever else the machine does; its output, all of it in build.log."""
    log = recipe.place / "build.log"
    process = system.spawn(
        ["nice", "-n", "5", "make", "-C", recipe.place / "source", f"O={recipe.place / 'objects'}",
         "ARCH=x86_64", f"-j{os.cpu_count() or 1}", *words], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "LC_ALL": "C", "MAKEFLAGS": ""})
    lines, compiled = [], 0
    try:
        with open(log, "a") as file:
            for line in process.stdout:
                file.write(line)
                lines.append(line)
                compiled += bool(re.match(r"  (CC|AS) ", line))
                if step:
                    step.note(f"{compiled} files compiled")
        status = process.wait()
    finally:
        system.kill(process)
        process.stdout.close()
    if status != 0:
        raise Fail(f"{recipe.name} does not build: {modules.first_error(''.join(lines))}"
                   f" (all of it: {log})")


def configured(wanted, result):
    """Lines of a configuration that its result does not have. An option that is wanted off is
    off, too, when the result does not know it."""
    lines = set(result.splitlines())
    missing = []
    for line in wanted.splitlines():
        off = re.fullmatch(r"# (CONFIG_\w+) is not set", line)
        if off and any(other.startswith(f"{off.group(1)}=") for other in lines) \
                or line.startswith("CONFIG_") and line not in lines:
            missing.append(line)
    return missing


def configure(recipe):
    make(recipe, f"KCONFIG_ALLCONFIG={recipe.config}", "allnoconfig")
    missing = configured(recipe.config.read_text(),
                         (recipe.place / "objects/.config").read_text())
    if missing:
        raise Fail(f"{recipe.config.name}: this kernel's configuration does not come to have"
                   f" {', '.join(missing)}")


def tree(recipe, kernel):
    """The source with the series applied, and room for what is made of it."""
    repository = recipe.series(kernel)
    source = recipe.place / "source"
    source.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(source.parent).free
    if free < ROOM and not source.is_dir():
        raise Fail(f"{source.parent} has {free >> 20} MB left, {recipe.name} needs"
                   f" {ROOM >> 20} MB")
    debs.source(kernel, [], source, LEAVE_OUT)
    overlay(source, repository)
    (recipe.place / "objects").mkdir(exist_ok=True)


def build(recipe, kernel):
    """The kernel, an ELF file to boot."""
    result, stamp = recipe.place / "vmlinux", recipe.place / "stamp"
    total = hashlib.sha256(modules.digest(kernel, recipe.patches).encode())
    for file in (Path(__file__), recipe.config):
        total.update(file.read_bytes())
    key = f"{total.hexdigest()} {recipe.variables} {recipe.targets}"
    with system.build_lock(f"kernel-{recipe.place.parent.name}"):
        if stamp.is_file() and stamp.read_text() == key:
            return result
        stamp.unlink(missing_ok=True)
        tree(recipe, kernel)
        (recipe.place / "build.log").unlink(missing_ok=True)
        with ui.step(f"building {recipe.name}, Linux {kernel.version}, from source"
                     " (README says how long)") as step:
            configure(recipe)
            targets = [Path(name).name for name in recipe.targets]
            make(recipe, *recipe.variables, *targets, step=step)
        status, output = system.call(["objcopy", "-S", recipe.place / "objects/vmlinux", result])
        if status != 0:
            raise Fail(f"objcopy failed: {output.strip()}")
        stamp.write_text(key)
    return result
