"""A network in NumPy, its gradient by finite differences, and one step of an estimator to hold beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special
from twins import ROWS

ACTIVATIONS: dict[str, Callable[[NDArray], NDArray]] = {
    "identity": lambda z: z,
    "logistic": special.expit,
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0.0))),
    "gelu": lambda z: z * special.ndtr(z),
    "silu": lambda z: z * special.expit(z),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(-abs(z))),
    "mish": lambda z: z * np.tanh(np.logaddexp(0, z)),
    "softplus": lambda z: np.logaddexp(z, 0.0),
}
Weights = tuple[list[NDArray], list[NDArray]]


def initial_weights(widths: Sequence[int], seed: int, activation: str = "tanh") -> Weights:
    """Return the weights that scikit-learn draws: Glorot's, layer by layer, the intercepts alike."""
    generator = np.random.RandomState(seed)
    factor = 2.0 if activation in ("logistic", "sigmoid") else 6.0
    coefs, intercepts = [], []
    for fan_in, fan_out in pairwise(widths):
        bound = np.sqrt(factor / (fan_in + fan_out))
        coefs.append(generator.uniform(-bound, bound, (fan_in, fan_out)))
        intercepts.append(generator.uniform(-bound, bound, fan_out))
    return coefs, intercepts


def outputs(weights: Weights, X: NDArray, activation: str = "tanh") -> NDArray:
    """Return the raw outputs of a network for float64 rows."""
    coefs, intercepts = weights
    for layer, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        X = X @ coef.astype(np.float64) + intercept
        if layer < len(coefs) - 1:
            X = ACTIVATIONS[activation](X)
    return X


def gradient(loss: Callable[[Weights], float], weights: Weights, step: float = 1e-6) -> Weights:
    """Return the derivative of a loss by each weight and intercept, by central differences."""
    coefs, intercepts = ([array.copy() for array in arrays] for arrays in weights)
    slopes: Weights = ([np.zeros_like(c) for c in coefs], [np.zeros_like(b) for b in intercepts])
    for arrays, results in ((coefs, slopes[0]), (intercepts, slopes[1])):
        for array, result in zip(arrays, results, strict=True):
            for place in np.ndindex(array.shape):
                kept = array[place]
                array[place] = kept + step
                above = loss((coefs, intercepts))
                array[place] = kept - step
                below = loss((coefs, intercepts))
                array[place] = kept
                result[place] = (above - below) / (2 * step)
    return slopes


def penalty(weights: Weights, alpha: float, rows: float) -> float:
    """Return scikit-learn's L2 penalty: over the rows, of weights and not of intercepts."""
    return 0.5 * alpha * sum(float(np.sum(coef**2)) for coef in weights[0]) / rows


# --- one step ---

WIDTHS = {"binary": 1, "multiclass": 3, "multilabel": 3, "regression": 1, "regressions": 2, "poisson": 1}
# Plain descent over all rows: each weight moves by the rate times its gradient.
ONE_STEP = {
    "solver": "sgd",
    "momentum": 0.0,
    "learning_rate_init": 1.0,
    "batch_size": ROWS,
    "max_iter": 1,
}


def first_weights(kind: str, activation: str = "tanh") -> Weights:
    """Return what `ours_for` begins with."""
    return initial_weights((4, 7, 5, WIDTHS[kind]), seed=3, activation=activation)


def descent(estimator: Any, kind: str, activation: str = "tanh") -> Weights:
    """Return by what one step of `ONE_STEP` lowered each weight: the gradient."""
    coefs, intercepts = first_weights(kind, activation)
    return (
        [before - after for before, after in zip(coefs, estimator.coefs_, strict=True)],
        [before - after for before, after in zip(intercepts, estimator.intercepts_, strict=True)],
    )


def assert_gradient(found: Weights, expected: Weights, tolerance: float = 1e-7) -> None:
    """Fail unless two gradients agree as far as finite differences reach."""
    for one, other in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def half_squares(z: NDArray, y: NDArray) -> float:
    """Return the squared error of one target, halved, for raw outputs."""
    return float(0.5 * np.mean((z[:, 0] - y) ** 2))
