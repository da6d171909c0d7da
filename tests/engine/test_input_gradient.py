"""The derivative of outputs by inputs against differences in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nnkit.engine.input_gradient import InputGradient
from nnkit.feed.features import Bags, Features
from nnkit.nn.activations import activation_names
from nnkit.nn.layers import Activation, Dense, Dropout, Embedding, Layer
from nnkit.nn.network import Network

INPUTS, OUTPUTS = 4, 3
SHAPES: dict[str, Sequence[Layer]] = {
    "one layer": [Dense(OUTPUTS)],
    "without biases": [Dense(5, "tanh", bias=False), Dense(OUTPUTS, bias=False)],
    "dropout first": [Dropout(0.5), Dense(5, "tanh"), Dense(OUTPUTS)],
    "activation first": [Activation("tanh"), Dense(5, "silu"), Dense(OUTPUTS)],
    "an activation last": [Dense(7, "gelu"), Dense(OUTPUTS, "sigmoid")],
    "wide below": [Dense(9, "tanh"), Dense(5, "softplus"), Dense(2, "silu"), Dense(OUTPUTS)],
    **{name: [Dense(6, name), Dropout(0.2), Dense(OUTPUTS)] for name in activation_names()},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_differences(shape: str) -> None:
    net = Network(SHAPES[shape])
    net.initialize(INPUTS, seed=4, dtype=np.float64)
    random = np.random.default_rng(5)
    net.set_parameters({name: random.normal(size=array.shape) for name, array in net.parameters().items()})
    X, weights = random.normal(size=(6, INPUTS)), random.normal(size=(6, OUTPUTS))
    sensitivity = InputGradient(net.places, net.arena)
    found = sensitivity.gradients(X, weights)
    step = 1e-6
    for column in range(INPUTS):
        moved = step * (np.arange(INPUTS) == column)
        ahead, behind = net.outputs(X + moved), net.outputs(X - moved)
        expected = ((ahead - behind) * weights).sum(axis=1) / (2 * step)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(sensitivity.outputs(X), net.outputs(X))


def test_more_rows_than_are_taken_at_once_and_a_second_call_agree() -> None:
    net = Network([Dense(3, "tanh"), Dense(2)])
    net.initialize(2, seed=1, dtype=np.float64)
    X = np.random.default_rng(0).normal(size=(9000, 2))
    weights = np.eye(2)[np.arange(9000) % 2]
    sensitivity = InputGradient(net.places, net.arena)
    whole = sensitivity.gradients(X, weights)
    parts = [sensitivity.gradients(X[k : k + 700], weights[k : k + 700]) for k in range(0, 9000, 700)]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-12)
    before = whole.copy()
    net.set_parameters({"layers.0.bias": [1.0, -1.0, 0.5]})
    assert not np.allclose(sensitivity.gradients(X, weights), before)  # parameters are read anew


def test_what_is_embedded_is_an_input_like_others() -> None:
    net = Network([Embedding(10, 4), Dense(5, "tanh"), Dense(2)])
    net.initialize(3, seed=2, dtype=np.float64)
    random = np.random.default_rng(0)
    dense = random.normal(size=(2, 3))
    bags = Bags(np.array([1, 5, 5, 7], np.int32), np.array([0, 3, 4]), 10)
    table = net.parameters()["layers.0.weight"]
    vectors = np.stack([table[[1, 5, 5]].mean(axis=0), table[7]])
    inputs = np.hstack([dense, vectors])
    sensitivity = InputGradient(net.places, net.arena)
    assert sensitivity.inputs == 7
    expected = net.outputs(Features(dense, bags=(bags,)))
    np.testing.assert_allclose(sensitivity.outputs(inputs), expected, rtol=1e-12)
