"""nnkit's estimators in the places where scikit-learn's are used: what comes out is what came out before.

Wherever it can be, the same tool is run over scikit-learn's own estimator, in float64 and from the same
`random_state`, and the results are compared. Order: tools over classifiers, tools over regressors, metadata
routing, how an estimator shows itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import AdaBoostClassifier, BaggingRegressor, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from twins import assert_same_course, assert_same_network, ours_for, problem, theirs_for, twins, weights_for

import nnkit
from nnkit import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

QUICK = {"hidden_layer_sizes": (6,), "max_iter": 6, "learning_rate_init": 0.02, "shuffle": True}


def of_both(kind: str, function: Callable[[Any, NDArray, NDArray], Any], **params: Any) -> tuple[Any, Any]:
    """Return what a tool makes of scikit-learn's estimator, and of nnkit's."""
    X, y = problem(kind, rows=80)
    theirs, ours = twins(kind, **QUICK | params)
    return function(theirs, X, y), function(ours, X, y)


def assert_same(results: tuple[Any, Any], tolerance: float = 1e-6) -> None:
    expected, found = results
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


# --- tools over classifiers ---

CLASSIFIER_TOOLS: dict[str, Callable[[Any, NDArray, NDArray], Any]] = {
    "pipeline": lambda e, X, y: make_pipeline(StandardScaler(), e).fit(X, y).predict_proba(X),
    "cross_val_score": lambda e, X, y: cross_val_score(e, X, y, cv=3, scoring="neg_log_loss"),
    "cross_val_predict": lambda e, X, y: cross_val_predict(e, X, y, cv=3, method="predict_proba"),
    "calibrated": lambda e, X, y: CalibratedClassifierCV(e, cv=2).fit(X, y).predict_proba(X),
    "isotonic": lambda e, X, y: (
        CalibratedClassifierCV(e, method="isotonic", cv=2).fit(X, y, sample_weight=weights_for(80) + 0.5)
    ).predict_proba(X),
    "one against rest": lambda e, X, y: OneVsRestClassifier(e).fit(X, y).predict_proba(X),
    "one against one": lambda e, X, y: OneVsOneClassifier(e).fit(X, y).decision_function(X),
    "voting": lambda e, X, y: (
        VotingClassifier([("mlp", e), ("linear", LogisticRegression())], voting="soft")
        .fit(X, y)
        .predict_proba(X)
    ),
    "stacking": lambda e, X, y: StackingClassifier([("mlp", e)], cv=2).fit(X, y).predict_proba(X),
    "boosting": lambda e, X, y: (
        AdaBoostClassifier(e, n_estimators=2, random_state=0).fit(X, y).predict_proba(X)
    ),
    "importance": lambda e, X, y: (
        permutation_importance(
            e.fit(X, y), X, y, n_repeats=2, random_state=0, scoring="neg_log_loss"
        ).importances
    ),
    "dependence": lambda e, X, y: partial_dependence(
        e.fit(X, y), X, [0], grid_resolution=5, response_method="predict_proba"
    )["average"],
    "learning curve": lambda e, X, y: np.vstack(
        learning_curve(e, X, y, cv=2, train_sizes=[0.5, 1.0], scoring="neg_log_loss")[1:]
    ),
    "learning curve by partial_fit": lambda e, X, y: np.vstack(
        learning_curve(
            e, X, y, cv=2, train_sizes=[0.5, 1.0], scoring="neg_log_loss", exploit_incremental_learning=True
        )[1:]
    ),
    "validation curve": lambda e, X, y: np.vstack(
        validation_curve(e, X, y, param_name="alpha", param_range=[0.0, 1.0], cv=2, scoring="neg_log_loss")
    ),
}


@pytest.mark.parametrize("tool", CLASSIFIER_TOOLS)
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_tool_makes_the_same_of_a_classifier(kind: str, tool: str) -> None:
    assert_same(of_both(kind, CLASSIFIER_TOOLS[tool]))


def test_a_multilabel_classifier_in_a_pipeline_and_one_network_for_each_label() -> None:
    def both_ways(estimator: Any, X: NDArray, y: NDArray) -> NDArray:
        alone = np.stack(
            [p[:, 1] for p in MultiOutputClassifier(estimator).fit(X, y).predict_proba(X)], axis=1
        )
        return np.hstack([make_pipeline(StandardScaler(), estimator).fit(X, y).predict_proba(X), alone])

    assert_same(of_both("multilabel", both_ways))


def test_a_grid_search_in_two_processes_finds_the_same() -> None:
    X, y = problem("binary", rows=80)
    grid = {"mlp__alpha": [0.0, 1.0], "mlp__solver": ["adam", "lbfgs"]}
    results = []
    for estimator in twins("binary", **QUICK):
        # The default steps: the name of one is not the class's.
        pipeline = make_pipeline(StandardScaler(), estimator)
        pipeline.steps[-1] = ("mlp", estimator)
        search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, scoring="neg_log_loss", return_train_score=True)
        results.append(search.fit(X, y))
    theirs, ours = results
    assert ours.best_params_ == theirs.best_params_
    for key in ("mean_test_score", "mean_train_score"):
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)


def test_nnkits_own_parameters_can_be_searched() -> None:
    X, y = problem("binary", rows=60)
    grid: dict[str, list] = {
        "dropout": [0.0, (0.2,)],
        "optimizer": [None, nnkit.AdamW(0.01)],
        "loss": ["log_loss", {"name": "cross_entropy", "label_smoothing": 0.1}],
        "class_weight": ["balanced"],
    }
    search = GridSearchCV(ours_for("binary", **QUICK | {"max_iter": 2}), grid, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.get_params()["class_weight"] == "balanced"


def test_words_in_a_pipeline_are_trained_on_as_sparse_rows() -> None:
    texts = ["free money now", "meet me at noon", "win money", "lunch at noon"] * 6
    labels = np.array(["spam", "ham"] * 12)
    results = []
    for estimator in twins("binary", **QUICK):
        pipeline = make_pipeline(TfidfVectorizer(), estimator).fit(texts, labels)
        results.append(pipeline.predict_proba(texts))
    assert_same(tuple(results))


def test_a_column_transformer_hands_over_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = problem("binary", rows=60)
    table = pandas.DataFrame(X, columns=list("abcd"))
    table["colour"] = np.array(["red", "green", "blue"])[np.arange(60) % 3]
    parts = [("numbers", StandardScaler(), list("abcd")), ("words", OneHotEncoder(), ["colour"])]
    results = []
    for estimator in twins("binary", **QUICK):
        prepared = ColumnTransformer(parts, sparse_threshold=0).set_output(transform="default")
        results.append(make_pipeline(prepared, estimator).fit(table, y).predict_proba(table))
        shown = ColumnTransformer([("all", StandardScaler(), list("abcd"))]).set_output(transform="pandas")
        pipeline = make_pipeline(shown, estimator).fit(table, y)
        assert pipeline[-1].feature_names_in_.tolist() == [f"all__{name}" for name in "abcd"]
    assert_same(tuple(results))


def test_an_estimator_in_a_clone_of_a_fitted_pipeline_starts_afresh() -> None:
    X, y = problem("binary")
    fitted = make_pipeline(StandardScaler(), ours_for("binary", **QUICK)).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = clone(fitted)
    assert not hasattr(again[-1], "coefs_")
    assert_same_network(fitted[-1], again.fit(X, y)[-1], tolerance=0.0)


# --- tools over regressors ---

REGRESSOR_TOOLS: dict[str, Callable[[Any, NDArray, NDArray], Any]] = {
    "pipeline": lambda e, X, y: make_pipeline(StandardScaler(), e).fit(X, y).predict(X),
    "cross_val_score": lambda e, X, y: cross_val_score(e, X, y, cv=3),
    "importance": lambda e, X, y: (
        permutation_importance(e.fit(X, y), X, y, n_repeats=2, random_state=0).importances
    ),
    "dependence": lambda e, X, y: partial_dependence(e.fit(X, y), X, [1], grid_resolution=5)["average"],
    "bagging": lambda e, X, y: BaggingRegressor(e, 2, random_state=0).fit(X, y).predict(X),
}


@pytest.mark.parametrize("tool", REGRESSOR_TOOLS)
@pytest.mark.parametrize("kind", ["regression", "regressions"])
def test_a_tool_makes_the_same_of_a_regressor(kind: str, tool: str) -> None:
    if (kind, tool) == ("regressions", "bagging"):
        pytest.skip("bagging takes one target")
    assert_same(of_both(kind, REGRESSOR_TOOLS[tool]))


def test_a_chain_and_a_transformed_target() -> None:
    assert_same(of_both("regressions", lambda e, X, y: RegressorChain(e).fit(X, y).predict(X)))
    curved = FunctionTransformer(np.sinh, np.arcsinh, check_inverse=False)
    assert_same(
        of_both(
            "regression",
            lambda e, X, y: TransformedTargetRegressor(e, transformer=curved).fit(X, y).predict(X),
        ),
        tolerance=1e-5,
    )


def test_scikit_learn_tells_classifiers_from_regressors() -> None:
    assert is_classifier(MLPClassifier())
    assert not is_regressor(MLPClassifier())
    assert is_regressor(MLPRegressor())
    assert not is_classifier(MLPRegressor())


# --- metadata routing ---


def test_sample_weights_are_routed_to_fit_and_score() -> None:
    X, y = problem("binary", rows=80)
    weights = weights_for(80) + 0.5
    results = []
    with config_context(enable_metadata_routing=True):
        for estimator in twins("binary", **QUICK):
            estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), estimator)
            routed = cross_validate(
                pipeline, X, y, cv=2, params={"sample_weight": weights}, return_estimator=True
            )
            results.append((routed["test_score"], routed["estimator"][0][-1]))
    (expected, theirs), (found, ours) = results
    np.testing.assert_allclose(found, expected)
    assert_same_course(theirs, ours)


def test_sample_weights_that_nobody_asked_for_are_refused() -> None:
    X, y = problem("binary", rows=40)
    with config_context(enable_metadata_routing=True):
        for estimator in twins("binary", **QUICK):
            with pytest.raises(ValueError, match="sample_weight"):
                cross_validate(estimator, X, y, params={"sample_weight": np.ones(40)})


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_the_requests_are_scikit_learns_and_one_for_rows_to_validate_on(kind: str) -> None:
    theirs, ours = (twin.get_metadata_routing() for twin in twins(kind))
    for method in ("fit", "partial_fit", "score", "predict"):
        expected, found = (getattr(request, method).requests for request in (theirs, ours))
        assert {name: value for name, value in found.items() if name != "eval_set"} == expected, method


def test_rows_to_validate_on_are_routed() -> None:
    X, y = problem("regression", rows=80)
    with config_context(enable_metadata_routing=True):
        ours = ours_for("regression", **QUICK).set_fit_request(eval_set=True)
        pipeline = make_pipeline(FunctionTransformer(), ours).fit(X[:60], y[:60], eval_set=(X[60:], y[60:]))
    assert len(pipeline[-1].validation_scores_) == 6


# --- how an estimator shows itself ---


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_repr_shows_the_changed_parameters(kind: str) -> None:
    theirs, ours = theirs_for(kind), ours_for(kind)
    for settings in ({}, {"alpha": 0.5}, {"hidden_layer_sizes": (3, 4), "solver": "lbfgs", "max_iter": 9}):
        assert repr(type(ours)(**settings)) == repr(type(theirs)(**settings))
    assert repr(type(ours)(dropout=0.5)) == f"{type(ours).__name__}(dropout=0.5)"


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_the_html_is_scikit_learns(kind: str) -> None:
    X, y = problem(kind)
    for estimator in twins(kind, max_iter=1):
        before = estimator._repr_html_()
        after = make_pipeline(StandardScaler(), estimator).fit(X, y)._repr_html_()
        for page in (before, after):
            assert "sk-top-container" in page
            assert type(estimator).__name__ in page
            for name in ("hidden_layer_sizes", "learning_rate_init"):
                assert name in page
        assert "text/html" in estimator._repr_mimebundle_()
