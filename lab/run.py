# SPDX-License-Identifier: MIT
"""./sloth run: build what is missing, boot the guest, collect its results."""

import os
import selectors
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from lab import (bochs, compare, host, output, probe, report, results, sweep, system, ui,
                 watch)
from lab.system import BUILD, ROOT
from lab.ui import Fail, Usage

IMAGE = BUILD / "sloth.elf"
LIMIT = 300  # seconds for RUNS runs, when --timeout does not say otherwise
RUNS = 24    # of a guest that is asked for nothing in particular
TRACED = 2   # times as long: the traces come over a serial line, too
RESULTS = BUILD / "results.jsonl"
REPORT = BUILD / "report"

# The guest's exit statuses (drivers/debug_exit.h), as QEMU passes them on.
SUCCESS, FAILED, PANIC, BAD_COMMAND_LINE = 33, 35, 37, 39


def make(target, text):
    with system.build_lock("guest"), ui.step(text):
        status, output = system.call(["make", "-C", ROOT, "--no-print-directory", "-s", target])
    if status != 0:
        errors = [line for line in output.splitlines() if "error" in line.lower()]
        raise Fail(f"make {target} failed: {(errors or output.splitlines() or ['?'])[0]}")


def check_storm(words):
    """The guest's own parser says whether it would take these words, and which runs they ask
    for: "workload/mode" each."""
    make("build/storm-args", "building the check of the storm options")
    status, output = system.call([BUILD / "storm-args", *words], limit=10)
    if status == 2:
        raise Usage(output.strip().removeprefix("sloth: "))
    if status != 0:
        raise Fail(f"the check of the storm options failed: {output.strip()}")
    return output.split()


def build_guest():
    make("all", "building the guest")


def cpus(words):
    """How many the guest wants; without cpus= some workloads can use two."""
    given = [word.partition("=")[2] for word in words if word.startswith("cpus=")]
    return given[-1] if given else "2"


def guest_command(words, label, image=IMAGE):
    """The command that runs the guest on the KVM of wherever it is started."""
    line = [*words] if any(word.startswith("host=") for word in words) else \
        [*words, f"host={label}"]
    return ["qemu-system-x86_64", "-name", "sloth-guest", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-accel", "kvm", "-cpu", "host,migratable=off",
            "-smp", cpus(words), "-m", "64", "-kernel", str(image), "-append", " ".join(line),
            "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]


def guests_command(guests, label, watched):
    """The command that runs guests one after the other, until one fails; watched: their host is
    asked what it has counted and seen."""
    commands = [guest_command(guest.words, label) for guest in guests]
    if watched:
        commands = [watch.command(command, guest.words)
                    for command, guest in zip(commands, guests)]
    if len(guests) == 1:
        return commands[0]
    lines = [f"echo {shlex.quote(output.MARK)}{number}\n"
             f"{shlex.join(str(word) for word in command)}\n"
             f"status=$?; [ $status = {SUCCESS} ] || exit $status\n"
             for number, command in enumerate(commands)]
    return ["/bin/sh", "-c", "".join(lines) + f"exit {SUCCESS}"]


def firmware(loader="multiboot_dma.bin"):
    """What QEMU reads from this machine to run the guest. loader: what starts the kernel."""
    found = []
    for name in ("bios-256k.bin", "kvmvapic.bin", loader):
        paths = [path for path in (Path("/usr/share/qemu", name), Path("/usr/share/seabios", name))
                 if path.is_file()]
        if not paths:
            raise Fail(f"QEMU's {name} is not installed")
        found.append(paths[0])
    return found


def run_here(argv, serial, limit, stderr=None):
    """The guest on this machine's own KVM. Its status; TimeLimit when it is late."""
    process = system.spawn(argv, stdout=subprocess.PIPE, stderr=stderr or subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise host.TimeLimit(limit, "running the guest")
                if not selector.select(left):
                    continue
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    return process.wait(max(1, deadline - time.monotonic()))
                serial.write(data)
    finally:
        system.kill(process)
        process.stdout.close()


def quote_last(serial):
    for line in serial.last():
        ui.say("| " + line)


def verdict(status, serial):
    """The guest's exit status to ours; says what happened where it is not success."""
    if status == SUCCESS:
        if serial.error:
            raise serial.error
        if not serial.rows:
            raise Fail("the guest ended well, but printed no result")
        return 0
    if status == BAD_COMMAND_LINE:
        raise Usage(next((line for line in reversed(serial.lines) if line.strip()),
                         "the guest refused its command line"))
    reasons = {FAILED: "the guest's own checks failed", PANIC: "the guest panicked"}
    ui.say(f"{reasons.get(status, f'the emulator of the guest ended with status {status}')};"
           " the last lines on its serial line:")
    quote_last(serial)
    return 1


def cross_check(serial):
    """1 where those who count do not agree."""
    wrong = 0
    for guest in watch.guests(serial.watched):
        said, problems = watch.check(guest)
        for problem in problems:
            ui.say(f"cross-check: {problem}")
        if said and not problems:
            ui.tell(f"cross-check: {said} agree")
        wrong |= bool(problems)
    if wrong:
        ui.say("FAILED: the counts do not agree")
    return int(wrong)


def run_guests(guests, where, options, serial, errors, limit):
    """All of them, until one fails; the status of the last."""
    if where == "direct":
        return run_here(guests_command(guests, "direct", False), serial, limit)
    if where != "bochs":
        machine = host.Host(options.kernel, options.stock, where, options.kvm_arg)
        status = machine.run(guests_command(guests, machine.label, True), stdout=serial,
                             stderr=errors, limit=limit, directory=ROOT, again=serial.clear)
        if machine.complaints:
            raise Fail("the emulated host's kernel complained while the guest ran")
        return status
    for number, guest in enumerate(guests):     # in Bochs' host there is QEMU, and no more
        serial.text(f"{output.MARK}{number}")
        machine = bochs.Host(options.kernel, options.stock, options.kvm_arg)
        status = machine.run(guest_command(guest.words, machine.label),
                             files=[IMAGE, *firmware()], stdout=serial, stderr=errors, limit=limit)
        if machine.complaints:
            raise Fail("the emulated host's kernel complained while the guest ran")
        if status != SUCCESS:
            break
    return status


def keep(options, serial, complete):
    """What was measured, all of it or not: the files, and what standard output shall have.
    False if the report failed; the rest is there all the same."""
    system.write_atomically(BUILD / "serial.log", "".join(l + "\n" for l in serial.lines))
    rows = serial.rows
    if not rows:
        return True
    system.write_atomically(RESULTS, results.as_text(rows))
    where = ""
    try:
        with open(watch.TRACE if watch.TRACE.is_file() else os.devnull, encoding="utf-8") as trace:
            page = report.write(rows, REPORT, options.words, trace)
        where = f", report in {page.relative_to(ROOT)}"
    except Fail as fail:
        ui.say(str(fail))
    if options.json:
        print(results.as_text(rows), end="", flush=True)
    elif options.quiet:
        print(RESULTS.relative_to(ROOT), flush=True)
    elif not complete or rows[-1]["repeat"] > 1:
        print("\n" + "\n".join(compare.medians(rows)), flush=True)
    ui.tell(f"{len(rows)} run{'s' * (len(rows) > 1)} in {RESULTS.relative_to(ROOT)}{where}")
    return bool(where)


def storm(options):
    ui.quiet = options.quiet
    guests = sweep.guests(options.storm, options.sweep, options.repeat)
    plan = [name for guest in guests for name in check_storm(guest.words)]
    build_guest()
    where = probe.choose(options)
    usual = bochs.LIMIT if where == "bochs" else LIMIT
    if any(word.startswith("trace=") for word in options.words):
        usual *= TRACED
    limit = options.timeout or usual * max(1, len(plan) / RUNS)
    if options.stock:
        plan = [name for name in plan if not name.endswith("/lazy")]
    progress = output.Progress(plan, output.durations(RESULTS))
    errors = output.Screen(2)
    serial = output.Storm(guests, progress,
                          None if options.json or options.quiet else output.Screen(1))
    for old in (RESULTS, watch.TRACE):
        old.unlink(missing_ok=True)
    shutil.rmtree(REPORT, ignore_errors=True)
    complete = False
    try:
        status = run_guests(guests, where, options, serial, errors, limit)
        serial.finish()
        code = verdict(status, serial) or cross_check(serial)
        complete = True
    except host.TimeLimit as late:
        serial.finish()
        ui.say(f"the guest was still running after {limit:g} s (--timeout); the last lines on its"
               " serial line:")
        quote_last(serial)
        if late.alive:
            ui.say(late.alive)
        code = 1
    finally:
        serial.finish()
        errors.finish()
        try:
            watch.write_trace(serial.watched)
        except Fail as fail:
            if complete:
                raise
            ui.say(f"no trace: {fail}")
        reported = keep(options, serial, complete)
    return code if reported else code or 1
