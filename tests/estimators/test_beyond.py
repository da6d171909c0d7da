"""What scikit-learn's networks never had, each against something independent of nnkit.

Order: sample weights, class weights, losses, activations, dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_network import (
    ACTIVATIONS,
    ONE_STEP,
    Weights,
    assert_gradient,
    descent,
    first_weights,
    gradient,
    half_squares,
    initial_weights,
    outputs,
    penalty,
)
from scipy import special
from sklearn.utils.class_weight import compute_sample_weight
from twins import (
    ROWS,
    assert_same_course,
    assert_same_network,
    ours_for,
    problem,
    same_bits,
    theirs_for,
    weights_for,
)

from nnkit import MLPRegressor, register_activation, register_loss

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

# --- sample weights ---


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd", "learning_rate_init": 0.05},
        {"solver": "adam", "learning_rate_init": 0.01},
        {"solver": "lbfgs"},
    ],
    ids=["sgd", "adam", "lbfgs"],
)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regressions", "poisson"])
def test_a_row_of_weight_three_is_a_row_given_three_times(kind: str, settings: dict[str, Any]) -> None:
    X, y = problem(kind)
    weights = weights_for()
    times = weights.astype(int)
    settings = {"batch_size": "auto", "max_iter": 15, **settings}  # all rows: there are less than 200
    weighted = ours_for(kind, **settings).fit(X, y, sample_weight=weights)
    repeated = ours_for(kind, **settings).fit(np.repeat(X, times, axis=0), np.repeat(y, times, axis=0))
    assert_same_network(repeated, weighted, tolerance=1e-9)
    assert weighted.loss_ == pytest.approx(repeated.loss_, abs=1e-9)


def test_a_row_of_weight_three_is_a_row_given_three_times_to_partial_fit() -> None:
    X, y = problem("binary")
    times = weights_for().astype(int)
    weighted, repeated = (ours_for("binary", batch_size="auto") for _ in range(2))
    for _ in range(5):
        weighted.partial_fit(X, y, sample_weight=times, classes=[0, 1])
        repeated.partial_fit(np.repeat(X, times, axis=0), np.repeat(y, times), classes=[0, 1])
    assert_same_network(repeated, weighted, tolerance=1e-9)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_without_a_penalty_only_the_ratio_of_weights_counts(solver: str) -> None:
    X, y = problem("multiclass")
    weights = weights_for() + 0.5
    one, other = (
        ours_for("multiclass", solver=solver, alpha=0.0, max_iter=10).fit(
            X, y, sample_weight=factor * weights
        )
        for factor in (1.0, 8.0)
    )
    assert_same_network(one, other, tolerance=1e-8)


def test_a_batch_that_weighs_nothing_leaves_the_weights_alone() -> None:
    # scikit-learn ends with a division by zero here.
    X, y = problem("regression", rows=48)
    weights = np.repeat([1.0, 0.0, 1.0], 16)
    settings = {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.05, "max_iter": 3}
    skipping = ours_for("regression", **settings).fit(X, y, sample_weight=weights)
    without = ours_for("regression", **settings).fit(X[weights > 0], y[weights > 0])
    assert_same_network(without, skipping, tolerance=1e-12)
    assert np.isfinite(skipping.loss_curve_).all()


def test_negative_weights_are_refused() -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError, match="weight"):
        ours_for("binary", max_iter=1).fit(X, y, sample_weight=np.where(np.arange(ROWS) == 3, -1.0, 1.0))


# --- class weights ---


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
@pytest.mark.parametrize("labels", ["numbers", "texts"])
def test_balanced_classes_are_the_sample_weights_of_scikit_learn(kind: str, solver: str, labels: str) -> None:
    X, y = problem(kind)
    y = np.array(["low", "high", "ever"])[y] if labels == "texts" else y
    settings = {"solver": solver, "max_iter": 10}
    balanced = ours_for(kind, class_weight="balanced", **settings).fit(X, y)
    weighted = theirs_for(kind, **settings).fit(X, y, sample_weight=compute_sample_weight("balanced", y))
    assert_same_network(weighted, balanced)
    assert balanced.loss_ == pytest.approx(weighted.loss_, abs=1e-6)


def test_class_weights_by_name_multiply_sample_weights() -> None:
    X, y = problem("multiclass")
    y = np.array(["low", "high", "ever"])[y]
    table = {"low": 3.0, "high": 0.5}  # "ever" weighs 1
    weights = weights_for() + 0.5
    ours = ours_for("multiclass", class_weight=table, max_iter=10).fit(X, y, sample_weight=weights)
    product = weights * compute_sample_weight(table | {"ever": 1.0}, y)
    theirs = theirs_for("multiclass", max_iter=10).fit(X, y, sample_weight=product)
    assert_same_course(theirs, ours)


def test_class_weights_weigh_in_partial_fit_too() -> None:
    X, y = problem("binary")
    table = {0: 0.5, 1: 4.0}
    ours, theirs = ours_for("binary", class_weight=table), theirs_for("binary")
    for rows in (slice(0, 30), slice(30, 50)):
        ours.partial_fit(X[rows], y[rows], classes=[0, 1])
        theirs.partial_fit(X[rows], y[rows], compute_sample_weight(table, y[rows]), [0, 1])
    assert_same_course(theirs, ours)


@pytest.mark.parametrize("wrong", ["unbalanced", [1.0, 2.0], {0: -1.0}, {0: "much"}], ids=repr)
def test_class_weights_that_are_none_are_refused(wrong: Any) -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError, match=r"class_weight|weight"):
        ours_for("binary", class_weight=wrong).fit(X, y)


def test_a_regressor_has_no_class_weights() -> None:
    with pytest.raises(TypeError, match="class_weight"):
        MLPRegressor(class_weight="balanced")


# --- losses: value and gradient against NumPy, from the initial weights ---


def softmax_cross_entropy(z: NDArray, y: NDArray, smoothing: float = 0.0) -> float:
    classes = z.shape[1]
    target = (1 - smoothing) * np.eye(classes)[y] + smoothing / classes
    return float(np.mean(-np.sum(target * special.log_softmax(z, axis=1), axis=1)))


def sigmoid_cross_entropy(z: NDArray, y: NDArray, smoothing: float = 0.0) -> float:
    """The labels of a row are summed, as in scikit-learn."""
    target = (1 - smoothing) * y.reshape(z.shape) + smoothing / 2
    terms = target * special.log_expit(z) + (1 - target) * special.log_expit(-z)
    return float(np.mean(-np.sum(terms, axis=1)))


def absolute(z: NDArray, y: NDArray) -> float:
    return float(np.mean(np.abs(z[:, 0] - y)))


def huber(delta: float) -> Callable[[NDArray, NDArray], float]:
    return lambda z, y: float(np.mean(special.huber(delta, z[:, 0] - y)))


def half_deviance(z: NDArray, y: NDArray) -> float:
    rate = np.exp(z[:, 0])
    return float(np.mean(special.xlogy(y, y / rate) - y + rate))


LOSSES: list[tuple[str, Any, Callable[[NDArray, NDArray], float]]] = [
    ("binary", "log_loss", sigmoid_cross_entropy),
    ("multiclass", "log_loss", softmax_cross_entropy),
    ("multilabel", "log_loss", sigmoid_cross_entropy),
    ("binary", "cross_entropy", sigmoid_cross_entropy),
    ("multiclass", "cross_entropy", softmax_cross_entropy),
    (
        "multiclass",
        {"name": "cross_entropy", "label_smoothing": 0.1},
        lambda z, y: softmax_cross_entropy(z, y, 0.1),
    ),
    (
        "binary",
        {"name": "cross_entropy", "label_smoothing": 0.2},
        lambda z, y: sigmoid_cross_entropy(z, y, 0.2),
    ),
    ("regression", "squared_error", half_squares),
    ("regression", "mse", half_squares),
    ("regression", "mae", absolute),
    ("regression", "huber", huber(1.0)),
    ("regression", {"name": "huber", "delta": 0.5}, huber(0.5)),
    ("poisson", "poisson", half_deviance),
]


@pytest.mark.parametrize(
    ("kind", "loss", "value"), LOSSES, ids=lambda item: item if isinstance(item, str) else ""
)
def test_a_loss_and_its_gradient_are_those_of_its_formula(
    kind: str, loss: Any, value: Callable[[NDArray, NDArray], float]
) -> None:
    X, y = problem(kind)

    def expected(weights: Weights) -> float:
        return value(outputs(weights, X), y) + penalty(weights, 0.1, ROWS)

    ours = ours_for(kind, loss=loss, **ONE_STEP).fit(X, y)
    assert ours.loss_ == pytest.approx(expected(first_weights(kind)), abs=1e-10)
    assert_gradient(descent(ours, kind), gradient(expected, first_weights(kind)))


@pytest.mark.parametrize(
    ("kind", "loss", "value"),
    [
        ("regression", "huber", huber(1.0)),
        ("multiclass", {"name": "cross_entropy", "label_smoothing": 0.1}, LOSSES[5][2]),
    ],
    ids=["huber", "smoothing"],
)
def test_lbfgs_ends_where_the_formulas_gradient_is_zero(
    kind: str, loss: Any, value: Callable[[NDArray, NDArray], float]
) -> None:
    X, y = problem(kind)

    def expected(weights: Weights) -> float:
        return value(outputs(weights, X), y) + penalty(weights, 1.0, ROWS)

    ours = ours_for(kind, loss=loss, solver="lbfgs", alpha=1.0, tol=1e-6, max_iter=2000).fit(X, y)
    weights = ours.coefs_, ours.intercepts_
    assert ours.loss_ == pytest.approx(expected(weights), abs=1e-10)
    slopes = gradient(expected, weights)
    for slope in slopes[0] + slopes[1]:
        np.testing.assert_allclose(slope, 0.0, atol=1e-4)


def log_cosh(y, t):
    d = abs(y - t)
    return d + log1p(exp(-2.0 * d)) - 0.6931471805599453  # noqa: F821 - inlined where these are known


def log_cosh_derivative(y, t):
    return tanh(y - t)  # noqa: F821


def brier(y, t):
    d = 1.0 / (1.0 + exp(-y)) - t  # noqa: F821
    return d * d


def brier_derivative(y, t):
    p = 1.0 / (1.0 + exp(-y))  # noqa: F821
    return 2.0 * (p - t) * p * (1.0 - p)


def test_a_users_loss_trains_a_regressor() -> None:
    register_loss("log_cosh", log_cosh, log_cosh_derivative)
    X, y = problem("regression")

    def expected(weights: Weights) -> float:
        value = np.mean(np.log(np.cosh(outputs(weights, X)[:, 0] - y)))
        return float(value) + penalty(weights, 0.1, ROWS)

    ours = ours_for("regression", loss="log_cosh", **ONE_STEP).fit(X, y)
    assert ours.loss_ == pytest.approx(expected(first_weights("regression")), abs=1e-10)
    assert_gradient(descent(ours, "regression"), gradient(expected, first_weights("regression")))


def test_a_users_loss_trains_a_classifier() -> None:
    register_loss("brier", brier, brier_derivative, link="sigmoid")
    X, y = problem("binary")

    def expected(weights: Weights) -> float:
        value = np.mean((special.expit(outputs(weights, X)[:, 0]) - y) ** 2)
        return float(value) + penalty(weights, 0.1, ROWS)

    ours = ours_for("binary", loss="brier", **ONE_STEP).fit(X, y)
    assert ours.loss_ == pytest.approx(expected(first_weights("binary")), abs=1e-10)
    assert_gradient(descent(ours, "binary"), gradient(expected, first_weights("binary")))
    probability = special.expit(outputs((ours.coefs_, ours.intercepts_), X)[:, 0])
    np.testing.assert_allclose(
        ours.predict_proba(X), np.column_stack([1 - probability, probability]), atol=1e-12
    )


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("regression", {"name": "huber", "delta": -1.0}),
        ("regression", {"name": "huber", "dela": 1.0}),
        ("regression", "cross_entropy"),
        ("multiclass", {"name": "cross_entropy", "label_smoothing": 1.5}),
        ("multiclass", "mse"),
        ("binary", 7),
    ],
    ids=str,
)
def test_a_loss_that_does_not_fit_is_refused(kind: str, loss: Any) -> None:
    X, y = problem(kind)
    with pytest.raises(ValueError, match=r"loss|huber|cross_entropy|label_smoothing"):
        ours_for(kind, loss=loss).fit(X, y)


# --- activations ---


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_an_activation_and_its_derivative_are_those_of_its_formula(activation: str) -> None:
    X, y = problem("regression")
    start = first_weights("regression", activation)

    def expected(weights: Weights) -> float:
        return half_squares(outputs(weights, X, activation), y) + penalty(weights, 0.1, ROWS)

    ours = ours_for("regression", activation=activation, **ONE_STEP).fit(X, y)
    assert_gradient(descent(ours, "regression", activation), gradient(expected, start))
    np.testing.assert_allclose(
        ours.predict(X), outputs((ours.coefs_, ours.intercepts_), X, activation)[:, 0], atol=1e-12
    )


def test_sigmoid_is_another_name_of_logistic() -> None:
    X, y = problem("binary")
    one, other = (
        ours_for("binary", activation=name, max_iter=3).fit(X, y) for name in ("sigmoid", "logistic")
    )
    assert same_bits(one, other)


def bent(z):
    return z / (1.0 + abs(z))


def bent_derivative(a):
    return (1.0 - abs(a)) * (1.0 - abs(a))


def test_a_users_activation_is_one_of_the_choices() -> None:
    register_activation("bent", bent, bent_derivative)
    X, y = problem("binary")
    ours = ours_for("binary", activation="bent", hidden_layer_sizes=(6,), max_iter=5).fit(X, y)
    z = X @ ours.coefs_[0] + ours.intercepts_[0]
    logits = (z / (1 + np.abs(z))) @ ours.coefs_[1] + ours.intercepts_[1]
    np.testing.assert_allclose(ours.predict_proba(X)[:, 1], special.expit(logits[:, 0]), atol=1e-12)


# --- dropout ---


def test_dropout_changes_the_training_and_not_the_prediction() -> None:
    X, y = problem("multiclass")
    plain = ours_for("multiclass", max_iter=5).fit(X, y)
    dropped = ours_for("multiclass", max_iter=5, dropout=0.3).fit(X, y)
    assert not same_bits(plain, dropped)
    assert dropped.predict_proba(X).tobytes() == dropped.predict_proba(X).tobytes()
    logits = outputs((dropped.coefs_, dropped.intercepts_), X)  # of the whole network
    np.testing.assert_allclose(dropped.predict_proba(X), special.softmax(logits, axis=1), atol=1e-12)


def test_dropout_follows_random_state() -> None:
    X, y = problem("regression")
    settings = {"max_iter": 5, "dropout": 0.3, "shuffle": True}
    one, same, other = (ours_for("regression", random_state=seed, **settings).fit(X, y) for seed in (1, 1, 2))
    assert same_bits(one, same)
    assert not same_bits(one, other)
    # The initial weights are those without dropout, and another epoch drops other units.
    still = ours_for("regression", random_state=1, **settings | {"learning_rate_init": 1e-12}).fit(X, y)
    for found, expected in zip(still.coefs_, initial_weights((4, 7, 5, 1), 1)[0], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    assert len(set(still.loss_curve_)) == 5


def test_a_share_of_units_is_dropped_and_the_rest_made_up_for() -> None:
    # One linear hidden layer of ones: an output is the mean of its units, each 0 or 1 / (1 - p).
    rows, units, p = 400, 50, 0.4
    ours = MLPRegressor(
        hidden_layer_sizes=(units,), activation="identity", solver="sgd", momentum=0.0, alpha=0.0
    )
    ours.set_params(learning_rate_init=1e-12, max_iter=1, batch_size=rows, warm_start=True, random_state=0)
    X, y = np.ones((rows, 1)), np.zeros(rows)
    ours.fit(X, y)
    for arrays, values in ((ours.coefs_, (1.0, 1.0 / units)), (ours.intercepts_, (0.0, 0.0))):
        for array, value in zip(arrays, values, strict=True):
            array[:] = value
    ours.set_params(dropout=p).fit(X, y)
    # ½ E[mean²] = ½ (1 + p / ((1 − p) units)); over 400 rows its deviation is 0.006.
    assert ours.loss_ == pytest.approx(0.5 * (1 + p / ((1 - p) * units)), abs=0.03)
    np.testing.assert_allclose(ours.predict(X), 1.0, atol=1e-6)


def test_each_hidden_layer_can_have_a_dropout_of_its_own() -> None:
    X, y = problem("binary")
    shares = [0.0, (0.0, 0.0), (0.4, 0.0), [0.0, 0.4], (0.4, 0.4), 0.4]
    fitted = [ours_for("binary", dropout=share, max_iter=3).fit(X, y) for share in shares]
    assert same_bits(fitted[0], fitted[1])
    assert same_bits(fitted[4], fitted[5])
    for i in range(1, 5):
        assert not any(same_bits(fitted[i], fitted[j]) for j in range(i + 1, 5))


@pytest.mark.parametrize("wrong", [-0.1, 1.0, "half", (0.1, 0.1, 0.1), (0.1, 2.0)], ids=repr)
def test_a_dropout_that_is_no_share_of_each_layer_is_refused(wrong: Any) -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError, match="dropout"):
        ours_for("binary", dropout=wrong).fit(X, y)


def test_lbfgs_with_dropout_is_an_error() -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError, match="dropout"):
        ours_for("binary", solver="lbfgs", dropout=0.1).fit(X, y)
