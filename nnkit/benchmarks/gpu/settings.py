"""What every section is told: the device, whether to be quick, and until when."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends import select
from nnkit.backends.operations import Kernel
from nnkit.backends.protocol import Array, Backend
from nnkit.benchmarks.clocks import clock_for
from nnkit.benchmarks.timing import in_turns
from nnkit.kernels.formulas import relu

__all__ = ["WARMUP", "Settings", "data_folder", "random_array", "timed_in_turns", "tiny_kernel"]

WARMUP = 3
"""Turns that do not count: a program's first run is uncaptured, and its second one captures."""

_TURNS = 25  # seconds kept for a contest's turns: seven contenders rest for 4 s in each two
_ENDING = 8  # and for the last turn and the processes' ends


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    device : str
        As `nnkit.backends.select` takes it.
    quick : bool
        Tiny sizes and few repeats: a dry run, whose figures mean nothing.
    peers : bool
        Whether other libraries are measured beside nnkit.
    seconds : float
        What the section may take.
    """

    device: str = "cuda"
    quick: bool = False
    peers: bool = True
    seconds: float = 600.0
    began: float = field(default_factory=time.monotonic)

    def backend(self, precision: str = "fp32") -> Backend:
        """Return the device, its float32 products in this precision."""
        return select(self.device).backend.with_precision(precision)

    def size(self, full: int, quick: int) -> int:
        """Return a size: the full one, or that of a quick run."""
        return quick if self.quick else full

    @property
    def repeats(self) -> int:
        """How many measurements of each thing."""
        return self.size(15, 3)

    def deadline(self, share: float) -> float:
        """Return the value of `time.monotonic` when this share of the section's time is over."""
        return self.began + share * self.seconds

    def contest_times(self, share: float) -> tuple[float, float]:
        """Return until when contenders may make themselves ready, and when turns end, within a share."""
        turns, ending = self.size(_TURNS, 0), self.size(_ENDING, 0)
        over = self.deadline(share)
        return over - turns - ending, over - ending


def timed_in_turns(
    backend: Backend, functions: list[Callable[[], object]], repeats: int
) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Time functions in turns by the device's best clock, `WARMUP` turns before."""
    return in_turns(functions, repeats, warmup=WARMUP, clock=clock_for(backend))


def random_array(backend: Backend, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
    """Return an array of normal numbers, one random block repeated: zeros are faster to work on."""
    size = int(np.prod(shape))
    block = np.random.default_rng(0).standard_normal(min(size, 2**20 - 3)).astype(dtype)
    return backend.from_host(np.resize(block, shape))


def tiny_kernel(numbers: Array) -> Kernel:
    """Return a ReLU of a few numbers in place."""
    flags = {"BIAS": False, "DROPOUT": False, "KEEP_Z": False}
    arguments = {"z": numbers, "a": numbers, "bias": None, "mask": None, "kept_scale": 1.0}
    return Kernel("forward", np.float32, {"activation": relu}, flags, arguments)


def data_folder() -> Path | None:
    """Return the folder of real data: NNKIT_BENCH_DATA, else ../shared/data beside a checkout, or None."""
    named = os.environ.get("NNKIT_BENCH_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "data"
    return folder if folder.is_dir() else None
