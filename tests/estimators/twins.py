"""The same estimator twice, scikit-learn's and nnkit's, and the small problems that both are given.

Order: the problems, the pairs of estimators, how two fitted estimators are compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning

import nnkit

KINDS = ("binary", "multiclass", "multilabel", "regression", "regressions", "poisson", "poissons")
ROWS = 50  # with batches of 16, the last one holds 2


# --- problems ---


def problem(kind: str, rows: int = ROWS, features: int = 4, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Return float64 features and a target that they say something of.

    Parameters
    ----------
    kind : str
        Of `KINDS`: labels of two or three classes, an indicator matrix of three labels, one or two real
        targets, one or two counts.
    """
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, features))
    signal = X @ generator.normal(size=(features, 3)) + 0.3 * generator.normal(size=(rows, 3))
    targets: dict[str, Callable[[], NDArray]] = {
        "binary": lambda: (signal[:, 0] > 0.2).astype(np.int64),
        "multiclass": lambda: np.argmax(signal + np.array([0.6, 0.2, -0.4]), axis=1),
        "multilabel": lambda: (signal > np.array([0.0, 0.8, -0.8])).astype(np.int64),
        "regression": lambda: signal[:, 0],
        "regressions": lambda: signal[:, :2] * np.array([1.0, 0.3]),
        "poisson": lambda: generator.poisson(np.exp(0.5 * signal[:, 0])).astype(np.float64),
        "poissons": lambda: generator.poisson(np.exp(0.5 * signal[:, :2])).astype(np.float64),
    }
    return X, targets[kind]()


def weights_for(rows: int = ROWS, seed: int = 1) -> NDArray:
    """Return whole sample weights from 0 to 3, as floats."""
    return np.random.default_rng(seed).integers(0, 4, rows).astype(np.float64)


# --- pairs ---


def settings_for(kind: str, **params: Any) -> dict[str, Any]:
    """Return a small network's settings for a kind of problem; `params` go over them."""
    settings: dict[str, Any] = {
        "hidden_layer_sizes": (7, 5),
        "activation": "tanh",
        "alpha": 0.1,
        "batch_size": 16,
        "max_iter": 50,
        "tol": 0.0,
        "n_iter_no_change": 1000,
        "shuffle": False,
        "random_state": 3,
    }
    if kind.startswith("poisson"):
        settings["loss"] = "poisson"
    return settings | params


def theirs_for(kind: str, **params: Any) -> Any:
    """Return scikit-learn's estimator for a kind of problem, not fitted."""
    name = "MLPRegressor" if kind.startswith(("regression", "poisson")) else "MLPClassifier"
    return getattr(neural_network, name)(**settings_for(kind, **params))


def ours_for(kind: str, **params: Any) -> Any:
    """Return nnkit's estimator for a kind of problem, on the CPU unless told otherwise, not fitted."""
    name = "MLPRegressor" if kind.startswith(("regression", "poisson")) else "MLPClassifier"
    return getattr(nnkit, name)(**{"device": "cpu"} | settings_for(kind, **params))


def twins(kind: str, **params: Any) -> tuple[Any, Any]:
    """Return scikit-learn's estimator and nnkit's with the same settings, not fitted."""
    return theirs_for(kind, **params), ours_for(kind, **params)


def fitted_twins(kind: str, **params: Any) -> tuple[Any, Any]:
    """Return both, fitted to that kind's problem."""
    X, y = problem(kind)
    theirs, ours = twins(kind, **params)
    return theirs.fit(X, y), ours.fit(X, y)


def without_warnings(function: Callable[[], Any]) -> Any:
    """Call what warns that it has not converged, or that a batch is larger than the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        return function()


# --- comparisons ---


def assert_same_network(theirs: Any, ours: Any, tolerance: float = 1e-6) -> None:
    """Fail unless every weight and intercept of two estimators is the same to the tolerance."""
    for name in ("coefs_", "intercepts_"):
        a, b = getattr(theirs, name), getattr(ours, name)
        assert len(a) == len(b), name
        for layer, (one, other) in enumerate(zip(a, b, strict=True)):
            assert one.shape == other.shape, f"{name}[{layer}]"
            np.testing.assert_allclose(other, one, rtol=0, atol=tolerance, err_msg=f"{name}[{layer}]")


def assert_same_course(theirs: Any, ours: Any, tolerance: float = 1e-6) -> None:
    """Fail unless two trainings went the same way: weights, losses, scores and counts."""
    assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=0, atol=tolerance)
    assert ours.loss_ == ours.loss_curve_[-1]
    for name in ("best_loss_", "best_validation_score_", "validation_scores_"):
        expected, found = getattr(theirs, name), getattr(ours, name)
        if expected is None:
            assert found is None, name
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)
    assert_same_network(theirs, ours, tolerance)


def same_bits(one: Any, other: Any) -> bool:
    """Return whether two estimators have the same weights, bit for bit."""
    arrays = zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)


def fitted_attributes(estimator: Any) -> dict[str, Any]:
    """Return what scikit-learn calls fitted attributes: public, and ending in an underscore."""
    return {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_")
    }


def type_family(value: Any) -> Any:
    """Return what a value can be used as: a whole number, a number, a list of arrays of a dtype, ..."""
    if isinstance(value, list):
        return [type_family(item) for item in value[:3]]
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape
    for family in (Integral, Real):
        if isinstance(value, family):
            return family
    return type(value)
