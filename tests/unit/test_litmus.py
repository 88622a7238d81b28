# SPDX-License-Identifier: MIT
"""The lazy mode as the compiler made it: on each way through a function, `pending` is stored
before `armed` or `host` is loaded, and before the MSR is written (docs/model.md says why
that is enough). From the object file of each build."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "drivers/deadline_lazy.c"
FLAGS = ["-std=c17", "-O2", "-I", str(ROOT), "-ffreestanding", "-mno-red-zone",
         "-mgeneral-regs-only", "-fcf-protection=none", "-fno-pic", "-mcmodel=small"]
ARMED, HOST, PENDING = 0x40, 0x48, 0x50     # in struct deadline
MSR_LAZY = 0x4b564d09

LINE = re.compile(r"\s*([0-9a-f]+):\t(\w.*)")
JUMPS = re.compile(r"(j\w+) +([0-9a-f]+) <")
MEMORY = re.compile(r"(\w+) +(.*PTR \[[^\]]*\+0x(40|48|50)\].*)")


def functions(path):
    """{name: {address: instruction}} of an object file."""
    text = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", "-M", "intel", path],
                          capture_output=True, text=True, check=True).stdout
    found, code = {}, None
    for line in text.splitlines():
        name = re.match(r"[0-9a-f]+ <(\w+)>:", line)
        if name:
            code = found[name[1]] = {}
        elif LINE.match(line):
            address, instruction = LINE.match(line).groups()
            code[int(address, 16)] = instruction.strip()
    return found


def kind(instruction):
    """What it does with the area: (word, is it a store), or None."""
    memory = MEMORY.match(instruction)
    if not memory or memory[1] in ("lea", "nop"):
        return None
    stores = memory[1] == "mov" and "PTR" in memory[2].split(",")[0]
    return int(memory[3], 16), stores


def wrong(code):
    """Loads of armed or host, or enabling, that can be reached without a store to pending.
    Where the deadline in `pending` is not a new one (commit loads it) that counts too: it
    hands over to set, which stores."""
    found, todo, seen = [], [(min(code), False, False)], set()
    order = sorted(code)
    while todo:
        state = address, stored, enabling = todo.pop()
        if state in seen or address not in code:
            continue
        seen.add(state)
        instruction = code[address]
        access = kind(instruction)
        if access == (PENDING, True):
            stored = True
        elif access and access[0] != PENDING and not access[1] and not stored:
            found.append(f"{address:x}: {instruction}")
        if re.match(rf"mov +ecx,0x{MSR_LAZY:x}", instruction):
            enabling = True
        elif instruction == "wrmsr":
            if enabling and not stored:
                found.append(f"{address:x}: {instruction}")
            enabling = False
        jump = JUMPS.match(instruction)
        if jump:
            todo.append((int(jump[2], 16), stored, enabling))
        if instruction != "ret" and not instruction.startswith("jmp"):
            after = order.index(address) + 1
            if after < len(order):
                todo.append((order[after], stored, enabling))
    return found


def accesses(code):
    return [access for access in map(kind, code.values()) if access]


def compiled(source, tmp_path):
    (tmp_path / "lazy.c").write_text(source)
    subprocess.run(["gcc", *FLAGS, "-c", "-o", tmp_path / "lazy.o", tmp_path / "lazy.c"],
                   check=True, timeout=60)
    return functions(tmp_path / "lazy.o")


@pytest.fixture(scope="module", params=["drivers/deadline_lazy", "kernel/trace"])
def built(request):
    """The mode, and its twin that takes notes: trace.c includes the same source."""
    name = f"build/guest/{request.param}.o"
    subprocess.run(["make", "-s", name], cwd=ROOT, check=True, timeout=300)
    return functions(ROOT / name)


def test_the_words_are_where_this_test_looks(tmp_path):
    compiled(f"""#include <stddef.h>
        #include "drivers/deadline.h"
        _Static_assert(offsetof(struct deadline, area.armed) == {ARMED}, "");
        _Static_assert(offsetof(struct deadline, area.host) == {HOST}, "");
        _Static_assert(offsetof(struct deadline, area.pending) == {PENDING}, "");""", tmp_path)


@pytest.mark.parametrize("name, does", [
    ("lazy_set", [(PENDING, True), (ARMED, False)]),
    ("lazy_defer", [(PENDING, True), (HOST, False)]),
    ("lazy_cancel", [(PENDING, True)]),
    ("lazy_enable", [(ARMED, True), (HOST, True), (PENDING, True)]),
    ("lazy_commit", [(PENDING, False)]),
])
def test_pending_is_stored_first(built, name, does):
    code = built[name]
    assert not wrong(code), code
    for access in does:         # it is there at all, not inlined elsewhere
        assert access in accesses(code), code


def test_nobody_else_touches_the_area(built):
    known = {"lazy_set", "lazy_defer", "lazy_cancel", "lazy_enable", "lazy_commit"}
    assert not [name for name, code in built.items() if name not in known and accesses(code)]


STORE, BARRIER = "\tstore_pending(d, deadline);\n", "\tcompiler_barrier();\n"


@pytest.mark.parametrize("name, old, new", [
    ("lazy_set", STORE + BARRIER + "\tarmed = load_armed(d);\n",
     "\tarmed = load_armed(d);\n" + BARRIER + STORE),
    ("lazy_defer", STORE + BARRIER + "\tif (!(load_host(d) & HOST_ACTIVE))\n",
     "\tuint64_t host = load_host(d);\n" + STORE + "\tif (!(host & HOST_ACTIVE))\n"),
    ("lazy_enable", STORE + "\tfor", "\tfor"),
])
def test_the_other_order_is_noticed(tmp_path, name, old, new):
    source = SOURCE.read_text()
    assert source.count(old) == 1
    assert wrong(compiled(source.replace(old, new), tmp_path)[name])
