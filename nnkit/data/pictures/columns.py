"""Pictures as rows of uint8: how they are read, where they are kept, and how they become a model's inputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.data.operations import PictureColumns, PictureSettings, Rows
from nnkit.errors import DataError
from nnkit.feed.features import Features

__all__ = [
    "PictureOptions",
    "PictureSettings",
    "Pictures",
    "encode_pictures",
    "fit_pictures",
    "printable",
    "shown_path",
]

_LONGEST_PATH = 400


@dataclass(frozen=True)
class PictureOptions:
    """How a source of pictures is read."""

    settings: PictureSettings = field(default_factory=PictureSettings)
    on_bad: Literal["error", "skip"] = (
        "error"  # for a file that cannot be read: a picture, or in a folder of texts a text
    )
    column: str | int | None = None  # of a table, with paths; None recognises it
    # Whether the model is one of pictures; None for data to train on: their greatest value, and not the
    # settings, then decides the depth of pictures with 16 bits.
    expected: bool | None = None

    def like(self, features: Any) -> PictureOptions:
        """Return the options for a training's other data, given the features of its training set."""
        if not isinstance(features, Pictures):
            return self
        return replace(self, settings=features.settings, expected=True)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures as they lie in an array, which may be mapped from a file."""

    # Of shape (files, channels · height · width): all red, then all green, then all blue, by rows.
    pixels: NDArray[np.uint8]
    settings: PictureSettings  # of their conversion
    rows: NDArray[np.int64]  # of `pixels` that these are, shape (samples,)
    paths: Sequence[str] = ()  # of the files, for each row of `pixels`
    origin: str = ""  # for the user, such as "decoded in 3.2 s"

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.integer]) -> Pictures:
        """Return the given rows; no pixel is copied."""
        return replace(self, rows=self.rows[rows])

    @property
    def names(self) -> list[str]:
        """The file of each row."""
        return [self.paths[row] for row in self.rows]

    def features(
        self, shift: NDArray[np.float64] | None = None, scale: NDArray[np.float64] | None = None
    ) -> Features:
        """Return the rows as features, with each column's shift and scale."""
        return Features(self.pixels, shift, scale, rows=self.rows, picture=self.settings.shape)


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path in a form that can be printed and written: a file's name need not be Unicode."""
    return os.fspath(path).encode("utf-8", "replace").decode()


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path for a message, shortened: a list of pictures may hold a path of any length."""
    text = printable(path)
    return text if len(text) <= _LONGEST_PATH else f"{text[:100]}…{text[-200:]}"


def fit_pictures(pictures: Pictures, rows: Rows, scaling: str) -> PictureColumns:
    """Return the operation for these pictures, with the scaling found in the given rows.

    "auto" and "standardize" take each channel's mean and standard deviation over all pixels of the training
    rows: each pixel's own, which a few hundred pictures determine badly, would carry their mean picture into
    the model. Divided by 255 alone, as "unit" does, the thousands of inputs of a photograph add up to a first
    loss many times that of a guess. "none" leaves 0 to 255.
    """
    channels = pictures.settings.channels
    shift, scale = np.zeros(channels), np.ones(channels)
    if scaling == "unit":
        scale[:] = 1 / 255
    elif scaling in ("auto", "standardize"):
        taken = pictures if rows is None else pictures.take(rows)
        shift, spread = _moments(taken)
        # A channel that was constant in training is always 0.
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return PictureColumns(pictures.settings, tuple(shift), tuple(scale))


def _moments(pictures: Pictures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each channel's mean and standard deviation, from exact counts of its 256 values."""
    channels = pictures.settings.channels
    counts = np.zeros((channels, 256), np.int64)
    for _, block in pictures.features().dense_blocks():
        planes = block.reshape(len(block), channels, -1)
        for channel in range(channels):
            counts[channel] += np.bincount(planes[:, channel].reshape(-1), minlength=256)
    values, total = np.arange(256.0), counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts * np.square(values - mean[:, None])).sum(axis=1) / total
    return mean, np.sqrt(variance)


def encode_pictures(pictures: Pictures, operation: PictureColumns, rows: Rows) -> Features:
    """Encode the rows; the pixels stay where they are."""
    wanted, given = operation.settings, pictures.settings
    if wanted != given:
        raise DataError(f"the model was trained on pictures of {wanted}, and these are of {given}")
    taken = pictures if rows is None else pictures.take(rows)
    return taken.features(operation.shift_by_column, operation.scale_by_column)
