"""Pictures of every format and mode, altered in any byte; texts of their paths."""

from __future__ import annotations

import io
from functools import cache
from random import Random

import numpy as np
from PIL import Image

from hostile.mutations import alter_bytes, alter_words, random_bytes

__all__ = ["PICTURE_SEED", "good_picture", "picture_file", "picture_list"]

_KINDS = (
    *(("PNG", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
    *(("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "RGB"), ("BMP", "P"), ("GIF", "P"), ("GIF", "L")),
    *(("TIFF", mode) for mode in ("RGB", "RGBA", "L", "1", "I;16")),
)
_ODD_PATHS = (
    "",
    "..",
    "good.png.",
    "a.png\0",
    "b.png",
    "/",
    "x" * 300 + ".png",
    "~/c.jpg",
    "ü🙂.gif",
    "a.txt",
)
PICTURE_SEED = "good.png"
"""The picture that a text of paths names: it has to lie beside it."""


@cache
def _seeds() -> tuple[bytes, ...]:
    generator = np.random.default_rng(3)
    pixels = Image.fromarray(generator.integers(0, 256, (17, 23, 4), np.uint8), "RGBA")
    seeds = []
    for kind, mode in _KINDS:
        image = pixels.convert("RGB").convert("L" if mode == "I;16" else mode)
        if mode in ("RGBA", "LA"):
            image = pixels.convert(mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        seeds.append(buffer.getvalue())
    return tuple(seeds)


def picture_file(random: Random) -> bytes:
    """Return a picture, altered: mostly in its header, where sizes and modes stand."""
    data = random.choice(_seeds())
    action = random.random()
    if action < 0.03:
        return random_bytes(random)
    if action < 0.06:
        return data
    head = random.choice((32, 64, 200))
    if action < 0.6:
        return alter_bytes(data[:head], random) + data[head:]
    return alter_bytes(data, random)


def picture_list(random: Random) -> bytes:
    """Return a text of paths, some of them odd."""
    text = alter_words("\n".join([PICTURE_SEED] * 5), random, "\n", (*_ODD_PATHS, PICTURE_SEED), 2)
    data = text.encode()
    return alter_bytes(data, random) if random.random() < 0.2 else data


def good_picture() -> bytes:
    """Return a picture that can be read."""
    return _seeds()[0]
