# SPDX-License-Identifier: MIT
"""Boots the real image under plain QEMU (software CPU, no KVM) and judges it.

Such a machine has an xAPIC, no TSC-deadline timer and no lazy deadline, so what is
tested here is the guest itself: boot, options, timers, checks, the ways to end.
Checks on time have wide margins: the emulator may share its CPU.
"""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELF = ROOT / "build/sloth.elf"
ISO = ROOT / "build/sloth.iso"
MACHINE = ["qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-m", "128", "-no-reboot"]
QEMU = [*MACHINE, "-serial", "stdio", "-monitor", "none"]
DEBUG_EXIT = ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]

WORKLOADS = ("sleep", "rearm", "expire", "cancel", "idle", "tcp_rr", "mixed", "earlier")
TWO = ("-smp", "2")  # tcp_rr needs a peer

SUCCESS, FAILURE, PANIC, USAGE, TIMED_OUT = 33, 35, 37, 39, "timed out"

RUN_KEYS = ["workload", "mode", "host", "cpus", "ops", "timers", "seed", "timeout_ns",
            "ns", "msr_writes", "interrupts", "spurious", "lost", "early", "wakeups",
            "timer_counts", "late_ns", "set_cycles", "exits"]
PERCENTILES = ["p50", "p90", "p99", "p999", "p9999", "max"]
EXIT_KEYS = ["source", "exits", "halt", "msr_write", "tsc_deadline", "icr",
             "preemption_timer", "external_interrupt", "io", "hypercall", "kick",
             "rearm", "cancelled", "halt_sync", "timer_interrupt"]


@pytest.fixture(scope="session", autouse=True)
def images():
    subprocess.run(["make", "-j2", "all", "iso"], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL, timeout=300)


def emulate(arguments, limit):
    """Runs QEMU; returns its status, or TIMED_OUT, and the serial output."""
    process = subprocess.Popen([*QEMU, *arguments], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        output = process.communicate(timeout=limit)[0]
        status = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0]
        status = TIMED_OUT
    return status, output.decode(errors="replace")


def boot(options="", *machine, limit=120, debug_exit=True):
    return emulate(["-kernel", str(ELF), "-append", options, *machine,
                    *(DEBUG_EXIT if debug_exit else [])], limit)


def runs_of(output):
    return [json.loads(line) for line in output.splitlines()
            if line.startswith('{"workload":')]


@pytest.fixture(scope="module")
def small():
    status, output = boot("ops=200 timers=10 timeout=5ms seed=7 host=test-1", *TWO)
    assert status == SUCCESS, output
    return output


def test_all_workloads_run_in_both_modes(small):
    pairs = [(r["workload"], r["mode"]) for r in runs_of(small)]
    assert pairs == [(w, m) for w in WORKLOADS for m in ("eager", "rearm")]
    assert small.splitlines()[-1] == "sloth: 16 runs, all passed"


def test_banner_names_the_machine(small):
    for line in (r"Sloth \d", r"cpu +\S", r"hypervisor +TCGTCGTCGTCG",
                 r"clock +TSC, [\d,]+\.\d{3} MHz by \S.*invariant",
                 r"cpus +2 of 2 started", r"local APIC +xAPIC, timer one-shot",
                 r"lazy +not offered by the host: not a KVM guest"):
        assert re.search("^" + line, small, re.MULTILINE), line


def test_json_has_exactly_the_fixed_keys(small):
    for run in runs_of(small):
        assert list(run) == RUN_KEYS
        assert list(run["late_ns"]) == list(run["set_cycles"]) == PERCENTILES
        assert list(run["exits"]) == EXIT_KEYS


def test_json_tells_what_was_run(small):
    for run in runs_of(small):
        assert (run["host"], run["cpus"], run["ops"], run["seed"]) == \
            ("test-1", 2 if run["workload"] == "tcp_rr" else 1, 200, 7)
        assert run["timers"] == {"sleep": 1, "earlier": 1, "idle": 2, "tcp_rr": 3}.get(
            run["workload"], 10)
        assert run["ns"] > 0 and run["lost"] == run["early"] == 0
        for key in ("late_ns", "set_cycles"):
            values = list(run[key].values())
            if key == "late_ns" and run[key]["max"] is None:
                assert run["workload"] in ("rearm", "cancel", "tcp_rr", "earlier")
                assert values == [None] * 6  # no timer was due while it was measured
            else:
                # Of fewer than 1,000 values nobody knows them.
                assert (run[key]["p999"], run[key]["p9999"]) == (None, None)
                known = [value for value in values if value is not None]
                assert len(known) == 4 and known == sorted(known)


def test_unknown_counters_are_null(small):
    for run in runs_of(small):
        exits = dict(run["exits"])
        assert exits.pop("source") == "guest"
        assert exits.pop("tsc_deadline") == run["msr_writes"]
        assert set(exits.values()) == {None}
    assert "exits since creation" not in small


def test_the_table_fits_and_shows_each_row(small):
    assert all(len(line) <= 100 for line in small.splitlines()
               if not line.startswith("{"))
    for row in ("all exits", "halt", "msr-write", "tsc-deadline", "apic-icr",
                "preemption-timer", "external-interrupt", "io", "hypercall",
                "timer interrupts", "kicks", "kicks re-armed", "kicks cancelled",
                "halt-sync", "spurious", "lost", "early", "late p99, us",
                "late p99.99, us", "set p50, cycles", "wake-ups a second", "run time, ms"):
        assert len(re.findall(rf"^  {row}  ", small, re.MULTILINE)) == len(WORKLOADS), row


def test_eager_writes_each_change_and_rearm_hardly_any():
    status, output = boot("storm=rearm ops=5000 timers=100 timeout=2s")
    assert status == SUCCESS, output
    eager, rearm = runs_of(output)
    # On a machine so slow that timers fire, those started again then are not the first.
    assert eager["msr_writes"] >= 5000 * (1 if eager["interrupts"] == 0 else 0.5)
    assert rearm["msr_writes"] <= 50
    assert rearm["set_cycles"]["p50"] < eager["set_cycles"]["p50"]


def test_each_sleep_is_one_interrupt():
    status, output = boot("storm=sleep mode=eager ops=300 timeout=1ms")
    assert status == SUCCESS, output
    run, = runs_of(output)
    assert run["interrupts"] - run["spurious"] == 300
    assert run["msr_writes"] >= 300


def test_repeat_runs_all_of_it_again():
    status, output = boot("storm=sleep,rearm mode=eager ops=20 timers=5 repeat=3")
    assert status == SUCCESS, output
    assert [r["workload"] for r in runs_of(output)] == ["sleep", "rearm"] * 3
    assert output.splitlines()[-1] == "sloth: 6 runs, all passed"


def test_a_soak_goes_on_with_other_seeds():
    status, output = boot("storm=sleep,cancel mode=eager ops=20 timers=5 timeout=5ms seed=3 "
                          "soak=1s")
    assert status == SUCCESS, output
    seeds = [r["seed"] for r in runs_of(output)]
    assert len(seeds) > 4
    assert seeds == [3 + i // 2 for i in range(len(seeds))]
    assert sum(r["ns"] for r in runs_of(output)) < 2e9
    assert "deadline writes" not in output


def test_a_soak_ends_with_the_run_that_fails():
    status, output = boot("storm=sleep mode=eager ops=20 soak=100s fault=lost")
    assert status == FAILURE, output
    assert len(runs_of(output)) == 1


def test_periodic_timers_fire_as_often_as_asked():
    status, output = boot("storm=expire mode=rearm ops=500 timers=20 timeout=4ms")
    assert status == SUCCESS, output
    run, = runs_of(output)
    assert 0 < run["interrupts"] <= 500 + run["spurious"]
    assert run["late_ns"]["max"] > 0


@pytest.mark.parametrize("slack", (3, 20))
def test_interrupts_are_apart_by_the_slack(slack):
    """An interrupt runs all that may run by then, so what is left is due a slack later. Without
    slack they are 0.8 ms apart here, on a machine that has the time for it."""
    status, output = boot(f"storm=expire mode=eager ops=1000 timers=50 timeout=40ms"
                          f" slack={slack}ms")
    assert status == SUCCESS, output
    run, = runs_of(output)
    assert run["early"] == run["lost"] == 0
    assert 0 < run["interrupts"] - run["spurious"] <= run["ns"] / (slack * 1e6) + 1, run


@pytest.mark.parametrize("options", [
    "storm=rearm timers=100000 ops=2000 timeout=100ms",
    "storm=rearm order=random timers=50 ops=2000 timeout=2ms",
    "storm=rearm timers=1 ops=100 timeout=1us",
    "storm=sleep ops=100 timeout=1us",
    "storm=expire ops=2000 timers=2000 timeout=1us",
])
def test_extreme_options_run(options):
    status, output = boot(options)
    assert status == SUCCESS, output
    assert all(r["lost"] == r["early"] == 0 for r in runs_of(output))


@pytest.mark.parametrize("options, named", [
    ("storm=foo", "'foo' in storm=foo (valid: sleep, rearm, expire, cancel, idle,"
     " tcp_rr, mixed, earlier, faults, all)"),
    ("mode=fast", "'fast'"),
    ("ops=0", "ops=0 is too small"),
    ("timers=0", "timers=0 is too small"),
    ("timers=100001", "timers=100001 is too large"),
    ("ops=many", "ops=many is not a number"),
    ("timeout=11s", "timeout=11s is too large"),
    ("opps=5", "'opps'"),
    ("cpus=0", "cpus=0 is too small"),
    ("cpus=17", "cpus=17 is too large"),
    ("cpus=4 timers=25001", "timers=25001: at most 25000 on each of 4 CPUs"),
    ("pveoi=maybe", "'maybe' in pveoi=maybe (valid: on, off)"),
    ("ops=", "ops= is empty"),
    ("seed=1 seed=1", "given twice"),
    ("fast", "'fast'"),
])
def test_bad_command_line_is_one_line_naming_the_word(options, named):
    status, output = boot(options, limit=60)
    assert status == USAGE, output
    assert output.startswith("sloth: ") and output.count("\n") == 1
    assert named in output


def test_lazy_alone_fails_where_it_is_not_offered():
    status, output = boot("mode=lazy ops=10", limit=60)
    assert status == FAILURE
    assert "mode lazy left out: the host does not offer it (not a KVM guest)" in output
    assert output.splitlines()[-1].startswith("sloth: FAILED: no mode")


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("fault", ["lost", "early"])
def test_a_wrong_timer_fails_the_run(fault, workload):
    status, output = boot(f"storm={workload} ops=100 timers=10 timeout=20ms "
                          f"fault={fault}", *TWO)
    assert status == FAILURE, output
    assert runs_of(output)[0][fault] == 1
    assert sum(r["lost"] + r["early"] for r in runs_of(output)) == 1
    assert output.splitlines()[-1].startswith(
        f"sloth: FAILED: 1 of 2 runs, first {workload}/eager: 1 lost, 0 early"
        if fault == "lost" else
        f"sloth: FAILED: 1 of 2 runs, first {workload}/eager: 0 lost, 1 early")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_timer_that_only_the_sums_miss_fails_the_run(workload):
    status, output = boot(f"storm={workload} mode=eager ops=100 timers=10 timeout=20ms "
                          "fault=forgotten", *TWO)
    assert status == FAILURE, output
    run, = runs_of(output)
    assert (run["lost"], run["early"]) == (0, 0)
    counts = run["timer_counts"]
    assert counts["armed"] == 1 + counts["fired"] + counts["cancelled"] + counts["pending"]
    assert (f"{workload}/eager: 0 lost, 0 early, {counts['armed']} armed, but {counts['fired']}"
            f" fired, {counts['cancelled']} cancelled, {counts['pending']} pending\n") in output


def test_each_timer_that_was_armed_has_an_end(small):
    for run in runs_of(small):
        counts = run["timer_counts"]
        assert list(counts) == ["armed", "fired", "cancelled", "pending"]
        assert counts["armed"] == counts["fired"] + counts["cancelled"] + counts["pending"]
        assert counts["armed"] >= run["ops"]
        if run["workload"] == "sleep":
            assert counts == {"armed": 200, "fired": 200, "cancelled": 0, "pending": 0}
        if run["workload"] == "expire":
            # On a slow machine one interrupt ends the run and is the last of all timers.
            assert counts["fired"] >= 200 and counts["pending"] <= 10
        if run["workload"] == "earlier":
            # A slow machine lets some fire in their 5 ms.
            assert counts["armed"] == 200 and counts["pending"] <= 1


def test_a_sleep_is_a_wake_up(small):
    for run in runs_of(small):
        if run["workload"] in ("sleep", "idle"):
            assert run["wakeups"] >= run["ops"]
        if run["workload"] in ("rearm", "cancel", "earlier"):
            assert run["wakeups"] == 0


def test_percentiles_of_many_values_are_known():
    status, output = boot("storm=earlier mode=rearm ops=10000")
    assert status == SUCCESS, output
    run, = runs_of(output)
    assert None not in run["set_cycles"].values()
    assert list(run["set_cycles"].values()) == sorted(run["set_cycles"].values())
    assert re.search(r"^  set p99.99, cycles +[\d,]+$", output, re.MULTILINE), output
    assert re.search(r"^  late p99.99, us +-$", output, re.MULTILINE), output


def test_a_trace_has_the_first_events_of_each_cpu():
    status, output = boot("storm=sleep ops=40 cpus=2 trace=50", *TWO)
    assert status == SUCCESS, output
    heads = [line.split() for line in output.splitlines() if line.startswith("@ ")]
    assert [head[1:4] for head in heads] == [
        [f"sleep/{mode}", cpu, "50"] for mode in ("eager", "rearm") for cpu in "01"]
    assert all(int(head[4]) > 0 for head in heads)  # there were more
    events = [line.split() for line in output.splitlines() if re.match("@[0-9a-f]", line)]
    assert len(events) == 200
    # The mode is enabled, the CPUs meet, and then each sleep goes as this.
    names = [event[1] for event in events[:50]]
    assert names[:2] == ["enable", "write"]
    first = names.index("defer")
    assert names[first:first + 7] == ["defer", "write", "halt", "interrupt", "cancel", "wake",
                                      "commit"]
    for name, (_, event, armed, _pending, value) in zip(names[1:], events[1:50]):
        if event == "write" and value != "-":
            assert armed in ("=", value) or value == "="
    assert runs_of(output)[0]["msr_writes"] == 40


@pytest.mark.parametrize("cpus", [1, 3, 4, 16])
def test_on_many_cpus_each_does_its_share(cpus):
    status, output = boot(f"storm=all mode=eager ops=240 timers=10 timeout=20ms cpus={cpus}",
                          "-smp", str(cpus))
    assert status == SUCCESS, output
    runs = {run["workload"]: run for run in runs_of(output)}
    assert f"cpus         {cpus} of {cpus} started\n" in output
    assert (output.count("workload tcp_rr left out: it needs 2 CPUs") == 1) == (cpus == 1)
    assert set(runs) == set(WORKLOADS) - ({"tcp_rr"} if cpus == 1 else set())
    for run in runs.values():
        assert run["cpus"] == (cpus // 2 * 2 if run["workload"] == "tcp_rr" else cpus)
        assert run["ops"] == -(-240 // run["cpus"]) * run["cpus"]
        assert (run["lost"], run["early"]) == (0, 0)
    # What one CPU writes once an operation, all of them do: the parts are added up.
    assert runs["earlier"]["msr_writes"] >= runs["earlier"]["ops"]
    assert runs["sleep"]["interrupts"] >= runs["sleep"]["ops"]


KINDS = ("nmi", "spurious", "timer", "tsc", "mask", "apic", "oneshot", "feature", "area")


@pytest.mark.parametrize("cpus", [1, 4])
def test_faults_lose_no_timer(cpus):
    """This machine has no TSC_ADJUST, and no lazy deadline whose area could move."""
    status, output = boot(f"storm=faults ops=280 timeout=2ms cpus={cpus}", "-smp", str(cpus))
    assert status == SUCCESS, output
    assert output.count("fault tsc left out") == output.count("fault area left out") == 2
    for run in runs_of(output):
        assert (run["lost"], run["early"]) == (0, 0)
        made = run["faults"]
        assert list(made) == [*KINDS, "wrong"]
        assert made["tsc"] == made["area"] == made["wrong"] == 0
        for kind in ("timer", "mask", "apic", "oneshot", "feature"):
            assert made[kind] == 40, made
        # NMIs that come at once may be one, and an APIC that is off takes no interrupt.
        assert 20 <= made["nmi"] <= 40 and 20 <= made["spurious"] <= 40, made


def test_one_kind_of_fault():
    status, output = boot("storm=faults faults=nmi mode=eager ops=50")
    assert status == SUCCESS, output
    run, = runs_of(output)
    assert {kind: count for kind, count in run["faults"].items() if count} == {"nmi": 50}
    assert re.search(r"^  fault nmi +50$", output, re.MULTILINE), output


def test_more_cpus_than_there_are_is_an_error():
    status, output = boot("storm=sleep ops=10 cpus=3", *TWO, limit=60)
    assert status == USAGE, output
    assert output == "sloth: cpus=3: this machine has 2\n"


def test_a_cpu_that_panics_stops_the_others():
    status, output = boot("storm=rearm mode=eager ops=1000000 cpus=2 fault=panic", *TWO, limit=60)
    assert status == PANIC
    assert output.splitlines()[-1] == "PANIC: fault=panic was asked for"


def test_one_tick_more_is_one_interrupt_more():
    counts = []
    for tick in ("0", "5ms"):
        status, output = boot(f"storm=idle mode=eager ops=20 timeout=100ms tick={tick}")
        assert status == SUCCESS, output
        run, = runs_of(output)
        counts.append((run["interrupts"], run["ns"] / 5e6))
    assert counts[0][0] <= 25
    # Of those that were due, as a slow machine has one interrupt for several of them.
    assert 20 + counts[1][1] / 10 < counts[1][0] <= 25 + counts[1][1], counts


def test_panic_is_a_status_of_its_own():
    status, output = boot("ops=10 fault=panic", limit=60)
    assert status == PANIC
    assert output.splitlines()[-1] == "PANIC: fault=panic was asked for"


def test_an_exception_shows_all_registers():
    status, output = boot("ops=10 fault=exception", limit=60)
    assert status == PANIC
    assert "exception 6 (#UD invalid opcode), error code 0" in output
    for name in ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8 ", "r9 ",
                 *(f"r{n}" for n in range(10, 16)), "rip", "flg", "cs ", "ss ", "cr2"]:
        assert re.search(rf"\b{name} [0-9a-f]{{16}}", output), name


@pytest.mark.parametrize("fault, what, error", [
    ("text", "write to read-only memory", "3"),
    ("constant", "write to read-only memory", "3"),
    ("data", "execution of data", "11"),
    ("null", "null pointer", "2"),
    ("stack", "guard page below a stack", "2"),
    ("stack1", "guard page below a stack", "2"),    # the second CPU's
])
def test_memory_allows_no_more_than_it_must(fault, what, error):
    status, output = boot(f"storm=sleep ops=10 cpus=2 fault={fault}", *TWO, limit=60)
    assert status == PANIC, output
    assert f"\nexception 14 (#PF page fault: {what}), error code {error}\n" in output
    assert output.splitlines()[-1].startswith(f"PANIC: exception 14 (#PF page fault: {what}) at ")


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    """What QEMU's monitor says of a guest with two CPUs that has done its work."""
    serial = tmp_path_factory.mktemp("monitor") / "serial"
    argv = [*MACHINE, *TWO, "-serial", f"file:{serial}", "-monitor", "stdio", "-kernel", ELF,
            "-append", "storm=sleep mode=eager ops=10 cpus=2 end=halt"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        try:
            end = time.monotonic() + 60
            while not (serial.exists() and "sloth: halted\n" in serial.read_text()):
                assert time.monotonic() < end and qemu.poll() is None
                time.sleep(0.05)
            return qemu.communicate("info registers -a\ninfo tlb\nquit\n", timeout=60)[0]
        finally:
            qemu.kill()


def test_every_cpu_is_held_to_the_page_tables(halted):
    assert [int(cr0, 16) >> 16 & 1 for cr0 in re.findall(r"^CR0=(\w+)", halted, re.M)] == [1, 1]
    assert [int(efer, 16) >> 11 & 1 for efer in re.findall(r"^EFER=(\w+)", halted, re.M)] == [1, 1]


def test_no_page_can_be_both_written_and_executed(halted):
    """Of the first 4 GiB, each in a page of 4 KiB or 2 MiB, only those without a right are left
    out: address 0, and below each of the three stacks of 16 CPUs."""
    lines = subprocess.run(["nm", ELF.with_name("sloth64.elf")], check=True, text=True,
                           capture_output=True).stdout.splitlines()
    at = {name: int(address, 16) for address, _, name in map(str.split, lines)}
    pages = {int(address, 16): flags for address, flags in
             re.findall(r"^([0-9a-f]{16}): [0-9a-f]{16} (\S+)\r?$", halted, re.M)}
    assert {page for page, flags in pages.items() if "X" not in flags} == \
        set(range(at["text_start"], at["text_end"], 4096))     # QEMU's X: not to be executed
    assert {page for page, flags in pages.items() if "W" not in flags} == \
        set(range(at["text_start"], at["rodata_end"], 4096))
    guards = {at["stacks"] + cpu * 0x9000 + below for cpu in range(16)
              for below in (0, 0x2000, 0x4000)}
    assert {*range(0, 2 << 20, 4096), *range(2 << 20, 4 << 30, 2 << 20)} - set(pages) == \
        {0} | guards


def test_a_hang_keeps_what_was_printed_before():
    status, output = boot("ops=10 fault=hang", limit=12)
    assert status == TIMED_OUT
    assert output.splitlines()[-1] == "sleep/eager ..."


@pytest.mark.parametrize("options, debug_exit", [("end=halt", True), ("", False)])
def test_halts_when_asked_or_when_nothing_ends_it(options, debug_exit):
    status, output = boot(f"storm=sleep mode=eager ops=10 {options}", limit=12,
                          debug_exit=debug_exit)
    assert status == TIMED_OUT
    assert output.splitlines()[-2:] == ["sloth: 1 run, all passed", "sloth: halted"]


@pytest.mark.parametrize("cpu", ["qemu64,-x2apic", "max", "Nehalem"])
def test_other_cpus(cpu):
    status, output = boot("ops=50 timers=5 timeout=2ms", "-cpu", cpu)
    assert status == SUCCESS, output


@pytest.mark.parametrize("cpu", ["qemu32", "qemu64,-nx"])
def test_a_cpu_that_lacks_something_is_told_so(cpu):
    status, output = boot("", "-cpu", cpu, limit=60)
    assert (status, output) == (PANIC, "sloth: this CPU has no 64-bit mode, or no NX bit in it\n")


def test_a_machine_without_a_clock_is_told_so():
    """microvm starts the kernel by PVH; without KVM nothing there tells the frequency."""
    status, output = boot("storm=sleep ops=10", "-M", "microvm", limit=60)
    assert status == PANIC, output
    assert output.splitlines()[-1] == "PANIC: no way to find the frequency of the TSC"


def test_grub_boots_the_iso_up_to_the_table():
    status, output = emulate([*DEBUG_EXIT, "-cdrom", str(ISO)], limit=60)
    assert status in (SUCCESS, TIMED_OUT), output
    assert re.search(r"^  tsc-deadline ", output, re.MULTILINE), output
