"""What stands between the backward pass and the update, where several workers share a batch.

One worker reduces nothing. The workers of `Threads` are the processor's cores, each with one-threaded
products of its own: no core ever waits for another one's part of a product. They meet after the backward
pass, when each adds up the gradients of its share of the parameters and updates these, and after the update;
once more in between where a penalty or a norm is of all parameters. On two cores, 784-512-512-10 at batch 128
takes 2.85 ms so; with two BLAS threads, which spin while one-threaded code runs, 2.92 or, where the machine
is in its slow mode, 5.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Kernel, Operation, Reduce
from nnkit.engine.parameters import Arena
from nnkit.kernels.layout import SCALARS, SEGMENT_START, SEGMENT_STOP

__all__ = ["OneWorker", "Reducer", "Threads"]

_ALIGNMENT = 32  # elements, as segments are aligned


class Reducer(Protocol):
    """How the gradients of several workers become one, and who updates what."""

    counts_rows: bool
    """Whether the reduction, and not the loss's kernel, weighs a batch's mean by its rows."""

    def gradient(self, worker: int) -> Array | None:
        """Return where a worker's gradient goes, (size,); None for the step's own array."""

    def scalars(self, worker: int) -> Array | None:
        """Return where a worker's sums go, (SCALARS,); None for the step's own array."""

    def begin(self, worker: int) -> list[Operation]:
        """Return what comes before a worker's batch."""

    def reduce(self, worker: int, rows: int) -> list[Operation]:
        """Return what follows a worker's backward pass; its share of the gradient is then of all rows.

        Parameters
        ----------
        worker : int
            From 0.
        rows : int
            Of the whole batch.
        """

    def share(self, worker: int) -> Mapping[str, Any]:
        """Return the arrays that a worker's penalties and norm are of, by the kernels' names for them."""

    def reduce_norms(self, worker: int) -> list[Operation]:
        """Return what follows a worker's penalties and norm; its scalars are then of all parameters."""

    def updated(self, worker: int) -> Mapping[str, Any]:
        """Return the arrays that a worker's update reads and writes, by the kernel's names for them."""

    def gradients(self) -> list[Array]:
        """Return what adds up to the last batch's gradient, each (size,); none for the step's own array."""


class OneWorker:
    """One worker has all rows: there is nothing to reduce."""

    counts_rows = False

    def gradient(self, worker: int) -> None:
        """None: the step's own."""

    def scalars(self, worker: int) -> None:
        """None: the step's own."""

    def begin(self, worker: int) -> list[Operation]:
        return []

    def reduce(self, worker: int, rows: int) -> list[Operation]:
        return []

    def share(self, worker: int) -> Mapping[str, Any]:
        return {}

    def reduce_norms(self, worker: int) -> list[Operation]:
        return []

    def updated(self, worker: int) -> Mapping[str, Any]:
        return {}

    def gradients(self) -> list[Array]:
        return []


class Threads:
    """Workers that share memory: each reduces, and updates, a share of the parameters.

    Parameters
    ----------
    arena : Arena
        The parameters.
    count : int
        The number of workers.
    scalars : array of shape (SCALARS,), float64
        The epoch's sums.
    by_rows : bool
        Whether a batch's mean loss counts by its rows in the epoch's.
    plain : bool
        Whether nothing is done to a batch's gradient before the update, which then adds the last worker's
        gradient as it goes.
    """

    counts_rows = True

    def __init__(self, arena: Arena, count: int, scalars: Array, by_rows: bool, plain: bool) -> None:
        backend = arena.backend
        self._dtype = arena.dtype
        self._scalars = scalars
        self._by_rows = by_rows
        self._plain = plain
        self._gradients = backend.zeros((count, arena.size), arena.dtype)
        self._parts = backend.zeros((count, SCALARS), np.float64)
        self._figures = backend.zeros((count, SCALARS), np.float64)
        self._own = [backend.zeros(SCALARS, np.float64) for _ in range(count)]
        factors, shares = arena.rate_factors(), _shares(arena.table(), arena.size, count)
        self._segments = [backend.from_host(share) for share, _ in shares]
        self._rate_factors = [backend.from_host(factors[kept]) for _, kept in shares]

    def gradient(self, worker: int) -> Array:
        return self._gradients[worker]

    def scalars(self, worker: int) -> Array:
        return self._parts[worker]

    def begin(self, worker: int) -> list[Operation]:
        return [self._kernel("clear", {}, {"scalars": self._parts[worker]})]

    def reduce(self, worker: int, rows: int) -> list[Operation]:
        arguments = {
            "gradients": self._gradients,
            "segments": self._segments[worker],
            "parts": self._parts,
            "own": self._figures[worker],
            "scalars": self._scalars,
            "rows": rows,
        }
        flags = {"LEAD": worker == 0, "BY_ROWS": self._by_rows, "FOLDED": self._plain}
        return [Reduce(self._kernel("combine", flags, arguments))]

    def share(self, worker: int) -> Mapping[str, Any]:
        shared = {"gradients": self._gradients[0], "segments": self._segments[worker]}
        return {**shared, "scalars": self._figures[worker]}

    def reduce_norms(self, worker: int) -> list[Operation]:
        if self._plain:
            return []
        arguments = {"figures": self._figures, "own": self._own[worker], "scalars": self._scalars}
        return [Reduce(self._kernel("settle", {"LEAD": worker == 0}, arguments))]

    def updated(self, worker: int) -> Mapping[str, Any]:
        given = {**self.share(worker), "rate_factors": self._rate_factors[worker]}
        return given | ({"last": self._gradients[-1]} if self._plain else {"scalars": self._own[worker]})

    def gradients(self) -> list[Array]:
        return [self._gradients[0], self._gradients[-1]] if self._plain else [self._gradients[0]]

    def _kernel(self, name: str, constants: Mapping[str, bool], arguments: Mapping[str, Any]) -> Kernel:
        return Kernel(name, self._dtype, {}, constants, arguments)


def _shares(
    table: NDArray[np.int64], size: int, count: int
) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Return the segments' table cut into shares of about one length, each at the end of a cache line.

    With each share, which of the segments have a part in it.
    """
    bounds = [size * number // count // _ALIGNMENT * _ALIGNMENT for number in range(count)] + [size]
    shares = []
    for low, high in pairwise(bounds):
        share = table.copy()
        share[:, SEGMENT_START] = np.clip(share[:, SEGMENT_START], low, high)
        share[:, SEGMENT_STOP] = np.clip(share[:, SEGMENT_STOP], low, high)
        kept = share[:, SEGMENT_STOP] > share[:, SEGMENT_START]
        shares.append((share[kept], kept))
    return shares
