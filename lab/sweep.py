# SPDX-License-Identifier: MIT
"""./sloth run --sweep=...: the same storm for several values of one option, a guest each."""

import argparse
import dataclasses

from lab.ui import Usage


@dataclasses.dataclass(frozen=True)
class Sweep:
    values: tuple       # of the storm option of the sweep's name
    words: tuple        # where the user gives no others: what the option matters to, and short
    field: str          # the value in a result
    unit: float         # that it is told in
    label: str


SWEEPS = {
    "timeout": Sweep(("1ms", "10ms", "100ms", "1s", "10s"),
                     ("storm=rearm,cancel", "ops=5000"), "timeout_ns", 1e6, "timeout, ms"),
    "timers": Sweep(("1", "10", "100", "1000", "10000"),
                    ("storm=rearm,cancel,mixed", "ops=2000"), "timers", 1, "timers of each CPU"),
    "cpus": Sweep(("1", "2", "4", "8"),
                  ("storm=sleep,rearm,tcp_rr,mixed", "ops=2000"), "cpus", 1, "vCPUs"),
}


@dataclasses.dataclass(frozen=True)
class Guest:
    words: tuple        # its storm options
    sweep: str = ""     # the sweep that it belongs to


def name_of(word):
    return word.partition("=")[0]


def parse(text):
    """The value of --sweep=, for argparse."""
    names = list(SWEEPS) if text == "all" else text.split(",")
    for name in names:
        if name not in SWEEPS:
            raise argparse.ArgumentTypeError(f"there is no sweep {name!r}; there are"
                                             f" {', '.join(SWEEPS)}, all")
    return list(dict.fromkeys(names))


def guests(words, sweeps, repeat=None):
    """The guests to run: the one that was asked for, and those of the sweeps."""
    given = {name_of(word) for word in words}
    for name in (*sweeps, *(["repeat"] if repeat else [])):
        if name in given:
            option = "--repeat" if name == "repeat" else f"--sweep={name}"
            raise Usage(f"{name}= and {option} contradict each other: one of the two")
    if repeat:
        words = [*words, f"repeat={repeat}"]
    found = [Guest(tuple(words))]
    for name in sweeps:
        others = [word for word in SWEEPS[name].words if name_of(word) not in given]
        found += [Guest((*others, *words, f"{name}={value}"), name)
                  for value in SWEEPS[name].values]
    return found
