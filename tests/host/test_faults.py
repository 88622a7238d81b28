# SPDX-License-Identifier: MIT
"""The guest's own faults, ten thousand of each kind, in each mode (kernel/storm/trouble.c). A
few of each are in test_guest.py and, on a machine without KVM, in tests/boot. One emulated host
does not live long enough for all of them, so they are added up over several, each with another
seed."""

import collections
import json

import pytest

EACH = 10000
KINDS = ("nmi", "spurious", "timer", "tsc", "mask", "apic", "oneshot", "feature", "area")
OPS = 2000 * len(KINDS)     # by turns, in one host
HOSTS = 8                   # at most: NMIs that come at once may be one


@pytest.mark.faults
@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("mode", ["lazy", "eager", "rearm"])
def test_ten_thousand_faults_of_each_kind_lose_no_timer(sloth, mode, cpus):
    count = collections.Counter()
    kinds = [kind for kind in KINDS if kind != "area" or mode == "lazy"]
    for seed in range(1, HOSTS + 1):
        done = sloth("run", "--host=tcg", "--json", "--timeout=1500", "storm=faults",
                     f"mode={mode}", f"ops={OPS}", f"seed={seed}", f"cpus={cpus}", limit=2000)
        assert done.returncode == 0, done.stderr
        (row,) = (json.loads(line) for line in done.stdout.splitlines())
        count.update(row["faults"])
        print(f"{seed} hosts: {dict(count)}, lost {row['lost']}, early {row['early']}", flush=True)
        assert (row["lost"], row["early"], row["faults"]["wrong"]) == (0, 0, 0), row
        if all(count[kind] >= EACH for kind in kinds):
            return
    pytest.fail(f"less than {EACH} of some after {HOSTS} hosts: {dict(count)}")
