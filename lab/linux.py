# SPDX-License-Identifier: MIT
"""./sloth linux: a stock Debian kernel as the guest on the patched host, with and without the
guest's side of the protocol as a module, by turns in one boot; or one that is compiled with the
guest's series, by turns in boots of its own. The table per transaction.

linux_guest.py has what the guest boots from. linux-guest.sh is its first process, and
linux_inside.py, in the host, tells it what to do."""

import json
import re
import shutil
import statistics
import time

from lab import bochs, debs, host, kernelbuild, linux_guest, probe, run, system, ui
from lab.system import BUILD, ROOT
from lab.ui import Fail, Usage

ROWS = BUILD / "linux.jsonl"
LOG = BUILD / "linux-serial.log"
LIMIT = 1800        # seconds for all of it, when --timeout does not say otherwise
# Times: a guest's second, when --slow does not say otherwise. Under Bochs, whose CPU does 420
# million instructions a second, a guest is then as fast as on real hardware.
SLOW = {"tcg": 10, "bochs": 8, "kvm": 1}
MEMORY = 384        # megabytes of the guest
BOCHS_MEMORY = 1024 # of its host, whose files are in memory, too
SILENCE = 600       # seconds for one order, and for the guest to boot, on a busy machine

# What the guest is told for each. The last two are the lazy mode in part, to see what does what.
MODES = {"eager": "eager", "lazy": "lazy", "set": "lazy defer=0", "defer": "lazy keep=0"}
MEASURED = ("tcp", "hackbench", "cyclictest")
LIFE = ("modules", "hotplug", "suspend", "kexec")
VERDICTS = {0: "pass", 4: "skip"}   # kselftest.h

# What the guest's kernel is told for each --tick. The idle driver is one of its own, which is
# built in; of the governors this is the one that does not ask for the tick to go on.
TICKS = {"retain": [], "stop": ["cpuidle_haltpoll.force=1", "cpuidle.governor=ladder"]}

TITLES = {"tcp": "TCP request and response over loopback (sockperf), per transaction",
          "hackbench": "hackbench, per message",
          "cyclictest": "cyclictest, a thread on each CPU each 2 ms, per wake-up"}

OFF = "no-lazy-tscdeadline"     # the series' own word on the kernel's command line

# Of the table: name and what it is in a row's exits, the first of each that KVM has.
EXITS = (("all exits", "exit_counts.exits"), ("halt", "exit_counts.halt"),
         ("msr-write", "exit_counts.msr_write"),
         ("preemption-timer", "exit_counts.preemption_timer"),
         ("apic-icr", "exit_counts.icr"), ("tsc-deadline", "exit_counts.tsc_deadline"),
         ("external-interrupt", "exit_counts.external_interrupt"),
         ("kicks", "exit_counts.kick"), ("kicks re-armed", "exit_counts.rearm"),
         ("kicks cancelled", "exit_counts.cancelled"), ("halt-sync", "exit_counts.halt_sync"))
INTERRUPTS = (("local timer interrupts", "LOC"), ("call-function interrupts", "CAL"),
              ("reschedule interrupts", "RES"))


# What it is told.

def orders(options):
    """A guest with the module is told its mode; one with the series is booted for it."""
    found = []

    def add(workload, name, number, order, key, **more):
        patched = options.guest == "patched"
        found.append({"key": key, "workload": workload, "name": name, "round": number,
                      "order": order, "measured": False, "mode": None if patched else MODES[name],
                      "boot": [OFF] if patched and name == "eager" else [], **more})

    for number in range(1, options.rounds + 1):
        of = f"round {number} of {options.rounds}"
        for workload in options.workload:
            if workload == "timers":
                for test in linux_guest.TIMERS:
                    for mode in options.mode:
                        add(workload, mode, number, f"timers {test}", f"{of}: {test}, {mode}",
                            test=test)
            elif workload in MEASURED:
                amount = options.time * (400 if workload == "hackbench" else 1)
                for mode in options.mode:
                    add(workload, mode, number, f"{workload} {amount}", f"{of}: {workload}, {mode}",
                        measured=True)
    for workload in options.workload:
        if workload == "kexec":
            for number in range(1, options.rounds + 1):
                add(workload, "lazy", number, "kexec", f"kexec, {number} of {options.rounds}")
        elif workload in LIFE:
            add(workload, "eager" if workload == "modules" else "lazy", 1,
                f"{workload} {options.times}", f"{workload}, {options.times} times")
    return found


# What came of it.

def number(pattern, text, workload):
    found = re.search(pattern, text)
    if not found:
        raise Fail(f"{workload} said something else than expected: {text[-300:].strip()}")
    return float(found.group(1))


def interrupts(before, after):
    def totals(lines):
        return {fields[0].rstrip(":"): sum(int(word) for word in fields[1:] if word.isdigit())
                for fields in map(str.split, lines) if fields}

    first, second = totals(before), totals(after)
    return {name: second[name] - first.get(name, 0) for name in second}


def result(row, cpus):
    """A row of linux_inside.py to one of the results file."""
    workload, text = row["workload"], "\n".join(row["out"])
    found = {"workload": workload, "mode": row["name"], "round": row["round"]}
    if row["booted"] != (workload == "kexec"):
        raise Fail(f"{row['key']}: the guest {'booted' if row['booted'] else 'did not boot'}")
    off = row["name"] == "eager" or workload == "kexec" and row["mode"]  # no module is loaded yet
    if row["on"] != (0 if off else cpus):
        raise Fail(f"{row['key']}: {row['on']} of the guest's {cpus} vCPUs use the protocol")
    if workload == "timers":
        return {**found, "test": row["test"],
                "result": VERDICTS.get(row["status"], f"fail ({row['status']})"),
                "said": row["out"]}
    if row["status"]:
        raise Fail(f"{row['key']}: status {row['status']}: {text[-300:].strip()}")
    if workload == "kexec":
        return {**found, "times": 1}
    if workload in LIFE:
        return {**found, "times": int(number(r"(\d+) times", text, workload))}
    if workload == "tcp":
        run = r"\[Total Run\] RunTime=([\d.]+) sec"
        found["seconds"] = number(run, text, workload)
        found["transactions"] = int(number(r"\[Total Run\].*?ReceivedMessages=(\d+)", text,
                                           workload))
        found["latency_us"] = {name: number(rf"percentile {percent:.3f} = +([\d.]+)", text,
                                            workload)
                               for name, percent in (("p50", 50), ("p99", 99), ("p999", 99.9))}
    elif workload == "hackbench":
        found["seconds"] = number(r"Time: ([\d.]+)", text, workload)
        # Each of 5 senders sends all its messages to each of 5 receivers.
        found["transactions"] = int(float(row["order"].split()[1])) * 25
    else:
        threads = [tuple(map(int, match)) for match in re.findall(
            r"C: *(\d+) Min: *\d+ Act: *\d+ Avg: *(\d+) Max: *(\d+)", text)]
        if not threads:
            raise Fail(f"cyclictest said something else than expected: {text[-300:].strip()}")
        found["seconds"] = float(row["order"].split()[1])
        found["transactions"] = sum(count for count, _, _ in threads)
        found["latency_us"] = {
            "average": sum(count * average for count, average, _ in threads)
            / found["transactions"], "max": max(most for _, _, most in threads)}
    if not found["transactions"]:
        raise Fail(f"{row['key']}: not one transaction")
    found["per_second"] = found["transactions"] / found["seconds"]
    return {**found, "exits": row["exits"], "interrupts": interrupts(row["before"], row["after"])}


# The table.

def lines_of(row):
    """(name, value, whether it is a count) of the table's lines."""
    for name, key in EXITS:
        if key in row["exits"]:
            yield name, row["exits"][key], True
    for name, key in INTERRUPTS:
        if key in row["interrupts"]:
            yield name, row["interrupts"][key], True
    yield "transactions", row["transactions"], False
    yield "transactions per second", row["per_second"], False
    for name, value in row.get("latency_us", {}).items():
        yield f"latency {name.replace('p999', 'p99.9')}, us", value, False


def timers_table(rows, names):
    yield " " * 26 + "".join(f"{name:>18}" for name in names)
    for test in dict.fromkeys(row["test"] for row in rows):
        results = [", ".join(dict.fromkeys(row["result"] for row in rows
                                           if (row["test"], row["mode"]) == (test, name)))
                   for name in names]
        yield f"  {test:24}" + "".join(f"{text:>18}" for text in results) + (
            "" if len(set(results)) == 1 else "  differ")


def table(rows):
    """Medians of the rounds. Counts beside counts per transaction, as published."""
    text = []
    for workload in dict.fromkeys(row["workload"] for row in rows):
        of_it = [row for row in rows if row["workload"] == workload]
        if workload in LIFE:
            times = sum(row["times"] for row in of_it)
            text += [f"{workload}: {times} time{'s' * (times != 1)}", ""]
            continue
        names = list(dict.fromkeys(row["mode"] for row in of_it))
        if workload == "timers":
            text += ["The kernel's timer selftests", "", *timers_table(of_it, names), ""]
            continue
        rounds = max(row["round"] for row in of_it)
        text += [TITLES[workload] + (f"; median of {rounds}" if rounds > 1 else ""), "",
                 " " * 26 + "".join(f"{name:>{21 if first else 30}}" for first, name in
                                    zip([True] + [False] * len(names), names)),
                 " " * 26 + "".join(f"{'count':>10}{'per op':>11}" + (f"{'saved':>9}" if last else
                                                                       "")
                                    for last in [False] + [True] * (len(names) - 1))]
        collected = {name: {} for name in names}
        for row in of_it:
            for line, value, is_count in lines_of(row):
                each = value / row["transactions"] if is_count else None
                collected[row["mode"]].setdefault(line, []).append((value, each))
        for line, values in collected[names[0]].items():
            base = statistics.median(each if each is not None else value
                                     for value, each in values)
            words = f"  {line:24}"
            for name in names:
                pairs = collected[name].get(line, [])
                if not pairs:
                    words += " " * 21
                    continue
                value = statistics.median(value for value, _ in pairs)
                each = [each for _, each in pairs if each is not None]
                words += f"{value:>10,.0f}" if value >= 1000 or value == int(value) else \
                    f"{value:>10.1f}"
                words += f"{statistics.median(each):>11.4f}" if each else " " * 11
                if name != names[0]:
                    now = statistics.median(each) if each else value
                    change = f"{100 * (base - now) / base:.1f} %" if base and each else \
                        f"{100 * (now - base) / base:+.1f} %" if base else "-"
                    words += f"{change:>9}"
            text.append(words.rstrip())
        text.append("")
    return "\n".join(text)


class Progress:
    """What linux_inside.py says, a line for each order; and the rows, where it has no share."""

    def __init__(self):
        self.held, self.last, self.failure, self.rows = b"", "starting", None, []

    def write(self, data):
        *lines, self.held = (self.held + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self.rows.append(json.loads(line))
                continue
            self.last = line.decode(errors="replace")
            if self.last.startswith("failed: "):
                self.failure = self.last.removeprefix("failed: ")
            else:
                ui.say(self.last)


def read_rows(share):
    file = share / "rows"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def check(options):
    """Arguments that argparse passes on as they are."""
    for name, known in (("mode", MODES), ("workload", (*MEASURED, "timers", *LIFE))):
        words = getattr(options, name).split(",")
        unknown = [word for word in words if word not in known]
        if unknown or len(set(words)) != len(words):
            raise Usage(f"--{name}={getattr(options, name)}: expected a list out of"
                        f" {', '.join(known)}")
        setattr(options, name, words)
    if "hotplug" in options.workload and options.cpus < 2:
        raise Usage("--workload=hotplug needs --cpus=2")
    if options.guest == "patched":
        # It has no idle driver, and does not leave the deadline to the halt where there is one.
        if options.tick != "retain":
            raise Usage("--tick=stop goes with --guest=module only")
        for name, value in (("mode", "set"), ("mode", "defer"), ("workload", "modules")):
            if value in getattr(options, name):
                raise Usage(f"--{name}={value} goes with --guest=module only")


def run_there(machine, options, vmlinux, place, limit, progress):
    """All orders, in the emulated host. Its command's status, and the rows. vmlinux: the
    guest's, or None for the host's own."""
    share = place / "linux"
    share.mkdir()
    machine.prepare()
    vmlinux = vmlinux or machine.vmlinux
    initrd, orders_file, log = place / "initrd.guest", place / "orders", share / "serial"
    argv = [*linux_guest.PYTHON, linux_guest.INSIDE, vmlinux, initrd, options.cpus, MEMORY,
            options.slow, min(SILENCE, limit), orders_file, *TICKS[options.tick]]
    try:
        if machine.accel != "bochs":
            status = machine.run(argv, stdout=progress, limit=limit, directory=ROOT, share=share,
                                 again=lambda: None)
            return status, read_rows(share)
        with open(log, "wb", buffering=0) as said:
            files = [linux_guest.INSIDE, vmlinux, initrd, orders_file, *run.firmware("pvh.bin"),
                     *linux_guest.imported()]
            status = machine.run(list(map(str, argv)), files=files,
                                 programs=["qemu-system-x86_64"], stdout=progress, stderr=said,
                                 limit=limit)
            return status, progress.rows
    finally:
        if log.is_file():
            shutil.copyfile(log, LOG)


def command(options):
    accel = "bochs" if options.host == "bochs" else probe.host_accel(options)
    options.slow = options.slow or SLOW[accel]
    if accel == "bochs":
        machine = bochs.Host(options.kernel, False, options.kvm_arg)
        machine.memory = BOCHS_MEMORY
    else:
        machine = host.Host(options.kernel, False, accel, options.kvm_arg)
    kernel = debs.get(machine.series)
    vmlinux = image = module_file = None
    if options.guest == "patched":
        vmlinux = kernelbuild.build(linux_guest.recipe(kernel.series), kernel)
        image = linux_guest.recipe(kernel.series).place / "objects" / linux_guest.BZIMAGE
    else:
        module_file = linux_guest.module(kernel)
    directories = linux_guest.tools()
    programs = linux_guest.own_tools(kernel, options.workload, image)
    limit = options.timeout or LIMIT
    wanted = orders(options)
    began, progress, late = time.monotonic(), Progress(), None
    with system.run_directory() as place:
        (place / "initrd.guest").write_bytes(linux_guest.initrd(module_file, directories, programs))
        (place / "orders").write_text(json.dumps(wanted))
        try:
            status, found = run_there(machine, options, vmlinux, place, limit, progress)
        except host.TimeLimit as error:
            late, status, found = error, 1, progress.rows or read_rows(place / "linux")
    rows = [{**result(row, options.cpus), "kernel": kernel.version, "host": machine.label,
             "cpus": options.cpus, "slow": options.slow, "guest": options.guest,
             "tick": options.tick} for row in found]
    if rows:
        system.write_atomically(ROWS, "".join(json.dumps(row) + "\n" for row in rows))
        print(table(rows))
        ui.say(f"{len(rows)} of {len(wanted)} measurements in {ROWS.relative_to(ROOT)},"
               f" {time.monotonic() - began:.0f} s")
    if late:
        raise Fail(f"{late}, at: {progress.last}; --timeout= gives it more; what the guest said:"
                   f" {LOG.relative_to(ROOT)}")
    if status:
        raise Fail(f"{progress.failure or f'the command in the host ended with status {status}'};"
                   f" what the guest said: {LOG.relative_to(ROOT)}")
    if machine.complaints:
        raise Fail("the emulated host's kernel complained while the guest ran")
    return 0
