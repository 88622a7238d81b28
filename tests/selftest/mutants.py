#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""Takes one rule after the other out of the patched KVM and shows that the selftest of
the series notices.

    tests/selftest/mutants.py [--kernel=6.1|6.12] [--list] [NAME...]

Builds the modules once for each mutant (only what changed is compiled), then loads one
set after the other in a single emulated host. The sub-tests that are named here for a
mutant run first; if they pass, all do. Exit status 1 if a mutant gets away that should
not. Half an hour for all of them on two cores."""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lab import debs, modules, ui
from lab.system import BUILD

LAPIC, X86, CPUID = (f"arch/x86/kvm/{name}.c" for name in ("lapic", "x86", "cpuid"))
RESET = "		memset(&vcpu->arch.lazy_tscd, 0, sizeof(vcpu->arch.lazy_tscd));\n"
AREA = "&vcpu->arch.lazy_tscd.area, &area, sizeof(area))"
MASK = "(vcpu->arch.pv_cpuid.features & (1 << KVM_FEATURE_LAZY_TSCDEADLINE))"

# Name: what no longer holds; file; text; what replaces it; sub-tests.
# A text with a leading "..." is the last one in the file, else it is the only one.
MUTANTS = {
    "update": ("UPDATE writes armed", LAPIC,
               "	vcpu->arch.lazy_tscd.tsc_moved = false;\n	lazy_tscd_changed(apic);\n",
               "	vcpu->arch.lazy_tscd.tsc_moved = false;\n", "update"),
    "publish": ("armed is written before the guest runs", X86,
                "			kvm_lazy_tscd_publish(vcpu);\n", "			;\n", "update"),
    "kick_none": ("KICK with pending 0: no interrupt", LAPIC,
                  "	if (!pending || (pending > ktimer", "	if ((pending > ktimer", "kick"),
    "kick_later": ("KICK with pending later moves the timer", LAPIC,
                   "	if (!pending || (pending > ktimer->tscdeadline &&",
                   "	if (!pending || (false && pending > ktimer->tscdeadline &&", "kick"),
    "kick_armed": ("KICK: later than armed, too", LAPIC,
                   "(pending > ktimer->tscdeadline && pending > now)", "(pending > now)", "advance"),
    "kick_now": ("KICK: later than now, too", LAPIC,
                 "(pending > ktimer->tscdeadline && pending > now)",
                 "(pending > ktimer->tscdeadline)", "kick"),
    "kick_clears": ("after the interrupt armed is 0", LAPIC,
                    "	lazy_tscd_changed(vcpu->arch.apic);\n	return false;\n", "	return false;\n",
                    "kick"),
    "kick_order": ("a KICK that moves the timer does not wipe what expires meanwhile", LAPIC,
                   "> 0 && !lazy_tscd_kick(vcpu)) {\n		kvm_apic_inject_pending_timer_irqs(apic);\n",
                   "> 0) {\n		if (!lazy_tscd_kick(vcpu))\n"
                   "			kvm_apic_inject_pending_timer_irqs(apic);\n", "advance random"),
    "delivered": ("the deadline last delivered is known", LAPIC,
                  "		vcpu->arch.lazy_tscd.delivered = pending;\n", "		;\n", "standing"),
    "delivered_early": ("not if KVM's timer was early", LAPIC,
                        "	if (pending <= now + nsec_to_cycles(vcpu, ktimer->timer_advance_ns))\n",
                        "", "slewed"),
    "delivered_used": ("SYNC does not give it twice", LAPIC,
                       "	if (pending == vcpu->arch.lazy_tscd.delivered &&",
                       "	if (false &&", "standing"),
    "delivered_past": ("a deadline to come is wanted, though delivered", LAPIC,
                       "pending != LAZY_TSCD_UNREADABLE &&\n"
                       "	    pending <= kvm_read_l1_tsc(vcpu, rdtsc()))",
                       "pending != LAZY_TSCD_UNREADABLE)", "early"),
    "delivered_forgotten": ("it is forgotten when a timer is armed", LAPIC,
                            "	if (data)\n		vcpu->arch.lazy_tscd.delivered = 0;\n", "",
                            "standing"),
    "halt": ("HALT: SYNC", X86, "		if (kvm_lazy_tscd_sync(vcpu))	/* HALT */\n", "		if (false)\n",
             "halt"),
    "read": ("READ: SYNC", LAPIC, "	kvm_lazy_tscd_sync(vcpu);	/* READ */\n", "", "read"),
    "park": ("PARK", X86, "	kvm_lazy_tscd_park(vcpu, false);\n", "", "park"),
    "park_sync": ("PARK: SYNC", LAPIC,
                  "	kvm_lazy_tscd_sync(vcpu);\n	lazy_tscd_write(vcpu, 0,", "	lazy_tscd_write(vcpu, 0,",
                  "park save_unknown"),
    "park_armed": ("PARK: armed is 0 in memory", LAPIC, "lazy_tscd_write(vcpu, 0, off",
                   "lazy_tscd_write(vcpu, kvm_lazy_tscd_armed(vcpu->arch.apic), off", "park"),
    "park_random": ("PARK: the token is another each time", LAPIC, "(get_random_u64() | 2)", "(2)",
                    "token"),
    "park_active": ("PARK: bit 0 of the token is clear", LAPIC,
                    "(get_random_u64() | 2) & ~KVM_LAZY_TSCDEADLINE_ACTIVE",
                    "(get_random_u64() | 2) | KVM_LAZY_TSCDEADLINE_ACTIVE", "park"),
    "resume": ("RESUME", X86, "	kvm_lazy_tscd_resume(vcpu);\n", "", "park"),
    "resume_token": ("RESUME: another token turns the feature off", LAPIC,
                     " : vcpu->arch.lazy_tscd.host != area.host))", " : false))", "token"),
    "resume_unreadable": ("RESUME: a token out of reach turns it off", LAPIC,
                          "	     vcpu->arch.lazy_tscd.host > 2 :", "	     false :", "memslot"),
    "resume_torn": ("RESUME: an area that PARK could not write is one", LAPIC,
                    "	     vcpu->arch.lazy_tscd.host > 2 :", "	     true :", "memslot"),
    "resume_sync": ("RESUME: SYNC", LAPIC,
                    "	vcpu->arch.lazy_tscd.live = true;\n	kvm_lazy_tscd_sync(vcpu);\n",
                    "	vcpu->arch.lazy_tscd.live = true;\n", "save"),
    "resume_armed": ("RESUME: armed is the timer", LAPIC,
                     "lazy_tscd_write(vcpu, kvm_lazy_tscd_armed(vcpu->arch.apic),\n",
                     "lazy_tscd_write(vcpu, 0,\n", "park"),
    "resume_hlt": ("ACTIVE only where HLT exits", LAPIC, "kvm_hlt_in_guest(vcpu->kvm) ? 2 :",
                   "false ? 2 :", "hlt_runs"),
    "reset_init": ("RESET: INIT", LAPIC,
                   "	memset(&vcpu->arch.lazy_tscd, 0, sizeof(vcpu->arch.lazy_tscd));\n"
                   "	apic_update_ppr(apic);\n", "	apic_update_ppr(apic);\n", "init"),
    "reset_lapic": ("RESET: LAPIC state of another mode", LAPIC,
                    "	if (!apic_lvtt_tscdeadline(apic))\n" + RESET, "", "reset"),
    "reset_writes": ("RESET writes nothing", LAPIC,
                     "	if (!apic_lvtt_tscdeadline(apic))\n" + RESET,
                     "	if (!apic_lvtt_tscdeadline(apic)) {\n		lazy_tscd_write(vcpu, 0, 0);\n"
                     + RESET + "	}\n", "reset"),
    "clear_mode": ("CLEAR: another LVT mode", LAPIC,
                   "			apic->lapic_timer.tscdeadline = 0;\n			lazy_tscd_changed(apic);	/* CLEAR */\n",
                   "			apic->lapic_timer.tscdeadline = 0;\n", "clear"),
    "clear_spiv": ("CLEAR: APIC disabled by SPIV", LAPIC,
                   "			apic->vcpu->arch.lazy_tscd.tsc_moved = true;\n"
                   "			lazy_tscd_changed(apic);\n", "", "spiv"),
    "spiv_moves": ("the later deadline is not lost then", LAPIC,
                   "			apic->vcpu->arch.lazy_tscd.tsc_moved = true;\n", "", "spiv"),
    "clear_base": ("CLEAR: APIC disabled by its base", LAPIC,
                   "map_dirty, DIRTY);\n			lazy_tscd_changed(apic);	/* CLEAR */\n",
                   "map_dirty, DIRTY);\n", "spiv clear"),
    "armed_enabled": ("armed is 0 while the APIC is disabled", LAPIC,
                      "	return apic_enabled(apic) && apic_lvtt", "	return apic_lvtt", "spiv"),
    "armed_active": ("armed is 0 without a timer", LAPIC,
                     "(timer->hv_timer_in_use || hrtimer_active(&timer->timer)) ?", "true ?",
                     "masked kick"),
    "unreadable": ("an area that cannot be read: interrupt", LAPIC,
                   "#define LAZY_TSCD_UNREADABLE	1\n", "#define LAZY_TSCD_UNREADABLE	0\n", "memslot"),
    "unreadable_again": ("and again at the next halt", LAPIC,
                         " && pending != LAZY_TSCD_UNREADABLE &&\n", " &&\n", "memslot"),
    "stale": ("an area that could not be written is, later", LAPIC,
              "		__set_bit(KVM_APIC_LAZY_TSCD_STALE, &vcpu->arch.apic_attention);\n", "		;\n",
              "memslot_stale"),
    "tsc_offset": ("a TSC that jumps takes the timer with it", X86,
                   "	vcpu->arch.lazy_tscd.tsc_moved = true;\n", "", "tsc"),
    "tsc_delivered": ("what was delivered before may be wanted again", X86,
                      "	vcpu->arch.lazy_tscd.delivered = 0;\n", "", "tsc"),
    "tsc_restart": ("the timer is set anew then, if it is the same", LAPIC,
                    " && !vcpu->arch.lazy_tscd.tsc_moved)\n", ")\n", "tsc spiv"),
    "msr_reserved": ("the MSR's reserved bits", LAPIC,
                     "	if ((data & KVM_LAZY_TSCDEADLINE_RESERVED) ||\n", "	if (\n", "msr"),
    "msr_ram": ("the area is RAM", LAPIC, "	      kvm_gfn_to_hva_cache_init(vcpu->kvm, &area, ",
                "	      0 & kvm_gfn_to_hva_cache_init(vcpu->kvm, &area, ", "msr"),
    "msr_scribbles": ("a refused write changes nothing", LAPIC,
                      "	      kvm_gfn_to_hva_cache_init(vcpu->kvm, &area, ",
                      "	      kvm_gfn_to_hva_cache_init(vcpu->kvm, &vcpu->arch.lazy_tscd.area, ",
                      "msr"),
    "msr_moved": ("enabling takes no timer for granted", LAPIC,
                  "	vcpu->arch.lazy_tscd.tsc_moved = true;	/* maybe, since the timer was set */\n",
                  "", "tsc"),
    "msr_parks": ("a write of the MSR parks first", LAPIC, "	kvm_lazy_tscd_park(vcpu, true);\n", "",
                  "area"),
    "msr_word": ("and leaves a host word of 0", LAPIC, "off ? 0 :", "false ? 0 :", "area"),
    "msr_userspace": ("userspace's write of the MSR does not touch the area", LAPIC,
                      "	if (!host_initiated)\n		kvm_lazy_tscd_resume(vcpu);\n",
                      "	kvm_lazy_tscd_resume(vcpu);\n", "save"),
    "msr_offered": ("only where it is offered: write", X86,
                    f"		if (!{MASK} &&\n		    (data ||", "		if (false && (data ||", "no_feature"),
    "msr_offered_read": ("only where it is offered: read", X86,
                         f"		if (!{MASK} &&\n		    !msr_info", "		if (false && !msr_info",
                         "no_feature"),
    "msr_zero": ("a VMM may restore 0 where it is not", X86,
                 "		    (data || !msr_info->host_initiated))\n			return KVM_MSR_RET_UNSUPPORTED;\n"
                 "		return kvm_lazy",
                 "		    true)\n			return KVM_MSR_RET_UNSUPPORTED;\n		return kvm_lazy", "cpuid"),
    "msr_saved": ("the MSR is in KVM_GET_MSR_INDEX_LIST", X86, "	MSR_KVM_LAZY_TSCDEADLINE,\n", "",
                  "cpuid"),
    "cpuid_offer": ("the feature is offered", CPUID, "			     (1 << KVM_FEATURE_LAZY_TSCDEADLINE);",
                    "			     0;", "cpuid"),
    "cpuid_timer": ("not without the TSC-deadline timer", CPUID,
                    " || !guest_cpuid_has(vcpu, X86_FEATURE_TSC_DEADLINE_TIMER)", "", "cpuid"),
    "cpuid_lapic": ("not without a local APIC in KVM", CPUID,
                    "	if (!lapic_in_kernel(vcpu) || !guest", "	if (!guest", "cpuid"),
    "cpuid_shown": ("which the guest sees", CPUID, "			*eax &= vcpu->arch.pv_cpuid.features;\n", "",
                    "cpuid"),
    **{f"count_{name}": (f"the counter {name}", LAPIC if name in (
        "kick", "rearm", "cancelled", "timer_interrupt") else X86,
        f"++vcpu->stat.exit_counts.{name};" if name != "timer_interrupt" else
        "++apic->vcpu->stat.exit_counts.timer_interrupt;", ";", "counters update kick")
       for name in ("halt", "msr_write", "tsc_deadline", "icr", "hypercall", "kick", "rearm",
                    "cancelled", "halt_sync", "timer_interrupt")},
    "count_whole": ("only whole counters are written", X86,
                    "round_down(min_t(u64, size, sizeof(*counts)), sizeof(u64))",
                    "min_t(u64, size, sizeof(*counts))", "hypercall"),
    "count_size": ("no more than the buffer holds", X86, "min_t(u64, size, sizeof(*counts))",
                   "max_t(u64, 0, sizeof(*counts))", "hypercall"),
    "count_fault": ("a bad buffer is an error", X86,
                    "kvm_write_guest(vcpu->kvm, gpa, counts, len) ? -KVM_EFAULT : len",
                    "(kvm_write_guest(vcpu->kvm, gpa, counts, len), len)", "hypercall"),
    "look": ("a write in debugfs: SYNC", LAPIC,
             "	WRITE_ONCE(vcpu->arch.lazy_tscd.tsc_moved, true);\n", "", "debugfs"),
    "look_wakes": ("in a halted vCPU, too", LAPIC,
                   "	kvm_make_request(KVM_REQ_UNBLOCK, vcpu);\n	kvm_vcpu_kick(vcpu);\n",
                   "	kvm_vcpu_kick(vcpu);\n", "debugfs"),
    # What cannot be noticed in the emulated host: it has neither APICv nor TSC scaling, and
    # takes longer for an interrupt than the timer advance makes it early.
    "kick_expired": ("the timer advance waits for the deadline delivered", LAPIC,
                     "	ktimer->expired_tscdeadline = ktimer->tscdeadline;\n"
                     "	/* The advance", "	/* The advance", ""),
    "shortcut": ("no interrupt without a KICK under APICv", LAPIC,
                 "	if (apic_lvtt_tscdeadline(apic) && (vcpu->arch.lazy_tscd.msr_val &",
                 "	if (false && (vcpu->arch.lazy_tscd.msr_val &", ""),
    "tsc_scaled": ("a TSC that is scaled takes the timer with it", X86,
                   "...	kvm_lazy_tscd_tsc_moved(vcpu);\n", "", ""),
}
# Nor there, where KVM lets a VMM write 0 to any MSR that it knows of.
UNNOTICED = {"6.12": ("msr_zero",)}


def mutated(text, old, new, name):
    if old.startswith("..."):
        head, found, tail = text.rpartition(old[3:])
        times = 1 if found else 0
    else:
        head, found, tail = text.partition(old)
        times = text.count(old)
    if times != 1:
        raise ui.Fail(f"mutant {name}: its text is there {times} times")
    return head + new + tail


def build(kernel, names, place):
    """Modules of each mutant in place/NAME, where they stay for the next time."""
    modules.build(kernel, name="mutants")
    tree = BUILD / "modules/mutants/tree"
    packages = debs.get(kernel)
    headers = debs.headers(packages)
    series = modules.digest(packages, modules.patches(kernel))
    for name in names:
        _, file, old, new, _ = MUTANTS[name]
        key = f"{series} {(file, old, new)}"
        stamp = place / name / "stamp"
        if stamp.is_file() and stamp.read_text() == key:
            continue
        shutil.rmtree(place / name, ignore_errors=True)
        (place / name).mkdir(parents=True)
        source = tree / file
        whole = source.read_text()
        try:
            source.write_text(mutated(whole, old, new, name))
            modules.compile_tree(tree, headers, packages.version)
            for module in ("kvm", "kvm-amd", "kvm-intel"):
                shutil.copy(tree / "arch/x86/kvm" / f"{module}.ko", place / name)
        finally:
            source.write_text(whole)
        stamp.write_text(key)
        ui.say(f"built {name}")


SCRIPT = """
vendor=kvm-amd; grep -qw svm /proc/cpuinfo || vendor=kvm-intel
for name in {names}; do
	busybox rmmod $vendor kvm
	busybox insmod {place}/$name/kvm.ko && busybox insmod {place}/$name/$vendor.ko || exit 1
	tests=$(cat {place}/$name/tests)
	out=$SLOTH_SHARE/$name
	status=0
	[ -z "$tests" ] || {{ timeout -s KILL 120 {binary} $tests >$out 2>&1; status=$?; }}
	[ $status != 0 ] || {{ timeout -s KILL 400 {binary} >>$out 2>&1; status=$?; }}
	echo "status $status" >>$out
	echo "$name: $status"
done
"""


def run(kernel, names, place, binary):
    """{name: what the selftest said}. A host that dies is the catch of its mutant."""
    said = {}
    share = place / "share"
    shutil.rmtree(share, ignore_errors=True)
    share.mkdir()
    for name in names:
        (place / name / "tests").write_text(MUTANTS[name][4])
    left = list(names)
    while left:
        script = SCRIPT.format(names=" ".join(left), place=place, binary=binary)
        subprocess.run([ROOT / "sloth", "host", "--host=tcg", f"--kernel={kernel}",
                        f"--share={share}", f"--timeout={600 * len(left)}", "--", "sh", "-c",
                        script], stdout=subprocess.DEVNULL)
        for name in list(left):
            out = share / name
            if out.is_file():
                said[name] = out.read_text()
                left.remove(name)
        if left and left[0] not in said and not any(name in said for name in names):
            raise ui.Fail("the emulated host ran nothing")
    return said


def caught_by(text):
    failed = re.findall(r"^not ok \d+ (\w+)( timed out| was killed)?", text, re.M)
    if failed:
        return ", ".join(name + how for name, how in failed)
    if "status 4" in text:  # KSFT_SKIP
        return "all are skipped"
    return "" if "status 0" in text else "the host did not survive"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kernel")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    names = options.names or list(MUTANTS)
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        parser.error(f"no such mutant: {', '.join(unknown)}")
    if options.kernel:
        modules.check_series(options.kernel)
    options.kernel = options.kernel or modules.default_series()
    if options.list:
        for name in names:
            print(f"{name:20} {MUTANTS[name][0]}")
        return 0
    place = BUILD / "mutants" / options.kernel
    build(options.kernel, names, place)
    subprocess.run([ROOT / "tests/selftest/build.sh", BUILD / "modules/mutants/series", place,
                    "x86_64/lazy_tscdeadline_test"], check=True)
    said = run(options.kernel, names, place, place / "lazy_tscdeadline_test")
    away = 0
    for name in names:
        rule, *_, tests = MUTANTS[name]
        if name in UNNOTICED.get(options.kernel, ()):
            tests = ""
        by = caught_by(said[name])
        away += not by and bool(tests)
        print(f"| {name} | {rule} | {by or ('no' if tests else 'not noticeable here')} |")
    return 1 if away else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ui.Fail as fail:
        ui.say(str(fail))
        sys.exit(1)
