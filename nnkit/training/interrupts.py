"""Signals that end a training between two steps, and errors met while it ends.

A step that is under way is never cut, so that what is kept of the training is whole.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["FirstError", "pythons_own_interrupt", "stopped_by_signals"]


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


class FirstError:
    """The first error of several actions, each of which is tried whatever became of those before it.

    Attributes
    ----------
    error : BaseException or None
        The first error; those that followed are notes on it, but for a KeyboardInterrupt, which says nothing.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    @contextmanager
    def kept(self, action: str) -> Iterator[None]:
        """Keep an error raised in this context; `action` names what failed."""
        try:
            yield
        except BaseException as error:
            self.keep(error, action)

    def keep(self, error: BaseException, action: str) -> None:
        """Keep an error if it is the first; else note it on the first one, unless it is a further Ctrl-C."""
        if self.error is None:
            self.error = error
        elif not isinstance(error, KeyboardInterrupt):
            self.error.add_note(f"Then {action} failed too: {type(error).__name__}: {error}")

    def raise_first(self) -> None:
        """Raise the first error, if there is one."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # its traceback holds this frame
