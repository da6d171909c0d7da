"""Streams and events that keep CUDA's promises and no others: work waits as long as nothing makes it run.

Work of a stream that is not `eager` runs only when somebody waits for it, on the host or in another stream;
that of an eager one as soon as what it waits for has run. So a copy comes as late, or as early, as CUDA may
make it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

_lock = threading.RLock()


class Event:
    """A place in a stream, the last at which it was recorded."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.recorded = 0
        self.reached = 0
        self.stream: LazyStream | None = None

    def synchronize(self) -> None:
        """Wait until it is reached, as the host does."""
        with _lock:
            if self.stream is not None:
                self.stream.run_to(self, self.recorded)

    def reached_now(self) -> None:
        """Record it in a stream whose work is done."""
        with _lock:
            self.recorded += 1
            self.reached = self.recorded


class LazyStream:
    """A queue of calls.

    Parameters
    ----------
    eager : bool
        Whether a call runs as soon as it may, and not only when it must.
    """

    def __init__(self, eager: bool = False) -> None:
        self._calls: deque[tuple[Callable[[], None], Event | None, int]] = deque()
        self._eager = eager

    def submit(self, call: Callable[[], None]) -> None:
        """Queue a call."""
        self._queue(call, None, 0)

    def record(self, event: Event) -> None:
        with _lock:
            event.recorded += 1
            event.stream = self
            version = event.recorded

            def reach() -> None:
                event.reached = max(event.reached, version)

            self._queue(reach, None, 0)

    def wait_event(self, event: Event) -> None:
        with _lock:
            self._queue(lambda: None, event, event.recorded)

    def _queue(self, call: Callable[[], None], event: Event | None, version: int) -> None:
        with _lock:
            self._calls.append((call, event, version))
            while self._eager and self._calls and self._may_run(self._calls[0]):
                self._calls.popleft()[0]()

    def _may_run(self, item: tuple[Callable[[], None], Event | None, int]) -> bool:
        _, event, version = item
        return event is None or event.reached >= version

    def run_to(self, event: Event, version: int) -> None:
        """Run what stands before a place."""
        with _lock:
            while event.reached < version:
                self._run_next()

    def synchronize(self) -> None:
        with _lock:
            while self._calls:
                self._run_next()

    def _run_next(self) -> None:
        call, event, version = self._calls[0]
        if event is not None and event.reached < version:
            assert event.stream is not None
            event.stream.run_to(event, version)
        self._calls.popleft()
        call()
