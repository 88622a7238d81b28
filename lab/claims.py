# SPDX-License-Identifier: MIT
"""./sloth claims FILE...: what the protocol is said to save, against results files.

Each claim is about one workload on one number of CPUs, lazy against eager of the same
file; of several runs the medians are taken. Published, for netperf's TCP_RR: per message
98.0 % fewer writes, 58 % fewer exits."""

import statistics

from lab import compare, ui


class Runs:
    """The rows of one workload on so many CPUs, by mode."""

    def __init__(self, modes):
        self.modes = modes

    def median(self, mode, figure):
        values = [value for value in map(figure, self.modes[mode]) if value is not None]
        return statistics.median(values) if values else None

    def exits(self, mode, *kinds):
        """Per operation, these kinds together."""
        return self.median(mode, lambda row: None if row["exits"][kinds[0]] is None else
                           sum(row["exits"][kind] for kind in kinds) / row["ops"])


def fewer(runs, least, *kinds):
    """At least so large a share less than eager; (figure as text, passed)."""
    eager, lazy = (runs.exits(mode, *kinds) for mode in ("eager", "lazy"))
    share = 1 - lazy / eager if eager else 0
    return f"{share:.2%} fewer ({eager:.4f} -> {lazy:.4f} per op)", share >= least


def below(runs, kind):
    eager, lazy = (runs.exits(mode, kind) for mode in ("eager", "lazy"))
    return f"{eager:.4f} -> {lazy:.4f} per op", lazy < eager


def own(runs, mode):
    """Exits without those by interrupts of the host, which are the machine's: (own, others')."""
    host = runs.exits(mode, "external_interrupt")
    return runs.exits(mode, "exits") - host, host


def no_more(runs, most):
    (eager, one), (lazy, other) = (own(runs, mode) for mode in ("eager", "lazy"))
    return (f"{eager:.4f} -> {lazy:.4f} per op, and {one:.4f} -> {other:.4f} by the host's interrupts",
            lazy <= most * eager)


def per_op(runs, most):
    lazy, host = own(runs, "lazy")
    return f"{lazy:.4f} per sleep, and {host:.4f} by the host's interrupts", lazy <= most


def expirations(runs):
    """Each time that the host's timer fires. In eager that is a timer interrupt, in lazy a
    kick. Where it does so by the preemption timer, these exits are no more either."""
    eager, lazy = runs.exits("eager", "timer_interrupt"), runs.exits("lazy", "kick")
    one, other = (runs.exits(mode, "preemption_timer") for mode in ("eager", "lazy"))
    return (f"{eager:.4f} -> {lazy:.4f} per op; preemption timer {one:.4f} -> {other:.4f}",
            lazy <= eager and other <= one)


def lateness(runs):
    eager, lazy = (runs.median(mode, lambda row: row["late_ns"]["p99"]) for mode in
                   ("eager", "lazy"))
    if eager is None or lazy is None:
        return "no timer was due", None
    return f"{eager / 1000:,.1f} -> {lazy / 1000:,.1f} us", lazy <= 1.1 * eager


def sound(runs):
    rows = [row for rows in runs.modes.values() for row in rows]
    lost, early = (sum(row[name] for row in rows) for name in ("lost", "early"))
    return f"{lost} lost, {early} early", lost == early == 0


def absorbed(runs):
    lazy = runs.exits("lazy", "rearm", "cancelled")
    rearm = runs.median("rearm", lambda row: row["spurious"] / row["ops"]) \
        if "rearm" in runs.modes else None
    text = "-" if rearm is None else f"{rearm:.4f}"
    return f"{lazy:.4f} per op by the host; in mode rearm {text} by the guest", None


# Workloads (None: each), the claim, how it is looked at. A claim that ends with a colon is
# a figure only.
CLAIMS = (
    (None, "no timer is lost or early", sound),
    (("rearm", "cancel"), "99.9 % fewer tsc-deadline exits",
     lambda runs: fewer(runs, 0.999, "tsc_deadline")),
    (("tcp_rr",), "98 % fewer tsc-deadline exits",
     lambda runs: fewer(runs, 0.98, "tsc_deadline")),
    (("tcp_rr",), "58 % fewer exits", lambda runs: fewer(runs, 0.58, "exits")),
    (("tcp_rr",), "fewer timer interrupts than eager",
     lambda runs: below(runs, "timer_interrupt")),
    (("tcp_rr",), "the host's timer fires no more often than eager's", expirations),
    (("sleep", "idle"), "at most 1.05 exits for each sleep", lambda runs: per_op(runs, 1.05)),
    (("earlier",), "at most 1 % more exits than eager",
     lambda runs: no_more(runs, 1.01)),
    (None, "lateness p99 at most 10 % above eager's", lateness),
    (None, "needless interrupts absorbed:", absorbed),
)


def load(paths):
    """{(workload, cpus): Runs} of those that have both modes and the host's counts. Rows of a
    sweep are left out: they are of the same workload with other numbers."""
    found = {}
    for path in paths:
        for (workload, mode, cpus, *_), rows in compare.load(path).items():
            rows = [row for row in rows if row["exits"]["source"] == "host" and "sweep" not in row]
            found.setdefault((workload, cpus), {}).setdefault(mode, []).extend(rows)
    return {key: Runs(modes) for key, modes in found.items()
            if modes.get("eager") and modes.get("lazy")}


def check(found):
    """Yields (workload, cpus, claim, figure, passed); passed is None for a mere figure."""
    for workloads, claim, look in CLAIMS:
        for (workload, cpus), runs in found.items():
            if workloads is None or workload in workloads:
                yield workload, cpus, claim, *look(runs)


def command(options):
    found = load(options.files)
    if not found:
        raise ui.Usage("no workload ran in the modes eager and lazy with the host's counts")
    failed = 0
    last = None
    for workload, cpus, claim, figure, passed in check(found):
        if claim != last:
            print(claim)
            last = claim
        failed += passed is False
        verdict = {True: "pass", False: "FAIL", None: ""}[passed]
        print(f"  {verdict:<5} {workload:<8} {cpus:>2} CPU{'s' if cpus > 1 else ' '}  {figure}")
    ui.say(f"{failed} failed" if failed else "all claims hold")
    return 1 if failed else 0
