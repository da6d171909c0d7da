"""Built-ins against scikit-learn's loaders, and downloads from a server that plays the mirror."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nnkit.data.sources import built_in
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import FileError


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits"])
def test_small_sets_equal_those_of_scikit_learn(name: str) -> None:
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    expected = getattr(datasets, f"load_{name}")(**options)
    dataset = load_dataset(name)
    features = dataset.train.features
    if name != "digits":
        assert features.column_names == list(expected.feature_names)
        features = np.column_stack([column.to_numpy() for column in features.columns])
    np.testing.assert_array_equal(features, expected.data)
    np.testing.assert_array_equal(dataset.train.target, expected.target)


def test_digits_are_bytes() -> None:
    dataset = load_dataset("digits")
    assert (dataset.train.features.dtype, dataset.image_shape) == (np.uint8, (8, 8))


def test_made_up_sets() -> None:
    exam = load_dataset("exam")
    assert exam.target_names == ("passed",)
    assert exam.train.features.to_pydict() == {
        "hours_studied": [2, 4, 6, 8, 3, 7],
        "hours_slept": [5, 6, 7, 8, 4, 6],
    }
    assert exam.train.target.tolist() == [0, 0, 1, 1, 0, 1]
    xor = load_dataset("xor").train
    assert [a != b for a, b in zip(*xor.features.to_pydict().values(), strict=True)] == xor.target.tolist()
    moons = load_dataset("moons").train
    assert (len(moons), moons.target.sum()) == (1000, 500)
    assert moons.features.equals(load_dataset("moons").train.features)


def test_built_in_takes_a_choice_of_columns() -> None:
    dataset = load_dataset("iris", drop=[0])
    assert dataset.train.features.num_columns == 3


def test_preprocessing_costs_only_numpy_and_built_ins_no_scikit_learn() -> None:
    program = (
        "import sys, nnkit.data.preprocessing, nnkit.data.targets.encoding\n"
        "import nnkit.data.splitting, nnkit.data.sources.loading\n"
        "assert not {'pyarrow', 'sklearn', 'pandas', 'scipy', 'numba'} & set(sys.modules)\n"
        "nnkit.data.sources.loading.load_dataset('iris'); nnkit.data.sources.loading.load_dataset('digits')\n"
        "assert not {'sklearn', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- downloads ---

NAMES = built_in._IMAGE_FILES


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


class _Server(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder that plays the mirror of MNIST, with three images in each set."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    images, labels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.arange(3, dtype=np.uint8)
    for name in NAMES:
        (folder / name).write_bytes(gzip.compress(idx(images if "images" in name else labels), mtime=0))
    hashes = tuple("sha256:" + hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES)
    monkeypatch.setattr(built_in, "_MNIST_HASHES", hashes)
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(folder))) as server:
        monkeypatch.setattr(built_in, "_MNIST_MIRROR", f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder
        server.shutdown()


@pytest.mark.usefixtures("mirror")
def test_a_file_without_a_hash_beside_the_download_is_not_read(tmp_path: Path) -> None:
    """A plain file in the cache folder once went before the packed one that had been checked."""
    folder = tmp_path / "cache" / "mnist"
    folder.mkdir(parents=True)
    (folder / NAMES[0].removesuffix(".gz")).write_bytes(idx(np.full((3, 2, 2), 255, np.uint8)))
    assert load_dataset("mnist").train.features.max() == 11


def test_a_download_is_kept(mirror: Path) -> None:
    load_dataset("mnist")
    for name in NAMES:
        (mirror / name).unlink()
    assert len(load_dataset("mnist").train) == 3


@pytest.mark.usefixtures("mirror")
def test_a_download_has_the_permissions_of_any_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        load_dataset("mnist")
    finally:
        os.umask(before)
    for name in NAMES:
        assert (tmp_path / "cache" / "mnist" / name).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", NAMES)
def test_an_altered_download_is_never_read_and_leaves_nothing_behind(
    name: str, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mirror / name).write_bytes(gzip.compress(b"something else"))
    monkeypatch.setattr(built_in, "load_image_sets", lambda *_: pytest.fail("it was read"))
    with pytest.raises(FileError, match="hash of the download is wrong"):
        load_dataset("mnist")
    assert {path.name for path in (tmp_path / "cache" / "mnist").iterdir()} <= set(NAMES) - {name}


def test_a_file_altered_in_the_cache_is_downloaded_again(mirror: Path, tmp_path: Path) -> None:
    assert len(load_dataset("mnist").train) == 3
    kept = tmp_path / "cache" / "mnist" / NAMES[2]
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + b"\1")
    load_dataset("mnist")
    assert kept.read_bytes() == whole
    kept.write_bytes(whole[:-1] + b"\1")
    (mirror / NAMES[2]).unlink()
    with pytest.raises(FileError, match="cannot download"):
        load_dataset("mnist")


@pytest.mark.usefixtures("mirror")
def test_an_answer_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_in, "_MOST_BYTES", 10)
    with pytest.raises(FileError, match="larger than any file"):
        load_dataset("mnist")


def test_a_failed_download_names_address_folder_and_the_way_out(mirror: Path, tmp_path: Path) -> None:
    (mirror / NAMES[0]).unlink()
    with pytest.raises(FileError) as caught:
        load_dataset("mnist")
    for words in (f"/{NAMES[0]}", str(tmp_path / "cache"), "give a folder"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("mirror")
def test_a_cache_that_cannot_be_written_to_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mnist").write_text("in the way")
    with pytest.raises(FileError, match=r"cannot be written: .*set NNKIT_CACHE"):
        load_dataset("mnist")
