"""Predictions as files: every format holds the same, under names that say what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pyarrow import array, csv

from nnkit.data.predictions import write_predictions
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError, FileError


def encoder(target: Any, task: str = "auto", names: tuple[str, ...] = ()) -> TargetEncoder:
    return TargetEncoder.fit(np.array(target), task, names)


LABELS: dict[str, list[Any]] = {
    "texts": ["no", "yes, indeed", 'a "quoted"\nline', "ü½"],
    "booleans": [True, False, False, True, True, False, True, True, True],
    "whole numbers": [3, -7, 2**40],
    "bytes": np.array([0, 255], np.uint8).tolist(),
    "numbers": [0.1, -1e300, 2.0],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("dtype", [None, object])
def test_labels_are_the_same_in_every_format(kind: str, dtype: Any, tmp_path: Path) -> None:
    labels = LABELS[kind]
    values = np.array(labels, dtype=dtype)
    target = encoder([0, 1], names=("answer",))
    for suffix in (".csv", ".parquet", ".npy"):
        assert write_predictions(values, target, False, tmp_path / f"p{suffix}") == len(labels)
    options = csv.ParseOptions(newlines_in_values=True)
    assert csv.read_csv(tmp_path / "p.csv", parse_options=options).to_pydict() == {"answer": labels}
    assert pq.read_table(tmp_path / "p.parquet").to_pydict() == {"answer": labels}
    loaded = np.load(tmp_path / "p.npy", allow_pickle=False)
    assert loaded.tolist() == ([str(label) for label in labels] if dtype else labels)


def test_bytes_of_a_strided_result_are_in_order(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(4, 3)
    target = encoder(values, names=("a", "b", "c"))
    write_predictions(values, target, False, tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet").to_pydict() == {
        "a": [0, 3, 6, 9],
        "b": [1, 4, 7, 10],
        "c": [2, 5, 8, 11],
    }


@pytest.mark.parametrize(
    ("target", "proba", "columns", "names"),
    [
        (encoder(["no", "yes"], names=("t",)), True, 2, ["probability_no", "probability_yes"]),
        (encoder([7, 8, 9], "multiclass"), True, 3, ["probability_7", "probability_8", "probability_9"]),
        (encoder([[0, 1], [1, 0]], names=("a", "b")), True, 2, ["probability_a", "probability_b"]),
        (encoder([[0, 1], [1, 0]]), True, 2, ["prediction_0", "prediction_1"]),
        (encoder([[0, 1], [1, 0]], names=("a", "b")), False, 2, ["a", "b"]),
        (encoder([0.5, 1.5], names=("price",)), False, 1, ["price"]),
        (encoder([0.5, 1.5]), False, 1, ["prediction"]),
        (encoder([[0.5, 1], [2, 3]]), False, 2, ["prediction_0", "prediction_1"]),
    ],
)
def test_columns_are_named(
    target: TargetEncoder, proba: bool, columns: int, names: list[str], tmp_path: Path
) -> None:
    values: NDArray = np.linspace(0, 1, 5 * columns).reshape(5, columns)
    write_predictions(values[:, 0] if columns == 1 else values, target, proba, tmp_path / "p.csv")
    table = csv.read_csv(tmp_path / "p.csv")
    assert table.column_names == names
    np.testing.assert_array_equal(np.column_stack([table[name].to_numpy() for name in names]), values)


def test_without_a_file_they_are_printed_as_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, target = np.array([1.5, 2.5]), encoder([0.5, 1.5], names=("price",))
    assert write_predictions(values, target, False, None) == 2
    printed = capsys.readouterr().out
    write_predictions(values, target, False, tmp_path / "p.csv")
    assert printed == (tmp_path / "p.csv").read_text()
    assert printed.splitlines()[1:] == ["1.5", "2.5"]


@pytest.mark.parametrize("name", ["p.xls", "p", "p.csv.gz"])
def test_another_suffix_is_a_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.csv, \.parquet, \.npy"):
        write_predictions(np.zeros(2), encoder([0.5, 1.5]), False, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_a_failure_leaves_the_old_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnkit.files.os.replace", fail)
    with pytest.raises(FileError, match="No space left on device"):
        write_predictions(np.zeros(2), encoder([0.5, 1.5]), False, path)
    monkeypatch.undo()
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_are_kept_beside_the_predictions(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    kept = {"id": array([7, 8, 9]), "price": array([1.5, None, 2.5])}
    target = encoder([1.0, 2.0, 4.0], "regression", ("price",))
    write_predictions(np.array([1.0, 2.0, 3.0]), target, False, path, kept)
    found = csv.read_csv(path) if suffix == ".csv" else pq.read_table(path)
    assert found.to_pydict() == {
        "id": [7, 8, 9],
        "price": [1.5, None, 2.5],
        "predicted_price": [1.0, 2.0, 3.0],
    }


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    target, values = encoder([1.0, 2.0], "regression", ("price",)), np.array([1.0, 2.0])
    ids = array([1, 2])
    with pytest.raises(ConfigError, match="npy file holds predictions alone: write a"):
        write_predictions(values, target, False, tmp_path / "p.npy", {"id": ids})
    with pytest.raises(ConfigError, match="would both be named 'predicted_price'"):
        write_predictions(values, target, False, None, {"price": ids, "predicted_price": ids})
    with pytest.raises(DataError, match=r"cannot be written as CSV: .*; write a .parquet"):
        write_predictions(values, target, False, None, {"pair": array([[1], [2]])})
    assert list(tmp_path.iterdir()) == []
