"""What a batch is filled from: rows in their smallest type, and the cast that a batch's gather applies."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.errors import DataError

__all__ = ["Features", "features_from"]


@dataclass(frozen=True, eq=False)
class Features:
    """Encoded rows, ready to be gathered into batches.

    A batch's row is ``(dense - shift) * scale`` followed by one one-hot block for each column of `codes`.
    Pixels stay uint8 and categories stay codes here; the gather casts them as it fills the batch.

    Parameters
    ----------
    dense : ndarray of shape (samples, p), C-contiguous
        Numbers: uint8 pixels, or float32 (float64 where the training is in float64), without NaN.
    shift, scale : ndarray of shape (p,), float64, or None
        Applied to each dense column; None stands for 0 and for 1.
    codes : ndarray of shape (samples, k), int32, or None
        Category codes; column j lies in ``[0, cardinalities[j])``.
    cardinalities : tuple of int
        The width of each one-hot block.
    """

    dense: NDArray
    shift: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    codes: NDArray[np.int32] | None = None
    cardinalities: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        columns = 0 if self.codes is None else self.codes.shape[1]
        if columns != len(self.cardinalities):
            raise DataError(
                f"there are {columns} columns of codes and {len(self.cardinalities)} cardinalities"
            )
        if self.codes is None:
            return
        if len(self.codes) != len(self.dense):
            raise DataError(
                f"there are {len(self.dense)} rows of numbers and {len(self.codes)} rows of codes"
            )
        # The gather writes where a code says.
        if np.any(self.codes < 0) or np.any(self.codes >= np.array(self.cardinalities)):
            raise DataError("a category's code lies outside its column's cardinality")

    def __len__(self) -> int:
        return int(self.dense.shape[0])

    @cached_property
    def width(self) -> int:
        """The number of inputs a row gives the network."""
        return int(self.dense.shape[1]) + sum(self.cardinalities)

    def take(self, rows: NDArray[np.integer]) -> Features:
        """Return the given rows, copied."""
        codes = None if self.codes is None else self.codes[rows]
        return Features(self.dense[rows], self.shift, self.scale, codes, self.cardinalities)


def features_from(X: ArrayLike | Features, dtype: DTypeLike) -> Features:
    """Return plain numbers as features: uint8 are pixels, divided by 255; others are taken as they are.

    Parameters
    ----------
    X : array_like of shape (samples, features), or Features
        Returned as it is if it is Features already.
    dtype : dtype
        The network's; numbers that are not uint8 are converted to it.

    Raises
    ------
    DataError
        If X is not a table of finite numbers, or has no rows.
    """
    if isinstance(X, Features):
        return X
    array = np.asarray(X)
    if array.ndim != 2:
        hint = "; reshape one row with X.reshape(1, -1)" if array.ndim == 1 else ""
        raise DataError(f"X has {array.ndim} dimensions and not 2, (samples, features){hint}")
    if len(array) == 0:
        raise DataError("X has no rows")
    if array.dtype == np.uint8:
        return Features(np.ascontiguousarray(array), scale=np.full(array.shape[1], 1 / 255))
    if array.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {array.dtype}, not numbers")
    with np.errstate(over="ignore"):
        dense = np.ascontiguousarray(array, dtype)
    if not np.isfinite(dense.sum()) and not np.isfinite(dense).all():
        row, column = np.argwhere(~np.isfinite(dense))[0]
        raise DataError(
            f"X holds {array[row, column]} at row {row}, column {column}, which is no finite {dense.dtype}; "
            "remove, impute or scale it"
        )
    return Features(dense)
