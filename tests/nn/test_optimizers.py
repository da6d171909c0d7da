"""Optimizers as descriptions: their defaults, their JSON, and mistakes."""

from __future__ import annotations

import json

import pytest

from nnkit.errors import ConfigError
from nnkit.nn.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    RMSprop,
    optimizer_from,
    optimizer_names,
)

CHANGED = [
    SGD(0.5),
    Momentum(0.1, momentum=0.5),
    Nesterov(0.1, 1e-4, 0.8),
    AdaGrad(epsilon=1e-6),
    RMSprop(decay=0.99),
    Adam(1e-4, beta1=0.5, beta2=0.9),
    AdamW(weight_decay=0.3),
]


def test_every_optimizer_is_known_by_its_name() -> None:
    assert {type(optimizer).name for optimizer in CHANGED} == set(optimizer_names())
    for optimizer in CHANGED:
        assert optimizer_from(optimizer.name) == type(optimizer)()


@pytest.mark.parametrize("optimizer", CHANGED)
def test_an_optimizer_survives_json(optimizer) -> None:
    assert optimizer_from(json.loads(json.dumps(optimizer.to_json()))) == optimizer


def test_defaults_are_the_papers() -> None:
    adam = Adam()
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (1e-3, 0.9, 0.999, 1e-8)
    assert adam.weight_decay == 0
    assert AdamW().weight_decay == 0.01
    assert Momentum().momentum == Nesterov().momentum == 0.9


def test_overrides_replace_what_they_give() -> None:
    assert optimizer_from("adam", learning_rate=0.1, weight_decay=None) == Adam(0.1)
    assert optimizer_from(Adam(0.2, beta1=0.5), learning_rate=0.1) == Adam(0.1, beta1=0.5)
    assert optimizer_from({"name": "sgd", "learning_rate": 1}, learning_rate=0.1) == SGD(0.1)


def test_constants_are_floats_without_the_rate_and_the_decay() -> None:
    assert Momentum(0.1, 0.2, momentum=0).constants == {"momentum": 0.0, "rate_in_velocity": False}
    assert isinstance(Momentum(momentum=0).constants["momentum"], float)
    assert set(Adam().constants) == {"beta1", "beta2", "epsilon", "epsilon_hat"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("adan", "unknown optimizer 'adan'; did you mean adam"),
        ({"learning_rate": 0.1}, "must be a name or a table with one"),
        (
            {"name": "adam", "beta3": 0.1},
            "unknown parameter 'beta3' of the optimizer adam; did you mean beta",
        ),
        ({"name": "sgd", "momentum": 0.9}, "unknown parameter 'momentum' of the optimizer sgd"),
        (
            {"name": "sgd", "learning_rate": 0},
            "sgd: learning_rate = 0 must be a finite number greater than 0",
        ),
        ({"name": "sgd", "learning_rate": "fast"}, "sgd: learning_rate = 'fast' must be a finite number"),
        ({"name": "sgd", "learning_rate": float("nan")}, "learning_rate = nan must be a finite number"),
        ({"name": "sgd", "weight_decay": -1}, "weight_decay = -1 must be a finite number of at least 0"),
        (
            {"name": "adam", "beta2": 1.0},
            "adam: beta2 = 1.0 must be a finite number of at least 0 and less than 1",
        ),
        ({"name": "rmsprop", "decay": 2}, "decay = 2 must be a finite number of at least 0 and less than 1"),
        ({"name": "momentum", "momentum": True}, "momentum = True must be a finite number"),
        ({"name": "adam", "epsilon": float("inf")}, "epsilon = inf must be a finite number"),
    ],
)
def test_mistakes_are_named(value, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimizer_from(value)
