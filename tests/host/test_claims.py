# SPDX-License-Identifier: MIT
"""./sloth claims on made-up results: each claim is seen to hold and to fail."""

import json
import subprocess
import types

import pytest

from conftest import ROOT
from lab import claims, results

# What is claimed of each workload, and a figure of eager and of lazy that just holds, and
# one of lazy that does not.
CASES = (
    ("rearm", "tsc_deadline", 1000, 1, 2),
    ("cancel", "tsc_deadline", 1000, 1, 2),
    ("tcp_rr", "tsc_deadline", 3000, 60, 61),
    ("tcp_rr", "exits", 5000, 2100, 2101),
    ("tcp_rr", "timer_interrupt", 20, 19, 20),
    ("tcp_rr", "preemption_timer", 7, 7, 8),
    ("sleep", "exits", 3000, 1050, 1051),
    ("idle", "exits", 3000, 1050, 1051),
    ("earlier", "exits", 1000, 1010, 1011),
    ("mixed", "late_ns", 1000, 1100, 1101),
    ("expire", "lost", 0, 0, 1),
    ("expire", "early", 0, 0, 1),
)


def row(workload, mode, name, value):
    made = {"workload": workload, "mode": mode, "host": "tcg", **dict.fromkeys(results.NUMBERS, 0),
            "ops": 1000, "cpus": 2,
            "exits": {"source": "host", **dict.fromkeys(results.COUNTS, 0)},
            **{spread: {"p50": 1, "p99": 2, "max": 3} for spread in results.SPREADS}}
    # A figure that is not looked at holds.
    made["exits"] |= {"tsc_deadline": 1000, "exits": 1000, "timer_interrupt": 5} \
        if mode == "eager" else {"exits": 300, "timer_interrupt": 4, "kick": 4}
    if name in results.COUNTS:
        made["exits"][name] = value
    elif name == "late_ns":
        made[name]["p99"] = value
    else:
        made[name] = value
    if mode == "lazy":
        made["exits"]["kick"] = made["exits"]["timer_interrupt"]
    return made


@pytest.mark.parametrize("workload, name, eager, good, bad", CASES)
def test_a_claim_holds_up_to_its_limit(tmp_path, capsys, workload, name, eager, good, bad):
    for value, status in ((good, 0), (bad, 1)):
        file = tmp_path / "results.jsonl"
        file.write_text(results.as_text([row(workload, "eager", name, eager),
                                         row(workload, "lazy", name, value)]))
        assert claims.command(types.SimpleNamespace(files=[file])) == status
        said = capsys.readouterr()
        assert said.out.count("FAIL") == status and workload in said.out


def test_every_claim_that_can_fail_has_a_case():
    claimed = {(workload, claim) for workloads, claim, _ in claims.CLAIMS
               for workload in workloads or ("all",) if not claim.endswith(":")}
    assert len(claimed) == 11 and len(CASES) == 12  # lost and early are one


def test_runs_of_the_same_are_taken_by_their_median(tmp_path):
    file = tmp_path / "results.jsonl"
    lazy = [row("mixed", "lazy", "late_ns", value) for value in (900, 1000, 9000)]
    file.write_text(results.as_text([row("mixed", "eager", "late_ns", 1000), *lazy]))
    (runs,) = claims.load([file]).values()
    assert claims.lateness(runs) == ("1.0 -> 1.0 us", True)


def test_a_sweep_is_no_repetition(tmp_path):
    file = tmp_path / "results.jsonl"
    swept = [row("mixed", "lazy", "late_ns", 9000) | {"sweep": "timeout", "timeout_ns": 5}
             for _ in range(3)]
    file.write_text(results.as_text([row("mixed", "eager", "late_ns", 1000),
                                     row("mixed", "lazy", "late_ns", 1000), *swept]))
    (runs,) = claims.load([file]).values()
    assert claims.lateness(runs) == ("1.0 -> 1.0 us", True)


def test_the_hosts_interrupts_are_not_the_guests(tmp_path):
    lazy = row("sleep", "lazy", "exits", 1100)
    lazy["exits"]["external_interrupt"] = 60
    file = tmp_path / "results.jsonl"
    file.write_text(results.as_text([row("sleep", "eager", "exits", 3000), lazy]))
    (runs,) = claims.load([file]).values()
    assert claims.per_op(runs, 1.05)[1]


@pytest.mark.parametrize("rows, said", [
    ([row("sleep", "eager", "lost", 0)], "no workload ran in the modes eager and lazy"),
    ([], "no results in it"),
])
def test_a_file_without_pairs_is_an_error_in_one_line(tmp_path, rows, said):
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    done = subprocess.run([ROOT / "sloth", "claims", file], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
