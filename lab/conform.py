# SPDX-License-Identifier: MIT
"""./sloth conform: replays what guest and host wrote down of a run (build/trace.jsonl) against
the rules of the protocol's model. docs/conformance.md says what follows from an event, and
what cannot be seen.

Variables and rules have the names that they have in model/*.pml."""

import collections
import json
import re

from lab import watch
from lab.ui import Usage

KEYS = {"run", "number", "source", "cpu", "event", "tsc", "ns", "armed_tsc", "pending_tsc", "value"}
VECTOR_TIMER = 0x40         # arch/x86/trap.h
MSR_LAZY = 0x4b564d09
ACTIVE, ENABLE = 1, 1
ADVANCE_NS = 5000           # LAPIC_TIMER_ADVANCE_NS_MAX: so much before its deadline KVM may fire
LATE_NS = 100_000           # so much later than its deadline no hrtimer is started
STARTS = 16                 # of a run's hrtimers are looked at to learn how their clock goes
AROUND = 14                 # events shown before a step that is not allowed

# The rules, in the order of the summary: name, and what it is called in docs/protocol.md.
RULES = {
    # model/guest.pml
    "lazy_enable": "enable", "lazy_disable": "disable", "lazy_set": "set, no exit",
    "lazy_set: need": "set, WRMSR", "lazy_cancel": "cancel", "lazy_defer": "defer, no exit",
    "lazy_defer: need": "defer, as set", "lazy_commit": "commit",
    "timer_interrupt": "the timer's interrupt", "vmexit(hlt)": "HLT",
    "eager": "WRMSR at each change", "rearm": "WRMSR if earlier",
    # model/kvm.pml
    "VM-entry": "", "VM-exit": "", "set_deadline": "UPDATE", "timer fires": "the host's timer",
    "kick: interrupt": "KICK, interrupt", "kick: later": "KICK, re-armed",
    "kick: none": "KICK, cancelled", "kick: off": "the same, protocol off",
    "publish": "armed is written", "sync: kept": "SYNC, the timer stays",
    "sync: set": "SYNC, the timer is set", "sync: stopped": "SYNC, the timer is stopped",
    "sync: past": "SYNC, at once", "halt: sync": "HALT", "rdmsr: sync": "READ",
    "park": "PARK", "park: off": "PARK, the feature goes off", "resume": "RESUME",
    "resume: another memory": "RESUME, the feature goes off", "set_msr": "the MSR is written",
    "timer moves": "KVM takes its timer to another CPU",
    # model/vmm.pml, model/lazy.pml
    "userspace: deadline": "the VMM writes IA32_TSC_DEADLINE",
    "check_armed": "what must hold, 2", "check_timer": "what must hold, 1",
}


class Violation(Exception):
    """A step that the model does not allow."""

    def __init__(self, rule, why):
        super().__init__(why)
        self.rule = rule


def when(tsc):
    return f"{tsc:#x}" if tsc else "none"


class Clock:
    """Of a run: cycles and nanoseconds, and the clock of the host's timers."""

    def __init__(self, first):
        self.first, self.cycles, self.ns = first, 0, 0
        self.starts = []

    def see(self, event):
        if event["ns"] > self.ns:
            self.cycles, self.ns = event["tsc"] - self.first, event["ns"]

    def nanoseconds(self, cycles):
        return cycles * self.ns / self.cycles if self.cycles else 0

    def late(self, event, deadline):
        """How much later than the deadline an hrtimer expires. Where it was started early, the
        thread had been interrupted between reading the two clocks: hence the median."""
        distance = event["value"] - event["ns"] - self.nanoseconds(deadline - event["tsc"])
        if len(self.starts) < STARTS:
            self.starts.append(distance)
            return 0
        return distance - sorted(self.starts)[STARTS // 2]


class Vcpu:
    """A vCPU, its area, its guest's CPU: the variables of the model that the events settle.
    Each event is one step, or a part of one; what it says has to be what the model has."""

    def __init__(self, mode, number, clock, taken, tokens):
        self.mode, self.number, self.clock, self.taken = mode, number, clock, taken
        self.tokens = tokens        # of all PARKs of all vCPUs: none is there twice
        self.lazy = mode == "lazy"
        self.started = self.done = False
        # The guest: guest.pml.
        self.steps = getattr(self, f"guest_{mode}")()
        next(self.steps)
        self.operation = ""         # what the guest is doing, or ""
        self.before = ""            # what it did before
        self.idle = None            # idle_enter() is not seen: known from a defer or a commit on
        self.window = False         # between defer and HALT or commit
        self.unsure = False         # whether `delivered` is
        self.on = False
        self.writing = None         # (MSR, value) of a WRMSR that is to come
        self.storing = None         # the store to pending that is to come, or has been made
        self.pending = 0            # area.pending
        self.injected = False       # the timer's interrupt, which the guest has not noted yet
        self.serving = False        # the same, up to the end of its handler
        self.belief = None          # eager, rearm: what the guest takes the timer to hold
        self.last = None
        # The area's words since the guest's last event: an exit may lie in between.
        self.armed, self.armed_seen = 0, [0]
        self.host_word, self.host_seen = 0, [0]
        # KVM: kvm.pml. None: not known yet.
        self.in_guest = None
        self.timer = None           # lapic_timer.tscdeadline
        self.running = self.fired = self.irr = None
        self.live = self.req = self.moved = False
        self.msr = self.token = self.delivered = 0
        self.halted = self.userspace = False
        # Where in KVM's code the thread is.
        self.reason = ""
        self.starting = False       # the timer was set, and has not been started yet
        self.racing = False         # it ran before, and may have expired meanwhile
        self.read = None            # (pending, when) that KVM has read and not used yet
        self.synced = self.halt_synced = self.updated = False
        self.overdue = False        # it had fired before the last VM-exit
        self.compared = False

    def take(self, rule):
        self.taken[rule] += 1

    # The guest: what it noted, in the order of its program.

    def guest(self, event):
        kind = event["event"]
        if kind == "full":          # the rest was not kept
            self.done = True
            return
        if not self.started:
            self.started, self.in_guest = True, True
        if not self.in_guest:
            raise Violation("in_guest", "the guest does something while its vCPU is out of guest"
                                        " mode")
        if self.writing:
            raise Violation("vmexit(wrmsr)", f"the guest's WRMSR of {self.writing[1]:#x} was no"
                                             " VM-exit")
        if self.injected and kind != "interrupt":
            raise Violation("timer_interrupt", f"{kind!r} where the timer's interrupt is due, which"
                                               " was injected")
        self.look(event)
        if not self.operation:      # the one before is over
            if self.irr is None and self.last and kind != "interrupt":
                self.irr = False    # what was left from before the run would have come
            self.check(event)
        try:
            self.steps.send(event)
        except StopIteration:
            self.done = True
        self.last = event

    def look(self, event):
        """What the guest has seen of the area."""
        if self.storing is not None:
            self.pending, self.storing = self.storing, None
        kind, value = event["event"], event["value"]
        if not self.lazy:
            armed = event["armed_tsc"] or 0
            if self.belief is not None and armed != self.belief and kind != "write":
                raise Violation(self.mode, f"the guest takes the timer for {when(armed)}, but it"
                                           f" set {when(self.belief)}")
            return
        if not self.on:
            return
        if (event["pending_tsc"] or 0) != self.pending:
            raise Violation("store_pending", f"`pending` is {when(event['pending_tsc'])}, the guest"
                                             f" has stored {when(self.pending)}")
        if self.last["event"] != "msr" and (self.last["armed_tsc"] or 0) not in self.armed_seen:
            raise Violation("publish", f"the guest saw `armed` as {when(self.last['armed_tsc'])};"
                                       f" KVM wrote {', '.join(map(when, self.armed_seen))}")
        if kind == "armed" and value not in self.armed_seen:
            raise Violation("load_armed", f"the guest loaded `armed` as {when(value)}; KVM wrote"
                                          f" {', '.join(map(when, self.armed_seen))}")
        if kind == "host" and value not in self.host_seen:
            raise Violation("load_host", f"the guest loaded `host` as {value:#x}; KVM wrote"
                                         f" {', '.join(map(hex, self.host_seen))}")
        self.armed_seen, self.host_seen = [self.armed], [self.host_word]

    def step(self, rule, kind, value=None):
        """The guest's next step has to be this one."""
        event = yield
        if event["event"] != kind:
            raise Violation(rule, f"the guest does {event['event']!r} where {kind!r} is due")
        if value is not None and event["value"] != value:
            raise Violation(rule, f"{kind!r} is of {when(event['value'])}, not of {when(value)}")
        if kind == "pending":
            self.storing = event["value"]
        elif kind in ("write", "msr"):
            self.writing = (kind, event["value"])
        return event

    def guest_lazy(self):
        event = yield from self.step("lazy_enable", "enable")
        while True:
            kind, value = event["event"], event["value"]
            self.operation = kind
            if kind == "enable":
                yield from self.step("lazy_enable", "write", value)
                first = yield from self.step("lazy_enable", "pending", value)
                if first["armed_tsc"]:
                    raise Violation("lazy_enable", "the area was not cleared")
                self.armed_seen, self.host_seen = [0], [0]
                self.armed = self.host_word = 0
                msr = yield from self.step("lazy_enable", "msr")
                if not msr["value"] & ENABLE:
                    raise Violation("lazy_enable", "the feature is not enabled")
                self.on = True
                self.take("lazy_enable")
            elif kind == "disable":
                if self.window:
                    raise Violation("lazy_commit", "the mode ends with a deferred deadline")
                yield from self.step("lazy_disable", "msr", 0)
                self.on = False
                self.take("lazy_disable")
            elif kind == "set":
                self.program(event)
                yield from self.lazy_set(value)
            elif kind == "cancel":
                yield from self.step("lazy_cancel", "pending", 0)
                self.window = False
                self.take("lazy_cancel")
            elif kind == "defer":
                yield from self.lazy_defer(value)
            elif kind == "commit":
                if self.pending:
                    yield from self.lazy_set(self.pending)
                self.idle = self.window = False
                self.take("lazy_commit")
            else:
                self.other(event)
            event = yield from self.next_operation(kind)

    def lazy_set(self, deadline):
        yield from self.step("lazy_set", "pending", deadline)
        armed = (yield from self.step("lazy_set", "armed"))["value"]
        need = not armed or deadline < armed
        if need:
            yield from self.step("lazy_set", "write", deadline)
        self.window = False
        self.take("lazy_set: need" if need else "lazy_set")

    def lazy_defer(self, deadline):
        self.idle = True
        yield from self.step("lazy_defer", "pending", deadline)
        self.window = True          # nobody looks at armed
        if (yield from self.step("lazy_defer", "host"))["value"] & ACTIVE:
            self.take("lazy_defer")
        else:
            self.take("lazy_defer: need")
            yield from self.lazy_set(deadline)

    def guest_eager(self):
        event = yield from self.step("eager", "enable")
        while True:
            kind = event["event"]
            self.operation = kind
            if kind in ("enable", "set", "defer"):
                self.belief = event["value"]
                yield from self.step("eager", "write", event["value"])
                self.take("eager")
            elif kind == "cancel":
                if self.belief:
                    self.belief = 0
                    yield from self.step("eager", "write", 0)
                self.take("eager")
            elif kind == "disable":
                return
            elif kind != "commit":
                self.other(event)
            event = yield from self.next_operation(kind)

    def guest_rearm(self):
        event = yield from self.step("rearm", "enable")
        while True:
            kind, value = event["event"], event["value"]
            self.operation = kind
            if kind in ("enable", "set", "defer"):
                if kind == "enable" or not self.belief or value < self.belief:
                    self.belief = value
                    yield from self.step("rearm", "write", value)
                self.take("rearm")
            elif kind == "disable":
                return
            elif kind not in ("cancel", "commit"):
                self.other(event)
            event = yield from self.next_operation(kind)

    def other(self, event):
        """What is the same in all modes."""
        kind = event["event"]
        if kind == "interrupt":
            if not self.injected:
                raise Violation("timer_interrupt", "an interrupt that KVM has not delivered")
            self.injected = False
            self.belief = None if self.belief is None else 0
            self.take("timer_interrupt")
        elif kind not in ("halt", "wake"):
            rule = f"lazy_{self.before}" if self.lazy else self.mode
            raise Violation(rule if rule in RULES else "guest",
                            f"the guest does {kind!r}, and {self.before!r} is over")

    def next_operation(self, kind):
        """The operation is over; an interrupt's is when the timer is programmed again."""
        self.before = kind
        if kind != "interrupt":
            if kind in ("set", "cancel", "defer"):
                self.serving = False
            self.operation = ""
            return (yield)
        event = yield
        if event["event"] not in ("set", "cancel", "defer"):
            raise Violation("timer_interrupt", "the interrupt ends and nothing is programmed")
        return event

    def program(self, event):
        """clockevent.c: what an idle CPU wants later, it defers."""
        if self.idle and event["value"] > event["tsc"]:
            raise Violation("lazy_commit", "an idle CPU sets a deadline that lies ahead: the idle"
                                           " loop was left without commit")

    @property
    def busy(self):
        return self.operation or self.storing is not None or self.writing or self.serving

    def check(self, event):
        """model/lazy.pml: what must hold whenever the guest runs and is not at it."""
        if self.timer is None or self.busy or self.irr is None:
            return
        if self.lazy:
            if not self.on:
                return
            armed, wanted = self.armed, 0 if self.window else self.pending
        else:
            armed, wanted = 0, self.belief
        self.take("check_armed")
        if armed and not self.fired and not (self.running and armed == self.timer):
            raise Violation("check_armed", f"armed without a timer: `armed` is {when(armed)}, KVM's"
                                           f" timer {self.timers()}")
        self.take("check_timer")
        if wanted and not self.irr and not self.fired and \
                not (self.running and self.timer <= wanted):
            raise Violation("check_timer", f"a deadline that nobody holds a timer for: the guest"
                                           f" wants {when(wanted)}, KVM's timer {self.timers()}")

    def timers(self):
        state = "" if self.running else ", and has fired" if self.fired else ", and off"
        return f"is for {when(self.timer)}{state}"

    # KVM: what its thread does, between VM-exit and VM-entry.

    def host(self, event):
        kind = event["event"]
        if not self.started or kind in IGNORED:
            return
        handler = getattr(self, "on_" + kind, None)
        if not handler:
            return
        if self.starting and kind not in ("hrtimer_start", "hrtimer_expire_entry"):
            self.not_started(event)
        if self.read and kind not in ("kvm_set_deadline", "kvm_apic_accept_irq",
                                      "hrtimer_expire_entry"):
            self.sync(event, None)
        handler(event, event["text"])

    def on_kvm_exit(self, event, text):
        if not self.in_guest:
            raise Violation("VM-exit", "a VM-exit of a vCPU that is not in guest mode")
        self.take("VM-exit")
        self.in_guest = False
        self.overdue = self.fired
        self.reason = re.search(r"reason (\S+)", text)[1].lower()
        self.synced = self.halt_synced = self.updated = False
        if self.reason == "hlt":
            self.take("vmexit(hlt)")
            self.halted = True
        if self.writing and self.writing[0] == "msr" and self.reason in ("msr", "msr_write"):
            self.pending_msr()

    def on_kvm_entry(self, event, _text):
        if self.in_guest:
            raise Violation("VM-entry", "a VM-entry of a vCPU that is in guest mode")
        self.take("VM-entry")
        if self.msr & ENABLE and not self.live:
            raise Violation("resume", "the vCPU runs, and KVM has not resumed the protocol")
        if self.live and self.req:
            raise Violation("publish", "the timer has changed, and `armed` was not written before"
                                       " the guest runs")
        if self.fired and self.overdue:
            raise Violation("kick", "the timer has fired, and the vCPU runs on")
        self.in_guest, self.halted, self.userspace, self.synced = True, False, False, False
        self.check(event)

    def on_kvm_set_deadline(self, event, _text):
        """set_deadline(): the one function that sets the timer."""
        value = event["value"]
        if self.in_guest:
            raise Violation("in_guest", "KVM sets the timer while its vCPU is in guest mode")
        if self.read:
            self.sync(event, value)
        elif self.writing == ("write", value):
            self.updated = True
            self.take("set_deadline")
        elif self.userspace and not self.live:
            self.take("userspace: deadline")
        else:
            asked = f"the guest writes {when(self.writing[1])}" if self.writing else "nobody asked"
            raise Violation("set_deadline", f"KVM sets its timer to {when(value)}; {asked}")
        self.racing = bool(self.running)
        self.timer, self.running, self.fired = value, False, False
        self.starting = True
        if value:
            self.delivered = 0
        self.moved = False
        self.req = self.req or self.live

    def not_started(self, event):
        """start_timer(), when no hrtimer was: it has expired already, or there is none."""
        self.starting = self.racing = False
        if not self.timer:
            return
        if self.clock.nanoseconds(self.timer - event["tsc"]) > ADVANCE_NS:
            raise Violation("start_timer", f"the timer is set to {when(self.timer)}, which lies"
                                           " ahead, and none is started")
        self.fired = True

    def on_hrtimer_start(self, event, _text):
        if self.starting:
            self.starting = self.racing = False
            if not self.timer:
                raise Violation("start_timer", "a timer is started, but none is wanted")
            late = self.clock.late(event, self.timer)
            if late > LATE_NS:
                raise Violation("start_timer", f"the timer is set to {when(self.timer)}, and"
                                               f" started for {late / 1000:,.0f} us after that")
            self.running = True
        elif self.running is False:
            raise Violation("start_timer", "a timer is started that nobody has set")
        else:
            self.take("timer moves")

    def on_kvm_hv_timer_state(self, _event, text):
        if text.endswith("hv_timer 1"):
            self.running, self.fired = True, False

    def on_hrtimer_expire_entry(self, _event, _text):
        if self.starting and self.racing:   # the one before, which is cancelled
            return
        if self.running is False:
            raise Violation("timer fires", "a timer fires that does not run")
        self.take("timer fires")
        self.running, self.fired = False, True

    def area(self, event, text):
        """(Each word in the text), of an access to the area that must be one."""
        words = {name: int(value, 0) for name, value in re.findall(r"(\w+)=(\w+)", text)}
        if self.in_guest:
            raise Violation("in_guest", "KVM touches the area while the guest runs")
        if not self.msr & ENABLE or words["gpa"] != self.msr & ~63:
            raise Violation("mine", f"KVM touches {words['gpa']:#x}, which is no area")
        return words

    def on_kvm_area_read(self, event, text):
        words = self.area(event, text)
        if self.storing is not None and words["pending"] == self.storing:
            self.pending = self.storing
        elif words["pending"] != self.pending:
            raise Violation("store_pending", f"KVM reads `pending` as {when(words['pending'])}; the"
                                             f" guest has stored {when(self.pending)}")
        if not self.live and self.token and not self.compared:
            self.compared = True
            if words["host"] != self.token:
                self.forget()
                self.take("resume: another memory")
            return
        self.live = True            # resume() says so before its SYNC
        self.read = (words["pending"], event["tsc"])

    def sync(self, event, moved_to):
        """sync(), or kick() if it is no interrupt: what KVM has read is used. moved_to: what
        the timer is set to, None if it stays."""
        (pending, then), self.read = self.read, None
        now = event["tsc"]
        self.synced = self.halt_synced = True
        self.window = self.window and not self.halted
        if self.timer is None:
            return
        if moved_to is not None and moved_to == pending and self.fired and \
                (not pending or pending > self.timer and pending > then):
            self.take("kick: later" if pending else "kick: none")
            if self.halted and pending and self.timer == pending:
                raise Violation("woken", "a halted vCPU is woken for nothing")
            return
        wanted = {pending}
        if pending and pending == self.delivered and pending <= now:
            wanted = {0} if pending <= then and not self.unsure else {0, pending}
        kept = {p for p in wanted if p == self.timer and not self.moved and
                (not p or self.running or self.fired)}
        if moved_to is None and kept:
            self.take("sync: kept")
        elif moved_to is not None and moved_to in wanted - kept:
            self.take("sync: stopped" if not moved_to else "sync: past" if moved_to <= then
                      else "sync: set")
        else:
            rule, does = "sync", "leaves it"
            if moved_to is not None:
                rule, does = "kick" if self.fired else "sync", f"sets it to {when(moved_to)}"
            raise Violation(rule, f"`pending` is {when(pending)}, KVM's timer {self.timers()}"
                            + (", set for another TSC" if self.moved else "")
                            + (", last delivered" if pending and pending == self.delivered else "")
                            + f"; KVM {does}")
        if self.halted and not self.live:
            raise Violation("sync", "SYNC of a vCPU that is parked")

    def on_kvm_apic_accept_irq(self, event, text):
        """kick(), with the interrupt; others' are no concern of ours."""
        apic, vector = map(int, re.match(r"apicid (\w+) vec (\d+)", text).groups())
        if vector != VECTOR_TIMER or apic != self.number:
            if self.read:
                self.sync(event, None)
            return
        if self.in_guest:
            raise Violation("in_guest", "KVM delivers the timer's interrupt while its vCPU is in"
                                        " guest mode")
        if self.fired is False:
            raise Violation("kick", f"an interrupt, but no timer has fired: KVM's {self.timers()}")
        if self.live:
            if not self.read:
                raise Violation("kick", "an interrupt, and KVM has not looked at `pending`")
            (pending, then), self.read = self.read, None
            if not pending or self.timer is not None and pending > self.timer and \
                    pending > event["tsc"]:
                raise Violation("kick", f"an interrupt, but `pending` is {when(pending)}, KVM's"
                                        f" timer {self.timers()}")
            # Delivered is what is due when the timer advance, of some length, is waited out.
            self.unsure = pending > then
            early = pending > event["tsc"] and \
                self.clock.nanoseconds(pending - event["tsc"]) > ADVANCE_NS
            self.delivered, self.req = 0 if early else pending, True
            self.take("kick: interrupt")
        else:
            self.take("kick: off")
        self.irr, self.fired, self.running, self.timer = True, False, False, 0

    def on_kvm_inj_virq(self, _event, text):
        if int(re.match(r"\w+ (0x\w+)", text)[1], 16) != VECTOR_TIMER:
            return
        if self.irr is False and "reinjected" not in text:
            raise Violation("kick", "the timer's interrupt is injected, and none was delivered")
        self.irr, self.injected, self.serving = False, True, True

    def on_kvm_area_write(self, event, text):
        words = self.area(event, text)
        if words["size"] == 8:
            self.publish(words["armed"])
        elif words["host"] & ACTIVE:
            self.resume(words)
        else:
            self.park(words)
        self.armed = words["armed"]
        self.armed_seen.append(self.armed)

    def allow_armed(self, rule, armed):
        """LAZY_ARMED. A timer that expires on another CPU is active until its callback ends."""
        allowed = {self.timer if self.running else 0}
        if self.fired:
            allowed |= {0, self.timer}
        if self.timer is not None and armed not in allowed:
            raise Violation(rule, f"KVM writes `armed` = {when(armed)}; its timer {self.timers()}")

    def publish(self, armed):
        if not self.live:
            raise Violation("publish", "KVM writes `armed` of a vCPU that is parked")
        if not self.req:
            raise Violation("publish", "KVM writes `armed`, and its timer has not changed")
        if self.moved:
            raise Violation("publish", "KVM writes `armed`, and its timer is for another TSC")
        self.allow_armed("publish", armed)
        self.req = False
        self.take("publish")

    def resume(self, words):
        if not self.synced or not self.live:
            raise Violation("resume", "RESUME without SYNC")
        self.allow_armed("resume", words["armed"])
        self.word(words["host"])
        self.compared = self.userspace = False
        self.take("resume")

    def park(self, words):
        if not self.live:
            raise Violation("park", "a parked vCPU is parked again")
        if not self.synced:
            raise Violation("park", "PARK without SYNC")
        if words["armed"]:
            raise Violation("park", f"PARK leaves `armed` at {when(words['armed'])}")
        self.live = False
        if not words["host"]:
            if not self.writing or self.writing[0] != "msr":
                raise Violation("park", "PARK without a token")
            self.take("park: off")
        else:
            if words["host"] in self.tokens:
                raise Violation("park", f"the token {words['host']:#x} was there before")
            self.tokens.add(words["host"])
            self.take("park")
        self.word(words["host"])
        if not words["host"]:
            self.pending_msr()

    def word(self, host):
        self.host_word = self.token = host
        self.host_seen.append(host)
        self.synced = self.halt_synced = False

    def forget(self):
        self.msr = self.token = self.delivered = 0
        self.live = self.moved = False

    def pending_msr(self):
        """set_msr(), once the area that was in use is parked."""
        if self.live:
            return
        self.forget()
        self.msr = self.writing[1]
        self.moved = bool(self.msr & ENABLE)

    def on_kvm_msr(self, event, text):
        """KVM's note of an access, which comes when it is done."""
        written = re.match(r"msr_write (\w+) = ", text)
        if not written:
            if text.startswith("msr_read 6e0 ") and self.live:
                if not self.synced:
                    raise Violation("rdmsr: sync", "IA32_TSC_DEADLINE is read without SYNC")
                self.take("rdmsr: sync")
            return
        number, value = int(written[1], 16), event["value"]
        kind = {watch.MSR_TSC_DEADLINE: "write", MSR_LAZY: "msr"}.get(number)
        if not kind:
            return
        if self.writing != (kind, value):
            raise Violation("vmexit(wrmsr)", f"KVM saw a WRMSR of {value:#x} that the guest has not"
                                             " noted")
        self.writing = None
        if kind == "write":
            if not self.updated:
                raise Violation("set_deadline", f"{when(value)} was written, and KVM's timer was"
                                                " not set")
            return
        self.take("set_msr")
        if self.live != bool(value & ENABLE):
            raise Violation("set_msr", "the MSR is written, and the protocol is "
                                       + ("on" if self.live else "off"))
        self.done = not value

    def on_kvm_vcpu_wakeup(self, _event, _text):
        """The vCPU has been asleep."""
        if not self.live:
            return
        if not self.halt_synced:
            raise Violation("halt: sync", "the vCPU was put to sleep without SYNC")
        self.halt_synced = False
        self.take("halt: sync")

    def on_kvm_userspace_exit(self, _event, _text):
        if self.live:
            raise Violation("park", "KVM_RUN has returned, and the vCPU is not parked")
        self.userspace = True


IGNORED = ("kvm_eoi", "kvm_pv_eoi")


class Replay:
    """All events of a file, one after the other."""

    def __init__(self, path):
        self.path = path
        self.taken, self.tokens = collections.Counter(), set()
        self.counts = collections.Counter()
        self.unjudged = 0
        self.run, self.vcpus, self.events, self.full = None, {}, 0, False
        self.clock = None
        self.broken, self.shown, self.after = None, collections.deque(maxlen=AROUND), 0

    def event(self, event):
        run = (event["number"], event["run"])
        if run != self.run:
            if self.run is not None and self.vcpus is not None:
                raise Usage(f"{self.path}: the run {self.run[1]} has no end: the file is cut short")
            self.run, self.vcpus, self.events, self.full = run, {}, 0, False
            self.clock, self.hosts = Clock(event["tsc"]), 0
        elif self.vcpus is None:
            raise Usage(f"{self.path}: the run {self.run[1]} goes on after its end")
        if event["event"] == "end":
            if event["value"] != self.events:
                raise Usage(f"{self.path}: the run {self.run[1]} has {self.events:,} events, and"
                            f" not {event['value']:,}: some are missing")
            self.counts["runs"] += 1
            self.counts["vCPUs"] += len(self.vcpus)
            self.vcpus = None
            return
        self.events += 1
        self.counts[event["source"]] += 1
        self.clock.see(event)
        if event["event"] == "full" and event["source"] == "host":
            self.full = True
        if self.full or event["cpu"] is None:
            self.unjudged += 1
            return
        self.hosts += event["event"] == "kvm_set_deadline"
        self.judge(event)

    def judge(self, event):
        number = event["cpu"]
        if number not in self.vcpus:
            mode = event["run"].partition("/")[2]
            if mode not in ("eager", "rearm", "lazy"):
                raise Usage(f"{self.path}: {event['run']!r} is no run of the storm")
            self.vcpus[number] = Vcpu(mode, number, self.clock, self.taken, self.tokens)
        vcpu = self.vcpus[number]
        if vcpu.done or (event["source"] == "host" and not vcpu.started):
            self.unjudged += 1
            return
        if not self.broken:
            self.shown.append(event)
            try:
                (vcpu.guest if event["source"] == "guest" else vcpu.host)(event)
            except Violation as violation:
                if not self.hosts:
                    raise Usage(f"{self.path}: {event['run']} has no events of the host, or not"
                                " those that ./sloth run trace=N asks for") from None
                self.broken = (violation, event)


def readable(event):
    """An event in a line, for people."""
    who = "guest" if event["source"] == "guest" else "  KVM"
    text = event.get("text", "")
    if event["source"] == "guest":
        text = when(event["value"]) if event["event"] not in ("host", "msr") \
            else f"{event['value']:#x}"
        if event["event"] in ("interrupt", "halt", "wake", "commit", "cancel", "disable"):
            text = ""
        text += f"   [armed {when(event['armed_tsc'])}, pending {when(event['pending_tsc'])}]"
    text = re.sub(r" (info1|error_code) .*", "", text)
    return (f"  {event['tsc']:#x} {event['ns'] / 1000:12,.1f} us  {who} {event['cpu']}"
            f"  {event['event'].removeprefix('kvm_'):<14} {text}")


def lines_of(path):
    """(Number, event) of a file, which has to be one that ./sloth run writes."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                event = json.loads(line)
                if not isinstance(event, dict) or not KEYS <= event.keys():
                    raise ValueError("it has not the keys of an event")
                yield number, event
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"{path}: {getattr(error, 'strerror', None) or 'not text'}") from None
    except ValueError as error:
        raise Usage(f"{path}: not what ./sloth run trace=N writes to build/trace.jsonl, or cut"
                    f" short: {error}") from None


def replay(path):
    """The Replay of a file, up to its end or to a step that is not allowed."""
    one = Replay(path)
    number = 0
    for number, event in lines_of(path):
        try:
            one.event(event)
        except (KeyError, TypeError, AttributeError) as error:
            raise Usage(f"{path}:{number}: not an event as ./sloth run trace=N writes them:"
                        f" {error!r}") from None
        if one.broken:
            return one
    if not number:
        raise Usage(f"{path}: empty")
    if one.vcpus is not None:
        raise Usage(f"{path}: the run {one.run[1]} has no end: the file is cut short")
    return one


def say_broken(one):
    violation, event = one.broken
    print(f"{one.path}: {event['run']}, vCPU {event['cpu']}: not allowed by {violation.rule!r}"
          f" ({RULES.get(violation.rule) or 'model/*.pml'}): {violation}")
    for shown in one.shown:
        if shown["cpu"] == event["cpu"]:
            print(readable(shown) + ("   <--" if shown is event else ""))


def command(options):
    total, counts, unjudged, broken = collections.Counter(), collections.Counter(), 0, False
    for path in options.files or [watch.TRACE]:
        one = replay(path)
        total += one.taken
        counts += one.counts
        unjudged += one.unjudged
        if one.broken:
            say_broken(one)
            broken = True
    events = counts["guest"] + counts["host"]
    for rule, meaning in RULES.items():
        if total[rule]:
            print(f"{total[rule]:>12,}  {rule:<24}{meaning}")
    never = [rule for rule in RULES if not total[rule]]
    if never:
        print(f"never: {', '.join(never)}")
    print(f"{events:,} events ({counts['guest']:,} of guests, {counts['host']:,} of their host), of"
          f" which {unjudged:,} are no step of a vCPU that is traced; {counts['runs']:,} runs,"
          f" {counts['vCPUs']:,} vCPUs: " + ("NOT as the model has it" if broken
                                              else "all as the model has it"))
    return int(broken)
