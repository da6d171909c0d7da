"""IDX files against files made with `struct`."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from nnkit.data.arrays.idx import read_idx
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import DataError, FileError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(type_code: int, shape: tuple[int, ...], data: bytes) -> bytes:
    return struct.pack(">HBB", 0, type_code, len(shape)) + struct.pack(f">{len(shape)}I", *shape) + data


def make_folder(folder: Path, count: int = 3, name: str = "train", packed: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 2, 3), dtype=np.uint8)
    images = idx(8, pixels.shape, pixels.tobytes())
    labels = idx(8, (count,), bytes(range(count)))
    suffix = ".gz" if packed else ""
    for kind, data in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"{name}-{kind}-ubyte{suffix}").write_bytes(gzip.compress(data) if packed else data)
    return pixels


@pytest.mark.parametrize("packed", [False, True])
def test_folder_gives_pixels_as_bytes(tmp_path: Path, packed: bool) -> None:
    pixels = make_folder(tmp_path, packed=packed)
    dataset = load_dataset(tmp_path)
    assert dataset.train.features.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.features, pixels.reshape(3, 6))
    assert dataset.train.target.tolist() == [0, 1, 2]
    assert (dataset.image_shape, dataset.target_names, dataset.test) == ((2, 3), ("label",), None)


@pytest.mark.parametrize("name", ["t10k", "letters-test"])
def test_folder_with_a_test_set(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path)
    pixels = make_folder(tmp_path, 2, name)
    dataset = load_dataset(tmp_path)
    np.testing.assert_array_equal(dataset.test.features, pixels.reshape(2, 6))
    one = load_dataset(tmp_path / f"{name}-images-idx3-ubyte")
    np.testing.assert_array_equal(one.train.features, pixels.reshape(2, 6))


def test_several_sets_are_not_guessed(tmp_path: Path) -> None:
    make_folder(tmp_path, name="a")
    make_folder(tmp_path, name="b")
    with pytest.raises(DataError, match="several sets"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_every_type_of_value(tmp_path: Path, code: int, dtype: str) -> None:
    values = np.array([[1, 2], [3, 100]], dtype=dtype)
    path = tmp_path / "values"
    path.write_bytes(idx(code, (2, 2), values.tobytes()))
    read = read_idx(path)
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype.newbyteorder("=")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"junkjunk", "not an IDX file"),
        (b"\0\0\x07\x01" + bytes(8), "not an IDX file"),
        (b"\0\0\x08\x03" + bytes(5), "header is cut short"),
        (idx(8, (2**32 - 1, 2**32 - 1, 2**32 - 1), b"abc"), "only 3 bytes follow"),
        (idx(0x0E, (2**20, 2**20, 2**20), b"abc"), "only 3 bytes follow"),
        (idx(8, (3, 2, 2), bytes(11)), "only 11 bytes follow"),
        (idx(8, (3, 2, 2), bytes(13)), "more bytes follow"),
    ],
)
def test_bad_idx_is_named(tmp_path: Path, data: bytes, words: str, packed: bool) -> None:
    path = tmp_path / "bad"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path, 200, packed=True)
    path = tmp_path / f"{IMAGES}.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(FileError, match=r"train-images.*cut short"):
        load_dataset(tmp_path)
    path.write_bytes(whole[:100] + bytes(50) + whole[150:])
    with pytest.raises((FileError, DataError), match="train-images"):
        load_dataset(tmp_path)


def test_counts_that_differ_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / LABELS).write_bytes(idx(8, (2,), bytes(2)))
    with pytest.raises(DataError, match="2 labels for the 3 images"):
        load_dataset(tmp_path)


def test_missing_labels(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / LABELS).unlink()
    with pytest.raises(DataError, match=LABELS):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, require_target=False).train.target is None


def test_mnist(shared_data: Path) -> None:
    dataset = load_dataset(shared_data / "mnist")
    features = dataset.train.features
    assert (features.shape, features.dtype) == ((60000, 784), np.uint8)
    assert dataset.test.features.shape == (10000, 784)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(dataset.test.target).tolist() == counts
    # The digest of the training images as published, unpacked.
    digest = hashlib.sha256(struct.pack(">4I", 2051, 60000, 28, 28) + features.tobytes()).hexdigest()
    assert digest == "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
