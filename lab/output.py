# SPDX-License-Identifier: MIT
"""What the guests of one ./sloth run say: shown, collected, and read for the progress."""

import os
import re
import statistics
import sys
import time

from lab import results, ui

MARK = "sloth-lab: guest "      # the lab's line before each of several guests, with its number
START = re.compile(r"(\w+/\w+) \.\.\.")
OVERHEAD = 0.3                  # seconds of each run that its `ns` does not have
# QEMU counts what KVM recommends, the CPUs of the host; more of them work all the same.
NOISE = "exceeds the recommended cpus supported by KVM"


class Screen:
    """A descriptor of ours, in whole lines and past the progress line."""

    def __init__(self, number):
        self.number = number
        self.partial = b""

    def write(self, data):
        *lines, self.partial = (self.partial + data).split(b"\n")
        lines = [line for line in lines if NOISE.encode() not in line]
        self.put(b"".join(line + b"\n" for line in lines))

    def finish(self):
        rest, self.partial = self.partial, b""
        self.put(rest)

    def put(self, data):
        with ui.lock:
            if data:
                ui.clear()
            while data:
                data = data[os.write(self.number, data):]


class Progress:
    """Which run goes on, how many there are, and how long they will take: each as long as in
    `before`, {name: seconds}, times what those so far took longer than that."""

    def __init__(self, plan, before=None, clock=time.monotonic):
        self.plan, self.clock = plan, clock
        known = before or {}
        usual = statistics.mean(known.values()) if known else 1
        self.weights = [known.get(name, usual) + OVERHEAD for name in plan]
        self.measured = bool(known)
        self.at, self.booting = -1, False

    def start(self, name):
        """A run begins. Those of the plan before it are over, or were left out."""
        self.booting = False
        if self.at < 0:
            self.began = self.clock()
        rest = self.plan[self.at + 1:]
        self.at += 1 + (rest.index(name) if name in rest else 0)
        self.since = self.clock()

    def left(self):
        """Seconds, or None as long as nobody knows."""
        done, now = sum(self.weights[:self.at]), self.clock()
        if done == 0 and not self.measured:
            return None
        pace = (self.since - self.began) / done if done else 1
        this, rest = pace * self.weights[self.at], pace * sum(self.weights[self.at + 1:])
        return rest + max(0, this - (now - self.since))

    def __call__(self):
        if not 0 <= self.at < len(self.plan):
            return ""
        if self.booting:
            return f"starting the next guest, {self.at + 1} of {len(self.plan)} over"
        left = self.left()
        about = "" if left is None else f", about {left:.0f} s left"
        return f"{self.plan[self.at]}, {self.at + 1} of {len(self.plan)}{about}"


class Storm(results.Serial):
    """The serial lines of all guests. Rows say of which sweep they are, and which repetition."""

    def __init__(self, guests, progress, show=None):
        self.guests, self.progress = guests, progress
        self.step = None
        super().__init__(show)

    def clear(self):
        super().clear()
        self.progress.at, self.guest, self.runs = -1, 0, []

    def result(self, row):
        guest = self.guests[self.guest]
        if guest.sweep:
            row["sweep"] = guest.sweep
        run = (self.guest, row["workload"], row["mode"])
        self.runs.append(run)
        row["repeat"] = self.runs.count(run)
        super().result(row)

    def text(self, text):
        start = START.fullmatch(text)
        if text.startswith(MARK):
            self.guest = int(text.removeprefix(MARK))
            self.progress.booting = True
        elif start:
            self.progress.start(start[1])
            if self.step is None:
                self.step = ui.step("running the storm")
                self.step.note(self.progress)
                self.step.__enter__()
        else:
            super().text(text)

    def finish(self):
        super().finish()
        if self.step:
            self.step.note(f"{len(self.rows)} of {len(self.progress.plan)}")
            self.step.__exit__(*sys.exc_info())
            self.step = None


def durations(path):
    """Of the runs in a results file, as Progress wants them; none where it is none."""
    seconds = {}
    try:
        for line in path.read_text().splitlines():
            row = results.load(line)
            seconds.setdefault(f"{row['workload']}/{row['mode']}", []).append(row["ns"] / 1e9)
    except (OSError, ValueError):
        return {}
    return {name: statistics.median(values) for name, values in seconds.items()}
