"""The CPU: NumPy arrays, NumPy's BLAS, and the fused loops of `nnkit.kernels.host`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.blas import usable_cores
from nnkit.backends.compiled import (
    Lowered,
    blas_thread_count,
    can_run_in_parallel,
    plain_team,
    plan_program,
    plan_team,
)
from nnkit.backends.operations import Array, Copy, Kernel, Operation, Product, split_at_reductions
from nnkit.backends.protocol import Program, Uploads
from nnkit.errors import DeviceError
from nnkit.kernels import host
from nnkit.kernels.native import Prepared

__all__ = ["NumpyBackend", "create"]


class NumpyBackend:
    """The CPU as a device."""

    name = "cpu"
    shares_host_memory = True
    precisions: tuple[str, ...] = ("fp32", "fp64")

    def with_precision(self, precision: str) -> NumpyBackend:
        return self

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.zeros(shape, dtype)

    def from_host(self, array: NDArray) -> Array:
        return _writable_alias(np.ascontiguousarray(array))

    def to_host(self, array: Array, rows: Array | None = None) -> NDArray:
        return np.array(array if rows is None else array[rows])

    def write(self, target: Array, values: object) -> None:
        target[...] = values

    def compile(self, operations: Sequence[Operation]) -> Program:
        stretches = split_at_reductions(operations)
        return _Sequence([_lowered(operation) for stretch in stretches for operation in stretch])

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def shards(self, batch_size: int, work: float) -> int:
        threads = blas_thread_count()
        worth_it = work >= _LEAST_WORK and batch_size >= threads * _FEWEST_SHARD_ROWS
        return threads if worth_it and can_run_in_parallel() else 1

    def compile_parallel(self, workers: Sequence[Sequence[Operation]]) -> Program:
        lowered = [
            [[_lowered(operation) for operation in stretch] for stretch in split_at_reductions(operations)]
            for operations in workers
        ]
        if max(map(_size, lowered)) > _MOST_COMPILED:
            calls = [[list(map(_call, stretch)) for stretch in stretches] for stretches in lowered]
            return plain_team(calls)
        team = plan_team(lowered)
        if team is not None:
            return team
        stretches = zip(*lowered, strict=True)
        return _Sequence([call for stretch in stretches for calls in stretch for call in calls])

    def synchronize(self) -> None:
        """Nothing to wait for: an operation is done when its call returns."""

    def uploads(self, slots: int, kind: str) -> Uploads:
        return _InPlace()

    def readers(self) -> int:
        # With a second core, a reader waits for the disk while the training computes. On a single core, the
        # two would only take turns.
        return int(usable_cores() > 1)

    def free_memory(self) -> None:
        """None, as the memory is the host's."""

    def numerics(self) -> dict[str, str]:
        from importlib.metadata import version

        from llvmlite.binding import get_host_cpu_name

        from nnkit.backends.blas import describe_blas

        blas = {key: value for key, value in describe_blas().items() if key != "cores"}
        versions = {"NumPy": np.__version__, "Numba": version("numba")}
        return {"device": "cpu", "processor": get_host_cpu_name(), **blas, **versions}

    def matching_numerics(self, numerics: Mapping[str, str]) -> AbstractContextManager[None]:
        from nnkit.backends.blas import blas_threads

        return blas_threads(numerics.get("BLAS threads", ""))

    def describe(self) -> dict[str, str]:
        from nnkit.backends.blas import describe_blas
        from nnkit.backends.tuning import better_core_type, processor_flags

        blas = describe_blas()
        better = better_core_type(blas.get("BLAS core type", ""), processor_flags())
        advice = f"OPENBLAS_CORETYPE={better} suits this processor better; nnkit train sets it"
        return blas if better is None else {**blas, "BLAS advice": advice}


class _InPlace:
    """Uploads where the host's memory is the device's."""

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[NDArray, Array]:
        array = np.zeros(shape, dtype)
        return array, array

    def prepare(self, slot: int) -> None:
        """Nothing is copied."""

    def send(self, slot: int, pairs: Sequence[tuple[NDArray, Array]]) -> None:
        """Nothing is copied: both arrays of a pair are the same."""

    def receive(self, slot: int) -> None:
        """Nothing to wait for."""

    def done(self, slot: int) -> None:
        """Nothing to record: the work is done when its call returns."""

    def synchronize(self) -> None:
        """Nothing is copied."""


# With less work, sharding saves less than the shards wait for each other; with fewer rows, products are slow.
_LEAST_WORK, _FEWEST_SHARD_ROWS = 2e7, 32
# The number of runs after which the cache is searched for a compiled program, and the number after which one
# is compiled, which takes 1 to 2 s and saves at least 7 µs a run.
_RUNS_TO_LOOK, _RUNS_TO_COMPILE = 8, 5_000
# The operations of a program that is compiled. The time grows faster than their number (15 took 9 s on a busy
# machine, 83 took 156 s there); members of an ensemble have many.
_MOST_COMPILED = 40


def _size(stretches: Sequence[Sequence[Lowered]]) -> int:
    return sum(map(len, stretches))


def _lowered(operation: Product | Copy | Kernel) -> Lowered:
    """Return a kernel as a call of its compiled loop; a product (BLAS) or copy (NumPy) stays as it is."""
    if not isinstance(operation, Kernel):
        return operation
    real: type[Any] = np.dtype(operation.dtype).type
    kernel = host.kernel(operation.name, np.dtype(real), operation.formulas, **operation.constants)
    bound = kernel.bind(operation.arguments, operation.constants)
    prepared: Prepared = kernel.entry.prepared([real(one) if type(one) is float else one for one in bound])
    return prepared


def _call(lowered: Lowered) -> Callable[[], object]:
    if isinstance(lowered, Product):
        # np.dot reaches BLAS half a microsecond sooner than np.matmul, transposed operands included.
        return partial(np.dot, lowered.a, lowered.b, lowered.out)
    return partial(np.copyto, lowered.target, lowered.source) if isinstance(lowered, Copy) else lowered


class _Sequence:
    """Calls one after the other: by Python or, with the same results, by a compiled loop."""

    def __init__(self, lowered: Sequence[Lowered]) -> None:
        self._lowered = lowered
        self._calls = tuple(map(_call, lowered))
        self._compiled: Callable[[int], object] | None = None
        self._runs = 0
        self._next = _RUNS_TO_LOOK if len(lowered) <= _MOST_COMPILED else sys.maxsize

    def run(self, count: int = 1) -> None:
        self._runs += count
        if self._runs >= self._next:
            self._compile()
        if self._compiled is not None:
            self._compiled(count)
            return
        # A product that overflows shows in the loss, which the trainer reads; NumPy need not warn of it too.
        with np.errstate(all="ignore"):
            for _ in range(count):
                for call in self._calls:
                    call()

    def _compile(self) -> None:
        """Load the compiled loop if it is in the cache; compile it if this program has run often."""
        often = self._runs >= _RUNS_TO_COMPILE
        plan = plan_program(self._lowered)
        self._compiled = None if plan is None else plan.load(only_cached=not often)
        done = plan is None or self._compiled is not None
        self._next = sys.maxsize if done else _RUNS_TO_COMPILE


class _Alias:
    """Another view of an array's memory, through NumPy's array interface, that is not marked read-only."""

    def __init__(self, array: NDArray) -> None:
        self._owner = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _writable_alias(array: NDArray) -> NDArray:
    # Numba would compile a kernel anew for a read-only array. No kernel writes to the arrays passed here.
    return array if array.flags.writeable or array.size == 0 else np.asarray(_Alias(array))


def create(device: str) -> NumpyBackend:
    """Return the backend for ``cpu``."""
    if device != "cpu":
        raise DeviceError(f"device {device!r}: the CPU has no number; use 'cpu'")
    return NumpyBackend()
