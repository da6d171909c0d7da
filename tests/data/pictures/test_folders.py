"""Folders of texts and of pictures: parts, classes, files beside them, litter, links."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nnkit.data.examples import Dataset
from nnkit.data.pictures.columns import PictureOptions, Pictures, PictureSettings
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import DataError, NnkitError

SKIP = PictureOptions(PictureSettings(4, 4), "skip")
Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["texts", "pictures"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Write an example at a path within the folder, given without the suffix, and return where it is."""
    suffix = ".txt" if request.param == "texts" else ".png"
    made = []

    def written(name: str) -> Path:
        path = tmp_path / "set" / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        made.append(path)
        if suffix == ".txt":
            path.write_text(name)
        else:
            Image.new("RGB", (5, 5), (len(made), 0, 0)).save(path)
        return path

    return written


def loaded(path: Path, **options: object) -> Dataset:
    return load_dataset(path, **{"pictures": PictureOptions(PictureSettings(4, 4)), **options})  # type: ignore[arg-type]


def labels(dataset: Dataset | None) -> list[str]:
    part = dataset and (dataset.train if isinstance(dataset, Dataset) else dataset)
    assert part is not None
    assert part.target is not None
    return part.target.tolist()


def size(dataset: Dataset) -> int:
    return len(dataset.train)


def test_train_and_test_are_parts_and_what_is_beside_is_left_out(write: Write, tmp_path: Path) -> None:
    """The layout of aclImdb, where only texts lie beside the classes."""
    for name in ("train/pos/1", "train/pos/2", "train/neg/1", "train/unsup/1", "test/pos/1", "test/neg/1"):
        last = write(name)
    write("stray")
    for name in ("README", "imdb.vocab", "train/labeledBow.feat"):
        (tmp_path / "set" / name).write_text("about the data")
    if last.suffix == ".txt":
        write("train/urls_pos")
        write("test/urls_pos")
    dataset = loaded(tmp_path / "set")
    assert dataset.name == "set"
    assert dataset.target_names == ("class",)
    assert labels(dataset) == ["neg", "pos", "pos"]
    assert dataset.test is not None
    assert dataset.test.target is not None
    assert dataset.test.target.tolist() == ["neg", "pos"]
    notes = "\n".join(dataset.notes)
    assert f"{last.parents[2] / 'stray'}{last.suffix}: left out, because it is beside the subfolders" in notes
    assert f"{tmp_path / 'set/train/unsup'} is left out" in notes
    part = loaded(tmp_path / "set" / "train")
    assert part.test is None
    assert labels(part) == ["neg", "pos", "pos"]
    assert "unsup is left out" in "\n".join(part.notes)
    # All examples are predicted, but for what lies beside the classes.
    assert size(loaded(tmp_path / "set", require_target=False)) == 6
    assert size(loaded(tmp_path / "set/train/unsup", require_target=False)) == 1


def test_a_class_that_the_test_set_lacks_is_a_class(write: Write, tmp_path: Path) -> None:
    for name in ("train/a/1", "train/b/1", "train/c/1", "Test/a/1", "Test/b/1"):
        write(name)
    dataset = loaded(tmp_path / "set")
    assert labels(dataset) == ["a", "b", "c"]
    assert dataset.test is not None
    assert len(dataset.test) == 2
    assert dataset.notes == ()


def test_unlabeled_is_a_class_where_it_is_in_both_parts_or_one_of_two(write: Write, tmp_path: Path) -> None:
    for name in ("train/a/1", "train/b/1", "train/unlabeled/1", "test/unlabeled/1", "test/a/1"):
        write(name)
    assert labels(loaded(tmp_path / "set")) == ["a", "b", "unlabeled"]
    for name in ("two/labeled/1", "two/unlabeled/1"):
        write(name)
    assert labels(loaded(tmp_path / "set/two")) == ["labeled", "unlabeled"]


@pytest.mark.parametrize("flat", ["test/1", "test/test/1"])
def test_a_test_folder_without_classes_is_left_out_with_a_note(
    write: Write, tmp_path: Path, flat: str
) -> None:
    """Kaggle's layout."""
    for name in ("train/cats/1", "train/dogs/1", flat):
        write(name)
    dataset = loaded(tmp_path / "set")
    assert labels(dataset) == ["cats", "dogs"]
    assert dataset.test is None
    path = tmp_path / "set" / "test"
    assert f"{path} is left out" in dataset.notes[0]
    assert f"`nnkit predict MODEL {path}`" in dataset.notes[0]
    assert size(loaded(path, require_target=False)) == 1
    assert size(loaded(tmp_path / "set", require_target=False)) == 3


def test_a_folder_for_validation_is_said_to_be_unused(write: Write, tmp_path: Path) -> None:
    for name in ("training/a/1", "training/b/1", "valid/a/1", "valid/b/1"):
        write(name)
    dataset = loaded(tmp_path / "set")
    assert size(dataset) == 2
    path = tmp_path / "set" / "valid"
    assert dataset.notes == (f"{path} is not used: data.validation = {str(path)!r} measures on it",)


def test_files_deeper_in_a_class_are_read_and_litter_is_not(write: Write, tmp_path: Path) -> None:
    for name in ("a/1", "a/more/2", "a/more/still/3", "b/1"):
        last = write(name)
    last.rename(last.with_suffix(last.suffix.upper()))
    for name in ("a/._1", "a/.hidden", "__MACOSX/a/1", ".cache/x"):
        path = write(name)
        path.write_bytes(b"\0\5\x16\7\xff")
    for name in ("a/.DS_Store", "Thumbs.db", "b/Thumbs.db", "b/desktop.ini"):
        (tmp_path / "set" / name).write_bytes(b"\xff")
    assert labels(loaded(tmp_path / "set")) == ["a", "a", "a", "b"]
    assert size(loaded(tmp_path / "set", require_target=False)) == 4


def test_files_of_another_kind_among_those_of_a_class_are_an_error_or_skipped(
    write: Write, tmp_path: Path
) -> None:
    for name in ("a/1", "b/1"):
        write(name)
    other = tmp_path / "set" / "a" / "notes.csv"
    other.write_text("a,b")
    with pytest.raises(DataError, match="on_bad") as caught:
        loaded(tmp_path / "set")
    assert str(caught.value).startswith(str(other))
    dataset = loaded(tmp_path / "set", pictures=SKIP)
    assert labels(dataset) == ["a", "b"]
    assert "skipped 1 of 3 files that cannot be read as" in dataset.notes[0]
    other.unlink()
    (tmp_path / "set" / "c").mkdir()
    with pytest.raises(DataError, match=r"the class 'c' has no (text|picture)s: remove the folder"):
        loaded(tmp_path / "set")


def test_examples_beside_the_classes_are_told(write: Write, tmp_path: Path) -> None:
    """A picture has lost its class; a text mostly describes the data."""
    for name in ("a/1", "b/1"):
        write(name)
    stray = write("stray")
    if stray.suffix == ".png":
        with pytest.raises(DataError, match="is beside the subfolders"):
            loaded(tmp_path / "set")
    else:
        assert "stray.txt: left out" in loaded(tmp_path / "set").notes[0]
    assert labels(loaded(tmp_path / "set", pictures=SKIP)) == ["a", "b"]
    assert size(loaded(tmp_path / "set", require_target=False)) == 3


def test_examples_without_classes_are_an_error_in_training_only(write: Write, tmp_path: Path) -> None:
    write("1")
    write("2")
    (tmp_path / "set" / "scripts").mkdir()
    with pytest.raises(DataError, match="put those of each class into a subfolder"):
        loaded(tmp_path / "set")
    assert size(loaded(tmp_path / "set", require_target=False)) == 2


# --- links ---


def names_of(dataset: Dataset, tmp_path: Path) -> list[str]:
    features = dataset.train.features
    paths = features.names if isinstance(features, Pictures) else features["path"].to_pylist()  # type: ignore[call-overload]
    return [os.path.relpath(path, tmp_path / "set").rpartition(".")[0] for path in paths]


def test_linked_folders_and_files_are_read(write: Write, tmp_path: Path) -> None:
    for name in ("set/a/1", "set/b/1", "far/x/1", "far/x/2", "far/y"):
        last = write(f"../{name}")
    (tmp_path / "set/b/more").symlink_to(tmp_path / "far/x", target_is_directory=True)
    (tmp_path / f"set/a/2{last.suffix}").symlink_to(last)
    dataset = loaded(tmp_path / "set")
    assert labels(dataset) == ["a", "a", "b", "b", "b"]
    assert dataset.notes == ()
    predicted = loaded(tmp_path / "set", require_target=False)
    assert names_of(predicted, tmp_path) == ["a/1", "a/2", "b/1", "b/more/1", "b/more/2"]
    (tmp_path / "top").mkdir()
    for name in ("a", "b"):
        (tmp_path / "top" / name).symlink_to(tmp_path / "set" / name, target_is_directory=True)
    (tmp_path / "linked").symlink_to(tmp_path / "top", target_is_directory=True)
    assert labels(loaded(tmp_path / "linked")) == ["a", "a", "b", "b", "b"]


def test_what_links_lead_to_again_is_read_once(write: Write, tmp_path: Path) -> None:
    for name in ("set/a/1", "set/b/1", "far/1", "far/deep/2"):
        last = write(f"../{name}")
    folder, suffix = tmp_path / "set", last.suffix
    for name, target in (
        ("a/parent", folder),
        ("a/above", tmp_path),
        ("a/itself", folder / "a"),
        ("a/other", folder / "b"),
        ("a/far", tmp_path / "far"),
        ("b/far", tmp_path / "far"),
        ("b/deep", tmp_path / "far" / "deep"),
    ):
        (folder / name).symlink_to(target, target_is_directory=True)
    (folder / f"b/9{suffix}").symlink_to(folder / f"a/1{suffix}")
    (tmp_path / "far/deep/up").symlink_to(tmp_path / "far", target_is_directory=True)
    predicted = loaded(folder, require_target=False)
    assert names_of(predicted, tmp_path) == ["a/1", "a/far/1", "a/far/deep/2", "b/1"]
    dataset = loaded(folder)
    assert labels(dataset) == ["a", "a", "a", "b"]
    assert f"{folder / 'a/above'} (and 7 more): a link to what is read already" in dataset.notes[0]


def test_a_link_to_nothing_is_named(write: Write, tmp_path: Path) -> None:
    for name in ("a/1", "b/1"):
        last = write(name)
    link = tmp_path / "set" / "a" / f"0{last.suffix}"
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(NnkitError, match=r"[nN]o such") as caught:
        loaded(tmp_path / "set")
    assert str(caught.value).startswith(str(link))
    assert labels(loaded(tmp_path / "set", pictures=SKIP)) == ["a", "b"]
