"""The progress line of a command: redrawn on a terminal, one line for each work elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from nnkit.terminal import duration, terminal_width
from nnkit.working import Work, listening

__all__ = ["WorkLine", "shown_work"]

_PATIENCE = 1.0  # seconds before a work is shown
_REFRESH = 0.1
# Works with the same text and a shorter pause between them (s), such as compiling kernels, are shown as one.
_PAUSE = 0.5
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class WorkLine:
    """Shows on standard error what takes longer than a second.

    On a terminal it is one line, redrawn ten times a second and erased when the work is done; elsewhere a
    line is printed for each work after its first second. Of nested works the outermost is shown, and the
    inner ones that have lasted a second too.

    Parameters
    ----------
    file : text file, optional
        Where to write; by default standard error as it is now.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stderr if file is None else file
        self._live = self._file.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._works: list[Work] = []
        self._ended: dict[str, tuple[Work, float]] = {}
        self._told: set[str] = set()
        self._drawn = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def begin(self, work: Work) -> None:
        """Start its clock; a work that continues another with the same text keeps that one's clock."""
        with self._changed:
            before, ended = self._ended.pop(work.what, (work, 0.0))
            if before is not work and time.monotonic() - ended < _PAUSE:
                work.began, work.done = before.began, before.done
            self._works.append(work)
            if self._thread is None:
                # A daemon: an interrupt does not wait for it.
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self, work: Work) -> None:
        """Erase the line."""
        with self._changed:
            self._works.remove(work)
            self._ended[work.what] = (work, time.monotonic())
            self._clear()

    def hide(self) -> None:
        """Erase the line until the next redraw."""
        with self._changed:
            self._clear()

    def close(self) -> None:
        """Erase the line for good."""
        with self._changed:
            self._closed = True
            self._works.clear()
            self._clear()
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                if self._works:
                    self._show()
                self._changed.wait(_REFRESH if self._works else None)

    def _show(self) -> None:
        now = time.monotonic()
        outermost, *inner = self._works
        old = [work for work in inner if now - work.began >= _PATIENCE]
        if now - outermost.began < _PATIENCE:
            return
        if self._live:
            self._draw([outermost, *old], now)
        else:
            self._tell([outermost, *old])

    def _draw(self, works: list[Work], now: float) -> None:
        elapsed = now - works[-1].began
        sign = _SPINNER[int(now / _REFRESH) % len(_SPINNER)]
        words, seconds = ": ".join(map(_words, works)), f"  {duration(elapsed)}{_left(works[-1], elapsed)}"
        room = terminal_width(self._file) - 1 - len(seconds) - 2
        if len(words) > room:
            words = ": ".join([*(work.what for work in works[:-1]), _words(works[-1])])
        if len(words) > room:
            words = words[: max(room - 1, 0)] + "…"
        self._write(f"\r\x1b[2K{sign} {words}{seconds}")
        self._drawn = True

    def _tell(self, works: list[Work]) -> None:
        for work in works:
            if work.what not in self._told:
                self._told.add(work.what)
                total = f", {work.total:,} {work.unit}".rstrip() if work.total else ""
                self._write(f"{work.what}{total} ...\n")

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError):
            self._closed = True  # nobody reads standard error any more


@contextmanager
def shown_work() -> Iterator[None]:
    """Show on standard error what takes longer than a second."""
    line = WorkLine()
    try:
        with listening(line):
            yield
    finally:
        line.close()


def _words(work: Work) -> str:
    """Return what is done, and how much of it is finished."""
    if work.total:
        return f"{work.what}, {work.done:,} of {work.total:,} {work.unit}".rstrip()
    return f"{work.what}, {work.done:,} {work.unit}".rstrip() if work.done else work.what


def _left(work: Work, elapsed: float) -> str:
    """Return the time left at the speed so far, if it is known."""
    if not work.total or not 0 < work.done < work.total:
        return ""
    return f", {duration(elapsed / work.done * (work.total - work.done))} left"
