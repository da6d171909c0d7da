"""The operations of preprocessing, declared as data: JSON in and out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data import json_fields
from nnkit.errors import ModelFileError

__all__ = [
    "MOST_PICTURE_SIDE",
    "PICTURE_FITS",
    "ArrayColumns",
    "CategoryColumn",
    "NumberColumn",
    "Operation",
    "PictureColumns",
    "operation_from_json",
]

_MOST_COLUMNS = 2**31 - 1
MOST_PICTURE_SIDE = 4096
"""The greatest height and width of what a picture is made into."""

PICTURE_FITS = ("crop", "pad", "stretch")
"""How a picture of another shape is made to fit."""


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
    """A column of texts, one-hot: a place for each value, and the last for the missing and the never seen."""

    column: str
    values: tuple[str, ...]

    @property
    def places(self) -> int:
        """The number of one-hot places."""
        return len(self.values) + 1

    def to_json(self) -> dict[str, Any]:
        """Return the operation as JSON values."""
        return {"operation": "one_hot", "column": self.column, "values": list(self.values)}


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
    """

    count: int
    pixels: bool
    shift: float | NDArray[np.float64]
    scale: float | NDArray[np.float64]

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
    """

    height: int
    width: int
    channels: int
    fit: str
    shift: tuple[float, ...]
    scale: tuple[float, ...]

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
        }


Operation = NumberColumn | CategoryColumn | ArrayColumns | PictureColumns


def operation_from_json(data: Any) -> Operation:
    """Read one operation; anything else than what `to_json` writes is a ModelFileError."""
    data = json_fields.mapping(data, "operation")
    name = json_fields.choice(data, "operation", ("scale", "one_hot", "scale_array", "picture"))
    if name == "picture":
        return _picture_from_json(data)
    if name == "scale":
        kind = json_fields.choice(data, "kind", ("number", "time"))
        values = (json_fields.number(data, key) for key in ("fill", "shift", "scale"))
        return NumberColumn(json_fields.text(data, "column"), kind, *values)
    if name == "one_hot":
        values_ = json_fields.texts(data, "values", distinct=True)
        if not values_:
            raise ModelFileError("the model file is damaged: a category column has no values")
        return CategoryColumn(json_fields.text(data, "column"), values_)
    count = json_fields.whole(data, "columns", 1, _MOST_COLUMNS)
    return ArrayColumns(
        count,
        json_fields.flag(data, "pixels"),
        _per_column(data, "shift", count),
        _per_column(data, "scale", count),
    )


def _picture_from_json(data: dict[str, Any]) -> PictureColumns:
    height, width = (json_fields.whole(data, key, 1, MOST_PICTURE_SIDE) for key in ("height", "width"))
    channels = json_fields.whole(data, "channels", 1, 3)
    shift, scale = (tuple(json_fields.numbers(data, key)) for key in ("shift", "scale"))
    if channels == 2 or not len(shift) == len(scale) == channels:
        raise ModelFileError("the model file is damaged: its pictures have no channels to be scaled")
    fit = json_fields.choice(data, "fit", PICTURE_FITS)
    return PictureColumns(height, width, channels, fit, shift, scale)


def _per_column(data: dict[str, Any], key: str, count: int) -> float | NDArray[np.float64]:
    if not isinstance(data.get(key), list):
        return json_fields.number(data, key)
    values = json_fields.numbers(data, key)
    if len(values) != count:
        raise ModelFileError(
            f"the model file is damaged: {key!r} has {len(values)} values for {count} columns"
        )
    return np.array(values)
