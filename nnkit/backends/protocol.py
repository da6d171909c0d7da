"""What a device can do: hold arrays, and compile a list of operations on them into one program.

An operation is a record with every array that it will ever touch, and runs many times. So a backend can
choose its algorithms, wrap its buffers and compile beforehand, and a program is free to be a loop over calls
or one captured graph. A backend's arrays slice, reshape and transpose as NumPy's do; nothing else is asked of
them: whatever computes or picks rows by number is an operation or a method here, for a GPU does it in order
with the work around it only on its own stream.
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
    """Copies from the host that run beside the device's work, into slots that are filled again and again.

    For each slot, in turns: `prepare` and `send` by whoever fills it, `receive` and `done` by whoever gives
    the device its work; the two may be in threads of their own.
    """

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[NDArray, Array]:
        """Return an array on the host and one on the device, which may be the same."""

    def prepare(self, slot: int) -> None:
        """Wait until what the slot held on the host has been copied."""

    def send(self, slot: int, pairs: Sequence[tuple[NDArray, Array]]) -> None:
        """Copy from the host to the device, once the device has done with what it had in the slot."""

    def receive(self, slot: int) -> None:
        """Let the device's further work wait for what was sent last."""

    def done(self, slot: int) -> None:
        """Note that all work so far, and none after it, reads what the slot holds."""

    def synchronize(self) -> None:
        """Wait until all copies are made."""


@runtime_checkable
class Backend(Protocol):
    """A device."""

    name: str
    """What the user calls it: ``cpu``, ``cuda:0``."""
    precisions: tuple[str, ...]
    """Of fp32, fp64, tf32, fp16 and bf16, those it computes in."""
    shares_host_memory: bool
    """Whether its arrays are the host's own memory."""

    def with_precision(self, precision: str) -> Backend:
        """Return the same device, its products in this precision: one of `precisions`."""

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an uninitialised array."""

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    def from_host(self, array: NDArray) -> Array:
        """Return a C-contiguous device array of these values, only to be read: it may share their memory."""

    def to_host(self, array: Array, rows: Array | None = None) -> NDArray:
        """Return a copy in host memory, once all work before it is done.

        With `rows`, (count,) int64 on the device, of these rows of the array alone.
        """

    def write(self, target: Array, values: object) -> None:
        """Copy host values into a device array, in order with the operations around it."""

    def compile(self, operations: Sequence[Operation]) -> Program:
        """Make one program of the operations, in this order; a single worker's reductions do not wait."""

    def active(self) -> AbstractContextManager[None]:
        """Let what the device's array library computes itself run in order with programs."""

    def shards(self, batch_size: int, work: float) -> int:
        """Return in how many shards a step is best trained side by side: 1 for none.

        Parameters
        ----------
        batch_size : int
            The rows that would be parted.
        work : float
            The step's floating-point operations, about.
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
        """Return how many threads best read ahead of the device: 0 for none."""

    def free_memory(self) -> int | None:
        """Return how many bytes the device has left, or None where its memory is the host's."""

    def numerics(self) -> dict[str, str]:
        """Return what the bits of a result depend on, beside the program and its data."""

    def matching_numerics(self, numerics: Mapping[str, str]) -> AbstractContextManager[None]:
        """Compute as under these numerics, as far as that can be chosen, while the context lasts."""

    def describe(self) -> dict[str, str]:
        """Return what `nnkit info` shows of the device."""
