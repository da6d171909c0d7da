"""Long work that says what it is and how far it has come, to whoever listens; without a listener, to nobody.

`working` marks a piece of work, in the library or in a command. The library itself prints nothing: the
command line listens and shows a line once a work has lasted a second (see `nnkit.cli.work_line`); a program
may listen with a class of its own.
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
    """A piece of work under way.

    Parameters
    ----------
    what : str
        What is done, such as ``reading houses.csv``.
    total : int, optional
        How many parts it has, where that is known.
    unit : str
        What the parts are, such as ``rows``.
    done : int
        How many of them are done.
    began : float
        When it began, by `time.monotonic`.
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
    """What `listening` takes. Calls may come from any thread, and works may lie inside one another."""

    def begin(self, work: Work) -> None:
        """Hear that a work begins; it changes as it advances."""

    def end(self, work: Work) -> None:
        """Hear that it is over, however it ended."""

    def hide(self) -> None:
        """Take away what is shown, for something else is about to be written there."""


_listeners: list[Listener] = []


@contextmanager
def working(what: str, total: int | None = None, unit: str = "") -> Iterator[Work]:
    """Mark what is done inside as one piece of work, and let the listeners know of it.

    Parameters
    ----------
    what : str
        As a person would say it: ``reading houses.csv``, ``compiling kernels``. Works of the same words that
        follow one another within a moment are shown as one.
    total : int, optional
        How many parts it has, of which `Work.advance` counts those done; None where that is not known.
    unit : str
        What the parts are, in the plural.

    Examples
    --------
    >>> with working("explaining houses.csv", total=3, unit="columns") as work:
    ...     for column in range(3):
    ...         work.advance()
    """
    work = Work(what, total, unit)
    told = tuple(_listeners)
    for listener in told:
        listener.begin(work)
    try:
        yield work
    finally:
        for listener in told:
            listener.end(work)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a listener hear of every work, in all threads, as long as this lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        if listener in _listeners:
            _listeners.remove(listener)


def stop_listening() -> None:
    """Let no listener hear of the works that begin from now on."""
    _listeners.clear()


def hide_work() -> None:
    """Ask listeners to take away what they show, before something else is written to the terminal."""
    for listener in tuple(_listeners):
        listener.hide()
