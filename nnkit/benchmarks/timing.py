"""Time things in turns: medians with their spread, and ratios in which a drifting machine cancels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["REST", "Spread", "in_turns", "ratio", "seconds_on_host", "spread"]

REST = 0.25
"""Seconds between two functions of which one multiplies with all BLAS threads, see `in_turns`."""


@dataclass(frozen=True)
class Spread:
    """The middle of several measurements and how far they lie apart.

    Parameters
    ----------
    median, low, high : float
        The 50th, 10th and 90th percentile.
    repeats : int
        How many measurements.
    """

    median: float
    low: float
    high: float
    repeats: int

    def to_json(self) -> dict[str, float]:
        """Return the fields."""
        return asdict(self)


def spread(values: NDArray[np.float64]) -> Spread:
    """Return the median, the 10th and the 90th percentile."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return Spread(float(median), float(low), float(high), len(values))


def ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> Spread:
    """Return how `a` compares with `b`, measurement by measurement."""
    return spread(a / b)


def seconds_on_host(function: Callable[[], object]) -> float:
    """Call the function and return the seconds that passed by the host's clock."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def in_turns(
    functions: Sequence[Callable[[], object]],
    repeats: int,
    warmup: int = 2,
    clock: Callable[[Callable[[], object]], float] = seconds_on_host,
    rest: float = 0.0,
) -> list[NDArray[np.float64]]:
    """Time functions in turns, A B A B ...

    Parameters
    ----------
    functions : sequence of function
        Each call is one measurement.
    repeats : int
        How many measurements of each.
    warmup : int
        Turns before that which are not counted.
    clock : function
        Calls a function and returns the seconds it took.
    rest : float
        Seconds of sleep before each call: OpenBLAS's threads spin for some 100 ms after a product that they
        shared, on cores that the next function may want.

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
