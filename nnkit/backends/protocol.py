"""What a device can do: hold arrays, prepare operations on them, and run a list of operations as one program.

An operation is prepared once, with every array it will ever touch, and run many times. So a backend can
choose its algorithm, wrap its buffers and compile when it prepares, and a program is free to be a loop over
calls or one captured graph. A backend's arrays slice, reshape and transpose as NumPy's do; nothing else is
asked of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import DTypeLike, NDArray

__all__ = ["Array", "Backend", "Operation", "Program"]

Array = Any
Operation = Callable[[], object]


class Program(Protocol):
    """A fixed sequence of operations."""

    def run(self, count: int = 1) -> None:
        """Run the whole sequence `count` times; the device may still be working when this returns."""


@runtime_checkable
class Backend(Protocol):
    """A device."""

    name: str
    """What the user calls it: ``cpu``, ``cuda:0``."""
    precisions: tuple[str, ...]
    """Of fp32, fp64, tf32, fp16 and bf16, those it computes in."""

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an uninitialised array."""

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    def from_host(self, array: NDArray) -> Array:
        """Return a C-contiguous device array of these values, only to be read: it may share their memory."""

    def to_host(self, array: Array) -> NDArray:
        """Return a copy in host memory, once all work before it is done."""

    def write(self, target: Array, values: object) -> None:
        """Copy host values into a device array, in order with the operations around it."""

    def copy(self, source: Array, target: Array) -> Operation:
        """Prepare a copy between two device arrays of one shape and dtype."""

    def matmul(self, a: Array, b: Array, out: Array) -> Operation:
        """Prepare ``out = a @ b``; `a` and `b` are C-contiguous or the transpose of such."""

    def kernel(
        self,
        name: str,
        dtype: DTypeLike,
        formulas: Mapping[str, Callable],
        constants: Mapping[str, bool | int | float],
        arguments: Mapping[str, Any],
    ) -> Operation:
        """Prepare a fused kernel of `nnkit.kernels`; arguments it does not take are left out."""

    def program(self, operations: Sequence[Operation]) -> Program:
        """Make one program of the operations, in this order."""

    def synchronize(self) -> None:
        """Wait until all work is done."""

    def describe(self) -> dict[str, str]:
        """Return what `nnkit info` shows of the device."""
