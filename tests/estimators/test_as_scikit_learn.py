"""nnkit's estimators against scikit-learn's: the same settings end at the same network, warning and error.

Nothing here is compared with a stored number: scikit-learn is run beside nnkit, in float64 unless a test says
otherwise, on 50 rows in batches of 16, so that the last batch holds 2. Order: the constructor, the solvers,
their edges, losses, random numbers, stopping early, going on (`warm_start`, `partial_fit`), weights, inputs,
what is fitted, what is printed and warned of, mistakes.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_network import penalty
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags
from twins import (
    KINDS,
    ROWS,
    assert_same_course,
    assert_same_network,
    fitted_attributes,
    fitted_twins,
    ours_for,
    problem,
    twins,
    type_family,
    weights_for,
    without_warnings,
)

import nnkit

# Whatever else is warned of is a fault; that 50 epochs do not converge is meant.
pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

NAMES = ("MLPClassifier", "MLPRegressor")
SGD = {"solver": "sgd", "learning_rate_init": 0.05}
ADAM = {"solver": "adam", "learning_rate_init": 0.01}
CLASSIFICATIONS = ("binary", "multiclass", "multilabel")


# --- the constructor ---


@pytest.mark.parametrize("name", NAMES)
def test_the_constructor_takes_scikit_learns_parameters_in_its_order_and_with_its_defaults(name: str) -> None:
    theirs = inspect.signature(getattr(neural_network, name)).parameters
    ours = inspect.signature(getattr(nnkit, name)).parameters
    for parameter in theirs.values():
        assert ours[parameter.name].default == parameter.default, parameter.name
        assert ours[parameter.name].kind == parameter.kind, parameter.name

    def positional(parameters: Any) -> list[str]:
        return [key for key, value in parameters.items() if value.kind is not inspect.Parameter.KEYWORD_ONLY]

    assert positional(ours) == positional(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_methods_take_scikit_learns_arguments_in_its_order(name: str) -> None:
    theirs, ours = getattr(neural_network, name), getattr(nnkit, name)
    for method in ("fit", "partial_fit", "predict", "score", "predict_proba", "predict_log_proba"):
        if not hasattr(theirs, method):
            assert not hasattr(ours, method)
            continue
        expected = list(inspect.signature(getattr(theirs, method)).parameters)
        assert list(inspect.signature(getattr(ours, method)).parameters)[: len(expected)] == expected


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_kept_as_given_and_cloned(name: str) -> None:
    sizes = np.array([3, 4])
    ours = getattr(nnkit, name)(hidden_layer_sizes=sizes, alpha=1, dropout=0.2)
    assert ours.get_params()["hidden_layer_sizes"] is sizes
    copied = clone(ours.set_params(solver="sgd", clip_norm=2.0))
    assert copied.get_params() | {"hidden_layer_sizes": 0} == ours.get_params() | {"hidden_layer_sizes": 0}
    assert type(copied) is getattr(nnkit, name)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_the_tags_are_scikit_learns(kind: str) -> None:
    theirs, ours = twins(kind)
    assert get_tags(ours) == get_tags(theirs)


# --- solvers ---


@pytest.mark.parametrize(
    "momentum", [{}, {"nesterovs_momentum": False, "momentum": 0.8}, {"momentum": 0.0}], ids=str
)
@pytest.mark.parametrize("policy", ["constant", "invscaling", "adaptive"])
def test_fifty_epochs_of_sgd_end_at_the_same_weights(policy: str, momentum: dict[str, Any]) -> None:
    theirs, ours = fitted_twins("multiclass", learning_rate=policy, power_t=0.3, **SGD, **momentum)
    assert ours.n_iter_ == 50
    assert_same_course(theirs, ours)


@pytest.mark.parametrize("solver", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", KINDS)
def test_fifty_epochs_end_at_the_same_weights_whatever_is_learnt(kind: str, solver: dict[str, Any]) -> None:
    theirs, ours = fitted_twins(kind, **solver)
    assert ours.n_iter_ == 50
    assert_same_course(theirs, ours)


def test_adams_epsilon_is_added_after_the_bias_correction() -> None:
    # With the default of 1e-8 its place could not be seen.
    theirs, ours = fitted_twins("multiclass", epsilon=0.01, beta_1=0.7, beta_2=0.9, **ADAM)
    assert_same_course(theirs, ours)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "regressions"])
def test_lbfgs_ends_at_the_same_loss(kind: str) -> None:
    theirs, ours = fitted_twins(kind, solver="lbfgs")
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=0, abs=1e-6)


def test_lbfgs_with_several_targets_reaches_at_most_scikit_learns_loss() -> None:
    # There the value that scikit-learn hands to L-BFGS is the mean over the targets, and the gradient the
    # sum's: the two do not belong together, and a line search fails in the end. The sum is what is minimised.
    X, y = problem("regressions")
    theirs, ours = fitted_twins("regressions", solver="lbfgs", alpha=1.0, max_iter=2000, tol=1e-7)

    def summed(estimator: Any) -> float:
        squares = 0.5 * np.mean(np.sum((estimator.predict(X) - y) ** 2, axis=1))
        return float(squares) + penalty((estimator.coefs_, estimator.intercepts_), 1.0, ROWS)

    assert summed(ours) <= summed(theirs) + 1e-6
    loss = 0.5 * np.mean((ours.predict(X) - y) ** 2) + penalty((ours.coefs_, []), 1.0, ROWS)
    assert ours.loss_ == pytest.approx(loss, abs=1e-9)


def test_a_few_iterations_of_lbfgs_end_at_the_same_weights() -> None:
    theirs, ours = fitted_twins("multiclass", solver="lbfgs", max_iter=8)
    assert ours.n_iter_ == theirs.n_iter_ == 8
    assert_same_network(theirs, ours)


@pytest.mark.parametrize("limit", [{"max_fun": 5}, {"tol": 0.1}], ids=str)
def test_lbfgs_stops_where_scikit_learn_stops(limit: dict[str, Any]) -> None:
    theirs, ours = fitted_twins("regression", solver="lbfgs", **limit)
    assert ours.n_iter_ == theirs.n_iter_ < 50
    assert_same_network(theirs, ours)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_every_activation_of_scikit_learn_is_the_same(activation: str) -> None:
    # "logistic" begins with smaller weights than the others.
    theirs, ours = fitted_twins("multiclass", activation=activation, max_iter=20, **ADAM)
    assert_same_course(theirs, ours)


@pytest.mark.parametrize("sizes", [(), [], 6, np.int64(6), (4, 3, 2), [5], np.array([5, 4])], ids=repr)
def test_hidden_layers_are_written_as_in_scikit_learn(sizes: Any) -> None:
    theirs, ours = fitted_twins("binary", hidden_layer_sizes=sizes, max_iter=5, **ADAM)
    assert_same_course(theirs, ours)


# --- edges of the parameters ---


@pytest.mark.parametrize(
    "edge",
    [
        {"alpha": 0.0},
        {"batch_size": 1},
        {"batch_size": ROWS},
        {"batch_size": "auto"},
        {"batch_size": np.int64(7)},
        {"learning_rate_init": 1},
        {"momentum": 1.0},
        {"momentum": 1, "nesterovs_momentum": False},
        {"momentum": 0, "nesterovs_momentum": False},
        {"learning_rate": "invscaling", "power_t": 0.0},
        {"solver": "adam", "beta_1": 0.0, "learning_rate_init": 0.01},
        {"solver": "adam", "beta_2": 0.0, "learning_rate_init": 0.01, "max_iter": 1},
        {"solver": "adam", "learning_rate": "invscaling"},
        {"n_iter_no_change": np.inf},
    ],
    ids=str,
)
def test_the_edge_of_a_parameters_range_does_the_same(edge: dict[str, Any]) -> None:
    theirs, ours = fitted_twins("multiclass", **SGD | {"max_iter": 4} | edge)
    assert_same_course(theirs, ours)


def test_a_batch_larger_than_the_data_is_clipped_with_scikit_learns_warning() -> None:
    X, y = problem("binary")
    theirs, ours = twins("binary", batch_size=ROWS + 1, max_iter=3)
    for estimator in (theirs, ours):
        with pytest.warns(UserWarning, match="Got `batch_size` less than 1 or larger than sample size"):
            estimator.fit(X, y)
    assert_same_course(theirs, ours)


# --- losses ---


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", CLASSIFICATIONS)
def test_the_loss_clips_probabilities_where_scikit_learn_does(kind: str, dtype: Any) -> None:
    # Saturated from the first batch: rows that are wrong cost -log(eps) of the dtype, and no more.
    X, y = problem(kind)
    theirs, ours = twins(kind, activation="identity", batch_size=ROWS, max_iter=1, learning_rate_init=1e-6)
    X = (1e4 * X).astype(dtype)
    theirs.fit(X, y), ours.fit(X, y)
    assert theirs.loss_ > 3
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-5)


@pytest.mark.parametrize("kind", ["multiclass", "regressions", "poissons"])
def test_the_reported_loss_holds_the_penalty_of_the_batch(kind: str) -> None:
    # In batches, for the penalty is divided by the batch's rows; a strong one, to be seen beside the loss.
    theirs, ours = fitted_twins(kind, alpha=20.0, max_iter=3, **SGD | {"learning_rate_init": 0.01})
    assert_same_course(theirs, ours)


# --- random numbers ---


@pytest.mark.parametrize("solver", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_shuffled_as_scikit_learn_shuffles_them(kind: str, solver: dict[str, Any]) -> None:
    theirs, ours = fitted_twins(kind, shuffle=True, max_iter=20, **solver)
    assert_same_course(theirs, ours)


@pytest.mark.parametrize("settings", [SGD, {"solver": "lbfgs"}, {"early_stopping": True}], ids=str)
def test_a_generator_given_as_random_state_is_left_where_scikit_learn_leaves_it(
    settings: dict[str, Any],
) -> None:
    X, y = problem("binary")
    generators = np.random.RandomState(5), np.random.RandomState(5)
    settings = {"max_iter": 3, "shuffle": True, **settings}
    for estimator, generator in zip(twins("binary", **settings), generators, strict=True):
        estimator.set_params(random_state=generator).fit(X, y)
    np.testing.assert_array_equal(
        generators[0].randint(1 << 30, size=4), generators[1].randint(1 << 30, size=4)
    )


def test_numpys_global_generator_is_used_where_random_state_is_none() -> None:
    X, y = problem("binary")
    theirs, ours = twins("binary", random_state=None, shuffle=True, max_iter=3)
    generator = np.random.mtrand._rand
    state = generator.get_state()
    try:
        for estimator in (theirs, ours):
            generator.seed(11)
            estimator.fit(X, y)
    finally:
        generator.set_state(state)
    assert_same_course(theirs, ours)


# --- stopping early ---


@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_holds_out_the_same_rows_and_keeps_the_same_weights(kind: str) -> None:
    settings = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 4, "shuffle": True}
    theirs, ours = fitted_twins(kind, max_iter=100, **ADAM | {"learning_rate_init": 0.03}, **settings)
    assert_same_course(theirs, ours)
    assert theirs.n_iter_ < 100  # it did stop


def test_early_stopping_by_weighted_scores() -> None:
    X, y = problem("multiclass")
    settings = {"early_stopping": True, "validation_fraction": 0.4, "n_iter_no_change": 4, "shuffle": True}
    theirs, ours = twins("multiclass", max_iter=60, **ADAM, **settings)
    weights = weights_for() + 0.5
    theirs.fit(X, y, sample_weight=weights), ours.fit(X, y, sample_weight=weights)
    assert_same_course(theirs, ours)


@pytest.mark.parametrize("policy", ["constant", "adaptive"])
@pytest.mark.parametrize("early", [False, True], ids=["by loss", "by score"])
def test_a_training_that_no_longer_improves_ends_at_the_same_epoch(policy: str, early: bool) -> None:
    settings = {"learning_rate": policy, "tol": 0.02, "n_iter_no_change": 2, "early_stopping": early}
    theirs, ours = fitted_twins("binary", **SGD | {"learning_rate_init": 0.02, "max_iter": 300} | settings)
    assert_same_course(theirs, ours)
    assert theirs.n_iter_ < 300


# --- going on ---


@pytest.mark.parametrize(
    "settings",
    [SGD, SGD | {"learning_rate": "invscaling"}, ADAM, {"solver": "lbfgs"}],
    ids=["sgd", "invscaling", "adam", "lbfgs"],
)
def test_a_warm_start_continues_as_in_scikit_learn(settings: dict[str, Any]) -> None:
    X, y = problem("binary", rows=80)
    theirs, ours = twins("binary", warm_start=True, shuffle=True, max_iter=6, **settings)
    for first, last in ((0, 80), (0, 80), (20, 60)):
        for estimator in (theirs, ours):
            estimator.fit(X[first:last], y[first:last])
    if settings["solver"] == "lbfgs":
        assert_same_network(theirs, ours)
    else:
        assert len(ours.loss_curve_) == len(theirs.loss_curve_)
        assert_same_course(theirs, ours)


def test_a_warm_start_with_early_stopping_continues_from_the_best_weights() -> None:
    X, y = problem("binary", rows=80)
    theirs, ours = twins("binary", warm_start=True, early_stopping=True, shuffle=True, max_iter=6, **ADAM)
    for estimator in (theirs, ours):
        estimator.fit(X, y).fit(X, y)
    assert len(ours.loss_curve_) == 12
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, atol=1e-6)
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, atol=1e-12)
    # scikit-learn trains on in the very arrays that it keeps as the best, and so ends with the last weights.


SOLVERS = [ADAM, *(SGD | {"learning_rate": policy} for policy in ("constant", "invscaling", "adaptive"))]


def two_rules(kind: str) -> tuple[tuple[NDArray, NDArray], ...]:
    """Return rows of an easy rule, rows of another with noise, and rows of that one without."""
    generator = np.random.default_rng(0)
    easy, hard, test = (generator.normal(size=(rows, 5)) for rows in (300, 1000, 2000))
    if kind == "regression":
        noisy = hard @ [5.0, 4.0, 3.0, 2.0, 1.0] + generator.normal(size=1000)
        return (
            (easy, easy @ [1.0, 2.0, 3.0, 4.0, 5.0]),
            (hard, noisy),
            (test, test @ [5.0, 4.0, 3.0, 2.0, 1.0]),
        )
    noisy = (hard[:, 1] > 0) ^ (generator.random(1000) < 0.15)
    return (easy, (easy[:, 0] > 0) + 0), (hard, noisy + 0), (test, (test[:, 1] > 0) + 0)


@pytest.mark.parametrize("settings", SOLVERS, ids=str)
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_warm_started_fit_ends_at_the_best_of_its_own_epochs(kind: str, settings: dict[str, Any]) -> None:
    """scikit-learn compares the scores of different held-out rows, and so stops or returns too early."""
    first, second, test = two_rules(kind)
    options = {"tol": 1e-4, "n_iter_no_change": 10, "activation": "relu", "alpha": 1e-4, "max_iter": 100}
    options |= {"batch_size": "auto", "early_stopping": True, "warm_start": True, "shuffle": True}
    options["power_t"] = 0.1
    if kind == "regression":
        options["learning_rate_init"] = 0.01
    theirs, ours = twins(kind, **settings | options)
    for estimator in (theirs, ours):
        estimator.fit(*first).fit(*second)
    assert ours.score(*test) >= max(theirs.score(*test) - 0.005, 0.9)
    # The weights are those of the best epoch of this fit, on rows that are given here to be seen.
    rows, held_out = (second[0][:800], second[1][:800]), (second[0][800:], second[1][800:])
    before = len(ours.validation_scores_)
    ours.fit(*rows, eval_set=held_out)
    scores = ours.validation_scores_[before:]
    assert len(scores) == ours.n_iter_
    assert ours.best_validation_score_ == max(scores)
    assert ours.score(*held_out) == pytest.approx(max(scores), abs=1e-12)


@pytest.mark.parametrize("settings", SOLVERS, ids=str)
@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_a_warm_start_on_other_rows_keeps_the_state_that_scikit_learn_keeps(
    kind: str, settings: dict[str, Any]
) -> None:
    """Losses, the least of them, epochs without a better one and samples; not the rate, not the optimizer."""
    X, y = problem(kind, rows=80)
    theirs, ours = twins(kind, warm_start=True, tol=0.01, n_iter_no_change=3, shuffle=True, **settings)
    for first, last in ((0, 50), (30, 80), (0, 80)):
        for estimator in (theirs, ours):
            estimator.fit(X[first:last], y[first:last])
        assert_same_course(theirs, ours)
    for estimator in (theirs, ours):
        without_warnings(lambda e=estimator: e.partial_fit(X, y))
    assert_same_course(theirs, ours)


def test_early_stopping_can_be_set_between_warm_started_fits() -> None:
    X, y = problem("binary", rows=80)
    settings = {"tol": 0.01, "n_iter_no_change": 2, "warm_start": True, "learning_rate_init": 0.05}
    ours = ours_for("binary", max_iter=100, **settings).fit(X, y)
    ours.set_params(early_stopping=True).fit(X, y)
    assert ours.best_validation_score_ == max(ours.validation_scores_)
    assert ours.best_loss_ is None
    ours.set_params(early_stopping=False).fit(X, y)
    assert ours.best_loss_ <= min(ours.loss_curve_[-ours.n_iter_ :])
    assert ours.stopped_early_


SLOWING = SGD | {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1}


def test_a_warm_start_begins_again_at_the_first_rate() -> None:
    X, y = problem("binary")
    theirs, ours = twins("binary", warm_start=True, max_iter=12, **SLOWING)
    for estimator in (theirs, ours):
        estimator.fit(X, y)
    assert theirs._optimizer.learning_rate < 0.05  # it was divided
    for estimator in (theirs, ours):
        estimator.set_params(tol=0.0, n_iter_no_change=1000).fit(X, y)
    assert_same_course(theirs, ours)


def test_a_warm_start_after_a_training_that_stopped_continues_and_can_stop_again() -> None:
    X, y = problem("binary")
    theirs, ours = twins("binary", warm_start=True, max_iter=200, tol=0.02, n_iter_no_change=3, **ADAM)
    for _ in range(3):
        for estimator in (theirs, ours):
            estimator.fit(X, y)
        assert theirs.n_iter_ < 200
        assert_same_course(theirs, ours)
    for estimator in (theirs, ours):
        with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
            estimator.set_params(max_iter=3, tol=0.0, n_iter_no_change=1000).fit(X, y)
    assert_same_course(theirs, ours)
    assert not ours.stopped_early_


def test_a_warm_start_continues_from_calls_of_partial_fit() -> None:
    X, y = problem("regression")
    theirs, ours = twins("regression", warm_start=True, shuffle=True, max_iter=3, **ADAM)
    for estimator in (theirs, ours):
        estimator.partial_fit(X, y).partial_fit(X, y).fit(X, y).partial_fit(X, y)
    assert_same_course(theirs, ours)
    assert len(ours.loss_curve_) == 6


def test_without_warm_start_a_second_fit_starts_afresh() -> None:
    X, y = problem("multiclass")
    _, ours = twins("multiclass", max_iter=4, **ADAM)
    first = [coef.copy() for coef in ours.fit(X, y).coefs_]
    second = ours.fit(X, y).coefs_
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(ours.loss_curve_) == 4


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize(
    "settings", [SGD, SGD | {"learning_rate": "invscaling"}, ADAM], ids=["sgd", "inv", "adam"]
)
@pytest.mark.parametrize("kind", ["multiclass", "binary", "regressions"])
def test_calls_of_partial_fit_of_any_size_add_up_as_scikit_learns(
    kind: str, settings: dict[str, Any], shuffle: bool
) -> None:
    X, y = problem(kind, rows=90)
    theirs, ours = twins(kind, shuffle=shuffle, **settings)
    first = {"classes": np.unique(y)} if kind in CLASSIFICATIONS else {}
    for number, rows in enumerate((slice(0, 40), slice(40, 47), slice(47, 90), slice(0, 1), slice(0, 40))):
        for estimator in (theirs, ours):
            without_warnings(
                lambda e=estimator, r=rows, n=number: e.partial_fit(X[r], y[r], **({} if n else first))
            )
        assert_same_course(theirs, ours)
    assert len(ours.loss_curve_) == 5


def test_the_batches_of_partial_fit_need_not_have_every_class() -> None:
    X, y = problem("multiclass", rows=60)
    order = np.argsort(y, kind="stable")
    theirs, ours = twins("multiclass", **ADAM)
    for rows in np.split(order, 4):
        for estimator in (theirs, ours):
            without_warnings(lambda e=estimator, r=rows: e.partial_fit(X[r], y[r], classes=[0, 1, 2]))
    assert_same_course(theirs, ours)
    np.testing.assert_array_equal(ours.classes_, [0, 1, 2])


def test_calls_of_partial_fit_that_bring_nothing_slow_down() -> None:
    X, y = problem("binary")
    theirs, ours = twins("binary", **SLOWING)
    for _ in range(25):
        for estimator in (theirs, ours):
            estimator.partial_fit(X, y, classes=[0, 1])
    assert theirs._optimizer.learning_rate < 0.05
    assert_same_course(theirs, ours)


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_partial_fit_continues_from_a_fit_with_its_momentum(settings: dict[str, Any]) -> None:
    X, y = problem("regression")
    theirs, ours = twins("regression", shuffle=True, max_iter=5, **settings)
    for estimator in (theirs, ours):
        estimator.fit(X, y).partial_fit(X[:20], y[:20]).partial_fit(X[20:], y[20:])
    assert_same_course(theirs, ours)
    for estimator in (theirs, ours):
        estimator.fit(X, y)
    assert_same_course(theirs, ours)


# --- sample weights ---


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("batch_size", [ROWS, 16], ids=["full", "batches"])
@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regressions", "poisson"])
def test_sample_weights_weigh_as_scikit_learns(kind: str, batch_size: int, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    theirs, ours = twins(kind, batch_size=batch_size, shuffle=True, max_iter=20, **settings)
    weights = weights_for() + 0.25  # scikit-learn cannot train on a batch that weighs nothing
    theirs.fit(X, y, sample_weight=weights), ours.fit(X, y, sample_weight=weights)
    assert_same_course(theirs, ours)
    assert ours.score(X, y, weights) == pytest.approx(theirs.score(X, y, weights), abs=1e-6)


@pytest.mark.parametrize("kind", ["multiclass", "poissons"])
def test_sample_weights_weigh_in_lbfgs_too(kind: str) -> None:
    X, y = problem(kind)
    theirs, ours = twins(kind, solver="lbfgs", max_iter=20)
    weights = 0.3 * weights_for()
    theirs.fit(X, y, sample_weight=weights), ours.fit(X, y, sample_weight=weights)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=0, abs=1e-6)


def test_sample_weights_weigh_in_partial_fit_too() -> None:
    X, y = problem("binary")
    theirs, ours = twins("binary", **ADAM)
    weights = weights_for() + 0.25
    for rows in (slice(0, 30), slice(30, 50)):
        for estimator in (theirs, ours):
            estimator.partial_fit(X[rows], y[rows], weights[rows], [0, 1])
    assert_same_course(theirs, ours)


# --- inputs ---


@pytest.mark.parametrize("settings", [SGD, ADAM, {"solver": "lbfgs"}], ids=["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
def test_sparse_rows_train_the_network_of_dense_ones(form: Any, settings: dict[str, Any]) -> None:
    X, y = problem("multiclass")
    X[np.abs(X) < 0.8] = 0.0
    theirs, ours = twins("multiclass", shuffle=True, max_iter=8, **settings)
    theirs.fit(X, y), ours.fit(form(X), y)
    assert_same_network(theirs, ours)
    np.testing.assert_allclose(ours.predict_proba(form(X)), theirs.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(form(X)), theirs.predict(X))


def test_sparse_rows_in_partial_fit_and_with_early_stopping() -> None:
    X, y = problem("binary", rows=60)
    X[np.abs(X) < 0.8] = 0.0
    theirs, ours = twins("binary", **ADAM)
    for rows in (slice(0, 33), slice(33, 60)):
        theirs.partial_fit(X[rows], y[rows], classes=[0, 1])
        ours.partial_fit(sparse.csr_array(X[rows]), y[rows], classes=[0, 1])
    assert_same_course(theirs, ours)
    theirs, ours = twins("binary", early_stopping=True, max_iter=6, **ADAM)
    assert_same_course(theirs.fit(X, y), ours.fit(sparse.csc_array(X), y))


@pytest.mark.parametrize(
    "convert",
    [
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=0)[::2],
        lambda X: np.repeat(X, 2, axis=1)[:, ::2],
        lambda X: X[::-1][::-1],
        lambda X: X.tolist(),
        lambda X: X.astype(object),
        lambda X: X.astype(">f8"),
        lambda X: np.round(4 * X).astype(np.int8),
        lambda X: X > 0,
        lambda X: X.astype(np.longdouble),
        lambda X: X.astype(np.float16),
    ],
    ids=[
        "Fortran",
        "rows",
        "columns",
        "reversed",
        "list",
        "object",
        "big-endian",
        "int8",
        "bool",
        "long",
        "half",
    ],
)
def test_any_array_of_numbers_is_taken_as_scikit_learn_takes_it(convert: Any) -> None:
    X, y = problem("regression")
    theirs, ours = twins("regression", max_iter=4, **ADAM)
    theirs.fit(convert(X), y), ours.fit(convert(X), y)
    assert ours.coefs_[0].dtype == theirs.coefs_[0].dtype
    assert_same_course(theirs, ours)
    np.testing.assert_allclose(ours.predict(convert(X)), theirs.predict(convert(X)), atol=1e-6)


def test_the_data_are_left_as_they_were() -> None:
    X, y = problem("regressions")
    weights = weights_for()
    kept = X.copy(), y.copy(), weights.copy()
    for array in (X, y, weights):
        array.flags.writeable = False
    _, ours = twins("regressions", max_iter=2, shuffle=True)
    ours.fit(X, y, sample_weight=weights).predict(X)
    for array, before in zip((X, y, weights), kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_trains_in_float32(kind: str, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    theirs, ours = twins(kind, max_iter=10, shuffle=True, **settings)
    X = X.astype(np.float32)
    theirs.fit(X, y), ours.fit(X, y)
    assert {array.dtype for array in ours.coefs_ + ours.intercepts_} == {np.dtype(np.float32)}
    # Sums in another order, and 40 steps on: float32 has 6e-8.
    assert_same_course(theirs, ours, tolerance=2e-4)
    method = "predict_proba" if kind in CLASSIFICATIONS else "predict"
    expected, found = getattr(theirs, method)(X), getattr(ours, method)(X)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)


# --- what is fitted ---


@pytest.mark.parametrize(
    "settings",
    [SGD, ADAM | {"early_stopping": True}, {"solver": "lbfgs"}],
    ids=["sgd", "early stopping", "lbfgs"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_fitted_attributes_are_scikit_learns(kind: str, settings: dict[str, Any]) -> None:
    theirs, ours = (fitted_attributes(twin) for twin in fitted_twins(kind, max_iter=5, **settings))
    missing = theirs.keys() - ours.keys()
    assert not missing
    for name, expected in theirs.items():
        assert type_family(ours[name]) == type_family(expected), name
    for name in ("n_features_in_", "n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_"):
        assert ours[name] == theirs[name], name
    if kind in CLASSIFICATIONS:
        np.testing.assert_array_equal(ours["classes_"], theirs["classes_"])
    for name in ("loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_"):
        # lbfgs has no curve in scikit-learn, and None stands for what was not measured.
        assert name not in ours or ours[name] is None or name in theirs, name


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_scores_are_scikit_learns(kind: str) -> None:
    X, y = problem(kind)
    theirs, ours = fitted_twins(kind, max_iter=20, **ADAM)
    methods = ["predict", *(["predict_proba", "predict_log_proba"] if kind in CLASSIFICATIONS else [])]
    for method in methods:
        for rows in (X, X[:1], X[3:10]):
            expected, found = getattr(theirs, method)(rows), getattr(ours, method)(rows)
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype), method
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=method)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), abs=1e-6)


def test_the_weights_can_be_set_by_hand() -> None:
    X, _ = problem("multiclass")
    theirs, ours = fitted_twins("multiclass", max_iter=2)
    generator = np.random.default_rng(0)
    for layer in range(3):
        coef = generator.normal(size=ours.coefs_[layer].shape)
        theirs.coefs_[layer], ours.coefs_[layer] = coef.copy(), coef.copy()
        theirs.intercepts_[layer][:] = 0.25
        ours.intercepts_[layer][:] = 0.25
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-12)


def test_training_continues_from_weights_that_were_set_by_hand() -> None:
    X, y = problem("multiclass")
    theirs, ours = twins("multiclass", max_iter=3, warm_start=True, **SGD)
    for estimator in (theirs, ours):
        estimator.fit(X, y)
        for array in estimator.coefs_ + estimator.intercepts_:
            array[:] = np.linspace(-0.5, 0.5, array.size).reshape(array.shape)
        estimator.fit(X, y)
    assert_same_course(theirs, ours)
