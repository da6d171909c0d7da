"""The operations of preprocessing, declared as data: JSON in and out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data import json_fields
from nnkit.data.limits import MOST_PICTURE_SIDE, PICTURE_FITS
from nnkit.data.text.options import MOST_CHARACTERS, MOST_WORDS
from nnkit.errors import ModelFileError

__all__ = [
    "ArrayColumns",
    "CategoryColumn",
    "ColumnOperation",
    "NumberColumn",
    "Operation",
    "PictureColumns",
    "PlainRows",
    "TextColumn",
    "operation_from_json",
]

_MOST_COLUMNS = 2**31 - 1


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, or of dates and times in seconds: ``(value or fill - shift) * scale``."""

    column: str
    kind: str
    fill: float
    shift: float
    scale: float

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        return {
            "operation": "scale",
            "column": self.column,
            "kind": self.kind,
            "fill": self.fill,
            "shift": self.shift,
            "scale": self.scale,
        }


@dataclass(frozen=True)
class CategoryColumn:
    """A column of texts: a place for each value, and the last for the missing and the never seen.

    The places are one-hot inputs, or if `embedded` the rows of an embedding's table.
    """

    column: str
    values: tuple[str, ...]
    embedded: bool = False

    @property
    def places(self) -> int:
        """The number of places."""
        return len(self.values) + 1

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        name = "embed" if self.embedded else "one_hot"
        return {"operation": name, "column": self.column, "values": list(self.values)}


@dataclass(frozen=True, eq=False)
class TextColumn:
    """A column of documents, each a bag of the rows of an embedding's table.

    Parameters
    ----------
    column : str
    word_ngrams : int
        Up to how many words make a term.
    char_ngrams : (int, int), optional
        The shortest and the longest character n-gram; see `nnkit.data.text.terms.find_terms`.
    terms : tuple of str
        The vocabulary: term k has row k + 1 of the table, and row 0 is that of words that are not in it.
    buckets : int
        In place of a vocabulary: a term has the row that its FNV-1a hash modulo this number says.
    documents : int
        With TF-IDF, how many documents were counted.
    counts : tuple of int
        With TF-IDF, how many of them hold each row of the table; else empty.
    """

    column: str
    word_ngrams: int
    char_ngrams: tuple[int, int] | None = None
    terms: tuple[str, ...] = ()
    buckets: int = 0
    documents: int = 0
    counts: tuple[int, ...] = ()

    def __str__(self) -> str:
        terms = [f"words, runs of up to {self.word_ngrams}" if self.word_ngrams > 1 else "words"]
        if self.char_ngrams is not None:
            terms.append("characters, runs of {} to {}".format(*self.char_ngrams))
        kept = f"{self.buckets:,} buckets" if self.buckets else f"a vocabulary of {len(self.terms):,}"
        weighted = ", weighted by TF-IDF" if self.counts else ""
        return f"{self.column!r}: {' and '.join(terms)}, in {kept}{weighted}"

    @property
    def size(self) -> int:
        """The number of rows of the table."""
        return self.buckets or len(self.terms) + 1

    @property
    def grams(self) -> tuple[int, tuple[int, int] | None]:
        """The arguments of `find_terms` after the documents."""
        return self.word_ngrams, self.char_ngrams

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of each term."""
        return {term: row for row, term in enumerate(self.terms, 1)}

    @cached_property
    def inverse_frequencies(self) -> NDArray[np.float64] | None:
        """``ln((1 + n) / (1 + d)) + 1`` for each row of the table; None without TF-IDF."""
        if not self.counts:
            return None
        return np.log((1 + self.documents) / (1 + np.array(self.counts, np.float64))) + 1

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        return {
            "operation": "terms",
            "column": self.column,
            "word_ngrams": self.word_ngrams,
            "char_ngrams": list(self.char_ngrams or ()),
            "terms": list(self.terms),
            "buckets": self.buckets,
            "documents": self.documents,
            "counts": list(self.counts),
        }


@dataclass(frozen=True, eq=False)
class ArrayColumns:
    """All columns of an array: ``(value - shift) * scale``.

    Parameters
    ----------
    count : int
        The number of columns.
    pixels : bool
        Whether the columns are uint8 and stay so until a batch is gathered.
    shift, scale : float, or ndarray of shape (count,), float64
    names : tuple of str
        The columns' names, by which those of a table are found; empty if the columns have none.
    """

    count: int
    pixels: bool
    shift: float | NDArray[np.float64]
    scale: float | NDArray[np.float64]
    names: tuple[str, ...] = ()

    @cached_property
    def shift_by_column(self) -> NDArray[np.float64] | None:
        """The shift of each column, shape (count,); None for 0. Only to be read."""
        return self._by_column(self.shift, 0.0)

    @cached_property
    def scale_by_column(self) -> NDArray[np.float64] | None:
        """The scale of each column, shape (count,); None for 1. Only to be read."""
        return self._by_column(self.scale, 1.0)

    def _by_column(self, value: float | NDArray[np.float64], neutral: float) -> NDArray[np.float64] | None:
        if np.all(np.asarray(value) == neutral):
            return None
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (self.count,)).copy()

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        return {
            "operation": "scale_array",
            "columns": self.count,
            "pixels": self.pixels,
            "shift": np.asarray(self.shift).tolist(),
            "scale": np.asarray(self.scale).tolist(),
            "names": list(self.names),
        }


@dataclass(frozen=True)
class PictureColumns:
    """A picture, made to fit, unrolled channel by channel: ``(value - shift) * scale`` of each channel.

    Parameters
    ----------
    height, width : int
        In pixels.
    channels : int
        3 for red, green and blue; 1 for grey.
    fit : {"crop", "pad", "stretch"}
        How one of another shape is made to fit.
    shift, scale : tuple of float
        For each channel.
    depth : int
        How many of the lower bits are used by pictures with 16 bits.
    """

    height: int
    width: int
    channels: int
    fit: str
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    depth: int = 16

    @property
    def count(self) -> int:
        """The number of a row's values."""
        return self.channels * self.height * self.width

    @cached_property
    def shift_by_column(self) -> NDArray[np.float64] | None:
        """The shift of each column, shape (count,); None for 0. Only to be read."""
        return np.repeat(self.shift, self.height * self.width) if any(self.shift) else None

    @cached_property
    def scale_by_column(self) -> NDArray[np.float64]:
        """The scale of each column, shape (count,). Only to be read."""
        return np.repeat(self.scale, self.height * self.width)

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        return {
            "operation": "picture",
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "fit": self.fit,
            "shift": list(self.shift),
            "scale": list(self.scale),
            "depth": self.depth,
        }


ColumnOperation = NumberColumn | CategoryColumn | TextColumn


@dataclass(frozen=True)
class PlainRows:
    """Rows as `Network.outputs` takes them: uint8 arrays are pixels, all other numbers stay as they are.

    Parameters
    ----------
    count : int
        The number of columns.
    tables : tuple of int
        The number of rows of each embedding's table, where the rows are `Features` with bags.
    """

    count: int
    tables: tuple[int, ...] = ()


Operation = ColumnOperation | ArrayColumns | PictureColumns | PlainRows


def operation_from_json(data: Any) -> Operation:
    """Read one operation; anything else than what `to_json` writes is a ModelFileError."""
    data = json_fields.mapping(data, "operation")
    kinds = ("scale", "one_hot", "embed", "terms", "scale_array", "picture")
    name = json_fields.choice(data, "operation", kinds)
    if name == "picture":
        return _picture_from_json(data)
    if name == "scale":
        kind = json_fields.choice(data, "kind", ("number", "time"))
        values = (json_fields.number(data, key) for key in ("fill", "shift", "scale"))
        return NumberColumn(json_fields.text(data, "column"), kind, *values)
    if name == "terms":
        return _text_column(data)
    if name in ("one_hot", "embed"):
        values_ = json_fields.texts(data, "values", distinct=True)
        if not values_:
            raise ModelFileError("the model file is damaged: a category column has no values")
        return CategoryColumn(json_fields.text(data, "column"), values_, name == "embed")
    count = json_fields.whole(data, "columns", 1, _MOST_COLUMNS)
    names = json_fields.texts(data, "names", distinct=True) if "names" in data else ()
    if len(names) not in (0, count):
        raise ModelFileError(f"the model file is damaged: {len(names)} names for {count} columns")
    return ArrayColumns(
        count,
        json_fields.flag(data, "pixels"),
        _per_column(data, "shift", count),
        _per_column(data, "scale", count),
        names,
    )


def _text_column(data: dict[str, Any]) -> TextColumn:
    lengths = json_fields.wholes(data, "char_ngrams", 1, MOST_CHARACTERS)
    documents = json_fields.whole(data, "documents", 0, _MOST_COLUMNS)
    column = TextColumn(
        json_fields.text(data, "column"),
        json_fields.whole(data, "word_ngrams", 1, MOST_WORDS),
        (lengths[0], lengths[-1]) if lengths else None,
        json_fields.texts(data, "terms", distinct=True),
        json_fields.whole(data, "buckets", 0, _MOST_COLUMNS),
        documents,
        json_fields.wholes(data, "counts", 0, documents),
    )
    whole = (
        len(lengths) in (0, 2)
        and lengths == tuple(sorted(lengths))
        and bool(column.terms) != bool(column.buckets)
        and len(column.counts) in (0, column.size)
    )
    if not whole:
        raise ModelFileError("the model file is damaged: a text column's terms do not agree")
    return column


def _picture_from_json(data: dict[str, Any]) -> PictureColumns:
    height, width = (json_fields.whole(data, key, 1, MOST_PICTURE_SIDE) for key in ("height", "width"))
    channels = json_fields.whole(data, "channels", 1, 3)
    shift, scale = (tuple(json_fields.numbers(data, key)) for key in ("shift", "scale"))
    if channels == 2 or not len(shift) == len(scale) == channels:
        raise ModelFileError("the model file is damaged: its pictures have no channels to be scaled")
    fit = json_fields.choice(data, "fit", PICTURE_FITS)
    depth = json_fields.whole(data, "depth", 8, 16) if "depth" in data else 16  # as before it was stored
    return PictureColumns(height, width, channels, fit, shift, scale, depth)


def _per_column(data: dict[str, Any], key: str, count: int) -> float | NDArray[np.float64]:
    if not isinstance(data.get(key), list):
        return json_fields.number(data, key)
    values = json_fields.numbers(data, key)
    if len(values) != count:
        raise ModelFileError(
            f"the model file is damaged: {key!r} has {len(values)} values for {count} columns"
        )
    return np.array(values)
