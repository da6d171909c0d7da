"""Where rows come from, as the engine sees it; arrays in memory are one such source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array, Operation
from nnkit.feed.batch import Batch

__all__ = ["RowSource"]


class RowSource(Protocol):
    """Rows that fill batches: they lie on the device, or come to it a few batches at a time."""

    @property
    def count(self) -> int:
        """The number of rows."""

    @property
    def width(self) -> int:
        """The columns of a row's inputs, without what its bags are embedded in."""

    def batch(
        self,
        capacity: int,
        width: int | None = None,
        columns: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Batch:
        """Return an empty batch of at most `capacity` rows; see `nnkit.feed.batch.Rows.batch`."""

    def gather(
        self, batch: Batch, counters: Array, batch_size: int, row_offset: int | None = None
    ) -> Operation:
        """Return what fills a batch with the rows from ``counters[BATCH] * batch_size + row_offset`` on."""

    def whole(self) -> Batch | None:
        """Return all rows as one batch that needs no filling, or None where there is no such batch."""

    def most_tokens(self, rows: int) -> tuple[int, ...]:
        """Return the maximum number of ids in any batch of `rows` rows, for each of a row's bags."""

    def begin(self, order: NDArray[np.int64] | None) -> None:
        """Take the rows in an epoch's order, (count,); None keeps the storage order."""

    def stretches(self, first: int, count: int, batch_size: int) -> Iterable[tuple[int, int]]:
        """Return (first, count) of batches of the epoch, each on the device until the next is asked for."""

    def close(self) -> None:
        """End what reads ahead, until batches are asked for again."""
