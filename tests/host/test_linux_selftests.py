# SPDX-License-Identifier: MIT
"""Linux' own KVM selftests on the patched modules: the same results as on the stock ones.
tests/selftest/linux_tests.py builds, runs and compares them."""

import functools
import importlib.util

import pytest

from conftest import KERNELS, ROOT
from lab import modules

LEAST = 30  # that pass on each kernel; of the others most need another CPU and skip

spec = importlib.util.spec_from_file_location("linux_tests",
                                              ROOT / "tests/selftest/linux_tests.py")
linux_tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(linux_tests)

PASS, FAIL = (0, ""), (254, "state_test.c:10")
compare = functools.cache(linux_tests.compare)


# Without a boot.

@pytest.mark.parametrize("kernel", KERNELS)
def test_the_list_leaves_none_out_without_saying_why(kernel):
    modules.build(kernel)
    names = {path.split("/")[-1] for path in linux_tests.in_makefile(kernel)}
    assert len(names) > 60 and not names - set(linux_tests.listed())


def test_the_list_names_none_that_neither_kernel_has():
    names = {path for kernel in KERNELS for path in linux_tests.in_makefile(kernel)}
    if KERNELS == modules.series_available():
        assert not {test.path for test in linux_tests.listed().values()} - names


@pytest.mark.parametrize("status, output, expected", [
    (0, "", (0, "")),
    (0, "TAP version 13\n1..2\nok 1 one\nok 2 two\n# Totals\n", (0, "ok one\nok two")),
    (1, "1..2\nok 1 one\nnot ok 2 two\n", (1, "ok one\nnot ok two")),
    (4, "1..0 # SKIP - Requirement not met: kvm_cpu_has(X86_FEATURE_VMX)\n",
     (4, "kvm_cpu_has(X86_FEATURE_VMX)")),
    (124, "ok 1 one\n", (124, "time limit")),
    (254, "==== Test Assertion Failure ====\n  /a/b/x86_64/smm_test.c:54: false\n  pid=1 tid=1\n"
          "  Failed guest assert: a == b at /a/b/smm_test.c:9 (0x59 != 0xc2)\n",
     (254, "smm_test.c:54, in the guest: a == b")),
    (0, "==== Test Assertion Failure ====\n  /a/b/x86_64/smm_test.c:54: false\n",
     (1, "smm_test.c:54")),
])
def test_what_counts_of_the_output(status, output, expected):
    assert linux_tests.result(status, output) == expected


@pytest.mark.parametrize("patched, stock, expected", [
    ([PASS], [PASS], True), ([FAIL], [FAIL], True), ([FAIL], [PASS], False),
    ([FAIL, FAIL, PASS], [PASS] * 3, True), ([FAIL] * 3, [PASS, FAIL, FAIL], False),
    ([(124, "time limit")], [(124, "time limit")], False),
    ([(0, "ok one")], [(0, "ok one\nok two")], False),
])
def test_what_is_the_same(patched, stock, expected):
    assert linux_tests.same({"patched": patched, "stock": stock}) == expected


# In the host.

@pytest.mark.kvm_selftests
@pytest.mark.parametrize("kernel", KERNELS)
def test_results_are_the_same_but_for_those_known_to_differ(kernel):
    other = {name: row for name, row in compare(kernel).items()
             if not linux_tests.expected(name, row)}
    assert not other


@pytest.mark.kvm_selftests
@pytest.mark.parametrize("kernel", KERNELS)
def test_most_of_them_pass(kernel):
    passed = [name for name, row in compare(kernel).items()
              if linux_tests.best(row["patched"])[0] == 0]
    assert len(passed) >= LEAST, passed
