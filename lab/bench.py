# SPDX-License-Identifier: MIT
"""./sloth bench: the timer wheel beside its peers (tests/bench/).

The red-black tree comes from Debian's linux-source, unpacked under build/bench; the
other peers are Debian's libraries. One process for each number of timers measures
all peers in turn, pinned to one CPU."""

import json
import math
import os
import subprocess

from lab import debs, modules, system, ui
from lab.system import BUILD, ROOT
from lab.ui import Fail

BENCH = ROOT / "tests/bench"
OUT = BUILD / "bench"
TREE_PATHS = ("tools/lib/rbtree.c", "tools/include")
SIZES = {1_000: 200_000, 100_000: 400_000, 1_000_000: 600_000}  # operations a round
KEYS = ("structure", "pattern", "timers", "ns", "p50", "p99", "p9999", "worst")
FLAGS = ("-std=gnu17", "-O2", "-g", "-D_GNU_SOURCE", f"-I{ROOT}", f"-I{BENCH}")
EXTRA = ("start and expire",)  # patterns beside the agreed ones: not in the summary
LIMIT = 3600  # seconds for one number of timers, on the slowest machine


class SourceOnly(debs.Kernel):
    """A kernel of which only the source is unpacked, apart from what KVM needs."""

    @property
    def directory(self):
        return OUT / self.version


def compile_one(source, *flags):
    target = OUT / f"{source.stem}.o"
    status, output = system.call(["gcc", *FLAGS, *flags, "-c", "-o", target, source])
    if status != 0:
        raise Fail(f"cannot compile {source}:\n{output}")
    return target


def pkg_config(*argv):
    status, output = system.call(["pkg-config", *argv])
    if status != 0:
        raise Fail(f"pkg-config {' '.join(argv)}: {output.strip()}")
    return output.split()


def build():
    """The benchmark program, made anew: a compiler is quicker than a rule that is wrong."""
    kernel = debs.get(modules.default_series())
    tree = debs.source(SourceOnly(**vars(kernel)), TREE_PATHS) / "tools"
    kernel_flags = (f"-I{tree}/include", "-w")  # its headers have warnings of their own
    dpdk_flags = (*pkg_config("--cflags", "libdpdk"), "-DALLOW_EXPERIMENTAL_API", "-w")
    strict = ("-Wall", "-Wextra", "-Werror")
    with ui.step("building the benchmark"):
        objects = [
            compile_one(ROOT / "kernel/hrtimer.c", *strict),
            *(compile_one(BENCH / f"{name}.c", *strict) for name in
              ("bench", "patterns", "peer_wheel", "peer_list", "peer_libev")),
            compile_one(BENCH / "peer_dpdk.c", *dpdk_flags),
            compile_one(BENCH / "peer_rbtree.c", *kernel_flags),
            compile_one(tree / "lib/rbtree.c", *kernel_flags),
        ]
        program = OUT / "bench"
        status, output = system.call(["gcc", "-o", program, *objects, "-lev",
                                      *pkg_config("--libs", "libdpdk")])
        if status != 0:
            raise Fail(f"cannot link the benchmark:\n{output}")
    return program


def measure(program, timers, ops, rounds):
    """The rows of one number of timers."""
    cpu = max(os.sched_getaffinity(0))
    with ui.step(f"measuring with {timers:,} timers") as step:
        process = system.spawn(["taskset", "-c", cpu, program, rounds, ops, timers],
                               stdout=subprocess.PIPE, text=True)
        rows = []
        try:
            for line in process.stdout:
                rows.append(json.loads(line))
                step.note(rows[-1]["pattern"])
            status = process.wait(LIMIT)
        finally:
            system.kill(process)
    if status != 0:
        raise Fail(f"the benchmark ended with status {status}")
    return rows


def ratios(rows):
    """How many times as fast as the tree each row with a time is, by its key."""
    tree = {(r["pattern"], r["timers"]): r["ns"] for r in rows if r["structure"] == "rbtree"}
    return {(r["structure"], r["pattern"], r["timers"]): tree[r["pattern"], r["timers"]] / r["ns"]
            for r in rows if r["ns"] is not None}


def table(rows):
    """The rows as text; a blank line before each pattern."""
    times = ratios(rows)
    lines = [f"{'timers':>9}  {'pattern':17} {'structure':13}{'ns':>9}{'x tree':>8}"
             f"{'p50':>8}{'p99':>8}{'p99.99':>9}{'worst':>11}   cycles"]
    last = None
    group = list(dict.fromkeys((r["timers"], r["pattern"]) for r in rows))
    for r in sorted(rows, key=lambda r: group.index((r["timers"], r["pattern"]))):
        key = r["structure"], r["pattern"], r["timers"]
        if key[1:] != last:
            lines.append("")
        last = key[1:]
        ns = "-" if r["ns"] is None else f"{r['ns']:.1f}"
        ratio = f"{times[key]:.2f}" if key in times else "-"
        lines.append(f"{r['timers']:>9,}  {r['pattern']:17} {r['structure']:13}{ns:>9}{ratio:>8}"
                     f"{r['p50']:>8,}{r['p99']:>8,}{r['p9999']:>9,}{r['worst']:>11,}")
    return "\n".join(lines)


def summary(rows):
    """The wheel beside the tree and beside the best other peer, in two lines."""
    times = ratios(rows)
    wheel = {key[1:]: ratio for key, ratio in times.items()
             if key[0] == "wheel" and key[1] not in EXTRA}
    mean = math.exp(sum(map(math.log, wheel.values())) / len(wheel))
    least = min(wheel, key=wheel.get)
    behind = [f"{pattern} {timers:,} ({structure})"
              for (structure, pattern, timers), ratio in times.items()
              if structure not in ("wheel", "floor (list)") and pattern not in EXTRA
              and ratio > wheel[pattern, timers]]
    return (f"wheel: {mean:.2f} times as fast as the tree in the geometric mean, least"
            f" {wheel[least]:.2f} ({least[0]}, {least[1]:,})\n"
            f"wheel: slower than a peer in: {', '.join(behind) or 'no row'}")


def command(options):
    program = build()
    rows = []
    for timers in options.timers or SIZES:
        rows += measure(program, timers, SIZES.get(timers, 200_000), options.rounds)
    print(table(rows))
    print()
    print(summary(rows))
    if options.json:
        text = "".join(json.dumps({key: row[key] for key in KEYS}) + "\n" for row in rows)
        try:
            with open(options.json, "w") as file:
                file.write(text)
        except OSError as error:
            raise Fail(f"cannot write {options.json}: {error.strerror}") from None
    return 0
