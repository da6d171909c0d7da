"""Read .npy and .npz files (never a pickle), and check arrays of features."""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples
from nnkit.data.files.text import read_up_to
from nnkit.data.limits import check_size, memory_limit, readable
from nnkit.data.messages import about, listed, reading, reason, unreadable
from nnkit.data.operations import Rows
from nnkit.data.targets.values import check_target
from nnkit.errors import DataError, NnkitError, shown
from nnkit.feed.features import is_mapped

__all__ = ["as_numbers", "as_rows", "blocks", "check_finite", "first_bad", "read_npy", "read_npz"]

_BLOCK_ELEMENTS = 1 << 20
_FEATURE_NAMES = ("x", "features", "data", "images", "x_train", "train_x", "train_images")
_TARGET_NAMES = ("y", "target", "targets", "label", "labels", "y_train", "train_y", "train_labels")
_TEST_FEATURE_NAMES = ("x_test", "test_x", "test_images", "features_test")
_TEST_TARGET_NAMES = ("y_test", "test_y", "test_labels", "target_test")
# What zipfile raises on damaged archives, encrypted ones (RuntimeError) and unknown versions among them.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)
_LONGEST_HEADER = 10_000  # NumPy's own limit
_MOST_DIMENSIONS = 32


def blocks(features: NDArray, rows: Rows = None) -> Iterator[tuple[slice, NDArray]]:
    """Yield the rows in blocks of about a million values, with their places."""
    count = len(features) if rows is None else len(rows)
    step = max(1, _BLOCK_ELEMENTS // max(1, features.shape[1]))
    for start in range(0, count, step):
        place = slice(start, min(start + step, count))
        yield place, features[place] if rows is None else features[rows[place]]


def as_numbers(features: NDArray) -> NDArray:
    """Return features of shape (samples, p) as numbers, finite or not, and booleans as uint8."""
    features = np.asanyarray(features)
    if features.ndim != 2 or features.shape[0] == 0 or features.shape[1] == 0:
        raise DataError(
            f"features of shape (samples, columns) with at least one of each are wanted, not {features.shape}"
        )
    if features.dtype.kind == "b":
        return features.view(np.uint8)
    if features.dtype.kind not in "iuf":
        raise DataError(f"features are numbers, not {features.dtype}: give columns of text as a table")
    if features.dtype.itemsize > 8:
        raise DataError(f"features of {features.dtype} are more than nnkit computes with: give float64")
    return features


def check_finite(features: NDArray, rows: Rows = None) -> None:
    """Raise a DataError that names the first value of the rows that is not finite."""
    if features.dtype.kind != "f":
        return
    for place, block in blocks(features, rows):
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = first_bad(bad, place, rows)
            raise DataError(
                f"the features hold {block[bad][0]} in row {row}, column {column} (counting from 0): "
                "fill it in or leave the row out"
            )


def first_bad(bad: NDArray[np.bool_], place: slice, rows: Rows) -> tuple[int, int]:
    """Return the row and the column of the first True in a block that `blocks` yields with its place."""
    row, column = (int(index) for index in np.argwhere(bad)[0])
    return place.start + row if rows is None else int(rows[place.start + row]), column


def as_rows(values: NDArray, where: str) -> tuple[NDArray, tuple[int, ...] | None]:
    """Flatten images to rows; return them with the shape of an image, or None where they are rows already."""
    if values.ndim < 2 or values.size == 0:
        raise DataError(
            f"{where}: features have the shape (samples, columns) and at least one value, not {values.shape}"
        )
    with about(where):
        features = as_numbers(values.reshape(len(values), -1))
        check_finite(features)
    return features, values.shape[1:] if values.ndim > 2 else None


def read_npy(path: Path, mapped: bool = False) -> Dataset:
    """Read a .npy file of features, mapped if `mapped` or if it would take half of the memory."""
    with reading(path), path.open("rb") as stream:
        header = _read_header(stream, str(path))
        start, end = stream.tell(), os.fstat(stream.fileno()).st_size
        if end - start < header.size:
            raise _cut_short(str(path), header, end - start)
        values: NDArray[Any]
        # A mapped file that is cut short while it is used ends the process: the page cannot be read.
        if mapped or header.size > memory_limit():
            values = np.memmap(path, header.dtype, "r", start, header.shape, header.order)
        else:
            values = np.fromfile(stream, header.dtype, math.prod(header.shape))
            if values.nbytes < header.size:
                raise _cut_short(str(path), header, values.nbytes)
            values = values.reshape(header.shape, order=header.order)
    features, shape = as_rows(values, str(path))
    return Dataset(path.stem, Examples(features), None, (), shape)


def read_npz(path: Path) -> Dataset:
    """Read features, target and test set by the names of their arrays (X and y, x_train, ...)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, arrays = _read_members(archive, path)
    except NnkitError:
        raise
    except _ZIP_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        why = reason(error) or type(error).__name__
        raise DataError(f"{path}: the file is damaged or cut short: {why}") from None
    train, shape = _examples(
        path, arrays["features"], arrays.get("target"), names["features"], names["target"]
    )
    test = None
    if "test" in arrays:
        test, _ = _examples(
            path, arrays["test"], arrays.get("test target"), names["test"], names["test target"]
        )
        if test.array.shape[1] != train.array.shape[1]:
            raise DataError(
                f"{path}: {names['features']} has {train.array.shape[1]} columns and {names['test']} "
                f"{test.array.shape[1]}"
            )
    target_names = (names["target"],) if names["target"] is not None else ()
    return Dataset(path.stem, train, test, target_names, shape)


def _read_members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, str | None], dict[str, NDArray]]:
    """Return the name of each role's array (None where there is none), and the arrays by role."""
    members = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
    by_name = {name.lower(): name for name in members}
    names = {
        role: next((by_name[name] for name in known if name in by_name), None)
        for role, known in (
            ("features", _FEATURE_NAMES),
            ("target", _TARGET_NAMES),
            ("test", _TEST_FEATURE_NAMES),
            ("test target", _TEST_TARGET_NAMES),
        )
    }
    if names["features"] is None:
        content = listed(members) or "no arrays"
        raise DataError(f"{path}: holds {content}: name the arrays X and y (and x_test and y_test)")
    arrays = {
        role: _read_member(archive, members[name], f"{path}: {name}")
        for role, name in names.items()
        if name is not None
    }
    return names, arrays


@dataclass(frozen=True)
class _Header:
    """The header of an array in NumPy's format."""

    shape: tuple[int, ...]
    order: Literal["F", "C"]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """The bytes that the values take."""
        return math.prod(self.shape) * self.dtype.itemsize


def _read_header(stream: IO[bytes], where: str) -> _Header:
    """Read the header of NumPy's array format, versions 1 and 2; 3 is for dtypes with named fields.

    The length of its text is checked first: NumPy reads as much as that claims, and evaluates it.
    """
    read: dict[bytes, tuple[int, Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]]] = {
        b"\x93NUMPY\1\0": (2, np.lib.format.read_array_header_1_0),
        b"\x93NUMPY\2\0": (4, np.lib.format.read_array_header_2_0),
    }
    magic = stream.read(8)
    if magic not in read:
        raise DataError(f"{where}: the file is damaged or cut short: it is no array in NumPy's format 1 or 2")
    digits, parse = read[magic]
    length = stream.read(digits)
    text = stream.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER + 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's for files of Python 2, Python's for odd literals
            shape, fortran, dtype = parse(io.BytesIO(length + text))
    except (ValueError, SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: the file is damaged or cut short: {reason(error)}") from None
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which are never read: save numbers or texts instead")
    if dtype.kind not in "biufU" or dtype.itemsize == 0:
        raise DataError(f"{where}: holds values of the dtype {shown(dtype)}: save numbers or texts instead")
    if not 0 < len(shape) <= _MOST_DIMENSIONS or any(size < 1 for size in shape):
        raise DataError(f"{where}: needs at least one value in the array, not the shape {shown(shape)}")
    return _Header(tuple(int(size) for size in shape), "F" if fortran else "C", dtype)


def _cut_short(where: str, header: _Header, found: int) -> DataError:
    return DataError(
        f"{where}: the file is damaged or cut short: the header claims the shape {shown(header.shape)} "
        f"but only {found} bytes follow"
    )


def _read_member(archive: zipfile.ZipFile, item: zipfile.ZipInfo, where: str) -> NDArray:
    if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{where}: packed in a way that NumPy does not write: save it with np.savez_compressed"
        )
    with archive.open(item) as stream:
        header = _read_header(stream, where)
        check_size(min(header.size, item.file_size), where)
        data = read_up_to(stream, header.size)
    if len(data) < header.size:
        raise _cut_short(where, header, len(data))
    dtype = header.dtype
    if dtype.kind == "U":
        codes = np.frombuffer(data, dtype.str[0] + "u4")
        if np.any((codes > sys.maxunicode) | ((codes >= 0xD800) & (codes < 0xE000))):
            raise DataError(f"{where}: holds texts that are not Unicode: the file is damaged")
    values = np.frombuffer(data, dtype=dtype).reshape(header.shape, order=header.order)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _examples(
    path: Path, features: NDArray, target: NDArray | None, name: str | None, target_name: str | None
) -> tuple[Examples, tuple[int, ...] | None]:
    rows, shape = as_rows(features, f"{path}: {name}")
    if target is None:
        return Examples(rows), shape
    with about(path):
        target = check_target(target, (target_name or "y",))
    if len(target) != len(rows):
        raise DataError(f"{path}: {name} has {len(rows)} rows and {target_name} {len(target)}")
    return Examples(rows, target), shape


def column_index(key: Any, count: int, where: str) -> int:
    """Return the place of an array's column, given as a number (negative: from the end)."""
    try:
        index = int(key)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: an array's columns have numbers, 0 to {count - 1}, not the name {key!r}"
        ) from None
    if not -count <= index < count:
        raise DataError(f"{where}: there is no column {index}: the columns are 0 to {count - 1}")
    return index % count


def select_columns(
    features: NDArray, keep: Sequence[Any] | None, drop: Sequence[Any] | None, where: str
) -> NDArray:
    """Return the features with the wanted columns only."""
    count = features.shape[1]
    wanted = list(range(count)) if keep is None else [column_index(key, count, where) for key in keep]
    dropped = {column_index(key, count, where) for key in drop or ()}
    wanted = [index for index in wanted if index not in dropped]
    if not wanted:
        raise DataError(f"{where}: no feature column is left")
    if wanted == list(range(count)):
        return features
    first, last = wanted[0], wanted[-1]
    if is_mapped(features) and wanted == list(range(first, last + 1)):
        return features[:, first : last + 1]  # it stays where it is
    size = len(features) * len(wanted) * features.itemsize
    if is_mapped(features) and size > memory_limit():
        raise DataError(
            f"{where}: without columns from among the others the features take {readable(size)} of memory, "
            f"and this machine has room for {readable(memory_limit())}: save them without the columns to "
            "drop, the target as the last one"
        )
    return np.ascontiguousarray(features[:, wanted])
