# SPDX-License-Identifier: MIT
"""./sloth test: builds everything, then pytest over tests/."""

import os

from lab import modules, run, system
from lab.system import ROOT

WITHOUT_BOOT = ("test_lab.py", "test_bochs.py")  # of tests/host; the others boot the host


def run_tests(fast, bochs, kernel, extra):
    """kernel: the series for every test. Without it most run on the default one, and
    those that are about the series on each."""
    run.build_guest()
    kernels = [kernel] if kernel else modules.series_obtainable()
    if not fast:
        for series in kernels:
            modules.build(series)
    argv = ["/usr/bin/python3", "-B", "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    if fast:
        argv += [f"--ignore={path}" for path in ROOT.glob("tests/host/test_*.py")
                 if path.name not in WITHOUT_BOOT]
    if bochs:
        argv.append("--bochs")
    process = system.spawn([*argv, *extra], cwd=ROOT,
                           env={**os.environ, "PYTHONPATH": str(ROOT),
                                "PYTHONDONTWRITEBYTECODE": "1", "SLOTH_KERNEL": kernel or "",
                                "SLOTH_KERNELS": " ".join(kernels)})
    try:
        return process.wait()
    finally:
        system.kill(process)
