"""L-BFGS over the arena, against SciPy on a loss of its own and against a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize

from nnkit.backends import select
from nnkit.engine.objective import Penalty
from nnkit.estimators._lbfgs import Minimum, minimise
from nnkit.feed.batch import Rows
from nnkit.feed.features import features_from
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 4))
W = RANDOM.random(60) + 0.1


def fitted(network: Network, loss: str, y: np.ndarray, dtype: str = "float64", **options) -> Minimum:
    penalty = options.pop("penalty", Penalty())
    network.initialize(4, 3, dtype, select("cpu").backend)
    weights = W.astype(dtype) if options.pop("weighted", False) else None
    rows = Rows(network.arena.backend, dtype, features_from(X, dtype), y, weights)
    return minimise(network, loss_from(loss), penalty, rows, **options)


@pytest.mark.parametrize("on", ["mean", "sum"])
def test_a_linear_network_becomes_the_weighted_ridge_regression(on: str) -> None:
    y = X @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.7 + 0.1 * RANDOM.normal(size=60)
    network = Network([Dense(1)])
    options = {"weighted": True, "penalty": Penalty(0.0, 0.3, on), "tolerance": 1e-10}
    found = fitted(network, "mse", y[:, None], **options)
    design = np.c_[X, np.ones(60)]
    strength = 0.3 * np.diag([1.0, 1, 1, 1, 0]) * (1 if on == "sum" else W.sum())
    expected = np.linalg.solve(design.T @ (W[:, None] * design) + strength, design.T @ (W * y))
    parameters = network.parameters()
    result = np.append(parameters["layers.0.weight"].ravel(), parameters["layers.0.bias"])
    # It also ends where a step gains less than 2e-9 of the loss, SciPy's default.
    np.testing.assert_allclose(result, expected, rtol=1e-4)
    assert found.converged
    squares = 0.5 * np.average((design @ expected - y) ** 2, weights=W)
    penalty = 0.15 * np.sum(expected[:4] ** 2) / (W.sum() if on == "sum" else 1)
    assert found.figures.loss == pytest.approx(squares + penalty, rel=1e-8)


def test_dropout_takes_no_part() -> None:
    y = RANDOM.integers(0, 3, 60).astype(np.int32)
    plain, dropping = (
        Network([Dense(5, "tanh"), Dense(3)]),
        Network([Dense(5, "tanh"), Dropout(0.9), Dense(3)]),
    )
    one, other = (fitted(network, "cross_entropy", y, iterations=20) for network in (plain, dropping))
    assert one.figures == other.figures


def test_a_network_ends_where_scipy_ends_on_the_same_loss_in_numpy() -> None:
    y = np.tanh(X @ RANDOM.normal(size=(4, 1)))
    network = Network([Dense(3, "tanh"), Dense(1)])
    found = fitted(network, "mse", y, penalty=Penalty(0.0, 0.01), tolerance=1e-9, iterations=2000)

    def loss(v: np.ndarray) -> float:
        first, bias, second, last = v[:12].reshape(4, 3), v[12:15], v[15:18], v[18]
        outputs = np.tanh(X @ first + bias) @ second + last
        return 0.5 * np.mean((outputs - y[:, 0]) ** 2) + 0.005 * (np.sum(first**2) + np.sum(second**2))

    parameters = network.parameters()
    end = np.concatenate(
        [parameters[f"layers.{i}.{kind}"].ravel() for i in range(2) for kind in ("weight", "bias")]
    )
    assert found.figures.loss == pytest.approx(loss(end), rel=1e-12)
    assert scipy_minimize(loss, end, method="L-BFGS-B").fun > found.figures.loss - 1e-8


def test_limits_end_it_and_are_reported() -> None:
    y = np.sin(3 * X[:, :1])
    short = fitted(Network([Dense(8, "tanh"), Dense(1)]), "mse", y, iterations=3, tolerance=0.0)
    assert not short.converged
    assert short.iterations == 3
    assert "ITERATIONS" in short.message.upper()
    few = fitted(Network([Dense(8, "tanh"), Dense(1)]), "mse", y, evaluations=5, tolerance=0.0)
    assert not few.converged


def test_float32_networks_stay_float32() -> None:
    network = Network([Dense(4, "relu"), Dense(1)])
    fitted(network, "mse", X[:, :1].astype("float32"), "float32", iterations=30)
    assert network.parameters()["layers.0.weight"].dtype == np.float32
    assert np.mean((network.outputs(X) - X[:, :1]) ** 2) < 0.05
