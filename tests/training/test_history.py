"""The record of a training: columns, the best epoch, and its two files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nnkit.errors import DataError, FileError
from nnkit.training.history import History


def history_of(losses: list[float], scores: list[float] | None = None, **options) -> History:
    history = History(**options)
    for epoch, loss in enumerate(losses, start=1):
        row = {
            "epoch": epoch,
            "step": 10 * epoch,
            "loss": 2 * loss,
            "learning_rate": 1e-3,
            "validation_loss": loss,
        }
        if scores:
            row["validation_accuracy"] = scores[epoch - 1]
        history.append(row)
    return history


def test_columns_rows_and_length() -> None:
    history = history_of([3.0, 1.0, 2.0])
    np.testing.assert_array_equal(history["loss"], [6.0, 2.0, 4.0])
    assert history["loss"].dtype == np.float64
    assert history["epoch"].dtype == np.int64
    assert history["step"].tolist() == [10, 20, 30]
    assert len(history) == 3
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert "loss" in history
    assert "lost" not in history
    assert history.columns == ("epoch", "step", "loss", "learning_rate", "validation_loss")


def test_numpy_scalars_become_plain_numbers() -> None:
    history = History()
    history.append({"epoch": np.int64(1), "loss": np.float32(0.5)})
    assert [type(value) for value in history.rows[0].values()] == [int, float]


def test_a_value_that_a_row_lacks_is_nan() -> None:
    history = History()
    history.append({"epoch": 1, "loss": 1.0})
    history.append({"epoch": 2, "loss": 1.0, "validation_f1": 0.5})
    np.testing.assert_array_equal(history["validation_f1"], [np.nan, 0.5])


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean loss"):
        history_of([1.0])["los"]


def test_best_epoch_follows_the_monitored_column() -> None:
    losses, scores = [3.0, 1.0, 1.0, 2.0], [0.5, 0.6, 0.9, 0.9]
    assert history_of(losses).best_epoch == 3  # the last of equals
    assert history_of(losses, scores, monitor="validation_accuracy", greater_is_better=True).best_epoch == 4
    assert history_of([math.nan, 5.0, math.nan]).best_epoch == 2
    assert history_of([math.nan]).best_epoch is None
    assert History().best_epoch is None
    history = History()
    for epoch, loss in ((4, 2.0), (5, 1.0)):
        history.append({"epoch": epoch, "loss": loss})
    assert history.best_epoch == 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"loss": 1.0}, "epoch of a row must be"),
        ({"epoch": 2, "loss": 1.0}, "greater than 2"),
        ({"epoch": 3, "loss": "low"}, "'loss' of epoch 3 is not a number: 'low'"),
        ({"epoch": 3, "loss": None}, "is not a number"),
    ],
)
def test_a_row_that_does_not_follow_is_refused(row: dict, message: str) -> None:
    history = history_of([1.0, 2.0])
    with pytest.raises(DataError, match=message):
        history.append(row)
    assert len(history) == 2


def test_json_gives_the_history_back_to_the_bit() -> None:
    history = history_of(
        [0.1 + 0.2, 1 / 3], [1e-300, 0.7], monitor="validation_accuracy", greater_is_better=True
    )
    again = History.from_json(json.loads(json.dumps(history.to_json(), allow_nan=False)))
    assert again == history
    assert again.best_epoch == 2
    assert again["step"].dtype == np.int64
    assert history != history_of([1.0])


def test_nan_is_null_in_json_and_nan_again_after() -> None:
    history = history_of([math.nan, math.inf])
    text = json.dumps(history.to_json(), allow_nan=False)
    assert "null" in text
    assert np.isnan(History.from_json(json.loads(text))["loss"]).all()


@pytest.mark.parametrize("value", [[], {}, {"rows": 3, "monitor": None}, {"rows": [3], "monitor": None}])
def test_what_is_no_history_is_refused(value: object) -> None:
    with pytest.raises(DataError):
        History.from_json(value)  # type: ignore[arg-type]


def test_lines_are_appended_one_an_epoch_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    source, grown = history_of([3.0, math.nan, 2.0]), History()
    for count, row in enumerate(source, start=1):
        grown.append(row)
        grown.append_jsonl(path)
        lines = path.read_text().splitlines()
        assert len(lines) == count
        assert json.loads(lines[-1])["epoch"] == count
    assert History.from_jsonl(path) == source


def test_a_line_cut_off_by_a_crash_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    history = history_of([3.0, 2.0])
    history.write_jsonl(path)
    whole = path.read_text()
    path.write_text(whole + '{"epoch": 3, "lo')
    assert History.from_jsonl(path) == history
    path.write_text("{]\n" + whole)
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1: not a row"):
        History.from_jsonl(path)
    path.write_text('{"epoch": 1, "loss": [1]}\n')
    with pytest.raises(DataError, match="line 1"):
        History.from_jsonl(path)


def test_writing_replaces_what_a_resumed_training_will_repeat(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    history_of([3.0, 2.0, 1.0]).write_jsonl(path)
    history_of([3.0, 2.0]).write_jsonl(path)
    assert len(History.from_jsonl(path)) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_text("a file, not a folder")
    missing = tmp_path / "nowhere" / "metrics.jsonl"
    history = history_of([1.0])
    for action in (history.append_jsonl, history.write_jsonl, History.from_jsonl):
        with pytest.raises(FileError, match="nowhere"):
            action(missing)


def test_repr_is_a_short_table() -> None:
    assert repr(History()) == "History(no epochs)"
    text = repr(history_of([float(n) for n in range(100, 0, -1)]))
    lines = text.splitlines()
    assert lines[0] == "History(100 epochs, best 100: validation loss 1)"
    assert lines[1].split("  ")[0].strip() == "epoch"
    assert len(lines) == 2 + 13
    assert len({len(line) for line in lines[1:]}) == 1
