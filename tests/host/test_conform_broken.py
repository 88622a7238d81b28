# SPDX-License-Identifier: MIT
"""Guests and hosts that are broken on purpose, each in one rule, run and traced for real:
./sloth conform has to notice each, and must not complain of those that are not broken."""

import functools
import importlib.util
import json
import shlex
import shutil
import subprocess

import pytest

from conftest import ROOT
from lab import conform, modules, results, run, watch

pytestmark = pytest.mark.conform

LAZY, IDLE, TRACE = "drivers/deadline_lazy.c", "kernel/idle.c", "kernel/trace.c"
STORE, LOOK, FENCE = "	store_pending(d, deadline);\n", "	armed = load_armed(d);\n", \
    "	compiler_barrier();\n"

# Name in model/check, or one like it: file, text, what takes its place, the rule that notices.
GUESTS = {
    "SET_ORDER": (LAZY, STORE + FENCE + LOOK, LOOK + FENCE + STORE, "lazy_set"),
    "SET_COMPARES": (LAZY, "deadline < armed", "deadline > armed", "lazy_set"),
    "SET_ARMED": (LAZY, "if (!armed || deadline < armed)", "if (deadline < armed)", "lazy_set"),
    "CANCEL": (LAZY, "	store_pending(d, 0);\n", "	(void)d;\n", "lazy_cancel"),
    "DEFER_ORDER": (LAZY, STORE + FENCE + "	if (!(load_host(d) & HOST_ACTIVE))",
                    "	uint64_t host = load_host(d);\n\n" + FENCE + STORE
                    + "	if (!(host & HOST_ACTIVE))", "lazy_defer"),
    "DEFER_BLIND": (LAZY, "	if (!(load_host(d) & HOST_ACTIVE))", "	if (0)", "lazy_defer"),
    "NO_COMMIT": (IDLE, "	ce->mode->commit(&ce->deadline);\n", "", "lazy_commit"),
    "COMMIT_NOTHING": (LAZY, "	if (pending)\n", "	if (!pending)\n", "lazy_set"),
    "ENABLE_ORDER": (LAZY, STORE + "	for (int i = 0; i < 5; i++)",
                     "	write_msr((uintptr_t)&d->area | LAZY_ENABLE);\n" + STORE
                     + "	for (int i = 0; i < 5; i++)", "lazy_enable"),
    "STORE_LOST": (TRACE, "	d->area.pending = deadline;\n",
                   "	if (deadline % 16)\n		d->area.pending = deadline;\n", "store_pending"),
}

# Names in tests/selftest/mutants.py, and the rule that notices.
HOSTS = {
    "update": "publish", "kick_none": "kick", "kick_later": "kick", "kick_clears": "publish",
    "halt": "halt: sync", "park": "park", "park_sync": "park", "park_armed": "park",
    "park_random": "park", "resume_sync": "resume", "resume_armed": "resume", "msr_moved": "sync",
}

# What each needs: timers that are moved; that are stopped when KVM's fires; halts; an idle loop
# that is left while timers go on. And QEMU disturbs the vCPUs all the time.
KICKS = ["storm=rearm,cancel", "mode=lazy", "ops=4000", "timers=8", "timeout=2ms", "cpus=1",
         "trace=20000"]
STOPS = ["storm=cancel", "mode=lazy", "ops=8000", "timers=1", "timeout=1ms", "cpus=1",
         "trace=60000"]
HALTS = ["storm=tcp_rr,sleep", "mode=lazy", "ops=400", "cpus=2", "trace=10000"]
LEAVES = ["storm=mixed", "mode=lazy", "ops=1500", "timeout=50ms", "cpus=1", "trace=20000"]
WORDS = {"stops": STOPS, "kick_none": STOPS, "leaves": LEAVES, "NO_COMMIT": LEAVES,
         "COMMIT_NOTHING": LEAVES, **dict.fromkeys(
    ("halts", "DEFER_ORDER", "DEFER_BLIND", "halt", "park",
     "park_sync", "park_armed", "park_random", "resume_sync", "resume_armed"), HALTS)}
GOOD = ("kicks", "stops", "halts", "leaves")
LIMIT = 60      # seconds for a guest: a broken one may hang


def image(place, name):
    """A guest with that fault, built from a copy of the tree."""
    file, old, new, _ = GUESTS[name]
    tree = place / name
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("build", ".git", "tests"))
    source = (tree / file).read_text()
    assert source.count(old) == 1, f"{file} has not once: {old}"
    (tree / file).write_text(source.replace(old, new))
    subprocess.run(["make", "-s", "-j2", "WARN=", "all"], cwd=tree, check=True)
    return tree / "build/sloth.elf"


@functools.cache
def kvm_mutants():
    path = ROOT / "tests/selftest/mutants.py"
    spec = importlib.util.spec_from_file_location("kvm_mutants", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def guest_line(name, elf):
    words = WORDS.get(name, KICKS)
    argv = watch.command(["timeout", str(LIMIT), *run.guest_command(words, "tcg", elf)], words)
    return (f"{shlex.join(map(str, argv))} >/tmp/serial 2>&1\n"
            f'cp /tmp/serial "$SLOTH_SHARE/{name}"\n')


def load(place):
    return (f"busybox rmmod $vendor kvm; busybox insmod {place}/kvm.ko &&"
            f" busybox insmod {place}/$vendor.ko || exit 1\n")


def run_in(in_host, lines):
    """The directory with what each of them said on its serial line."""
    done, share = in_host("".join(lines), f"--kernel={modules.default_series()}",
                          limit=LIMIT * (len(lines) + 1))
    assert done.returncode == 0, done.stderr
    return share


@pytest.fixture(scope="module")
def guests(in_host, tmp_path_factory):
    trees = tmp_path_factory.mktemp("trees")
    return run_in(in_host, [*(guest_line(name, run.IMAGE) for name in GOOD),
                            *(guest_line(name, image(trees, name)) for name in GUESTS)])


@pytest.fixture(scope="module")
def hosts(in_host):
    kernel = modules.default_series()
    place = ROOT / "build/mutants" / kernel
    kvm_mutants().build(kernel, list(HOSTS), place)
    return run_in(in_host, ["vendor=kvm-amd; grep -qw svm /proc/cpuinfo || vendor=kvm-intel\n",
                            *(load(place / name) + guest_line(name, run.IMAGE) for name in HOSTS)])


def replayed(serial, tmp_path):
    """The Replay of what a guest and its host have traced."""
    told = results.Serial()
    told.write(serial.read_bytes())
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in watch.trace(told.watched)))
    return conform.replay(path)


def rule(one):
    print(one.broken and f"{one.broken[0].rule}: {one.broken[0]}")
    return one.broken and one.broken[0].rule


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_of_what_is_not_broken(guests, tmp_path, name):
    assert rule(replayed(guests / name, tmp_path)) is None


@pytest.mark.parametrize("name", GUESTS)
def test_a_broken_guest_is_noticed(guests, tmp_path, name):
    assert rule(replayed(guests / name, tmp_path)) == GUESTS[name][-1]


@pytest.mark.parametrize("name", HOSTS)
def test_a_broken_host_is_noticed(hosts, tmp_path, name):
    assert rule(replayed(hosts / name, tmp_path)) == HOSTS[name]
