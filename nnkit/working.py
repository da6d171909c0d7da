"""Progress of long work, reported to listeners.

`working` marks a piece of work, in the library or in a command. The library itself prints nothing: the
command line's listener shows a line once a work has lasted a second (see `nnkit.cli.work_line`); a program
may have a listener of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Listener", "Work", "hide_work", "listening", "stop_listening", "working"]


@dataclass(eq=False)
class Work:
    """A piece of work in progress.

    Parameters
    ----------
    what : str
        A description such as ``reading houses.csv``.
    total : int, optional
        The number of its parts, if known.
    unit : str
        The plural of a part, such as ``rows``.
    done : int
        The number of parts done.
    began : float
        The time of its beginning, by `time.monotonic`.
    """

    what: str
    total: int | None = None
    unit: str = ""
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1) -> None:
        """Count parts that are done."""
        self.done += count


class Listener(Protocol):
    """The interface of a listener. Calls may come from any thread, and works may be nested."""

    def begin(self, work: Work) -> None:
        """Take note of a work that begins; the object changes as the work advances."""

    def end(self, work: Work) -> None:
        """Take note of its end, with or without an error."""

    def hide(self) -> None:
        """Clear what is shown, because something else is about to be written to the terminal."""


_listeners: list[Listener] = []


@contextmanager
def working(what: str, total: int | None = None, unit: str = "") -> Iterator[Work]:
    """Report the work inside this context to the listeners; arguments as for `Work`.

    Works with the same description in quick succession are shown as one.

    Examples
    --------
    >>> with working("explaining houses.csv", total=3, unit="columns") as work:
    ...     for column in range(3):
    ...         work.advance()
    """
    work = Work(what, total, unit)
    listeners = tuple(_listeners)
    for listener in listeners:
        listener.begin(work)
    try:
        yield work
    finally:
        for listener in listeners:
            listener.end(work)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report every work, of all threads, to a listener while this context lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        if listener in _listeners:
            _listeners.remove(listener)


def stop_listening() -> None:
    """Report works that begin from now on to no listener."""
    _listeners.clear()


def hide_work() -> None:
    """Ask listeners to clear what they show, before something else is written to the terminal."""
    for listener in tuple(_listeners):
        listener.hide()
