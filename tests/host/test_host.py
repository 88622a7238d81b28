# SPDX-License-Identifier: MIT
"""./sloth host: what a command sees in the emulated host, and how the lab ends."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from conftest import ROOT, emulators, emulators_of
from lab import host, system

SCRIPT = r"""
echo "kernel $(uname -r)"
[ -c /dev/kvm ] && echo kvm
[ -d /sys/kernel/debug/kvm ] && echo debugfs
[ "$PWD" = "%(root)s" ] && [ -f sloth ] && echo directory
printf 'to stderr' >&2
printf 'a\r\nb\nc\t\001\377' >"$SLOTH_SHARE/bytes"
printf 'a\r\nb\nc\t\001\377'
cat >"$SLOTH_SHARE/stdin"
if echo dropped >build/written-in-the-host && [ -f build/written-in-the-host ]; then
	echo written >"$SLOTH_SHARE/wrote"
fi
echo dropped >>README-of-nothing
modinfo=$(cat /sys/module/kvm/taint 2>/dev/null)
echo "taint=$modinfo" >"$SLOTH_SHARE/taint"
cat /sys/module/kvm/parameters/halt_poll_ns >"$SLOTH_SHARE/halt_poll_ns"
env >"$SLOTH_SHARE/env"
exit 7
"""


def boot(share, *options):
    text = "line one\nline two \x01 with bytes\n"
    # Latin-1 and no newline translation: each byte stays what it is.
    stdout = share / "captured"
    with open(stdout, "wb") as file:
        done = subprocess.run(
            [ROOT / "sloth", "host", "--host=tcg", f"--share={share}", "--timeout=120", *options,
             "--", "/bin/sh", "-c", SCRIPT % {"root": ROOT}], input=text.encode(), stdout=file,
            stderr=subprocess.PIPE, cwd=ROOT, timeout=400)
    done.stdout = stdout.read_bytes().decode("latin-1")
    done.stderr = done.stderr.decode(errors="replace")
    return done, text


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    share = tmp_path_factory.mktemp("share")
    done, text = boot(share, "--kvm-arg=kvm.halt_poll_ns=1234")
    return done, share, text


def test_exit_status_is_the_commands(patched):
    assert patched[0].returncode == 7, patched[0].stderr


def test_the_command_finds_kvm_debugfs_and_its_directory(patched):
    assert {"kvm", "debugfs", "directory"} <= set(patched[0].stdout.splitlines())


def test_output_is_unmangled_and_apart_from_errors(patched):
    done, share, _ = patched
    assert (share / "bytes").read_bytes() == b"a\r\nb\nc\t\x01\xff"
    assert (share / "captured").read_bytes().endswith(b"\na\r\nb\nc\t\x01\xff")
    assert "to stderr" in done.stderr and "to stderr" not in done.stdout


def test_standard_input_is_passed_on(patched):
    _, share, text = patched
    assert (share / "stdin").read_text() == text


def test_writes_are_dropped(patched):
    _, share, _ = patched
    assert (share / "wrote").exists()
    assert not (ROOT / "build/written-in-the-host").exists()
    assert not (ROOT / "README-of-nothing").exists()


def test_the_patched_module_is_loaded_with_its_options(patched):
    _, share, _ = patched
    assert "O" in (share / "taint").read_text()  # out of tree: not the distribution's
    assert (share / "halt_poll_ns").read_text().strip() == "1234"


def test_the_environment_is_a_short_list(patched):
    names = {line.split("=")[0] for line in (patched[1] / "env").read_text().splitlines()}
    assert "PATH" in names and "SLOTH_SHARE" in names
    assert names <= {*host.ENVIRONMENT, "SLOTH_SHARE", "PWD", "OLDPWD", "SHLVL", "_"} | {
        name for name in names if name.startswith("LC_")}


def test_the_hosts_kernel_did_not_complain(patched):
    assert not host.COMPLAINT.search((ROOT / "build/host-console.log").read_text())


def test_stock_is_the_distributions_module_and_a_signal_is_128_and_more(in_host, no_leftovers):
    done, share = in_host('cat /sys/module/kvm/taint >"$SLOTH_SHARE/taint"; kill -TERM $$',
                          "--stock")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "O" not in (share / "taint").read_text()


def test_time_limit(in_host, no_leftovers):
    done, _ = in_host("sleep 600", limit=3)
    assert done.returncode == 124
    assert "time limit of 3 s" in done.stderr


def wait_for(condition, limit):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


def sleeping_host(share):
    """A lab whose command makes share/up and then sleeps."""
    return subprocess.Popen(
        [ROOT / "sloth", "host", "--host=tcg", f"--share={share}", "--", "sh", "-c",
         'touch "$SLOTH_SHARE/up"; sleep 600'], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(sig, tmp_path, no_leftovers):
    process = sleeping_host(tmp_path)
    try:
        assert wait_for((tmp_path / "up").exists, 200)
        process.send_signal(sig)
        assert process.wait(10) == 128 + sig
    finally:
        process.kill()
        process.wait()


def test_the_emulator_dies_with_a_killed_lab(tmp_path):
    process = sleeping_host(tmp_path)
    try:
        assert wait_for((tmp_path / "up").exists, 200)
        (emulator,) = emulators_of(process)
    finally:
        process.kill()
        process.wait()
    assert wait_for(lambda: emulator not in emulators(), 10)
    with system.run_directory():
        pass  # removes what the killed one left


def test_a_host_that_stops_is_started_again(tmp_path, no_leftovers):
    """The first start is frozen from outside; the second one does the work."""
    process = subprocess.Popen(
        [ROOT / "sloth", "host", "--host=tcg", f"--share={tmp_path}", "--", "sh", "-c",
         'if [ -e "$SLOTH_SHARE/up" ]; then exit 3; fi; touch "$SLOTH_SHARE/up"; sleep 600'],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True)
    try:
        assert wait_for((tmp_path / "up").exists, 200)
        (emulator,) = emulators_of(process)
        os.kill(int(emulator), signal.SIGSTOP)
        _, said = process.communicate(timeout=200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 3, said
    assert "no heartbeat" in said and "starting it again" in said
    assert "kernel log" in (ROOT / "build/host-dead-1.log").read_text()


def test_a_kernel_that_panics_is_a_failure_and_not_tried_again(in_host, no_leftovers):
    done, _ = in_host("echo c >/proc/sysrq-trigger; sleep 60", limit=60)
    assert done.returncode == 125
    assert "sysrq triggered crash" in done.stderr
    assert "starting it again" not in done.stderr


def test_a_terminal(no_leftovers):
    """A shell with a terminal: size, job control, raw mode, restored at the end."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 37, 91, 0, 0))
    before = termios.tcgetattr(child)
    process = subprocess.Popen([ROOT / "sloth", "host", "--host=tcg", "--", "sh", "-c",
                                "stty size; tty; echo ready; sleep 300; exit 9"],
                               cwd=ROOT, stdin=child, stdout=child, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    output = b""
    try:
        end = time.monotonic() + 200
        # A Ctrl-C that comes as tty is about to end is none to the shell.
        while b"ready" not in output and time.monotonic() < end:
            if select.select([parent], [], [], 1)[0]:
                output += os.read(parent, 4096)
        os.write(parent, b"\x03")  # Ctrl-C goes to the command, not to the lab
        status = process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert b"37 91" in output and b"/dev/hvc0" in output
    assert status == 128 + signal.SIGINT, (status, output)
    assert termios.tcgetattr(child) == before
    os.close(parent)
    os.close(child)


def test_a_reader_that_leaves_is_no_error_message(no_leftovers):
    done = subprocess.run(["bash", "-c", f"{ROOT}/sloth host --host=tcg -- "
                           "sh -c 'i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done' "
                           "| head -1"], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL)
    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr


