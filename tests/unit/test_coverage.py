# SPDX-License-Identifier: MIT
"""The guest's timer path: how long it is, and that the unit tests run each line of it."""

import gzip
import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What docs/architecture.md's walk passes, from hrtimer_start() down to the WRMSR.
COMPILED = ("kernel/hrtimer.c", "kernel/clockevent.c", "kernel/idle.c", "drivers/deadline_eager.c",
            "drivers/deadline_rearm.c", "drivers/deadline_lazy.c")
PATH = COMPILED + ("kernel/hrtimer.h", "kernel/hrtimer_heap.h", "kernel/hrtimer_list.h",
                   "kernel/hrtimer_slots.h", "kernel/clockevent.h", "kernel/idle.h",
                   "drivers/deadline.h", "drivers/lapic.h")
LINES, LONGEST = 1000, 60

# What it goes through that no unit test can run, and a test that fails without it.
ONLY_IN_THE_IMAGE = {
    "arch/x86/entry.asm": {
        "trap_common:": "tests/boot/test_boot.py test_each_sleep_is_one_interrupt",
        "cpu_wait:": "tests/boot/test_boot.py test_each_sleep_is_one_interrupt"},
    "arch/x86/trap.c": {
        "void trap_entry(": "tests/boot/test_boot.py test_each_sleep_is_one_interrupt"},
    "drivers/lapic.c": {
        "void lapic_write_eoi(": "tests/boot/test_boot.py test_each_sleep_is_one_interrupt",
        "void lapic_oneshot(": "tests/boot/test_boot.py test_each_sleep_is_one_interrupt"},
}
LINES_ONLY_IN_THE_IMAGE = {("drivers/lapic.h", "lapic_oneshot(deadline);")}

HOSTED = ("hrtimer", "forward", "deadline", "clockevent")
# Functions stay what they are in the source; and those that nobody calls stay.
FLAGS = ("--coverage -O1 -fno-inline -fno-ipa-pure-const -fno-ipa-modref"
         " -fkeep-inline-functions -fkeep-static-functions")


def output(*argv, cwd=ROOT):
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """By file and name of each function: how many lines it has, how often it was called. By file
    and number of each line of a function: how often it was run."""
    directory = tmp_path_factory.mktemp("hosted")
    programs = [directory / f"test_{name}" for name in HOSTED]
    output("make", "-s", "-j2", f"UNIT={directory}", *map(str, programs),
           f"HOSTED=-std=gnu17 -Itests/unit/fake -I. -DHRTIMER_CHECK {FLAGS}")
    for program in programs:
        output("env", "WHEEL_SHAPES=100", program)  # half of its random trials is enough
    output("gcov", "--json-format", *map(str, directory.glob("*.gcno")), cwd=directory)
    length, called, run = {}, Counter(), Counter()
    for found in directory.glob("*.gcov.json.gz"):
        for file in json.loads(gzip.decompress(found.read_bytes()))["files"]:
            for function in file["functions"]:
                where = file["file"], function["name"]
                length[where] = function["end_line"] - function["start_line"] + 1
                called[where] += function["execution_count"]
            for line in file["lines"]:
                run[file["file"], line["line_number"]] += line["count"]
    return tuple({where: number for where, number in numbers.items() if where[0] in PATH}
                 for numbers in (length, called, run))


def test_the_timer_path_is_short():
    """Without comments and empty lines."""
    count = {path: len(re.findall(r"^.*\S", re.sub(
        r"/\*.*?\*/|//[^\n]*", "", (ROOT / path).read_text(), flags=re.S), re.M)) for path in PATH}
    print(f"{sum(count.values())} lines:", count)
    assert sum(count.values()) < LINES


def test_its_functions_are_short(counts):
    length, where = max((length, where) for where, length in counts[0].items())
    print(f"{len(counts[0])} functions; the longest is {where[1]}() in {where[0]}, {length} lines")
    assert length < LONGEST


def test_each_of_its_functions_is_run(counts):
    _, called, _ = counts
    assert len(called) > 80 and {path for path, _ in called} >= set(COMPILED)
    assert [where for where, times in called.items() if not times] == []


def test_each_of_its_lines_is_run(counts):
    _, _, run = counts
    for path in sorted({path for path, _ in run}):
        lines = [times > 0 for (file, _), times in run.items() if file == path]
        print(f"{path}: {sum(lines)} of {len(lines)} lines")
    left = {(path, (ROOT / path).read_text().splitlines()[line - 1].strip())
            for (path, line), times in run.items() if not times}
    assert left == LINES_ONLY_IN_THE_IMAGE


def test_what_only_the_image_can_run_has_a_test():
    for path, parts in ONLY_IN_THE_IMAGE.items():
        for start, test in parts.items():
            file, name = test.split()
            assert f"\n{start}" in (ROOT / path).read_text(), start
            assert f"\ndef {name}(" in (ROOT / file).read_text(), name
            print(f"{path}: {start.split()[-1].rstrip('(:')}: {name}")
