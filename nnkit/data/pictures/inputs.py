"""Take pictures as a program gives them: paths, Pillow's images, arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.pictures.cache import decode_pictures
from nnkit.data.pictures.columns import Pictures, PictureSettings
from nnkit.errors import DataError

__all__ = ["as_pictures"]


def as_pictures(given: Any, settings: PictureSettings) -> Pictures:
    """Return pictures as a program gives them.

    Parameters
    ----------
    given : Pictures, path, Pillow image, a list of these, or ndarray
        An array of uint8: of shape (samples, height, width), (samples, height, width, channels) with 1, 3 or
        4 channels, or (samples, channels · height · width) as `Pictures` has them.
    settings : PictureSettings
        What they are made into.
    """
    if isinstance(given, Pictures):
        return given
    if isinstance(given, np.ndarray) and given.dtype != object:
        pixels = _pixels_of_array(given, settings)
    else:
        single = isinstance(given, str | os.PathLike) or _is_image(given)
        items: list[Any] = [given] if single else _items(given)
        pixels = _pixels_of_items(items, settings)
    return Pictures(pixels, settings, np.arange(len(pixels)))


def _items(given: Any) -> list[Any]:
    if not isinstance(given, Iterable) or hasattr(given, "column_names") or hasattr(given, "columns"):
        raise DataError(
            f"the model was trained on pictures, not on {type(given).__name__}: give paths, Pillow's images "
            "or an array of shape (samples, height, width, channels)"
        )
    items = list(given)
    if not items:
        raise DataError("there are no pictures")
    return items


def _is_image(value: Any) -> bool:
    return hasattr(value, "getexif") and hasattr(value, "convert")


def _pixels_of_items(items: list[Any], settings: PictureSettings) -> NDArray[np.uint8]:
    from nnkit.data.pictures.decoding import decode_image, pillow_is_quiet

    if all(isinstance(item, str | os.PathLike) for item in items):
        return decode_pictures([Path(item) for item in items], settings, keep=False).pixels
    pixels = np.empty((len(items), settings.count), np.uint8)
    with pillow_is_quiet():
        for place, item in enumerate(items):
            if not _is_image(item):
                raise DataError(f"picture {place} is neither a path nor an image of Pillow's, as others are")
            pixels[place] = decode_image(item, settings).reshape(-1)
    return pixels


def _pixels_of_array(array: NDArray[Any], settings: PictureSettings) -> NDArray[np.uint8]:
    from PIL import Image

    from nnkit.data.pictures.decoding import decode_image

    if array.dtype != np.uint8:
        raise DataError(f"pictures in an array are uint8, from 0 to 255, not {array.dtype}")
    if array.ndim == 2 and array.shape[1] == settings.count and len(array):
        return np.ascontiguousarray(array)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (3, 4))):
        raise DataError(
            "pictures in an array have the shape (samples, height, width) or (samples, height, width, "
            f"channels), not {array.shape}"
        )
    pixels = np.empty((len(array), settings.count), np.uint8)
    for place, picture in enumerate(array):
        pixels[place] = decode_image(Image.fromarray(np.ascontiguousarray(picture)), settings).reshape(-1)
    return pixels
