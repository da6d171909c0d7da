"""The CPU with 16-bit storage stood in for: float32 arrays, rounded after each operation that wrote them.

A product of two float16 numbers is exact in float32, and so are its sums where tensor cores keep them: what
this computes is what a GPU does in mixed precision, but for the order of sums. It is there to test trainings,
and far slower than float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np

from nnkit import backends
from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Copy, Kernel, Operation, Product, split_at_reductions
from nnkit.backends.protocol import Program

NAME = "rounding"
HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


class RoundingBackend(NumpyBackend):
    """The CPU, with arrays in 16 bits."""

    name = NAME
    precisions = ("fp32", "fp64", "fp16", "bf16")

    def __init__(self) -> None:
        self._halves: list[tuple[np.ndarray, np.dtype]] = []

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        # What nobody has written is recognised.
        array = self.zeros(shape, dtype)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        if np.dtype(dtype) not in HALVES:
            return np.zeros(shape, dtype)
        array = np.zeros(shape, np.float32)
        self._halves.append((array, np.dtype(dtype)))
        return array

    def from_host(self, array: np.ndarray) -> np.ndarray:
        if array.dtype not in HALVES:
            return super().from_host(array)
        placed = self.zeros(array.shape, array.dtype)
        placed[...] = array
        return placed

    def half_of(self, array: Any) -> np.dtype | None:
        """Return what an array would be in 16 bits, or None where it has more."""
        if not isinstance(array, np.ndarray):
            return None
        return next((dtype for whole, dtype in self._halves if np.may_share_memory(whole, array)), None)

    def compile(self, operations: Sequence[Operation]) -> Program:
        records = [record for stretch in split_at_reductions(operations) for record in stretch]
        return _Rounding([self._rounded(record) for record in records])

    def _rounded(self, record: Product | Copy | Kernel) -> Callable[[], None]:
        """Return what does what a record says, and rounds what it wrote."""
        run: Callable[[], object] = super().compile([record]).run
        if isinstance(record, Copy):
            assert self.half_of(record.source) == self.half_of(record.target), "a copy does not convert"
        if isinstance(record, Product):
            a, b, out = record.a, record.b, record.out
            assert self.half_of(a) == self.half_of(b), "operands are of one type"
            assert self.half_of(a) is None or all(8 % x == 0 or x % 8 == 0 for x in (_pitch(a), _pitch(b)))
            if not out.flags.c_contiguous:
                run = lambda: np.copyto(out, np.dot(a, b))  # noqa: E731
        halves = [(array, half) for array in record.writes() if (half := self.half_of(array)) is not None]

        def run_and_round() -> None:
            run()
            for array, half in halves:
                array[...] = array.astype(half).astype(np.float32)

        return run_and_round


class _Rounding:
    """Calls one after the other."""

    def __init__(self, calls: Sequence[Callable[[], None]]) -> None:
        self._calls = calls

    def run(self, count: int = 1) -> None:
        with np.errstate(all="ignore"):
            for _ in range(count):
                for call in self._calls:
                    call()


def _pitch(array: np.ndarray) -> int:
    return max(array.strides) // array.itemsize


def create(device: str) -> RoundingBackend:
    """Return the backend."""
    return RoundingBackend()


@contextmanager
def installed() -> Iterator[str]:
    """Let trainers find it; gives the device's name."""
    backends._OWN[NAME] = f"{__name__}:create"
    try:
        yield NAME
    finally:
        del backends._OWN[NAME]
