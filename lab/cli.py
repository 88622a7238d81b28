# SPDX-License-Identifier: MIT
"""The command line."""

import argparse
import os
import sys

from lab import linux, modules, sweep, system, testing, ui
from lab.ui import Fail, Usage

HOSTS = ("auto", "direct", "kvm", "tcg", "bochs")


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line and status 2 by way of Usage."""

    def error(self, message):
        raise Usage(f"{message} (try: ./sloth {self.prog.split()[-1]} --help)"
                    if " " in self.prog else message)


def seconds(text):
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


def between(low, high):
    """A whole number of that range, for argparse."""

    def number(text):
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low:,} to"
                                             f" {high:,}")
        return int(text)

    return number


def parser():
    top = Parser(prog="./sloth", description="A guest kernel and a patched KVM host for the lazy"
                 " TSC-deadline protocol.", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True,
                                  parser_class=Parser)

    def kernel(sub, default="the first of them that this Debian has"):
        sub.add_argument("--kernel", metavar="SERIES", help="the host's kernel:"
                         f" {' or '.join(modules.series_available())} (default: {default})")

    def common(sub, hosts):
        sub.add_argument("--stock", action="store_true",
                         help="the distribution's own KVM, without the patches")
        kernel(sub)
        sub.add_argument("--host", default="auto", choices=hosts,
                         help="where the host runs (default auto: the first that works)")
        sub.add_argument("--timeout", type=seconds, metavar="SECONDS",
                         help="time limit, from when the host is up")
        sub.add_argument("--kvm-arg", action="append", default=[], metavar="MODULE.NAME=VALUE",
                         help="an option for a KVM module")

    run = commands.add_parser("run", allow_abbrev=False, help="boot the guest on a patched host,"
                              " run the timer storm, print the exit table")
    common(run, HOSTS)
    run.add_argument("--sweep", type=sweep.parse, default=[], metavar="NAME,..", help="run it for"
                     f" several values as well: {', '.join(sweep.SWEEPS)} or all")
    run.add_argument("--repeat", type=between(1, 1000), metavar="N", help="run everything N times"
                     " in the same boot, and print medians and spread")
    output = run.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the rows of"
                        " build/results.jsonl, and nothing else")
    output.add_argument("--quiet", action="store_true", help="print the path of the results, and"
                        " errors")
    run.add_argument("storm", nargs="*", metavar="name=value", help="storm options, as on the"
                     " guest's command line: storm= mode= ops= timers= ...")

    host = commands.add_parser("host", allow_abbrev=False, help="a command, or a shell, inside the"
                               " patched host")
    common(host, ("auto", "kvm", "tcg"))
    host.add_argument("--share", metavar="DIR", help="a directory that the command may write to,"
                      " as $SLOTH_SHARE")
    host.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD",
                      help="the command (default: a shell)")

    test = commands.add_parser("test", allow_abbrev=False, help="every test")
    kernel(test, default="each where it belongs")
    test.add_argument("--fast", action="store_true", help="without those that boot the host")
    for name, what in testing.EXTRAS.items():
        test.add_argument(f"--{name}", dest="extras", action="append_const", const=name,
                          default=[], help=f"also {what}")
    test.add_argument("pytest", nargs=argparse.REMAINDER, metavar="-- ...",
                      help="options for pytest, and which of tests/... (default: all)")

    bench = commands.add_parser("bench", allow_abbrev=False, help="the timer wheel beside its"
                                " peers")
    bench.add_argument("--json", metavar="FILE", help="write the rows to FILE, one JSON object"
                       " a line")
    bench.add_argument("--rounds", type=between(1, 101), default=5, metavar="N",
                       help="rounds to take the median of (default 5)")
    bench.add_argument("--timers", type=between(1, 10_000_000), action="append", metavar="N",
                       help="measure with N timers instead of 1,000, 100,000 and 1,000,000")

    claims = commands.add_parser("claims", allow_abbrev=False, help="what the protocol is said"
                                 " to save, checked against results files")
    claims.add_argument("files", nargs="+", metavar="FILE.jsonl")

    conform = commands.add_parser("conform", allow_abbrev=False, help="what guest and host have"
                                  " traced (./sloth run trace=N), replayed against the rules of the"
                                  " protocol's model")
    conform.add_argument("files", nargs="*", metavar="TRACE.jsonl", help="(default"
                         " build/trace.jsonl)")

    linux = commands.add_parser("linux", allow_abbrev=False, help="a Debian Linux as the guest on"
                                " the patched host, eager and lazy by turns: exits per transaction")
    kernel(linux)
    linux.set_defaults(stock=False)
    linux.add_argument("--host", default="auto", choices=("auto", "kvm", "tcg", "bochs"),
                       help="where the host runs (default auto: kvm or tcg, the first that works)")
    linux.add_argument("--guest", default="module", choices=("module", "patched"), help="Debian's"
                       " kernel with the module, or a small one that is compiled with the guest's"
                       " series first (default module)")
    linux.add_argument("--cpus", type=between(1, 16), default=2, metavar="N",
                       help="of the guest (default 2)")
    linux.add_argument("--mode", default="eager,lazy", metavar="LIST", help="out of eager, lazy,"
                       " and lazy in part: set (no deadline is left to a halt), defer (none is kept"
                       " in brief idle times) (default eager,lazy)")
    linux.add_argument("--workload", default="tcp,hackbench,cyclictest", metavar="LIST",
                       help="out of tcp, hackbench, cyclictest; timers (the kernel's selftests of"
                       " timers, which take nine minutes of the guest's time in each mode);"
                       " and, under load, what only must not fail: modules (the module"
                       " loaded and unloaded), hotplug (a CPU taken off and on), suspend (to"
                       " idle), kexec (into the same kernel, once a round) (default the first"
                       " three)")
    linux.add_argument("--tick", default="retain", choices=("retain", "stop"), help="what the"
                       " guest's kernel does with its tick when a CPU becomes idle: retain it for"
                       " a while, as it does by itself, or stop it at once, as it did until 2026"
                       " (default retain)")
    linux.add_argument("--time", type=between(1, 3600), default=2, metavar="SECONDS",
                       help="for each measurement, of the guest's time (default 2)")
    linux.add_argument("--slow", type=between(1, 10), metavar="N", help="the guest's clock runs so"
                       " many times slower than the host's (default 10 with tcg, 8 with bochs,"
                       " else 1)")
    linux.add_argument("--rounds", type=between(1, 100), default=3, metavar="N",
                       help="to take the median of (default 3)")
    linux.add_argument("--times", type=between(1, 100000), default=200, metavar="N",
                       help="for modules, hotplug and suspend (default 200)")
    linux.add_argument("--timeout", type=seconds, metavar="SECONDS", help="time limit for all of"
                       " it, from when the host is up (default 1800)")
    linux.add_argument("--kvm-arg", action="append", default=[], metavar="MODULE.NAME=VALUE",
                       help="an option for a KVM module")

    compare = commands.add_parser("compare", allow_abbrev=False, help="two results files side by"
                                  " side: medians, spread and change")
    compare.add_argument("first", metavar="A.jsonl")
    compare.add_argument("second", metavar="B.jsonl")

    build = commands.add_parser("build-modules", allow_abbrev=False, help="build the patched KVM"
                                " modules and print the directory they are in")
    kernel(build)
    commands.add_parser("host-package", allow_abbrev=False, help="make the Debian package that"
                        " puts the patched KVM on a real host (DKMS), and print its path")
    return top


def command_conform(options):
    from lab import conform
    return conform.command(options)


def command_claims(options):
    from lab import claims
    return claims.command(options)


def after_dashes(words, command):
    """`-- CMD`; without the dashes it could be a mistyped option."""
    if not words:
        return []
    if words[0] == "--":
        return words[1:]
    if words[0].startswith("-"):
        raise Usage(f"{words[0]}: no such option of ./sloth {command}")
    return words


def command_host(options):
    from lab import host, probe
    argv = after_dashes(options.argv, "host")
    terminal = os.isatty(0) and os.isatty(1)
    if not argv:
        shell = os.environ.get("SHELL", "/bin/sh")
        argv = [shell if os.access(shell, os.X_OK) else "/bin/sh"]
    if options.share and not os.path.isdir(options.share):
        raise Usage(f"--share={options.share}: not a directory")
    accel = probe.host_accel(options)
    machine = host.Host(options.kernel, options.stock, accel, options.kvm_arg)
    if terminal:
        machine.prepare()
        ui.say(f"starting the host; Ctrl-] ends it, and what was written in it is dropped")
    return machine.run(argv, stdin=host.forwarded_stdin(), terminal=terminal,
                       limit=options.timeout,
                       share=options.share and os.path.abspath(options.share))


def command_run(options):
    from lab import run
    return run.storm(options)


def command_test(options):
    return testing.run_tests(options.fast, options.extras, options.kernel,
                             after_dashes(options.pytest, "test"))


def command_bench(options):
    from lab import bench
    return bench.command(options)


def command_linux(options):
    return linux.command(options)


def command_compare(options):
    from lab import compare
    return compare.command(options)


def command_build_modules(options):
    print(modules.build(options.kernel or modules.default_series()))
    return 0


def command_host_package(_options):
    from lab import package
    print(package.make())
    return 0


def parse(words):
    """argparse takes words and options in one order only; run takes them in any."""
    options, rest = parser().parse_known_args(words)
    options.words = words[1:]
    if options.command == "run" and not any(word.startswith("-") for word in rest):
        options.storm += rest
    elif rest:
        raise Usage(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "linux":
        linux.check(options)
    return options


def main(words):
    system.stop_on_signals()
    only_check = words[:1] == ["--check"]  # ./sloth asks this way before it installs packages
    try:
        if only_check:
            words = words[1:]
        options = parse(words)
        if getattr(options, "kernel", None) is not None:
            modules.check_series(options.kernel)
        extras = getattr(options, "extras", [])
        if extras and options.fast:
            raise Usage(f"--fast leaves out what --{extras[0]} adds")
        if only_check:
            with_bochs = getattr(options, "host", "") == "bochs" or "bochs" in extras
            with_kernel = "debug-host" in extras or getattr(options, "guest", "") == "patched"
            return 100 + with_bochs + 2 * with_kernel
        commands = {"run": command_run, "host": command_host, "test": command_test,
                    "bench": command_bench, "compare": command_compare,
                    "claims": command_claims, "conform": command_conform, "linux": command_linux,
                    "build-modules": command_build_modules,
                    "host-package": command_host_package}
        return commands[options.command](options)
    except Fail as fail:
        ui.say(str(fail))
        return fail.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except system.Stopped as stopped:
        sys.stderr.write("\n")
        ui.say("stopped")
        return 128 + stopped.number
