"""Rows of different lengths in one array: row r has the entries from ``starts[r]`` to ``starts[r + 1]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Ragged", "chained", "starts_of"]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of whole numbers.

    Parameters
    ----------
    values : ndarray of shape (entries,), int64
        The rows' entries, one row after the other.
    starts : ndarray of shape (rows + 1,), int64
        Where each begins, and the end.
    """

    values: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of entries of each row, shape (rows,)."""
        return np.diff(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row that each entry is of, shape (entries,)."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    def only(self, kept: NDArray[np.bool_]) -> Ragged:
        """Return the rows without the entries whose flag is False."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return Ragged(self.values[kept], before[self.starts])

    def replaced(self, rows: Ragged) -> Ragged:
        """Return each entry v replaced by all entries of ``rows``' row v."""
        lengths = rows.lengths[self.values]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(ends[-1]) + np.repeat(rows.starts[:-1][self.values] - ends[:-1], lengths)
        return Ragged(rows.values[places], ends[self.starts])


def starts_of(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where rows of these lengths begin, and the end of the last."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])


def chained(parts: Sequence[Ragged]) -> Ragged:
    """Return rows that hold the first part's entries, then the second's, and so on; all have as many rows."""
    if len(parts) == 1:
        return parts[0]
    starts = np.sum([part.starts for part in parts], axis=0)
    values = np.empty(int(starts[-1]), np.int64)
    places = starts[:-1].copy()
    for part in parts:
        values[np.arange(len(part.values)) + np.repeat(places - part.starts[:-1], part.lengths)] = part.values
        places += part.lengths
    return Ragged(values, starts)
