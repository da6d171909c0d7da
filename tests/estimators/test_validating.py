"""Rows to validate on, early stopping and `partial_fit`, and complaints open at scikit-learn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_network import WIDTHS
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from twins import assert_same_course, assert_same_network, ours_for, problem, same_bits, theirs_for

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

# --- rows to validate on ---

PATIENT = {
    "max_iter": 60,
    "learning_rate_init": 0.05,
    "n_iter_no_change": 3,
    "tol": 0.01,
    "early_stopping": True,
}


def held_out(kind: str, y: NDArray, share: float) -> tuple[NDArray, NDArray]:
    """Return the rows that scikit-learn trains on and validates on, drawn after the initial weights."""
    generator = np.random.RandomState(3)
    outs = 1 if y.ndim == 1 and kind != "multiclass" else WIDTHS[kind]
    for fan_in, fan_out in ((4, 7), (7, 5), (5, outs)):
        generator.uniform(size=(fan_in + 1) * fan_out)
    stratify = y if kind == "binary" else None
    return tuple(
        train_test_split(np.arange(len(y)), test_size=share, random_state=generator, stratify=stratify)
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_rows_given_to_validate_on_serve_in_place_of_a_split(kind: str) -> None:
    X, y = problem(kind)
    theirs = theirs_for(kind, validation_fraction=0.3, **PATIENT).fit(X, y)
    train, validation = held_out(kind, y, 0.3)
    ours = ours_for(kind, **PATIENT).fit(X[train], y[train], eval_set=(X[validation], y[validation]))
    assert_same_course(theirs, ours)
    assert theirs.n_iter_ < 60


def test_the_rows_to_validate_on_can_weigh() -> None:
    X, y = problem("binary", rows=90)
    X_val, y_val, weights = X[60:], y[60:], np.linspace(0.1, 3.0, 30)
    ours = ours_for("binary", **PATIENT).fit(X[:60], y[:60], eval_set=(X_val, y_val, weights))
    assert ours.best_validation_score_ == max(ours.validation_scores_)
    weighted = accuracy_score(y_val, ours.predict(X_val), sample_weight=weights)
    assert ours.best_validation_score_ == pytest.approx(weighted)
    assert weighted != pytest.approx(accuracy_score(y_val, ours.predict(X_val)))


@pytest.mark.parametrize(("kind", "score"), [("multiclass", accuracy_score), ("regression", r2_score)])
def test_without_early_stopping_each_epochs_score_is_kept_and_nothing_else_changes(
    kind: str, score: Callable[[NDArray, NDArray], float]
) -> None:
    X, y = problem(kind, rows=90)
    ours = ours_for(kind, max_iter=6, shuffle=True)
    plain = copy.deepcopy(ours).fit(X[:60], y[:60])
    ours.fit(X[:60], y[:60], eval_set=(X[60:], y[60:]))
    assert same_bits(plain, ours)
    assert len(ours.validation_scores_) == 6
    assert ours.validation_scores_[-1] == pytest.approx(score(y[60:], ours.predict(X[60:])))
    assert plain.validation_scores_ is None


def test_the_rows_to_validate_on_can_have_labels_of_any_type_and_be_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = problem("multiclass", rows=90)
    table, y = pandas.DataFrame(X, columns=list("abcd")), np.array(["low", "high", "ever"])[y]
    ours = ours_for("multiclass", max_iter=4).fit(table[:60], y[:60], eval_set=(table[60:], y[60:]))
    assert ours.validation_scores_[-1] == pytest.approx(accuracy_score(y[60:], ours.predict(table[60:])))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda X, y: (X,),
        lambda X, y: X,
        lambda X, y: (X, y, None, None),
        lambda X, y: (X[:, :2], y),
        lambda X, y: (X[:5], y),
        lambda X, y: (X[:0], y[:0]),
        lambda X, y: (np.where(X > 1, np.nan, X), y),
    ],
    ids=["alone", "no pair", "four", "features", "lengths", "empty", "nan"],
)
def test_rows_that_cannot_be_validated_on_are_refused(wrong: Any) -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError):  # noqa: PT011 - nnkit's and scikit-learn's own
        ours_for("binary", max_iter=1).fit(X, y, eval_set=wrong(X, y))


# --- early stopping and partial_fit ---


@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression"])
@pytest.mark.parametrize("fitted", [False, True], ids=["first call", "after a fit"])
def test_partial_fit_refuses_early_stopping_as_scikit_learn_does(kind: str, fitted: bool) -> None:
    # Scores on the held-out rows of different calls cannot be compared.
    X, y = problem(kind)
    first = {} if kind == "regression" else {"classes": np.arange(3) if kind == "multilabel" else [0, 1]}
    for estimator in (theirs_for(kind, max_iter=2), ours_for(kind, max_iter=2)):
        estimator.set_params(early_stopping=True, validation_fraction=0.2)
        if fitted:
            estimator.fit(X, y)
        kept = copy.deepcopy(estimator)
        with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
            estimator.partial_fit(X, y, **first)
        if fitted:
            assert same_bits(kept, estimator)
    assert fitted or not hasattr(estimator, "classes_")
    ours_for(kind, early_stopping=False).partial_fit(X, y, **first)


def test_calls_of_partial_fit_follow_rows_that_drift_after_a_fit_with_early_stopping() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 5))
    ours = ours_for("binary", early_stopping=True, learning_rate_init=0.02, tol=1e-4, n_iter_no_change=10)
    ours.fit(X, (X[:, 0] > 0).astype(int))
    ours.set_params(early_stopping=False)
    rows = generator.normal(size=(2000, 5))
    truth = (rows[:, 1] > 0).astype(int)
    before = ours.score(rows, truth)
    for _ in range(40):
        X = generator.normal(size=(500, 5))
        ours.partial_fit(X, (X[:, 1] > 0).astype(int))
    assert before < 0.6
    assert ours.score(rows, truth) > 0.95
    assert not ours.stopped_early_


# --- complaints that are open at scikit-learn ---


@pytest.mark.parametrize("classes", [np.arange(3), [0, 1, 2]], ids=["array", "list"])
def test_partial_fit_learns_multilabel_targets_as_fit_does(classes: Any) -> None:
    """scikit-learn #12505: far worse by `partial_fit` than by `fit` on the same rows."""
    X, y = problem("multilabel")
    fitted = ours_for("multilabel", max_iter=20).fit(X, y)
    called = ours_for("multilabel")
    for _ in range(20):
        called.partial_fit(X, y, classes=classes)
    assert_same_network(fitted, called, tolerance=1e-12)
    np.testing.assert_array_equal(called.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(called.classes_, fitted.classes_)


@pytest.mark.parametrize("classes", [None, [0, 1]], ids=["none", "values"])
def test_partial_fit_takes_the_labels_of_an_indicator_matrix_from_its_columns(classes: Any) -> None:
    X, y = problem("multilabel")
    expected = ours_for("multilabel").partial_fit(X, y, classes=np.arange(3))
    found = ours_for("multilabel").partial_fit(X, y, classes=classes)
    assert same_bits(expected, found)
    np.testing.assert_array_equal(found.classes_, [0, 1, 2])


def test_the_calls_of_partial_fit_need_not_show_every_label() -> None:
    X, y = problem("multilabel")
    order = np.lexsort(y.T)
    ours = ours_for("multilabel", batch_size=5, learning_rate_init=0.02)
    parts = np.array_split(order, 6)
    assert any((y[part] == y[part][0]).all(axis=0).any() for part in parts)
    for _ in range(30):
        for part in parts:
            ours.partial_fit(X[part], y[part], classes=np.arange(3))
    assert ours.predict(X).shape == y.shape
    assert np.mean(ours.predict(X) == y) > 0.9


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
@pytest.mark.parametrize("form", [str, object, "table"], ids=str)
def test_early_stopping_works_with_labels_that_are_texts(kind: str, form: Any) -> None:
    """scikit-learn #33760: 'ufunc isnan not supported for the input types'."""
    X, numbers = problem(kind)
    settings = {**PATIENT, "shuffle": True, "validation_fraction": 0.3}
    expected = theirs_for(kind, **settings).fit(X, numbers)
    names = np.array(["a", "bb", "ccc"])
    y: Any = names.astype(object if form is object else str)[numbers]
    if form == "table":
        y = pytest.importorskip("pandas").Series(y)
    ours = ours_for(kind, **settings).fit(X, y)
    assert_same_course(expected, ours)
    assert ours.predict(X).tolist() == names[expected.predict(X)].tolist()


def test_rows_to_validate_on_may_lack_a_class_under_warm_start_too() -> None:
    X, y = problem("multiclass")
    some = y != y.max()
    estimator = ours_for("multiclass", warm_start=True, max_iter=2)
    for _ in range(2):
        estimator.fit(X, y, eval_set=(X[some], y[some]))
    assert len(estimator.validation_scores_) == 4


def test_a_fit_that_failed_says_nothing_of_the_next_ones_classes() -> None:
    X, y = problem("binary")
    estimator = ours_for("binary", class_weight={"neither": 2.0}, max_iter=2)
    with pytest.raises(ValueError, match="class_weight"):
        estimator.fit(X, y)
    estimator.set_params(class_weight=None)
    labels = np.where(y == y.max(), "yes", "no")
    assert estimator.fit(X, labels).classes_.tolist() == ["no", "yes"]
