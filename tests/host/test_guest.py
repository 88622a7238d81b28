# SPDX-License-Identifier: MIT
"""The guest on the patched host: the exits that each mode costs, counted by the host.

One boot of the host runs all guests; each test looks at what one of them said."""

import json
import re
import shlex
import statistics

import pytest

from conftest import KERNELS
from lab import conform, results, run, watch

EXPIRE = [f"expire{n}" for n in range(1, 6)]

# Name, storm options. The five expire runs are five boots of the guest, and in each the
# modes take turns.
GUESTS = {
    "rearm": ["storm=rearm", "ops=50000", "timers=1000"],
    "random": ["storm=rearm", "ops=20000", "order=random"],
    "sleep": ["storm=sleep", "ops=5000"],
    "horizon": ["storm=rearm", "mode=lazy", "ops=2000000", "timeout=50ms"],
    **{name: ["storm=expire", "mode=eager,lazy", "ops=1500", "repeat=8", f"seed={name[-1]}"]
       for name in EXPIRE},
    "pveoi": ["storm=sleep", "ops=1000"],
    "nopveoi": ["storm=sleep", "ops=1000", "pveoi=off"],
    "two": ["storm=rearm,cancel,tcp_rr,sleep", "ops=4000", "cpus=2"],
    "four": ["storm=rearm,cancel,tcp_rr,sleep", "ops=4000", "cpus=4"],
    "earlier": ["storm=earlier", "ops=3000"],
    "faults": ["storm=faults", "ops=450"],
    "faults4": ["storm=faults", "ops=180", "cpus=4"],
    "traced": ["storm=sleep,tcp_rr", "mode=eager,lazy", "ops=20", "cpus=2", "trace=5000"],
    "microvm": ["storm=sleep,tcp_rr", "ops=500", "cpus=2"],
    "lost": ["storm=sleep", "ops=50", "fault=lost"],
    "early": ["storm=sleep", "mode=eager", "ops=1", "timeout=5s", "fault=early"],
    "exception": ["storm=sleep", "ops=50", "fault=exception"],
}

MACHINES = {"microvm": ["-M", "microvm"]}  # a PVH loader; the others are multiboot's

EXPECTED = {**dict.fromkeys(GUESTS, run.SUCCESS), "lost": run.FAILED, "early": run.FAILED,
            "exception": run.PANIC}

EACH_LIMIT = 240  # seconds; at most 30 on a machine that has its two cores for itself

# Waits for the guest's closing line, then reads KVM's own counter while it halts.
HALTING = r"""
%(guest)s >/tmp/halt.serial 2>&1 &
pid=$!
n=0
until grep -q 'exits since creation: ' /tmp/halt.serial || [ $n -ge 60 ]; do
	sleep 1
	n=$((n + 1))
done
sleep 2
cat /sys/kernel/debug/kvm/$pid-*/exits >"$SLOTH_SHARE/halt.exits"
kill -9 $pid
cp /tmp/halt.serial "$SLOTH_SHARE"
"""


def lines_for(names):
    for name in names:
        argv = [*run.guest_command(GUESTS[name], "tcg"), *MACHINES.get(name, [])]
        if name == "traced":
            argv = watch.command(argv, GUESTS[name])
        command = shlex.join(map(str, argv))
        # QEMU writes a byte at a time: into memory first, a 9p request for each takes long.
        yield (f'timeout -s KILL {EACH_LIMIT} {command} >/tmp/{name}.serial 2>&1;'
               f' echo $? >"$SLOTH_SHARE/{name}.status";'
               f' cp /tmp/{name}.serial "$SLOTH_SHARE"')


def script():
    halting = shlex.join(run.guest_command(["storm=rearm", "mode=eager", "ops=20000", "end=halt"],
                                           "tcg"))
    return "\n".join(lines_for(GUESTS)) + HALTING % {"guest": halting}


class Guest:
    def __init__(self, share, name):
        serial = results.Serial()
        serial.write((share / f"{name}.serial").read_bytes())
        serial.finish()
        status = share / f"{name}.status"
        self.status = int(status.read_text()) if status.exists() else None
        self.serial, self.rows, self.error = serial, serial.rows, serial.error
        self.text = "\n".join(serial.lines)

    def row(self, mode):
        (row,) = (row for row in self.rows if row["mode"] == mode)
        return row


@pytest.fixture(scope="module")
def share(in_host):
    for _ in range(3):
        done, directory = in_host(script(), limit=1800)
        ended = {name: Guest(directory, name).status for name in GUESTS}
        if ended == EXPECTED or "stood still" not in done.stderr:  # the emulator's fault
            break
    assert "no heartbeat" not in done.stderr or (directory / "halt.exits").exists()
    assert done.returncode in (0, 137), done.stderr
    return directory


@pytest.fixture(scope="module")
def guest(share):
    return lambda name: Guest(share, name)


GOOD = [name for name in GUESTS if name not in ("lost", "early", "exception")]


@pytest.mark.parametrize("name", GOOD)
def test_the_guest_ends_well_and_loses_no_timer(guest, name):
    one = guest(name)
    assert one.status == EXPECTED[name], one.text[-2000:]
    assert one.error is None
    modes = {row["mode"] for row in one.rows}
    assert modes == ({"eager", "lazy"} if name in EXPIRE else {"lazy"} if name == "horizon"
                     else {"eager", "lazy"} if name == "traced"
                     else {"eager", "rearm", "lazy"})
    for row in one.rows:
        assert (row["lost"], row["early"]) == (0, 0), row
        assert row["exits"]["source"] == "host", row


@pytest.mark.parametrize("name", ["lost", "early"])
def test_a_lost_or_early_timer_fails_the_run(guest, name):
    assert guest(name).status == EXPECTED[name], guest(name).text[-2000:]


def test_an_exception_is_reported_with_registers(guest):
    one = guest("exception")
    assert one.status == EXPECTED["exception"]
    assert re.search(r"\brip\b", one.text, re.I), one.text[-2000:]


def test_rearm_eager_pays_an_exit_for_each_operation(guest):
    row = guest("rearm").row("eager")
    assert row["ops"] == 50000 and row["timers"] == 1000
    # Where the machine does less than 1,000 a second, timers fire, and those that are
    # started again then are not the first.
    assert row["exits"]["tsc_deadline"] >= row["ops"] * (1 if row["interrupts"] == 0 else 0.5)


def test_rearm_lazy_pays_at_most_one_in_a_thousand(guest):
    row = guest("rearm").row("lazy")
    assert row["ops"] == 50000
    assert row["exits"]["tsc_deadline"] <= row["ops"] / 1000


def test_sleep_eager_pays_a_write_and_a_halt_for_each(guest):
    exits = guest("sleep").row("eager")["exits"]
    assert exits["tsc_deadline"] >= 5000
    assert exits["halt"] >= 0.95 * 5000  # a sleep may be over before the CPU halts


def test_sleep_lazy_pays_no_write_and_wakes_for_nothing_never(guest):
    row = guest("sleep").row("lazy")
    assert row["ops"] == 5000
    assert row["exits"]["tsc_deadline"] <= 0.01 * row["ops"]
    assert row["spurious"] == 0


def test_lazy_kicks_are_armed_deadlines_that_passed(guest):
    """What is armed is the deadline of the connection that is due first, which was pushed
    one round of the population ago: so armed deadlines are a timeout less a round apart,
    and no more of them can pass in a run."""
    row = guest("horizon").row("lazy")
    exits = row["exits"]
    a_round = row["ns"] / (row["ops"] / row["timers"])
    passed = row["ns"] / (50e6 - a_round)
    assert a_round < 40e6 and passed > 3  # long enough a run, however fast the machine
    assert 1 <= exits["kick"] <= passed + 1
    # A machine that is stopped for longer than the timeout lets a timer fire.
    assert exits["kick"] == exits["rearm"] + exits["timer_interrupt"]
    assert exits["tsc_deadline"] <= 2 + exits["timer_interrupt"]


def test_pv_eoi_saves_the_exit_of_the_eoi(guest):
    with_it, without = guest("pveoi").row("lazy"), guest("nopveoi").row("lazy")
    assert without["exits"]["msr_write"] >= 1000
    assert with_it["exits"]["msr_write"] <= 100
    assert with_it["exits"]["exits"] <= 1.05 * 1000 + with_it["exits"]["external_interrupt"]


@pytest.mark.parametrize("name, cpus", [("two", 2), ("four", 4)])
def test_every_cpu_takes_part_and_its_exits_are_counted(guest, name, cpus):
    for row in guest(name).rows:
        assert row["cpus"] == cpus
        assert row["ops"] == 4000
        if row["mode"] == "eager" and row["workload"] != "rearm":
            # On a slow machine one interrupt is for several timers.
            assert row["exits"]["tsc_deadline"] == row["msr_writes"] >= 2000


@pytest.mark.parametrize("name", ["two", "four"])
@pytest.mark.parametrize("workload", ["rearm", "cancel"])
def test_lazy_saves_as_much_on_many_cpus(guest, name, workload):
    eager, lazy = (row["exits"]["tsc_deadline"] for row in guest(name).rows
                   if row["workload"] == workload and row["mode"] != "rearm")
    assert lazy <= eager / 1000 + 2 * 4  # the first of each CPU


@pytest.mark.parametrize("name", ["two", "four"])
def test_a_message_costs_an_ipi_and_a_halt(guest, name):
    """As much less as was published for netperf: 98 % and 58 %."""
    eager, lazy = (row for row in guest(name).rows
                   if row["workload"] == "tcp_rr" and row["mode"] != "rearm")
    messages = eager["ops"]
    assert eager["exits"]["icr"] == lazy["exits"]["icr"] == messages
    assert eager["exits"]["tsc_deadline"] >= 2.9 * messages
    assert lazy["exits"]["tsc_deadline"] <= 0.02 * eager["exits"]["tsc_deadline"]
    assert lazy["exits"]["exits"] <= (1 - 0.58) * eager["exits"]["exits"]


@pytest.mark.parametrize("name, each", [("faults", 40), ("faults4", 10)])
def test_faults_lose_no_timer_and_nothing_happens_that_must_not(guest, name, each):
    for row in guest(name).rows:
        made = dict(row["faults"])
        assert made.pop("wrong") == 0, row
        # NMIs that come at once may be one, and an APIC that is off takes no interrupt.
        assert all(count >= each * (0.5 if kind in ("nmi", "spurious") else 1)
                   for kind, count in made.items() if kind != "area"), row
        assert (made["area"] >= each) == (row["mode"] == "lazy"), row


def test_the_worst_case_costs_no_exit_more(guest):
    one = guest("earlier")
    eager, lazy = (one.row(mode)["exits"] for mode in ("eager", "lazy"))
    assert eager["tsc_deadline"] >= 3000
    assert lazy["tsc_deadline"] <= 1.01 * eager["tsc_deadline"]
    assert lazy["exits"] - lazy["external_interrupt"] <= \
        1.01 * (eager["exits"] - eager["external_interrupt"])


# What the mode decides; how often the host was interrupted meanwhile is the machine's, and so is
# how many timers were late enough to be found due by one interrupt, after one halt.
KINDS = ("exits", "msr_write", "tsc_deadline", "icr", "preemption_timer", "io", "hypercall")


def pairs(one):
    """(eager, lazy) rows of one boot, each with the one that ran next to it."""
    return list(zip(*([row for row in one.rows if row["mode"] == mode]
                      for mode in ("eager", "lazy")), strict=True))


@pytest.fixture(scope="module")
def expire_sets(share, in_host):
    """Yields sets of five boots, each a list of pairs: those of the shared boot of the host
    and, for who is not content with it, two more. What else the machine does can spoil a
    set, but no set is better than the code."""

    def sets():
        yield [pairs(Guest(share, name)) for name in EXPIRE]
        for _ in range(2):
            done, directory = in_host("\n".join(lines_for(EXPIRE)), limit=1300)
            assert done.returncode == 0, done.stderr
            yield [pairs(Guest(directory, name)) for name in EXPIRE]

    return sets


def first_good(sets, worst):
    """worst(five boots): the figure that may be at most 1. All of them for the report."""
    seen = []
    for five in sets:
        seen.append(worst(five))
        if seen[-1] <= 1:
            break
    return seen


def test_expire_lazy_has_no_more_exits_of_any_kind_than_eager(expire_sets):
    """2 % more at most, and for what eager hardly has, five exits; median of five boots."""

    def more(boot, kind):
        eager, lazy = (sum(row["exits"][kind] for row in rows) for rows in zip(*boot))
        return lazy / (1.02 * eager + 5)

    def worst(five):
        return max(statistics.median(more(boot, kind) for boot in five) for kind in KINDS)

    seen = first_good(expire_sets(), worst)
    assert seen[-1] <= 1, seen


@pytest.mark.parametrize("name", EXPIRE)
def test_expire_lazy_has_no_needless_interrupt_or_halt(guest, name):
    """Eager is the slower here, so that more of its timers share an interrupt, and the numbers
    of interrupts say nothing: but each found a timer due, and ended a halt. One may be on its
    way when the counting begins or ends."""
    for row in guest(name).rows:
        if row["mode"] == "lazy":
            assert row["spurious"] == 0
            assert abs(row["exits"]["timer_interrupt"] - row["interrupts"]) <= 1
            assert row["exits"]["halt"] <= row["interrupts"] + 1


def test_expire_lazy_is_no_later_than_eager(expire_sets):
    """No more than 10 %, of 40 pairs of runs. One pair says little: p99 is what the emulator
    and the machine below stood still for, and differs by a factor of two between runs of
    the same mode. So p99 may be 10 % later in no more pairs than chance would make of half
    of them (three standard deviations), and p50, which is steadier, in the median."""

    def worst(five):
        late = [[lazy["late_ns"][p] / (1.10 * eager["late_ns"][p])
                 for boot in five for eager, lazy in boot] for p in ("p50", "p99")]
        count = len(late[1])
        return max(statistics.median(late[0]),
                   sum(ratio > 1 for ratio in late[1]) / (count / 2 + 1.5 * count ** 0.5))

    seen = first_good(expire_sets(), worst)
    assert seen[-1] <= 1, seen


def test_the_path_without_an_exit_is_a_hundred_times_cheaper(guest):
    one = guest("rearm")
    assert one.row("eager")["set_cycles"]["p50"] >= 100 * one.row("lazy")["set_cycles"]["p50"]


def test_the_counters_agree_with_kvms_own(share, guest):
    """The guest prints its count, then prints a little more (each character is at most
    a few port accesses) and halts; KVM's own counter may be ahead by that only."""
    text = guest("halt").text
    counted = int(re.search(r"exits since creation: ([\d,]+)", text).group(1).replace(",", ""))
    kvms = int((share / "halt.exits").read_text())
    printed = len(text) - text.index("exits since creation: ") + 40
    assert counted > 20000
    assert 0 <= kvms - counted <= 4 * printed + 100, (counted, kvms)


def test_all_who_count_agree(guest):
    said, wrong = watch.check(guest("traced").serial.watched)
    assert wrong == []
    assert said.endswith("QEMU's query-stats and KVM's tracepoints")


def follows(events, at):
    """The events of that CPU from this one up to the guest's next."""
    for event in events[at + 1:]:
        if event["cpu"] != events[at]["cpu"]:
            continue
        if event["source"] == "guest":
            return
        yield event


def test_guest_and_host_trace_the_same_writes_and_halts(guest):
    events = list(watch.trace(guest("traced").serial.watched))
    assert {event["run"] for event in events} == {
        f"{workload}/{mode}" for workload in ("sleep", "tcp_rr") for mode in ("eager", "lazy")}
    writes, halts = {}, 0
    for at, event in enumerate(events):
        if (event["source"], event["event"]) == ("guest", "write"):
            writes[event["run"]] = writes.get(event["run"], 0) + 1
            assert any(seen["event"] == "kvm_msr" and seen["value"] == event["value"]
                       and seen["text"].startswith("msr_write 6e0 ")
                       for seen in follows(events, at)), event
        if event["event"] == "halt":    # an interrupt may keep the CPU from it
            halts += any("reason hlt" in seen["text"] for seen in follows(events, at))
    assert writes["tcp_rr/eager"] >= 2 * 20 and halts >= 2 * 20
    assert writes["sleep/lazy"] <= 10


def replayed(events, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return conform.replay(path)


def test_a_real_run_conforms_to_the_model(guest, tmp_path):
    one = replayed(watch.trace(guest("traced").serial.watched), tmp_path)
    assert one.broken is None, one.broken
    assert one.counts["runs"] == 4 and one.counts["guest"] > 500 and one.counts["host"] > 1000
    assert min(one.taken[rule] for rule in (
        "lazy_defer", "lazy_commit", "kick: interrupt", "publish", "sync: set", "halt: sync",
        "resume", "check_timer")) >= 2, one.taken


@pytest.mark.parametrize("event, rules", [
    ("kvm_set_deadline", ("sync", "start_timer", "set_deadline")),
    ("kvm_apic_accept_irq", ("kick", "publish")),
    ("kvm_area_read", ("halt: sync", "kick", "resume", "park", "set_deadline")),
    ("kvm_area_write", ("publish", "resume", "load_host", "mine")),
    ("pending", ("store_pending", "lazy_set", "lazy_defer", "lazy_cancel")),
    ("host", ("lazy_defer",)), ("kvm_msr", ("vmexit(wrmsr)", "set_deadline"))])
def test_a_step_that_is_missing_in_a_real_run_is_noticed(guest, tmp_path, event, rules):
    """Each in turn, of those in the middle of a lazy run."""
    events = list(watch.trace(guest("traced").serial.watched))
    lazy = [at for at, one in enumerate(events) if one["run"] == "sleep/lazy"
            and one["event"] == event and "vec 65" not in one.get("text", "")
            and (event != "kvm_msr" or " 6e0 " in one["text"])]
    for at in lazy[:1] if event == "kvm_msr" else lazy[3:6]:
        one = replayed(events[:at] + events[at + 1:], tmp_path)
        assert one.broken and one.broken[0].rule in rules, (events[at], one.broken)


@pytest.mark.parametrize("kernel", KERNELS)
def test_run_prints_the_table_and_writes_the_results(sloth, no_leftovers, kernel):
    done = sloth("run", "--host=tcg", f"--kernel={kernel}", "storm=sleep,rearm", "ops=500",
                 limit=400)
    assert done.returncode == 0, done.stderr
    assert f"patched host (Linux {kernel}." in done.stderr
    assert "hypercall's counters and QEMU's query-stats agree" in done.stderr
    rows = [results.parse(line)
            for line in (run.BUILD / "results.jsonl").read_text().splitlines()]
    assert [(row["workload"], row["mode"], row["host"]) for row in rows] == [
        (workload, mode, "tcg") for workload in ("sleep", "rearm")
        for mode in ("eager", "rearm", "lazy")]
    assert "tsc-deadline" in done.stdout and "eager" in done.stdout
    assert '{"workload"' not in done.stdout
    assert "sleep/eager ..." not in done.stdout and "running the storm" in done.stderr
    assert 'id="L6"' in (run.BUILD / "report/index.html").read_text().replace("'", '"')
    assert '{"workload"' in (run.BUILD / "serial.log").read_text()


def test_stock_offers_no_lazy_and_runs_the_others(sloth, no_leftovers):
    done = sloth("run", "--host=tcg", "--stock", "storm=sleep", "ops=500", limit=400)
    assert done.returncode == 0, done.stderr
    assert re.search(r"lazy.*not offered|does not offer.*lazy", done.stdout)
    rows = [results.parse(line)
            for line in (run.BUILD / "results.jsonl").read_text().splitlines()]
    assert [row["mode"] for row in rows] == ["eager", "rearm"]
    for row in rows:
        assert row["host"] == "tcg-stock" and row["exits"]["source"] == "guest"
        assert row["exits"]["exits"] is None


@pytest.mark.parametrize("fault, words, said", [
    ("panic", [], "the guest panicked"),
    ("hang", ["--timeout=20"], "still running after 20 s"),
])
def test_a_guest_that_panics_or_hangs_fails_with_its_last_lines(sloth, no_leftovers, fault, words,
                                                               said):
    done = sloth("run", "--host=tcg", *words, "storm=sleep", "ops=50", f"fault={fault}",
                 limit=400)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    quoted = [line for line in done.stderr.splitlines() if line.startswith("sloth: | ")]
    assert 1 <= len(quoted) <= 20
