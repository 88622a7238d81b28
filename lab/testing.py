# SPDX-License-Identifier: MIT
"""./sloth test: builds everything, then pytest over tests/."""

import os

from lab import modules, run, system
from lab.system import ROOT

# Of tests/host, those that boot no host without an option of their own.
WITHOUT_BOOT = ("test_lab.py", "test_report.py", "test_watch.py", "test_claims.py",
                "test_bochs.py", "test_debug_host.py", "test_conform.py", "test_linux_lazy.py")

# Options of ./sloth test and of pytest: the tests that bear the mark of that name (with _
# for -) are left out without it, as they take minutes or need more. One line each.
EXTRAS = {
    "bochs": "those on an emulated Intel CPU (a quarter of an hour)",
    "debug-host": "storms on a kernel that looks for faults, which is built first (hours)",
    "dkms": "the host package's life in a Debian root (as root, with mmdebstrap; four minutes)",
    "kvm-selftests": "Linux' own KVM selftests, patched beside stock (10 to 30 minutes)",
    "soak": "an hour of storms on four CPUs, with another seed each time",
    "faults": "a thousand of each fault that a VMM can make, not a few (hours)",
    "conform": "guests and hosts broken on purpose, for ./sloth conform to notice (half an hour)",
    "linux-lazy": "a Debian Linux guest that uses the protocol (ten minutes a kernel)",
    "model": "the protocol's model with all that can happen to it (four minutes, 3 GB)",
    "linux-guest": "a Debian Linux guest, patched beside stock (10 to 30 minutes)",
}


def run_tests(fast, extras, kernel, options):
    """kernel: the series for every test. Without it most run on the default one, and
    those that are about the series on each. extras: names out of EXTRAS. options: pytest's."""
    run.build_guest()
    kernels = [kernel] if kernel else modules.series_obtainable()
    if not fast:
        for series in kernels:
            modules.build(series)
    argv = ["/usr/bin/python3", "-B", "-m", "pytest", "-p", "no:cacheprovider"]
    if not any(option.startswith("tests/") for option in options):
        argv.append("tests")
    if fast:
        argv += [f"--ignore={path}" for path in ROOT.glob("tests/host/test_*.py")
                 if path.name not in WITHOUT_BOOT]
    argv += [f"--{name}" for name in extras]
    process = system.spawn([*argv, *options], cwd=ROOT,
                           env={**os.environ, "PYTHONPATH": str(ROOT),
                                "PYTHONDONTWRITEBYTECODE": "1", "SLOTH_KERNEL": kernel or "",
                                "SLOTH_KERNELS": " ".join(kernels)})
    try:
        return process.wait()
    finally:
        system.kill(process)
