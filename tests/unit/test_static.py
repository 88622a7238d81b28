# SPDX-License-Identifier: MIT
"""What can be said of the code without running it."""

import difflib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ROOT / "build/guest"

# What the timer path calls outside of the file, down to the instruction that programs the
# timer. None of it takes or gives memory, and none waits.
TIMER_PATH = {
    "kernel/hrtimer": {"memset"},
    "kernel/clockevent": {"deadline_eager", "histogram_add", "hrtimer_base_init",
                          "hrtimer_expire", "lapic", "lapic_oneshot", "lapic_write_eoi",
                          "trap_handle"},
    "kernel/idle": {"cpu_wait", "deadline_traced", "trace_event"},
    "kernel/histogram": {"memset"},
    "drivers/deadline_eager": {"lapic", "lapic_oneshot"},
    "drivers/deadline_rearm": {"lapic", "lapic_oneshot"},
    "drivers/deadline_lazy": {"kvm_has_feature", "kvm_present", "lapic", "lapic_oneshot"},
    "drivers/lapic": {"tsc_from_ns"},
}
# Bytes, of any function in the file. The wheel's spread() has an array of 128 pointers.
STACK = {"kernel/hrtimer": 1100}
STACK_OF_OTHERS = 128
# Not the wheel: clang's analyzer does not know that its lists are rings, and says so for nine
# seconds. hrtimer_check.c is for that.
TIDY = [f"{name}.c" for name in TIMER_PATH if name != "kernel/hrtimer"] + [
    "arch/x86/trap.c", "arch/x86/paging.c"]
FLOATS = re.compile(r"%(?:[xyz]mm\d|st\b|mm[0-7]\b)")

# False alarms: symbols of the linker's, a panic() that does not return, and an array of which
# what is not set is overwritten at once. And newer ones' word that there is more to analyse.
CPPCHECK_KNOWS = ("normalCheckLevelMaxBranches", "subtractPointers:kernel/smp.c",
                  "comparePointers:arch/x86/trap.c", "comparePointers:kernel/smp.c",
                  "nullPointerRedundantCheck:arch/x86/trap.c", "uninitvar:kernel/hrtimer_list.h")


def output(*argv):
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def built():
    done = output("make", "-s", "-j2")
    assert done.returncode == 0, done.stdout + done.stderr


def floats(path):
    return FLOATS.findall(output("objdump", "-d", path).stdout)


def test_no_floating_point():
    objects = sorted(OBJECTS.glob("**/*.o"))
    assert len(objects) > 40
    assert not [path for path in objects if floats(path)]


def test_floating_point_would_be_seen(tmp_path):
    (tmp_path / "x.c").write_text("double twice(double x) { return x + x; }\n")
    output("gcc", "-c", "-o", tmp_path / "x.o", tmp_path / "x.c")
    assert floats(tmp_path / "x.o")


@pytest.mark.parametrize("name", TIMER_PATH)
def test_the_timer_path_calls_what_is_known(name):
    listing = output("nm", "-u", OBJECTS / f"{name}.o").stdout
    assert set(re.findall(r"U (\w+)", listing)) <= TIMER_PATH[name]


@pytest.mark.parametrize("name", TIMER_PATH)
def test_the_stack_is_bounded(name):
    """-fstack-usage: name, bytes, and static, unless the size is not known before it runs."""
    rows = [row.split("\t") for row in (OBJECTS / f"{name}.su").read_text().splitlines()]
    largest = max(rows, key=lambda row: int(row[1]))
    print(f"{name}: {largest[1]} bytes in {largest[0].split(':')[-1]}()")
    assert int(largest[1]) <= STACK.get(name, STACK_OF_OTHERS)
    assert {row[2] for row in rows} <= {"static", "dynamic,bounded"}


def changed_by_clang_format(sources, limit, directory):
    """For each source the numbers of the lines that it would have otherwise, given so many
    columns; 0: as many as the line has."""
    style = re.sub(r"^ColumnLimit: .*", f"ColumnLimit: {limit}",
                   (ROOT / ".clang-format").read_text(), flags=re.M)
    directory.mkdir()
    (directory / "style").write_text(style)
    copies = [directory / str(number) / path.name for number, path in enumerate(sources)]
    for copy, path in zip(copies, sources):
        copy.parent.mkdir()
        shutil.copyfile(path, copy)
    done = output("clang-format", "-i", f"--style=file:{directory / 'style'}", *copies)
    assert done.returncode == 0, done.stderr
    changed = {}
    for copy, path in zip(copies, sources):
        old, new = path.read_text().splitlines(), copy.read_text().splitlines()
        parts = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        changed[path] = {line + 1 for what, start, end, *_ in parts if what != "equal"
                         for line in range(start, max(end, start + 1))}
    return changed


def ill_formatted(sources, directory):
    """Lines that clang-format would change whether or not it may choose where lines end."""
    changed = changed_by_clang_format(sources, 80, directory / "80")
    sources = [path for path in sources if changed[path]]
    for path, lines in changed_by_clang_format(sources, 0, directory / "0").items():
        changed[path] &= lines
    wide = {path: {number for number, line in enumerate(path.read_text().splitlines(), 1)
                   if len(line.expandtabs()) > 100} for path in changed}
    return [f"{path}:{line}" for path in changed for line in sorted(changed[path] | wide[path])]


def test_clang_format(tmp_path):
    sources = [ROOT / path for path in
               output("git", "ls-files", "*.[ch]", ":!host-patches").stdout.split()]
    assert len(sources) > 90
    assert not ill_formatted([path for path in sources if path.exists()], tmp_path)


@pytest.mark.parametrize("line, well", [
    ("\treturn x;", True),
    ("\treturn x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x;", True),
    ("\treturn x +\n\t       x;", True),
    ("    return x;", False),
    ("\treturn x ;", False),
    ("\treturn x+x;", False),
    ("\treturn x; /*" + " long" * 20 + " */", False),
])
def test_clang_format_would_see_it(tmp_path, line, well):
    source = tmp_path / "x.c"
    source.write_text(f"static int f(int x)\n{{\n{line}\n}}\n")
    assert ill_formatted([source], tmp_path) == ([] if well else [f"{source}:3"])


def test_shellcheck():
    scripts = [path for path in output("git", "ls-files").stdout.split()
               if Path(ROOT / path).is_file() and
               re.match(rb"#!/bin/(ba)?sh", (ROOT / path).read_bytes()[:16])]
    assert len(scripts) > 5
    done = output("shellcheck", "-S", "warning", *scripts)
    assert done.returncode == 0, done.stdout


def test_cppcheck():
    done = output("cppcheck", "--quiet", "--std=c11", "-I.", "--error-exitcode=1",
                  "--enable=warning,performance,portability",
                  *(f"--suppress={known}" for known in CPPCHECK_KNOWS), "arch", "drivers", "kernel")
    assert done.returncode == 0, done.stderr


def test_clang_tidy():
    done = output("clang-tidy", "--quiet", *TIDY, "--", "-std=c17", "-ffreestanding",
                  "-mgeneral-regs-only", "-I.")
    assert done.returncode == 0, done.stdout
