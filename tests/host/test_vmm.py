# SPDX-License-Identifier: MIT
"""What a VMM that knows nothing of the protocol does to a guest in its lazy storm: stop and
continue, snapshots, reset and INIT, live migration, its own sudden end, many at once. vmm.py
runs in the host, with QEMU as it comes and, where QEMU would take hours, with tinyvmm.c."""

import re
import shlex
import subprocess

import pytest

from conftest import ROOT
from lab import run

# Name: how often by default, and with --faults. See the functions in vmm.py.
COUNTS = {
    "stop_continue": (100, 1000),
    "snapshot": (5, 1000),
    "reset": (5, 1000),
    "reset_state": (20, 1000),
    "init": (20, 1000),
    "migrate": (2, 50),
    "many": (20, 1000),
    "many_qemu": (0, 100),
    "kill": (20, 1000),
    "kill_qemu": (0, 1000),
    "stop_tiny": (50, 10000),
    "snapshot_tiny": (50, 10000),
    "tsc": (50, 10000),
    "sigstop": (5, 10000),
    "sigstop_short": (50, 10000),
    "clock": (50, 10000),
    "steal": (200, 10000),
}
STOCK = (2, 50)         # migrations from a patched host to a stock one
LIMIT = 4 * 3600        # seconds for one of them with --faults


@pytest.fixture(scope="module")
def full(request):
    return request.config.getoption("--faults")


@pytest.fixture(scope="module")
def vmm(sloth, tmp_path_factory, full):
    """vmm({name: count}, *options) runs vmm.py in a host; returns what it said of each."""
    run.build_guest()
    tiny = tmp_path_factory.mktemp("tiny") / "tinyvmm"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", tiny,
                    ROOT / "tests/host/tinyvmm.c"], check=True)

    def call(counts, *options):
        limit = LIMIT if full else 900
        words = ["/usr/bin/python3", "-B", ROOT / "tests/host/vmm.py", ROOT / "build/sloth.elf",
                 tiny, *(f"{name}={count}" for name, count in counts.items())]
        done = sloth("host", "--host=tcg", f"--timeout={limit}", *options, "--", *words,
                     limit=limit + 200)
        print(done.stdout)
        assert done.returncode == 0, done.stderr
        assert "complains" not in done.stderr, done.stderr
        return dict(re.findall(r"^(\w+): (.*)$", done.stdout, re.M))

    return call


@pytest.fixture(scope="module")
def said(vmm, full):
    """By default all in one host; each has its own where they take long."""
    if not full:
        found = vmm({name: few for name, (few, _) in COUNTS.items() if few} | {"unload": 1})
        return lambda name: found
    return lambda name: vmm({name: COUNTS[name][1], "unload": 1})


@pytest.mark.parametrize("name", COUNTS)
def test_the_guest_goes_on_and_loses_no_timer(said, full, name):
    if not COUNTS[name][full]:
        pytest.skip("takes long: ./sloth test --faults")
    found = said(name)
    assert found[name].startswith(f"ok, {COUNTS[name][full]} in "), found[name]
    assert found["unload"].startswith("ok")


def test_a_guest_moves_from_a_patched_host_to_a_stock_one(vmm, full, tmp_path):
    """Both hosts are real ones, one after the other; between them the guest is a file."""
    for name, options in (("migrate_out", []), ("migrate_in", ["--stock"])):
        count = STOCK[full]
        found = vmm({name: count}, f"--share={tmp_path}", *options)
        assert found[name].startswith(f"ok, {count} in ")
