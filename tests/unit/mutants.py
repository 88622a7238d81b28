#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Breaks the timer wheel in one place at a time and sees whether the unit tests notice.

    tests/unit/mutants.py        all mutants; status 1 if one survives

Each works on a copy of the tree; nothing here is changed. A test that does not end within
a minute counts as having noticed."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEEL, HEAP, LISTS, SLOTS = (f"kernel/hrtimer{end}" for end in
                             (".c", "_heap.h", "_list.h", "_slots.h"))

# What is broken: the file, the text, what takes its place.
MUTANTS = {
    "a list is taken to be in order always":
        (WHEEL, "(uint32_t)(timer->latest < last->latest) << slot", "0u << slot"),
    "an emptied slot stays marked as in use":
        (WHEEL, "base->occupied[row] &= ~bit;", ""),
    "an emptied row stays marked as in use":
        (WHEEL, "if (!base->occupied[row])", "if (0)"),
    "a timer at the cursor goes to the heap":
        (WHEEL, "if (timer->latest < base->cursor)", "if (timer->latest <= base->cursor)"),
    "a timer before the cursor goes to a list":
        (WHEEL, "if (timer->latest < base->cursor)", "if (0)"),
    "the level is one too low where a digit begins":
        (SLOTS, "(63 - (unsigned int)__builtin_clzll(differ)) / DIGIT_BITS",
         "(62 - (unsigned int)__builtin_clzll(differ | 2)) / DIGIT_BITS"),
    "sorting swaps equal deadlines":
        (LISTS, "timer_of(at)->latest > timer_of(link)->latest",
         "timer_of(at)->latest >= timer_of(link)->latest"),
    "a list that was spread is taken to be sorted":
        (WHEEL, "spread(head);\n\t}", "spread(head);\n\t\treturn true;\n\t}"),
    "the last bucket of a spread list is lost":
        (LISTS, "i < BUCKETS; i++) {\n\t\t*tail", "i < BUCKETS - 1; i++) {\n\t\t*tail"),
    "timers that were spread keep the old one before them":
        (LISTS, "\t\tlink->prev = prev;\n\t\tprev = link;", "\t\tprev = link;"),
    "the list's head is told what to fetch":
        (WHEEL, "timer_of(third == head ? &timer->link : third)", "timer_of(third)"),
    "the first of a far list is moved ahead":
        (WHEEL, "if (base->first != base->far && ++base->turns", "if (++base->turns"),
    "a split slot does not move the cursor":
        (WHEEL, "base->cursor = slot_start(base->cursor, level, slot);\n\t*head", "*head"),
    "a slot moved ahead is entered without its rest":
        (WHEEL, "move_ahead(base, level, slot, UINT32_MAX);", ""),
    "the prepared row's slot 0 is left where the cursor stands":
        (WHEEL, "if (base->occupied[row] & 1 && level > 1)", "if (0)"),
    "the prepared row is not turned to":
        (WHEEL, "base->sides ^= 1u << (level - 1);", ""),
    "a second slot is moved ahead to the same row":
        (WHEEL, "? base->ahead[level] != slot", "? 0"),
    "timers are moved ahead by the wrong digit":
        (WHEEL, "below + digit(timer->latest, level - 1)", "below + digit(timer->latest, level)"),
    "the next on a list that is not in order is taken":
        (WHEEL, "next != timer->link.prev &&\n\t\t     !(base->unsorted[list / HRTIMER_SLOTS] >>"
                "\n\t\t       list % HRTIMER_SLOTS & 1);", "next != timer->link.prev;"),
    "the first of a far list stays when an earlier one comes":
        (WHEEL, "base->far && timer->latest < base->far->latest", "0"),
    "the first of a far list stays when it has gone":
        (WHEEL, "if (timer == base->far)", "if (0)"),
    "the first of a far list stays when it is moved ahead":
        (WHEEL, "if (list == base->far_list)\n\t\tbase->far = NULL;", ""),
    "of equal ones on a far list the last is taken":
        (WHEEL, "if (timer_of(l)->latest < best->latest)",
         "if (timer_of(l)->latest <= best->latest)"),
    "the heap's minimum is its first root":
        (WHEEL, "heap_first(base->roots)", "timer_of(base->roots)"),
    "equal deadlines in the heap lose their order":
        (HEAP, "a->order < b->order", "a->order > b->order"),
    "joined trees keep their rank":
        (HEAP, "root->rank++;", ""),
    "children of a timer that leaves the heap are lost":
        (HEAP, "while (child) {", "while (0) {"),
    "an earlier timer does not become the first":
        (WHEEL, "timer->latest < base->first->latest)\n\t\tbase->first = timer",
         "0)\n\t\tbase->first = timer"),
    "an equal timer started later becomes the first":
        (WHEEL, "timer->latest < base->first->latest)\n\t\tbase->first",
         "timer->latest <= base->first->latest)\n\t\tbase->first"),
    "the owner is not told of a later first deadline":
        (WHEEL, "if (!first || base->first->latest != before)",
         "if (!first || base->first->latest < before)"),
    "the owner is not told when the last timer goes":
        (WHEEL, "if (!base->first || base->first->latest != before)",
         "if (base->first && base->first->latest != before)"),
    "the owner is told inside of expiry":
        (WHEEL, "if (!base->expiring)", "if (1)"),
    "a timer fires one cycle late":
        (WHEEL, "timer->deadline <= base->clock()", "timer->deadline < base->clock()"),
    "a timer fires at the end of its window only":
        (WHEEL, "timer->deadline <= base->clock()", "timer->latest <= base->clock()"),
    "slack wraps around":
        (WHEEL, "slack > UINT64_MAX - deadline ? UINT64_MAX : deadline + slack",
         "deadline + slack"),
    "slack is not used":
        (WHEEL, "slack > UINT64_MAX - deadline ? UINT64_MAX : deadline + slack", "deadline"),
}


def noticed(tree, file, text, instead):
    """The first check that fails with the mutant, None if all pass."""
    path = tree / file
    original = path.read_text()
    if original.count(text) != 1:
        sys.exit(f"mutants: {file} has {original.count(text)} times: {text}")
    path.write_text(original.replace(text, instead))
    try:
        made = subprocess.run(["make", "-s", "build/unit/test_hrtimer",
                               "WARN="], cwd=tree, capture_output=True, text=True)
        if made.returncode:
            sys.exit(f"mutants: does not compile: {text} -> {instead}\n{made.stderr}")
        ran = subprocess.run(["build/unit/test_hrtimer"], cwd=tree, capture_output=True,
                             text=True, timeout=60, errors="replace")
    except subprocess.TimeoutExpired:
        return "no end"
    finally:
        path.write_text(original)
    if ran.returncode == 0:
        return None
    failed = re.search(r"\[  FAILED  \] (.*)", ran.stdout + ran.stderr)
    return failed.group(1) if failed else "the sanitizer stops it"


def main():
    survivors = 0
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("build", ".git"))
        for name, mutant in MUTANTS.items():
            by = noticed(tree, *mutant)
            survivors += by is None
            print(f"{name}: {by or 'SURVIVES'}", flush=True)
    print(f"{len(MUTANTS)} mutants, {survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
