"""Layers as descriptions, their JSON, and the stages that they fuse into."""

from __future__ import annotations

import json

import pytest

from nnkit.core.activations import activation_function
from nnkit.core.layers import (
    Activation,
    Dense,
    Dropout,
    Stage,
    layer_from_json,
    layer_to_json,
    stages_of,
)
from nnkit.errors import ConfigError, ModelFileError

RELU, TANH = activation_function("relu"), activation_function("tanh")
LAYERS = [Dense(5), Dense(3, "relu", "he_uniform", bias=False), Dropout(0.25), Activation("gelu")]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_survives_json(layer) -> None:
    assert layer_from_json(json.loads(json.dumps(layer_to_json(layer)))) == layer


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"units": 3},
        {"kind": "Convolution", "units": 3},
        {"kind": "Dense"},
        {"kind": "Dense", "units": 0},
        {"kind": "Dense", "units": 3, "size": 4},
        {"kind": "Dense", "units": 3, "activation": "relo"},
        {"kind": ["Dense"], "units": 3},
        {"kind": "Dropout", "rate": 1.5},
        "Dense",
        None,
    ],
)
def test_json_that_describes_no_layer_is_a_model_file_error(value) -> None:
    with pytest.raises(ModelFileError, match="a layer that nnkit does not know"):
        layer_from_json(value)


@pytest.mark.parametrize("units", [0, -1, 2.0, "3", True, None])
def test_units_must_be_a_whole_number(units) -> None:
    with pytest.raises(ConfigError, match="Dense: units"):
        Dense(units)


@pytest.mark.parametrize("bias", [0, 1, 0.5, "yes", None, []])
def test_a_bias_must_be_true_or_false(bias) -> None:
    with pytest.raises(ConfigError, match="Dense: bias"):
        Dense(3, bias=bias)


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, float("nan"), "0.5", True])
def test_a_dropout_rate_must_be_a_share_below_one(rate) -> None:
    with pytest.raises(ConfigError, match="Dropout: rate"):
        Dropout(rate)


@pytest.mark.parametrize("make", [lambda name: Dense(3, name), Activation])
def test_an_unknown_activation_is_named_with_the_nearest(make) -> None:
    with pytest.raises(ConfigError, match="unknown activation 'relo'; did you mean relu"):
        make("relo")


def test_layers_are_values() -> None:
    assert Dense(3, "relu") == Dense(3, activation="relu")
    assert len({Dense(3), Dense(3), Dense(4)}) == 2
    with pytest.raises(AttributeError):
        Dense(3).units = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("layers", "stages"),
    [
        (
            [Dense(5, "relu"), Dropout(0.2), Dense(3)],
            [Stage(0, 0, 4, 5, True, RELU, 0.2), Stage(1, 1, 5, 3, True)],
        ),
        ([Dense(5), Activation("tanh"), Dropout(0.1)], [Stage(0, 0, 4, 5, True, TANH, 0.1)]),
        (
            [Dense(5), Dropout(0.1), Activation("tanh")],
            [Stage(0, 0, 4, 5, True, dropout=0.1), Stage(1, None, 5, 5, False, TANH)],
        ),
        (
            [Dense(5, "relu", bias=False), Activation("tanh")],
            [Stage(0, 0, 4, 5, False, RELU), Stage(1, None, 5, 5, False, TANH)],
        ),
        (
            [Dropout(0.5), Dense(2)],
            [Stage(0, None, 4, 4, False, dropout=0.5), Stage(1, 0, 4, 2, True)],
        ),
        (
            [Dense(2), Dropout(0.5), Dropout(0.25)],
            [Stage(0, 0, 4, 2, True, dropout=0.5), Stage(1, None, 2, 2, False, dropout=0.25)],
        ),
        ([Dense(2), Dropout(0), Activation("relu")], [Stage(0, 0, 4, 2, True, RELU)]),
        (
            [Activation("relu"), Dense(2)],
            [Stage(0, None, 4, 4, False, RELU), Stage(1, 0, 4, 2, True)],
        ),
    ],
)
def test_layers_fuse_into_stages(layers, stages) -> None:
    assert list(stages_of(layers, inputs=4)) == stages
