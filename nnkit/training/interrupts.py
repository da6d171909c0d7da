"""Signals that end a training between two steps.

A step that is under way is never cut, so that what is kept of the training is whole.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["pythons_own_interrupt", "stopped_by_signals"]


@contextmanager
def stopped_by_signals(stop: Callable[[], None], *numbers: int) -> Iterator[list[int]]:
    """Call `stop` at the first of these signals; raise KeyboardInterrupt at once at every further one.

    Parameters
    ----------
    stop : function
        Asks the training to end between two steps.
    *numbers : int
        The signals to handle, such as ``signal.SIGINT``; their handlers are put back at the end.

    Yields
    ------
    list of int
        The signal that came, if one did.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        stop()

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pythons_own_interrupt() -> tuple[int, ...]:
    """Return SIGINT where Ctrl-C would raise KeyboardInterrupt in this thread, else nothing."""
    main = threading.current_thread() is threading.main_thread()
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return (signal.SIGINT,) if main and default else ()
