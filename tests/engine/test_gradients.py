"""The gradient of whole networks against differences of a loss in NumPy; float32's against float64's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise, product

import numpy as np
import pytest
from scipy import special, stats

from nnkit.nn.activations import activation_names
from nnkit.nn.layers import (
    Activation,
    Dense,
    Dropout,
    Layer,
    LayerNorm,
    Periodic,
    PiecewiseLinear,
    Residual,
    Scale,
    Sequential,
)
from nnkit.nn.losses import loss_names
from nnkit.nn.network import Network

ROWS, INPUTS, OUTPUTS = 7, 3, 2
L1, L2 = 0.02, 0.05

ACTIVATIONS: dict[str, Callable] = {
    "identity": lambda z: z,
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "gelu": lambda z: z * stats.norm.cdf(z),
    "silu": lambda z: z * special.expit(z),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(-abs(z))),
    "mish": lambda z: z * np.tanh(np.logaddexp(0, z)),
    "softplus": lambda z: np.logaddexp(0, z),
}
ROW_LOSSES: dict[str, Callable] = {
    "cross_entropy": lambda y, t: -special.log_softmax(y, axis=1)[np.arange(len(t)), t],
    "binary_cross_entropy": lambda y, t: (
        -(t * special.log_expit(y) + (1 - t) * special.log_expit(-y)).mean(axis=1)
    ),
    "mse": lambda y, t: ((y - t) ** 2 / 2).mean(axis=1),
    "mae": lambda y, t: abs(y - t).mean(axis=1),
    "huber": lambda y, t: special.huber(1, y - t).mean(axis=1),
    "poisson": lambda y, t: (np.exp(y) - t * y).mean(axis=1),
    "poisson_deviance": lambda y, t: (special.xlogy(t, t) - t + np.exp(y) - t * y).mean(axis=1),
}
EDGES = ((-1.0, 0.2, 1.5), (), (-2.0, -0.5, 0.0, 0.5))
ORDERS: dict[str, Sequence[Layer]] = {
    "dropout first": [Dropout(0.5), Dense(4, "tanh"), Dense(OUTPUTS)],
    "activation first": [Activation("tanh"), Dense(4, "relu"), Dense(OUTPUTS)],
    "activation after dropout": [Dense(4), Dropout(0.5), Activation("silu"), Dense(OUTPUTS)],
    "two activations": [Dense(4, "tanh"), Activation("gelu"), Dense(OUTPUTS)],
    "two dropouts": [Dense(4, "elu"), Dropout(0.5), Dropout(0.2), Dense(OUTPUTS)],
    "no biases": [Dense(4, "sigmoid", bias=False), Dense(OUTPUTS, bias=False)],
    "no bias before an activation": [Dense(4, bias=False), Activation("softplus"), Dense(OUTPUTS)],
    "an activation last": [Dense(4, "relu"), Dense(OUTPUTS, "tanh")],
    "activation and dropout last": [Dense(4, "relu"), Dense(OUTPUTS), Activation("silu"), Dropout(0.5)],
    "two activations last": [Dense(OUTPUTS, "tanh"), Activation("identity"), Activation("gelu")],
    "one layer": [Dense(OUTPUTS)],
    "linear layers": [Dense(4), Dense(3), Dense(OUTPUTS)],
    "layer norm between": [Dense(5), LayerNorm(), Activation("tanh"), Dense(OUTPUTS)],
    "layer norm first": [LayerNorm(1e-3), Dense(4, "silu"), Dense(OUTPUTS)],
    "layer norm last, without a bias": [Dense(4, "tanh"), Dense(OUTPUTS), LayerNorm(bias=False)],
    "scale first": [Scale(6.0), Dense(4, "mish"), Dense(OUTPUTS)],
    "scale between and last": [Dense(4, "selu"), Scale(), Dense(OUTPUTS), Scale()],
    "periodic first": [Periodic(5, 3), Scale(), Dense(4, "tanh"), Dense(OUTPUTS)],
    "periodic of two columns": [Periodic(4, 4, columns=2), Dense(OUTPUTS)],
    "periodic between": [Dense(4, "tanh"), Periodic(3, 2, columns=3), Dense(OUTPUTS)],
    "periodic last": [Dense(2), Periodic(3, 2, columns=2), Dense(OUTPUTS), Periodic(2, 2, columns=0)],
    "residual": [Dense(4, "tanh"), Residual(LayerNorm(), Dense(6, "gelu"), Dense(4)), Dense(OUTPUTS)],
    "residual of one layer first": [Residual(Dense(INPUTS, "tanh")), Dense(OUTPUTS)],
    "residual without weights": [Dense(4), Residual(Activation("silu")), Dense(OUTPUTS)],
    "residuals in each other": [Dense(4), Residual(Residual(Dense(4, "elu")), Dense(4)), Dense(OUTPUTS)],
    "residual last": [Dense(OUTPUTS, "tanh"), Residual(Dense(4, "silu"), Dense(OUTPUTS))],
    "sequences": [Sequential(Dense(4), Sequential(Activation("tanh"), Dense(3))), Dense(OUTPUTS)],
    "piecewise-linear numbers": [PiecewiseLinear(3, EDGES), Dense(9, "tanh"), Dense(OUTPUTS)],
    "piecewise-linear numbers, one layer": [PiecewiseLinear(3, EDGES), Dense(OUTPUTS)],
    "their shares by themselves": [PiecewiseLinear(3, EDGES), LayerNorm(), Dense(OUTPUTS)],
    "their shares above a layer": [
        LayerNorm(),
        PiecewiseLinear(3, EDGES),
        Activation("silu"),
        Dense(OUTPUTS),
    ],
    "a lookup above a layer": [Dense(3, "tanh"), Sequential(PiecewiseLinear(3, EDGES), Dense(OUTPUTS))],
    "a wide layer below": [Dense(9, "tanh"), Dense(5, "relu"), Dense(2, "silu"), Dense(OUTPUTS)],
}


def examples(loss: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, targets and sample weights, one of them 0."""
    random = np.random.default_rng(12)
    X = random.normal(size=(ROWS, INPUTS))
    classes, binary = random.integers(0, OUTPUTS, ROWS), random.random((ROWS, OUTPUTS))
    counts, reals = random.poisson(2, (ROWS, OUTPUTS)), random.normal(size=(ROWS, OUTPUTS))
    targets = {"cross_entropy": classes, "binary_cross_entropy": binary}
    targets |= {"poisson": counts, "poisson_deviance": counts}
    weights = random.uniform(0.5, 2, ROWS)
    weights[2] = 0
    return X, targets.get(loss, reals), weights


def network(layers: Sequence[Layer], dtype: type = np.float64) -> Network:
    """Return a network whose biases are not 0 and whose weights are not near it, where L1 has its kink."""
    net = Network(layers)
    net.initialize(INPUTS, seed=4, dtype=dtype)
    random = np.random.default_rng(5)
    for name, array in net.parameters().items():
        net.set_parameters(
            {name: random.choice([-1, 1], array.shape) * random.uniform(0.1, 0.9, array.shape)}
        )
    return net


def forward(layers: Sequence[Layer], parameters: dict[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    """Return the outputs, without dropout."""
    return chained(layers, parameters, X, count())


def chained(
    layers: Sequence[Layer], parameters: dict[str, np.ndarray], X: np.ndarray, numbers: Iterator[int]
) -> np.ndarray:
    """Return the outputs of layers whose parameters have the next numbers."""
    for layer in layers:
        if layer.does_nothing:
            continue
        if isinstance(layer, Dense | LayerNorm | Periodic | Scale):
            number = next(numbers)
            weight, bias = (parameters.get(f"layers.{number}.{name}", 0) for name in ("weight", "bias"))
        if isinstance(layer, Dense):
            X = ACTIVATIONS[layer.activation](X @ weight + bias)
        elif isinstance(layer, Activation):
            X = ACTIVATIONS[layer.name](X)
        elif isinstance(layer, Scale):
            X = X * weight
        elif isinstance(layer, Periodic):
            frequency, phase = (parameters[f"layers.{number}.{name}"] for name in ("frequency", "phase"))
            waves = np.cos(2 * np.pi * X[:, : len(frequency), None] * frequency + phase)
            embedded = np.einsum("ncf,clf->ncl", waves, weight) + bias
            X = np.hstack([embedded.reshape(len(X), -1), X])
        elif isinstance(layer, LayerNorm):
            centred = X - X.mean(axis=1, keepdims=True)
            variance = (centred**2).mean(axis=1, keepdims=True)
            X = centred / np.sqrt(variance + layer.epsilon) * weight + bias
        elif isinstance(layer, PiecewiseLinear):
            X = np.column_stack(
                [X, *(shares(X[:, column], edges) for column, edges in enumerate(layer.edges))]
            )
        elif isinstance(layer, Residual):
            X = X + chained(layer.layers, parameters, X, numbers)
        elif isinstance(layer, Sequential):
            X = chained(layer.layers, parameters, X, numbers)
    return X


def shares(numbers: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return each bin's share of each number, (rows, bins), interpolated between the bins' edges."""
    return np.array([np.interp(numbers, bounds, (0, 1)) for bounds in pairwise(edges)]).T.reshape(
        len(numbers), -1
    )


def check(layers: Sequence[Layer], loss: str) -> None:
    """Compare every element of the gradient with a central difference."""
    X, targets, weights = examples(loss)
    net = network(layers)
    parameters = net.parameters()
    decaying = {segment.name for segment in net.arena.segments if segment.role == "weight"}
    np.testing.assert_allclose(net.outputs(X), forward(layers, parameters, X), rtol=1e-12, atol=1e-12)

    def objective() -> float:
        rows = ROW_LOSSES[loss](forward(layers, parameters, X), targets)
        matrices = [array for name, array in parameters.items() if name in decaying]
        penalty = sum(L1 * abs(W).sum() + L2 * (W**2).sum() / 2 for W in matrices)
        return float(weights @ rows / weights.sum() + penalty)

    gradients = net.gradients(X, targets, loss, sample_weight=weights, l1=L1, l2=L2)
    assert list(gradients) == list(parameters)
    for name, array in parameters.items():
        expected = np.empty_like(array)
        for at in np.ndindex(array.shape):
            held = array[at]
            array[at] = held + 1e-5
            above = objective()
            array[at] = held - 1e-5
            expected[at] = (above - objective()) / 2e-5
            array[at] = held
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(("activation", "loss"), [*product(ACTIVATIONS, ROW_LOSSES)])
def test_gradient_of_every_activation_under_every_loss(activation: str, loss: str) -> None:
    check([Dense(4, activation), Dense(OUTPUTS)], loss)


@pytest.mark.parametrize("order", ORDERS)
def test_gradient_of_layers_in_odd_orders(order: str) -> None:
    check(ORDERS[order], "mse")


def test_every_activation_and_loss_has_a_reference_here() -> None:
    assert set(ACTIVATIONS) <= set(activation_names())
    assert set(ROW_LOSSES) <= set(loss_names())


@pytest.mark.parametrize(
    ("activation", "loss"), [*product(ACTIVATIONS, ["mse"]), *product(["tanh"], ROW_LOSSES)]
)
def test_float32_gradients_agree_with_float64(activation: str, loss: str) -> None:
    X, targets, weights = examples(loss)
    both = []
    for dtype in (np.float32, np.float64):
        net = network([Dense(16, activation), Dense(OUTPUTS)], dtype)
        gradients = net.gradients(X, targets, loss, sample_weight=weights, l1=L1, l2=L2)
        assert all(array.dtype == dtype for array in gradients.values())
        both.append(np.concatenate([array.ravel() for array in gradients.values()]))
    assert np.max(abs(both[0] - both[1])) < 1e-4 * np.max(abs(both[1]))


def test_gradients_of_weighted_rows_are_those_of_repeated_rows() -> None:
    X, targets, _ = examples("mse")
    times = np.array([1, 2, 0, 3, 1, 1, 2])
    net = network([Dense(4, "tanh"), Dense(OUTPUTS)])
    weighted = net.gradients(X, targets, "mse", sample_weight=times, l2=L2)
    repeated = net.gradients(np.repeat(X, times, axis=0), np.repeat(targets, times, axis=0), "mse", l2=L2)
    for name, gradient in weighted.items():
        np.testing.assert_allclose(gradient, repeated[name], rtol=1e-12, atol=1e-14)
