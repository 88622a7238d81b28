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


quiet = False               # only errors
lock = threading.RLock()    # of the terminal, and of:
standing = False            # whether the progress line is on it


def clear():
    """Takes the progress line off the terminal, for what is written next. Under the lock."""
    global standing
    if standing:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
        standing = False


def say(text):
    with lock:
        clear()
        sys.stderr.write(f"sloth: {text}\n")
        sys.stderr.flush()


def tell(text):
    """What is no error."""
    if not quiet:
        say(text)


class step:
    """with step("building x") as s: ... s.note("3 of 9")

    On a terminal one line is kept up to date with the elapsed seconds; elsewhere
    there is a line at the start, one every half minute, and one at the end."""

    SHORT = 0.3  # a step shorter than this leaves no line

    def __init__(self, text, quiet=False):
        self.text = text
        self.extra = ""
        self.quiet = quiet or globals()["quiet"]
        self.tty = sys.stderr.isatty()
        self.stop = threading.Event()

    def note(self, extra):
        """extra: a text, or a function that returns it each time."""
        self.extra = extra

    def line(self):
        elapsed = time.monotonic() - self.start
        extra = self.extra() if callable(self.extra) else self.extra
        extra = f", {extra}" if extra else ""
        return f"sloth: {self.text}{extra} ({elapsed:.0f} s)"

    def work(self):
        global standing
        wait, shown = self.SHORT, False
        while not self.stop.wait(wait):
            if self.tty:
                with lock:
                    sys.stderr.write(f"\r\x1b[K{self.line()}")
                    sys.stderr.flush()
                    standing = True
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
        with lock:
            clear()
            if not kind:
                sys.stderr.write(f"{self.line()}\n")
                sys.stderr.flush()
