# SPDX-License-Identifier: MIT
"""Progress and errors. Everything here goes to standard error: standard output
belongs to the guest, or to the command that runs in the host."""

import sys
import threading
import time


class Fail(Exception):
    """An error for the user: one line (more only where it quotes a log)."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


class Usage(Fail):
    """The command line is wrong: status 2."""

    def __init__(self, message):
        super().__init__(message, 2)


def say(text):
    sys.stderr.write(f"sloth: {text}\n")
    sys.stderr.flush()


class step:
    """with step("building x") as s: ... s.note("3 of 9")

    On a terminal one line is kept up to date with the elapsed seconds; elsewhere
    there is a line at the start, one every half minute, and one at the end."""

    SHORT = 0.3  # a step shorter than this leaves no line

    def __init__(self, text, quiet=False):
        self.text = text
        self.extra = ""
        self.quiet = quiet
        self.tty = sys.stderr.isatty()
        self.stop = threading.Event()

    def note(self, extra):
        self.extra = extra

    def line(self):
        elapsed = time.monotonic() - self.start
        extra = f", {self.extra}" if self.extra else ""
        return f"sloth: {self.text}{extra} ({elapsed:.0f} s)"

    def work(self):
        wait, shown = self.SHORT, False
        while not self.stop.wait(wait):
            if self.tty:
                sys.stderr.write(f"\r\x1b[K{self.line()}")
                wait = 0.5
            elif shown:
                sys.stderr.write(self.line() + "\n")
            else:
                sys.stderr.write(f"sloth: {self.text} ...\n")
                wait = 30
            sys.stderr.flush()
            shown = True

    def __enter__(self):
        self.start = time.monotonic()
        if not self.quiet:
            self.thread = threading.Thread(target=self.work, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, kind, value, trace):
        if self.quiet:
            return
        self.stop.set()
        self.thread.join()
        if time.monotonic() - self.start < self.SHORT:
            return
        if kind:
            if self.tty:
                sys.stderr.write("\r\x1b[K")
        else:
            start = "\r\x1b[K" if self.tty else ""
            sys.stderr.write(f"{start}{self.line()}\n")
        sys.stderr.flush()
