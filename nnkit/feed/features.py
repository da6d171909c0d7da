"""Encoded rows in their smallest type, from which the gather fills batches, and rows made from arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.errors import DataError

__all__ = ["Bags", "Features", "SparseRows", "can_stay_mapped", "features_from", "is_mapped"]

_BLOCK_BYTES = 1 << 20
_PIXEL_SCALE = 1 / 255


def is_mapped(array: Any) -> bool:
    """Whether an array, or its base, is mapped from a file; a copy of a `np.memmap` is not."""
    while array is not None and not isinstance(array, mmap):
        array = getattr(array, "base", None)
    return array is not None


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Compressed rows of a sparse matrix (CSR), each row's columns ascending and without duplicates.

    Parameters
    ----------
    values : ndarray of shape (numbers,)
        float32 or float64, without NaN.
    columns : ndarray of shape (numbers,), int64
        The column of each number.
    starts : ndarray of shape (samples + 1,), int64
        Row r has the numbers ``starts[r]:starts[r + 1]``.
    width : int
        The number of columns.
    """

    values: NDArray
    columns: NDArray[np.int64]
    starts: NDArray[np.int64]
    width: int

    def __post_init__(self) -> None:
        # The gather writes at these columns without a check.
        if self.columns.size and (self.columns.min() < 0 or self.columns.max() >= self.width):
            raise DataError("a sparse row has a number outside the matrix's columns")

    @classmethod
    def of(cls, matrix: Any, dtype: DTypeLike) -> SparseRows:
        """Return the rows of a SciPy sparse matrix, its numbers converted to `dtype`."""
        compressed = matrix.tocsr()
        if not compressed.has_canonical_format:
            compressed = compressed.copy()
            compressed.sum_duplicates()
        return cls(
            np.ascontiguousarray(compressed.data, dtype),
            np.ascontiguousarray(compressed.indices, np.int64),
            np.ascontiguousarray(compressed.indptr, np.int64),
            int(compressed.shape[1]),
        )

    def take(self, rows: NDArray[np.integer]) -> SparseRows:
        """Return the given rows, copied."""
        places, starts = _taken(self.starts, rows)
        return SparseRows(self.values[places], self.columns[places], starts, self.width)


@dataclass(frozen=True, eq=False)
class Bags:
    """A bag of ids for each row, which an `Embedding` looks up and reduces to one vector.

    Parameters
    ----------
    ids : ndarray of shape (tokens,), int32
        Rows of the embedding's table, in [0, size); in any order, with repetitions.
    starts : ndarray of shape (samples + 1,), int64
        Row r has the ids ``starts[r]:starts[r + 1]``.
    size : int
        The number of rows of the table.
    weights : ndarray of shape (tokens,) or None
        The weight of each id, float32 or float64, finite; None for 1.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    size: int
    weights: NDArray | None = None

    def __post_init__(self) -> None:
        # The lookup reads at these ids and starts without a check.
        starts = self.starts
        if len(starts) == 0 or starts[0] != 0 or starts[-1] != len(self.ids) or np.any(np.diff(starts) < 0):
            raise DataError("the starts of the bags do not divide their ids")
        if self.ids.size and (self.ids.min() < 0 or self.ids.max() >= self.size):
            raise DataError(f"a bag holds an id outside the embedding's {self.size} rows")
        if self.weights is not None and len(self.weights) != len(self.ids):
            raise DataError(f"there are {len(self.ids)} ids in bags and {len(self.weights)} weights")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, rows: NDArray[np.integer]) -> Bags:
        """Return the bags of the given rows, copied."""
        places, starts = _taken(self.starts, rows)
        weights = None if self.weights is None else self.weights[places]
        return Bags(self.ids[places], starts, self.size, weights)


def _taken(
    starts: NDArray[np.int64], rows: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the given rows' entries, and the rows' starts among these."""
    counts = np.diff(starts)[rows]
    taken = np.concatenate([[0], np.cumsum(counts)])
    return np.arange(taken[-1]) + np.repeat(starts[:-1][rows] - taken[:-1], counts), taken


@dataclass(frozen=True, eq=False)
class Features:
    """Encoded rows, ready to be gathered into batches.

    A batch's row is ``(dense - shift) * scale`` followed by a one-hot block for each column of `codes`.
    Pixels stay uint8 and categories stay codes until the gather casts them.

    Parameters
    ----------
    dense : ndarray of shape (samples, p), C-contiguous
        Numbers: uint8 pixels, or float32 (float64 for a training in float64), without NaN; of any length with
        `rows`. Mapped from a file they may have any memory layout, and be integers or floats of 4 or 8 bytes,
        in the machine's byte order.
    shift, scale : ndarray of shape (p,), float64, or None
        For each dense column; None for 0 and 1.
    codes : ndarray of shape (samples, k), int32, or None
        Category codes; column j lies in ``[0, cardinalities[j])``, or is -1 for no category: its block is 0.
    cardinalities : tuple of int
        The width of each one-hot block.
    sparse : SparseRows or None
        Replaces dense columns and codes: `dense` then has no columns.
    bags : tuple of Bags
        A bag for each row, for each `Embedding` that the network begins with, in their order.
    rows : ndarray of shape (samples,), int64, or None
        The selected rows of `dense`, which may be mapped from a file and is not copied. All other arrays have
        one row for each of them.
    picture : tuple of int, or None
        (channels, height, width), if the dense columns are a picture, channel after channel.
    """

    dense: NDArray
    shift: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    codes: NDArray[np.int32] | None = None
    cardinalities: tuple[int, ...] = field(default=())
    sparse: SparseRows | None = None
    bags: tuple[Bags, ...] = ()
    rows: NDArray[np.int64] | None = None
    picture: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        # The gather reads these rows, and writes at these codes, without a check.
        rows = self.rows
        if rows is not None and len(rows) and (rows.min() < 0 or rows.max() >= len(self.dense)):
            raise DataError(f"a row lies outside the {len(self.dense)} rows of numbers")
        if self.picture is not None and math.prod(self.picture) != self.dense.shape[1]:
            raise DataError(f"{self.dense.shape[1]} columns are not a picture of shape {self.picture}")
        for bags in self.bags:
            if len(bags) != len(self):
                raise DataError(f"there are {len(self)} rows of numbers and {len(bags)} bags")
        if self.sparse is not None and (self.dense.shape[1] or self.codes is not None):
            raise DataError("sparse rows go with neither dense columns nor codes")
        columns = 0 if self.codes is None else self.codes.shape[1]
        if columns != len(self.cardinalities):
            raise DataError(
                f"there are {columns} columns of codes and {len(self.cardinalities)} cardinalities"
            )
        if self.codes is None:
            return
        if len(self.codes) != len(self):
            raise DataError(f"there are {len(self)} rows of numbers and {len(self.codes)} rows of codes")
        if np.any(self.codes < -1) or np.any(self.codes >= np.array(self.cardinalities)):
            raise DataError("a category's code lies outside its column's cardinality")

    def __len__(self) -> int:
        return len(self.dense if self.rows is None else self.rows)

    @cached_property
    def width(self) -> int:
        """The number of the network's inputs, without embedded vectors."""
        sparse = 0 if self.sparse is None else self.sparse.width
        return int(self.dense.shape[1]) + sum(self.cardinalities) + sparse

    @property
    def mapped(self) -> bool:
        """Whether the dense numbers are mapped from a file."""
        return is_mapped(self.dense)

    @property
    def row_bytes(self) -> int:
        """The memory of a row's dense numbers and codes."""
        codes = 0 if self.codes is None else self.codes.shape[1] * self.codes.itemsize
        return int(self.dense.shape[1]) * self.dense.itemsize + codes

    def loaded(self) -> Features:
        """Return the same rows with their dense numbers copied into memory."""
        dense = np.empty((len(self), self.dense.shape[1]), self.dense.dtype)
        for first, block in self.dense_blocks():
            dense[first : first + len(block)] = block
        return replace(self, dense=dense, rows=None)

    def take(self, rows: NDArray[np.integer]) -> Features:
        """Return the given rows: copied, except dense numbers that are mapped or selected by `rows`."""
        picked = np.asarray(rows, np.int64) if self.mapped else None
        picked = picked if self.rows is None else self.rows[rows]
        return replace(
            self,
            dense=self.dense[rows] if picked is None else self.dense,
            codes=None if self.codes is None else self.codes[rows],
            sparse=None if self.sparse is None else self.sparse.take(rows),
            bags=tuple(bags.take(rows) for bags in self.bags),
            rows=picked,
        )

    def dense_blocks(self) -> Iterator[tuple[int, NDArray]]:
        """Yield the dense rows in blocks of about 1 MiB, each with the number of its first row."""
        step = max(1, _BLOCK_BYTES // max(1, self.dense.itemsize * self.dense.shape[1]))
        for first in range(0, len(self), step):
            place = slice(first, first + step)
            yield first, self.dense[place if self.rows is None else self.rows[place]]


def can_stay_mapped(dtype: np.dtype) -> bool:
    """Whether the gather can read numbers of this type directly from a file."""
    return dtype.isnative and (dtype.kind in "biu" or dtype in (np.float32, np.float64))


def features_from(X: ArrayLike | Features, dtype: DTypeLike, mapped: bool = False) -> Features:
    """Return numbers as features.

    A uint8 array, dense or sparse, holds pixels and is divided by 255. All other numbers are taken unchanged,
    and so are the columns of a data frame (pandas, Polars, Arrow), whatever their types.

    Parameters
    ----------
    X : array_like, SciPy sparse matrix or data frame of shape (samples, features), or Features
        Features are returned as they are.
    dtype : dtype
        The network's type; numbers other than pixels are converted to it.
    mapped : bool
        Whether an array mapped from a file stays mapped, and is converted as a batch is filled.

    Raises
    ------
    DataError
        If X is not a two-dimensional array of finite numbers, or has no rows.
    """
    if isinstance(X, Features):
        return X
    if hasattr(X, "tocsr"):
        return _sparse_features(X, dtype)
    frame = any(hasattr(X, name) for name in ("__dataframe__", "__arrow_c_stream__"))
    array = _columns_of(X) if frame else np.asarray(X)
    if array.ndim != 2:
        hint = "; reshape one row with X.reshape(1, -1)" if array.ndim == 1 else ""
        raise DataError(f"X has {array.ndim} dimensions and not 2, (samples, features){hint}")
    if len(array) == 0:
        raise DataError("X has no rows")
    mapped = mapped and is_mapped(array) and can_stay_mapped(array.dtype)
    if array.dtype == np.uint8 and not frame:
        pixels = array if mapped else np.ascontiguousarray(array)
        return Features(pixels, scale=np.full(array.shape[1], _PIXEL_SCALE))
    if array.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {array.dtype}, not numbers")
    if mapped:
        features = Features(array.view(np.uint8) if array.dtype == np.bool_ else array)
        for first, block in features.dense_blocks():
            _as_finite(block, dtype, first)
        return features
    return Features(_as_finite(array, dtype))


def _columns_of(frame: Any) -> NDArray:
    """Return a data frame as an array of numbers; NumPy makes objects of columns of different types."""
    array = np.asarray(frame)
    if array.dtype != object or array.ndim != 2:
        return array
    columns = [np.array(column.tolist()) for column in array.T]
    for place, column in enumerate(columns):
        if column.dtype.kind not in "biuf":
            raise DataError(_not_numbers(array[:, place], place))
    return np.stack(columns, axis=1)


def _not_numbers(column: NDArray, place: int) -> str:
    """Return the message for a column of objects that are not all numbers."""
    # A missing value is None, or pandas.NA, which is known by its type without importing pandas.
    missing = np.array([value is None or type(value).__name__ == "NAType" for value in column])
    if missing.any() and np.array(column[~missing].tolist()).dtype.kind in "biuf":
        row = int(np.argmax(missing))
        return f"X has no value at row {row}, column {place} (counting from 0); remove the row or impute it"
    return f"column {place} of X (counting from 0) holds no numbers; encode it"


def _as_finite(array: NDArray, dtype: DTypeLike, first: int = 0) -> NDArray:
    """Return numbers in another type; raise if one is not finite. `first` is the number of the first row."""
    with np.errstate(over="ignore"):
        dense = np.ascontiguousarray(array, dtype)
    if not np.isfinite(dense.sum()) and not np.isfinite(dense).all():
        row, column = np.argwhere(~np.isfinite(dense))[0]
        raise DataError(_not_finite(array[row, column], first + row, column, dense.dtype))
    return dense


def _sparse_features(X: Any, dtype: DTypeLike) -> Features:
    if X.shape[0] == 0:
        raise DataError("X has no rows")
    if X.dtype.kind not in "biuf":
        raise DataError(f"X has dtype {X.dtype}, not numbers")
    with np.errstate(over="ignore"):
        rows = SparseRows.of(X, dtype)
    if X.dtype == np.uint8:
        rows = replace(rows, values=rows.values * rows.values.dtype.type(_PIXEL_SCALE))
    if not np.isfinite(rows.values).all():
        place = int(np.argmin(np.isfinite(rows.values)))
        row = int(np.searchsorted(rows.starts, place, side="right")) - 1
        value = SparseRows.of(X, np.float64).values[place]
        raise DataError(_not_finite(value, row, rows.columns[place], rows.values.dtype))
    return Features(np.empty((X.shape[0], 0), dtype), sparse=rows)


def _not_finite(value: Any, row: int, column: int, dtype: np.dtype) -> str:
    """Return the message for a number of X that is not finite in `dtype`."""
    where = f"X holds {value} at row {row}, column {column} (counting from 0)"
    if np.isfinite(value):
        return f"{where}, which is too large for {dtype}; scale it, or compute in float64"
    return f"{where}, which is not finite; remove or impute it"
