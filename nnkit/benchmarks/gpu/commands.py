"""Run commands within a time, and end with them all that they have started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable

__all__ = ["describe_status", "run_command"]

WATCH = 1.0  # seconds between looks at what a command has written


def run_command(
    command: list[str], seconds: float, look: Callable[[], bool] = lambda: False, grace: float = 0.0
) -> tuple[int | None, str]:
    """Run a command until it ends, its time is over, or `look` returns True, which looks now and then.

    Return its status, None if it was ended, and its output. Before it is ended, it is interrupted and has
    `grace` seconds to react.
    """
    # Everything it starts is of its process group, which is ended as one.
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True)
        status: int | None = None
        deadline = time.monotonic() + seconds
        try:
            while status is None and (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(min(left, WATCH))
                if look() and status is None:
                    break
            if status is None and grace:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
        finally:
            _end_group(process)
        printed.seek(0)
        return status, printed.read()


def _end_group(process: subprocess.Popen) -> None:
    """End a process and all it has started, compilers and contenders among them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe_status(status: int | None, seconds: float) -> str:
    """Say how a process ended."""
    return f"ended after {seconds:.0f} s" if status is None else f"its process ended with status {status}"
