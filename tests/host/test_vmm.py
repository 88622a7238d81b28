# SPDX-License-Identifier: MIT
"""What QEMU, which knows nothing of the protocol, does to a guest in its lazy storm:
stop and continue, reset, live migration, snapshots. vmm.py runs in the host."""

import re
import shlex

import pytest

from conftest import ROOT
from lab import run

NAMES = ("stop_continue", "reset", "migrate", "snapshot")


@pytest.fixture(scope="module")
def said(in_host):
    run.build_guest()
    words = ["/usr/bin/python3", ROOT / "tests/host/vmm.py", ROOT / "build/sloth.elf", *NAMES]
    done, _ = in_host(shlex.join(map(str, words)), limit=400)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^(\w+): (.*)$", done.stdout, re.M))


@pytest.mark.parametrize("name", NAMES)
def test_the_guest_goes_on_and_loses_no_timer(said, name):
    assert said[name] == "ok"
