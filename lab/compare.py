# SPDX-License-Identifier: MIT
"""./sloth compare A.jsonl B.jsonl: the same runs in two results files, side by side."""

import statistics

from lab import results, ui
from lab.ui import Usage

# What is compared: label, value of a row or None, decimals.
FIGURES = (
    ("exits per op", lambda row: per_op(row, "exits"), 3),
    ("tsc-deadline per op", lambda row: per_op(row, "tsc_deadline"), 3),
    ("halt per op", lambda row: per_op(row, "halt"), 3),
    ("timer interrupts per op", lambda row: per_op(row, "timer_interrupt"), 3),
    ("late p50, us", lambda row: in_us(row["late_ns"]["p50"]), 1),
    ("late p99, us", lambda row: in_us(row["late_ns"]["p99"]), 1),
    ("set p50, cycles", lambda row: row["set_cycles"]["p50"], 0),
)


def per_op(row, count):
    value = row["exits"][count]
    return None if value is None else value / max(1, row["ops"])


def in_us(value):
    return None if value is None else value / 1000


def load(path):
    """The runs of a file: {(workload, mode, cpus, ops, timers): [row, ...]}."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"{path}: {getattr(error, 'strerror', None) or 'not text'}") from None
    runs = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = results.load(line)
        except ValueError as error:
            raise Usage(f"{path}:{number}: {error}; expected the lines that ./sloth run writes to"
                        " build/results.jsonl") from None
        key = (*(row[name] for name in ("workload", "mode", "cpus", "ops", "timers")),
               row["timeout_ns"] if row.get("sweep") == "timeout" else None)
        runs.setdefault(key, []).append(row)
    if not runs:
        raise Usage(f"{path}: no results in it")
    return runs


def summary(rows, figure, decimals):
    """The median of all rows, and its text with the spread where there are several."""
    values = [value for value in map(figure, rows) if value is not None]
    if not values:
        return None, "-"
    middle = statistics.median(values)
    text = f"{middle:,.{decimals}f}"
    if len(values) > 1:
        text += f" ({min(values):,.{decimals}f} to {max(values):,.{decimals}f})"
    return middle, text


def change(before, after):
    if before is None or after is None:
        return "-"
    if before == 0:
        return "0 %" if after == 0 else "-"
    return f"{(after - before) * 100 / before:+.1f} %"


def medians(rows):
    """Lines of text for rows of one results file: median, least and most of each run, one
    column a mode."""
    runs = {}
    for row in rows:
        key = (row["workload"], *(row.get(name) for name in
                                  ("cpus", "ops", "timers", "timeout_ns", "sweep")))
        runs.setdefault(key, {}).setdefault(row["mode"], []).append(row)
    lines = []
    for (workload, cpus, ops, timers, timeout, _), modes in runs.items():
        times = max(map(len, modes.values()))
        limit = f", timeout {timeout / 1000:,.0f} us" if timeout else ""
        lines.append(f"{workload}: {ops:,} operations, timers {timers:,}{limit}, cpus {cpus},"
                     + (f" {times} times: median (least to most)" if times > 1 else " once"))
        columns = [[mode, *(summary(found, figure, decimals)[1] for _, figure, decimals in FIGURES)]
                   for mode, found in modes.items()]
        width = max(len(cell) for column in columns for cell in column) + 2
        for label, *cells in zip(("", *(label for label, _, _ in FIGURES)), *columns):
            lines.append(f"  {label:<24}" + "".join(f"{cell:>{width}}" for cell in cells))
        lines.append("")
    return lines[:-1]


def table(first, second):
    """Lines of text for the runs that both have."""
    lines = []
    for key in (key for key in first if key in second):
        workload, mode, cpus, ops, timers, _ = key
        runs = f"{len(first[key])} and {len(second[key])} runs"
        lines.append(f"{workload}/{mode}: {ops:,} operations, timers {timers:,}, cpus {cpus},"
                     f" {runs}")
        for label, figure, decimals in FIGURES:
            before, was = summary(first[key], figure, decimals)
            after, now = summary(second[key], figure, decimals)
            lines.append(f"  {label:<24}{was:>30}{now:>30}{change(before, after):>14}")
        lines.append("")
    return lines


def command(options):
    first, second = load(options.first), load(options.second)
    for path, these, others in ((options.first, first, second), (options.second, second, first)):
        alone = sorted({f"{key[0]}/{key[1]}" for key in these if key not in others})
        if alone:
            ui.say(f"only in {path}, or with other options there: {', '.join(alone)}")
    lines = table(first, second)
    if not lines:
        raise Usage("the two files have no run in common (same workload, mode, cpus, ops and"
                    " timers)")
    print("\n".join(lines[:-1]))
    return 0
