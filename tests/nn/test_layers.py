"""Layers as descriptions, their JSON, and how they are fused and placed."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from nnkit import Features, Network, Trainer, load
from nnkit.errors import ConfigError, ModelFileError
from nnkit.nn.layers import (
    Activation,
    BatchEnsemble,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    LayerNorm,
    Periodic,
    PiecewiseLinear,
    Residual,
    Scale,
    Sequential,
    layer_from_json,
    place_layers,
)

LAYERS = [Dense(5), Dense(3, "relu", "he_uniform", bias=False), Dropout(0.25), Activation("gelu")]
LAYERS += [LayerNorm(), LayerNorm(1e-3, bias=False), Embedding(9, 3, "max")]
LAYERS += [PiecewiseLinear(), PiecewiseLinear(4, [[0.5, 1.5, 2], []])]
LAYERS += [Scale(6.0), Periodic(8, 3, 0.5), Periodic(columns=4)]
LAYERS += [Residual(LayerNorm(), Sequential(Dense(4, "relu"), Dropout(0.1)), Dense(4))]
LAYERS += [Ensemble(Dense(4, "relu"), Residual(Dense(4)), members=3, link="softmax")]
LAYERS += [BatchEnsemble(5, "tanh", "he_normal", bias=False, members=4)]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_survives_json(layer) -> None:
    assert layer_from_json(json.loads(json.dumps(layer.to_json()))) == layer


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
        {"kind": "PiecewiseLinear", "bins": 0},
        {"kind": "PiecewiseLinear", "bins": 2, "edges": [[0, 1, 1]]},
        {"kind": "PiecewiseLinear", "bins": 2, "edges": [[0]]},
        {"kind": "PiecewiseLinear", "bins": 2, "edges": [[0, float("nan")]]},
        {"kind": "PiecewiseLinear", "bins": 2, "edges": 3},
        {"kind": "BatchEnsemble", "units": 3},
        {"kind": "BatchEnsemble", "units": 3, "members": 1},
        {"kind": "Ensemble", "layers": [{"kind": "Dense", "units": 3}], "members": 3},
        {"kind": "Ensemble", "layers": [{"kind": "Dense", "units": 3}], "members": 10**9, "link": "exp"},
        {"kind": "Ensemble", "layers": [{"kind": "Dense", "units": 3}], "members": 3, "link": "log"},
        {"kind": "Ensemble", "layers": [], "members": 3, "link": "exp"},
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


def fused(layer, dropout: float):
    """Return a layer with the dropout that the network joins to it."""
    object.__setattr__(layer, "dropout", dropout)
    return layer


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        (
            [Dense(5, "relu"), Dropout(0.2), Dense(3)],
            [(fused(Dense(5, "relu"), 0.2), 0, 0, 4, 5), (Dense(3), 1, 1, 5, 3)],
        ),
        (
            [Dense(5), Activation("tanh"), Dropout(0.1)],
            [(fused(Dense(5, "tanh"), 0.1), 0, 0, 4, 5)],
        ),
        (
            [Dense(5), Dropout(0.1), Activation("tanh")],
            [(fused(Dense(5), 0.1), 0, 0, 4, 5), (Activation("tanh"), 1, 1, 5, 5)],
        ),
        (
            [Dense(5, "relu", bias=False), Activation("tanh")],
            [(Dense(5, "relu", bias=False), 0, 0, 4, 5), (Activation("tanh"), 1, 1, 5, 5)],
        ),
        ([Dropout(0.5), Dense(2)], [(Dropout(0.5), 0, 0, 4, 4), (Dense(2), 0, 1, 4, 2)]),
        (
            [Dense(2), Dropout(0.5), Dropout(0.25)],
            [(fused(Dense(2), 0.5), 0, 0, 4, 2), (Dropout(0.25), 1, 1, 2, 2)],
        ),
        ([Dense(2), Dropout(0), Activation("relu")], [(Dense(2, "relu"), 0, 0, 4, 2)]),
        ([Activation("relu"), Dense(2)], [(Activation("relu"), 0, 0, 4, 4), (Dense(2), 0, 1, 4, 2)]),
        (
            [Activation("relu"), Dropout(0.5), Dense(2)],
            [(fused(Activation("relu"), 0.5), 0, 0, 4, 4), (Dense(2), 0, 1, 4, 2)],
        ),
        (
            [Sequential(Dense(5), Sequential(Activation("relu"), LayerNorm())), Dense(2)],
            [(Dense(5, "relu"), 0, 0, 4, 5), (LayerNorm(), 1, 1, 5, 5), (Dense(2), 2, 2, 5, 2)],
        ),
        (
            [Residual(Dense(4, "relu"), Dense(4)), Dense(2)],
            [(Residual(Dense(4, "relu"), Dense(4)), 2, 2, 4, 4), (Dense(2), 2, 3, 4, 2)],
        ),
        (
            [Embedding(9, 3), Embedding(7, 2), Dense(2)],
            [(Embedding(9, 3), 0, -1, 4, 7), (Embedding(7, 2), 1, -2, 7, 9), (Dense(2), 2, 0, 9, 2)],
        ),
    ],
)
def test_layers_are_fused_numbered_and_given_their_shapes(layers, found) -> None:
    """Each with its number among those with parameters, its index for draws, and its widths."""
    places = place_layers(layers, inputs=4)
    assert [(p.layer, p.number, p.index, *p.inputs, *p.outputs) for p in places] == found


def test_layers_in_containers_are_numbered_before_what_follows() -> None:
    (residual, last) = place_layers([Residual(LayerNorm(), Dense(4, "relu"), Dense(4)), Dense(2)], 4)
    assert [child.name for child in residual.children] == ["layers.0", "layers.1", "layers.2"]
    assert [child.index for child in residual.children] == [0, 1, 2]
    assert (last.name, last.index) == ("layers.3", 4)


@pytest.mark.parametrize("container", [Sequential, Residual])
@pytest.mark.parametrize("layers", [[], ["relu"], [Embedding(3, 2)]])
def test_containers_take_layers_that_read_rows_alone(container, layers) -> None:
    with pytest.raises(ConfigError, match=f"{container.__name__} takes layers"):
        container(*layers)


def test_members_of_an_ensemble_are_numbered_one_after_the_other() -> None:
    (ensemble,) = place_layers([Ensemble(Dense(4, "relu"), Dense(2), members=3, link="exp")], 5)
    assert [[one.name for one in member] for member in ensemble.branches] == [
        *(["layers.0", "layers.1"], ["layers.2", "layers.3"], ["layers.4", "layers.5"]),
    ]
    assert [child.inputs for child in ensemble.children] == [(5,), (4,)] * 3
    assert ensemble.outputs == (2,)


def test_a_residual_whose_layers_change_the_width_says_so() -> None:
    with pytest.raises(ConfigError, match="as many outputs as the inputs"):
        place_layers([Residual(Dense(5)), Dense(2)], 4)


def test_a_container_is_kept_in_a_model_file_and_shown(tmp_path) -> None:
    inner = Residual(LayerNorm(), Sequential(Dense(5, "gelu"), Dropout(0.2)), Dense(8))
    network = Network([Dense(8, "relu"), inner, LayerNorm(), Dense(3)], inputs=6, seed=2)
    X = np.random.default_rng(0).normal(size=(7, 6))
    network.save(tmp_path / "model.safetensors", "cross_entropy")
    again = load(tmp_path / "model.safetensors").network
    assert again.layers == network.layers
    for copied in (again, pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        np.testing.assert_array_equal(copied.outputs(X), network.outputs(X))
    names = [line[:18].rstrip() for line in network.summary().splitlines()]
    assert names[2:7] == ["Residual", "  LayerNorm", "  Sequential", "    Dense, gelu", "    Dropout, 0.2"]
    assert network.summary().splitlines()[-1].split()[-1] == "208"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scale(0), "Scale: rate = 0 must be a finite number greater than 0"),
        (lambda: Periodic(0), "Periodic: frequencies = 0 must be a whole number of at least 1"),
        (lambda: Periodic(width=1), "Periodic: width = 1 must be a whole number of at least 2"),
        (lambda: Periodic(std=-1), "Periodic: std = -1 must be a finite number greater than 0"),
        (lambda: Periodic(columns=-1), "Periodic: columns = -1 must be a whole number of at least 0"),
        (
            lambda: Network([Periodic(columns=5), Dense(1)], inputs=4),
            "5 numbers, and a row has 4 inputs",
        ),
    ],
)
def test_what_a_layer_in_front_cannot_be_is_named(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_periodic_embeds_the_numbers_of_the_training_rows_and_begins_as_it_says() -> None:
    """Of three numbers and a one-hot block of two; the file keeps how many were numbers."""
    random = np.random.default_rng(3)
    codes = random.integers(0, 2, (40, 1)).astype(np.int32)
    rows = Features(random.normal(size=(40, 3)), codes=codes, cardinalities=(2,))
    network = Network([Periodic(256, 9, std=0.5), Dense(1)])
    Trainer(network, "mse", device="cpu").fit(rows, rows.dense[:, 0], epochs=1)
    assert network.layers[0] == Periodic(256, 9, std=0.5, columns=3)
    fresh = Network([Periodic(256, 9, std=0.5, columns=3), Dense(1)], inputs=5, seed=2).parameters()
    assert fresh["layers.1.weight"].shape == (3 * 8 + 5, 1)
    assert fresh["layers.0.frequency"].std() == pytest.approx(0.5, rel=0.1)
    for name, bound in (("phase", np.pi), ("weight", 1 / 16), ("bias", 1 / 16)):
        values = fresh[f"layers.0.{name}"]
        assert bound * 0.7 < abs(values).max() <= bound
        assert abs(values.mean()) < bound / 3


def test_scale_begins_at_one_and_takes_its_factor_of_the_rate() -> None:
    network = Network([Scale(6.0), Dense(1)], inputs=4)
    assert (network.parameters()["layers.0.weight"] == 1).all()
    assert network.arena.segment("layers.0.weight").rate == 6
    grouped = network.arena.grouped({"layers.0": {"rate": 2.0}})
    assert grouped.segment("layers.0.weight").rate == 2


def test_a_text_is_no_layer() -> None:
    with pytest.raises(ConfigError, match="not 'relu'"):
        Residual("relu")  # type: ignore[arg-type]
