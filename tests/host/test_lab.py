# SPDX-License-Identifier: MIT
"""The lab's own code, without a boot."""

import json
import lzma
import re
import subprocess

import pytest

from conftest import KERNELS
from lab import debs, host, initramfs, modules, probe, results, run, system, testing
from lab.ui import Fail, Usage

# The command line.

THERE = f"there is {', '.join(modules.series_here())}"


@pytest.mark.parametrize("words, expected", [
    ([], "COMMAND"),
    (["walk"], "run, host, test"),
    (["run", "--host=vmware"], "auto, direct, kvm, tcg, bochs"),
    (["run", "--kernel=5.10"], THERE),
    (["host", "--kernel=6", "--", "true"], THERE),
    (["test", "--kernel=6.1.192"], THERE),
    (["build-modules", "--kernel="], THERE),
    (["run", "--timeout=0"], "--timeout"),
    (["run", "--timeout=soon"], "--timeout"),
    (["run", "--nonsense"], "--nonsense"),
    (["run", "--sweep=foo"], "no sweep foo; there are timeout, timers, cpus, all"),
    (["run", "--sweep="], "there are timeout, timers, cpus, all"),
    (["run", "--sweep=cpus", "cpus=2"], "cpus= and --sweep=cpus"),
    (["run", "--repeat=0"], "--repeat: 0 is not a whole number from 1 to 1,000"),
    (["run", "--repeat=-1"], "--repeat: -1"),
    (["run", "--repeat=x"], "--repeat: x"),
    (["run", "--repeat=2", "repeat=2"], "repeat= and --repeat"),
    (["run", "--json", "--quiet"], "not allowed with"),
    (["run", "cpus=0"], "cpus=0"),
    (["run", "cpus=17"], "cpus=17"),
    (["run", "cpus=16", "--sweep=timers"], "timers=10000: at most 6250"),
    (["run", "storm=sleep", "--stock", "walk"], "walk"),
    (["run", "storm=sleep", "--walk", "ops=1"], "--walk"),
    (["run", "--host=direct", "--stock"], "--stock"),
    (["run", "--host=direct", "--kernel=6.12"], "--kernel"),
    (["run", "storm=swim"], "swim"),
    (["run", "walk"], "name=value"),
    (["run", "ops=0"], "ops=0"),
    (["run", "timers=0"], "timers=0"),
    (["run", "ops=99999999999999999999999"], "ops="),
    (["test", "--fast", "--dkms"], "--dkms"),
    (["host", "--stok", "--", "true"], "--stok"),
    (["host", "--share=/nonexistent", "--", "true"], "/nonexistent"),
    (["host", "--host=tcg", "--kvm-arg=nonsense", "--", "true"], "MODULE.NAME=VALUE"),
])
def test_usage_errors_are_one_line_and_status_2(sloth, words, expected):
    done = sloth(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if "building" not in line]
    assert len(lines) == 1 and lines[0].startswith("sloth: "), done.stderr
    assert not lines[0].startswith("sloth: sloth:")
    assert expected in lines[0].replace("'", "")    # Python 3.13 does not quote choices


# Which kernel.

def table(*entries):
    found = {}
    for name, version in entries:
        found.setdefault(name, set()).add(version)
    return found


def depends(name, version):
    base = name.removeprefix("linux-headers-").removesuffix("-amd64")
    return f"linux-headers-{base}-common (= {version}), linux-kbuild-6.1 (>= {version}), gcc-12"


def depends_612(name, version):
    base = name.removeprefix("linux-headers-").removesuffix("-amd64")
    return f"linux-headers-{base}-common (= {version}), linux-kbuild-{base}, gcc-12"


def kernel_at(version, number, *, without=""):
    names = [f"linux-image-6.1.0-{number}-amd64", f"linux-headers-6.1.0-{number}-amd64",
             "linux-source-6.1"]
    return [(name, version) for name in names if name != without]


def test_the_newest_version_with_all_packages_is_chosen():
    known = table(*kernel_at("6.1.9-1", 9), *kernel_at("6.1.10-1", 10))
    assert debs.choose("6.1", known, depends).release == "6.1.0-10-amd64"


def test_a_version_that_lacks_a_package_is_passed_over():
    for missing in ("linux-image-6.1.0-10-amd64", "linux-headers-6.1.0-10-amd64",
                    "linux-source-6.1"):
        known = table(*kernel_at("6.1.9-1", 9), *kernel_at("6.1.10-1", 10, without=missing))
        assert debs.choose("6.1", known, depends).version == "6.1.9-1", missing


def test_the_names_of_newer_kernels_are_understood():
    release = "6.12.9+deb12-amd64"
    known = table(*((name, "6.12.9-1~deb12u1") for name in (
        f"linux-image-{release}", f"linux-headers-{release}", "linux-source-6.12")))
    kernel = debs.choose("6.12", known, depends_612)
    assert (kernel.release, kernel.kbuild) == (release, "linux-kbuild-6.12.9+deb12")
    assert debs.choose("6.1", known, depends_612) is None


def test_realtime_cloud_and_unsigned_kernels_are_not_chosen():
    names = ("linux-image-6.1.0-9-rt-amd64", "linux-image-6.1.0-9-cloud-amd64",
             "linux-image-6.1.0-9-amd64-unsigned")
    known = table(("linux-source-6.1", "6.1.9-1"), *((name, "6.1.9-1") for name in names),
                  *((name.replace("image", "headers"), "6.1.9-1") for name in names))
    assert debs.choose("6.1", known, depends) is None


def test_madison_lines_are_read():
    text = " linux-source-6.1 | 6.1.9-1 | http://x bookworm/main amd64 Packages\n"
    assert debs.parse_madison(text) == {"linux-source-6.1": {"6.1.9-1"}}


def test_a_complete_cache_is_found_and_an_incomplete_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(debs, "CACHE", tmp_path)
    names = ["linux-image-6.1.0-9-amd64", "linux-headers-6.1.0-9-amd64", "linux-kbuild-6.1"]
    for name in names:
        (tmp_path / f"{name}_6.1.9-1_amd64.deb").touch()
    (tmp_path / "linux-headers-6.1.0-9-common_6.1.9-1_all.deb").touch()
    assert debs.cached_kernels("6.1") == []
    (tmp_path / "linux-source-6.1_6.1.9-1_all.deb").touch()
    assert [kernel.version for kernel in debs.cached_kernels("6.1")] == ["6.1.9-1"]


def test_without_a_network_a_complete_cache_serves(monkeypatch, capsys):
    cached = debs.Kernel("6.1", "6.1.9-1", "6.1.0-9-amd64", "c", "k", "s")

    def refuse(kernel):
        raise Fail("no network")

    newer = debs.Kernel("6.1", "6.1.10-1", "6.1.0-10-amd64", "c", "k", "s")
    monkeypatch.setattr(debs, "resolve", lambda series: newer)
    monkeypatch.setattr(debs, "download", refuse)
    monkeypatch.setattr(debs, "cached_kernels", lambda series: [cached])
    assert debs.get.__wrapped__("6.1") == cached
    assert "no network" in capsys.readouterr().err


@pytest.mark.parametrize("output, expected", [
    ("E: Write error - write (28: No space left on device)\n", "no space left on the disk"),
    ("Err:1 x\nE: Failed to fetch x  404\nE: Other\n", "Failed to fetch x  404"),
    ("E: x  Hash Sum mismatch\n", "x  Hash Sum mismatch"),
])
def test_the_reason_of_a_failed_download_is_named(output, expected):
    assert debs.why(output) == expected


def test_a_damaged_package_is_an_error_that_names_it(tmp_path):
    package = tmp_path / "x.deb"
    package.write_bytes(b"!<arch>\nnot really")
    with pytest.raises(Fail, match="x.deb"):
        debs.unpack(package, tmp_path / "out")


def test_modules_come_after_what_they_need(tmp_path):
    files = {}
    for name, needs in (("a", b"b,c-d"), ("b", b"c-d"), ("c_d", b"")):
        files[name] = tmp_path / name
        files[name].write_bytes(b"x\0depends=" + needs + b"\0y")
    assert debs.load_order(["a"], files) == ["c_d", "b", "a"]
    with pytest.raises(Fail, match="no module e"):
        debs.load_order(["e"], files)


def test_a_compressed_module_is_read(tmp_path):
    plain, packed = tmp_path / "a.ko", tmp_path / "b.ko.xz"
    plain.write_bytes(b"x\0depends=b\0y")
    packed.write_bytes(lzma.compress(b"x\0depends=\0y"))
    assert debs.load_order(["a"], {"a": plain, "b": packed}) == ["b", "a"]
    assert debs.contents(packed) == b"x\0depends=\0y"


@pytest.mark.parametrize("pack", [lambda elf: lzma.compress(elf) + b"size",
                                  lambda elf: subprocess.run(["zstd", "-cq"], input=elf, check=True,
                                                             capture_output=True).stdout + b"size"])
def test_the_kernel_image_is_uncompressed(pack):
    elf = b"\x7fELF" + bytes(range(256)) * 9
    payload = pack(elf)
    head = bytearray(1024)
    head[0x1F1] = 1                                              # sectors of setup code
    head[0x248:0x250] = (16).to_bytes(4, "little") + len(payload).to_bytes(4, "little")
    assert debs.uncompressed(bytes(head) + b"\0" * 16 + payload + b"\0" * 99) == elf


def test_an_image_of_another_compression_is_an_error():
    with pytest.raises(Fail, match="zstd"):
        debs.uncompressed(bytes(2048))


# The patch series.

def a_repository(tmp_path):
    base = tmp_path / "base"
    (base / "arch/x86/kvm").mkdir(parents=True)
    (base / "arch/x86/kvm/lapic.c").write_text("".join(f"line {n}\n" for n in range(20)))
    (base / ".stamp").write_text("1")
    return base


PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@example.org>
Date: Thu, 1 Jan 2026 00:00:00 +0000
Subject: [PATCH] KVM: x86: Change

---
diff --git a/arch/x86/kvm/lapic.c b/arch/x86/kvm/lapic.c
--- a/arch/x86/kvm/lapic.c
+++ b/arch/x86/kvm/lapic.c
@@ -10,3 +10,4 @@
 {first}
+new
 line 10
 line 11
"""


def test_a_series_is_applied_with_git_am(tmp_path):
    patch = tmp_path / "0001-x.patch"
    patch.write_text(PATCH.format(first="line 9"))
    changed = modules.apply(a_repository(tmp_path), [patch], tmp_path / "repo", "6.1.9-1")
    assert changed == ["arch/x86/kvm/lapic.c"]
    assert "line 9\nnew\nline 10" in (tmp_path / "repo/arch/x86/kvm/lapic.c").read_text()


def test_a_patch_that_does_not_apply_names_patch_hunk_and_kernel(tmp_path):
    base = a_repository(tmp_path)
    bad = tmp_path / "0002-y.patch"
    bad.write_text(PATCH.format(first="another line"))
    with pytest.raises(Fail) as error:
        modules.apply(base, [bad], tmp_path / "repo", "6.1.9-1")
    assert "0002-y.patch does not apply to Linux 6.1.9-1" in str(error.value)
    assert "arch/x86/kvm/lapic.c:10" in str(error.value)
    # The next try is not spoilt by the failed one.
    good = tmp_path / "0001-x.patch"
    good.write_text(PATCH.format(first="line 9"))
    assert modules.apply(base, [good], tmp_path / "repo", "6.1.9-1")


def test_a_repository_of_another_kernel_is_made_anew(tmp_path):
    base = a_repository(tmp_path)
    patch = tmp_path / "0001-x.patch"
    patch.write_text(PATCH.format(first="line 9"))
    modules.apply(base, [patch], tmp_path / "repo", "6.1.9-1")
    lapic = base / "arch/x86/kvm/lapic.c"
    lapic.write_text("newer\n" + lapic.read_text())
    modules.apply(base, [patch], tmp_path / "repo", "6.12.9-1")
    assert (tmp_path / "repo/arch/x86/kvm/lapic.c").read_text().startswith("newer\n")


def test_the_cover_letter_is_not_part_of_the_series(tmp_path):
    directory = tmp_path / "linux-6.1"
    directory.mkdir()
    for name in ("0000-cover-letter.patch", "0002-b.patch", "0001-a.patch", "notes.txt"):
        (directory / name).touch()
    assert [p.name for p in modules.patches("6.1", tmp_path)] == ["0001-a.patch", "0002-b.patch"]


def test_only_changed_files_of_the_tree_are_written(tmp_path):
    modules.update_tree(tmp_path, {"a": b"1", "b": b"1"})
    before = (tmp_path / "a").stat().st_mtime_ns
    modules.update_tree(tmp_path, {"a": b"1", "c": b"2"})
    assert (tmp_path / "a").stat().st_mtime_ns == before
    assert not (tmp_path / "b").exists() and (tmp_path / "c").read_bytes() == b"2"


@pytest.mark.parametrize("name", KERNELS)
def test_checkpatch_is_silent(name):
    kernel = debs.get(name)
    series = modules.patches(name)
    assert series
    script = modules.sources(kernel, series) / "scripts/checkpatch.pl"
    for patch in series:
        # It asks about MAINTAINERS for each new file; the selftest's directory is there.
        done = subprocess.run(["perl", script, "--strict", "--no-tree", "--no-summary", "--quiet",
                               "--show-types", "--ignore=FILE_PATH_CHANGES", patch],
                              capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), patch


@pytest.mark.parametrize("name", KERNELS)
def test_the_protocol_itself_is_small(name):
    (patch,) = [path for path in modules.patches(name) if path.name.startswith("0002-")]
    added = [line for line in patch.read_text().splitlines() if line.startswith("+")
             and not line.startswith("+++")]
    assert len(added) <= 250


# Results.

def a_row(**changes):
    row = {"workload": "sleep", "mode": "eager", "host": "tcg"}
    row.update({name: 1 for name in results.NUMBERS})
    row.update({name: {"p50": 1, "p99": 2, "max": 3} for name in results.SPREADS})
    row["exits"] = {"source": "host", **{name: 0 for name in results.COUNTS}}
    row.update(changes)
    return row


def test_a_good_row_passes():
    assert results.problem(a_row()) is None
    alone = {"source": "guest", **{name: None for name in results.COUNTS}}
    assert results.problem(a_row(exits=alone)) is None


@pytest.mark.parametrize("changes", [
    {"mode": "quick"}, {"ops": -1}, {"ops": "1"}, {"lost": True}, {"ns": None},
    {"late_ns": {"p50": 1}}, {"exits": {}}, {"exits": {"source": "host"}},
    {"exits": {"source": "host", **{name: None for name in results.COUNTS}}},
    {"exits": {"source": "guess", **{name: 0 for name in results.COUNTS}}},
])
def test_a_bad_row_does_not(changes):
    assert results.problem(a_row(**changes))


class Sink:
    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


def test_serial_output_is_shown_as_it_comes_and_results_are_taken_out():
    line = json.dumps(a_row()).encode()
    text = b"Sloth\r\nprompt: {\r\n" + line + b"\r\nend"
    for size in (1, 2, 7, len(text)):
        sink = Sink()
        serial = results.Serial(sink)
        for start in range(0, len(text), size):
            serial.write(text[start:start + size])
        assert sink.data == b"Sloth\nprompt: {\n"
        serial.finish()
        assert sink.data == b"Sloth\nprompt: {\nend\n"
        assert serial.rows == [a_row()] and serial.error is None
        assert serial.lines == ["Sloth", "prompt: {", line.decode(), "end"]


def test_a_broken_result_is_an_error():
    serial = results.Serial()
    serial.write(b'{"workload":"sleep", \n')
    assert serial.error
    with pytest.raises(Fail):
        run.verdict(run.SUCCESS, serial)


def files_of(tmp_path, **files):
    for name, rows in files.items():
        (tmp_path / name).write_text(results.as_text(rows))
    return [tmp_path / name for name in files]


def test_compare_takes_medians_and_says_what_changed(sloth, tmp_path):
    def of(exits):
        return a_row(ops=100, exits={"source": "host", **dict.fromkeys(results.COUNTS, exits)})

    first, second = files_of(tmp_path, a=[of(100), of(300), of(200)],
                             b=[of(150), a_row(workload="other")])
    done = sloth("compare", first, second)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "exits per op" in line)
    assert line.split() == ["exits", "per", "op", "2.000", "(1.000", "to", "3.000)", "1.500",
                            "-25.0", "%"]
    assert re.search(r"only in \S*/b, .*: other/", done.stderr)


@pytest.mark.parametrize("text, said", [
    (json.dumps(a_row())[:-20] + "\n", r":1: not JSON"),
    (json.dumps(a_row()) + "\n{}\n", r":2: workload is not a string"),
    ("", "no results in it"),
    (json.dumps(a_row(workload="other")), "no run in common"),
], ids=["truncated", "empty object", "empty", "another"])
def test_compare_names_what_is_wrong_with_a_file(sloth, tmp_path, text, said):
    good, = files_of(tmp_path, good=[a_row()])
    (tmp_path / "bad").write_text(text)
    done = sloth("compare", good, tmp_path / "bad")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(said, done.stderr)
    assert sloth("compare", good, tmp_path / "absent").returncode == 2


@pytest.mark.parametrize("status, code", [(35, 1), (37, 1), (1, 1)])
def test_verdict_of_a_failed_guest(status, code, capsys):
    serial = results.Serial()
    serial.write(b"one\nPANIC: two\n")
    assert run.verdict(status, serial) == code
    assert "PANIC: two" in capsys.readouterr().err


def test_verdict_of_success_needs_results():
    with pytest.raises(Fail):
        run.verdict(run.SUCCESS, results.Serial())


def test_verdict_of_a_refused_command_line():
    serial = results.Serial()
    serial.write(b"bad word\n")
    with pytest.raises(Usage, match="bad word"):
        run.verdict(run.BAD_COMMAND_LINE, serial)


# Pieces of the host.

def test_a_stream_ends_at_its_marker_however_it_is_cut():
    for size in range(1, 12):
        sink = Sink()
        ending = host.Ending(b"\0mark", sink)
        text = b"a\0b\0mar\0markrest"
        for start in range(0, len(text), size):
            ending.feed(text[start:start + size])
        assert ending.complete and sink.data == b"a\0b\0mar"


def test_the_command_is_quoted(tmp_path):
    place = tmp_path / "a b'c"
    place.mkdir()
    words = ["printf", "[%s]", "a b", "$HOME", "'", "`id`", "x\ny", "", "*"]
    done = subprocess.run(["sh", "-c", host.script(words, place, {"V": "a 'b"})],
                          capture_output=True, text=True)
    assert done.stdout == "".join(f"[{word}]" for word in words[2:])
    done = subprocess.run(["sh", "-c", host.script(["sh", "-c", 'pwd; echo "$V"'], place,
                                                   {"V": "a 'b"})],
                          capture_output=True, text=True)
    assert done.stdout == f"{place}\na 'b\n"


def test_the_archive_is_what_cpio_expects():
    archive = initramfs.Archive()
    archive.file("abc", b"12345")
    whole = archive.finish()
    assert whole[:6] == b"070701" and len(whole) % 512 == 0
    assert int(whole[54:62], 16) == 5           # size of the contents
    assert whole[110:114] == b"abc\0"           # name, padded to 4 from 110
    assert whole[116:121] == b"12345"


@pytest.mark.parametrize("line", [
    "[    1.0] BUG: unable to handle page fault", "[  1.0] WARNING: CPU: 0 PID: 1 at x.c:1",
    "Oops: 0000 [#1]", "Kernel panic - not syncing: x", "watchdog: BUG: soft lockup - CPU#0",
])
def test_complaints_of_the_kernel_are_known(line):
    assert host.COMPLAINT.search(line)


@pytest.mark.parametrize("line", [
    "kvm: loading out-of-tree module taints kernel.", "tsc: Unable to calibrate against PIT",
    "acpi PNP0A03:00: fail to add MMCONFIG information",
])
def test_ordinary_lines_are_not_complaints(line):
    assert not host.COMPLAINT.search(line)


def test_module_options_are_checked():
    table = host.Host.sort_options(["kvm.halt_poll_ns=0", "kvm-amd.npt=1"])
    assert table == {"kvm": ["halt_poll_ns=0"], "kvm_amd": ["npt=1"], "kvm_intel": []}
    with pytest.raises(Usage):
        host.Host.sort_options(["kvm.x=1; reboot"])


# The probe.

class Options:
    host, stock, kernel, kvm_arg = "auto", False, "6.1", []


@pytest.mark.parametrize("guest, nests, boots, may_direct, expected", [
    ((None, True), (True, ""), None, True, "direct"),
    ((None, True), (True, ""), None, False, "kvm"),
    ((None, False), (True, ""), None, True, "kvm"),
    ((None, False), (True, ""), "it hangs", True, "tcg"),
    ((None, False), (False, "nesting is off"), None, True, "tcg"),
    (("no guest runs", False), (True, ""), None, True, "tcg"),
])
def test_auto_takes_the_first_that_works(monkeypatch, capsys, guest, nests, boots, may_direct,
                                         expected):
    monkeypatch.setattr(probe, "try_guest", lambda: guest)
    monkeypatch.setattr(probe, "nested", lambda: nests)
    monkeypatch.setattr(probe, "boots", lambda options: boots)
    assert probe.auto(Options, may_direct) == expected
    said = capsys.readouterr().err
    assert expected in said
    for reason in (guest[0], boots, nests[1]):
        if expected == "tcg" and reason:
            assert reason in said


def test_what_the_lab_starts_ends_in_time(tmp_path):
    with pytest.raises(Fail, match="did not end"):
        system.call(["sleep", "60"], limit=0.2)


def test_a_guest_that_hangs_here_is_ended(tmp_path):
    with pytest.raises(host.TimeLimit):
        run.run_here(["sh", "-c", "echo x; exec sleep 60"], results.Serial(), 0.5)


def test_a_left_behind_run_directory_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "BUILD", tmp_path)
    (tmp_path / "run-old").mkdir()
    (tmp_path / "run-old/lock").touch()
    with system.run_directory() as first:
        assert not (tmp_path / "run-old").exists()
        with system.run_directory() as second:
            assert first.exists() and second != first
    assert list(tmp_path.iterdir()) == []


def test_shell_scripts_parse():
    for script in ("sloth", "lab/init.sh", ".ci/run"):
        assert subprocess.run(["sh" if script.endswith(".sh") else "bash", "-n",
                               system.ROOT / script]).returncode == 0


def test_commas_in_paths_are_doubled_for_the_emulator():
    assert host.quoted("/a,b") == "/a,,b"


@pytest.fixture
def debian(monkeypatch):
    """debian(lists=, cache=, updated=): which series there are, and which after an update of
    the apt lists; nothing is downloaded."""
    get = debs.get.__wrapped__

    def kernels(series, known):
        return [debs.Kernel(series, f"{series}.9-1", "r", "c", "k", "s")] * (series in known)

    def make(lists=(), cache=(), updated=None):
        now = {"lists": lists}

        def update():
            now["lists"] = updated or lists
            return updated is not None

        def refuse(kernel):
            raise Fail("no network")

        monkeypatch.setattr(debs, "resolve",
                            lambda series: next(iter(kernels(series, now["lists"])), None))
        monkeypatch.setattr(debs, "cached_kernels", lambda series: kernels(series, cache))
        monkeypatch.setattr(debs, "update_lists", update)
        monkeypatch.setattr(debs, "download", refuse)
        monkeypatch.setattr(debs, "get", get)

    return make


@pytest.mark.parametrize("lists, cache, default", [
    (["6.1", "6.12"], [], "6.1"),
    (["6.12"], [], "6.12"),
    (["6.12"], ["6.1"], "6.12"),        # a machine that was Debian 12 before
    ([], ["6.1", "6.12"], "6.1"),       # the cache without apt lists
])
def test_the_default_kernel_is_the_first_that_there_is(debian, lists, cache, default):
    debian(lists, cache)
    assert modules.default_series() == default


def test_without_lists_they_are_fetched(debian):
    debian(updated=["6.12"])
    assert modules.default_series() == "6.12"
    debian()
    with pytest.raises(Fail, match="no complete Linux 6.1 or 6.12.*apt-get update"):
        modules.default_series()


def test_a_kernel_that_this_debian_does_not_have_is_refused(debian):
    debian(["6.12"])
    modules.check_series("6.12")
    with pytest.raises(Usage, match=r"--kernel=6.1: .*; there is 6.12$"):
        modules.check_series("6.1")
    debian(["6.12"], cache=["6.1"])
    modules.check_series("6.1")
    debian()
    modules.check_series("6.1")     # no lists yet
    with pytest.raises(Usage, match="there is 6.1, 6.12$"):
        modules.check_series("5.10")


def test_a_kernel_that_is_not_to_be_had_is_left_out(debian, monkeypatch, capsys):
    debian(["6.12"])
    monkeypatch.setattr(debs, "download", lambda kernel: None)
    assert modules.series_obtainable() == ["6.12"]
    assert "Linux 6.1 is left out: this Debian" in capsys.readouterr().err


def test_one_that_cannot_be_downloaded_is_left_out_but_not_the_default_one(debian, capsys):
    debian(["6.1", "6.12"], cache=["6.1"])
    assert modules.series_obtainable() == ["6.1"]
    assert "Linux 6.12 is left out: no network" in capsys.readouterr().err
    debian(["6.1", "6.12"], cache=["6.12"])
    with pytest.raises(Fail, match="no network"):
        modules.series_obtainable()


def test_that_apt_has_no_such_kernel_is_asked_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(debs, "CACHE", tmp_path)
    monkeypatch.setattr(debs, "ask_apt", asked.append)
    assert debs.resolve("6.1") is None and debs.resolve("6.1") is None
    assert asked == ["6.1"]


@pytest.mark.parametrize("name", KERNELS)
def test_the_compiler_is_the_kernels(name):
    assert re.fullmatch(r"gcc-\d+", debs.get(name).compiler())


# The test command.

@pytest.mark.parametrize("options, expected", [
    ([], ["tests"]), (["-k", "boot"], ["tests", "-k", "boot"]),
    (["-x", "tests/boot/test_boot.py::test_a"], ["-x", "tests/boot/test_boot.py::test_a"]),
])
def test_tests_that_are_named_are_instead_of_all(monkeypatch, options, expected):
    begun = []
    monkeypatch.setattr(run, "build_guest", lambda: None)
    monkeypatch.setattr(modules, "build", lambda series: None)
    monkeypatch.setattr(system, "spawn",
                        lambda argv, **_: begun.append(argv) or subprocess.Popen("true"))
    assert testing.run_tests(False, ["model"], "6.1", options) == 0
    (argv,) = begun
    assert [word for word in argv[argv.index("no:cacheprovider") + 1:]
            if word != "--model"] == expected
