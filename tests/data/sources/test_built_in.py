"""Built-ins against scikit-learn's loaders, and downloads against a folder that plays the mirror."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnkit.data.sources import built_in
from nnkit.data.sources.download import RemoteFile, fetch
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


def mirror(folder: Path, content: bytes = b"whole") -> RemoteFile:
    path = folder / "file.gz"
    path.write_bytes(content)
    return RemoteFile(path.as_uri(), "sha256", hashlib.sha256(b"whole").hexdigest())


def test_fetch_writes_once_and_checks(tmp_path: Path) -> None:
    remote = mirror(tmp_path)
    path = fetch(remote, tmp_path / "cache", "mend")
    assert path.read_bytes() == b"whole"
    (tmp_path / "file.gz").unlink()
    assert fetch(remote, tmp_path / "cache", "mend") == path
    path.write_bytes(b"altered")
    with pytest.raises(FileError, match="delete it"):
        fetch(remote, tmp_path / "cache", "mend")


def test_wrong_download_leaves_nothing_behind(tmp_path: Path) -> None:
    remote = mirror(tmp_path, b"something else")
    with pytest.raises(FileError, match="digest of what came is wrong"):
        fetch(remote, tmp_path / "cache", "mend")
    assert list((tmp_path / "cache").iterdir()) == []


def test_failed_download_names_address_folder_and_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(built_in, "_MNIST_MIRROR", (tmp_path / "nowhere").as_uri() + "/")
    with pytest.raises(FileError) as caught:
        load_dataset("mnist")
    for words in ("nowhere/train-images-idx3-ubyte.gz", str(tmp_path / "cache"), "give a folder"):
        assert words in str(caught.value)


def test_a_cache_that_cannot_be_written_to_is_said_with_the_way_out(tmp_path: Path) -> None:
    remote = mirror(tmp_path)
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(FileError, match=r"file\.gz: cannot be written: .*set NNKIT_CACHE"):
        fetch(remote, tmp_path / "cache", "mend")


def test_a_download_has_the_permissions_of_any_file(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = fetch(mirror(tmp_path), tmp_path / "cache", "mend")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
