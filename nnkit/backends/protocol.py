"""What a device can do: hold arrays, prepare operations on them, and run a list of operations as one program.

An operation is prepared once, with every array it will ever touch, and run many times. So a backend can
choose its algorithm, wrap its buffers and compile when it prepares, and a program is free to be a loop over
calls or one captured graph. A backend's arrays slice, reshape and transpose as NumPy's do; nothing else is
asked of them: whatever computes or picks rows by number is a method here, for a GPU does it in order with
the work around it only on its own stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from numpy.typing import DTypeLike, NDArray

__all__ = ["Array", "Backend", "Operation", "Program", "Uploads"]

Array = Any
Operation = Callable[[], object]


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

    def computing(self, precision: str) -> Backend:
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

    def copy(self, source: Array, target: Array) -> Operation:
        """Prepare a copy between two device arrays of one shape and dtype."""

    def matmul(self, a: Array, b: Array, out: Array) -> Operation:
        """Prepare ``out = a @ b``; `a` and `b` are C-contiguous or the transpose of such.

        All of one dtype; where `a` and `b` have 16 bits, sums are float32's, and `out` may be float32.
        """

    def matmul_relu(
        self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None
    ) -> Operation | None:
        """Prepare ``out = max(a @ b + bias, 0)`` as one operation, or return None where there is none.

        NaN and infinity are as `nnkit.kernels.formulas.relu` has them. `bias` is of the type of `out`.

        `mask`, (rows, ⌈columns / 128⌉ · 16) uint8, keeps a bit an output for `matmul_relu_gradient`, in an
        order of the device's own; None where no backward pass follows.
        """

    def matmul_relu_gradient(
        self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array
    ) -> Operation | None:
        """Prepare ``out = (a @ b) * mask`` with its column sums, or return None where there is none.

        `a`, `b` and `out` have the dtypes that they had in the call of `matmul_relu` that keeps the mask: a
        device may support the pair for some dtypes and not for others.

        The mask is 0 where `nnkit.kernels.formulas.relu_derivative` is: at an output of 0 too.
        """

    def kernel(
        self,
        name: str,
        dtype: DTypeLike,
        formulas: Mapping[str, Callable],
        constants: Mapping[str, bool | int | float],
        arguments: Mapping[str, Any],
    ) -> Operation:
        """Prepare a fused kernel of `nnkit.kernels`; arguments it does not take are left out.

        Of the `constants`, a bool or an int makes a kernel of its own; a float, which is a
        hyperparameter of a formula, is one more argument.
        """

    def program(self, operations: Sequence[Operation]) -> Program:
        """Make one program of the operations, in this order."""

    def shards(self, batch_size: int, work: float) -> int:
        """Return in how many shards a step is best trained side by side: 1 for none.

        Parameters
        ----------
        batch_size : int
            The rows that would be parted.
        work : float
            The step's floating-point operations, about.
        """

    def side_by_side(self, shards: Sequence[Sequence[Sequence[Operation]]]) -> Program:
        """Make one program of several shards' phases, run at once where the device can.

        A phase, a list of operations, begins when all shards have ended the phase before it.
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

    def computing_like(self, numerics: Mapping[str, str]) -> AbstractContextManager[None]:
        """Compute as under these numerics, as far as that can be chosen, while the context lasts."""

    def describe(self) -> dict[str, str]:
        """Return what `nnkit info` shows of the device."""
