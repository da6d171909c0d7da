"""The preset "tables" of the estimators, against linear models, `nnkit train` and a model file.

Order: what it learns, the parameters that count, files and pickles, inside scikit-learn, errors.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import nnkit
from nnkit import MLPClassifier, MLPRegressor
from nnkit.errors import ConfigError, DataError
from nnkit.runs.config import Config
from nnkit.runs.run import Run

SHORT: dict[str, Any] = {"preset": "tables", "max_iter": 3, "random_state": 0, "device": "cpu"}


def table(rows: int = 600) -> tuple[pd.DataFrame, NDArray, NDArray]:
    """Return a frame whose columns interact, and its classes and values; some cells are missing."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, rows))
    kind = random.choice(["x", "y", "z"], rows).astype(object)
    values = np.where(kind == "x", first, np.where(kind == "y", -first, second**2 - 1.0))
    classes = np.where(values > 0, "yes", "no")
    first[::40], kind[::50] = np.nan, None
    return pd.DataFrame({"first": first, "second": second, "kind": kind}), classes, values


def linear(model: Any, X: pd.DataFrame) -> Any:
    """Return a pipeline of a linear model, and the columns as it takes them."""
    hot = OneHotEncoder(sparse_output=False).fit_transform(X[["kind"]].astype(str))
    numbers = X[["first", "second"]].to_numpy()
    return make_pipeline(SimpleImputer(), StandardScaler(), model), np.hstack([numbers, hot])


def test_a_classifier_of_a_frame_beats_a_linear_model() -> None:
    X, classes, _ = table()
    train, test = slice(0, 400), slice(400, None)
    clf = MLPClassifier(preset="tables", max_iter=60, random_state=0).fit(X[train], classes[train])
    theirs, encoded = linear(LogisticRegression(), X)
    score = clf.score(X[test], classes[test])
    assert score > theirs.fit(encoded[train], classes[train]).score(encoded[test], classes[test]) + 0.1
    assert score == np.mean(clf.predict(X[test]) == classes[test])
    assert clf.classes_.tolist() == ["no", "yes"]
    assert clf.feature_names_in_.tolist() == ["first", "second", "kind"]
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.validation_scores_)
    np.testing.assert_allclose(clf.predict_proba(X), clf.model_.predict_proba(X), rtol=1e-6)


def test_a_regressor_of_a_frame_beats_a_linear_model() -> None:
    X, _, values = table()
    train, test = slice(0, 400), slice(400, None)
    reg = MLPRegressor(preset="tables", max_iter=60, random_state=0).fit(X[train], values[train])
    theirs, encoded = linear(LinearRegression(), X)
    score = reg.score(X[test], values[test])
    assert score > theirs.fit(encoded[train], values[train]).score(encoded[test], values[test]) + 0.2


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_it_predicts_as_a_run_on_the_same_table_does(estimator: type, tmp_path: Path) -> None:
    X, classes, values = table(200)
    y = classes if estimator is MLPClassifier else values
    file = tmp_path / "table.csv"
    X.assign(outcome=y).to_csv(file, index=False)
    ours = estimator(**SHORT).fit(X, y)
    config = Config.from_tables(
        {
            "data": {"train": str(file), "target": "outcome"},
            "training": {"epochs": SHORT["max_iter"]},
            "run": {"seed": 0, "device": "cpu", "out": str(tmp_path / "run")},
        }
    )
    run = Run(config)
    run.train()
    np.testing.assert_array_equal(ours.predict(X), run.model.predict(X))
    np.testing.assert_array_equal(ours.model_.outputs(X), run.model.outputs(X))


def test_a_polars_frame_gives_the_network_of_the_pandas_frame() -> None:
    X, classes, _ = table(200)
    ours = MLPClassifier(**SHORT).fit(X, classes).predict_proba(X)
    polars = pl.from_pandas(X)
    np.testing.assert_array_equal(MLPClassifier(**SHORT).fit(polars, classes).predict_proba(polars), ours)


def test_an_array_gives_the_network_of_a_frame_of_its_columns() -> None:
    X, classes, _ = table(200)
    numbers = X[["first", "second"]]
    ours = MLPClassifier(**SHORT).fit(numbers.to_numpy(), classes)
    theirs = MLPClassifier(**SHORT).fit(numbers, classes)
    np.testing.assert_array_equal(ours.predict_proba(numbers.to_numpy()), theirs.predict_proba(numbers))
    assert ours.n_features_in_ == 2
    assert not hasattr(ours, "feature_names_in_")


def test_whole_numbers_of_an_array_are_numbers() -> None:
    X = np.arange(60)[:, None]  # in a frame named "id" they would identify the rows
    reg = MLPRegressor(**{**SHORT, "max_iter": 200}).fit(X, X[:, 0] * 2.0)
    assert reg.score(X, X[:, 0] * 2.0) > 0.9


def test_labels_and_several_values() -> None:
    X, classes, values = table(200)
    labels = np.column_stack([classes == "yes", X["second"] > 0]).astype(int)
    clf = MLPClassifier(**SHORT).fit(X, labels)
    assert clf.predict(X).shape == clf.predict_proba(X).shape == (200, 2)
    reg = MLPRegressor(**SHORT).fit(X, np.column_stack([values, -values]))
    assert reg.predict(X).shape == (200, 2)


# --- the parameters that count ---


def test_one_seed_gives_the_same_predictions_and_another_does_not() -> None:
    X, classes, _ = table(200)
    first, same = (MLPClassifier(**SHORT).fit(X, classes).predict_proba(X) for _ in range(2))
    other = MLPClassifier(**{**SHORT, "random_state": 1}).fit(X, classes).predict_proba(X)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_parameters_other_than_their_defaults_count() -> None:
    X, classes, _ = table(200)
    sgd = {"optimizer": {"name": "sgd"}, "learning_rate_init": np.float64(0.5)}
    clf = MLPClassifier((24,), "logistic", dropout=[0.3], **sgd, **SHORT).fit(X, classes)
    assert clf.n_iter_ == 3
    _, hidden, dropout, last = clf.model_.network.layers
    assert (hidden.units, hidden.activation, dropout.rate, last.units) == (24, "sigmoid", 0.3, 1)
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    first, last = (
        MLPClassifier(learning_rate_init=1e-12, **{**SHORT, "max_iter": epochs})
        .fit(X, classes)
        .predict_proba(X)
        for epochs in (1, 3)
    )
    np.testing.assert_allclose(first, last, atol=1e-6)  # at this rate nothing is learnt


def test_sample_weights_and_class_weights_shift_the_predictions() -> None:
    X, classes, _ = table(200)
    plain = MLPClassifier(**SHORT).fit(X, classes).predict_proba(X)[:, 1].mean()
    weights = np.where(classes == "yes", 20.0, 1.0)
    by_row = MLPClassifier(**SHORT).fit(X, classes, sample_weight=weights).predict_proba(X)[:, 1].mean()
    clf = MLPClassifier(class_weight={"yes": 20.0}, **SHORT)
    by_class = clf.fit(X, classes).predict_proba(X)[:, 1].mean()
    assert by_row > plain + 0.05
    assert by_class > plain + 0.05


def test_an_eval_set_is_scored_and_no_row_is_held_out() -> None:
    X, classes, _ = table(200)
    train, held = slice(0, 150), slice(150, None)
    clf = MLPClassifier(**{**SHORT, "max_iter": 1})
    clf.fit(X[train], classes[train], eval_set=(X[held], classes[held]))
    assert clf.model_.details["trained_rows"] == 150
    assert clf.validation_scores_ == [pytest.approx(clf.score(X[held], classes[held]))]


def test_a_fraction_of_zero_holds_out_no_rows() -> None:
    X, classes, _ = table(200)
    clf = MLPClassifier(validation_fraction=0, **SHORT).fit(X, classes)
    assert clf.model_.details["trained_rows"] == 200
    assert clf.validation_scores_ is None


# --- files and pickles ---


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_a_pickle_and_a_file_predict_alike(estimator: type, tmp_path: Path) -> None:
    X, classes, values = table(200)
    fitted = estimator(**SHORT).fit(X, classes if estimator is MLPClassifier else values)
    expected = fitted.predict(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), expected)
    fitted.save(tmp_path / "table.safetensors")
    np.testing.assert_array_equal(nnkit.load(tmp_path / "table.safetensors").predict(X), expected)
    loaded = estimator.load(tmp_path / "table.safetensors")
    np.testing.assert_array_equal(loaded.predict(X), expected)
    assert loaded.get_params() == fitted.get_params()
    assert (loaded.n_iter_, loaded.loss_curve_) == (fitted.n_iter_, fitted.loss_curve_)
    assert loaded.feature_names_in_.tolist() == X.columns.tolist()


# --- inside scikit-learn ---


def test_cross_validation_and_a_search() -> None:
    X, classes, _ = table(200)
    clf = MLPClassifier(**{**SHORT, "max_iter": 150})
    scores = cross_val_score(clf, X, classes, cv=2)
    fitted = clone(clf).fit(X[:100], classes[:100])
    assert scores.shape == (2,)
    assert min(*scores, fitted.score(X[100:], classes[100:])) > 0.6
    search = GridSearchCV(clf, {"hidden_layer_sizes": [(4,), (64,)]}, cv=2).fit(X, classes)
    assert search.best_estimator_.model_.network.layers[1].units in (4, 64)
    assert clone(clf).get_params() == clf.get_params()


def test_another_fit_replaces_the_earlier_one() -> None:
    X, classes, _ = table(200)
    clf = MLPClassifier(**SHORT).fit(X, classes)
    numbers = X[["second"]]
    plain = MLPClassifier(max_iter=5, random_state=0)
    with pytest.warns(match="Maximum iterations"):
        expected = plain.fit(numbers, classes).predict_proba(numbers)
    with pytest.warns(match="Maximum iterations"):
        clf.set_params(preset=None, max_iter=5, device="auto").fit(numbers, classes)
    np.testing.assert_array_equal(clf.predict_proba(numbers), expected)
    assert not hasattr(clf, "model_")
    clf.set_params(**SHORT).fit(X, classes)
    assert clf.predict(X).shape == (200,)
    assert not hasattr(clf, "coefs_")


# --- errors ---


def test_what_it_does_not_have_is_said() -> None:
    X, classes, values = table(200)
    clf = MLPClassifier(**SHORT)
    for given in ({"warm_start": True}, {"alpha": 1.0}, {"solver": "sgd"}, {"loss": "cross_entropy"}):
        with pytest.raises(ConfigError, match=f'preset="tables" has nothing for {next(iter(given))}'):
            clone(clf).set_params(**given).fit(X, classes)
    with pytest.raises(ConfigError, match="partial_fit does not support preset"):
        clf.partial_fit(X, classes, classes=["no", "yes"])
    clf.fit(X, classes)
    with pytest.raises(AttributeError, match=r"model_\.network\.parameters"):
        _ = clf.coefs_
    with pytest.raises(ValueError, match="preset"):
        MLPClassifier(preset="rows").fit(X, classes)
    with pytest.raises(ConfigError, match="n_iter_no_change"):
        clone(clf).set_params(n_iter_no_change=np.inf).fit(X, classes)
    with pytest.raises(ValueError, match="Unknown label type"):
        clone(clf).fit(X, values)


def test_rows_of_another_shape_are_refused() -> None:
    X, classes, _ = table(200)
    numbers = X[["first", "second"]].to_numpy()
    clf = MLPClassifier(**SHORT).fit(numbers, classes)
    with pytest.raises(DataError, match="X has 3 features, but MLPClassifier is expecting 2"):
        clf.predict(np.hstack([numbers, numbers[:, :1]]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.fit(X, classes[:-1])
    clf.fit(X, classes)
    with pytest.raises(DataError, match="'kind'"):
        clf.predict(X.drop(columns="kind"))
