"""Encode arrays: pixels stay uint8, other numbers are scaled in float64 and stored in the model's dtype."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnkit.core.features import Features
from nnkit.data.arrays import as_numbers, blocks, check_array, check_finite
from nnkit.data.operations import ArrayColumns
from nnkit.errors import DataError

__all__ = ["encode_array", "fit_array"]

# scikit-learn's digits count the ink of 4 × 4 pixels.
_DIGITS_MAXIMUM = 16


def fit_array(features: NDArray, rows: NDArray[np.integer] | None, scaling: str) -> ArrayColumns:
    """Return the scaling of the array's columns, read from the given rows (all without them)."""
    features = check_array(features, rows)
    count = features.shape[1]
    pixels = features.dtype == np.uint8
    if scaling == "none":
        return ArrayColumns(count, pixels, 0.0, 1.0)
    if pixels and scaling in ("auto", "unit"):
        return ArrayColumns(count, pixels, 0.0, 1.0 / _full_scale(features, rows))
    shift, spread = _range(features, rows) if scaling == "unit" else _moments(features, rows)
    if not (np.isfinite(shift).all() and np.isfinite(spread).all()):
        column = int(np.argmin(np.isfinite(shift) & np.isfinite(spread)))
        raise DataError(f"column {column} (counting from 0) holds values too large to be scaled: rescale it")
    # A column that was constant in training stays at 0 whatever comes: its weights have learned nothing.
    with np.errstate(divide="ignore", over="ignore"):
        scale = np.where(spread > 0, 1.0 / spread, 0.0)
    scale[~np.isfinite(scale)] = 0.0
    return ArrayColumns(count, pixels, shift, scale)


def _full_scale(features: NDArray, rows: NDArray[np.integer] | None) -> float:
    """Return the value that stands for white: 255, 16 for digits' counts of ink, 1 for bits."""
    largest = max(int(block.max()) for _, block in blocks(features, rows))
    if largest <= 1:
        return 1.0
    return float(_DIGITS_MAXIMUM) if largest <= _DIGITS_MAXIMUM else 255.0


def _range(
    features: NDArray, rows: NDArray[np.integer] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = _extremes(features, rows)
    with np.errstate(over="ignore"):
        return low, high - low


def _extremes(
    features: NDArray, rows: NDArray[np.integer] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lows, highs = zip(
        *((block.min(axis=0), block.max(axis=0)) for _, block in blocks(features, rows)), strict=True
    )
    return np.min(lows, axis=0).astype(np.float64), np.max(highs, axis=0).astype(np.float64)


def _moments(
    features: NDArray, rows: NDArray[np.integer] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation, in two passes over blocks of rows."""
    count = len(features) if rows is None else len(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.zeros(features.shape[1])
        for _, block in blocks(features, rows):
            mean += block.sum(axis=0, dtype=np.float64)
        mean /= count
        variance = np.zeros_like(mean)
        for _, block in blocks(features, rows):
            variance += np.square(block.astype(np.float64) - mean).sum(axis=0)
        low, high = _extremes(features, rows)
        # Rounding leaves a constant column a spread that is not quite 0.
        return mean, np.where(low == high, 0.0, np.sqrt(variance / count))


def encode_array(
    features: NDArray, operation: ArrayColumns, rows: NDArray[np.integer] | None, dtype: np.dtype
) -> Features:
    """Encode the rows (all, or the given ones)."""
    features = as_numbers(features)
    if features.shape[1] != operation.count:
        raise DataError(
            f"the features have {features.shape[1]} columns, the model was trained on {operation.count}"
        )
    if operation.pixels and features.dtype == np.uint8:
        dense = np.ascontiguousarray(features if rows is None else features[rows])
        return Features(dense, operation.shift_by_column, operation.scale_by_column)
    dense = np.empty((len(features) if rows is None else len(rows), operation.count), dtype=dtype)
    for place, block in blocks(features, rows):
        with np.errstate(over="ignore", invalid="ignore"):
            dense[place] = (block.astype(np.float64) - operation.shift) * operation.scale
        if not np.isfinite(dense[place]).all():
            check_finite(features, rows)  # what came in is named rather than what became of it
            row, column = (int(index) for index in np.argwhere(~np.isfinite(dense[place]))[0])
            row = place.start + row if rows is None else int(rows[place.start + row])
            raise DataError(
                f"row {row}, column {column} (counting from 0) is too large for {dtype}: rescale it"
            )
    return Features(dense)
