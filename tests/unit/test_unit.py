# SPDX-License-Identifier: MIT
"""Builds the hosted unit tests and shows each cmocka check as a pytest test."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TAP_LINE = re.compile(r"^(ok|not ok) \d+ - (.*)$")


def build():
    """Runs `make unit`; returns what it said if it failed, else None."""
    made = subprocess.run(["make", "-j2", "unit", "build/storm-args"], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)
    return None if made.returncode == 0 else made.stdout + made.stderr


def checks_of(program):
    """Runs one test program: pairs of (name of the check, error text or None)."""
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    try:
        ran = subprocess.run([program], env=env, capture_output=True, text=True,
                             timeout=120)
    except subprocess.TimeoutExpired:
        return [("ends in time", "no end within 120 s")]
    everything = ran.stdout + ran.stderr
    checks = [(found[2], None if found[1] == "ok" else everything)
              for found in map(TAP_LINE.match, ran.stdout.splitlines()) if found]
    if not checks or (ran.returncode != 0 and all(e is None for _, e in checks)):
        checks.append(("runs to its end", f"status {ran.returncode}\n{everything}"))
    return checks


def collect():
    error = build()
    if error:
        return [pytest.param(error, id="build")]
    programs = [ROOT / "build/unit" / source.stem
                for source in sorted(Path(__file__).parent.glob("test_*.c"))]
    return [pytest.param(error, id=f"{program.name[5:]}: {name}")
            for program in programs for name, error in checks_of(program)]


@pytest.mark.parametrize("error", collect())
def test_unit(error):
    assert error is None, error


@pytest.mark.parametrize("words, named", [
    (["storm=foo"], "'foo'"),
    (["ops=0"], "ops=0"),
    (["timers=100001"], "too large"),
    (["storm=sleep rearm"], "'sleep rearm'"),
    ([""], "name=value"),
])
def test_storm_args_refuses(words, named):
    ran = subprocess.run([ROOT / "build/storm-args", *words], capture_output=True,
                         text=True, timeout=10)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("sloth: ") and ran.stderr.count("\n") == 1
    assert named in ran.stderr


@pytest.mark.parametrize("words, runs", [
    ([], 24),
    (["storm=all", "ops=5", "timeout=3ms", "repeat=2"], 48),
    (["storm=rearm,sleep", "mode=lazy,eager"],
     ["sleep/eager", "sleep/lazy", "rearm/eager", "rearm/lazy"]),
])
def test_storm_args_accepts_and_says_what_will_be_run(words, runs):
    ran = subprocess.run([ROOT / "build/storm-args", *words], capture_output=True,
                         text=True, timeout=10)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert runs in (ran.stdout.split(), len(ran.stdout.split()))
