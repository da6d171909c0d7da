"""A step whose rows are parted among the processor's cores, each with one-threaded products of its own.

No core ever waits for another one's part of a product. They meet after the backward pass, when each adds up
the gradients of its share of the parameters and updates these, and after the update; once more in between
where a penalty or a norm is of all parameters. On two cores, 784-512-512-10 at batch 128 takes 2.85 ms in
shards; with two BLAS threads, which spin while one-threaded code runs, 2.92 or, where the machine is in its
slow mode, 5.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array, Operation, Program
from nnkit.core.batch import Batch
from nnkit.core.passes import Passes
from nnkit.kernels.layout import COUNTERS, SCALARS, SEGMENT_START, SEGMENT_STOP

if TYPE_CHECKING:
    from nnkit.core.step import Step

__all__ = ["Shards"]

_ALIGNMENT = 32  # elements, as segments are aligned


@dataclass(frozen=True)
class _Shard:
    """What one core has: its rows' buffers, its gradient, its share of the parameters, its figures."""

    offset: int
    passes: Passes
    batch: Batch
    counters: Array
    segments: Array
    part: Array
    figures: Array
    own: Array


class Shards:
    """The shards of a step.

    Parameters
    ----------
    step : Step
        With everything that it shares: parameters, optimizer state, rates, the epoch's figures.
    count : int
        How many shards.
    """

    def __init__(self, step: Step, count: int) -> None:
        backend, arena = step.arena.backend, step.arena
        self._step = step
        self._gradients = backend.zeros((count, arena.size), arena.dtype)
        self._parts = backend.zeros((count, SCALARS), np.float64)
        self._figures = backend.zeros((count, SCALARS), np.float64)
        self._capacity = -(-step.batch_size // count)
        shares = _parted(arena.table(), arena.size, count)
        self._shards = [self._shard(number, share) for number, share in enumerate(shares)]

    def _shard(self, number: int, share: NDArray[np.int64]) -> _Shard:
        step = self._step
        backend = step.arena.backend
        offset = number * self._capacity
        return _Shard(
            offset,
            Passes(step.stages, step.arena, self._capacity, True, self._gradients[number], row_offset=offset),
            step.rows.batch(self._capacity),
            step.counters if number == 0 else backend.zeros(COUNTERS, np.int64),
            backend.from_host(share),
            self._parts[number],
            self._figures[number],
            backend.zeros(SCALARS, np.float64),
        )

    def begin(self) -> None:
        """Give every shard the step's counters."""
        backend = self._step.arena.backend
        for shard in self._shards[1:]:
            backend.write(shard.counters, self._step.counters)

    def seen(self) -> list[tuple[Passes, int]]:
        """Return each shard's passes and how many rows a full batch gives it."""
        rows = self._step.batch_size
        return [(shard.passes, min(self._capacity, rows - shard.offset)) for shard in self._shards]

    def gradients(self) -> list[Array]:
        """Return what adds up to the last batch's gradient, each (size,)."""
        return [self._gradients[0], self._gradients[-1]] if self._step.plain else [self._gradients[0]]

    def program(self, rows: int) -> Program | None:
        """Return the program for batches of so many rows, or None where a shard would have none."""
        if rows <= self._shards[-1].offset:
            return None
        return self._step.arena.backend.side_by_side([self._phases(shard, rows) for shard in self._shards])

    def _phases(self, shard: _Shard, rows: int) -> list[list[Operation]]:
        """Return one shard's operations, between which the shards wait for each other."""
        step = self._step
        batch = shard.batch.first(min(self._capacity, rows - shard.offset))
        gather = step.rows.gather(batch, shard.counters, step.batch_size, shard.offset)
        gradient = step.gradient(shard.passes, batch, shard.counters, shard.part)
        first = [self._kernel("clear", {"scalars": shard.part}, {}), gather, *gradient]
        lead = {"LEAD": shard is self._shards[0]}
        combined = {
            "gradients": self._gradients,
            "segments": shard.segments,
            "parts": self._parts,
            "own": shard.figures,
            "scalars": step.scalars,
            "rows": rows,
        }
        combine = self._kernel("combine", combined, {**lead, "BY_ROWS": step.by_rows, "FOLDED": step.plain})
        shared: dict[str, object] = {"gradients": self._gradients[0], "segments": shard.segments}
        counted = {**shared, "counters": shard.counters}
        if step.plain:
            update = step.update({**counted, "last": self._gradients[-1], "scalars": shard.figures})
            return [first, [combine, update]]
        totals = [combine, *step.regularise({**shared, "scalars": shard.figures})]
        settled = {"figures": self._figures, "own": shard.own, "scalars": step.scalars}
        update = step.update({**counted, "scalars": shard.own})
        return [first, totals, [self._kernel("settle", settled, lead), update]]

    def _kernel(self, name: str, arguments: Mapping[str, object], constants: Mapping[str, bool]) -> Operation:
        arena = self._step.arena
        return arena.backend.kernel(name, arena.dtype, {}, constants, arguments)


def _parted(table: NDArray[np.int64], size: int, count: int) -> list[NDArray[np.int64]]:
    """Return the segments' table parted into shares of about one length, cut where lines of the cache end."""
    bounds = [size * number // count // _ALIGNMENT * _ALIGNMENT for number in range(count)] + [size]
    shares = []
    for low, high in pairwise(bounds):
        share = table.copy()
        share[:, SEGMENT_START] = np.clip(share[:, SEGMENT_START], low, high)
        share[:, SEGMENT_STOP] = np.clip(share[:, SEGMENT_STOP], low, high)
        shares.append(share[share[:, SEGMENT_STOP] > share[:, SEGMENT_START]])
    return shares
