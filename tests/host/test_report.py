# SPDX-License-Identifier: MIT
"""./sloth run without its boot: sweeps, repetitions, progress, and the report."""

import argparse
import json
import re
import types

import pytest

from lab import compare, output, plot, report, results, run, sweep, system, ui
from lab.ui import Fail, Usage

drawn = pytest.mark.skipif(not plot.available(), reason="gnuplot-nox is not installed")


def a_row(workload="sleep", mode="eager", exits=0, **changes):
    """1,000 operations; counts that are not given are 0."""
    row = {"workload": workload, "mode": mode, "host": "tcg", "timeout_ns": 5_000_000,
           **dict.fromkeys(results.NUMBERS, 0), "ops": 1000, "cpus": 1, "timers": 7, "ns": 10 ** 9,
           "late_ns": {"p50": 1000, "p99": 4000, "max": 9000},
           "set_cycles": {"p50": 100, "p99": 400, "max": 900}}
    row["exits"] = {"source": "host", **dict.fromkeys(results.COUNTS, 0), "exits": exits,
                    "halt": exits}
    return {**row, **changes}


def three(workload="sleep", exits=(2000, 1500, 500), **changes):
    return [a_row(workload, mode, count, **changes)
            for mode, count in zip(results.MODES, exits)]


def page_of(directory, rows, **more):
    return report.write(rows, directory / "report", **more).read_text()


# The report.

@drawn
def test_the_report_holds_every_line_and_links_each_figure_to_its_own(tmp_path):
    rows = three() + three("tcp_rr", (5000, 2500, 2000))
    page = page_of(tmp_path, rows, words=["storm=<b>"])
    lines = re.findall(r"<li id='L(\d+)'>(.*?)</li>", page)
    assert [json.loads(line.replace("&quot;", '"')) for _, line in lines] == rows
    targets = set(re.findall(r"id=['\"]([^'\"]+)", page))
    assert {"L1", "L6", "exits", "kinds-tcp_rr", "late_ns-sleep"} <= targets
    for figure in re.findall(r"<figure id=.*?</figure>", page, re.S):
        assert re.search(r'href="#L\d', figure), figure[:200]
    assert set(re.findall(r'href="#([^"]+)"', page)) <= targets
    assert "storm=&lt;b&gt;" in page
    ids = re.findall(r"""\bid=["']([^"']+)""", page)
    assert len(ids) == len(set(ids))


@drawn
def test_the_report_needs_nothing_else_and_knows_light_and_dark(tmp_path):
    page = page_of(tmp_path, three())
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) <= {"http://www.w3.org/2000/svg",
                                                           "http://www.w3.org/1999/xlink"}
    assert "prefers-color-scheme:dark" in page and "@media print" in page
    for mode in results.MODES:
        assert page.count(f"var(--{mode})") > 5, mode   # the plots' colours are the page's
    assert not re.search(r"rgb\(", page.split("</style>", 1)[1])
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"index.html", "exits.svg", "exits.png", "kinds-sleep.svg", "late_ns-sleep.png"} <= names


@drawn
def test_each_axis_has_its_unit(tmp_path):
    page = page_of(tmp_path, three(spurious=3) + three(sweep="timeout", spurious=3))
    for name, texts in {"exits": ["VM exits per operation"], "kinds-sleep": ["VM exits per op"],
                        "late_ns": ["us from deadline"], "set_cycles": ["cycles to program"],
                        "late_ns-sleep": ["late, us", "percentile"],
                        "set_cycles-sleep": ["cycles", "percentile"],
                        "needless": ["timer interrupts that found nothing due"],
                        "sweep-timeout-sleep": ["timeout, ms", "VM exits per operation"],
                        "sweep-timeout-sleep-needless": ["timeout, ms", "per 1,000 op"],
                        }.items():
        figure = re.search(rf"<figure id='{name}'>.*?</figure>", page, re.S)[0]
        for text in texts:
            assert text in figure, (name, text)


def test_the_summary_is_computed():
    rows = (three(exits=(2000, 1500, 500)) + three("earlier", (1000, 1000, 1010)))
    rows[1]["spurious"] = 77
    rows[2]["late_ns"] = {"p50": 1000, "p99": 5000, "max": 9000}
    numbered = list(enumerate(rows, 1))
    text = report.summary(report.grouped(numbered), numbered)
    assert "cost 1,510 VM exits, where eager programming had 3,000: 49.6 % fewer" in text
    assert "most in sleep (75.0 %) and cost 1.0 % more in earlier." in text
    assert "+25 % at worst (sleep)" in text
    assert "took 77 timer interrupts that found nothing due; lazy took 0." in text
    assert "In 6 runs no timer was lost" in text
    rows[0]["lost"] = 2
    assert "2 timers were lost and 0 were early" in report.summary(report.grouped(numbered),
                                                                   numbered)


def test_repetitions_are_their_median_and_sweeps_are_apart(tmp_path):
    rows = [a_row(exits=count, repeat=n) for n, count in enumerate((900, 100, 200), 1)]
    page = page_of(tmp_path, rows + 3 * [a_row(exits=10 ** 6, sweep="cpus")])
    assert "<th>exits</th><td>200<small>0.200</small>" in page
    assert 'lines <a href="#L1">1</a>–<a href="#L3">3</a>' in page
    assert "the median of the repetitions" in page and "In 6 runs" in page


def test_a_sweep_is_drawn_in_its_unit_by_medians():
    found = [(n, a_row(timeout_ns=ns, exits=exits)) for n, (ns, exits) in
             enumerate([(10 ** 6, 900), (10 ** 9, 100), (10 ** 6, 100), (10 ** 6, 200)])]
    assert report.series_of(found, sweep.SWEEPS["timeout"], report.per_op(lambda e: e["exits"])) \
        == [(1, 0.2), (1000, 0.1)]


def test_what_is_not_known_is_not_drawn(tmp_path):
    """A stock host counts no exits, and some workloads have no late timers."""
    nothing = {"source": "guest", **dict.fromkeys(results.COUNTS)}
    none = {"p50": None, "p99": None, "max": None}
    page = page_of(tmp_path, [{**a_row(mode=mode, late_ns=none), "exits": nothing}
                              for mode in ("eager", "rearm")])
    assert "Nothing here compares" in page
    assert "id='late_ns" not in page and "id='kinds" not in page


@drawn
def test_percentiles_beyond_p99_are_shown_where_there_are_some(tmp_path):
    spread = {"p50": 1, "p90": 2, "p99": 3, "p999": 4, "p9999": 5, "max": 6}
    page = page_of(tmp_path, three(late_ns=spread))
    assert "p99.99" in page
    assert "p99.9" not in page_of(tmp_path, three())


def test_figures_that_only_newer_guests_have_are_in_the_table():
    rows = [(1, a_row(wakeups=300, timer_counts={"armed": 5, "fired": 4}))]
    text = report.result_table("sleep", {"eager": rows})
    for label, value in (("guest: wakeups", 300), ("timers armed", 5), ("wake-ups a second", 300)):
        assert f"<th>{label}</th><td>{value}</td>" in text
    assert "timers pending" not in text and "kicks re-armed" in text
    assert "wakeups" not in report.result_table("sleep", {"eager": [(1, a_row())]})


@pytest.mark.parametrize("broken", [{"ops": -1}, {"mode": "quick"}, {"exits": {}}, {"late_ns": 3},
                                    {"timeout_ns": "1s"}, {"repeat": None}, {"sweep": 3},
                                    {"workload": "../x"}])
def test_a_broken_row_makes_no_report(tmp_path, broken):
    with pytest.raises(Fail, match="line 2"):
        page_of(tmp_path, [a_row(), {**a_row(), **broken}])
    assert not (tmp_path / "report").exists()


def test_without_gnuplot_there_is_a_report_that_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plot, "available", lambda: False)
    page = page_of(tmp_path, three())
    assert "gnuplot is not installed" in page and "gnuplot" in capsys.readouterr().err
    assert "<svg" not in page and "guest: msr writes" in page


def event(ns, what, armed, pending, **changes):
    return {"run": "rearm/lazy", "source": "guest", "cpu": 0, "ns": ns, "event": what,
            "armed": armed, "pending": pending, **changes}


EVENTS = [event(0, "write", 5e6, 5e6), event(1e6, "set", 5e6, 6e6), event(5e6, "kick", 6e6, 6e6),
          event(5.5e6, "kick", None, None, source="host"),
          event(6e6, "interrupt", None, 0), event(7e6, "write", 9e6, 9e6)]


def points(commands, name):
    return re.search(rf"\${name} << EOD\n(.*?)EOD", commands, re.S)[1].splitlines()


def test_the_timeline_is_steps_with_gaps_and_marks():
    commands, _ = plot.timeline(EVENTS)
    assert points(commands, "armed") == ["0.0 5.0", "1.0 5.0", "1.0 5.0", "5.0 5.0", "5.0 6.0",
                                         "6.0 6.0", "", "7.0 9.0", "7.0 9.0"]
    assert points(commands, "pending") == ["0.0 5.0", "1.0 5.0", "1.0 6.0", "5.0 6.0", "5.0 6.0",
                                           "6.0 6.0", "", "7.0 9.0", "7.0 9.0"]
    assert [line.split()[0] for line in points(commands, "write")] == ["0.0", "7.0"]
    assert [line.split()[0] for line in points(commands, "kick")] == ["5.0", "5.5"]
    assert [line.split()[0] for line in points(commands, "interrupt")] == ["6.0"]


@drawn
def test_the_report_draws_the_trace_of_its_own_runs(tmp_path):
    rows = three("rearm")
    lines = [json.dumps(row) for row in (*EVENTS, event(0, "set", 1, 1, cpu=1),
                                         event(0, "kvm_exit", None, None, cpu=None, source="host"),
                                         # Of CPU 2, cut short, there is nothing to draw.
                                         event(0, "kvm_entry", None, None, cpu=2, source="host"),
                                         event(0, "set", 1, 1, run="sleep/lazy"))]
    page = page_of(tmp_path, rows, trace=lines)
    assert re.findall(r"<figure id='(time-[^']*)'", page) == ["time-rearm-lazy-0",
                                                             "time-rearm-lazy-1"]
    assert "time, ms" in page and "deadline, ms" in page
    for bad in ("{", "{}", '{"run": "a/b", "cpu": 0, "ns": "x", "event": "set", "source": "host"}',
                '{"run": "a/b", "cpu": "/", "ns": 1, "event": "set", "source": "host"}', "[]",
                '{"run": 1}'):
        with pytest.raises(Fail, match="trace"):
            page_of(tmp_path, rows, trace=[bad])


# Sweeps, repetitions.

def test_a_sweep_adds_a_guest_for_each_value():
    guests = sweep.guests(["mode=lazy", "storm=rearm"], ["timeout", "cpus"], repeat=3)
    assert guests[0] == sweep.Guest(("mode=lazy", "storm=rearm", "repeat=3"))
    assert [guest.sweep for guest in guests[1:]] == ["timeout"] * 5 + ["cpus"] * 4
    for guest in guests[1:]:
        assert [word for word in guest.words if word.startswith("storm=")] == ["storm=rearm"]
    assert guests[1].words[-1] == "timeout=1ms" and guests[-1].words[-1] == "cpus=8"


def test_sweeps_are_named():
    assert sweep.parse("all") == list(sweep.SWEEPS)
    assert sweep.parse("cpus,timers,cpus") == ["cpus", "timers"]
    for text in ("foo", "", "cpus,", "cpus,foo"):
        with pytest.raises(argparse.ArgumentTypeError, match="timeout, timers, cpus, all"):
            sweep.parse(text)
    with pytest.raises(Usage, match="timers="):
        sweep.guests(["timers=3"], ["timers"])


def test_several_guests_are_one_command_that_stops_at_the_first_failure(tmp_path):
    guests = [sweep.Guest((f"seed={n}",)) for n in range(3)]
    argv = run.guests_command(guests, "x", False)
    fake = re.sub(r"(?m)^qemu\S* .*seed=(\d).*$", r"(exit $((\1 ? 35 : 33)))", argv[-1])
    status, said = system.call([*argv[:2], fake])
    assert status == 35 and said.splitlines() == [f"{output.MARK}{n}" for n in (0, 1)]


# What the guests say.

def serial_of(*texts, guests=2, progress=None):
    storm = output.Storm([sweep.Guest(()), sweep.Guest((), "cpus")][:guests],
                         progress or output.Progress([]))
    storm.write("".join(text + "\n" for text in texts).encode())
    storm.finish()
    return storm


def test_rows_say_which_repetition_and_which_sweep():
    line = json.dumps(a_row())
    rows = serial_of("x", line, line, f"{output.MARK}1", line).rows
    assert [(row["repeat"], row.get("sweep")) for row in rows] == [(1, None), (2, None),
                                                                   (1, "cpus")]


def test_the_start_of_a_run_is_progress_and_not_shown():
    progress = output.Progress(["a/eager", "a/lazy", "b/eager"])
    shown = []
    storm = output.Storm([sweep.Guest(())], progress,
                         types.SimpleNamespace(write=shown.append))
    storm.write(b"Sloth\na/eager ...\nb/eager ...\nc / d ...\n")
    storm.finish()
    assert progress.at == 2                     # a/lazy was left out
    assert shown == [b"Sloth\n", b"c / d ...\n"]


def test_progress_says_where_and_how_long():
    now = types.SimpleNamespace(time=0)
    progress = output.Progress(["a/eager", "a/lazy", "b/eager"],
                               {"a/eager": 9.7, "a/lazy": 0.7, "b/eager": 4.7}, lambda: now.time)
    assert progress() == ""
    progress.start("a/eager")
    assert progress() == "a/eager, 1 of 3, about 16 s left"
    now.time = 20       # twice as long as before
    progress.start("a/lazy")
    assert progress() == "a/lazy, 2 of 3, about 12 s left"
    now.time = 21
    assert progress() == "a/lazy, 2 of 3, about 11 s left"
    unknown = output.Progress(["a/eager", "a/lazy"], None, lambda: now.time)
    unknown.start("a/eager")
    assert unknown() == "a/eager, 1 of 2"
    now.time += 10
    unknown.start("a/lazy")
    assert unknown() == "a/lazy, 2 of 2, about 10 s left"


def test_the_screen_writes_whole_lines_and_drops_qemus_warning(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        screen = output.Screen(file.fileno())
        for byte in f"one\nqemu: (4) {output.NOISE} (1)\ntwo".encode():
            screen.write(bytes([byte]))
        assert (tmp_path / "x").read_bytes() == b"one\n"
        screen.finish()
    assert (tmp_path / "x").read_bytes() == b"one\ntwo"


def test_durations_are_those_of_an_earlier_run(tmp_path):
    assert output.durations(tmp_path / "none") == {}
    (tmp_path / "x").write_text(results.as_text([a_row(ns=10 ** 9), a_row(ns=3 * 10 ** 9)]))
    assert output.durations(tmp_path / "x") == {"sleep/eager": 2.0}
    (tmp_path / "x").write_text("{")
    assert output.durations(tmp_path / "x") == {}


def test_medians_have_a_column_for_each_mode():
    rows = [a_row(mode=mode, exits=count, repeat=n) for n, count in enumerate((900, 100, 200), 1)
            for mode in ("eager", "lazy")]
    lines = compare.medians(rows)
    assert "3 times" in lines[0] and lines[1].split() == ["eager", "lazy"]
    assert lines[2].split("  ")[-1].strip() == "0.200 (0.100 to 0.900)"
    assert max(map(len, lines)) <= 100


# The command.

@pytest.fixture
def storm(tmp_path, monkeypatch):
    """storm(lines, end, json=True ...): ./sloth run whose guest says the lines; end is its
    status, or what is raised."""
    monkeypatch.setattr(ui, "quiet", False)
    for name, value in (("ROOT", tmp_path), ("BUILD", tmp_path), ("REPORT", tmp_path / "report"),
                        ("RESULTS", tmp_path / "results.jsonl"),
                        ("check_storm", lambda words: ["sleep/eager", "sleep/lazy"]),
                        ("build_guest", lambda: None)):
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(run.watch, "TRACE", tmp_path / "trace")
    monkeypatch.setattr(run.probe, "choose", lambda options: "tcg")

    def call(lines, end=run.SUCCESS, **options):
        def guests(_guests, _where, _options, serial, _errors, _limit):
            serial.write("".join(line + "\n" for line in lines).encode())
            if isinstance(end, BaseException):
                raise end
            return end

        monkeypatch.setattr(run, "run_guests", guests)
        return run.storm(types.SimpleNamespace(**{
            "words": [], "storm": [], "sweep": [], "repeat": None, "timeout": None, "stock": False,
            "json": False, "quiet": False, **options}))

    return call


LINES = ["Sloth", "sleep/eager ...", json.dumps(a_row()), "sleep/lazy ..."]


def test_stopped_by_a_signal_it_keeps_what_was_measured(storm, tmp_path, capfd):
    with pytest.raises(system.Stopped):
        storm(LINES, system.Stopped(2))
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert rows == [{**a_row(), "repeat": 1}]
    assert (tmp_path / "report/index.html").exists()
    assert "sleep: 1,000 operations" in capfd.readouterr().out


def test_json_is_the_rows_and_nothing_else(storm, tmp_path, capfd):
    assert storm(LINES, json=True) == 0
    out = capfd.readouterr().out
    assert out == (tmp_path / "results.jsonl").read_text() and out.count("\n") == 1


def test_quiet_is_the_path_and_errors(storm, capfd):
    assert storm(LINES, quiet=True) == 0
    assert capfd.readouterr() == ("results.jsonl\n", "")
    assert storm(LINES, run.PANIC, quiet=True) == 1
    assert "the guest panicked" in capfd.readouterr().err


def test_a_report_that_fails_is_an_error_and_costs_no_result(storm, tmp_path, capfd, monkeypatch):
    (tmp_path / "trace").write_text("{")
    assert storm(LINES, json=True) == 0         # of an earlier run: removed

    def refuse(*_):
        raise Fail("no report: really")

    monkeypatch.setattr(run.report, "write", refuse)
    with pytest.raises(system.Stopped):
        storm(LINES, system.Stopped(2), json=True)
    capfd.readouterr()
    assert storm(LINES, json=True) == 1
    said = capfd.readouterr()
    assert said.out == (tmp_path / "results.jsonl").read_text() and "really" in said.err
