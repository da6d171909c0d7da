"""A data file that is written to, or removed, while it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit.data.files.changes import unchanged
from nnkit.data.sources import loading
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import DataError


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"3,4\n")


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.replace(path)


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "appended to": (appended, "changed"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-3]), "changed"),
    "replaced": (replaced, "changed"),
    "removed": (lambda path: path.unlink(), "vanished"),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("fails", [False, True])
def test_a_change_is_named_whatever_the_reader_made_of_it(how: str, fails: bool, tmp_path: Path) -> None:
    change, word = CHANGES[how]
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n")

    def read() -> None:
        with unchanged(path):
            change(path)
            if fails:
                raise DataError("row 2 is cut off")

    with pytest.raises(DataError, match=f"data.csv: the file {word} while it was read"):
        read()


def test_what_stays_as_it_is_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n")
    with unchanged(path), unchanged(tmp_path), unchanged(tmp_path / "nothing"):
        path.read_text()
    with pytest.raises(DataError, match="row 2"), unchanged(path):
        raise DataError("row 2 is cut off")


def test_a_file_of_a_folder_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"data\.csv: the file changed"), unchanged(tmp_path):
        appended(path)


def test_loading_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(100)))
    read = loading._open_file

    def slowly(*arguments: Any) -> Any:
        table = read(*arguments)
        appended(path)
        return table

    assert isinstance(load_dataset(path).train.target, np.ndarray)
    monkeypatch.setattr(loading, "_open_file", slowly)
    with pytest.raises(DataError, match="changed while it was read"):
        load_dataset(path)


def test_an_array_file_that_is_cut_short_later_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    values = np.arange(40_000.0).reshape(2000, 20)
    np.save(path, values)
    dataset = load_dataset(path, target=-1)
    with path.open("r+b") as file:
        file.truncate(200)
    np.testing.assert_array_equal(dataset.train.features, values[:, :-1])


def test_an_array_file_beyond_the_memory_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npy"
    values = np.arange(40.0).reshape(8, 5)
    monkeypatch.setattr("nnkit.data.arrays.reading.memory_limit", lambda: values.nbytes - 1)
    for array in (values, np.asfortranarray(values)):
        np.save(path, array)
        np.testing.assert_array_equal(load_dataset(path, require_target=False).train.features, values)
