"""The operations of preprocessing, declared as data: JSON in and out.

Order: operations on a table's columns, on arrays, on pictures, and their JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Choice, Whole
from nnkit.data import json_fields
from nnkit.data.json_fields import require
from nnkit.data.limits import MOST_PICTURE_SIDE, PICTURE_FITS
from nnkit.data.text.options import MOST_CHARACTERS, MOST_WORDS
from nnkit.errors import ConfigError

__all__ = [
    "ArrayColumns",
    "CategoryColumn",
    "ColumnOperation",
    "NumberColumn",
    "Operation",
    "PictureColumns",
    "PictureSettings",
    "PlainRows",
    "Rows",
    "TextColumn",
    "flagged_columns",
    "operation_from_json",
]

Rows = NDArray[np.integer] | None
"""The numbers of the rows to use; None for all rows."""
_MOST_COLUMNS = 2**31 - 1
_DEFAULT_SIDE = 64


def _to_json(name: str, record: Any) -> dict[str, Any]:
    """Return the fields of an operation as JSON values."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    lists = {key: list(value) for key, value in values.items() if isinstance(value, tuple)}
    return {"operation": name, **values, **lists}


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, or of dates and times in seconds: ``x = (value or fill - shift) * scale``."""

    column: str
    kind: str
    fill: float
    shift: float
    scale: float
    flagged: bool = False  # whether another input is 1 where the value is missing, and 0 elsewhere
    # Whether x becomes x / √(1 + (x / 3)²), between -3 and 3 (Holzmüller et al. 2024, arXiv:2407.04491).
    clipped: bool = False

    def encoded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values, NaN where missing, as the network takes them; what overflows is not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            x: NDArray[np.float64] = np.where(np.isnan(values), self.fill, values)
            x = (x - self.shift) * self.scale
            # `hypot` squares without overflow.
            return x / np.hypot(1.0, x / 3.0) if self.clipped else x

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        return _to_json("scale", self)


LastPlace = Literal["other", "missing", "none"]


@dataclass(frozen=True)
class CategoryColumn:
    """A column of texts: a place for each value, and one more for missing values if `last` says so.

    The places are one-hot inputs, or the rows of an embedding's table if `embedded`. A value without a place
    has the code -1: its inputs are zeros.
    """

    column: str
    values: tuple[str, ...]
    embedded: bool = False
    # What the last place is for: "missing" where the training rows have missing values, "none" if there is no
    # such place; "other", of older files, for missing and unseen values.
    last: LastPlace = "none"

    @property
    def places(self) -> int:
        """The number of places."""
        return len(self.values) + (self.last != "none")

    @property
    def names(self) -> tuple[str, ...]:
        """What each place stands for."""
        return self.values if self.last == "none" else (*self.values, f"({self.last})")

    @property
    def missing_code(self) -> int:
        """The code of a missing value."""
        return -1 if self.last == "none" else len(self.values)

    @property
    def unseen_code(self) -> int:
        """The code of a value that the training rows lack."""
        return len(self.values) if self.last == "other" else -1

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        name = "embed" if self.embedded else "one_hot"
        return {"operation": name, "column": self.column, "values": list(self.values), "last": self.last}


@dataclass(frozen=True, eq=False)
class TextColumn:
    """A column of documents; each document is a bag of rows of an embedding's table."""

    column: str
    word_ngrams: int  # the most words that make a term
    char_ngrams: tuple[int, int] | None = None  # the shortest and the longest, see `terms.find_terms`
    # The vocabulary: term k has row k + 1 of the table, and words outside the vocabulary have row 0.
    terms: tuple[str, ...] = ()
    buckets: int = 0  # in place of a vocabulary: the row of a term is its FNV-1a hash modulo this number
    documents: int = 0  # with TF-IDF, how many documents were counted
    counts: tuple[int, ...] = ()  # with TF-IDF, how many of them hold each row of the table

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
        """The row of each term of the vocabulary."""
        return {term: row for row, term in enumerate(self.terms, 1)}

    @cached_property
    def inverse_frequencies(self) -> NDArray[np.float64] | None:
        """``ln((1 + n) / (1 + d)) + 1`` for each row of the table; None without TF-IDF."""
        if not self.counts:
            return None
        return np.log((1 + self.documents) / (1 + np.array(self.counts, np.float64))) + 1

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        return _to_json("terms", self) | {"char_ngrams": list(self.char_ngrams or ())}


@dataclass(frozen=True, eq=False)
class ArrayColumns:
    """All columns of an array: ``(value - shift) * scale``, with a number for all columns or for each."""

    count: int  # of columns
    pixels: bool  # whether they are uint8 and stay so until a batch is gathered
    shift: float | NDArray[np.float64]
    scale: float | NDArray[np.float64]
    names: tuple[str, ...] = ()  # of the columns, by which those of a table are found

    @cached_property
    def shift_by_column(self) -> NDArray[np.float64] | None:
        """The shift of each column, shape (count,); None for 0. Read-only."""
        return self._by_column(self.shift, 0.0)

    @cached_property
    def scale_by_column(self) -> NDArray[np.float64] | None:
        """The scale of each column, shape (count,); None for 1. Read-only."""
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
class PictureSettings:
    """The size and colours that every picture is converted to."""

    height: int = _DEFAULT_SIDE  # in pixels
    width: int = _DEFAULT_SIDE
    channels: int = 3  # red, green and blue; 1 for grey
    # How a picture of another shape is made to fit: "crop" cuts off what exceeds its middle left and right
    # or above and below; "pad" keeps all of it, between black bars; "stretch" distorts it.
    fit: str = "crop"
    depth: int = 16  # the lower bits that are used by pictures with 16 bits: the upper 8 of these are kept

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            Whole(1, MOST_PICTURE_SIDE)(f"a picture's {name}", getattr(self, name))
        Choice(PICTURE_FITS)("fit", self.fit)
        if self.channels not in (1, 3):
            raise ConfigError(f"pictures have 1 channel or 3, not {self.channels}")
        Whole(8, 16)("a picture's depth", self.depth)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width): a row is unrolled in this order."""
        return self.channels, self.height, self.width

    @property
    def count(self) -> int:
        """The number of values of a row."""
        return self.channels * self.height * self.width

    def __str__(self) -> str:
        colour = "in colour" if self.channels == 3 else "in grey"
        fitted = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[self.fit]
        depth = f", {self.depth} of 16 bits" if self.depth < 16 else ""
        return f"{self.height} × {self.width} {colour}, {fitted}{depth}"


@dataclass(frozen=True)
class PictureColumns:
    """A picture, unrolled channel by channel: ``(value - shift) * scale``, with numbers for each channel."""

    settings: PictureSettings
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def count(self) -> int:
        """The number of values of a row."""
        return self.settings.count

    @cached_property
    def shift_by_column(self) -> NDArray[np.float64] | None:
        """The shift of each column, shape (count,); None for 0. Read-only."""
        return np.repeat(self.shift, self.settings.height * self.settings.width) if any(self.shift) else None

    @cached_property
    def scale_by_column(self) -> NDArray[np.float64]:
        """The scale of each column, shape (count,). Read-only."""
        return np.repeat(self.scale, self.settings.height * self.settings.width)

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        values = _to_json("picture", self.settings)
        depth = values.pop("depth")
        return {**values, "shift": list(self.shift), "scale": list(self.scale), "depth": depth}


ColumnOperation = NumberColumn | CategoryColumn | TextColumn


def flagged_columns(operations: Iterable[Any]) -> tuple[NumberColumn, ...]:
    """Return the columns of numbers whose missing values have flags; these follow all numbers."""
    return tuple(op for op in operations if isinstance(op, NumberColumn) and op.flagged)


@dataclass(frozen=True)
class PlainRows:
    """Rows as `Network.outputs` takes them: uint8 arrays are pixels, all other numbers stay as they are."""

    count: int  # of columns
    tables: tuple[int, ...] = ()  # the number of rows of each embedding's table, for `Features` with bags


Operation = ColumnOperation | ArrayColumns | PictureColumns | PlainRows


def operation_from_json(data: Any) -> Operation:
    """Read one operation; anything but what `to_json` writes is a ModelFileError."""
    data = json_fields.mapping(data, "operation")
    kinds = ("scale", "one_hot", "embed", "terms", "scale_array", "picture")
    name = json_fields.choice(data, "operation", kinds)
    if name == "picture":
        return _picture_columns(data)
    if name == "scale_array":
        return _array_columns(data)
    if name == "terms":
        return _text_column(data)
    if name == "scale":
        kind = json_fields.choice(data, "kind", ("number", "time"))
        fill, shift, scale = (json_fields.number(data, key) for key in ("fill", "shift", "scale"))
        # An older file has neither.
        flagged, clipped = (key in data and json_fields.flag(data, key) for key in ("flagged", "clipped"))
        return NumberColumn(json_fields.text(data, "column"), kind, fill, shift, scale, flagged, clipped)
    values = json_fields.texts(data, "values", distinct=True)
    require(bool(values), "a category column has no values")
    last: Any = json_fields.choice(data, "last", get_args(LastPlace)) if "last" in data else "other"
    return CategoryColumn(json_fields.text(data, "column"), values, name == "embed", last)


def _array_columns(data: dict[str, Any]) -> ArrayColumns:
    count = json_fields.whole(data, "columns", 1, _MOST_COLUMNS)
    names = json_fields.texts(data, "names", distinct=True) if "names" in data else ()
    require(len(names) in (0, count), f"{len(names)} names for {count} columns")
    shift, scale = (_per_column(data, key, count) for key in ("shift", "scale"))
    return ArrayColumns(count, json_fields.flag(data, "pixels"), shift, scale, names)


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
    require(whole, "a text column's terms do not agree")
    return column


def _picture_columns(data: dict[str, Any]) -> PictureColumns:
    height, width = (json_fields.whole(data, key, 1, MOST_PICTURE_SIDE) for key in ("height", "width"))
    channels = json_fields.whole(data, "channels", 1, 3)
    shift, scale = (tuple(json_fields.numbers(data, key)) for key in ("shift", "scale"))
    require(
        channels != 2 and len(shift) == len(scale) == channels,
        "its pictures need 1 or 3 channels, with a 'shift' and a 'scale' for each",
    )
    fit = json_fields.choice(data, "fit", PICTURE_FITS)
    depth = json_fields.whole(data, "depth", 8, 16) if "depth" in data else 16  # of an older file
    return PictureColumns(PictureSettings(height, width, channels, fit, depth), shift, scale)


def _per_column(data: dict[str, Any], key: str, count: int) -> float | NDArray[np.float64]:
    if not isinstance(data.get(key), list):
        return json_fields.number(data, key)
    values = json_fields.numbers(data, key)
    require(len(values) == count, f"{key!r} has {len(values)} values for {count} columns")
    return np.array(values)
