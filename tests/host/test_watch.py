# SPDX-License-Identifier: MIT
"""lab/watch.py on what a guest and its host have said: the cross-check of the counts and the
making of build/trace.jsonl. No host is booted."""

import base64
import gzip
import json

import pytest

from lab import results, watch
from lab.ui import Fail

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


GUEST = ["@guest", "@ rearm/lazy 0 3 0 3e8 1000000000 0", "@0 set - - 64", "@a pending = 64 =",
         "@5 write 64 = =", "@ rearm/lazy 1 1 7 3f2 1000000000 3", "@0 host - - 1"]
HOST = ["@offset 0 -1000 ", "@offset 1 -1000 ",
        "@h  CPU 1/KVM-8  [000] d..1. 1990: kvm_entry: vcpu 1, rip 0x1",
        "@h  CPU 0/KVM-7  [000] ..... 2017: kvm_exit: vcpu 0 reason msr rip 0x5",
        "@h  qemu-sys-9   [000] ..... 2012: kvm_apic_accept_irq: apicid 0 vec 65",
        "@h  CPU 0/KVM-7  [000] ..... 2018: kvm_msr: msr_write 6e0 = 0x44c",
        "@h  CPU 0/KVM-7  [000] ..... 9999: kvm_entry: vcpu 0, rip 0x1"]


def test_a_trace_has_the_guests_words_and_times():
    first, stored, host, full, write, end = watch.trace(GUEST)
    assert first == {"run": "rearm/lazy", "number": 0, "source": "guest", "cpu": 0, "ns": 0,
                     "event": "set", "armed": None, "pending": None, "tsc": 1000,
                     "armed_tsc": None, "pending_tsc": None, "value": 1100}
    assert (stored["ns"], stored["pending"], stored["value"]) == (10, 100, 1100)
    assert (host["cpu"], host["event"], host["value"], host["ns"]) == (1, "host", 1, 10)
    assert (write["ns"], write["armed"], write["armed_tsc"], write["value"]) == (15, 100, 1100, 1100)
    assert (full["cpu"], full["event"], full["value"], full["ns"]) == (1, "full", 7, 10)
    assert (end["cpu"], end["event"], end["value"]) == (None, "end", 5)


def test_a_trace_in_the_guests_memory_is_the_same():
    records = [(1000, 0, 0, 1100, 2), (1010, 0, 1100, 1100, 7),
               (1015, 1100, 1100, 1100, 10 | 5 << 32), (1010, 0, 0, 1, 9)]
    memory = gzip.compress(b"".join(watch.RECORD.pack(*record) for record in records) + bytes(400))
    packed = base64.b64encode(memory).decode()
    heads = [line for line in GUEST if line.startswith("@ ")]
    told = ["@guest", "@pause", f"@m {packed[:40]}", f"@m {packed[40:]}", "@saved", *heads]
    assert list(watch.trace(told)) == list(watch.trace(GUEST))
    for cut in ([*told[:2], told[3], *told[4:]], ["@guest", "@m", "@saved", heads[0]],
                [*told[:5], heads[0].replace(" 3 0 ", " 99 0 ")]):
        with pytest.raises(Fail, match="not arrive whole|not all are in"):
            list(watch.trace(cut))


def test_the_hosts_events_stand_where_they_happened():
    events = list(watch.trace([*GUEST[:2], *GUEST[2:5], "@5 halt - - -", *GUEST[5:], *HOST,
                               "@ring dropped events: 0"]))
    assert [(event["source"], event["cpu"], event["event"], event["ns"]) for event in events] == [
        ("guest", 0, "set", 0), ("guest", 0, "pending", 10), ("guest", 1, "host", 10),
        ("guest", 1, "full", 10), ("host", None, "kvm_apic_accept_irq", 12),
        ("guest", 0, "write", 15), ("host", 0, "kvm_exit", 17), ("host", 0, "kvm_msr", 18),
        ("guest", 0, "halt", 20), ("host", None, "end", 20)]
    assert events[7]["value"] == 1100


def test_a_timers_expiry_is_its_vcpus_and_probes_have_values():
    host = [*HOST[:3], *(f"@h  {task}  [000] d..1. {tsc}: {what}" for task, tsc, what in (
        ("CPU 1/KVM-8", 2011, "hrtimer_start: hrtimer=00f1 function=apic_timer_fn expires=77"),
        ("qemu-sys-9", 2013, "hrtimer_expire_entry: hrtimer=00f1 function=apic_timer_fn now=78"),
        ("CPU 1/KVM-8", 2014, "kvm_set_deadline: (f+0x0/0x1 [kvm]) value=0x44c"),
        ("CPU 1/KVM-8", 2014, "kvm_area_write: (f+0x0/0x1 [kvm]) gpa=0x40 armed=0x5 host=0x1"
                              " size=16")))]
    events = [event for event in watch.trace([*GUEST, *host]) if event["source"] == "host"]
    assert [(event["cpu"], event["event"], event["value"]) for event in events] == [
        (1, "hrtimer_start", 77), (1, "hrtimer_expire_entry", None), (1, "kvm_set_deadline", 1100),
        (1, "kvm_area_write", 5), (None, "end", 9)]


def test_what_the_host_could_not_keep_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "TRACE", tmp_path / "trace.jsonl")
    late = [line.replace("[000]", "[001]") for line in HOST[-2:]]
    watch.write_trace([*GUEST, *HOST[:-2], *late, "@ring dropped events: 1234",
                       "@ring dropped events: 0"])
    assert "the last 1,234 events of the host did not fit" in capsys.readouterr().err
    lines = [json.loads(line) for line in watch.TRACE.read_text().splitlines()]
    assert [(line["source"], line["event"], line["value"]) for line in lines[3:6]] == [
        ("guest", "full", 7), ("host", "kvm_apic_accept_irq", None), ("host", "full", 1234)]
    watch.write_trace(["@guest", "@ring dropped events: 0"])
    assert capsys.readouterr().err == ""


def test_two_guests_are_two_traces_and_two_checks():
    assert [event["number"] for event in watch.trace([*GUEST, *GUEST])] == [0] * 6 + [1] * 6
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


@pytest.mark.parametrize("words, traced", [
    ([], "no"), (["trace=0"], "no"), (["trace=5"], f"{0x1bc120}:400"),
    (["cpus=4", "trace=5"], f"{0x1bc120}:800"), (["trace=400000"], f"{0x1bc120}:16000000")])
def test_the_host_is_traced_where_the_guest_is(monkeypatch, words, traced):
    monkeypatch.setattr(watch.system, "call", lambda argv: (0, "0010 T x\n001bc120 b trace_pool\n"))
    assert watch.command(["qemu", "-kernel", "image"], words)[2:] == [traced, "qemu", "-kernel",
                                                                      "image"]


def test_an_image_that_is_no_guest_cannot_be_traced():
    with pytest.raises(Fail, match="no trace_pool"):
        watch.command(["qemu", "-kernel", __file__], ["trace=5"])


def test_counts_are_those_of_the_last_pause():
    early = tracepoints(**{name: 1 for name in ("exits", "tsc_deadline")})
    said, wrong = watch.check([row(), total(0), total(1), "@pause", stats(QEMU, QEMU), *early,
                               "@pause", stats(QEMU, QEMU), *tracepoints()])
    assert wrong == [] and said
