# SPDX-License-Identifier: MIT
"""The JSON lines that the guest prints, one a run of a workload in a mode."""

import json
import re

from lab import watch
from lab.ui import Fail

PREFIX = b'{"workload":'

COUNTS = ("exits", "halt", "msr_write", "tsc_deadline", "icr", "preemption_timer",
          "external_interrupt", "io", "hypercall", "kick", "rearm", "cancelled", "halt_sync",
          "timer_interrupt")
NUMBERS = ("cpus", "ops", "timers", "seed", "ns", "msr_writes", "interrupts", "spurious", "lost",
           "early")
SPREADS = ("late_ns", "set_cycles")
MODES = ("eager", "rearm", "lazy")


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


# What older files lack, what only the workload "faults" has, and what the lab adds: which of
# repeated runs, and what was swept.
OPTIONAL = {"timeout_ns": is_count, "repeat": is_count,
            "sweep": lambda value: isinstance(value, str),
            "faults": lambda value: isinstance(value, dict) and all(map(is_count, value.values()))}


def problem(row):
    """What is wrong with a row, or None."""
    if not isinstance(row, dict):
        return "not an object"
    for name in ("workload", "host"):
        if not isinstance(row.get(name), str):
            return f"{name} is not a string"
    if not re.fullmatch(r"\w+", row["workload"]):     # it names files of the report
        return f"workload is {row['workload']!r}"
    if row.get("mode") not in MODES:
        return f"mode is {row.get('mode')!r}"
    for name in NUMBERS:
        if not is_count(row.get(name)):
            return f"{name} is {row.get(name)!r}"
    for name, good in OPTIONAL.items():
        if name in row and not good(row[name]):
            return f"{name} is {row[name]!r}"
    for name in SPREADS:
        spread = row.get(name)
        if not isinstance(spread, dict) or not {"p50", "p99", "max"} <= set(spread):
            return f"{name} lacks p50, p99 or max"
        if not all(value is None or is_count(value) for value in spread.values()):
            return f"{name} holds {spread!r}"
    exits = row.get("exits")
    if not isinstance(exits, dict) or exits.get("source") not in ("host", "guest"):
        return "exits.source is neither host nor guest"
    for name in COUNTS:
        if name not in exits:
            return f"exits.{name} is missing"
        value = exits[name]
        # What the guest alone cannot know is null; the host knows everything.
        if not (is_count(value) or (value is None and exits["source"] == "guest")):
            return f"exits.{name} is {value!r}"
    return None


def load(line):
    """One line to a row; ValueError says what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None
    wrong = problem(row)
    if wrong:
        raise ValueError(wrong)
    return row


def parse(line):
    """One line of the guest to a row."""
    try:
        return load(line)
    except ValueError as error:
        raise Fail(f"the guest printed a bad result: {error}: {line[:100]}") from None


class Serial:
    """The guest's serial line: results are taken out, other lines are shown as they come.

    show: an object with write(bytes), or None. lines: all of it, for the log."""

    def __init__(self, show=None):
        self.show = show
        self.clear()

    def clear(self):
        """Forgets everything: the guest is started again."""
        self.lines = []
        self.rows = []
        self.watched = []  # for lab/watch.py, the rows among it
        self.error = None
        self.partial = b""

    def write(self, data):
        pieces = (self.partial + data.replace(b"\r", b"")).split(b"\n")
        for line in pieces[:-1]:
            self.line(line)
        self.partial = pieces[-1]

    def line(self, line):
        text = line.decode(errors="replace")
        if not text.startswith("@"):
            self.lines.append(text)
        if line.startswith(PREFIX) or watch.is_ours(text):
            self.watched.append(text)
        if watch.is_ours(text):
            return
        if line.startswith(PREFIX):
            try:
                self.result(parse(text))
            except Fail as fail:
                self.error = self.error or fail
        else:
            self.text(text)

    def finish(self):
        """The guest will say no more."""
        if self.partial:
            text, self.partial = self.partial.decode(errors="replace"), b""
            self.lines.append(text)
            if not text.startswith(PREFIX.decode()):
                self.text(text)

    def result(self, row):
        self.rows.append(row)

    def text(self, text):
        if self.show:
            self.show.write(text.encode() + b"\n")

    def last(self, count=20):
        return self.lines[-count:]


def as_text(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)
