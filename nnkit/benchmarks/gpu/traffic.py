"""What a fused kernel was prepared with, and the bytes that it has to move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import DTypeLike

from nnkit.backends.protocol import Array, Backend, Operation

__all__ = ["Call", "Recorder"]


@dataclass(frozen=True)
class Call:
    """The arguments of one call of `Backend.kernel`.

    Parameters
    ----------
    name, dtype, formulas, constants, arguments
        As `Backend.kernel` takes them.
    """

    name: str
    dtype: DTypeLike
    formulas: Mapping[str, Callable]
    constants: Mapping[str, bool | int | float]
    arguments: Mapping[str, Any]

    def prepare(self, backend: Backend, **changes: Any) -> Operation:
        """Prepare the kernel once more, some of its arguments changed."""
        arguments = {**self.arguments, **changes}
        return backend.kernel(self.name, self.dtype, self.formulas, self.constants, arguments)

    def reads(self) -> list[str]:
        """The arguments that hold what the kernel reads, apart from a handful of numbers."""
        return [name for name, used in _READS[self.name](self.constants) if used]

    def writes(self) -> list[str]:
        """The arguments that the kernel fills."""
        return [name for name, used in _WRITES[self.name](self.constants) if used]

    def moved(self, seen: int = 0) -> int:
        """The bytes of each array read, once, and of each array written, once.

        A gather is taken to read every row of its source, and a lookup every bag: a batch as large as the
        data set. Of a table, and of what goes with it, only the rows seen are read and written, each once.

        Parameters
        ----------
        seen : int
            How many rows of its table a kernel of an embedding sees.
        """
        return sum(self._bytes_of(name, seen) for name in (*self.reads(), *self.writes()))

    def _bytes_of(self, name: str, seen: int) -> int:
        array = self.arguments[name]
        if self.name in _OF_ROWS and name in _ROW_BY_ROW:
            return seen * int(array.nbytes) // len(array)
        return int(array.nbytes)


_Constants = Mapping[str, Any]
_Uses = Iterator[tuple[str, Any]]


def _gather_reads(flags: _Constants) -> _Uses:
    yield from (("source", True), ("order", flags["SHUFFLED"]), ("codes", flags["CODES"]))
    yield from (("shift", flags["SCALED"]), ("scale", flags["SCALED"]))
    yield from (("targets", flags["TARGETS"]), ("weights", flags["WEIGHTED"]))


def _gather_writes(flags: _Constants) -> _Uses:
    yield from (("inputs", True), ("labels", flags["TARGETS"]), ("batch_weights", flags["WEIGHTED"]))


def _forward_reads(flags: _Constants) -> _Uses:
    yield from (("z", True), ("bias", flags["BIAS"]))


def _forward_writes(flags: _Constants) -> _Uses:
    yield from (("z", True), ("a", flags["KEEP_Z"]), ("mask", flags["DROPOUT"]))


def _backward_reads(flags: _Constants) -> _Uses:
    yield from (("delta", True), ("z" if flags["FROM_Z"] else "a", True), ("mask", flags["DROPOUT"]))


def _backward_writes(flags: _Constants) -> _Uses:
    yield from (("delta", True), ("bias_gradient", flags["BIAS"]))


def _loss_reads(flags: _Constants) -> _Uses:
    yield from (("outputs", True), ("labels", True), ("bias", flags["BIAS"]))
    yield "batch_weights", flags["WEIGHTED"]


def _loss_writes(flags: _Constants) -> _Uses:
    yield from (("gradient", flags["GRADIENT"]), ("bias_gradient", flags["BIAS"] and flags["GRADIENT"]))


def _update_state(flags: _Constants) -> _Uses:
    yield from ((f"state{slot}", True) for slot in range(flags["SLOTS"]))


def _update_reads(flags: _Constants) -> _Uses:
    yield from (("values", True), ("gradients", True), *_update_state(flags))


def _update_writes(flags: _Constants) -> _Uses:
    yield from (("values", True), *_update_state(flags))


def _numbering_reads(flags: _Constants) -> _Uses:
    yield from (("ids", True), ("starts", True), ("order", flags["SHUFFLED"]))


def _numbering_writes(flags: _Constants) -> _Uses:
    # What a sort holds in between is not counted.
    yield from (("owners", True), ("offsets", flags["MAX"] or flags["WEIGHTED"]), ("runs", True))
    yield from (("run_starts", True), ("rows_seen", True))


def _lookup_reads(flags: _Constants) -> _Uses:
    yield from (("table", True), ("ids", True), ("starts", True), ("order", flags["SHUFFLED"]))
    yield "id_weights", flags["WEIGHTED"]


def _lookup_writes(flags: _Constants) -> _Uses:
    yield from (("inputs", True), ("totals", flags["MEAN"]), ("peaks", flags["MAX"] and flags["GRADIENT"]))


def _table_gradient_reads(flags: _Constants) -> _Uses:
    # Of each token its run and its row; of each row its derivative, however many tokens it has.
    yield from (("delta", True), ("runs", True), ("owners", True), ("totals", flags["MEAN"]))
    yield "offsets", flags["MAX"] or flags["WEIGHTED"]
    yield from (("peaks", flags["MAX"]), ("id_weights", flags["WEIGHTED"]))


def _rows_update_reads(flags: _Constants) -> _Uses:
    yield from (("table", True), ("gradient", True), ("rows_seen", True), *_update_state(flags))


def _rows_update_writes(flags: _Constants) -> _Uses:
    yield from (("table", True), *_update_state(flags))


# Of a kernel over the rows of a table that a batch saw, the arrays of which it touches those rows alone.
_OF_ROWS = frozenset(
    {"number", "embed", "embed_gradient", "penalise_rows", "squared_norm_rows", "update_rows"}
)
_ROW_BY_ROW = frozenset({"table", "gradient", "rows_seen", "run_starts", "state0", "state1"})
_READS: Mapping[str, Callable[[_Constants], _Uses]] = {
    "gather": _gather_reads,
    "forward": _forward_reads,
    "softmax_loss": _loss_reads,
    "elementwise_loss": _loss_reads,
    "backward": _backward_reads,
    "penalise": lambda flags: iter((("values", True), ("gradients", True))),
    "squared_norm": lambda flags: iter((("gradients", True),)),
    "update": _update_reads,
    "number": _numbering_reads,
    "embed": _lookup_reads,
    "embed_gradient": _table_gradient_reads,
    "penalise_rows": lambda flags: iter((("table", True), ("gradient", True), ("rows_seen", True))),
    "squared_norm_rows": lambda flags: iter((("gradient", True),)),
    "update_rows": _rows_update_reads,
}
_WRITES: Mapping[str, Callable[[_Constants], _Uses]] = {
    "gather": _gather_writes,
    "forward": _forward_writes,
    "softmax_loss": _loss_writes,
    "elementwise_loss": _loss_writes,
    "backward": _backward_writes,
    "penalise": lambda flags: iter((("gradients", True),)),
    "squared_norm": lambda flags: iter(()),
    "update": _update_writes,
    "number": _numbering_writes,
    "embed": _lookup_writes,
    "embed_gradient": lambda flags: iter((("gradient", True),)),
    "penalise_rows": lambda flags: iter((("gradient", True),)),
    "squared_norm_rows": lambda flags: iter(()),
    "update_rows": _rows_update_writes,
}


class Recorder:
    """A backend that keeps what its kernels are prepared with.

    It has no product that takes a kernel's place, and parts no step: a shard's kernels have a part of the
    rows.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def shards(self, batch_size: int, work: float) -> int:
        """1: a kernel is to be measured on the whole batch."""
        return 1

    def matmul_relu(self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None) -> None:
        """None: the forward kernel is to be measured."""

    def matmul_relu_gradient(self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array) -> None:
        """None: the backward kernel is to be measured."""

    def kernel(
        self,
        name: str,
        dtype: DTypeLike,
        formulas: Mapping[str, Callable],
        constants: Mapping[str, bool | int | float],
        arguments: Mapping[str, Any],
    ) -> Operation:
        """Prepare the kernel, and keep what it was prepared with."""
        self.calls.append(Call(name, dtype, formulas, constants, arguments))
        return self.backend.kernel(name, dtype, formulas, constants, arguments)
