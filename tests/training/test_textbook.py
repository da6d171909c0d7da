"""The trainer against the loops of the textbooks, written out in plain NumPy in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.data.sources.built_in import load_built_in
from nnkit.feed.order import epoch_order
from nnkit.kernels.philox import philox_words
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.network import Network
from nnkit.nn.optimizers import SGD, Adam, Momentum
from nnkit.training.trainer import Trainer

Parameters = dict[str, NDArray[np.float64]]


def sigmoid(z: NDArray) -> NDArray:
    return 1.0 / (1.0 + np.exp(-z))


def drawn(widths: list[int], seed: int) -> Parameters:
    """Return parameters of a network of these widths; the biases are not zero, so that they are seen too."""
    generator = np.random.default_rng(seed)
    parameters: Parameters = {}
    for i, shape in enumerate(pairwise(widths)):
        parameters[f"layers.{i}.weight"] = generator.normal(size=shape) / np.sqrt(shape[0])
        parameters[f"layers.{i}.bias"] = 0.1 * generator.normal(size=shape[1])
    return parameters


def network_of(layers: list, parameters: Parameters) -> Network:
    network = Network(layers)
    network.initialize(len(parameters["layers.0.weight"]), dtype=np.float64)
    network.set_parameters(parameters)
    return network


def assert_same(network: Network, parameters: Parameters, tolerance: float = 1e-9) -> None:
    trained = network.parameters()
    assert trained.keys() == parameters.keys()
    for name, expected in parameters.items():
        np.testing.assert_allclose(trained[name], expected, rtol=0, atol=tolerance, err_msg=name)


def test_xor_agrees_with_the_two_layer_loop() -> None:
    X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = np.array([[0.0], [1.0], [1.0], [0.0]])
    start = drawn([2, 4, 1], seed=5)
    W1, b1, W2, b2 = (value.copy() for value in start.values())
    for _ in range(2000):
        hidden = np.maximum(X @ W1 + b1, 0.0)
        predicted = sigmoid(hidden @ W2 + b2)
        dz2 = (predicted - y) / 4
        dz1 = (dz2 @ W2.T) * (hidden > 0)
        W2 -= 1.0 * hidden.T @ dz2
        b2 -= 1.0 * dz2.sum(axis=0)
        W1 -= 1.0 * X.T @ dz1
        b1 -= 1.0 * dz1.sum(axis=0)
    assert np.array_equal(predicted > 0.5, y == 1)  # else the comparison would say little

    network = network_of([Dense(4, "relu"), Dense(1)], start)
    trainer = Trainer(network, "binary_cross_entropy", SGD(1.0), device="cpu", precision="fp64")
    history = trainer.fit(X, y, epochs=2000, batch_size=4, shuffle=False)
    assert_same(network, dict(zip(start, (W1, b1, W2, b2), strict=True)))
    # An epoch's loss is that of the weights before its update.
    last = -np.mean(y * np.log(predicted) + (1 - y) * np.log(1 - predicted))
    assert history["loss"][-1] == pytest.approx(last, rel=1e-9)


def test_logistic_regression_agrees_with_gradient_descent() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 3))
    y = (X @ [[1.5], [-2.0], [0.5]] + generator.normal(size=(60, 1)) > 0).astype(float)
    w, b = np.zeros((3, 1)), np.zeros(1)
    for _ in range(200):
        dz = sigmoid(X @ w + b) - y
        w -= 0.3 * X.T @ dz / 60
        b -= 0.3 * dz.mean(axis=0)

    network = network_of([Dense(1)], {"layers.0.weight": np.zeros((3, 1)), "layers.0.bias": np.zeros(1)})
    trainer = Trainer(network, "binary_cross_entropy", SGD(0.3), device="cpu", precision="fp64")
    trainer.fit(X, y.ravel(), epochs=200, batch_size=60)
    assert_same(network, {"layers.0.weight": w, "layers.0.bias": b})


def test_one_sigmoid_neuron_agrees_with_the_delta_rule() -> None:
    generator = np.random.default_rng(1)
    X = generator.normal(size=(40, 2))
    y = generator.uniform(size=(40, 1))
    start = drawn([2, 1], seed=1)
    w, b = (value.copy() for value in start.values())
    for _ in range(200):
        predicted = sigmoid(X @ w + b)
        delta = (predicted - y) * predicted * (1 - predicted)
        w -= 0.5 * X.T @ delta / 40
        b -= 0.5 * delta.mean(axis=0)

    network = network_of([Dense(1, "sigmoid")], start)
    trainer = Trainer(network, "mse", SGD(0.5), device="cpu", precision="fp64")
    history = trainer.fit(X, y, epochs=200, batch_size=40)
    assert_same(network, {"layers.0.weight": w, "layers.0.bias": b})
    assert history["loss"][-1] == pytest.approx(np.mean(0.5 * (predicted - y) ** 2), rel=1e-9)


def test_the_exam_data_are_learnt_to_six_of_six() -> None:
    table = load_built_in("exam")
    X = np.column_stack([table["hours_studied"].to_numpy(), table["hours_slept"].to_numpy()])
    passed = table["passed"].to_numpy()
    assert np.column_stack([X, passed]).tolist() == [
        [2, 5, 0], [4, 6, 0], [6, 7, 1], [8, 8, 1], [3, 4, 0], [7, 6, 1]
    ]  # fmt: skip
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    network = Network([Dense(4, "relu"), Dense(1)])
    trainer = Trainer(network, "binary_cross_entropy", Adam(0.05), device="cpu", precision="fp64")
    trainer.fit(standardised, passed, epochs=200, batch_size=6, shuffle=False)
    assert np.array_equal(network.outputs(standardised).ravel() > 0, passed == 1)


def kept(rate: float, rows: int, columns: int, stage: int, batch: int, epoch: int, seed: int) -> NDArray:
    """Return what dropout multiplies a stage's outputs by, from the words of its counters."""
    blocks = -(-columns // 4)
    counters = np.arange(rows)[:, None] * blocks + np.arange(blocks)
    words = philox_words(seed, counters.reshape(-1), stage, batch, epoch).reshape(rows, 4 * blocks)
    return (words[:, :columns] >= round(rate * 2**32)) / (1 - rate)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_ragged_weighted_batches_with_momentum_l2_and_dropout_agree_with_the_loop(rate: float) -> None:
    generator = np.random.default_rng(2)
    X = generator.normal(size=(37, 3))
    y = generator.integers(0, 3, size=37)
    weights = generator.uniform(0.2, 3.0, size=37)
    seed, epochs, batch_size, momentum, learning_rate, l2 = (5 << 32) + 7, 5, 16, 0.8, 0.2, 0.02
    # A dropout rate of the inputs, in a stage of its own, and one behind the hidden layer.
    layers = [Dropout(rate), Dense(6, "tanh"), Dropout(rate), Dense(3)]
    start = drawn([3, 6, 3], seed=4)
    W1, b1, W2, b2 = parameters = [value.copy() for value in start.values()]
    velocities = [np.zeros_like(value) for value in parameters]
    losses = []
    for epoch in range(epochs):
        order = epoch_order(37, seed, epoch)
        total = 0.0
        for batch in range(3):
            rows = order[batch * batch_size : (batch + 1) * batch_size]
            n = len(rows)
            w = weights[rows, None]
            below = kept(rate, n, 3, 0, batch, epoch, seed) if rate else 1.0
            above = kept(rate, n, 6, 1, batch, epoch, seed) if rate else 1.0
            inputs = X[rows] * below
            activation = np.tanh(inputs @ W1 + b1)
            hidden = activation * above
            logits = hidden @ W2 + b2
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            dz2 = (probabilities - np.eye(3)[y[rows]]) * w / w.sum()
            dz1 = (dz2 @ W2.T) * above * (1 - activation**2)
            loss = -np.sum(w[:, 0] * np.log(probabilities[np.arange(n), y[rows]])) / w.sum()
            total += w.sum() * (loss + 0.5 * l2 * (np.sum(W1**2) + np.sum(W2**2)))
            gradients = [inputs.T @ dz1 + l2 * W1, dz1.sum(axis=0), hidden.T @ dz2 + l2 * W2, dz2.sum(axis=0)]
            for value, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                velocity *= momentum
                velocity += gradient
                value -= learning_rate * velocity
        losses.append(total / weights.sum())

    network = network_of(layers, start)
    optimizer = Momentum(learning_rate, momentum=momentum)
    trainer = Trainer(network, "cross_entropy", optimizer, device="cpu", precision="fp64", seed=seed, l2=l2)
    history = trainer.fit(X, y, epochs=epochs, batch_size=batch_size, sample_weight=weights)
    assert_same(network, dict(zip(start, parameters, strict=True)))
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-9)
