# SPDX-License-Identifier: MIT
"""An hour of storms on four CPUs: after each run the timers add up, at the end all counts."""

import pytest

from lab import results, run

SECONDS = 3600


@pytest.mark.soak
def test_in_an_hour_no_timer_goes_astray(sloth):
    done = sloth("run", "--host=tcg", f"--timeout={SECONDS + 1200}", "storm=all", "cpus=4",
                 "ops=10000", f"soak={SECONDS}s", limit=SECONDS + 1500)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "query-stats agree" in done.stderr
    rows = [results.load(line) for line in (run.BUILD / "results.jsonl").read_text().splitlines()]
    armed = 0
    for row in rows:
        counts = row["timer_counts"]
        assert counts["armed"] == counts["fired"] + counts["cancelled"] + counts["pending"], row
        assert (row["lost"], row["early"], row["cpus"]) == (0, 0, 4), row
        armed += counts["armed"]
    assert {row["mode"] for row in rows} == {"eager", "rearm", "lazy"}
    assert len({row["seed"] for row in rows}) > 1
    print(f"{len(rows)} runs, {armed:,} timers armed")
