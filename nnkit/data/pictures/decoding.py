"""Decode one picture: PNG, JPEG, WebP, BMP, GIF or TIFF, in any of their modes, to channels of uint8."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from nnkit.data.pictures.columns import PictureSettings
from nnkit.errors import DataError

__all__ = ["decode_file", "decode_image", "pillow_is_quiet"]

# Pillow does not load all of its forty readers if the reader it needs is imported.
_READERS = (
    *(BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin),
    *(PngImagePlugin, TiffImagePlugin, WebPImagePlugin),
)
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF")
# A photograph has up to 100 million pixels; a small file can claim any number of them.
_MOST_PIXELS = 120_000_000
_LARGE = 1 << 24
_one_large_at_a_time = threading.Lock()
_LONGEST_REASON = 120
_ORIENTATION = 0x0112
# EXIF 2.32, table 6: how the stored picture must be turned to be upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)


@contextmanager
def pillow_is_quiet() -> Iterator[None]:
    """Hide Pillow's warnings while the context lasts: the important ones are errors too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_file(
    path: Path,
    settings: PictureSettings,
    signs: tuple[int, int] | None = None,
    observe: Callable[[int], None] | None = None,
) -> NDArray[np.uint8]:
    """Return a file's picture, (channels, height, width) uint8; the first of several frames or pages.

    `signs` are the size and the time of change, in nanoseconds, that the file should have; `observe` is given
    the greatest value of a picture with 16 bits. A DataError, without the path, says if it is no picture,
    damaged, cut short, too large, or has changed.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise DataError("there is no such file")
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if signs is not None and signs != (status.st_size, status.st_mtime_ns):
                raise DataError("the file changed while it was read")
            if status.st_size == 0:
                raise DataError("the file is empty")
            with Image.open(stream, formats=_FORMATS) as image:
                return decode_image(image, settings, observe)
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        raise DataError("it is no PNG, JPEG, WebP, BMP, GIF or TIFF") from None
    except Image.DecompressionBombError:
        raise DataError(f"it claims more than {_MOST_PIXELS:,} pixels") from None
    except MemoryError:
        raise DataError("there is not enough memory for it") from None
    except Exception as error:  # Pillow raises whatever a damaged file leads its parsers to
        raise DataError(_reason(error)) from None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    shown = "".join(sign if sign.isprintable() else "�" for sign in text)
    return f"it cannot be decoded: {shown[:_LONGEST_REASON]}"


def decode_image(
    image: Image.Image, settings: PictureSettings, observe: Callable[[int], None] | None = None
) -> NDArray[np.uint8]:
    """Return a picture of Pillow's, (channels, height, width) uint8.

    It is turned upright by its EXIF orientation, its transparent parts are white, and the settings say which
    of 16 bits are used.
    """
    if image.width * image.height > _MOST_PIXELS:
        raise DataError(f"it has {image.width} × {image.height} pixels, more than {_MOST_PIXELS:,}")
    if image.width < 1 or image.height < 1:
        raise DataError("it has no pixels")
    orientation = _orientation(image) if image.format in ("JPEG", "MPO") else None
    wanted = (settings.width, settings.height)
    size = wanted[::-1] if orientation in _ON_THEIR_SIDE else wanted
    if image.format in ("JPEG", "MPO"):
        # The decoder leaves out what is not needed: half, a quarter or an eighth of the pixels a side. At
        # least two of its pixels are averaged for one of the result: that is as good as all pixels.
        width, height = _scaled(image, size, settings.fit)
        image.draft("L" if settings.channels == 1 else None, (math.ceil(2 * width), math.ceil(2 * height)))
    large = image.width * image.height > _LARGE
    with _one_large_at_a_time if large else nullcontext():
        image.load()
        if orientation is None:
            orientation = _orientation(image)
            size = wanted[::-1] if orientation in _ON_THEIR_SIDE else wanted
        small = _resized(_plain(image, settings, observe), size, settings.fit)
    if orientation in _TURNS:
        small = small.transpose(_TURNS[orientation])
    small = _on_white(small, settings.channels)
    if small.size != wanted:
        bars = Image.new(small.mode, wanted)
        bars.paste(small, (round((wanted[0] - small.width) / 2), round((wanted[1] - small.height) / 2)))
        small = bars
    values = np.asarray(small, np.uint8).reshape(settings.height, settings.width, settings.channels)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF does not make the picture unreadable
        return 1


def _scaled(image: Image.Image, size: tuple[int, int], fit: str) -> tuple[float, float]:
    """Return the width and height of the whole picture, scaled to fit."""
    across, down = size[0] / image.width, size[1] / image.height
    if fit == "stretch":
        return size
    scale = max(across, down) if fit == "crop" else min(across, down)
    return image.width * scale, image.height * scale


def _plain(
    image: Image.Image, settings: PictureSettings, observe: Callable[[int], None] | None
) -> Image.Image:
    """Return the picture in grey, in red, green and blue, or in these with alpha."""
    if image.mode == "F":
        raise DataError("its pixels are floating-point numbers: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image), 0, 0xFFFF)
        if observe is not None:
            observe(int(values.max()))
        image = Image.fromarray(np.minimum(values >> (settings.depth - 8), 0xFF).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    wanted = "L" if settings.channels == 1 else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _resized(image: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """Return the picture in this size, or within it if it is padded; linear interpolation of all pixels."""
    width, height = _scaled(image, size, fit)
    if fit == "pad":
        size = (max(1, round(width)), max(1, round(height)))
    box = None
    if fit == "crop":
        across, down = image.width * size[0] / width, image.height * size[1] / height
        left, top = max(0.0, (image.width - across) / 2), max(0.0, (image.height - down) / 2)
        box = (left, top, min(left + across, image.width), min(top + down, image.height))
    return image.resize(size, Image.Resampling.BILINEAR, box)


def _on_white(image: Image.Image, channels: int) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("L" if channels == 1 else "RGB")
