# SPDX-License-Identifier: MIT
"""./sloth host-package: sloth-kvm-dkms, the patched KVM for a real host.

The package holds, for each kernel series, one diff of what modules are built from and
the names of the files it needs of Debian's linux-source. DKMS builds from them for the
kernel that is installed (host-patches/dkms/)."""

import re
import shutil

from lab import modules, system, ui
from lab.system import BUILD, ROOT
from lab.ui import Fail

NAME = "sloth-kvm"
DKMS = ROOT / "host-patches/dkms"
PARTS = ("arch", "include", "virt")  # what the series changes elsewhere is not built


def version():
    text = (ROOT / "kernel/version.h").read_text()
    return re.search(r'SLOTH_VERSION "(.+)"', text).group(1)


def fill(source, target, values):
    """A file of host-patches/dkms with its @NAME@s replaced."""
    text = source.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(source.stat().st_mode & 0o777)


def put_series(series, directory):
    """What `prepare` needs for one kernel series."""
    modules.build(series)  # a series that does not build is not packaged
    repository = modules.repository(series)
    changed = modules.git_or_fail(repository, "diff", "--name-only", "base", "HEAD", "--",
                                  *PARTS).split()
    source = f"linux-source-{series}"
    base = modules.git_or_fail(repository, "ls-tree", "-r", "--name-only", "base").split()
    compiled = [path for path in modules.wanted(repository, changed) if path in base]
    directory.mkdir(parents=True)
    (directory / "files").write_text("".join(f"{source}/{path}\n" for path in sorted(compiled)))
    (directory / "diff").write_text(modules.git_or_fail(repository, "diff", "base", "HEAD", "--",
                                                        *PARTS))
    (directory / "preamble").write_text(modules.PREAMBLE)


def control(series, release):
    sources = " | ".join(f"linux-source-{name}" for name in series)
    return (f"Package: {NAME}-dkms\nVersion: {release}\nArchitecture: all\nSection: kernel\n"
            f"Priority: optional\nMaintainer: the Sloth authors <sloth@localhost>\n"
            f"Depends: dkms, {sources}, xz-utils, patch, kmod\n"
            f"Description: KVM with the lazy TSC deadline protocol (DKMS)\n"
            f" Replaces the modules kvm, kvm-amd and kvm-intel of Debian's kernels\n"
            f" {' and '.join(series)} by the same with the protocol's patches applied.\n")


def make():
    """Builds the package; returns its path."""
    release, series = version(), modules.series_obtainable()
    with system.run_directory() as place:
        tree = place / "package"
        source = tree / "usr/src" / f"{NAME}-{release}"
        for name in series:
            put_series(name, source / name)
        values = {"VERSION": release, "SERIES": "|".join(re.escape(name) for name in series),
                  "WITHOUT": " ".join(modules.WITHOUT)}
        for name in ("dkms.conf", "prepare"):
            fill(DKMS / name, source / name, values)
        fill(DKMS / "sloth-kvm", tree / "usr/sbin/sloth-kvm", values)
        for name in ("postinst", "prerm"):
            fill(DKMS / name, tree / "DEBIAN" / name, values)
        (tree / "DEBIAN/control").write_text(control(series, release))
        target = BUILD / f"{NAME}-dkms_{release}_all.deb"
        with ui.step(f"packing {target.name}"):
            draft = place / target.name
            status, output = system.call(["dpkg-deb", "--root-owner-group", "--build", tree, draft])
            if status != 0:
                raise Fail(f"dpkg-deb failed: {output.strip()}")
            shutil.move(draft, target)
    return target
