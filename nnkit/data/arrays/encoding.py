"""Encode arrays: pixels stay uint8, other numbers are scaled in float64 and stored in the model's dtype.

An array mapped from a file stays there, and is scaled as a batch is filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from nnkit.data.arrays.reading import as_numbers, blocks, check_finite, first_bad
from nnkit.data.limits import memory_limit
from nnkit.data.operations import ArrayColumns, Rows
from nnkit.errors import DataError
from nnkit.feed.features import Features, can_stay_mapped, is_mapped

__all__ = ["encode_array", "fit_array"]

# scikit-learn's digits count the ink of 4 × 4 pixels.
_DIGITS_MAXIMUM = 16
# Spreads between 0 and a mean, for which float32 keeps the spread to 1 in 4000.
_FARTHEST = 4096.0


def fit_array(features: NDArray, rows: Rows, scaling: str) -> ArrayColumns:
    """Return the scaling of the array's columns, found in the given rows."""
    features = as_numbers(features)
    count = features.shape[1]
    pixels = features.dtype == np.uint8
    if scaling == "none":
        check_finite(features, rows)
        return ArrayColumns(count, pixels, 0.0, 1.0)
    if pixels and scaling in ("auto", "unit"):
        return ArrayColumns(count, pixels, 0.0, 1.0 / _full_scale(features, rows))
    with np.errstate(over="ignore", invalid="ignore"):
        found = reduce(_Summary.with_other, (_Summary.of(block) for _, block in blocks(features, rows)))
    if scaling == "unit":
        shift = found.low
        with np.errstate(over="ignore"):
            spread = found.high - found.low
    else:
        shift = found.mean
        # Rounding gives a constant column a deviation slightly above 0.
        spread = np.where(found.low == found.high, 0.0, np.sqrt(found.squares / found.count))
    if not (np.isfinite(shift).all() and np.isfinite(spread).all()):
        check_finite(features, rows)
        column = int(np.argmin(np.isfinite(shift) & np.isfinite(spread)))
        raise DataError(f"column {column} (counting from 0) holds values too large to be scaled: rescale it")
    # A column that was constant in training is always 0: its weights have learned nothing.
    with np.errstate(divide="ignore", over="ignore"):
        scale = np.where(spread > 0, 1.0 / spread, 0.0)
    scale[~np.isfinite(scale)] = 0.0
    return ArrayColumns(count, pixels, shift, scale)


def _full_scale(features: NDArray, rows: Rows) -> float:
    """Return the value of white: 255, 16 for digits' counts of ink, 1 for bits."""
    largest = max(int(block.max()) for _, block in blocks(features, rows))
    if largest <= 1:
        return 1.0
    return float(_DIGITS_MAXIMUM) if largest <= _DIGITS_MAXIMUM else 255.0


@dataclass
class _Summary:
    """The columns' moments and ranges; squares are about a block's own mean, which keeps their sum exact."""

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, block: NDArray) -> _Summary:
        """Return the summary of one block."""
        values = block.astype(np.float64)
        mean = values.mean(axis=0)
        low, high = values.min(axis=0), values.max(axis=0)
        return cls(len(block), mean, np.square(values - mean).sum(axis=0), low, high)

    def with_other(self, other: _Summary) -> _Summary:
        """Return the summary of both (Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115)."""
        count, apart = self.count + other.count, other.mean - self.mean
        return _Summary(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + np.square(apart) * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )


def encode_array(features: NDArray, operation: ArrayColumns, rows: Rows, dtype: np.dtype) -> Features:
    """Encode the rows."""
    features = as_numbers(features)
    if features.shape[1] != operation.count:
        raise DataError(
            f"the features have {features.shape[1]} columns, the model was trained on {operation.count}"
        )
    if is_mapped(features) and (kept := _kept_mapped(features, operation, rows, dtype)) is not None:
        return kept
    if operation.pixels and features.dtype == np.uint8:
        dense = np.ascontiguousarray(features if rows is None else features[rows])
        return Features(dense, operation.shift_by_column, operation.scale_by_column)
    dense = np.empty((len(features) if rows is None else len(rows), operation.count), dtype=dtype)
    for place, block in blocks(features, rows):
        with np.errstate(over="ignore", invalid="ignore"):
            dense[place] = (block.astype(np.float64) - operation.shift) * operation.scale
        if not np.isfinite(dense[place]).all():
            check_finite(features, rows)  # names a value of the input rather than the scaled one
            raise _too_large(dense[place], place, rows, dtype)
    return Features(dense)


def _kept_mapped(features: NDArray, operation: ArrayColumns, rows: Rows, dtype: np.dtype) -> Features | None:
    """Return rows that stay in their file, to be scaled as a batch is filled; None if they are better copied.

    A batch's gather casts before it scales, which loses the digits of a column with a small spread around a
    mean far from 0.
    """
    shift, scale = operation.shift_by_column, operation.scale_by_column
    far = np.abs(np.multiply(operation.shift, operation.scale)).max() if dtype.itemsize < 8 else 0.0
    exact = features.dtype.itemsize <= 2 or features.dtype == dtype or far <= _FARTHEST
    if not exact or not can_stay_mapped(features.dtype):
        if features.size * dtype.itemsize <= memory_limit():
            return None
        raise DataError(
            f"the rows are too large to be copied, and cannot be used from their file: save them as {dtype}, "
            "scaled"
        )
    picked = None if rows is None else np.asarray(rows, np.int64)
    if features.dtype.kind == "f":
        _check_scaled(features, operation, rows, dtype)
    return Features(features, shift, scale, rows=picked)


def _check_scaled(features: NDArray, operation: ArrayColumns, rows: Rows, dtype: np.dtype) -> None:
    """Raise if a number is not finite, or will not be once it is scaled."""
    for place, block in blocks(features, rows):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = ((block.astype(dtype) - operation.shift) * operation.scale).astype(dtype)
        if not np.isfinite(scaled).all():
            check_finite(features, rows)
            raise _too_large(scaled, place, rows, dtype)


def _too_large(values: NDArray, place: slice, rows: Rows, dtype: np.dtype) -> DataError:
    row, column = first_bad(~np.isfinite(values), place, rows)
    return DataError(f"row {row}, column {column} (counting from 0) is too large for {dtype}: rescale it")
