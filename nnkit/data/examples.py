"""Rows as they come from a source, before preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.pictures.columns import Pictures

if TYPE_CHECKING:
    import pyarrow as pa

    from nnkit.data.tables.schema import Schema

__all__ = ["Dataset", "Examples"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Features and target of the same rows.

    Parameters
    ----------
    features : pyarrow.Table, ndarray of shape (samples, p) or Pictures
        Named columns, numbers in their own dtype (pixels stay uint8), or decoded pictures.
    target : ndarray of shape (samples,) or (samples, k), or None
        Raw: strings (as objects), tuples of strings where a cell is a list, integers, floats or booleans.
    weight : ndarray of shape (samples,), float64, or None
        Sample weights.
    """

    features: pa.Table | NDArray | Pictures
    target: NDArray | None = None
    weight: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def array(self) -> NDArray[Any]:
        """The features of a source that is known to hold an array."""
        assert isinstance(self.features, np.ndarray)
        return self.features

    def take(self, rows: NDArray[np.integer]) -> Examples:
        """Return the given rows, copied; but for pictures, which stay where they are."""
        target = None if self.target is None else self.target[rows]
        weight = None if self.weight is None else self.weight[rows]
        if isinstance(self.features, Pictures):
            return Examples(self.features.take(rows), target, weight)
        if isinstance(self.features, np.ndarray):
            return Examples(self.features[rows], target, weight)
        from nnkit.data.tables.arrow import arrow_array

        return Examples(self.features.take(arrow_array(rows)), target, weight)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a source holds: the rows to train on, and the test set that came with them.

    Parameters
    ----------
    name : str
        The file's or the folder's name without its suffix, or the built-in's name.
    train : Examples
    test : Examples or None
    target_names : tuple of str
        The target's columns; empty where the source has no target.
    image_shape : tuple of int, or None
        The shape of one row where the rows are flattened images.
        Of `Pictures`, (channels, height, width).
    columns : tuple of str
        Every column of the source, those that are no features among them; empty for arrays.
    notes : tuple of str
        Words for the user on how it was read.
    schema : Schema or None
        How a table's columns were read.
    source : pyarrow.Table or None
        Of rows to predict, the table as its source holds it.
    """

    name: str
    train: Examples
    test: Examples | None = None
    target_names: tuple[str, ...] = ()
    image_shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    schema: Schema | None = None
    source: pa.Table | None = None
