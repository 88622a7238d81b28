# SPDX-License-Identifier: MIT
"""The guest's own faults, ten thousand of each kind, in each mode (kernel/storm/trouble.c). A
few of each on a machine without KVM are in tests/boot."""

import json

import pytest

EACH = 10000
# NMIs that come at once may be one, and an APIC that is off takes no interrupt.
SPARE = {"nmi": 1.3, "spurious": 1.3}
KINDS = ("nmi", "spurious", "timer", "tsc", "mask", "apic", "oneshot", "feature", "area")


@pytest.mark.faults
@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_faults_lose_no_timer(sloth, kind, cpus):
    ops = int(EACH * SPARE.get(kind, 1)) if cpus > 1 else EACH
    mode = "lazy" if kind == "area" else "all"
    done = sloth("run", "--host=tcg", "--json", "--timeout=3000", "storm=faults",
                 f"faults={kind}", f"mode={mode}", f"ops={ops}", f"cpus={cpus}", limit=3500)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == (1 if kind == "area" else 3)
    for row in rows:
        print(row["mode"], row["faults"][kind])
        assert row["faults"][kind] >= EACH, row
        assert (row["lost"], row["early"], row["faults"]["wrong"]) == (0, 0, 0), row
