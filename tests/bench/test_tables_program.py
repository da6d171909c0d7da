"""bench/tables.py: its splits, errors and contenders, what it measures again, and what comes of the rows."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, root_mean_squared_error

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("tables")


def drawn(tables: ModuleType, rows: int = 300, regression: bool = False) -> Any:
    """Return a table whose target follows from a number, a category and a gap."""
    generator = np.random.default_rng(0)
    number, kind = generator.standard_normal(rows), generator.choice(["a", "b", "c"], rows)
    value = number + 2 * (kind == "a")
    target = value if regression else np.where(value > 0.7, "yes", "no")
    number[::10] = np.nan
    lines = [
        f"{'' if np.isnan(x) else x},{name},{y}"
        for x, name, y in zip(number.tolist(), kind.tolist(), target.tolist(), strict=True)
    ]
    return tables.Table("drawn", "y", regression, ["x,kind,y", *lines])


def test_a_split_holds_out_another_fifth_for_each_number(tables: ModuleType) -> None:
    table = drawn(tables, 303)
    splits = [table.split(number) for number in range(3)]
    for number, (train, test) in enumerate(splits):
        assert sorted([*train, *test]) == list(range(303))
        np.testing.assert_array_equal(test, np.random.default_rng(1000 + number).permutation(303)[:60])
    assert (table.splits, drawn(tables, 1000).splits) == (10, 3)


def test_errors_are_those_of_scikit_learn(tables: ModuleType) -> None:
    table, rows = drawn(tables), np.arange(20, 80)
    truth, yes = table.columns[1][rows], np.random.default_rng(1).uniform(size=60)
    found = tables.error_of(table, rows, np.column_stack([1 - yes, yes]))
    assert found["error"] == pytest.approx(log_loss(truth, yes))
    assert found["accuracy"] == np.mean(truth == (yes > 0.5))
    wrong = np.column_stack([truth == 1, truth == 0]).astype(float)
    assert tables.error_of(table, rows, wrong)["error"] == pytest.approx(-np.log(1e-15))
    numbers = drawn(tables, regression=True)
    found = tables.error_of(numbers, rows, yes[:, None])
    assert found == {"error": pytest.approx(root_mean_squared_error(numbers.columns[1][rows], yes))}


def test_the_calibration_error_is_the_distance_of_what_is_said_and_what_is_so(tables: ModuleType) -> None:
    generator = np.random.default_rng(2)
    yes = generator.uniform(size=150_000)
    said = np.column_stack([1 - yes, yes])
    truth = (generator.uniform(size=len(yes)) < yes).astype(int)
    assert tables.calibration_error(truth, said) < 0.005
    # What is so with probability p² is said with p: the mean distance is 1/2 - 1/3.
    squared = (generator.uniform(size=len(yes)) < yes**2).astype(int)
    assert tables.calibration_error(squared, said) == pytest.approx(1 / 6, abs=0.005)
    # Of three classes only the predicted one counts: said with 0.6, and so in half of the rows.
    said = np.tile([0.1, 0.3, 0.6], (30, 1))
    assert tables.calibration_error(np.tile([2, 0], 15), said) == pytest.approx(0.1)


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("name", ["nnkit", "histgb", "sklearn-mlp"])
def test_a_contender_learns_a_table_with_gaps_and_categories(
    tables: ModuleType, name: str, regression: bool
) -> None:
    table = drawn(tables, 1500, regression)
    (row,) = tables.measure(name, table, [0])
    target = table.columns[1][table.split(0)[1]]
    share = target.mean()
    guessed = target.std() if regression else -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert row["error"] < 0.7 * guessed
    assert (row["table"], row["split"], row["contender"]) == ("drawn", 0, name)
    assert ("validation error" in row) == (name == "histgb")
    assert row["version"]


def test_only_what_is_missing_or_of_another_version_is_measured(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def train(table: Any, rows: np.ndarray, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        measured.append(len(rows))
        return lambda asked: np.full((len(asked), 2), 0.5)

    versions: dict[str, str] = {}
    monkeypatch.setitem(tables.CONTENDERS, "nnkit", train)
    monkeypatch.setattr(tables, "version_of", lambda name: versions.get(name, "3"))
    path, small, large = tmp_path / "rows.jsonl", drawn(tables), drawn(tables, 3000)
    assert len(tables.measure_missing(path, ["nnkit"], [small], 2)) == 2
    rows = tables.measure_missing(path, ["nnkit"], [small], 3)
    assert measured == [240] * 3
    assert [row["split"] for row in rows] == [0, 1, 2]
    assert rows == [json.loads(line) for line in path.read_text().splitlines()]
    versions["nnkit"] = "4"
    assert tables.measure_missing(path, ["nnkit"], [small], 1)[0]["version"] == "4"
    assert measured == [240] * 4
    path.unlink()
    assert "calibration error" not in tables.measure_missing(path, ["nnkit"], [large], 1)[-1]
    rows = tables.measure_missing(path, ["nnkit"], [large], 10)
    assert [row.get("calibration error") is not None for row in rows] == [False, False, True]
    assert measured[4:] == [2400] * 4  # all splits again: the calibration error is of all
    versions["nnkit"] = "5+"  # changed since its commit
    for _ in range(2):
        tables.measure_missing(path, ["nnkit"], [small], 1)
    assert measured[8:] == [240] * 2


def test_the_summary_is_the_geometric_mean_of_the_common_splits(tables: ModuleType) -> None:
    first, second = drawn(tables, 1000), drawn(tables, 1000, regression=True)
    names = [
        tables.Table(name, one.target, one.regression, one.lines)
        for name, one in (("first", first), ("second", second))
    ]

    def rows(table: str, name: str, errors: list[float], **others: float) -> list[dict[str, Any]]:
        about = {"table": table, "contender": name, "version": "1", **others}
        return [{**about, "split": split, "error": error} for split, error in enumerate(errors)]

    found = [
        *rows("first", "nnkit", [0.1, 0.3, 9.0], accuracy=0.9),
        *rows("first", "histgb", [0.2, 0.2], accuracy=0.8, **{"validation error": 1.0}),
        *rows("first", "lightgbm", [0.8, 0.8], accuracy=0.8, **{"validation error": 0.5}),
        *rows("first", "catboost", [0.1, 0.1], accuracy=0.8, **{"validation error": 2.0}),
        *rows("first", "realmlp", [5.0], accuracy=1.0),
        *rows("first", "before", [0.3, 0.1], accuracy=0.9),
        *rows("second", "nnkit", [1.0, 2.0]),
        *rows("second", "histgb", [4.0, 8.0], **{"validation error": 1.0}),
        *rows("second", "realmlp", [2.0]),
        *rows("second", "before", [0.9, 1.9]),
    ]
    records = {(record.section, record.name): record for record in tables.summary(found, names)}
    figures = records["over the tables", "nnkit"].figures
    assert figures["error / histgb"].median == pytest.approx(0.5)  # of 1 and 1/4
    assert figures["error / boosted, chosen"].median == pytest.approx(0.25)  # LightGBM, on the first only
    assert figures["RMSE / realmlp"].median == pytest.approx(0.5)
    assert figures["1 - accuracy / realmlp"].median == pytest.approx((0.1 + 0.0025) / 0.0025)
    # The first differs by -0.2 and 0.2, with a standard error of 0.2 at 0.2; the second by 0.1 at 1.4.
    worst = figures["worst table / before"]
    assert records["over the tables", "nnkit"].details["worst table"] == "second"
    assert worst.median == pytest.approx(1.5 / 1.4)
    assert worst.aim is not None
    assert worst.aim.value == pytest.approx(1.03)
    assert records["tables", "first, log loss"].figures["nnkit"].repeats == 3
    assert records["over the tables", "boosted, chosen"].figures["error / histgb"].median == pytest.approx(4)
