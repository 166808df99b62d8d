"""Cases that run one after the other; each prints how it went, and leaves a line for the machine."""

import json
import os
import signal
import sys
import time
import traceback
from importlib.metadata import version

LONGEST_CASE_S = 40


class Late(Exception):
    """A case took too long."""


class Suite:
    """The cases of one package over one transport: both are columns of the table in docs/emulator.md."""

    def __init__(self, package, transport):
        self.client = f"{package} {version(package)}, Python"
        self.transport = transport
        self._cases = []

    def case(self, feature, name):
        """Takes a function as a case of a feature, which is a row of the table."""

        def take(run):
            self._cases.append((feature, name, run))
            return run

        return take

    def run(self):
        """Runs all and ends the process: a client that a failed case left behind must not keep it alive."""
        failed = 0
        signal.signal(signal.SIGALRM, _late)
        for feature, name, run in self._cases:
            began = time.monotonic()
            signal.alarm(LONGEST_CASE_S)
            try:
                run()
                error = None
            except Exception as raised:  # A case may raise anything; that is what is reported.
                error = "".join(traceback.format_exception(raised)).strip()
            finally:
                signal.alarm(0)
            failed += error is not None
            self._report(feature, name, time.monotonic() - began, error)
        print(f"{self.client}, {self.transport}: {len(self._cases) - failed} of {len(self._cases)} passed", flush=True)
        sys.stdout.flush()
        os._exit(1 if failed else 0)

    def _report(self, feature, name, seconds, error):
        print(f"{'FAILED' if error else 'ok    '}  {self.client}, {self.transport}: {feature}: {name}", flush=True)
        if error:
            print("        " + "\n        ".join(error.splitlines()[-8:]), flush=True)
        record = {
            "client": self.client,
            "transport": self.transport,
            "feature": feature,
            "case": name,
            "passed": error is None,
            "seconds": round(seconds, 3),
            "error": error,
        }
        with open(os.environ["CONFORMANCE_RESULTS"], "a", encoding="utf-8") as results:
            results.write(json.dumps(record) + "\n")


def eventually(what, look, seconds=15):
    """Waits until `look` gives something true, and gives that."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def equal(seen, expected):
    """Says both when they differ."""
    assert seen == expected, f"\n  seen     {seen!r}\n  expected {expected!r}"


def fails(kind, act):
    """The exception of this kind that `act` raises."""
    try:
        act()
    except kind as raised:
        return raised
    raise AssertionError(f"no {kind} was raised")


def _late(_signal, _frame):
    raise Late(f"took more than {LONGEST_CASE_S} s")
