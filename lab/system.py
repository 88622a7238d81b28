# SPDX-License-Identifier: MIT
"""Processes that cannot outlive us, signals, directories of one run."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from lab.ui import Fail

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


class Stopped(BaseException):
    """A signal told us to stop. Not an Exception: nothing but main() catches it."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def stop_on_signals():
    """SIGINT, SIGTERM and SIGHUP unwind the stack, so every `finally` runs."""

    def handler(number, _frame):
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)  # once is enough: let the cleaning finish
        raise Stopped(number)

    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, handler)


def _child():
    # SIGKILL when the lab dies, even by SIGKILL itself. A session of its own, so that
    # a Ctrl-C at the terminal reaches the lab only and the group can be ended as one.
    os.setsid()
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_DFL)


def spawn(argv, **kwargs):
    """subprocess.Popen for a child that dies with us."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    try:
        return subprocess.Popen([str(a) for a in argv], preexec_fn=_child, **kwargs)
    except FileNotFoundError:
        raise Fail(f"{argv[0]} is not installed") from None


def kill(process):
    """End a process made by spawn(), and everything it started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def call(argv, *, limit=None, **kwargs):
    """Run to the end; returns (status, standard output and error as one text)."""
    process = spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    errors="replace", **kwargs)
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        raise Fail(f"{argv[0]} did not end within {limit} seconds") from None
    finally:
        kill(process)


@contextlib.contextmanager
def run_directory():
    """A directory of this run under build/, removed afterwards. One that a killed
    run left behind is nobody's any more when its lock is free, and goes too."""
    BUILD.mkdir(exist_ok=True)
    for old in BUILD.glob("run-*"):
        with contextlib.suppress(OSError):
            with open(old / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD))
    try:
        with open(path / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def build_lock(what):
    """One build of a thing at a time in one checkout."""
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / f".lock-{what}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_atomically(path, text):
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    draft.replace(path)
