"""Permutation importance against scikit-learn's, and over a table's own columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.inspection import permutation_importance as sklearn_importance

from nnkit.data.sources.built_in import load_built_in
from nnkit.errors import ConfigError, DataError
from nnkit.insight.importance import permutation_importance
from nnkit.model import Model
from nnkit.runs.config import Config
from nnkit.runs.run import Run


def trained(source: str, folder: Any, *settings: str) -> Model:
    given = [f"data.train={source}", "model.hidden=[16]", "training.epochs=5", f"run.out={folder / 'run'}"]
    run = Run(Config().with_overrides([*given, *settings]))
    run.train()
    return run.model


class Face:
    """A model as scikit-learn's function asks for it: something with a score."""

    def __init__(self, model: Model, metric: str) -> None:
        self.model = model
        self.metric = metric

    def fit(self, X: Any, y: Any) -> None:
        raise NotImplementedError

    def score(self, X: np.ndarray, y: np.ndarray) -> float:
        if self.metric == "log_loss":
            return -sklearn_metrics.log_loss(y, self.model.predict_proba(X))
        if self.metric == "f1":
            return sklearn_metrics.f1_score(y, self.model.predict(X), average="macro")
        if self.metric == "r2":
            return sklearn_metrics.r2_score(y, self.model.predict(X))
        return sklearn_metrics.accuracy_score(y, self.model.predict(X))


@pytest.mark.parametrize(
    ("source", "metric", "seed"),
    [("digits", "accuracy", 0), ("digits", "log_loss", 7), ("digits", "f1", 1)],
)
def test_on_an_array_it_is_scikit_learns(tmp_path: Any, source: str, metric: str, seed: int) -> None:
    model = trained(source, tmp_path)
    examples = load_built_in(source).train
    X, y = examples.array[:300], examples.target
    assert y is not None
    found = permutation_importance(model, X, y[:300], metric, repeats=4, seed=seed)
    expected = sklearn_importance(Face(model, metric), X, y[:300], n_repeats=4, random_state=seed)
    np.testing.assert_allclose(found.drops, expected.importances, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.mean, expected.importances_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.deviation, expected.importances_std, rtol=0, atol=1e-6)
    assert np.abs(found.drops).max() > 0


def table(rows: int = 400) -> dict[str, Any]:
    random = np.random.default_rng(3)
    colours = random.choice(["red", "green", "blue"], rows)
    height, noise = random.normal(size=rows), random.normal(size=rows)
    price = 3 * height + 5 * (colours == "red") + 0.01 * noise
    return {"noise": noise, "colour": colours.tolist(), "height": height, "price": price}


def test_a_category_is_one_column_and_noise_is_nothing(tmp_path: Any) -> None:
    from test_cli import write_csv

    path = write_csv(tmp_path / "prices.csv", {name: list(values) for name, values in table().items()})
    settings = ("data.target=price", "training.epochs=60", "training.learning_rate=0.01")
    model = trained(str(path), tmp_path, *settings)
    columns = table()
    target = columns.pop("price")
    X = pa.table(columns)
    found = permutation_importance(model, X, target, repeats=3)
    assert found.columns == ("noise", "colour", "height")
    assert found.metric == "r2"
    noise, colour, height = found.mean
    assert abs(noise) < 0.05
    assert colour > 0.3
    assert height > 0.3
    # The same values as the user has them, shuffled by hand.
    random = np.random.RandomState(np.random.RandomState(0).randint(2**31))
    order = np.arange(len(target))
    random.shuffle(order)
    shuffled = X.set_column(1, "colour", X["colour"].take(pa.array(order)))
    drop = model.evaluate(X, target)["r2"] - model.evaluate(shuffled, target)["r2"]
    assert found.drops[1, 0] == pytest.approx(drop, abs=1e-6)
    assert [row["column"] for row in found.to_json()["columns"]][-1] == "noise"


def test_wrong_metrics_columns_and_numbers_are_named(tmp_path: Any) -> None:
    model = trained("digits", tmp_path)
    examples = load_built_in("digits").train
    X, y = examples.array[:50], np.asarray(examples.target)[:50]
    with pytest.raises(ConfigError, match=r"'r2' does not apply to a multiclass task"):
        permutation_importance(model, X, y, "r2")
    with pytest.raises(ConfigError, match="unknown column '64'"):
        permutation_importance(model, X, y, columns=["64"])
    with pytest.raises(ConfigError, match="repeats = 0 must be a whole number of at least 1"):
        permutation_importance(model, X, y, repeats=0)
    with pytest.raises(DataError):
        permutation_importance(model, X[:, :5], y)
