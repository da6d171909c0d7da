"""A section's process, `python -m nnkit.benchmarks.child`, and the parent that listens and may end it.

A crash, an endless case or a lack of memory then costs one case. Order: the parent's side, the child's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from typing import Any

from nnkit.benchmarks.plan import Case, Plan, run_case
from nnkit.benchmarks.records import Record

__all__ = ["Child", "Ended", "measure"]

_STARTING = 120.0  # seconds that a process may take to say which cases there are


class Ended(Exception):
    """A process is over before its section was: `blank` says what it was at, or is None if it never began."""

    def __init__(self, reason: str, number: int = -1, blank: Record | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.number = number
        self.blank = None if blank is None else replace(blank, skipped=reason, details={"failed": True})


class Child:
    """The parent's side of a process that measures a section from one of its cases on.

    Parameters
    ----------
    module : str
        The section's, whose ``cases(plan)`` returns its cases.
    plan : Plan
        How to measure.
    first : int
        The case to begin with.
    """

    def __init__(self, module: str, plan: Plan, first: int) -> None:
        self._printed = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed in __exit__)
        self._lines, other = Pipe(duplex=False)
        # A session of its own: whatever it has started, compilers and contenders, is ended with it.
        command = [sys.executable, "-m", "nnkit.benchmarks.child", str(other.fileno())]
        self._process = subprocess.Popen(
            [*command, module, plan.to_json(), str(first)],
            stdout=self._printed,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,  # which is closed when this process ends, however it does
            pass_fds=[other.fileno()],
            start_new_session=True,
        )
        other.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._lines.close()
        self._printed.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def records(self) -> Iterator[Record]:
        """Yield what is measured; raises `Ended` when the process is over too soon or has to be ended."""
        number, blank, limit = -1, None, _STARTING
        due = time.monotonic() + limit
        while True:
            try:
                if not self._lines.poll(max(due - time.monotonic(), 0)):
                    raise Ended(f"not done after {limit:.0f} s", number, blank)
                line = json.loads(self._lines.recv_bytes())
            except (EOFError, OSError):
                raise Ended(self._ending(), number, blank) from None
            if "record" in line:
                yield Record.from_json(line["record"])
            elif "begin" in line:
                number, limit = line["begin"], line["limit"]
                blank = Record.from_json(line["blank"])
                due = time.monotonic() + limit
            elif "failure" in line:
                raise Ended(line["failure"], number, blank)
            elif "done" in line:
                return

    def _ending(self) -> str:
        """Say how the process ended, and the last line it printed."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._printed.seek(0)
        said = self._printed.read().strip().splitlines()[-1:] or [""]
        status = self._process.returncode
        ended = (
            f"died of signal {-status}"
            if status is not None and status < 0
            else f"ended with status {status}"
        )
        return f"its process {ended}: {said[0][:300]}".rstrip(": ")


def measure(module: str, plan: Plan, first: int, tell: Any) -> None:
    """Measure a module's cases from `first` on, and tell of each; ends after a case that fails.

    A device may be unusable after an error: whoever listens begins another process at the next case.
    """
    cases: list[Case] = import_module(module).cases(plan)
    for number, case in enumerate(cases[first:], first):
        tell(begin=number, blank=case.blank.to_json(), limit=case.most(plan))
        try:
            for record in run_case(case, plan):
                tell(record=record.to_json())
        except Exception as error:
            traceback.print_exc()
            tell(failure=f"{type(error).__name__}: {str(error).strip()[:300]}")
            return
    tell(done=True)


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of the standard input, then end this group of processes."""
    os.read(0, 1)  # not through sys.stdin, whose lock must be free when the process ends
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Do as the parent says."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number, module, plan, first = sys.argv[1:]
    connection = Connection(int(number), readable=False)

    def tell(**line: Any) -> None:
        connection.send_bytes(json.dumps(line).encode())

    # A parent that is gone takes no lines: there is nobody to measure for.
    with suppress(BrokenPipeError):
        measure(module, Plan.from_json(plan), int(first), tell)


if __name__ == "__main__":
    main()
