"""Folders of texts: what becomes of a file's bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from nnkit.data.pictures.columns import PictureOptions
from nnkit.data.pictures.folders import FolderTree, labelled_files
from nnkit.data.sources.loading import load_dataset
from nnkit.data.text.folders import TEXTS, read_text_folder
from nnkit.errors import DataError


def folder_of(path: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def texts_of(path: Path, **options: object) -> list[str]:
    files = labelled_files(FolderTree(path), TEXTS, skip=False)
    features = read_text_folder(files, **options).train.features  # type: ignore[arg-type]
    assert isinstance(features, pa.Table)
    assert features.column_names == ["text"]
    return features["text"].to_pylist()


def test_each_file_is_a_row_empty_ones_too(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "mails",
        {
            "ham/1.txt": "grüße\n".encode(),
            "ham/2.TXT": b"",
            "ham/deep/3.text": b"\xef\xbb\xbfmarked",
            "spam/1.Txt": b"one\r\ntwo",
            "spam/2.txt": b" \n",
        },
    )
    dataset = load_dataset(folder)
    assert dataset.train.features.to_pydict() == {"text": ["grüße\n", "", "marked", "one\r\ntwo", " \n"]}
    assert dataset.train.target is not None
    assert dataset.train.target.tolist() == ["ham"] * 3 + ["spam"] * 2
    assert dataset.columns == ("text", "class")


def test_texts_to_predict_have_their_paths_beside(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "new", {"1.txt": b"one", "more/2.txt": b"two"})
    dataset = load_dataset(folder, target="class", require_target=False)
    paths = [str(folder / "1.txt"), str(folder / "more/2.txt")]
    assert dataset.train.features.to_pydict() == {"text": ["one", "two"], "path": paths}
    assert dataset.train.target is None


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8", "UTF8", "cp1252"])
def test_texts_are_decoded_as_is_said(tmp_path: Path, encoding: str) -> None:
    words = ["café", "naïve"]
    files = {f"{name}/1.txt": word.encode(encoding) for name, word in zip("ab", words, strict=True)}
    assert texts_of(folder_of(tmp_path, files), encoding=encoding) == words


def test_a_text_in_another_encoding_is_named_with_the_option(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a/1.txt": b"fine", "a/2.txt": b"caf\xe9", "b/1.txt": b"x"})
    with pytest.raises(DataError) as caught:
        load_dataset(folder)
    assert str(caught.value).startswith(f"{folder / 'a/2.txt'}: byte 4 is not UTF-8 text\n")
    assert "`encoding`" in str(caught.value)
    with pytest.raises(DataError, match=r"2\.txt: byte 4 is not ascii text"):
        texts_of(folder, encoding="ascii")
    with pytest.raises(DataError, match="'base64' is not for texts"):
        texts_of(folder, encoding="base64")
    dataset = load_dataset(folder, pictures=PictureOptions(on_bad="skip"))
    assert dataset.train.features.to_pydict() == {"text": ["fine", "x"]}
    assert dataset.train.target is not None
    assert dataset.train.target.tolist() == ["a", "b"]
    assert "skipped 1 of 3 files that cannot be read as texts" in dataset.notes[0]
    assert dataset.notes[0].endswith("2.txt: byte 4 is not UTF-8 text")


def test_a_folder_of_unreadable_texts_alone_is_an_error(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a/1.txt": b"\xff", "b/1.txt": b"\xfe"})
    with pytest.raises(DataError, match="none of the 2 texts can be read"):
        load_dataset(folder, pictures=PictureOptions(on_bad="skip"))


def test_the_subfolders_are_the_target(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a/1.txt": b"x", "b/1.txt": b"y"})
    assert load_dataset(folder, target="class").target_names == ("class",)
    with pytest.raises(DataError, match="leave out `target`"):
        load_dataset(folder, target="label")
