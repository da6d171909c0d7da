"""How `nnkit bench` times: functions in turns, by CUDA's events on a GPU, else by the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.backends.protocol import Backend
from nnkit.bench.records import Record

__all__ = ["REST", "Case", "Clock", "Plan", "Size", "clock_for", "in_turns", "seconds_on_host"]

REST = 0.25
"""Seconds of sleep before a measurement: OpenBLAS's threads spin for 100 ms after a product they shared."""
Clock = Callable[[Callable[[], object]], float]
"""Calls a function and returns the seconds until the work it started is done."""
Case = tuple[Record, Callable[[Record], Iterable[Record]]]
"""A record without figures and the function that fills it, unless the record is skipped."""
Size = Literal["full", "quick", "tiny"]
_T = TypeVar("_T")


def seconds_on_host(function: Callable[[], object]) -> float:
    """Call the function and return the seconds that passed by the host's clock."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def clock_for(backend: Backend) -> Clock:
    """Return the best clock of the device: CUDA events on the backend's stream, or the host's clock."""
    if not backend.name.startswith("cuda"):
        return seconds_on_host

    import cupy

    def mark() -> Any:
        with backend.active():
            event = cupy.cuda.Event()
            event.record()
        return event

    def clock(function: Callable[[], object]) -> float:
        began = mark()
        function()
        ended = mark()
        ended.synchronize()
        return cupy.cuda.get_elapsed_time(began, ended) * 1e-3

    return clock


def in_turns(
    functions: Sequence[Callable[[], object]],
    repeats: int,
    warmup: int = 2,
    clock: Clock = seconds_on_host,
    rest: float = 0.0,
) -> list[NDArray[np.float64]]:
    """Time functions in turns, A B A B ..., so that a machine that is slow for a while is slow for all.

    Parameters
    ----------
    functions : sequence of function
        Each call is one measurement.
    repeats, warmup : int
        Measurements of each function, and turns before them that do not count.
    clock : function
        Calls a function and returns the seconds it took.
    rest : float
        Seconds of sleep before each call, such as `REST`.

    Returns
    -------
    list of ndarray of shape (repeats,)
        Seconds, for each function.
    """
    seconds = np.zeros((len(functions), repeats))
    for turn in range(-warmup, repeats):
        for i, function in enumerate(functions):
            if rest:
                time.sleep(rest)
            passed = clock(function)
            if turn >= 0:
                seconds[i, turn] = passed
    return list(seconds)


@dataclass(frozen=True)
class Plan:
    """The device and how much to measure.

    Parameters
    ----------
    device : str
        As `nnkit.backends.select` takes it.
    size : {"full", "quick", "tiny"}
        ``quick`` takes a minute or two; ``tiny`` shows that everything runs, and its figures mean nothing.
    """

    device: str = "cpu"
    size: Size = "full"

    def pick(self, full: _T, quick: _T, tiny: _T) -> _T:
        """Return the value for this plan's size."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]

    @property
    def repeats(self) -> int:
        """The number of measurements of each thing."""
        return self.pick(11, 5, 5)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.startswith("cuda")

    def backend(self, precision: str = "fp32") -> Backend:
        """Return the device, its float32 products in this precision."""
        return select(self.device).backend.with_precision(precision)

    def time(
        self, functions: Sequence[Callable[[], object]], backend: Backend | None = None
    ) -> list[NDArray[np.float64]]:
        """Time functions in turns by the device's best clock, three turns before not counted.

        On a GPU a program's first run is uncaptured and its second one captures.
        """
        rest = 0.0 if self.on_gpu or self.size == "tiny" else REST
        return in_turns(functions, self.repeats, 3, clock_for(backend or self.backend()), rest)
