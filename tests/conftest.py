# SPDX-License-Identifier: MIT
"""What the tests share: the repository's root on the path, and ./sloth as a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def sloth():
    """sloth("host", "--", "true") runs the command itself; text in, text out."""

    def call(*words, limit=300, **kwargs):
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
    """Nothing that the lab started, and no directory of a run, may remain."""
    build = ROOT / "build"
    before = set(build.glob("run-*")) | set(emulators())
    yield
    after = set(build.glob("run-*")) | set(emulators())
    assert after <= before


def emulators():
    """Ids of the processes named sloth-host."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"sloth-host" in words:
                yield entry.name
