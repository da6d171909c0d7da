"""Pictures as rows of uint8: how they are made, where they lie, and the model's inputs that they become."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Choice, Whole
from nnkit.data.limits import MOST_PICTURE_SIDE, PICTURE_FITS
from nnkit.data.operations import PictureColumns
from nnkit.errors import ConfigError, DataError
from nnkit.feed.features import Features

__all__ = [
    "PictureOptions",
    "PictureSettings",
    "Pictures",
    "encode_pictures",
    "fit_pictures",
    "printable",
    "settings_of",
    "shown_path",
]

_DEFAULT_SIDE = 64
_LONGEST_PATH = 400
Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True)
class PictureSettings:
    """What every picture is made into.

    Parameters
    ----------
    height, width : int
        In pixels.
    channels : int
        3 for red, green and blue; 1 for grey.
    fit : {"crop", "pad", "stretch"}
        Of a picture of another shape, "crop" cuts off what sticks out left and right or above and below of
        its middle; "pad" keeps all of it, between black bars; "stretch" distorts it.
    depth : int
        How many of the lower bits are used by pictures with 16 bits: the upper 8 of these are kept.
    """

    height: int = _DEFAULT_SIDE
    width: int = _DEFAULT_SIDE
    channels: int = 3
    fit: str = "crop"
    depth: int = 16

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
        """The number of a row's values."""
        return self.channels * self.height * self.width

    def __str__(self) -> str:
        colour = "in colour" if self.channels == 3 else "in grey"
        fitted = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[self.fit]
        depth = f", {self.depth} of 16 bits" if self.depth < 16 else ""
        return f"{self.height} × {self.width} {colour}, {fitted}{depth}"


@dataclass(frozen=True)
class PictureOptions:
    """How a source of pictures is read.

    Parameters
    ----------
    settings : PictureSettings
        What they are made into.
    on_bad : {"error", "skip"}
        What to do with a picture, or a file of a folder of texts, that cannot be read.
    column : str, int or None
        A table's column of paths; None recognises it.
    expected : bool or None
        True for a model of pictures, False for one of something else; None for data to train on, whose
        pictures with 16 bits have the depth of the greatest value among them, not that of the settings.
    """

    settings: PictureSettings = PictureSettings()
    on_bad: Literal["error", "skip"] = "error"
    column: str | int | None = None
    expected: bool | None = None

    def like(self, features: Any) -> PictureOptions:
        """Return the options for other data of a training, given the features of its training set."""
        if not isinstance(features, Pictures):
            return self
        return replace(self, settings=features.settings, expected=True)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures as they lie in an array, which may be mapped from a file.

    Parameters
    ----------
    pixels : ndarray of shape (files, channels · height · width), uint8
        Unrolled: all red, then all green, then all blue; row by row within a channel.
    settings : PictureSettings
        What they were made into.
    rows : ndarray of shape (samples,), int64
        Which of them these are.
    paths : sequence of str
        The file of each row of `pixels`.
    origin : str
        Where they come from, for the user: such as "decoded in 3.2 s".
    """

    pixels: NDArray[np.uint8]
    settings: PictureSettings
    rows: NDArray[np.int64]
    paths: Sequence[str] = ()
    origin: str = ""

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
        """Return the rows as they are gathered from, with each column's shift and scale."""
        return Features(self.pixels, shift, scale, rows=self.rows, picture=self.settings.shape)


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as it can be printed and written: a name on a disk need not be Unicode."""
    return os.fspath(path).encode("utf-8", "replace").decode()


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path for a message, at a length that can be read: a list of pictures may hold any."""
    text = printable(path)
    return text if len(text) <= _LONGEST_PATH else f"{text[:100]}…{text[-200:]}"


def fit_pictures(pictures: Pictures, rows: NDArray[np.integer] | None, scaling: str) -> PictureColumns:
    """Return the operation for these pictures, scaled as the given rows (all, without them) say.

    "auto" and "standardize" take each channel's mean and standard deviation over all pixels of the training
    rows: a pixel's own, which a few hundred pictures do not settle, would carry their mean into the model.
    Divided by 255 alone, as "unit" does, the thousands of inputs of a photograph add up to a first loss many
    times that of a guess. "none" leaves 0 to 255.
    """
    settings = pictures.settings
    shift, scale = np.zeros(settings.channels), np.ones(settings.channels)
    if scaling == "unit":
        scale[:] = 1 / 255
    elif scaling in ("auto", "standardize"):
        taken = pictures if rows is None else pictures.take(rows)
        shift, spread = _moments(taken)
        # A channel that was constant in training stays at 0 whatever comes.
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return PictureColumns(
        settings.height,
        settings.width,
        settings.channels,
        settings.fit,
        tuple(shift),
        tuple(scale),
        settings.depth,
    )


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


def encode_pictures(
    pictures: Pictures, operation: PictureColumns, rows: NDArray[np.integer] | None
) -> Features:
    """Encode the rows (all, or the given ones); the pixels stay where they are."""
    wanted, given = settings_of(operation), pictures.settings
    if wanted != given:
        raise DataError(f"the model was trained on pictures of {wanted}, and these are of {given}")
    taken = pictures if rows is None else pictures.take(rows)
    return taken.features(operation.shift_by_column, operation.scale_by_column)


def settings_of(operation: PictureColumns) -> PictureSettings:
    """Return what a model's pictures are made into."""
    return PictureSettings(
        operation.height, operation.width, operation.channels, operation.fit, operation.depth
    )
