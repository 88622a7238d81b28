# SPDX-License-Identifier: MIT
"""build/report/index.html: what a run measured, as one page that needs nothing else.

Each figure names the lines of build/results.jsonl that it comes from; the page ends with
those lines. A row is read as (line number, row)."""

import html
import json
import shutil
import statistics
from pathlib import Path

from lab import plot, results, system, ui
from lab.plot import MODES
from lab.sweep import SWEEPS
from lab.ui import Fail

CSS = Path(__file__).with_suffix(".css").read_text()

# What an exit was for: label, its count in a row.
KINDS = (
    ("all", lambda e: e["exits"]),
    ("deadline write", lambda e: e["tsc_deadline"]),
    ("IPI (ICR write)", lambda e: e["icr"]),
    ("other MSR write", lambda e: less(e["msr_write"], e["tsc_deadline"], e["icr"])),
    ("halt", lambda e: e["halt"]),
    ("preemption timer", lambda e: e["preemption_timer"]),
    ("host interrupt", lambda e: e["external_interrupt"]),
    ("port I/O", lambda e: e["io"]),
    ("hypercall", lambda e: e["hypercall"]),
    ("other", lambda e: less(e["exits"], e["msr_write"], e["halt"], e["preemption_timer"],
                             e["external_interrupt"], e["io"], e["hypercall"])),
)
QUANTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "p9999": "p99.99",
             "max": "max"}


def less(whole, *parts):
    return None if None in (whole, *parts) else max(0, whole - sum(parts))


def median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def of(found, figure):
    """The median of a figure over the rows of one run and mode."""
    return median(figure(row) for _, row in found)


def at(*keys, scale=1):
    """The figure at these keys of a row; None where there is none."""
    def figure(row):
        for key in keys:
            row = row.get(key) if row else None
        return None if row is None else row / scale if scale != 1 else row
    return figure


def per_op(count):
    def figure(row):
        value = count(row["exits"])
        return None if value is None else value / max(1, row["ops"])
    return figure


def grouped(numbered):
    """{workload: {mode: [(line, row), ...]}}, in the order of the file."""
    runs = {}
    for number, row in numbered:
        modes = runs.setdefault(row["workload"], {})
        modes.setdefault(row["mode"], []).append((number, row))
    return {name: {mode: modes[mode] for mode in MODES if mode in modes}
            for name, modes in runs.items()}


def links(numbered):
    """The lines that rows came from, as links; neighbours as a span."""
    numbers, spans = sorted(number for number, _ in numbered), []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts = (f'<a href="#L{a}">{a}</a>' + (f'–<a href="#L{b}">{b}</a>' if b > a else "")
             for a, b in spans)
    return ("line " if len(numbers) == 1 else "lines ") + ", ".join(texts)


def share(part, whole):
    return f"{int(1000 * part / whole) / 10:.1f} %"     # never rounded up to 100


def number(value, decimals=0):
    return "–" if value is None else f"{value:,.{decimals}f}"


# The summary.

def totals(base, figure, modes=("eager", "lazy")):
    """Sums of a figure's medians over the workloads that have it in all these modes."""
    pairs = [[of(runs[mode], figure) for mode in modes] for runs in base.values()
             if all(mode in runs for mode in modes)]
    pairs = [pair for pair in pairs if None not in pair]
    return [sum(values) for values in zip(*pairs)] if pairs else None


def savings(base):
    """{workload: share of all exits that lazy saved against eager}."""
    found = {}
    for name, runs in base.items():
        if "eager" in runs and "lazy" in runs:
            was, now = (of(runs[mode], per_op(lambda e: e["exits"])) for mode in ("eager", "lazy"))
            if was and now is not None:
                found[name] = 1 - now / was
    return found


def changes_of_lateness(base, quantile="p99"):
    found = {}
    for name, runs in base.items():
        if "eager" in runs and "lazy" in runs:
            was, now = (of(runs[mode], at("late_ns", quantile))
                        for mode in ("eager", "lazy"))
            if was and now is not None:
                found[name] = now / was - 1
    return found


def bad_timers(numbered):
    return [sum(row[name] for _, row in numbered) for name in ("lost", "early")]


def repeated(numbered):
    return any(row.get("repeat", 1) > 1 for _, row in numbered)


def summary(base, numbered):
    """One paragraph: what the protocol saved, computed."""
    lost, early = bad_timers(numbered)
    ends = (f"In {len(numbered)} runs " + (f"{lost:,} timers were lost and {early:,} were early"
            if lost or early else "no timer was lost and none was early") + ".")
    saved, exits = savings(base), totals(base, at("exits", "exits"))
    if not saved:
        return f"Nothing here compares lazy with eager by the host's count of exits. {ends}"
    most, least = max(saved, key=saved.get), min(saved, key=saved.get)
    text = (f"With the protocol the same operations cost {number(exits[1])} VM exits, where eager"
            f" programming had {number(exits[0])}: {share(exits[0] - exits[1], exits[0])} fewer.")
    if most != least:
        text += f" Per operation it saved most in {most} ({share(saved[most], 1)})"
        text += (f" and cost {share(-saved[least], 1)} more in {least}." if saved[least] < 0 else
                 f" and least in {least} ({share(saved[least], 1)}).")
    late = changes_of_lateness(base)
    if late:
        worst = max(late, key=late.get)
        usual = statistics.median(late.values())
        text += (f" At p99 callbacks came {abs(100 * usual):.0f} %"
                 f" {'later' if usual > 0 else 'earlier'} in the median workload, and"
                 f" {100 * late[worst]:+.0f} % at worst ({worst})"
                 + ("." if repeated(numbered) else ", of one run each, which is mostly noise."))
    spared = totals(base, at("spurious"), ("rearm", "lazy"))
    if spared:
        text += (f" Laziness in the guest alone (mode rearm) took {number(spared[0])} timer"
                 f" interrupts that found nothing due; lazy took {number(spared[1])}.")
    return f"{text} {ends}"


def tiles(base, numbered):
    exits = totals(base, at("exits", "exits"))
    writes = totals(base, at("msr_writes"))
    found = []
    for pair, what in ((exits, "of all VM exits saved"), (writes, "of the deadline writes saved")):
        if pair and pair[0]:
            found.append((share(pair[0] - pair[1], pair[0]), what))
    cost = totals(base, at("set_cycles", "p50"))
    if cost and cost[1]:
        ratios = [of(runs["eager"], at("set_cycles", "p50"))
                  / of(runs["lazy"], at("set_cycles", "p50"))
                  for runs in base.values() if "eager" in runs and "lazy" in runs
                  and of(runs["lazy"], at("set_cycles", "p50"))]
        found.append((f"{plot.short(statistics.median(ratios))} ×",
                      "cheaper to set a deadline (p50, median workload)"))
    lost, early = bad_timers(numbered)
    found.append((f"{lost:,} / {early:,}", f"timers lost / early in {len(numbered)} runs"))
    return "".join(f"<div><strong>{value}</strong><span>{what}</span></div>"
                   for value, what in found)


# The sections: each yields (heading, text, [(name, title, plot or None, rows)]).

def all_rows(base):
    return [pair for runs in base.values() for found in runs.values() for pair in found]


def overview(base):
    table = {name: {mode: of(found, per_op(lambda e: e["exits"])) for mode, found in runs.items()}
             for name, runs in base.items()}
    table = {name: row for name, row in table.items() if set(row.values()) != {None}}
    if table:
        yield ("exits", "All exits", plot.bars(table, "VM exits per operation"), all_rows(base))
    for field, scale, title, xlabel in (
            ("set_cycles", 1, "Cost of set_next_event", "cycles to program a deadline, p50 to p99"),
            ("late_ns", 1000, "Lateness", "us from deadline to callback, p50 to p99")):
        table = {}
        for name, runs in base.items():
            for mode, found in runs.items():
                low, high = (of(found, at(field, key)) for key in ("p50", "p99"))
                if low:
                    table.setdefault(name, {})[mode] = (low / scale, high / scale)
        if table:
            yield (field, title, plot.ranges(table, xlabel + " (log)"), all_rows(base))


def exits_by_kind(base):
    for name, runs in base.items():
        table = {label: {mode: of(found, per_op(count)) for mode, found in runs.items()}
                 for label, count in KINDS}
        table = {label: row for label, row in table.items()
                 if any((value or 0) >= 0.0005 for value in row.values())}
        if table:
            yield (f"kinds-{name}", name, plot.bars(table, "VM exits per operation"),
                   all_rows({name: runs}))


def quantile_curves(base, field, scale, ylabel):
    for name, runs in base.items():
        have = [key for key in QUANTILES if any(of(found, at(field, key))
                                                is not None for found in runs.values())]
        series = {}
        for mode, found in runs.items():
            points = [(x, of(found, at(field, key))) for x, key in enumerate(have)]
            points = [(x, max(y / scale, 0.1)) for x, y in points if y is not None]
            if points:
                series[mode] = points
        if series:
            yield (f"{field}-{name}", name, plot.curves(
                series, "percentile", ylabel, {x: QUANTILES[key] for x, key in enumerate(have)},
                "y"), all_rows({name: runs}))


def needless(base):
    table = {name: {mode: of(found, at("spurious")) for mode, found in runs.items()
                    if mode != "eager"} for name, runs in base.items()}
    table = {name: row for name, row in table.items() if any(row.values())}
    if table:
        yield ("needless", "Needless interrupts in the guest",
               plot.bars(table, "timer interrupts that found nothing due"),
               all_rows({name: base[name] for name in table}))


def needless_table(base):
    head = ("", '<span class="rearm">rearm</span>: needless',
            '<span class="lazy">lazy</span>: needless', "absorbed at a kick",
            "taken over at a halt")
    rows = []
    for name, runs in base.items():
        if "rearm" not in runs or "lazy" not in runs:
            continue
        at_kicks = [of(runs["lazy"], at("exits", key)) for key in ("rearm", "cancelled")]
        rows.append((name, *(number(value) for value in (
            of(runs["rearm"], at("spurious")), of(runs["lazy"], at("spurious")),
            None if None in at_kicks else sum(at_kicks),
            of(runs["lazy"], at("exits", "halt_sync"))))))
    return f"<figure class='wide'>{table_html(head, rows)}</figure>" if rows else ""


def sweeps(numbered):
    needless = lambda row: 1000 * row["spurious"] / max(1, row["ops"])
    for name, sweep in SWEEPS.items():
        swept = [(line, row) for line, row in numbered if row.get("sweep") == name
                 and sweep.field in row]
        for workload, runs in grouped(swept).items():
            for kind, figure, ylabel in (
                    ("", per_op(lambda e: e["exits"]), "VM exits per operation"),
                    ("-needless", needless, "interrupts per 1,000 operations")):
                series = {mode: series_of(found, sweep, figure) for mode, found in runs.items()}
                series = {mode: points for mode, points in series.items() if points}
                if not any(y for points in series.values() for _, y in points):
                    continue
                ticks = {x: f"{x:,g}" for points in series.values() for x, _ in points}
                yield (f"sweep-{name}-{workload}{kind}", f"{workload} against {name}"
                       + (", needless interrupts" if kind else ""),
                       plot.curves(series, f"{sweep.label} (log)", ylabel, ticks, "x", zero=True),
                       all_rows({workload: runs}))


def series_of(found, sweep, figure):
    """[(value of the sweep, median of the figure), ...]"""
    values = sorted({row[sweep.field] for _, row in found})
    points = [(value / sweep.unit, of([pair for pair in found if pair[1][sweep.field] == value],
                                      figure)) for value in values]
    return [(x, y) for x, y in points if y is not None]


EVENTS = 400    # as many of a vCPU's are drawn
TIMELINES = 12  # vCPUs of all runs


def timelines(trace, base):
    """trace: rows as in build/trace.jsonl. Runs that are not of these results are left out."""
    parts, first = {}, {}
    for row in trace:
        workload, _, mode = row["run"].partition("/")
        first.setdefault(row["run"], row.get("number"))     # of repetitions
        if mode in base.get(workload, {}) and row.get("number") == first[row["run"]]:
            rows = parts.setdefault((row["run"], row["cpu"]), [])
            if len(rows) < 2 * EVENTS and (row["source"] == "guest" or row["event"] in plot.LANES):
                rows.append(row)    # they come in order: the first of a trace that may be long
    drawn = [part for part in parts.items() if part[1]]
    for (run, cpu), rows in drawn[:TIMELINES]:
        rows = sorted(rows, key=lambda row: row["ns"])[:EVENTS]
        workload, _, mode = run.partition("/")
        yield (f"time-{run.replace('/', '-')}-{cpu}", f"{run}, vCPU {cpu}", plot.timeline(rows),
               base[workload][mode])


# HTML.

def table_html(head, rows):
    cells = "".join(f"<th>{word}</th>" for word in head)
    body = "".join(f"<tr><th>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:])
                   + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>{body}</table></div>'


NAMES = {"kick": "kicks", "rearm": "kicks re-armed", "cancelled": "kicks cancelled",
         "timer_interrupt": "timer interrupts"}
# Label, figure, decimals, whether it is an exit or the like, which has a rate per operation.
FIGURES = (
    *((NAMES.get(key, key.replace("_", " ")), at("exits", key), 0, True) for key in results.COUNTS),
    *((f"guest: {key.replace('_', ' ')}", at(key), 0, False)
      for key in ("msr_writes", "interrupts", "spurious", "lost", "early", "wakeups")),
    *((f"timers {key}", at("timer_counts", key), 0, False)
      for key in ("armed", "fired", "cancelled", "pending")),
    *((f"late {label}, us", at("late_ns", key, scale=1000), 1, False)
      for key, label in QUANTILES.items()),
    *((f"set {label}, cycles", at("set_cycles", key), 0, False)
      for key, label in QUANTILES.items()),
    ("run time, ms", at("ns", scale=1e6), 1, False),
    ("wake-ups a second", lambda row: "wakeups" in row and 1e9 * row["wakeups"] / max(row["ns"], 1)
     or None, 0, False),
)


def result_table(name, runs):
    """All of a workload's figures, one column a mode."""
    body = []
    for label, figure, decimals, rate in FIGURES:
        cells = []
        for found in runs.values():
            values = [value for value in (figure(row) for _, row in found) if value is not None]
            cell = number(median(values), decimals)
            if rate and values:
                cell += f"<small>{median(values) / max(1, found[0][1]['ops']):.3f}</small>"
            elif len(values) > 1:
                cell += (f"<small>{number(min(values), decimals)}–"
                         f"{number(max(values), decimals)}</small>")
            cells.append(cell)
        if any(cell != "–" for cell in cells):
            body.append((label, *cells))
    first = next(iter(runs.values()))[0][1]
    limit = f", timeout {first['timeout_ns'] / 1e6:,g} ms" if "timeout_ns" in first else ""
    head = ("", *(f'<span class="{mode}">{mode}</span>' for mode in runs))
    return (f"<figure><figcaption><b>{name}</b>{first['ops']:,} operations, timers"
            f" {first['timers']:,}{limit}, {first['cpus']} vCPU, seed {first['seed']}; "
            f"{links(all_rows({name: runs}))}</figcaption>{table_html(head, body)}</figure>")


def section(heading, text, figures, pictures, extra=""):
    shown = [f"<figure id='{name}'><figcaption><b>{title}</b>{links(rows)}</figcaption>"
             f"{pictures[name]}</figure>" for name, title, _, rows in figures if name in pictures]
    if not shown and not extra:
        return ""
    return (f"<h2>{heading}</h2><p class='note'>{text}</p>"
            f"<div class='grid'>{''.join(shown)}{extra}</div>")


def parsed_trace(lines):
    """The rows that are of a vCPU."""
    try:
        for row in map(json.loads, filter(str.strip, lines)):
            row["run"].partition, (row["cpu"] or 0) + 0, row["ns"] + 0, row["event"], row["source"]
            if row["cpu"] is not None:
                yield row
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fail(f"the trace has a bad line: {error!r}") from None


def write(rows, directory, words=(), trace=()):
    """The page for rows, in the order of their file, and its plots. trace: lines of JSON."""
    for line, row in enumerate(rows, 1):
        wrong = results.problem(row)
        if wrong:
            raise Fail(f"no report: line {line} of the results: {wrong}")
    numbered = list(enumerate(rows, 1))
    base = grouped(pair for pair in numbered if "sweep" not in pair[1])
    parts = [
        ("At a glance", "Exits are the host's count for the guest's vCPUs while the operations"
         " ran. In the other two a point is the median, and its line ends at p99.",
         list(overview(base))),
        ("Exits by kind", "What the exits were for. A kind that no mode has is left out.",
         list(exits_by_kind(base))),
        ("Lateness", "From a deadline to its callback. In an emulated host these are the"
         " emulator's times: compare modes, not machines.",
         list(quantile_curves(base, "late_ns", 1000, "late, us (log)"))),
        ("The cost of set_next_event", "TSC cycles that the guest spends to program a deadline.",
         list(quantile_curves(base, "set_cycles", 1, "cycles (log)"))),
        ("Lazy against rearm", "Mode rearm is lazy in the guest alone: each armed deadline that"
         " went away is an interrupt that finds nothing due. In lazy the host absorbs it: it moves"
         " its timer when that fires (a kick re-armed or cancelled), or as the CPU halts.",
         list(needless(base))),
        ("Sweeps", "The same workloads for several values of one option.", list(sweeps(numbered))),
        ("Timeline", f"The first events of runs, of {TIMELINES} vCPUs at most: the deadline that"
         " the host has a timer for (armed), the one that the guest wants (pending), and below what"
         " happened.", list(timelines(parsed_trace(trace), base))),
    ]
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    pictures, missing = {}, ""
    if plot.available():
        pictures = plot.draw({name: what for _, _, figures in parts
                              for name, _, what, _ in figures}, directory)
    else:
        missing = "gnuplot is not installed (package gnuplot-nox): the report has no plots"
        ui.tell(missing)
    first = rows[0]
    sections = "".join(section(*part, pictures, needless_table(base) if part[0].startswith("Lazy")
                               else "") for part in parts)
    tables = "".join(result_table(name, runs) for name, runs in base.items())
    lines = "".join(f"<li id='L{line}'>{html.escape(json.dumps(row))}</li>"
                    for line, row in numbered)
    page = f"""<!DOCTYPE html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>Sloth: the timer storm</title><style>{plot.STYLE}{CSS}</style><main>
<h1>The timer storm, in three modes</h1>
<p class="dim"><code>./sloth run {html.escape(' '.join(words))}</code> · host
 {html.escape(first['host'])} · {len(rows)} runs</p>
<p class="lead">{summary(base, numbered)}</p><div class="tiles">{tiles(base, numbered)}</div>
<p class="dim"><b class="eager">eager</b> writes each deadline to the MSR, as Linux does.
<b class="rearm">rearm</b> writes only earlier ones. <b class="lazy">lazy</b> is the protocol: the
host takes over the rest. {'Each figure is the median of the repetitions. ' if
repeated(numbered) else ''}{missing}</p>
{sections}<h2>All results</h2><p class="note">Counts, and below them per operation.</p>
<div class="grid">{tables}</div>
<h2>The lines</h2><p class="note">build/results.jsonl, a run each.</p>
<ol>{lines}</ol></main></html>
"""
    system.write_atomically(directory / "index.html", page)
    return directory / "index.html"
