"""The clocks for work on a device: CUDA's events where there are any, else the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from nnkit.backends.protocol import Backend

__all__ = ["Clock", "EventClock", "HostClock", "clock_for", "on_stream"]


class Clock(Protocol):
    """Times what a function gives a device to do."""

    name: str

    def __call__(self, function: Callable[[], object]) -> float:
        """Call the function and return the seconds until all that it began is done."""


class HostClock:
    """The host's clock, stopped when the device has finished."""

    name = "host clock"

    def __init__(self, synchronize: Callable[[], object]) -> None:
        self._synchronize = synchronize

    def __call__(self, function: Callable[[], object]) -> float:
        self._synchronize()
        began = time.perf_counter()
        function()
        self._synchronize()
        return time.perf_counter() - began


class EventClock:
    """Two CUDA events around the work, on the stream of the backend that does it."""

    name = "CUDA events"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __call__(self, function: Callable[[], object]) -> float:
        import cupy

        began = self._mark()
        function()
        ended = self._mark()
        ended.synchronize()
        return cupy.cuda.get_elapsed_time(began, ended) * 1e-3

    def _mark(self) -> Any:
        import cupy

        def record() -> Any:
            event = cupy.cuda.Event()
            event.record()
            return event

        return on_stream(self._backend, record)


def on_stream(backend: Backend, function: Callable[[], Any]) -> Any:
    """Call a function, in order with the backend's programs: its device and stream are CuPy's meanwhile."""
    with backend.active():
        return function()


def clock_for(backend: Backend) -> Clock:
    """Return the best clock that the device has."""
    return EventClock(backend) if backend.name.startswith("cuda") else HostClock(backend.synchronize)
