# SPDX-License-Identifier: MIT
"""The report's plots, drawn by gnuplot as SVG and PNG.

A plot is a function that returns its gnuplot commands. Colours are names, which gnuplot
sees as the light palette; in the SVG they become CSS variables, so that the same picture
serves light and dark."""

import math
import re
import shutil

from lab import system
from lab.ui import Fail

MODES = ("eager", "rearm", "lazy")
LIGHT = {"eager": "#c0553a", "rearm": "#c08a1e", "lazy": "#16827a", "ink": "#22272e",
         "dim": "#68707c", "rule": "#d9dde3", "paper": "#ffffff"}
DARK = {"eager": "#ef8a6c", "rearm": "#e6b653", "lazy": "#4cc5b8", "ink": "#e7eaee",
        "dim": "#a3abb7", "rule": "#3a424d",
        "paper": "#14181d"}
WIDTH = 380     # so that a plot can be read on a telephone, and three stand side by side


def variables(palette):
    return "".join(f"--{name}:{value};" for name, value in palette.items())


STYLE = (f":root{{{variables(LIGHT)}}}"
         f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}")


def available():
    return shutil.which("gnuplot") is not None


def quote(text):
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def colour(name):
    return f"rgb '{LIGHT[name]}'"


def block(name, points):
    """Data for gnuplot; None is a gap."""
    lines = ["" if point is None else " ".join(map(str, point)) for point in points]
    return f"${name} << EOD\n" + "".join(line + "\n" for line in lines) + "EOD\n"


def frame(left, xlabel="", ylabel=""):
    """What all plots have: a quiet frame, the legend above it."""
    return f"""reset
unset border
set lmargin at screen {left / WIDTH}
set rmargin at screen {1 - 16 / WIDTH}
set key above left horizontal Left reverse samplen 1.2 width 1 noenhanced textcolor {colour('ink')}
set tics scale 0 noenhanced textcolor {colour('dim')}
set grid back lc {colour('rule')} lw 1 dt 1
set xlabel {quote(xlabel)} noenhanced offset 0,0.4 textcolor {colour('dim')}
set ylabel {quote(ylabel)} noenhanced offset 1.2,0 textcolor {colour('dim')}
"""


def short(value):
    """A label for a number: the digits that count."""
    if isinstance(value, int) or value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if value >= 0.1 else 3 if value >= 0.001 else 5}f}"


def rows_frame(labels, pitch, xlabel):
    """The frame of a plot with a group of rows for each label."""
    tics = ", ".join(f"{quote(label)} {n * pitch + (pitch - 1.9) / 2}"
                     for n, label in enumerate(labels))
    return (frame(max(58, 14 + 6.2 * max(map(len, labels))), xlabel)
            + f"unset grid\nset grid x back lc {colour('rule')} lw 1 dt 1\n"
            + f"set yrange [{len(labels) * pitch - 0.4}:-0.5]\n"
            + f"set ytics ({tics}) textcolor {colour('ink')}\n")


def bars(table, xlabel):
    """Horizontal bars: {label: {mode: value or None}}; one bar a mode, with its number."""
    modes = [mode for mode in MODES if any(mode in row for row in table.values())]
    most = max((value or 0 for row in table.values() for value in row.values()), default=0) or 1
    pitch = len(modes) + 0.9
    text = rows_frame(table, pitch, xlabel)
    text += f"set xrange [0:{most * 1.22}]\nset xtics autofreq\n"
    plots = []
    for k, mode in enumerate(modes):
        known = [(n * pitch + k, row[mode]) for n, row in enumerate(table.values())
                 if row.get(mode) is not None]
        text += block(mode, [(y, value, quote(short(value))) for y, value in known]
                      or [(0, "NaN", 0)])
        plots.append(f"${mode} using (0):1:(0):2:($1-0.42):($1+0.42) with boxxyerror fs solid 1"
                     f" noborder lc {colour(mode)} title {quote(mode)}")
        plots.append(f"'' using 2:1:3 with labels left offset 0.4,0 noenhanced font ',10'"
                     f" textcolor {colour('dim')} notitle")
    return text + "plot " + ", ".join(plots) + "\n", 74 + 15 * pitch * len(table)


def curves(series, xlabel, ylabel, ticks=None, log="", zero=False):
    """Lines with points: {mode: [(x, y), ...]}; ticks: {x: label}."""
    text = frame(58, xlabel, ylabel)
    values = [y for points in series.values() for _, y in points]
    if log:
        text += f"set logscale {log}\n"
    if "y" in log:
        text += "set format y '%.0s%c'\n" if max(values) >= 1000 else "set format y '%g'\n"
    if zero:
        text += f"set yrange [0:{max(values) * 1.1 or 1}]\n"
    xs = sorted({x for points in series.values() for x, _ in points})
    if "x" in log:
        text += f"set xrange [{xs[0] / 1.4}:{xs[-1] * 1.4}]\n"
    else:
        text += f"set xrange [{xs[0] - 0.3}:{xs[-1] + 0.3}]\n"
    if ticks:
        text += "set xtics (" + ", ".join(f"{quote(t)} {x}" for x, t in ticks.items()) + ")\n"
    plots = []
    for mode, points in series.items():
        text += block(mode, points)
        plots.append(f"${mode} with linespoints lw 2 pt 7 ps 0.5 lc {colour(mode)}"
                     f" title {quote(mode)}")
    return text + "plot " + ", ".join(plots) + "\n", 230


def ranges(table, xlabel):
    """For each {label: {mode: (low, high)}} a point at low and a line on to high; x is log."""
    modes = [mode for mode in MODES if any(mode in row for row in table.values())]
    pitch = len(modes) + 0.9
    text = rows_frame(table, pitch, xlabel)
    text += "set logscale x\nset format x '%.0s%c'\n"
    plots = []
    for k, mode in enumerate(modes):
        text += block(mode, [(n * pitch + k, *row[mode]) for n, row in enumerate(table.values())
                             if mode in row])
        plots.append(f"${mode} using 2:1:($3-$2):(0) with vectors nohead lw 2 lc {colour(mode)}"
                     " notitle")
        plots.append(f"'' using 2:1 with points pt 7 ps 0.7 lc {colour(mode)} title {quote(mode)}")
    return text + "plot " + ", ".join(plots) + "\n", 74 + 13 * pitch * len(table)


# Events with a lane of marks: label, colour, gnuplot's mark. kvm_exit is the host's word.
LANES = {"write": ("MSR write", "ink", 9), "kvm_exit": ("VM exit", "dim", 5),
         "kick": ("kick", "ink", 13), "interrupt": ("interrupt", "dim", 7)}


def timeline(rows):
    """One vCPU: deadlines as steps over time, with lanes of marks below. Rows as in
    build/trace.jsonl, of one run and one CPU."""
    rows = sorted(rows, key=lambda row: row["ns"])
    mode = rows[0]["run"].partition("/")[2]
    end = rows[-1]["ns"] / 1e6
    text = frame(58, "time, ms", "deadline, ms")
    plots, all_values = [], []
    for word, tint, width in (("pending", "dim", 1.5), ("armed", mode, 2.5)):
        points, level = [], None
        for row in rows:
            if word not in row or (row[word] is None and row.get("source") == "host"):
                continue    # what the host does not say it may know all the same
            now, new = row["ns"] / 1e6, row[word] / 1e6 if row[word] else None
            if level is not None:
                points.append((now, level))
            if new is None and level is not None:
                points.append(None)
            elif new is not None:
                points.append((now, new))
                all_values.append(new)
            level = new
        if level is not None:
            points.append((end, level))
        if any(points):
            text += block(word, points)
            plots.append(f"${word} with lines lw {width} lc {colour(tint)} title {quote(word)}")
    low, high = (min(all_values), max(all_values)) if all_values else (0, 1)
    if low == high:
        low, high = low - 0.5, high + 0.5
    span = high - low
    lanes = [event for event in LANES if any(row["event"] == event for row in rows)]
    for number, event in enumerate(lanes, 1):
        title, tint, point = LANES[event]
        marks = [(row["ns"] / 1e6, low - span * 0.12 * number) for row in rows
                 if row["event"] == event]
        text += block(event, marks)
        plots.append(f"${event} with points pt {point} ps 0.5 lc {colour(tint)}"
                     f" title {quote(title)}")
    text += f"set yrange [{low - span * 0.12 * (len(lanes) + 1)}:{high + span * 0.08}]\n"
    step = 10 ** math.floor(math.log10(span))
    step *= next(factor for factor in (0.2, 0.5, 1, 2) if span / (step * factor) <= 6)
    # None in the lanes.
    text += f"set ytics {math.ceil(low / step) * step:g},{step:g},{high:g}\n"
    start = rows[0]["ns"] / 1e6
    text += f"set xrange [{start}:{end if end > start else start + 1}]\n"
    return text + ("plot " + ", ".join(plots) + "\n" if plots else ""), 270


def themed(svg, name):
    """gnuplot's SVG with our colours as variables and with ids of its own."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<title>.*?</title>\s*|<desc>.*?</desc>\s*|<!--.*?-->\s*", "", svg, flags=re.S)
    for key, value in LIGHT.items():
        red, green, blue = (int(value[i:i + 2], 16) for i in (1, 3, 5))
        svg = re.sub(rf"rgb\(\s*{red},\s*{green},\s*{blue}\)|{value}", f"var(--{key})", svg,
                     flags=re.I)
    svg = re.sub(r"""(\bid=["']|url\(#|href=["']#)""", rf"\g<1>{name}-", svg)
    return svg


def draw(plots, directory):
    """{name: (commands, height)} to NAME.svg and NAME.png; returns {name: SVG for a page}."""
    script = ""
    for name, (commands, height) in plots.items():
        height = round(height)
        script += (f"set terminal svg noenhanced size {WIDTH},{height} font 'sans-serif,11'\n"
                   f"set output {quote(directory / (name + '.svg'))}\n{commands}unset output\n"
                   f"set terminal pngcairo noenhanced size {2 * WIDTH},{2 * height}"
                   f" font 'sans-serif,11' fontscale 1.5 linewidth 2 pointscale 2\n"
                   f"set output {quote(directory / (name + '.png'))}\n{commands}unset output\n")
    (directory / "plots.gp").write_text(script)
    status, said = system.call(["gnuplot", directory / "plots.gp"], limit=120)
    if status != 0:
        raise Fail(f"gnuplot failed on {directory / 'plots.gp'}: {said.strip()[:500]}")
    pictures = {}
    for name in plots:
        path = directory / f"{name}.svg"
        pictures[name] = themed(path.read_text(), name)
        alone = pictures[name].replace(">", f">\n<style>{STYLE}</style>", 1)
        path.write_text(alone.replace('fill="none"/>', 'fill="var(--paper)"/>', 1))
    return pictures
