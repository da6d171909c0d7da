"""Statistics of the training rows, which a layer may use before its parameters are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnkit.feed.features import Features

__all__ = ["RowStatistics"]


class RowStatistics:
    """Statistics of the columns of numbers, scaled as the network sees them; computed on request.

    Parameters
    ----------
    features : Features
        The rows; a sparse matrix has no columns of numbers.

    Attributes
    ----------
    count, columns : int
        The number of rows, and of columns of numbers: the first of a row's inputs.
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self.count = len(features)
        self.columns = int(features.dense.shape[1])

    def quantiles(self, column: int, probabilities: Sequence[float]) -> NDArray[np.float64]:
        """Return a column's quantiles, interpolated linearly; 0.5 is the median."""
        return np.quantile(self._column(column), probabilities)

    def distinct(self, column: int, most: int) -> NDArray[np.float64] | None:
        """Return a column's distinct values, sorted; None if there are more than `most`."""
        values = np.unique(self._column(column))
        return values if len(values) <= most else None

    def _column(self, column: int) -> NDArray[np.float64]:
        features = self._features
        rows = slice(None) if features.rows is None else features.rows
        values = features.dense[rows, column].astype(np.float64)
        if features.shift is not None:
            values -= features.shift[column]
        return values if features.scale is None else values * features.scale[column]
