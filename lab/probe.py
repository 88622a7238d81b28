# SPDX-License-Identifier: MIT
"""--host=auto: which of direct, kvm and tcg works here, and why not the others.

That /dev/kvm can be opened proves nothing, so an ordinary guest (ours, a storm of a
few sleeps) has to run on it, within seconds. A machine on which it does not is not
asked again until it is booted again."""

import json
import os
from pathlib import Path

from lab import host, results, run, system, ui
from lab.system import BUILD
from lab.ui import Fail, Usage

LIMIT = 10  # seconds for the ordinary guest
NOTE = BUILD / "probe.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def try_guest():
    """(reason it does not run, or None; whether the feature is offered)."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"/dev/kvm cannot be opened ({error.strerror})", False
    boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
    if boot and NOTE.is_file():
        try:
            note = json.loads(NOTE.read_text())
            if note["boot"] == boot:
                return note["reason"], False
        except (ValueError, KeyError):
            pass
    run.build_guest()
    serial = results.Serial()
    log = BUILD / "probe.log"
    reason = None
    with ui.step("trying this machine's KVM"), open(log, "wb") as errors:
        try:
            status = run.run_here(run.guest_command(["storm=sleep", "ops=20"], "direct"), serial,
                                  LIMIT, errors)
            if status != run.SUCCESS:
                said = log.read_text(errors="replace").strip().splitlines()
                reason = (f"an ordinary guest ends with status {status} on this machine's KVM"
                          + (f" ({said[0]})" if said else ""))
        except host.TimeLimit:
            reason = f"an ordinary guest does not run on this machine's KVM ({LIMIT} s went by)"
    if reason:
        system.write_atomically(NOTE, json.dumps({"boot": boot, "reason": reason}))
    return reason, any(row["mode"] == "lazy" for row in serial.rows)


def nested():
    """Whether this machine's KVM gives guests virtualisation; (yes, why not)."""
    for name in ("kvm_intel", "kvm_amd"):
        parameter = Path(f"/sys/module/{name}/parameters/nested")
        if parameter.is_file():
            if parameter.read_text().strip() in ("1", "Y"):
                return True, ""
            return False, f"nested virtualisation is off ({parameter})"
    return False, "no kvm_intel or kvm_amd module here says that it offers nesting"


def boots(options):
    """Whether the patched host comes up under this machine's KVM."""
    try:
        machine = host.Host(options.kernel, options.stock, "kvm", options.kvm_arg)
        if machine.run(["test", "-c", "/dev/kvm"], limit=30) == 0:
            return None
        return "in a host nested in this machine's KVM there is no /dev/kvm"
    except Fail as fail:
        return f"the host nested in this machine's KVM fails ({fail})"


def auto(options, may_direct):
    reason, offered = try_guest()
    if reason is None and offered and may_direct and not options.stock:
        ui.tell("--host=auto: direct: this machine's KVM offers the lazy deadline")
        return "direct"
    if reason is None:
        possible, reason = nested()
        reason = boots(options) if possible else reason
        if reason is None:
            ui.tell("--host=auto: kvm: the host runs nested in this machine's KVM")
            return "kvm"
    ui.tell(f"--host=auto: tcg, software emulation: {reason}")
    return "tcg"


def choose(options):
    """Where the guest of `./sloth run` runs."""
    if options.host == "direct" and options.stock:
        raise Usage("--stock: needs a host of its own, --host=direct has none")
    if options.host == "direct" and options.kvm_arg:
        raise Usage("--kvm-arg: needs a host of its own, --host=direct has none")
    if options.host == "direct" and options.kernel:
        raise Usage("--kernel: needs a host of its own, --host=direct has none")
    return options.host if options.host != "auto" else auto(options, may_direct=not options.kernel)


def host_accel(options):
    """Where the host of `./sloth host` runs."""
    return options.host if options.host != "auto" else auto(options, may_direct=False)
