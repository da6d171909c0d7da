"""IDX, NPY and NPZ files: good ones, and ones that are altered in header, member or byte."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zipfile
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray

from hostile.mutations import EXTREMES, alter_bytes, alter_words, random_bytes

__all__ = ["idx_pair", "npy_file", "npz_file", "split_pair"]

_IDX_CODES = (0, 7, 8, 9, 0x0B, 0x0C, 0x0D, 0x0E, 0xFF)
_PLAIN_DESCRIPTIONS = (
    "'<f8' '<f4' '>f4' '<f2' '<f16' '<c16' '|b1' '|u1' '>i2' '<i8' '<u8' '|O' '<U3' '<U0' '|S5' "
    "'|S0' '|V8' '|V0' '<M8[s]' '<m8[ns]' '<M8' 'f' '' 5 None [] {} '<U99999999999' 'T' '<f4,<f4'"
)
_DESCRIPTIONS = (
    *_PLAIN_DESCRIPTIONS.split(),
    *("('<f4', (2, 2))", "('<f4', (0,))", "[('a', '<f4'), ('b', '|O')]", "[('a', '<f4')]"),
    *("[('a', '<f4', (3,))]", "'i4' 'i4'", "{'names': ['a'], 'formats': ['<f4'], 'itemsize': 64}"),
)
_PLAIN_SHAPES = "() (0,) (12,) None 12"
_SHAPES = (
    *_PLAIN_SHAPES.split(),
    *("(12, 3)", "(3, 12)", "(12, -3)", "(-12, -3)", "(-1, 3)", "(12, 3, 1)", "(12.0, 3)"),
    *("(True, True)", "(12, 3, 0)", "(0, 1180591620717411303424)", "(4611686018427387904, 4)"),
    *("(1099511627776, 0)", "(9223372036854775807, 9223372036854775807)", "[12, 3]", "('12', 3)"),
    *(f"({'1, ' * 70})", "(12, (3,))"),
)


def idx_pair(random: Random) -> bytes:
    """Return a file of images and one of labels, one or both altered; `split_pair` parts them."""
    images, labels = _idx_seeds()
    action = random.random()
    if action < 0.05:
        images = random_bytes(random)
    elif action < 0.3:
        images = _idx_header(random) + images[random.choice((4, 8, 16)) :]
    elif action < 0.55:
        images, labels = (
            _idx_of_any_type(random),
            labels if random.random() < 0.7 else _idx_of_any_type(random),
        )
    elif action < 0.8:
        images = alter_bytes(images, random)
    else:
        labels = alter_bytes(labels, random) if random.random() < 0.5 else _idx_header(random) + labels[8:]
    images, labels = (_packed(part, random) for part in (images, labels))
    return struct.pack(">I", len(images)) + images + labels


def split_pair(data: bytes) -> tuple[bytes, bytes]:
    """Return the images' and the labels' bytes."""
    (length,) = struct.unpack(">I", data[:4])
    return data[4 : 4 + length], data[4 + length :]


@cache
def _idx_seeds() -> tuple[bytes, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 2, 3), dtype=np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 3
    return (
        struct.pack(">HBB3I", 0, 8, 3, 12, 2, 3) + pixels.tobytes(),
        struct.pack(">HBBI", 0, 8, 1, 12) + labels.tobytes(),
    )


def _idx_header(random: Random) -> bytes:
    dimensions = random.choice((0, 1, 1, 2, 2, 3, 3, 4, 33, 65, 255))
    sizes = [
        random.choice((0, 1, 2, 3, 6, 12, 12, random.choice(EXTREMES) % 2**32)) for _ in range(dimensions)
    ]
    code = random.choice(_IDX_CODES)
    return struct.pack(f">HBB{dimensions}I", 0, code, dimensions, *sizes)


def _idx_of_any_type(random: Random) -> bytes:
    """Return a file whose header agrees with its length, of any type and shape, with random values."""
    code, size = random.choice(((8, 1), (9, 1), (0x0B, 2), (0x0C, 4), (0x0D, 4), (0x0E, 8)))
    shape = random.choice(((12, 2, 3), (12,), (12, 6), (12, 1, 1, 1), (1, 1), (0, 3), (12, 0)))
    count = math.prod(shape)
    if random.random() < 0.5:
        values = random.randbytes(count * size)
    else:
        values = random.randbytes(size) * count if random.random() < 0.3 else bytes(count * size)
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape) + values


def _packed(data: bytes, random: Random) -> bytes:
    """Return the data, compressed by gzip now and then, and that damaged or followed by more."""
    if random.random() < 0.7:
        return data
    packed = gzip.compress(data, mtime=0)
    action = random.random()
    if action < 0.4:
        return alter_bytes(packed, random, most=2)
    return packed + random.choice((b"", packed, b"\0" * 5, packed[:12])) if action < 0.6 else packed


@cache
def _arrays() -> dict[str, NDArray]:
    generator = np.random.default_rng(1)
    return {
        "X": np.round(generator.standard_normal((12, 3)), 2),
        "y": np.arange(12) % 2,
        "x_test": np.round(generator.standard_normal((4, 3)), 2),
        "y_test": np.arange(4) % 2,
        "labels": np.array(["ab", "ç", "d"] * 4),
        "pixels": generator.integers(0, 256, (12, 2, 2), dtype=np.uint8),
    }


def npy_file(random: Random) -> bytes:
    """Return an .npy file, altered."""
    values = random.choice((*(_arrays()[name] for name in ("X", "X", "pixels", "labels")), _arrays()["X"].T))
    action = random.random()
    if action < 0.05:
        return random.choice((b"", b"\x93NUMPY")) + random_bytes(random)
    version = random.choice(((1, 0), (1, 0), (2, 0), (3, 0)))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, version)
    data = buffer.getvalue()
    if action < 0.6:
        data = _with_header(data, values, version, random)
    if action < 0.5:
        return data
    return alter_bytes(data[:128] if action < 0.8 else data, random) + (data[128:] if action < 0.8 else b"")


def _with_header(data: bytes, values: NDArray, version: tuple[int, int], random: Random) -> bytes:
    """Replace the header's text by one with other words in it, and its length by another now and then."""
    long = version >= (2, 0)
    start = 12 if long else 10
    body = data[start + int.from_bytes(data[8:start], "little") :]
    description = repr(values.dtype.str) if random.random() < 0.4 else random.choice(_DESCRIPTIONS)
    shape = repr(values.shape) if random.random() < 0.4 else random.choice(_SHAPES)
    order = random.choice(("False", "False", "True", "None", "1", "'F'"))
    text = f"{{'descr': {description}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if random.random() < 0.15:
        text = alter_words(
            text, random, " ", ("(" * 300, "[" * 9000, "9" * 5000, "", "1L", "__import__('os')", "\0"), 2
        )
    text += " " * random.choice((0, 20, 20, 9990)) + "\n"
    length = len(text) if random.random() < 0.9 else random.choice(EXTREMES) % 2 ** (32 if long else 16)
    return data[:8] + (length % 2 ** (8 * (start - 8))).to_bytes(start - 8, "little") + text.encode() + body


def npz_file(random: Random) -> bytes:
    """Return an .npz file with altered members, altered as a zip archive, or both."""
    action = random.random()
    if action < 0.04:
        return random.choice((b"", b"PK\x03\x04", b"PK\x05\x06")) + random_bytes(random)
    buffer = io.BytesIO()
    method = random.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
    )
    if random.random() < 0.1:
        method = zipfile.ZIP_LZMA
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in ("X", "y", "x_test", "y_test"):
            _add_member(archive, name, random, altered=action < 0.6)
    data = buffer.getvalue()
    if action < 0.5:
        return data
    # The central directory, which is read first, stands at the end.
    place = data.rfind(b"PK\x01\x02") if action < 0.7 else data.find(b"PK\x01\x02") if action < 0.85 else 0
    return data[:place] + alter_bytes(data[place:], random)


def _add_member(archive: zipfile.ZipFile, name: str, random: Random, altered: bool) -> None:
    buffer = io.BytesIO()
    np.save(
        buffer, _arrays()["labels" if name == "y" and random.random() < 0.3 else name], allow_pickle=False
    )
    data = buffer.getvalue()
    if altered and random.random() < 0.4:
        data = npy_file(random)
        name = random.choice((name, name, name, "../" + name, "/" + name, name + "/", "ü" + name))
    item = zipfile.ZipInfo(f"{name}.npy")  # of 1980, so that the same bytes come each time
    item.compress_type = archive.compression
    archive.writestr(item, data)
