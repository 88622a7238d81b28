# SPDX-License-Identifier: MIT
"""The protocol's model: Spin finds nothing wrong with it, and something with each fault."""

import importlib.machinery
import importlib.util
import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parents[2] / "model/check"


def load():
    loader = importlib.machinery.SourceFileLoader("model_check", str(CHECK))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("model_check", loader))
    loader.exec_module(module)
    return module


# Those that take Spin longer than the others wait for --model.
SLOW = ("DELIVERED_KEPT", "SPIV_WIPES", "TSC_MOVED", "DELIVERED_MOVED", "ENABLE_STALE")
FAULTS = [pytest.param(name, marks=[pytest.mark.model] if name in SLOW else [])
          for name in load().FAULTS]


def check(*words, limit=600):
    done = subprocess.run([CHECK, *words], capture_output=True, text=True, timeout=limit)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_protocol_holds():
    check("--only=protocol")


@pytest.mark.model
def test_the_protocol_holds_with_all_that_can_happen():
    check("--full", limit=7200)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(name):
    check(f"--only={name}")
