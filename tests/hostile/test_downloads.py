"""Nothing of a download is read before its digest is checked."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from nnkit.data.sources import built_in
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import FileError

NAMES = built_in._IMAGE_FILES


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that plays the mirror of MNIST, three images in each set."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    images, labels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.arange(3, dtype=np.uint8)
    for name in NAMES:
        (folder / name).write_bytes(gzip.compress(idx(images if "images" in name else labels), mtime=0))
    digests = tuple(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES)
    monkeypatch.setattr(built_in, "_MNIST_MIRROR", folder.as_uri() + "/")
    monkeypatch.setattr(built_in, "_MNIST_SHA256", digests)
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.usefixtures("mirror")
def test_a_file_without_a_digest_beside_the_download_is_not_read(tmp_path: Path) -> None:
    """A plain file in the cache folder once went before the packed one that had been checked."""
    folder = tmp_path / "cache" / "mnist"
    folder.mkdir(parents=True)
    (folder / NAMES[0].removesuffix(".gz")).write_bytes(idx(np.full((3, 2, 2), 255, np.uint8)))
    assert load_dataset("mnist").train.features.max() == 11


@pytest.mark.parametrize("name", NAMES)
def test_an_altered_download_is_read_by_nobody(
    name: str, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mirror / name).write_bytes(gzip.compress(b"something else"))
    monkeypatch.setattr(built_in, "load_image_sets", lambda *_: pytest.fail("it was read"))
    with pytest.raises(FileError, match="digest"):
        load_dataset("mnist")
    assert not (tmp_path / "cache" / "mnist" / name).exists()


def test_a_file_altered_in_the_cache_is_read_by_nobody(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(load_dataset("mnist").train) == 3
    kept = tmp_path / "cache" / "mnist" / NAMES[2]
    kept.write_bytes(kept.read_bytes()[:-1] + b"\1")
    monkeypatch.setattr(built_in, "load_image_sets", lambda *_: pytest.fail("it was read"))
    with pytest.raises(FileError, match="delete it"):
        load_dataset("mnist")
