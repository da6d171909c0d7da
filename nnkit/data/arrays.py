"""Read .npy and .npz files (never a pickle), and check arrays of features."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples
from nnkit.data.targets import check_target
from nnkit.errors import DataError, FileError

__all__ = ["as_rows", "blocks", "check_array", "read_npy", "read_npz"]

_BLOCK_ELEMENTS = 1 << 20
_FEATURE_NAMES = ("x", "features", "data", "images", "x_train", "train_x", "train_images")
_TARGET_NAMES = ("y", "target", "targets", "label", "labels", "y_train", "train_y", "train_labels")
_TEST_FEATURE_NAMES = ("x_test", "test_x", "test_images", "features_test")
_TEST_TARGET_NAMES = ("y_test", "test_y", "test_labels", "target_test")
_ZIP_CHUNK = 1 << 20


def blocks(features: NDArray, rows: NDArray[np.integer] | None = None) -> Iterator[tuple[slice, NDArray]]:
    """Yield the rows (all, or the given ones) in blocks of about a million values, with their places."""
    count = len(features) if rows is None else len(rows)
    step = max(1, _BLOCK_ELEMENTS // max(1, features.shape[1]))
    for start in range(0, count, step):
        place = slice(start, min(start + step, count))
        yield place, features[place] if rows is None else features[rows[place]]


def check_array(features: NDArray, rows: NDArray[np.integer] | None = None) -> NDArray:
    """Return the features as (samples, p) numbers, booleans as uint8, or raise a DataError.

    NaN and infinite values are named by row and column, both counting from 0.
    """
    features = np.asanyarray(features)
    if features.ndim != 2 or features.shape[0] == 0 or features.shape[1] == 0:
        raise DataError(
            f"features of shape (samples, columns) with at least one of each are wanted, not {features.shape}"
        )
    if features.dtype.kind == "b":
        return features.view(np.uint8)
    if features.dtype.kind not in "iuf":
        raise DataError(f"features are numbers, not {features.dtype}: give columns of text as a table")
    if features.dtype.kind == "f":
        for place, block in blocks(features, rows):
            bad = ~np.isfinite(block)
            if bad.any():
                row, column = (int(index) for index in np.argwhere(bad)[0])
                found = block[row, column]
                row = place.start + row if rows is None else int(rows[place.start + row])
                raise DataError(
                    f"the features hold {found} in row {row}, column {column} (counting from 0): "
                    "fill it in or leave the row out"
                )
    return features


def as_rows(values: NDArray, where: str) -> tuple[NDArray, tuple[int, ...] | None]:
    """Flatten images to rows; return them with the shape of one image, or None where rows were given."""
    if values.ndim < 2 or values.size == 0:
        raise DataError(
            f"{where}: features have the shape (samples, columns) and at least one value, not {values.shape}"
        )
    shape = values.shape[1:] if values.ndim > 2 else None
    try:
        return check_array(values.reshape(len(values), -1)), shape
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def read_npy(path: Path) -> Dataset:
    """Map a .npy file of features into memory."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError, MemoryError, SyntaxError, TypeError) as error:
        raise _unreadable(path, error) from None
    features, shape = as_rows(values, str(path))
    return Dataset(path.stem, Examples(features), None, (), shape)


def read_npz(path: Path) -> Dataset:
    """Read features, target and test set by the names of their arrays (X and y, x_train, ...)."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
            names = {name.lower(): name for name in members}
            found = {
                role: next((names[name] for name in known if name in names), None)
                for role, known in (
                    ("features", _FEATURE_NAMES),
                    ("target", _TARGET_NAMES),
                    ("test", _TEST_FEATURE_NAMES),
                    ("test target", _TEST_TARGET_NAMES),
                )
            }
            if found["features"] is None:
                listed = ", ".join(members) or "no arrays"
                raise DataError(f"{path}: holds {listed}: name the arrays X and y (and x_test and y_test)")
            arrays = {
                role: _read_member(archive, members[name], f"{path}: {name}")
                for role, name in found.items()
                if name is not None
            }
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, FileError):
            raise
        raise _unreadable(path, error) from None
    train, shape = _examples(
        path, arrays["features"], arrays.get("target"), found["features"], found["target"]
    )
    test = None
    if "test" in arrays:
        test, _ = _examples(
            path, arrays["test"], arrays.get("test target"), found["test"], found["test target"]
        )
        if test.features.shape[1] != train.features.shape[1]:
            raise DataError(
                f"{path}: {found['features']} has {train.features.shape[1]} columns and {found['test']} "
                f"{test.features.shape[1]}"
            )
    target_names = (found["target"],) if found["target"] is not None else ()
    return Dataset(path.stem, train, test, target_names, shape)


def _unreadable(path: Path, error: Exception) -> DataError | FileError:
    if isinstance(error, OSError) and error.errno is not None:
        return FileError(f"{path}: cannot be read: {error.strerror or error}")
    if "allow_pickle" in str(error) or "python objects" in str(error).lower():
        return DataError(f"{path}: holds Python objects, which are never read: save numbers or texts instead")
    return DataError(f"{path}: the file is damaged or cut short: {str(error) or type(error).__name__}")


def _read_member(archive: zipfile.ZipFile, item: zipfile.ZipInfo, where: str) -> NDArray:
    """Read one array; the memory taken follows the bytes that are there, not the shape that is claimed."""
    with archive.open(item) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read:
                raise ValueError(f"version {version} of the array format")
            shape, fortran, dtype = read[version](stream)
        except (ValueError, SyntaxError, TypeError) as error:
            raise DataError(f"{where}: not an array that can be read: {error}") from None
        if dtype.hasobject:
            raise DataError(
                f"{where}: holds Python objects, which are never read: save numbers or texts instead"
            )
        wanted = dtype.itemsize
        for size in shape:
            wanted *= size
        data = bytearray()
        while len(data) < wanted and (chunk := stream.read(min(_ZIP_CHUNK, wanted - len(data)))):
            data += chunk
    if len(data) < wanted or any(size < 0 for size in shape):
        raise DataError(f"{where}: the header claims the shape {shape} but only {len(data)} bytes follow")
    if dtype.itemsize == 0:
        return np.zeros(shape if wanted else (0,), dtype)
    values = np.frombuffer(data, dtype=dtype)
    return values.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)


def _examples(
    path: Path, features: NDArray, target: NDArray | None, name: str | None, target_name: str | None
) -> tuple[Examples, tuple[int, ...] | None]:
    rows, shape = as_rows(features, f"{path}: {name}")
    if target is None:
        return Examples(rows), shape
    try:
        target = check_target(target, (target_name or "y",))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if len(target) != len(rows):
        raise DataError(f"{path}: {name} has {len(rows)} rows and {target_name} {len(target)}")
    return Examples(rows, target), shape


def column_index(key: Any, count: int, where: str) -> int:
    """Return the place of an array's column, given as a number; a negative one counts from the end."""
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
    return features if wanted == list(range(count)) else np.ascontiguousarray(features[:, wanted])
