# SPDX-License-Identifier: MIT
"""lab/watch.py on what a guest and its host have said: the cross-check of the counts and the
making of build/trace.jsonl. No host is booted."""

import json

import pytest

from lab import results, watch

# Numbers that no two counters share, and room for exits and MSRs of other kinds.
COUNTS = {name: number for number, name in enumerate(results.COUNTS, 10)}
COUNTS |= {"exits": 500, "msr_write": 100}
QEMU = {**COUNTS, "halt": COUNTS["halt"] + 1, "io": COUNTS["io"] + 5, "external_interrupt":
        COUNTS["external_interrupt"] + 2, "exits": COUNTS["exits"] + 8}


def total(cpu, **other):
    exits = {"source": "host", **COUNTS, **other}
    return json.dumps({"total": cpu, "msr_writes": COUNTS["tsc_deadline"], "exits": exits})


def row(**other):
    """A run that is a part of that life."""
    counts = {"armed": 6, "fired": 3, "cancelled": 2, "pending": 1}
    return json.dumps({"workload": "rearm", "mode": "lazy", "msr_writes": 1, "timer_counts": counts,
                       "exits": {"source": "host", **dict.fromkeys(COUNTS, 1)}, **other})


def stats(*vcpus):
    """As QEMU answers, the last vCPU first."""
    return "@stats " + json.dumps({"id": "stats", "return": [
        {"provider": "kvm", "qom-path": f"/machine/unattached/device[{2 * number}]",
         "stats": [{"name": f"exit_counts.{name}", "value": value}
                   for name, value in vcpu.items()]}
        for number, vcpu in reversed(list(enumerate(vcpus)))]})


def tracepoints(**other):
    seen = {name: 2 * value for name, value in QEMU.items()} | other
    reasons = {0x78: seen["halt"], 0x7b: seen["io"], 0x60: seen["external_interrupt"],
               0x81: seen["hypercall"], 0x7c: seen["msr_write"]}
    reasons[0x400] = seen["exits"] - sum(reasons.values())
    return [*(f"@exits {{ exit_reason: {reason:10} }} hitcount: {count:10}"
              for reason, count in reasons.items()),
            f"@msrs {{ write:          1, ecx:       1760 }} hitcount: {seen['tsc_deadline']:10}",
            f"@msrs {{ write:          1, ecx:       2096 }} hitcount: {seen['icr']:10}",
            "@msrs { write:          1, ecx:         27 }"
            f" hitcount: {seen['msr_write'] - seen['tsc_deadline'] - seen['icr']:10}",
            "@msrs { write:          0, ecx:       1760 } hitcount:         99"]


def test_counts_that_agree_are_said_to():
    said, wrong = watch.check([row(), total(0), total(1), stats(QEMU, QEMU), *tracepoints()])
    assert wrong == []
    assert said == ("the guest's own deadline writes, the hypercall's counters, QEMU's query-stats"
                    " and KVM's tracepoints")


@pytest.mark.parametrize("name", COUNTS)
def test_one_more_or_less_at_qemu_is_seen(name):
    for change in (-1, 1):
        if change > 0 and name in watch.MAY_GROW:
            continue
        qemu = {**QEMU, name: QEMU[name] + change * (20 if name in watch.MAY_GROW else 1)}
        wrong = watch.check([row(), total(0), total(1), stats(QEMU, qemu)])[1]
        assert len(wrong) >= 1 and all("CPU 1, " in line for line in wrong)
        assert any(f", {name}: " in line for line in wrong), wrong


@pytest.mark.parametrize("name", watch.MAY_GROW)
def test_what_may_grow_is_in_the_sum_of_all_exits(name):
    qemu = {**QEMU, name: QEMU[name] + 1}
    assert watch.check([total(0), stats(qemu)])[1] == [
        "CPU 0, exits: 500 by the hypercall, 508 by QEMU, expected 509"]


@pytest.mark.parametrize("name", ["exits", "halt", "io", "hypercall", "external_interrupt",
                                  "msr_write", "tsc_deadline", "icr"])
def test_one_more_at_a_tracepoint_is_seen(name):
    more = tracepoints(**{name: 2 * QEMU[name] + 1})
    wrong = watch.check([row(), total(0), total(1), stats(QEMU, QEMU), *more])[1]
    assert f"{name}: {2 * QEMU[name] + 1} by the tracepoint, {2 * QEMU[name]} by QEMU" in wrong


def test_runs_with_more_than_the_whole_life_are_seen():
    runs = [row()] * 21
    assert any("kick: 21 in the runs, 19 in" in line or "kick: 21" in line
               for line in watch.check([*runs, total(0), stats(QEMU)])[1])


def test_writes_that_only_the_guest_counted_are_seen():
    lines = [total(0).replace(f'"msr_writes": {COUNTS["tsc_deadline"]}', '"msr_writes": 99'),
             stats(QEMU)]
    assert watch.check(lines)[1] == ["CPU 0: 99 deadline writes by the guest,"
                                     f" {COUNTS['tsc_deadline']} by the hypercall"]
    guests_own = row(exits={"source": "guest", **dict.fromkeys(COUNTS)})
    assert "the host another number" in watch.check([guests_own, total(0), stats(QEMU)])[1][0]


def test_timers_that_do_not_add_up_are_seen():
    counts = {"armed": 6, "fired": 3, "cancelled": 2, "pending": 0}
    assert "do not add up" in watch.check([row(timer_counts=counts)])[1][0]


def test_no_answer_of_qemus_is_a_failure_and_a_stock_host_is_none():
    assert watch.check([total(0)])[1] == ["QEMU's query-stats has 0 vCPUs, the guest 1"]
    error = '@stats {"id": "stats", "error": {"class": "GenericError"}}'
    assert watch.check([total(0), error])[1] == ["QEMU's query-stats has 0 vCPUs, the guest 1"]
    assert watch.check([row(exits={"source": "guest", **dict.fromkeys(COUNTS)}), error]) == ("", [])


GUEST = ["@guest", "@ rearm/lazy 0 3 0 3e8 1000000000", "@0 set - - 64", "@a pending = 64 =",
         "@5 write 64 = =", "@ rearm/lazy 1 1 7 3f2 1000000000", "@0 host - - 1"]
HOST = ["@offset 0 -1000 ", "@offset 1 -1000 ",
        "@h  CPU 1/KVM-8  [000] d..1. 1990: kvm_entry: vcpu 1, rip 0x1",
        "@h  CPU 0/KVM-7  [000] ..... 2017: kvm_exit: vcpu 0 reason msr rip 0x5",
        "@h  qemu-sys-9   [000] ..... 2012: kvm_apic_accept_irq: apicid 0 vec 65",
        "@h  CPU 0/KVM-7  [000] ..... 2018: kvm_msr: msr_write 6e0 = 0x44c",
        "@h  CPU 0/KVM-7  [000] ..... 9999: kvm_entry: vcpu 0, rip 0x1"]


def test_a_trace_has_the_guests_words_and_times():
    first, stored, host, write = watch.trace(GUEST)
    assert first == {"run": "rearm/lazy", "number": 0, "source": "guest", "cpu": 0, "ns": 0,
                     "event": "set", "armed": None, "pending": None, "tsc": 1000,
                     "armed_tsc": None, "pending_tsc": None, "value": 1100}
    assert (stored["ns"], stored["pending"], stored["value"]) == (10, 100, 1100)
    assert (host["cpu"], host["event"], host["value"], host["ns"]) == (1, "host", 1, 10)
    assert (write["ns"], write["armed"], write["armed_tsc"], write["value"]) == (15, 100, 1100, 1100)


def test_the_hosts_events_stand_where_they_happened():
    guest = [*GUEST, "@ rearm/lazy 0 1 0 400 1000000000"]   # another run, which is empty
    events = list(watch.trace([*GUEST[:2], *GUEST[2:5], "@5 halt - - -", *GUEST[5:], *HOST]))
    assert [(event["source"], event["cpu"], event["event"], event["ns"]) for event in events] == [
        ("guest", 0, "set", 0), ("guest", 0, "pending", 10), ("guest", 1, "host", 10),
        ("host", None, "kvm_apic_accept_irq", 12), ("guest", 0, "write", 15),
        ("host", 0, "kvm_exit", 17), ("host", 0, "kvm_msr", 18), ("guest", 0, "halt", 20)]
    assert events[6]["value"] == 1100 and guest


def test_what_the_host_could_not_keep_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "TRACE", tmp_path / "trace.jsonl")
    watch.write_trace([*GUEST, *HOST, "@ring dropped events: 0", "@ring dropped events: 1234"])
    assert "the last 1,234 events of the host did not fit" in capsys.readouterr().err
    assert len(watch.TRACE.read_text().splitlines()) == 5
    watch.write_trace(["@guest", "@ring dropped events: 0"])
    assert capsys.readouterr().err == ""


def test_two_guests_are_two_traces_and_two_checks():
    assert [event["number"] for event in watch.trace([*GUEST, *GUEST])] == [0] * 4 + [1] * 4
    assert len(watch.guests(["@guest", total(0), "@guest"])) == 2


def test_these_lines_are_not_for_people():
    class Screen:
        said = b""

        def write(self, data):
            self.said += data

    screen = Screen()
    serial = results.Serial(screen)
    text = "\n".join(["text", *GUEST, total(0), "more", ""])
    for byte in text.encode():
        serial.write(bytes([byte]))
    assert screen.said == b"text\nmore\n"
    assert serial.watched == [*GUEST, total(0)]
    assert serial.lines == ["text", total(0), "more"]


@pytest.mark.parametrize("words, traced", [([], "no"), (["trace=0"], "no"), (["trace=5"], "yes")])
def test_the_host_is_traced_where_the_guest_is(words, traced):
    assert watch.command(["qemu"], words)[2:] == [traced, "qemu"]
