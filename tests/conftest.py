# SPDX-License-Identifier: MIT
"""What the tests share: the repository's root on the path, and ./sloth as a command."""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from lab import modules, testing

KERNEL = os.environ.get("SLOTH_KERNEL") or None     # ./sloth test --kernel=
# Each of which there are packages; those that ./sloth test found.
KERNELS = os.environ.get("SLOTH_KERNELS", "").split() or modules.series_here()


def pytest_addoption(parser):
    for name, what in testing.EXTRAS.items():
        parser.addoption(f"--{name}", action="store_true", help=f"also {what}")


def pytest_configure(config):
    for name in testing.EXTRAS:
        config.addinivalue_line("markers", f"{name.replace('-', '_')}: only with --{name}")


def pytest_collection_modifyitems(config, items):
    for name in testing.EXTRAS:
        if not config.getoption(f"--{name}"):
            for item in items:
                if item.get_closest_marker(name.replace("-", "_")):
                    item.add_marker(pytest.mark.skip(reason=f"only with ./sloth test --{name}"))


@pytest.fixture(scope="session")
def sloth():
    """sloth("host", "--", "true") runs the command itself; text in, text out."""

    def call(*words, limit=300, **kwargs):
        if KERNEL and words[:1] in (("run",), ("host",)):
            words = [words[0], f"--kernel={KERNEL}", *words[1:]]    # a later one is stronger
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        if "input" in kwargs:
            del kwargs["stdin"]
        return subprocess.run([ROOT / "sloth", *words], capture_output=True, text=True,
                              timeout=limit, **{"cwd": ROOT, **kwargs})

    return call


@pytest.fixture(scope="session")
def in_host(sloth, tmp_path_factory):
    """in_host(script, ...) runs a shell script in the emulated host; returns the
    finished process and the directory that the script saw as $SLOTH_SHARE."""

    def call(script, *options, limit=600):
        share = tmp_path_factory.mktemp("share")
        done = sloth("host", "--host=tcg", f"--share={share}", f"--timeout={limit}", *options,
                     "--", "/bin/sh", "-c", script, limit=limit + 200)
        return done, share

    return call


@pytest.fixture
def no_leftovers():
    """Nothing that a lab started may outlive it. (Others may use the same checkout.)"""
    yield
    assert not orphans()
    for directory in (ROOT / "build").glob("run-*"):
        with contextlib.suppress(FileNotFoundError), open(directory / "lock") as lock:
            with pytest.raises(BlockingIOError):  # locked: its lab still runs
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def words_of(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def emulators():
    """Ids of this checkout's processes named sloth-host; another one's are not our business."""
    ours = os.fsencode(ROOT / "build") + b"/"
    return [entry.name for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and b"sloth-host" in (words := words_of(entry.name))
            and any(word.startswith(ours) for word in words)]


def orphans():
    """Emulators whose parent is not a lab."""
    found = []
    for emulator in emulators():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{emulator}/status").read_text()
            parent = re.search(r"^PPid:\s+(\d+)", status, re.M).group(1)
            if b"lab" not in words_of(parent):
                found.append(emulator)
    return found


def emulators_of(process):
    """Emulators that a ./sloth started (it becomes the lab by exec)."""
    return [emulator for emulator in emulators()
            if f"PPid:\t{process.pid}\n" in Path(f"/proc/{emulator}/status").read_text()]
