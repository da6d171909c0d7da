"""Requests for a source of data, and rows as they come from it, before preprocessing.

Order: the request, a table that is not yet read, examples, a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.pictures.columns import PictureOptions, Pictures
from nnkit.data.tables.options import TableOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from nnkit.data.tables.schema import Schema

__all__ = ["Dataset", "Examples", "Key", "LoadRequest", "RawTable", "split_keys"]

Key = str | int
"""A column's name, or its number: negative ones count from the end."""


@dataclass(frozen=True)
class LoadRequest:
    """The arguments of `nnkit.data.sources.loading.load_dataset`, which says what they mean."""

    target: list[Key] | None = None
    features: Sequence[Key] | None = None
    drop: Sequence[Key] | None = None
    require_target: bool = True
    pictures: PictureOptions = field(default_factory=PictureOptions)
    mapped: bool = False
    table: TableOptions = field(default_factory=TableOptions)
    schema: Schema | None = None
    strict: bool = True
    multilabel: bool = False
    target_like: Sequence[str] = ()


def split_keys(keys: Sequence[Key], names: Sequence[str]) -> list[Key]:
    """Return columns' names and numbers, with "a,b" as two of them unless a column is called "a,b"."""
    found: list[Key] = []
    for key in keys:
        apart = isinstance(key, str) and "," in key and key not in names
        found += [part.strip() for part in str(key).split(",") if part.strip()] if apart else [key]
    return found


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as its source holds it, before a schema says what its cells mean.

    From text every cell is the string in the file, with its blanks and words for missing values; from
    other formats the columns have types, and null is missing.
    """

    table: pa.Table
    named: bool = True  # whether the source names its columns; else they are called "0", "1", and so on
    separator: str = ""  # of delimited text, "whitespace" for runs of spaces or tabs; else ""
    index: tuple[str, ...] = ()  # columns that only number or name the rows, such as pandas's index
    notes: tuple[str, ...] = ()  # for the user, on how the source was read


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
        """The features, which must be an array."""
        assert isinstance(self.features, np.ndarray)
        return self.features

    def take(self, rows: NDArray[np.integer]) -> Examples:
        """Return the given rows, copied, except pictures, which stay where they are."""
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
        The shape of one row of flattened images; (channels, height, width) for `Pictures`.
    columns : tuple of str
        Every column of the source, features or not; empty for arrays.
    notes : tuple of str
        Notes for the user on how it was read.
    schema : Schema or None
        How a table's columns were read.
    source : pyarrow.Table or None
        For rows to predict, the table as its source holds it.
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
