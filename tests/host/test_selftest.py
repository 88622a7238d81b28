# SPDX-License-Identifier: MIT
"""tests/selftest, a test in the manner of KVM's own, on the patched and the stock
modules: each rule of the protocol's host table, save and restore, hostile values."""

import re
import subprocess

import pytest

from conftest import ROOT
from lab import debs, modules

SOURCE = ROOT / "tests/selftest/lazy_tscdeadline_test.c"
SKIP = 4  # kselftest.h: KSFT_SKIP


def subtests():
    """Names in the source's table, so that none can be left out."""
    table = SOURCE.read_text().split("} subtests[] = {")[1].split("};")[0]
    return re.findall(r'^\t\{ "(\w+)",', table, re.M)


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    modules.build("6.1")
    series = modules.repository("6.1")
    output = tmp_path_factory.mktemp("selftest") / "lazy_tscdeadline_test"
    subprocess.run([SOURCE.parent / "build.sh", series, output], check=True)
    return output


@pytest.fixture(scope="module")
def patched(binary, in_host):
    done, _ = in_host(str(binary), limit=300)
    return done


def test_the_table_of_subtests_is_found():
    assert len(subtests()) >= 36


@pytest.mark.parametrize("name", subtests())
def test_protocol(patched, name):
    assert re.search(rf"^ok \d+ {name}\b", patched.stdout, re.M), patched.stdout[-3000:]


def test_all_pass(patched):
    assert patched.returncode == 0, patched.stdout[-3000:]


def test_stock_skips(binary, in_host):
    done, _ = in_host(str(binary), "--stock", limit=60)
    assert done.returncode == SKIP, done.stdout[-3000:]
