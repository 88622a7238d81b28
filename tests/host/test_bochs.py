# SPDX-License-Identifier: MIT
"""The host on an emulated Intel CPU: ./sloth run --host=bochs. What boots Bochs takes
minutes, so those run with ./sloth test --bochs only."""

import re
import signal
import struct
import subprocess
import time

import pytest

from conftest import KERNEL, ROOT
from lab import bochs, initramfs, modules, results, run
from lab.ui import Fail, Usage

boots = pytest.mark.bochs
MODES = ("eager", "rearm", "lazy")


# Without a boot.

def a_kernel(entry=0x1000850, notes=True):
    """A 64-bit ELF file of two segments and the note with the PVH entry."""
    note = struct.pack("<3I4s4s", 4, 4, 6, b"Xen\0", b"abc\0")
    if notes:
        note += struct.pack("<3I4sI", 4, 4, bochs.PHYS32_ENTRY, b"Xen\0", entry)
    first, second = b"one" * 200, b"two" + bytes(700)
    offset = 64 + 3 * 56
    rows = [(bochs.PT_LOAD, 0x1400000, second, 5000), (bochs.PT_LOAD, 0x1000000, first, len(first)),
            (bochs.PT_NOTE, 0, note, len(note))]
    headers = contents = b""
    for kind, address, data, room in rows:
        headers += struct.pack("<IIQQQQQQ", kind, 0, offset + len(contents), 0, address, len(data),
                               room, 0)
        contents += data
    return struct.pack("<32xQ16xH6x", 64, len(rows)) + headers + contents


def test_segments_come_in_order_and_without_their_zeros():
    found, entry = bochs.segments(a_kernel())
    assert found == [(0x1000000, b"one" * 200, 600), (0x1400000, b"two", 5000)]
    assert entry == 0x1000850


def test_a_kernel_without_a_pvh_entry_is_refused():
    with pytest.raises(Fail, match="PVH"):
        bochs.segments(a_kernel(notes=False))


def test_the_disk_says_what_to_load_and_where(tmp_path):
    initrd = b"initrd" * 1000
    cylinders = bochs.disk(tmp_path, a_kernel(), initrd)
    image = (tmp_path / "disk").read_bytes()
    assert len(image) == cylinders * bochs.HEADS * bochs.SECTORS * bochs.SECTOR
    assert image[510:512] == b"\x55\xaa"
    block = image[512:512 + bochs.BLOCK_SECTORS * 512]
    entry, start_info = struct.unpack_from("<2I", block)
    assert entry == 0x1000850
    loads = list(struct.iter_unpack("<4I", block[8:8 + 4 * 16]))
    assert loads[3] == (0, 0, 0, 0)
    for (sector, sectors, address, zeros), (at, data, room) in zip(
            loads, [(0x1000000, b"one" * 200, 600), (0x1400000, b"two", 5000),
                    (0x1600000, initrd, 6000)]):
        assert address == at and image[sector * 512:][:len(data)] == data
        assert sectors * 512 >= len(data)
        assert zeros % 4 == 0 and sectors * 512 + zeros >= room
    magic, version, _, modules, module, arguments = struct.unpack_from(
        "<4I2Q", block, start_info - bochs.BLOCK)
    assert (magic, version, modules) == (0x336EC578, 1, 1)
    assert struct.unpack_from("<2Q", block, module - bochs.BLOCK) == (0x1600000, len(initrd))
    text = block[arguments - bochs.BLOCK:].split(b"\0")[0]
    assert text.decode() == bochs.KERNEL_ARGUMENTS


def test_a_program_comes_with_its_libraries_at_their_own_paths(tmp_path):
    file = tmp_path / "data"
    file.write_text("hello")
    archive = initramfs.programs(["cat"], [file])
    for name in ("usr/bin", "libc.so.6", "ld-linux-x86-64.so.2", str(file).lstrip("/")):
        assert name.encode() + b"\0" in archive, name
    with pytest.raises(Fail, match="no-such-program is not installed"):
        initramfs.programs(["no-such-program"], [])


def test_an_option_for_kvm_amd_is_refused():
    with pytest.raises(Usage, match="Intel"):
        bochs.Host(options=["kvm_amd.avic=1"])


# With a boot.

def rows():
    return {(row["workload"], row["mode"]): row for row in map(
        results.parse, (run.BUILD / "results.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def default(sloth):
    """./sloth run --host=bochs, its rows and how long it took."""
    start = time.monotonic()
    done = sloth("run", "--host=bochs", limit=1800)
    took = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    return done, rows(), took


@boots
def test_the_default_run_ends_well_and_in_time(default):
    done, found, took = default
    assert took < 600
    assert set(found) == {(storm, mode) for storm in ("sleep", "rearm", "expire") for mode in MODES}
    for row in found.values():
        assert (row["lost"], row["early"], row["host"]) == (0, 0, "bochs"), row
        assert row["exits"]["source"] == "host"
    assert re.search(r"^  preemption-timer +\d", done.stdout, re.M)


@boots
def test_rearm_saves_nearly_all_writes_and_adds_no_preemption_exit(default):
    eager, lazy = (default[1]["rearm", mode]["exits"] for mode in ("eager", "lazy"))
    assert eager["tsc_deadline"] >= 50000
    assert lazy["tsc_deadline"] <= eager["tsc_deadline"] / 1000
    assert lazy["preemption_timer"] <= eager["preemption_timer"]


@boots
def test_the_preemption_timer_kicks_a_guest_that_runs(sloth):
    """Deadlines that pass while the guest is busy: each is an exit of that timer, and the
    host moves on without an interrupt."""
    done = sloth("run", "--host=bochs", "storm=rearm", "mode=rearm,lazy", "timeout=20ms",
                 "ops=200000", "timers=100", limit=1800)
    assert done.returncode == 0, done.stderr
    lazy, rearm = (rows()["rearm", mode]["exits"] for mode in ("lazy", "rearm"))
    assert lazy["kick"] == lazy["rearm"] >= 1
    assert lazy["preemption_timer"] >= lazy["kick"]
    assert lazy["timer_interrupt"] == lazy["tsc_deadline"] == 0
    assert rearm["timer_interrupt"] >= 1


@boots
def test_stock_offers_no_lazy(sloth):
    done = sloth("run", "--host=bochs", "--stock", "storm=sleep", "ops=200", limit=1800)
    assert done.returncode == 0, done.stderr
    assert {mode for _, mode in rows()} == {"eager", "rearm"}


@boots
def test_a_guest_that_hangs_fails_with_its_last_lines(sloth):
    done = sloth("run", "--host=bochs", "--timeout=30", "storm=sleep", "ops=50", "fault=hang",
                 limit=1800)
    assert done.returncode == 1, done.stderr
    assert "still running after 30 s" in done.stderr
    assert any(line.startswith("sloth: | ") for line in done.stderr.splitlines())


@boots
def test_without_a_preemption_timer_there_is_a_reason_and_no_run(sloth):
    done = sloth("run", "--host=bochs", "--kvm-arg=kvm_intel.preemption_timer=0", limit=1800)
    assert done.returncode == 125
    assert "no VMX preemption timer" in done.stderr


class Sink:
    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


@boots
def test_the_protocols_rules_hold_on_vmx(tmp_path):
    """tests/selftest, as test_selftest.py runs it on the emulated AMD host."""
    series = KERNEL or modules.default_series()
    modules.build(series)
    out = Sink()
    subprocess.run([ROOT / "tests/selftest/build.sh", modules.repository(series), tmp_path,
                    "x86_64/lazy_tscdeadline_test"], check=True)
    status = bochs.Host(series).run([str(tmp_path / "lazy_tscdeadline_test")], stdout=out,
                                    limit=1800)
    text = out.data.decode(errors="replace")
    assert status == 0, text[-3000:]
    assert "\nnot ok" not in text and len(re.findall(r"^ok ", text, re.M)) >= 36, text[-3000:]


def processes():
    listed = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True)
    return [line.split(None, 2) for line in listed.stdout.splitlines()[1:]]


def below(ancestor):
    """Ids of all that a process has started."""
    found, more = set(), {str(ancestor)}
    while more:
        more = {pid for pid, parent, _ in processes() if parent in more}
        found |= more
    return found


@boots
def test_ctrl_c_leaves_nothing_running():
    process = subprocess.Popen([ROOT / "sloth", "run", "--host=bochs"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        for _ in range(600):
            started = below(process.pid)
            if any(pid in started and name.startswith("bochs") for pid, _, name in processes()):
                break
            time.sleep(0.5)
        time.sleep(3)
        started = below(process.pid)
        assert any(pid in started and name.startswith("bochs") for pid, _, name in processes())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    time.sleep(0.5)
    assert not started & {pid for pid, _, _ in processes()}
