# SPDX-License-Identifier: MIT
"""The last patch of each series, a KVM selftest, on the patched and the stock modules:
each rule of the protocol's host table, save and restore, hostile values. And a storm on four
vCPUs, one of them hotplugged, with restores, resets and moves going on."""

import functools
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from conftest import KERNELS, ROOT
from lab import modules

NAME = "tools/testing/selftests/kvm/x86_64/lazy_tscdeadline_test.c"
STORM = ROOT / "tests/selftest/smp_storm.c"
SECONDS = 4  # of it
SKIP = 4  # kselftest.h: KSFT_SKIP


@functools.cache
def source(kernel):
    """The test, as the series has it."""
    text = "".join(patch.read_text() for patch in modules.patches(kernel))
    lines = text.split(f"+++ b/{NAME}\n")[1].split("\ndiff --git ")[0].splitlines()
    return [line[1:] for line in lines if line.startswith("+")]


def subtests(kernel):
    """Names in the source's table, so that none can be left out."""
    table = "\n".join(source(kernel)).split("} subtests[] = {")[1].split("};")[0]
    return re.findall(r'^\t\{ "(\w+)",', table, re.M)


@pytest.fixture(scope="module")
def binaries(tmp_path_factory):
    """binaries(kernel): the selftest and the storm."""

    @functools.cache
    def build(kernel):
        modules.build(kernel)
        place, tree = tmp_path_factory.mktemp("selftest"), modules.repository(kernel)
        subprocess.run([ROOT / "tests/selftest/build.sh", tree, place, tree / NAME, STORM],
                       check=True)
        return place / Path(NAME).stem, place / STORM.stem

    return build


@pytest.fixture(scope="module")
def patched(binaries, in_host):
    @functools.cache
    def run(kernel):
        test, storm = binaries(kernel)
        for _ in range(3):
            done, _ = in_host(f"{storm} {SECONDS} 4 && echo storm: ok; exec {test}",
                              f"--kernel={kernel}", limit=300)
            # The emulator's fault, and longer than the second after which a timer is lost.
            if "stood still" not in done.stderr and "no heartbeat" not in done.stderr:
                break
        return done

    return run


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_table_of_subtests_is_found(kernel):
    assert len(subtests(kernel)) >= 38


def test_the_series_bring_the_same_test():
    """But for the selftest library, whose interface differs from kernel to kernel."""
    first, *others = (set(source(kernel)) for kernel in modules.series_available())
    for other in others:
        assert len(first ^ other) <= 20, first ^ other


@pytest.mark.parametrize("kernel, name", [(kernel, name) for kernel in KERNELS
                                          for name in subtests(kernel)])
def test_protocol(patched, kernel, name):
    done = patched(kernel)
    assert re.search(rf"^ok \d+ {name}\b", done.stdout, re.M), done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_pass(patched, kernel):
    assert patched(kernel).returncode == 0, patched(kernel).stdout + patched(kernel).stderr


@pytest.mark.parametrize("kernel", KERNELS)
def test_four_vcpus_one_of_them_hotplugged_lose_no_timer(patched, kernel):
    said = patched(kernel).stdout
    rows = re.findall(r"^vCPU \d: (\d+) expiries, .* (\d+) restores, (\d+) resets, (\d+) moves$",
                      said, re.M)
    assert len(rows) == 4 and all(int(number) for row in rows for number in row), said[:3000]
    assert "\nstorm: ok\n" in said, said[:3000]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_mutant_still_has_its_rule_to_remove(binaries, kernel):
    """To build and run them all takes half an hour; that their texts are there, nothing."""
    binaries(kernel)
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tests/selftest/mutants.py")
    mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    for name, (_, file, old, new, _) in mutants.MUTANTS.items():
        whole = (modules.repository(kernel) / file).read_text()
        assert mutants.mutated(whole, old, new, name) != whole


@pytest.mark.parametrize("kernel", KERNELS[:1])
def test_stock_skips(binaries, in_host, kernel):
    done, _ = in_host(str(binaries(kernel)[0]), "--stock", f"--kernel={kernel}", limit=60)
    assert done.returncode == SKIP, done.stdout[-3000:]
