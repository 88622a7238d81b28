# SPDX-License-Identifier: MIT
"""./sloth test: builds everything, then pytest over tests/."""

import os

from lab import modules, run, system
from lab.system import ROOT

WITHOUT_BOOT = "test_lab.py"  # of tests/host; all others there boot the emulated host


def run_tests(fast, extra):
    run.build_guest()
    if not fast:
        modules.build("6.1")
    argv = ["/usr/bin/python3", "-B", "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    if fast:
        argv += [f"--ignore={path}" for path in ROOT.glob("tests/host/test_*.py")
                 if path.name != WITHOUT_BOOT]
    process = system.spawn([*argv, *extra], cwd=ROOT,
                           env={**os.environ, "PYTHONPATH": str(ROOT),
                                "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        return process.wait()
    finally:
        system.kill(process)
