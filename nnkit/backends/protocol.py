"""The protocol of a device: it holds arrays, and compiles a list of operations on them into one program.

An operation is a record with all arrays that it touches, and runs many times. So a backend can choose its
algorithms, wrap its buffers and compile beforehand, and a program may be a loop over calls or one captured
graph. A backend's arrays must slice, reshape and transpose as NumPy's do, and no more: every computation, and
every selection of rows by number, is an operation or a method here, since a GPU orders such work only on its
own stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array, Operation

__all__ = ["Array", "Backend", "Operation", "Program", "Uploads"]


class Program(Protocol):
    """A fixed sequence of operations."""

    def run(self, count: int = 1) -> None:
        """Run the whole sequence `count` times; the device may still be working when this returns."""


class Uploads(Protocol):
    """An upload queue: copies from the host that run beside the device's work, into slots that are reused.

    For each slot in turn, the producer calls `prepare` and `send`, the consumer, which gives the device its
    work, `receive` and `done`; each may have a thread of its own.
    """

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[NDArray, Array]:
        """Return an array on the host and one on the device, which may be the same."""

    def prepare(self, slot: int) -> None:
        """Wait until the slot's buffer on the host has been copied."""

    def send(self, slot: int, pairs: Sequence[tuple[NDArray, Array]]) -> None:
        """Copy from the host to the device, once the device no longer reads the slot."""

    def receive(self, slot: int) -> None:
        """Let the device's further work wait for the last copies into the slot."""

    def done(self, slot: int) -> None:
        """Mark the slot as read: no work after this reads it."""

    def synchronize(self) -> None:
        """Wait until all copies are made."""


@runtime_checkable
class Backend(Protocol):
    """A device."""

    name: str
    """The user's name for it: ``cpu``, ``cuda:0``."""
    precisions: tuple[str, ...]
    """The precisions that it has of fp32, fp64, tf32, fp16 and bf16."""
    shares_host_memory: bool
    """Whether its arrays are the host's own memory."""

    def with_precision(self, precision: str) -> Backend:
        """Return the same device, its products in this precision: one of `precisions`."""

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an uninitialised array."""

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    def from_host(self, array: NDArray) -> Array:
        """Return a C-contiguous, read-only device array of these values, which may share their memory."""

    def to_host(self, array: Array, rows: Array | None = None) -> NDArray:
        """Return a copy in host memory, once all work before it is done.

        With `rows`, (count,) int64 on the device, of these rows of the array alone.
        """

    def write(self, target: Array, values: object) -> None:
        """Copy host values into a device array, in order with the operations around it."""

    def compile(self, operations: Sequence[Operation]) -> Program:
        """Make one program of the operations, in this order; a single worker's reductions do not wait."""

    def active(self) -> AbstractContextManager[None]:
        """Run computations of the device's array library in order with programs."""

    def shards(self, batch_size: int, work: float) -> int:
        """Return the best number of parallel shards for a step; 1 for none.

        Parameters
        ----------
        batch_size : int
            The rows to divide.
        work : float
            The approximate number of the step's floating-point operations.
        """

    def compile_parallel(self, workers: Sequence[Sequence[Operation]]) -> Program:
        """Make one program of several workers' operations, run at once where the device can.

        Each worker has as many reductions as the others. All of them wait for each other at a reduction, and
        at the end.
        """

    def synchronize(self) -> None:
        """Wait until all work is done."""

    def uploads(self, slots: int, kind: str) -> Uploads:
        """Return an upload queue with `slots` slots, from ``pinned`` or from ``pageable`` host memory."""

    def readers(self) -> int:
        """Return the best number of threads that read ahead of the device; 0 for none."""

    def free_memory(self) -> int | None:
        """Return the device's free memory in bytes, or None where it is the host's."""

    def numerics(self) -> dict[str, str]:
        """Return the properties of the device and its libraries that the bits of a result depend on."""

    def matching_numerics(self, numerics: Mapping[str, str]) -> AbstractContextManager[None]:
        """Compute with these numerics inside the context, as far as they can be chosen."""

    def describe(self) -> dict[str, str]:
        """Return the description of the device for `nnkit info`."""
