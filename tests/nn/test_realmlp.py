"""RealMLP's pieces against pytabkit's own: outputs and gradients from the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.nn.layers import Dense, Periodic, Scale
from nnkit.nn.network import Network
from nnkit.nn.schedules import schedule_from

pytestmark = [pytest.mark.extra("torch"), pytest.mark.extra("pytabkit")]

ROWS, NUMBERS = 12, 5
OURS = {"frequency": "plr_weight_1", "phase": "plr_bias_1", "weight": "plr_weight_2", "bias": "plr_bias_2"}


def theirs(activation: str) -> Any:
    """Return a RealMLP without hidden layers' dropout and with its inputs as they are."""
    import torch
    from pytabkit.models.realmlp.model import RealMLP, RealMLPConfig

    torch.manual_seed(1)
    config = RealMLPConfig(act=activation, use_parametric_act=False, p_drop=0.0, hidden_sizes=[7])
    return RealMLP(NUMBERS, [], 2, 1, config, is_classification=True).double()


def ours(model: Any, activation: str) -> Network:
    """Return our network with the same weights; theirs divides weights by the root of the inputs."""
    network = Network([Periodic(), Scale(6.0), Dense(7, activation), Dense(2)])
    network.initialize(NUMBERS, 0, np.float64)
    found = {f"layers.0.{name}": as_ours(getattr(model, other)) for name, other in OURS.items()}
    scale, first, bias, _, _, last, last_bias = model.mlp
    found["layers.1.weight"] = as_ours(scale.scale)
    for number, weight, shift in ((2, first, bias), (3, last, last_bias)):
        matrix = as_ours(weight.weight)
        found[f"layers.{number}.weight"] = matrix / np.sqrt(len(matrix))
        found[f"layers.{number}.bias"] = as_ours(shift.bias)
    network.set_parameters(
        {name: arranged(name, value, network.parameters()[name].shape) for name, value in found.items()}
    )
    return network


def as_ours(parameter: Any) -> NDArray:
    return parameter.detach().numpy()[0]


def arranged(name: str, value: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Return one of their arrays in our layout: they have a weight's frequencies before its outputs."""
    return (value.transpose(0, 2, 1) if name == "layers.0.weight" else value).reshape(shape)


@pytest.mark.parametrize("activation", ["selu", "mish"])
def test_outputs_and_gradients_are_pytabkits(activation: str) -> None:
    import torch

    model = theirs(activation)
    random = np.random.default_rng(0)
    X = random.uniform(-2.9, 2.9, (ROWS, NUMBERS))
    y = random.integers(0, 2, ROWS)
    for parameter in model.parameters():  # biases begin at 0, and the scale at 1
        parameter.data += 0.1 * torch.from_numpy(random.normal(size=parameter.shape))
    network = ours(model, activation)
    # Their input is clipped smoothly in the model, ours before it.
    raw = X / np.sqrt(1 - X**2 / 9)
    outputs = model(torch.from_numpy(raw)[None], torch.zeros((1, ROWS, 0), dtype=torch.long))[0]
    np.testing.assert_allclose(network.outputs(X), outputs.detach().numpy(), rtol=1e-10, atol=1e-12)
    torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y)).backward()
    gradients = network.gradients(X, y, "cross_entropy")
    expected = {f"layers.0.{name}": as_ours(getattr(model, other).grad) for name, other in OURS.items()}
    expected["layers.1.weight"] = as_ours(model.mlp[0].scale.grad)
    for number, place in ((2, 1), (3, 5)):
        matrix = as_ours(model.mlp[place].weight.grad)
        expected[f"layers.{number}.weight"] = matrix * np.sqrt(len(matrix))
        expected[f"layers.{number}.bias"] = as_ours(model.mlp[place + 1].bias.grad)
    assert set(expected) == set(gradients)
    for name, gradient in gradients.items():
        other = arranged(name, expected[name], gradient.shape)
        np.testing.assert_allclose(gradient, other, rtol=1e-8, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("name", ["coslog4", "flat_cos"])
def test_schedules_are_pytabkits(name: str) -> None:
    from pytabkit.models.realmlp.train import SCHEDULES

    expected = [SCHEDULES[name](step / 300) for step in range(300)]
    np.testing.assert_allclose(schedule_from(name).factors(0, 300, 300, 30), expected, atol=1e-12)
