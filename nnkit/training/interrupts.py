"""Signals that end a training between two steps, so that its state stays consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["pythons_own_interrupt", "stopped_by_signals"]


@contextmanager
def stopped_by_signals(stop: Callable[[], None], *numbers: int) -> Iterator[list[int]]:
    """Call `stop` at the first of these signals; raise KeyboardInterrupt at each later one.

    Parameters
    ----------
    stop : function
        Requests the end of the training.
    *numbers : int
        The signals to handle, such as ``signal.SIGINT``; their handlers are restored at the end.

    Yields
    ------
    list of int
        The signal received, if any.
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
    """Return SIGINT if Ctrl-C raises KeyboardInterrupt in this thread, else nothing."""
    main = threading.current_thread() is threading.main_thread()
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return (signal.SIGINT,) if main and default else ()
