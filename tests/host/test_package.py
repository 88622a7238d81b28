# SPDX-License-Identifier: MIT
"""The package for real hosts: what is in it, and, with `./sloth test --dkms`, its life
in a Debian root: installed, loaded in the emulated host, proved, removed.

The latter needs root and the package mmdebstrap, and takes a few minutes."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from conftest import KERNELS
from lab import debs, package, run, results

SOURCE = f"usr/src/{package.NAME}-{package.version()}"


@pytest.fixture(scope="module")
def deb(sloth):
    done = sloth("host-package")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def unpacked(deb, tmp_path_factory):
    place = tmp_path_factory.mktemp("package")
    subprocess.run(["dpkg-deb", "-R", deb, place], check=True)
    return place


def test_the_package_has_each_series_and_no_placeholder(unpacked):
    for series in KERNELS:
        assert (unpacked / SOURCE / series / "diff").read_text().startswith("diff --git")
    for path in unpacked.rglob("*"):
        if path.is_file() and path.name != "diff":
            assert not re.search(r"@[A-Z]+@", path.read_text()), path
    sources = " | ".join(f"linux-source-{series}" for series in KERNELS)
    assert f"Depends: dkms, {sources}," in (unpacked / "DEBIAN/control").read_text()


def test_scripts_are_valid_shell(unpacked):
    for name in ("DEBIAN/postinst", "DEBIAN/prerm", "usr/sbin/sloth-kvm", f"{SOURCE}/prepare",
                 f"{SOURCE}/dkms.conf"):
        subprocess.run(["bash", "-n", unpacked / name], check=True)


@pytest.mark.parametrize("release, fits", [
    *(case for series in KERNELS for case in (
        (f"{series}.0-56-amd64", True), (f"{series}.9+deb13-cloud-amd64", True),
        (f"{series}.0-56-686-pae", False), (f"1{series}.0-1-amd64", False))),
    ("6.10.11-amd64", False), ("5.10.0-30-amd64", False)])
def test_dkms_builds_for_kernels_of_the_series_only(unpacked, release, fits):
    text = (unpacked / SOURCE / "dkms.conf").read_text()
    pattern = re.search(r'BUILD_EXCLUSIVE_KERNEL="(.+)"', text).group(1)
    assert bool(re.search(pattern, release)) == fits


@pytest.mark.parametrize("release, error", [
    ("5.10.0-30-amd64", "there is no patch series for Linux 5.10.0-30-amd64"),
    *((f"{series}.0-1-amd64", f"the package linux-headers-{series}.0-1-amd64 is not installed")
      for series in KERNELS)])
def test_prepare_names_what_is_missing(unpacked, release, error):
    done = subprocess.run(["sh", "prepare", release], cwd=unpacked / SOURCE, text=True,
                          capture_output=True)
    assert done.returncode == 1
    assert done.stderr == f"sloth-kvm: {error}\n"


def test_status_tells_that_a_module_is_not_the_packages(unpacked, in_host):
    """The lab's modules are patched too, but not from the package."""
    tool = unpacked / "usr/sbin/sloth-kvm"
    done, _ = in_host(f"sh {shlex.quote(str(tool))} status", "--stock")
    assert done.returncode == 1
    assert done.stdout == "kvm: not patched\nkvm_amd: not patched\n"


# The life of the package.

IN_ROOT = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive",
           "HOME=/root"]


class Root:
    """A Debian root of this machine's own release, with these packages."""

    def __init__(self, path, packages):
        self.path = path
        release = dict(line.split("=", 1) for line in
                       open("/etc/os-release").read().splitlines() if "=" in line)
        sources = [str(path) for name in ("sources.list", "sources.list.d")
                   for path in sorted((debs.Path("/etc/apt") / name).glob("*.sources")
                                      if name.endswith(".d") else [debs.Path("/etc/apt") / name])
                   if path.is_file() and path.stat().st_size]
        self.call(["mmdebstrap", "--variant=apt", "--skip=check/empty",
                   f"--include={','.join(packages)}", release["VERSION_CODENAME"], str(path),
                   *sources])

    @staticmethod
    def call(argv):
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def run(self, *argv):
        """With /proc and /sys of its own, which end with the command."""
        inside = f"mount -t proc proc {self.path}/proc && mount -t sysfs sys {self.path}/sys &&" \
                 f" exec chroot {self.path} {shlex.join([*IN_ROOT, *argv])}"
        return self.call(["unshare", "--mount", "--pid", "--fork", "sh", "-c", inside])


# In the emulated host: the lab's modules out, the root's in, as its own modprobe has it.
LOAD = """
for d in proc sys dev; do mount --rbind /$d {root}/$d; done
chroot {root} rmmod kvm_amd kvm || exit
chroot {root} modprobe kvm_amd || exit
chroot {root} {tool} status
echo "status $?"
{guest}
"""


@pytest.mark.dkms
@pytest.mark.parametrize("series", KERNELS)
def test_dkms_life(sloth, deb, tmp_path_factory, series):
    assert os.geteuid() == 0 and shutil.which("mmdebstrap"), "--dkms needs root and mmdebstrap"
    kernel = debs.get(series).packages
    # The package itself brings the source of the first kernel that it is for.
    source = [kernel["source"]] if series != KERNELS[0] else []
    root = Root(tmp_path_factory.mktemp("root"), [kernel["image"], kernel["headers"], *source])
    tool = package.DKMS / "sloth-kvm"
    shutil.copy(tool, root.path / "root/sloth-kvm")  # stays when the package goes
    shutil.copy(deb, root.path / "root/sloth-kvm.deb")
    root.run("apt-get", "update")
    root.run("apt-get", "-y", "--no-install-recommends", "install", "/root/sloth-kvm.deb")
    assert "installed" in root.run("dkms", "status", "-m", package.NAME)

    guest = shlex.join(run.guest_command(["storm=rearm", "mode=eager,lazy", "ops=5000"], "dkms"))

    def boot():
        script = LOAD.format(root=root.path, tool="/root/sloth-kvm", guest=guest)
        done = sloth("host", f"--kernel={series}", "--stock", "--host=tcg", "--timeout=200", "--",
                     "sh", "-c", script, limit=400)
        serial = results.Serial()
        serial.write(done.stdout.encode())
        serial.finish()
        return done.stdout, {row["mode"]: row for row in serial.rows}

    said, rows = boot()
    assert "status 0\n" in said and f"patched, version sloth-kvm-{package.version()}" in said
    assert rows["eager"]["exits"]["tsc_deadline"] >= 5000
    assert rows["lazy"]["exits"]["tsc_deadline"] <= 5

    root.run("apt-get", "-y", "remove", "sloth-kvm-dkms")
    assert package.NAME not in root.run("dkms", "status")
    said, rows = boot()
    assert "status 1\n" in said and "kvm_amd: not patched" in said
    assert "the host does not offer it" in said and "lazy" not in rows
