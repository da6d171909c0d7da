"""Statistics of the training rows, which a layer may use before its parameters are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.feed.features import Features

__all__ = ["ColumnStatistics", "Extreme", "RowStatistics"]


class Extreme(NamedTuple):
    """The least or the greatest value of a column of several."""

    value: float
    rows: int  # that have it
    nearest: float  # of the other values


class ColumnStatistics:
    """Statistics of one column of numbers, computed on request.

    Parameters
    ----------
    values : ndarray of shape (rows,), float64
        NaN where a value is missing; all others are finite.

    Attributes
    ----------
    count, missing : int
        The number of rows, and of those without a value. All statistics are of the other rows.
    """

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values = values
        absent = np.isnan(values)
        self.count, self.missing = len(values), int(absent.sum())
        self._present = values[~absent] if self.missing else values

    @cached_property
    def low(self) -> float:
        """The least value."""
        return float(self._present.min())

    @cached_property
    def high(self) -> float:
        """The greatest value."""
        return float(self._present.max())

    @cached_property
    def median(self) -> float:
        """The median."""
        return float(np.median(self._present))

    def moments(self, fill: float) -> tuple[float, float]:
        """Return mean and standard deviation of all rows, missing values replaced by `fill`."""
        values = np.where(np.isnan(self._values), fill, self._values) if self.missing else self._values
        return float(values.mean()), float(values.std())

    def quantiles(self, probabilities: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return quantiles, interpolated linearly."""
        return np.quantile(self._present, probabilities)

    def distinct(self, most: int) -> NDArray[np.float64] | None:
        """Return the distinct values, sorted; None if there are more than `most`."""
        values = np.unique(self._present)
        return values if len(values) <= most else None

    def distinct_quantiles(self, probabilities: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return quantiles of the distinct values, each counted once."""
        return np.quantile(np.unique(self._present), probabilities)

    def extremes(self) -> tuple[Extreme, Extreme]:
        """Return the least and the greatest value of a column that has two values or more."""
        values = self._present
        lower, higher = values[values != self.low], values[values != self.high]
        return (
            Extreme(self.low, len(values) - len(lower), float(lower.min())),
            Extreme(self.high, len(values) - len(higher), float(higher.max())),
        )


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

    def quantiles(
        self, column: int, probabilities: Sequence[float] | NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return a column's quantiles, interpolated linearly; 0.5 is the median."""
        return self._column(column).quantiles(probabilities)

    def distinct(self, column: int, most: int) -> NDArray[np.float64] | None:
        """Return a column's distinct values, sorted; None if there are more than `most`."""
        return self._column(column).distinct(most)

    def distinct_quantiles(
        self, column: int, probabilities: Sequence[float] | NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return quantiles of a column's distinct values, each counted once."""
        return self._column(column).distinct_quantiles(probabilities)

    def _column(self, column: int) -> ColumnStatistics:
        features = self._features
        rows = slice(None) if features.rows is None else features.rows
        values = features.dense[rows, column].astype(np.float64)
        if features.shift is not None:
            values -= features.shift[column]
        return ColumnStatistics(values if features.scale is None else values * features.scale[column])
