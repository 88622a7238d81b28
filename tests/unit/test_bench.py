# SPDX-License-Identifier: MIT
"""./sloth bench, with few timers: what it prints and writes, not how fast anything is."""

import json
import subprocess

import pytest

KEYS = ["structure", "pattern", "timers", "ns", "p50", "p99", "p9999", "worst"]
PEERS = {"wheel", "rbtree", "libev", "dpdk"}


def installed(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
                          capture_output=True, text=True)
    return done.stdout == "installed"


@pytest.mark.skipif(not all(map(installed, ("libev-dev", "dpdk-dev"))),
                    reason="./sloth bench has not installed its peers here")
def test_bench_measures_every_peer_in_every_pattern(sloth, tmp_path):
    file = tmp_path / "rows"
    done = sloth("bench", "--timers=300", "--rounds=1", f"--json={file}")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(list(row) == KEYS for row in rows)
    patterns = {row["pattern"] for row in rows}
    assert len(patterns) == 10
    for pattern in patterns:
        assert PEERS <= {row["structure"] for row in rows if row["pattern"] == pattern}
    for row in rows:
        assert row["timers"] == 300
        assert row["p50"] <= row["p99"] <= row["p9999"] <= row["worst"]
        assert row["ns"] is None or row["ns"] > 0
    assert "times as fast as the tree in the geometric mean" in done.stdout


@pytest.mark.parametrize("words, named", [
    (["--rounds=0"], "--rounds"),
    (["--timers=many"], "--timers"),
    (["--fast"], "--fast"),
])
def test_bench_refuses_in_one_line(sloth, words, named):
    done = sloth("bench", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and named in done.stderr
