# SPDX-License-Identifier: MIT
"""What is said of a guest beside its results: the events that it wrote down itself, and what
the host has counted and seen (lab/watch.sh). All of it comes on one stream, in lines that
begin with @, but for the guest's own totals, which are JSON. @guest begins each guest.

Two things are made of it: build/trace.jsonl, and the cross-check of all counts."""

import base64
import json
import re
import struct
import zlib

from lab import system, ui
from lab.system import BUILD, ROOT

SCRIPT = ROOT / "lab" / "watch.sh"
TRACE = BUILD / "trace.jsonl"
TOTAL = '{"total":'
ROW = '{"workload":'

# kernel/trace.c: struct event, enum trace_kind
RECORD = struct.Struct("<5Q")
KINDS = ("enable", "disable", "set", "cancel", "defer", "commit", "interrupt", "pending", "armed",
         "host", "write", "msr", "halt", "wake")
TRACE_MAX = 400000

# After a CPU has read its totals it halts, or prints; and the host has interrupts of its own.
MAY_GROW = ("halt", "io", "external_interrupt")

# kvm_exit's reasons, as SVM and VMX number them, and the counter that counts them.
REASONS = {
    "svm": {0x60: "external_interrupt", 0x78: "halt", 0x7b: "io", 0x7c: "msr", 0x81: "hypercall"},
    "vmx": {1: "external_interrupt", 12: "halt", 30: "io", 32: "msr_write", 18: "hypercall",
            52: "preemption_timer"}}
MSR_TSC_DEADLINE, MSR_ICR = 0x6e0, 0x830


def is_ours(line):
    """Whether a line of the guest's output is for us, and not for people."""
    return line.startswith(("@", TOTAL))


def command(argv, words):
    """The command that runs a guest's QEMU in the emulated host under watch; words: the
    storm's options, of which trace= has the host traced too."""
    given = {name: int(value) for name, _, value in (word.partition("=") for word in words)
             if name in ("trace", "cpus") and value.isdecimal()}
    where = "no"
    if given.get("trace"):
        events = min(given["trace"] * given.get("cpus", 2), TRACE_MAX)
        where = f"{pool(argv[argv.index('-kernel') + 1])}:{events * RECORD.size}"
    return ["/bin/sh", SCRIPT, where, *argv]


def pool(image):
    """Where in its memory a guest keeps its events."""
    status, symbols = system.call(["nm", image])
    found = re.search(r"^([0-9a-f]+) . trace_pool$", symbols, re.M)
    if status or not found:
        raise ui.Fail(f"{image} has no trace_pool: is it a guest image?")
    return int(found[1], 16)


class Log:
    """Lines sorted by what they are about."""

    def __init__(self, lines):
        self.lines = lines

    def after(self, mark):
        return [line[len(mark):] for line in self.lines if line.startswith(mark)]

    def at_the_end(self, mark):
        """The same, but only what was said when the guest stood still for the last time."""
        pauses = [number for number, line in enumerate(self.lines) if line == "@pause"]
        return Log(self.lines[pauses[-1] if pauses else 0:]).after(mark)

    def totals(self):
        """What the guest has from the hypercall at its end, a row a CPU."""
        return [json.loads(line) for line in self.lines if line.startswith(TOTAL)]

    def qemus(self):
        """QEMU's query-stats: {counter: value} of each vCPU; none where it did not answer."""
        found = self.after("@stats ")
        table = []
        for vcpu in json.loads(found[-1]).get("return", []) if found else []:
            number = int(re.search(r"\[(\d+)\]$", vcpu["qom-path"]).group(1))
            table.append((number, {stat["name"].removeprefix("exit_counts."): stat["value"]
                                   for stat in vcpu["stats"]}))
        return [counts for _, counts in sorted(table, key=lambda entry: entry[0])]

    def tracepoints(self):
        """KVM's tracepoints, counted in the kernel, as counters of all vCPUs together."""
        exits, msrs = self.at_the_end("@exits "), self.at_the_end("@msrs ")
        by_reason = {int(match[1], 0): int(match[2]) for match in
                     map(re.compile(r"\{ exit_reason: *(\w+) *\} hitcount: *(\d+)").search, exits)
                     if match}
        if not by_reason:
            return None
        names = REASONS["svm" if by_reason.keys() & {0x78, 0x7c} else "vmx"]
        counts = dict.fromkeys(("exits", "msr_write", "tsc_deadline", "icr"), 0)
        counts |= {name: by_reason.get(reason, 0) for reason, name in names.items()
                   if name != "msr"}
        counts["exits"] = sum(by_reason.values())
        counts["msr_write"] = 0
        for match in map(re.compile(r"\{ write: *(\d+), ecx: *(\w+) *\} hitcount: *(\d+)").search,
                         msrs):
            if match and int(match[1]):
                register, count = int(match[2], 0), int(match[3])
                counts["msr_write"] += count
                counts["tsc_deadline"] += count * (register == MSR_TSC_DEADLINE)
                counts["icr"] += count * (register == MSR_ICR)
        return counts


def guests(lines):
    """The lines of each guest."""
    starts = [number for number, line in enumerate(lines) if line == "@guest"]
    return [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)])]


def check(lines):
    """Compares what one guest, hypercall, QEMU and tracepoints say. (What was compared, for
    people; what does not agree, a line each.) lines: the results too."""
    log = Log(lines)
    rows = [json.loads(line) for line in lines if line.startswith(ROW)]
    totals, qemus, tracepoints = log.totals(), log.qemus(), log.tracepoints()
    wrong = log.after("@error ")
    for row in rows:
        name = f"{row['workload']}/{row['mode']}"
        counts = row.get("timer_counts")
        if counts and counts["armed"] != counts["fired"] + counts["cancelled"] + counts["pending"]:
            wrong.append(f"{name}: timers do not add up: {counts}")
        if totals and row["exits"]["source"] != "host":
            wrong.append(f"{name}: the guest counted {row['msr_writes']} deadline writes, the host"
                         " another number")
    if not totals:
        return "", wrong
    said = ["the guest's own deadline writes", "the hypercall's counters"]
    for total in totals:
        if total["msr_writes"] != total["exits"]["tsc_deadline"]:
            wrong.append(f"CPU {total['total']}: {total['msr_writes']} deadline writes by the guest,"
                         f" {total['exits']['tsc_deadline']} by the hypercall")
    for name in totals[0]["exits"].keys() - {"source"}:
        runs = sum(row["exits"][name] or 0 for row in rows)
        all_of_it = sum(total["exits"][name] for total in totals)
        if runs > all_of_it:
            wrong.append(f"{name}: {runs} in the runs, {all_of_it} in the guest's whole life")
    said.append("QEMU's query-stats")
    wrong += against_qemu(totals, qemus)
    if tracepoints is not None:
        said.append("KVM's tracepoints")
        for name, count in tracepoints.items():
            qemu = sum(vcpu.get(name, 0) for vcpu in qemus)
            if count != qemu:
                wrong.append(f"{name}: {count} by the tracepoint, {qemu} by QEMU")
    return f"{', '.join(said[:-1])} and {said[-1]}", wrong


def against_qemu(totals, qemus):
    """Each CPU's counters when it read them, and when it stood still a moment later."""
    if len(qemus) < len(totals):
        return [f"QEMU's query-stats has {len(qemus)} vCPUs, the guest {len(totals)}"]
    wrong = []
    for total, qemu in zip(totals, qemus):
        grown = {name: qemu.get(name, -1) - total["exits"][name] for name in total["exits"] if name != "source"}
        for name in grown:
            allowed = name in MAY_GROW and grown[name] >= 0
            expected = sum(grown[kind] for kind in MAY_GROW) if name == "exits" else 0
            if not allowed and grown[name] != expected:
                wrong.append(f"CPU {total['total']}, {name}: {total['exits'][name]} by the"
                             f" hypercall, {qemu.get(name)} by QEMU, expected"
                             f" {total['exits'][name] + expected}")
    return wrong


# The trace.

class Clock:
    """From TSC values to the nanoseconds since the first event of a run."""

    def __init__(self, first, hertz):
        self.first, self.hertz = first, hertz

    def ns(self, tsc):
        return None if tsc is None else round((tsc - self.first) * 1e9 / self.hertz)


def guest_runs(lines):
    """The guest's events: a list of (name, hertz, [event, ...]), a run each. They come as
    text, or before their heads as they lie in the guest's memory. "full" is where a CPU's
    were as many as there was room for."""
    runs, packed, memory = [], [], b""
    for line in lines:
        if line.startswith("@m "):
            packed.append(line[3:])
        elif line == "@saved":
            memory = unpacked("".join(packed))
            packed = []
        elif line.startswith("@ "):
            name, cpu, count, missed, base, hertz, place = line[2:].split()
            if cpu == "0":
                runs.append((name, int(hertz), []))
            events = runs[-1][2]
            base, cpu = int(base, 16), int(cpu)
            before = {"tsc": base, "armed_tsc": None, "pending_tsc": None, "value": 0}
            left = int(count)
            if memory:
                events.extend(recorded(memory, cpu, int(place), left))
                left = 0
            if missed != "0" and not left:
                events.append({**events[-1], "event": "full", "value": int(missed)})
        elif runs and re.match(r"@[0-9a-f]+ ", line):
            delta, kind, armed, pending, value = line[1:].split()
            plain = kind in ("host", "msr")
            event = {"source": "guest", "cpu": cpu, "event": kind,
                     "tsc": before["tsc"] + int(delta, 16),
                     "armed_tsc": moment(armed, before["armed_tsc"], base),
                     "pending_tsc": moment(pending, before["pending_tsc"], base),
                     "value": moment(value, before["value"], 0 if plain else base) or 0}
            before = event
            events.append(event)
            left -= 1
            if missed != "0" and not left:
                events.append({**event, "event": "full", "value": int(missed)})
    return runs


def unpacked(text):
    try:
        return zlib.decompress(base64.b64decode(text), 31)
    except (ValueError, zlib.error) as error:
        raise ui.Fail(f"what the guest wrote down did not arrive whole: {error}") from None


def recorded(memory, cpu, place, count):
    """A CPU's events out of the guest's memory."""
    records = memory[place * RECORD.size:(place + count) * RECORD.size]
    if len(records) != count * RECORD.size:
        raise ui.Fail(f"CPU {cpu} wrote down {count} events; not all are in its memory")
    for tsc, armed, pending, value, kind in RECORD.iter_unpack(records):
        yield {"source": "guest", "cpu": cpu, "event": KINDS[kind & 0xff], "tsc": tsc,
               "armed_tsc": armed or None, "pending_tsc": pending or None, "value": value}


def moment(text, before, base):
    """A word of the trace: - is 0, which is no deadline, = the one before."""
    if text == "-":
        return None
    return before if text == "=" else (base + int(text, 16)) % 2**64


HOST_LINE = re.compile(r"^ *\S.*-(?P<task>\d+) +\[(?P<ring>\d+)\] \S+ +(?P<tsc>\d+):"
                       r" (?P<event>(?:kvm|hrtimer)_\w+): *(?P<text>.*)$")


NOBODYS = {"source": "host", "cpu": None, "armed_tsc": None, "pending_tsc": None}

# What was written; to the area, its first word.
VALUE = re.compile(r"(?:msr_write \w+ = |.* value=|.* armed=|.* expires=)(0x[0-9a-f]+|\d+)")


def host_events(log):
    """The host's events, in the guest's time; those of threads that never run a vCPU have no
    CPU. A timer's expiry, which comes in any thread, is its vCPU's."""
    offsets, scales = {}, {}
    for line in log.after("@offset "):
        cpu, offset, *scale = line.split()
        offsets[int(cpu)] = int(offset)
        ratio, bits = (int(scale[0]), int(scale[1])) if len(scale) == 2 else (1, 0)
        scales[int(cpu)] = ratio / 2**bits if ratio else 1
    if not offsets:
        return []
    found = [match for match in map(HOST_LINE.match, log.after("@h ")) if match]
    vcpus = {}
    for match in found:
        vcpu = re.match(r"vcpu (\d+)", match["text"])
        if match["event"] in ("kvm_exit", "kvm_entry") and vcpu:
            vcpus[match["task"]] = int(vcpu[1])
    events, timers = [], {}
    for match in found:
        cpu = vcpus.get(match["task"])
        timer = re.match(r"hrtimer=(\w+)", match["text"])
        if timer and match["event"] == "hrtimer_start" and cpu is not None:
            timers[timer[1]] = cpu
        elif timer:
            cpu = timers.get(timer[1])
        at = cpu if cpu is not None else 0
        value = VALUE.match(match["text"])
        tsc = int(match["tsc"])
        # A factor of exactly 1 must not cost the low bits of a 64-bit number.
        scaled = tsc if scales[at] == 1 else int(tsc * scales[at])
        events.append({"source": "host", "cpu": cpu, "event": match["event"],
                       "tsc": (scaled + offsets[at]) % 2**64, "armed_tsc": None,
                       "pending_tsc": None, "value": int(value[1], 0) if value else None,
                       "text": match["text"].strip()})
    whole = {ring for ring, lost in enumerate(losses(log)) if lost}
    ends = {int(match["ring"]): at for at, match in enumerate(found) if int(match["ring"]) in whole}
    if ends:        # what comes after the end of the first ring that was full has gaps
        at = min(ends.values())
        events.insert(at + 1, {**NOBODYS, "event": "full", "tsc": events[at]["tsc"],
                               "value": sum(losses(log))})
    return events


def trace(lines):
    """All events of all runs of all guests, ready to be written, a dict each, in the order of
    time within a run; events of one CPU of the guest in the order of its program. Each run has
    one more at its end, which says that it is complete, or what of it is missing."""
    number = 0
    for guest in guests(lines):
        runs, log = guest_runs(guest), Log(guest)
        yield from trace_of(runs, host_events(log), number)
        number += len(runs)


def losses(log):
    """The host's events that there was no room for, of each of its CPUs."""
    return [int(line.rpartition(" ")[2]) for line in log.after("@ring ")]


def trace_of(runs, seen, number):
    """Of one guest, whose first run has that number."""
    for number, (name, hertz, events) in enumerate(runs, number):
        if not events:
            continue
        first, last = (pick(event["tsc"] for event in events) for pick in (min, max))
        clock = Clock(first, hertz)
        here = [event for event in seen if event["tsc"] <= last and
                (event["tsc"] >= first or event["event"] == "full")]
        end = {**NOBODYS, "event": "end", "tsc": last, "value": len(events) + len(here)}
        for event in (*sorted(events + here, key=lambda event: event["tsc"]), end):  # stable
            yield {"run": name, "number": number, "source": event["source"], "cpu": event["cpu"],
                   "ns": clock.ns(event["tsc"]), "event": event["event"],
                   "armed": clock.ns(event["armed_tsc"]),
                   "pending": clock.ns(event["pending_tsc"]), "tsc": event["tsc"],
                   "armed_tsc": event["armed_tsc"], "pending_tsc": event["pending_tsc"],
                   "value": event["value"],
                   **({"text": event["text"]} if "text" in event else {})}


def write_trace(lines):
    """build/trace.jsonl, where anything was traced. docs/results.md says what is in it."""
    lost = sum(losses(Log(lines)))
    if lost:
        ui.say(f"the last {lost:,} events of the host did not fit, and are not in the trace")
    part = TRACE.with_suffix(".part")
    count = 0
    with open(part, "w", encoding="utf-8") as file:
        for count, event in enumerate(trace(lines), 1):
            file.write(json.dumps(event) + "\n")
    if count:
        part.replace(TRACE)
    else:
        part.unlink()
