# SPDX-License-Identifier: MIT
"""./sloth linux: the guest's side of the protocol for Linux, as a module and as patches.

With --linux-lazy a Debian kernel is booted as the guest, the module loaded and unloaded, a CPU
taken off and on, and its exits compared with those without."""

import json
import subprocess

import pytest

from conftest import KERNELS, ROOT
from lab import debs, linux, linux_guest, modules
from lab.ui import Fail, Usage

SOCKPERF = """sockperf: [Total Run] RunTime=2.500 sec; SentMessages=1001; ReceivedMessages=1000
sockperf: ---> percentile 99.900 =  900.500
sockperf: ---> percentile 99.000 =  700.250
sockperf: ---> percentile 50.000 =  500.125
"""
CYCLICTEST = """# /dev/cpu_dma_latency set to 0us
T: 0 (  101) P:80 I:2000 C:    100 Min:     50 Act:   60 Avg:   70 Max:     900
T: 1 (  102) P:80 I:2500 C:    300 Min:     50 Act:   60 Avg:   90 Max:     800
"""


class Options:
    cpus, rounds, time, times = 2, 2, 5, 200
    mode, workload, guest, tick = "eager,lazy", "tcp,modules", "module", "retain"

    def __init__(self, **changes):
        self.__dict__.update(changes)


def a_row(**changes):
    return {"workload": "tcp", "name": "lazy", "mode": "lazy", "round": 1, "key": "tcp, lazy", "status": 0,
            "booted": False, "on": 0 if changes.get("name") == "eager" else 2,
            "order": "tcp 5", "out": SOCKPERF.splitlines(),
            "before": ["LOC:  10  20  Local timer interrupts", "CAL: 1 2 Function call interrupts"],
            "after": ["LOC: 110  70  Local timer interrupts", "CAL: 4 4 Function call interrupts"],
            "exits": {"exit_counts.exits": 4000, "exit_counts.tsc_deadline": 10}, **changes}


# Without a boot.

@pytest.mark.parametrize("words, expected", [
    (["--mode=sloppy"], "--mode=sloppy"), (["--mode=lazy,lazy"], "--mode=lazy,lazy"),
    (["--workload=nfs"], "--workload=nfs"), (["--time=0"], "--time"), (["--cpus=99"], "--cpus"),
    (["--workload=hotplug", "--cpus=1"], "--cpus=2"), (["--kernel=5.10"], "--kernel=5.10"),
    (["--host=direct"], "--host"), (["--tick=never"], "--tick"), (["--guest=bsd"], "--guest"),
    (["--guest=patched", "--tick=stop"], "--tick=stop"),
    (["--guest=patched", "--mode=defer"], "--mode=defer"),
    (["--guest=patched", "--workload=modules"], "--workload=modules"),
])
def test_usage_errors_are_one_line_and_status_2(sloth, words, expected):
    done = sloth("linux", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and expected in done.stderr


def test_modes_take_turns():
    options = Options()
    linux.check(options)
    orders = linux.orders(options)
    assert [(order["order"], order["mode"], order["round"]) for order in orders] == [
        ("tcp 5", "eager", 1), ("tcp 5", "lazy", 1), ("tcp 5", "eager", 2), ("tcp 5", "lazy", 2),
        ("modules 200", "eager", 1)]


def test_a_list_is_checked():
    with pytest.raises(Usage):
        linux.check(Options(workload="tcp,"))


def test_a_transaction_is_one_that_was_answered():
    row = linux.result(a_row(), 2)
    assert row["transactions"] == 1000 and row["per_second"] == 400
    assert row["latency_us"] == {"p50": 500.125, "p99": 700.25, "p999": 900.5}
    assert row["interrupts"] == {"LOC": 150, "CAL": 5}


def test_the_threads_of_cyclictest_are_one():
    row = linux.result(a_row(workload="cyclictest", order="cyclictest 5",
                             out=CYCLICTEST.splitlines()), 2)
    assert row["transactions"] == 400
    assert row["latency_us"] == {"average": 85, "max": 900}


@pytest.mark.parametrize("changes", [
    {"status": 1}, {"out": ["sockperf: ERROR"]}, {"out": []},
    {"out": SOCKPERF.replace("=1000", "=0").splitlines()},
    {"workload": "cyclictest", "out": []}, {"workload": "hackbench", "out": []},
    {"booted": True}, {"workload": "kexec", "on": 0}, {"on": 1}, {"name": "eager", "on": 2},
    {"workload": "kexec", "booted": True}, {"workload": "suspend", "out": ["5 times"], "on": 0},
])
def test_a_measurement_that_failed_is_no_figure(changes):
    with pytest.raises(Fail):
        linux.result(a_row(**changes), 2)


def test_a_kexec_is_one_that_booted_with_the_feature_off():
    row = linux.result(a_row(workload="kexec", order="kexec", booted=True, on=0, out=[]), 2)
    assert "kexec: 1 time\n" in linux.table([row])


def test_a_selftest_has_a_verdict_in_each_mode_and_round():
    rows = [linux.result(a_row(workload="timers", test=test, name=name, round=number, out=[],
                               status=status), 2)
            for test, name, number, status in (
                ("nanosleep", "eager", 1, 0), ("nanosleep", "lazy", 1, 0),
                ("raw_skew", "eager", 1, 1), ("raw_skew", "eager", 2, 1),
                ("raw_skew", "lazy", 1, 1), ("raw_skew", "lazy", 2, 4))]
    lines = [line.split() for line in linux.table(rows).splitlines()]
    assert ["nanosleep", "pass", "pass"] in lines
    assert ["raw_skew", "fail", "(1)", "fail", "(1),", "skip", "differ"] in lines


@pytest.mark.linux_lazy
def test_the_selftests_are_those_of_the_kernel_that_its_makefile_calls_safe():
    for kernel in map(debs.get, KERNELS):
        tree = debs.source(kernel, [f"{linux_guest.SELFTESTS}/timers",
                                    f"{linux_guest.SELFTESTS}/kselftest.h"], kernel.directory / "timers")
        text = (tree / linux_guest.SELFTESTS / "timers/Makefile").read_text().replace("\\\n", " ")
        (names,) = [line.split("=")[1].split() for line in text.splitlines()
                    if line.startswith("TEST_GEN_PROGS =")]
        assert {*names} == {*linux_guest.TIMERS, "rtcpie"}


def test_the_table_has_counts_for_each_transaction_and_medians():
    rows = []
    for name, writes in (("eager", (5000, 4000, 90000)), ("lazy", (100, 80, 120))):
        for number, count in enumerate(writes, 1):
            rows.append(linux.result(a_row(name=name, round=number, exits={
                "exit_counts.exits": 10000, "exit_counts.tsc_deadline": count}), 2))
    lines = {line[:26].strip(): line[26:].split() for line in linux.table(rows).splitlines()}
    assert lines["tsc-deadline"] == ["5,000", "5.0000", "100", "0.1000", "98.0", "%"]
    assert lines["all exits"] == ["10,000", "10.0000", "10,000", "10.0000", "0.0", "%"]
    assert lines["local timer interrupts"][:2] == ["150", "0.1500"]
    assert lines["latency p99.9, us"] == ["900.5", "900.5", "+0.0", "%"]
    assert "median of 3" in linux.table(rows)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_module_is_in_the_kernels_style(kernel):
    script = modules.sources(debs.get(kernel), modules.patches(kernel)) / "scripts/checkpatch.pl"
    for source in linux_guest.MODULE.glob("*.c"):
        done = subprocess.run(["perl", script, "--strict", "--no-tree", "--no-summary", "--quiet",
                               "-f", source], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_guests_series_is_in_the_kernels_style(kernel):
    script = modules.sources(debs.get(kernel), modules.patches(kernel)) / "scripts/checkpatch.pl"
    series = modules.patches(f"guest-{kernel}")
    assert series
    for patch in series:
        done = subprocess.run(["perl", script, "--strict", "--no-tree", "--no-summary", "--quiet",
                               "--ignore=FILE_PATH_CHANGES", patch],
                              capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), patch


def test_both_series_are_one():
    """But for what the two kernels have otherwise around it."""
    def added(kernel):
        return [[line for line in patch.read_text().splitlines()
                 if line.startswith("+") and not line.startswith("+++")]
                for patch in modules.patches(f"guest-{kernel}")]

    first, second = (added(kernel) for kernel in modules.series_available())
    strip = [[[line.replace(",EARLY", "") for line in patch] for patch in series]
             for series in (first, second)]
    assert strip[0] == strip[1]


# In the host, or slow.

@pytest.mark.linux_lazy
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_guests_series_applies_without_the_hosts(kernel, tmp_path):
    series = modules.patches(f"guest-{kernel}")
    tree = debs.source(debs.get(kernel), sorted(modules.touched(series)), tmp_path / "source")
    subprocess.run(["git", "init", "-q", tree], check=True)
    for patch in series:
        subprocess.run(["git", "-C", tree, "apply", patch], check=True)


def measured(sloth, *words):
    done = sloth("linux", "--rounds=1", "--timeout=2400", *words, limit=4800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [json.loads(line) for line in (ROOT / "build/linux.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=KERNELS)
def rows(request, sloth):
    return measured(sloth, "--host=tcg", f"--kernel={request.param}", "--time=5", "--times=20",
                    "--workload=tcp,cyclictest,modules,hotplug,suspend,kexec")


def of(rows, workload, mode):
    (row,) = [row for row in rows if (row["workload"], row["mode"]) == (workload, mode)]
    return row


def per_transaction(row, name):
    return row["exits"][f"exit_counts.{name}"] / row["transactions"]


@pytest.mark.linux_lazy
def test_lazy_writes_fewer_deadlines(rows):
    eager, lazy = (of(rows, "tcp", mode) for mode in ("eager", "lazy"))
    assert eager["exits"]["exit_counts.kick"] == 0 < lazy["exits"]["exit_counts.kick"]
    # When the tick has come its next deadline is a write in either mode; this is the rest.
    beyond = [per_transaction(row, "tsc_deadline") - per_transaction(row, "timer_interrupt")
              for row in (eager, lazy)]
    assert beyond[1] < beyond[0] / 3


@pytest.mark.linux_lazy
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_patched_kernel_does_it_all(sloth, kernel):
    """Each measurement checks that the vCPUs use the protocol if, and only if, they shall."""
    rows = measured(sloth, "--host=tcg", f"--kernel={kernel}", "--guest=patched", "--time=2",
                    "--times=20", "--workload=tcp,hotplug,suspend,kexec")
    eager, lazy = (of(rows, "tcp", mode) for mode in ("eager", "lazy"))
    assert eager["exits"]["exit_counts.kick"] == 0 < lazy["exits"]["exit_counts.kick"]
    assert [of(rows, name, "lazy")["times"] for name in ("hotplug", "suspend", "kexec")] == [
        20, 20, 1]


@pytest.mark.bochs
def test_the_published_table(sloth):
    """Where the guest stops its tick as its guest did. Four times slower is enough for 98 %."""
    rows = measured(sloth, "--host=bochs", "--tick=stop", "--workload=tcp", "--time=1", "--slow=4")
    eager, lazy = (of(rows, "tcp", mode) for mode in ("eager", "lazy"))
    assert per_transaction(lazy, "tsc_deadline") < 0.02 * per_transaction(eager, "tsc_deadline")
    assert per_transaction(lazy, "exits") < 0.42 * per_transaction(eager, "exits")
    assert lazy["per_second"] > eager["per_second"]
    assert lazy["latency_us"]["p50"] < eager["latency_us"]["p50"]


@pytest.mark.linux_lazy
def test_no_wake_up_is_lost(rows):
    """Each thread wakes each 2 ms, with what the next is later by (500 us)."""
    for mode in ("eager", "lazy"):
        row = of(rows, "cyclictest", mode)
        assert row["transactions"] > 0.5 * 5 * (500 + 400)


@pytest.mark.linux_lazy
def test_it_comes_and_goes(rows):
    assert of(rows, "modules", "eager")["times"] == 20
    for workload in ("hotplug", "suspend"):
        assert of(rows, workload, "lazy")["times"] == 20
    assert of(rows, "kexec", "lazy")["times"] == 1
