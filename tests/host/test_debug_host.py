# SPDX-License-Identifier: MIT
"""Storms, with all that a VMM does meanwhile, on a kernel that looks for faults: none is
reported. What boots it takes long, and its kernel is built from source first: only with
./sloth test --debug-host."""

import dataclasses
import re
import subprocess

import pytest

from conftest import KERNEL, ROOT
from lab import debs, debughost, host, kernelbuild, modules, run
from lab.ui import Fail

boots = pytest.mark.debug_host
SERIES = KERNEL or modules.default_series()
SECONDS = 20    # of the storm of smp_storm
WORKLOADS = "sleep", "rearm", "expire", "cancel", "idle", "tcp_rr", "mixed", "earlier"
TINY = "init=5", "reset_state=5", "kill=10"


# Without a boot.

def test_an_option_that_the_configuration_does_not_come_to_have_is_named():
    wanted = "# a comment\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
    assert kernelbuild.configured(wanted, "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n") == []
    assert kernelbuild.configured(wanted, "CONFIG_A=m\nCONFIG_C=y\n# CONFIG_B is not set\n") == [
        "CONFIG_A=y", "CONFIG_B=y", "# CONFIG_C is not set"]


REPORTS = """\
BUG: KASAN: slab-use-after-free in kvm_lazy_tscd_sync+0x10/0x20
WARNING: suspicious RCU usage
WARNING: possible circular locking dependency detected
WARNING: inconsistent lock state
BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580
BUG: using smp_processor_id() in preemptible [00000000] code: qemu/1
BUG: scheduling while atomic: qemu/1/0x00000002
ODEBUG: free active (active state 0) object type: hrtimer hint: apic_timer_fn+0x0/0x100
UBSAN: shift-out-of-bounds in arch/x86/kvm/lapic.c:1:1
list_add corruption. prev->next should be next
WARNING: CPU: 0 PID: 1 at arch/x86/kvm/lapic.c:1 start_apic_timer+0x10/0x20
rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
watchdog: BUG: soft lockup - CPU#0 stuck for 130s!
unchecked MSR access error: WRMSR to 0x6e0
a sentence that nobody thought of"""


@pytest.mark.parametrize("line", REPORTS.splitlines())
def test_each_report_is_a_complaint(line):
    assert debughost.Host.complaint.search(f"[   12.345678] {line}")


def test_what_it_says_at_each_boot_is_none():
    log = "[    0.000000] ... MAX_LOCK_DEPTH:          48\n\n[    0.000000]  memory used for stack" \
          " traces: 4224 kB\n"
    assert not any(debughost.Host.complaint.search(line) for line in log.splitlines())


# With a boot.

class Sink:
    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data


@pytest.fixture(scope="module")
def selftests():
    """The series' selftest, and the storm on several vCPUs."""
    modules.build(SERIES)
    place = ROOT / "build/debug-host"
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run([ROOT / "tests/selftest/build.sh", modules.repository(SERIES), place,
                    "x86_64/lazy_tscdeadline_test", ROOT / "tests/selftest/smp_storm.c"],
                   check=True)
    return place / "lazy_tscdeadline_test", place / "smp_storm"


def in_debug_host(script, limit):
    """What a shell script says there, its status, whether the kernel complained, its log."""
    out, machine = Sink(), debughost.Host(SERIES)
    words = ["/bin/sh", "-c", script]
    status = machine.run(words, stdout=out, limit=limit, directory=ROOT)
    log = host.CONSOLE_LOG.read_text(errors="replace")
    return out.data.decode(errors="replace"), status, machine.complaints, log


@pytest.fixture(scope="module")
def stormed(selftests, tmp_path_factory):
    """All storms in one boot."""
    run.build_guest()
    tiny = tmp_path_factory.mktemp("tiny") / "tinyvmm"
    subprocess.run(["gcc", "-O2", "-pthread", "-o", tiny, ROOT / "tests/host/tinyvmm.c"],
                   check=True)
    return in_debug_host(f"{selftests[1]} {SECONDS} 4; echo smp_storm: $?; exec /usr/bin/python3"
                         f" -B tests/host/debug.py build/sloth.elf {tiny} {' '.join(TINY)} 1 4"
                         " checkers", 7200)


@boots
@pytest.mark.parametrize("cpus", (1, 4))
@pytest.mark.parametrize("mode", ("eager", "lazy"))
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_storm_is_disturbed_in_its_middle(stormed, workload, mode, cpus):
    if workload == "tcp_rr" and cpus == 1:
        pytest.skip("needs two CPUs")
    assert re.search(rf"^{workload}/{mode}-{cpus}: storming, \d+ moves", stormed[0], re.M), \
        stormed[0]


@boots
@pytest.mark.parametrize("cpus", (1, 4))
@pytest.mark.parametrize("guest", ("exits", "mixed", "many", "none"))
def test_a_guest_that_was_disturbed_all_along_ends_well(stormed, guest, cpus):
    said = re.search(rf"^{guest}-{cpus}: ok \((\d+) moves", stormed[0], re.M)
    assert said and int(said.group(1)) >= 100, stormed[0]


@boots
@pytest.mark.parametrize("fault", TINY)
def test_what_ends_a_storm_at_once_ends_well(stormed, fault):
    name, count = fault.split("=")
    assert re.search(rf"^{name}: ok, {count}\b", stormed[0], re.M), stormed[0]


@boots
def test_four_lazy_vcpus_of_one_guest_expire_their_timers(stormed):
    assert "\nsmp_storm: 0\n" in stormed[0], stormed[0]
    rows = re.findall(r"^vCPU \d: (\d+) expiries, .* (\d+) restores, (\d+) resets, (\d+) moves$",
                      stormed[0], re.M)
    assert len(rows) == 4 and all(int(number) for row in rows for number in row), stormed[0]


@boots
@pytest.mark.parametrize("checker", ("lockdep", "objects", "leaks"))
def test_the_checkers_were_at_work_to_the_end_and_nothing_leaked(stormed, checker):
    assert f"\n{checker}: ok\n" in stormed[0], stormed[0]


@boots
def test_the_kernel_has_nothing_to_say_of_the_storms(stormed):
    _, status, complaints, log = stormed
    assert status == 0 and not complaints, log[-5000:]


@boots
def test_the_kernel_has_nothing_to_say_of_the_selftest(selftests):
    """Of its sub-tests those that are about time may fail in so slow a host."""
    said, _, complaints, log = in_debug_host(
        f"{selftests[0]}; exec /usr/bin/python3 -B tests/host/debug.py - - checkers", 3600)
    assert len(re.findall(r"^(?:not )?ok \d+ ", said, re.M)) >= 38, said
    assert re.findall(r"^(\w+): ok$", said, re.M) == ["lockdep", "objects", "leaks"], said
    assert not complaints, log[-5000:]


@boots
def test_a_report_is_noticed():
    """The kernel's own way to have one: a write to the log as bad as any."""
    _, status, complaints, _ = in_debug_host(
        "echo '<3>BUG: KASAN: not really' >/dev/kmsg; sleep 1", 300)
    assert status == 0 and complaints


@boots
def test_a_fragment_that_cannot_be_is_refused(tmp_path):
    """A kernel without a line that was asked for is not built."""
    recipe = debughost.recipe(SERIES)
    kernelbuild.tree(recipe, debs.get(SERIES))
    config = tmp_path / "config"
    config.write_text(debughost.CONFIG.read_text() + "CONFIG_NO_SUCH_THING=y\n")
    with pytest.raises(Fail, match="CONFIG_NO_SUCH_THING=y"):
        kernelbuild.configure(dataclasses.replace(recipe, config=config))
