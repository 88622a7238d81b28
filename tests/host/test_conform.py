# SPDX-License-Identifier: MIT
"""lab/conform.py on made-up traces: one that takes most rules once, and for each rule the same
trace with that rule broken. No host is booted; test_guest.py has a real trace."""

import json

import pytest

from lab import cli, conform

AREA, MSR = 0x12dbc0, 0x4b564d09
TICK = 1000                 # cycles from one event to the next
HERTZ = 2_500_000_000
START = 10**12


class Trace:
    """Writes events. Each has a name by which a test finds it to break it."""

    def __init__(self, mode="lazy"):
        self.mode, self.tsc, self.rows = mode, START, []
        self.armed = self.pending = 0

    def row(self, source, event, value, text=None, name=None):
        self.tsc += TICK
        row = {"run": f"storm/{self.mode}", "number": 0, "source": source, "cpu": 0,
               "ns": round((self.tsc - START - TICK) * 1e9 / HERTZ), "event": event, "armed": None,
               "pending": None, "tsc": self.tsc, "armed_tsc": None, "pending_tsc": None,
               "value": value, "name": name}
        if source == "guest":
            row |= {"armed_tsc": self.armed or None, "pending_tsc": self.pending or None}
        else:
            row["text"] = text
        self.rows.append(row)

    # The guest.

    def guest(self, event, value=0, name=None):
        self.row("guest", event, value, name=name)
        if event == "pending":
            self.pending = value

    def set(self, deadline, name=None):
        self.guest("set", deadline, name and f"{name} begins")
        self.store_and_look(deadline, name)

    def store_and_look(self, deadline, name=None):
        self.guest("pending", deadline, name and f"{name} stores")
        self.guest("armed", self.armed, name and f"{name} looks")
        if not self.armed or deadline < self.armed:
            self.guest("write", deadline, name and f"{name} writes")
            self.update(deadline, name)

    # Its host.

    def kvm(self, event, text="", value=None, name=None):
        self.row("host", f"kvm_{event}", value, text, name)

    def exit(self, reason, name=None):
        self.kvm("exit", f"vcpu 0 reason {reason} rip 0x1 info1 0x0", name=name)

    def entry(self, name=None):
        self.kvm("entry", "vcpu 0, rip 0x1", name=name)

    def timer(self, deadline, name=None, ahead=True):
        self.kvm("set_deadline", f"(f) value={deadline:#x}", deadline, name)
        if deadline and ahead:
            self.row("host", "hrtimer_start", 1, "hrtimer=1 function=apic_timer_fn expires=1",
                     name and f"{name}, started")

    def expire(self, name=None):
        self.row("host", "hrtimer_expire_entry", None, "hrtimer=1 function=apic_timer_fn now=1",
                 name)

    def read(self, name=None, pending=None, host=1):
        value = self.pending if pending is None else pending
        self.kvm("area_read", f"(f) gpa={AREA:#x} pending={value:#x} host={host:#x} size=64",
                 name=name)

    def write(self, armed, host=None, name=None):
        self.kvm("area_write", f"(f) gpa={AREA:#x} armed={armed:#x} host={host or 0:#x}"
                               f" size={8 if host is None else 16}", armed, name)
        self.armed = armed

    def wrmsr(self, number, value, name=None):
        self.kvm("msr", f"msr_write {number:x} = {value:#x}", value, name)

    def update(self, deadline, name=None, live=True):
        name = name and f"{name}:"
        self.exit("msr", name and f"{name} exit")
        self.timer(deadline, name and f"{name} timer")
        self.wrmsr(0x6e0, deadline, name and f"{name} noted")
        if live:
            self.write(deadline, name=name and f"{name} publish")
        self.entry(name and f"{name} entry")

    def interrupt(self, name, live=True):
        """KICK, and what the guest does about it up to its program()."""
        if live:
            self.read(f"{name} read")
        self.kvm("apic_accept_irq", "apicid 0 vec 64 (Fixed|edge)", name=f"{name} irq")
        self.kvm("inj_virq", "IRQ 0x40", name=f"{name} inject")
        if live:
            self.write(0, name=f"{name} publish")
        self.entry(f"{name} entry")
        self.guest("interrupt", name=f"{name} handler")

    def enable(self):
        self.guest("enable", 0)
        self.guest("write", 0)
        self.update(0, live=False)
        self.guest("pending", 0)
        self.guest("msr", AREA | 1)
        self.exit("msr")
        self.read("enable: sync")
        self.timer(0, "enable: moved")
        self.write(0, 1, "enable: resume")
        self.wrmsr(MSR, AREA | 1, "enable: noted")
        self.write(0, name="enable: publish")
        self.entry("enable: entry")

    def end(self):
        self.rows.append({**self.rows[-1], "source": "host", "cpu": None, "event": "end",
                          "value": len(self.rows), "name": None})


def ahead(trace, ticks=1000):
    return trace.tsc + ticks * TICK


def lazy():
    t = Trace()
    t.enable()
    late, later = ahead(t), ahead(t, 3000)
    t.set(late, "first")                                # WRMSR
    t.set(later, "second")                              # none needed
    t.exit("interrupt")
    t.expire("expiry")
    t.read("later: read")                               # KICK moves on
    t.timer(later, "later: timer")
    t.write(later, name="later: publish")
    t.entry("later: entry")
    t.guest("cancel", name="cancel begins")
    t.guest("pending", 0, name="cancel stores")
    t.exit("interrupt")
    t.expire()
    t.read("none: read")                                # KICK finds nothing wanted
    t.timer(0, "none: timer")
    t.write(0, name="none: publish")
    t.entry()
    soon = ahead(t, 20)
    t.guest("defer", soon)
    t.guest("pending", soon, "defer stores")
    t.guest("host", 1, "defer looks")
    t.guest("halt")
    t.exit("hlt", "halt: exit")
    t.read("halt: read")                                # HALT
    t.timer(soon, "halt: timer")
    t.tsc = soon
    t.expire("halt: expiry")
    t.kvm("vcpu_wakeup", "wait time 1 ns, polling valid", name="halt: wakeup")
    t.interrupt("kick")
    other = ahead(t)
    t.guest("defer", other, "handler programs")
    t.guest("pending", other)
    t.guest("host", 1)
    t.guest("wake")
    t.guest("commit", name="commit begins")             # nobody has halted
    t.store_and_look(other, "commit")
    t.exit("io")
    t.read("park: read")
    t.write(0, 0x1234_5678_9abc_def2, "park: write")    # PARK
    t.kvm("userspace_exit", "reason KVM_EXIT_IO (2)", name="userspace")
    t.read("resume: token", host=0x1234_5678_9abc_def2)
    t.read("resume: sync", host=0x1234_5678_9abc_def2)
    t.write(other, 1, "resume: write")                  # RESUME
    t.entry("resume: entry")
    t.guest("disable", name="disable begins")
    t.guest("msr", 0)
    t.exit("msr")
    t.read("off: read")
    t.write(0, 0, "off: write")
    t.wrmsr(MSR, 0, "off: noted")
    t.entry()
    t.end()
    return t


def eager(mode="eager"):
    t = Trace(mode)
    t.guest("enable", 0)
    t.guest("write", 0)
    t.update(0, live=False)
    for deadline in (ahead(t), ahead(t, 2000), ahead(t, 500)):
        t.guest("set", deadline, "set")
        if mode == "eager" or not t.armed or deadline < t.armed:
            t.armed = deadline
            t.guest("write", deadline, "write")
            t.update(deadline, "update", live=False)
    t.exit("interrupt")
    t.expire("expiry")
    t.interrupt("kick", live=False)
    t.armed = 0
    t.guest("cancel")
    t.guest("disable")
    t.end()
    return t


def replayed(rows, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return conform.replay(path)


def test_a_trace_as_the_model_has_it_passes_and_is_counted(tmp_path):
    one = replayed(lazy().rows, tmp_path)
    assert one.broken is None, one.broken
    assert {rule for rule in conform.RULES if not one.taken[rule]} == {
        "eager", "rearm", "kick: off", "sync: past", "rdmsr: sync", "resume: another memory",
        "timer moves", "userspace: deadline", "lazy_defer: need"}, one.taken
    assert one.taken["kick: later"] == one.taken["kick: none"] == one.taken["kick: interrupt"] == 1
    assert one.taken["lazy_set: need"] == 2 and one.taken["lazy_set"] == 1


@pytest.mark.parametrize("mode, writes", [("eager", 4), ("rearm", 4)])
def test_the_modes_without_the_protocol_pass(tmp_path, mode, writes):
    one = replayed(eager(mode).rows, tmp_path)
    assert one.broken is None, one.broken
    assert one.taken[mode] >= writes - 1 and one.taken["kick: off"] == 1
    assert not one.taken["publish"]


def without(*names):
    def edit(rows):
        kept = [row for row in rows if row["name"] not in names]
        assert len(kept) == len(rows) - len(names)
        return kept
    return edit


def with_(name, **other):
    def edit(rows):
        assert any(row["name"] == name for row in rows)
        return [{**row, **other} if row["name"] == name else row for row in rows]
    return edit


def with_text(name, old, new):
    def edit(rows):
        (row,) = (row for row in rows if row["name"] == name)
        assert old in row["text"]
        changed = {**row, "text": row["text"].replace(old, new)}
        return [changed if one is row else one for one in rows]
    return edit


def swapped(first, second):
    """Two neighbours the other way round, with what stood in memory before the first."""
    def edit(rows):
        at = next(number for number, row in enumerate(rows) if row["name"] == first)
        one, other = rows[at:at + 2]
        assert other["name"] == second
        return [*rows[:at], {**one, "event": other["event"], "value": other["value"]},
                {**one, "tsc": other["tsc"], "ns": other["ns"]}, *rows[at + 2:]]
    return edit


# What is broken: the rule that has to notice, and how the trace is changed.
BROKEN = {
    "armed is loaded before pending is stored": ("lazy_set",
        swapped("second stores", "second looks")),
    "set stores another deadline": ("lazy_set", with_("second stores", value=START)),
    "set does not write what is earlier": ("lazy_set", without(
        "first writes", "first: exit", "first: timer", "first: timer, started", "first: noted",
        "first: publish", "first: entry")),
    "set looks at armed and misreads it": ("load_armed", with_("second looks", value=77)),
    "a WRMSR that is no exit": ("vmexit(wrmsr)", without(
        "first: exit", "first: timer", "first: timer, started", "first: noted", "first: publish",
        "first: entry")),
    "another value arrives": ("vmexit(wrmsr)", with_("first: noted", value=78)),
    "host is loaded before pending is stored": ("lazy_defer",
        swapped("defer stores", "defer looks")),
    "host is not looked at": ("lazy_defer", without("defer looks")),
    "defer sees ACTIVE where there is none": ("load_host", with_("defer looks", value=3)),
    "cancel does not store": ("store_pending", without("cancel stores")),
    "the idle loop is left without commit": ("lazy_commit", with_("commit begins", event="set",
                                                               value=2 * START)),
    "an interrupt out of nowhere": ("kick", without("kick irq")),
    "the handler does not program": ("timer_interrupt", with_("handler programs", event="halt")),
    "UPDATE sets no timer": ("set_deadline", without("first: timer", "first: timer, started")),
    "UPDATE sets another": ("set_deadline", with_("first: timer", value=79)),
    "UPDATE starts no timer": ("start_timer", without("first: timer, started")),
    "UPDATE does not write armed": ("publish", without("first: publish")),
    "armed is not what KVM holds": ("publish",
        with_text("first: publish", "armed=0x", "armed=0x1")),
    "KICK writes no armed": ("publish", without("later: publish")),
    "KICK stays where it was": ("sync", without("later: timer", "later: timer, started")),
    "KICK moves to another time": ("kick", with_("later: timer", value=2 * START)),
    "KICK moves what is wanted now": ("kick", with_("kick irq", event="kvm_set_deadline", value=0)),
    "KICK is left out": ("publish", without("later: read", "later: timer", "later: timer, started",
                                            "later: publish")),
    "KICK does not look": ("kick", without("kick read")),
    "KICK interrupts though it is for later": ("kick", with_(
        "later: timer", event="kvm_apic_accept_irq", text="apicid 0 vec 64")),
    "KICK interrupts though nothing is wanted": ("kick", with_(
        "none: timer", event="kvm_apic_accept_irq", text="apicid 0 vec 64")),
    "KICK leaves armed": ("publish", without("kick publish")),
    "an interrupt without a timer": ("kick", without("halt: expiry")),
    "a timer that does not run fires": ("timer fires", without("halt: timer, started")),
    "HALT without SYNC": ("halt: sync", without("halt: read", "halt: timer", "halt: timer, started",
                                               "halt: expiry")),
    "SYNC does not set the timer": ("sync", without("halt: timer", "halt: timer, started",
                                                    "halt: expiry")),
    "KVM sees another pending": ("store_pending",
        with_text("halt: read", "pending=0x", "pending=0x1")),
    "PARK is left out": ("park", without("park: read", "park: write")),
    "PARK without SYNC": ("park", without("park: read")),
    "PARK leaves armed": ("park", with_text("park: write", "armed=0x0", "armed=0x5")),
    "PARK's token has bit 0 set": ("resume", with_text("park: write", "def2", "def3")),
    "RESUME is left out": ("resume", without("resume: token", "resume: sync", "resume: write")),
    "RESUME without SYNC": ("resume", without("resume: sync")),
    "RESUME writes another armed": ("resume", with_text("resume: write", "armed=0x", "armed=0x7")),
    "RESUME overlooks another token": ("mine",
        with_text("resume: token", "host=0x12", "host=0x13")),
    "a write outside the area": ("mine",
        with_text("later: publish", "gpa=0x12dbc0", "gpa=0x12dc00")),
    "armed is written while the guest runs": ("in_guest", with_(
        "cancel begins", source="host", event="kvm_area_write",
        text=f"(f) gpa={AREA:#x} armed=0x0 host=0x0 size=8")),
    "armed is written for no reason": ("publish", with_("kick inject", event="kvm_area_write",
        text=f"(f) gpa={AREA:#x} armed=0x0 host=0x0 size=8")),
    "enabling takes over a timer as it is": ("sync", without("enable: moved")),
    "the feature goes off without PARK": ("set_msr", without("off: read", "off: write")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_rule_that_is_broken_is_noticed(tmp_path, capsys, what):
    rule, edit = BROKEN[what]
    rows = edit(lazy().rows)
    rows[-1] = {**rows[-1], "value": len(rows) - 1}
    one = replayed(rows, tmp_path)
    assert one.broken, "nothing was noticed"
    violation, event = one.broken
    assert violation.rule == rule, f"{violation.rule}: {violation}"
    assert cli.main(["conform", str(one.path)]) == 1
    said = capsys.readouterr().out
    assert f"not allowed by {rule!r}" in said and "<--" in said and "NOT as the model" in said


def test_a_vcpu_that_runs_on_with_a_timer_that_has_fired_is_noticed(tmp_path):
    t = Trace()
    t.enable()
    t.set(ahead(t))
    t.expire()                      # on another CPU
    t.exit("interrupt")
    t.entry("at once")
    t.exit("interrupt")
    t.entry("and again")
    t.end()
    violation, event = replayed(t.rows, tmp_path).broken
    assert (violation.rule, event["name"]) == ("kick", "at once")
    del t.rows[-3:-1]
    t.rows[-1] |= {"value": len(t.rows) - 1}
    t.rows[-3], t.rows[-4] = t.rows[-4], t.rows[-3]     # it fires after the VM-exit
    assert replayed(t.rows, tmp_path).broken is None


@pytest.mark.parametrize("mode, rule, edit", [
    ("eager", "mine", with_("kick inject", event="kvm_area_read",
                            text=f"(f) gpa={AREA:#x} pending=0x0 host=0x0 size=64")),
    ("eager", "kick", without("expiry")),
    ("rearm", "kick", without("kick irq")),
])
def test_rules_of_the_other_modes_are_noticed(tmp_path, mode, rule, edit):
    rows = edit(eager(mode).rows)
    rows[-1] = {**rows[-1], "value": len(rows) - 1}
    one = replayed(rows, tmp_path)
    assert one.broken and one.broken[0].rule == rule, one.broken


def test_a_rearm_that_writes_what_is_later_is_noticed(tmp_path):
    rows = eager("rearm").rows
    at = [number for number, row in enumerate(rows) if row["name"] == "set"][1]
    rows[at] = {**rows[at], "value": rows[at]["tsc"] + 1}   # earlier: it had to be written
    one = replayed(rows, tmp_path)
    assert one.broken and one.broken[0].rule == "rearm"


@pytest.mark.parametrize("late, noticed", [(0, False), (90, False), (-3000, False), (110, True)])
def test_a_timer_that_is_started_for_too_late_is_noticed(tmp_path, late, noticed):
    t = Trace("eager")
    t.guest("enable", 0)
    t.guest("write", 0)
    t.update(0, live=False)
    for number in range(40):
        deadline = ahead(t)
        t.guest("set", deadline)
        t.armed = deadline
        t.guest("write", deadline)
        t.update(deadline, live=False)
        row = next(row for row in reversed(t.rows) if row["event"] == "hrtimer_start")
        early = 3_000_000 if number % 5 == 0 else number % 7    # preempted now and then
        row["value"] = 77_000_000_000 + round((deadline - START) * 1e9 / HERTZ) - early
        if number == 30:
            row["value"] += early + 1000 * late
    t.guest("disable")
    t.end()
    one = replayed(t.rows, tmp_path)
    assert bool(one.broken) == noticed, one.broken
    assert not noticed or one.broken[0].rule == "start_timer"


def test_an_exit_between_a_note_and_the_store_is_no_fault(tmp_path):
    """The note stands right before the store: KVM may see either."""
    t = Trace()
    t.enable()
    t.set(ahead(t))
    then, now = t.pending, ahead(t, 2000)
    for seen in (then, now):
        t.guest("set", now)
        t.guest("pending", now)
        t.exit("interrupt")
        t.pending = then            # of what the guest notes, only a later event has it
        t.read(pending=seen)
        timer = seen if seen != t.armed else None
        if timer:
            t.timer(timer)
            t.write(timer)
        t.entry()
        t.pending = now
        t.guest("armed", t.armed)
        then = now
        now = ahead(t, 4000)
        if seen != then:
            continue
        break
    t.guest("halt")
    t.end()
    one = replayed(t.rows, tmp_path)
    assert one.broken is None, one.broken


def test_a_hlt_that_another_interrupt_ends_needs_no_sync(tmp_path):
    t = Trace()
    t.enable()
    deadline = ahead(t)
    t.guest("defer", deadline)
    t.guest("pending", deadline)
    t.guest("host", 1)
    t.guest("halt")
    t.exit("hlt")
    t.entry()
    t.guest("wake")
    t.guest("halt")
    t.end()
    assert replayed(t.rows, tmp_path).broken is None


def test_what_was_not_kept_is_not_judged(tmp_path):
    rows = lazy().rows
    at = next(number for number, row in enumerate(rows) if row["name"] == "second stores")
    full = {**rows[at], "event": "full", "value": 9}
    for source in ("guest", "host"):
        lost = [*rows[:at + 1], {**full, "source": source, "cpu": 0 if source == "guest" else None},
                *(row for row in rows[at + 1:-1] if row["source"] != source)]
        lost.append({**rows[-1], "value": len(lost)})
        one = replayed(lost, tmp_path)
        assert one.broken is None, one.broken
        assert one.unjudged > 15


@pytest.mark.parametrize("text, why", [
    ("", "empty"), ("{", "cut short"), ("1\n", "keys"), ('{"workload": "sleep"}\n', "keys"),
    ("\x00\xff", "not what|not text")])
def test_a_file_of_another_kind_is_refused(tmp_path, capsys, text, why):
    path = tmp_path / "other"
    path.write_bytes(text.encode("latin-1"))
    assert cli.main(["conform", str(path)]) == 2
    assert why.split("|")[0] in (said := capsys.readouterr().err) or why.split("|")[-1] in said


@pytest.mark.parametrize("cut, why", [(-1, "no end"), (-200, "cut short"), (3, "missing")])
def test_a_file_that_was_cut_is_refused(tmp_path, capsys, cut, why):
    lines = [json.dumps(row) + "\n" for row in lazy().rows]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(lines[:-1]) if cut == -1 else "".join(lines)[:cut] if cut < 0
                    else "".join(lines[:cut - 1] + lines[-1:]))
    assert cli.main(["conform", str(path)]) == 2
    assert why in capsys.readouterr().err


def test_a_trace_without_the_host_is_refused(tmp_path, capsys):
    rows = [row for row in lazy().rows if row["source"] == "guest"]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["conform", str(path)]) == 2
    assert "no events of the host" in capsys.readouterr().err
    assert cli.main(["conform", str(tmp_path / "nothing")]) == 2


def test_several_files_are_added_up(tmp_path, capsys):
    paths = []
    for number, trace in enumerate((lazy(), eager())):
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in trace.rows))
    assert cli.main(["conform", *map(str, paths)]) == 0
    said = capsys.readouterr().out
    total = len(lazy().rows) + len(eager().rows) - 2
    assert f"{total:,} events" in said and "2 runs, 2 vCPUs: all as the model has it" in said
    assert "kick: off" in said and "kick: interrupt" in said
