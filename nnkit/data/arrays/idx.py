"""Read IDX files, the format of MNIST: a big-endian header (magic, sizes), then the values.

Source of the format: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples
from nnkit.data.files.text import UNREADABLE, compression, open_text, read_up_to, unreadable
from nnkit.data.limits import check_size
from nnkit.errors import DataError

__all__ = [
    "image_pairs",
    "is_image_file",
    "load_image_file",
    "load_image_folder",
    "load_image_sets",
    "read_idx",
]

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IMAGES = re.compile(r"(?P<set>.*?)[-_.]?images[-.]idx\d[-.]ubyte(\.gz)?", re.IGNORECASE)
_LABELS = re.compile(r"(?P<set>.*?)[-_.]?labels[-.]idx\d[-.]ubyte(\.gz)?", re.IGNORECASE)
_TEST_SETS = ("t10k", "test")
_MOST_DIMENSIONS = 32
_MOST_DEFLATED = 1032  # the most bytes that one byte of a gzip stream stands for


def read_idx(path: Path) -> NDArray:
    """Read one IDX file, compressed or not, in the shape and dtype of its header.

    The memory taken follows the bytes that are there, not the sizes that the header claims.
    """
    try:
        with open_text(path) as stream:
            return _read_values(stream, path)
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def _read_values(stream: IO[bytes], path: Path) -> NDArray:
    magic = stream.read(4)
    if not magic:
        raise DataError(f"{path}: the file is empty")
    head, dtype_code, dimensions = magic[:2], *magic[2:4].ljust(2, b"\0")
    if head != b"\0\0" or dtype_code not in _DTYPES or not 0 < dimensions <= _MOST_DIMENSIONS:
        raise DataError(
            f"{path}: not an IDX file: it begins with {magic.hex(' ')} and not with 00 00 08 01 or the like"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: the IDX header is cut short: copy or download it again")
    shape = struct.unpack(f">{dimensions}I", sizes)
    dtype = np.dtype(_DTYPES[dtype_code])
    wanted = math.prod(shape) * dtype.itemsize
    claim = f"the header claims {' × '.join(map(str, shape))} values ({wanted} bytes)"
    if wanted == 0:
        raise DataError(f"{path}: {claim}: at least one is required")
    size = path.stat().st_size
    most = {"": size, "gzip": size * _MOST_DEFLATED}.get(compression(path), wanted)
    check_size(min(wanted, most), str(path))
    data = read_up_to(stream, wanted)
    if len(data) < wanted:
        raise DataError(
            f"{path}: {claim} but only {len(data)} bytes follow: the file is cut short or damaged"
        )
    if stream.read(1):
        raise DataError(f"{path}: {claim} but more bytes follow: the file is damaged")
    values = np.frombuffer(data, dtype=dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def is_image_file(path: Path) -> bool:
    """Tell whether a file's name is one of an IDX file of images."""
    return _IMAGES.fullmatch(path.name) is not None


def image_pairs(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Return the images and the labels of each set in a folder, by the set's name ("train", "t10k")."""
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    # Sorted, a plain file comes before its .gz and wins.
    for path in sorted(folder.iterdir()):
        for pattern, found in ((_IMAGES, images), (_LABELS, labels)):
            if match := pattern.fullmatch(path.name):
                found.setdefault(match["set"], path)
    return {name: (path, labels.get(name)) for name, path in images.items()}


def load_image_folder(folder: Path, *, require_target: bool = True) -> Dataset:
    """Load the training set of a folder of IDX files, and its test set where there is one."""
    pairs = image_pairs(folder)
    tests = [name for name in pairs if name.lower().endswith(_TEST_SETS)]
    trains = [name for name in pairs if name not in tests]
    if len(pairs) == 1:
        trains, tests = list(pairs), []
    if len(trains) != 1 or len(tests) > 1:
        names = ", ".join(sorted(path.name for path, _ in pairs.values()))
        raise DataError(f"{folder}: several sets of images, name the one to read by its file: {names}")
    return load_image_sets(
        folder, pairs[trains[0]], pairs[tests[0]] if tests else None, require_target=require_target
    )


def load_image_sets(
    folder: Path,
    train: tuple[Path, Path | None],
    test: tuple[Path, Path | None] | None,
    *,
    require_target: bool = True,
) -> Dataset:
    """Load a training set and a test set of a folder by the files of their images and labels."""
    examples, shape = _load_pair(*train, require_target)
    test_examples = None
    if test is not None:
        test_examples, test_shape = _load_pair(*test, require_target)
        if test_shape != shape:
            raise DataError(f"{folder}: the training images are {shape} and the test images {test_shape}")
    return Dataset(folder.resolve().name, examples, test_examples, _target_names(examples), shape)


def load_image_file(path: Path, *, require_target: bool = True) -> Dataset:
    """Load one set by the file of its images; its labels lie beside it."""
    match = _IMAGES.fullmatch(path.name)
    labels = image_pairs(path.parent).get(match["set"], (path, None))[1] if match else None
    examples, shape = _load_pair(path, labels, require_target)
    return Dataset(path.name.split(".")[0], examples, None, _target_names(examples), shape)


def _target_names(examples: Examples) -> tuple[str, ...]:
    return () if examples.target is None else ("label",)


def _load_pair(images: Path, labels: Path | None, require_target: bool) -> tuple[Examples, tuple[int, ...]]:
    pixels = read_idx(images)
    if pixels.ndim < 2 or pixels.size == 0:
        raise DataError(
            f"{images}: images have two dimensions or more and at least one pixel, not {pixels.shape}"
        )
    target = None
    if labels is not None:
        target = read_idx(labels)
        if target.ndim != 1:
            raise DataError(f"{labels}: labels have one dimension, not the shape {target.shape}")
        if len(target) != len(pixels):
            raise DataError(f"{labels}: {len(target)} labels for the {len(pixels)} images of {images.name}")
        if target.dtype.kind in "iu":
            target = target.astype(np.int64)
    elif require_target:
        name = re.sub(r"idx\d", "idx1", images.name.replace("images", "labels"))
        raise DataError(f"{images}: its labels are missing: put {name} beside it")
    return Examples(pixels.reshape(len(pixels), -1), target), pixels.shape[1:]
