# SPDX-License-Identifier: MIT
"""The last patch of each series, a KVM selftest, on the patched and the stock modules:
each rule of the protocol's host table, save and restore, hostile values."""

import functools
import importlib.util
import re
import subprocess

import pytest

from conftest import KERNELS, ROOT
from lab import modules

NAME = "tools/testing/selftests/kvm/x86_64/lazy_tscdeadline_test.c"
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
def binary(tmp_path_factory):
    @functools.cache
    def build(kernel):
        modules.build(kernel)
        output = tmp_path_factory.mktemp("selftest") / f"lazy_tscdeadline_test-{kernel}"
        subprocess.run([ROOT / "tests/selftest/build.sh", modules.repository(kernel), output],
                       check=True)
        return output

    return build


@pytest.fixture(scope="module")
def patched(binary, in_host):
    @functools.cache
    def run(kernel):
        for _ in range(3):
            done, _ = in_host(str(binary(kernel)), f"--kernel={kernel}", limit=300)
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
    said = patched(kernel).stdout
    assert re.search(rf"^ok \d+ {name}\b", said, re.M), said[-3000:]


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_pass(patched, kernel):
    assert patched(kernel).returncode == 0, patched(kernel).stdout + patched(kernel).stderr


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_mutant_still_has_its_rule_to_remove(binary, kernel):
    """To build and run them all takes half an hour; that their texts are there, nothing."""
    binary(kernel)
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tests/selftest/mutants.py")
    mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    for name, (_, file, old, new, _) in mutants.MUTANTS.items():
        whole = (modules.repository(kernel) / file).read_text()
        assert mutants.mutated(whole, old, new, name) != whole


@pytest.mark.parametrize("kernel", KERNELS[:1])
def test_stock_skips(binary, in_host, kernel):
    done, _ = in_host(str(binary(kernel)), "--stock", f"--kernel={kernel}", limit=60)
    assert done.returncode == SKIP, done.stdout[-3000:]
