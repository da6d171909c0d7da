"""Networks of every kind of layer with weights that are not their first ones, and rows for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnkit import (
    Activation,
    Bags,
    BatchEnsemble,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    Features,
    LayerNorm,
    Network,
    Periodic,
    PiecewiseLinear,
    Residual,
    Scale,
    Sequential,
)
from nnkit.nn.activations import activation_names

INPUTS = 6
X = np.random.default_rng(0).normal(size=(50, INPUTS)).astype(np.float32)
_EDGES = ((-1.0, 0.0, 0.5, 1.0), (), (-2.0, -1.0, 2.0))
_LINKS: Any = ("identity", "sigmoid", "softmax", "exp")

LAYERS: dict[str, list[Any]] = {
    **{name: [Dense(5, name), Dropout(0.2), Dense(3)] for name in activation_names()[:11]},
    "no bias": [
        Activation("tanh"),
        Dropout(0.1),
        Dense(5, bias=False),
        LayerNorm(1e-3, bias=False),
        Dense(1),
    ],
    "residual": [
        Dense(5, "relu"),
        LayerNorm(),
        Residual(Dense(7, "silu"), Dropout(0.1), Residual(LayerNorm(), Dense(7)), Dense(5)),
        Sequential(Activation("gelu"), Dense(3)),
    ],
    "bins": [PiecewiseLinear(4, _EDGES), Dense(5, "relu"), Dense(3)],
    "bins apart": [PiecewiseLinear(4, _EDGES), LayerNorm(), Dense(3)],
    "periodic": [Scale(6.0), Periodic(4, 3, columns=2), Dense(5, "mish"), Dense(2)],
    "batch ensemble": [
        PiecewiseLinear(4, _EDGES),
        BatchEnsemble(8, "silu", members=3),
        Dropout(0.1),
        Residual(BatchEnsemble(8, "tanh", members=3, bias=False)),
        Scale(),
        Ensemble(Dense(3), members=3, link="softmax"),
    ],
    "batch ensemble, flat": [BatchEnsemble(8, "relu", members=2), Dense(3)],
    **{
        f"ensemble, {link}": [Dense(5, "relu"), Ensemble(Dense(4, "elu"), Dense(3), members=3, link=link)]
        for link in _LINKS
    },
}


def moved(layers: Any, inputs: int = INPUTS, dtype: Any = np.float32) -> Network:
    """Return a network whose every parameter is off its first value."""
    network, random = Network(layers), np.random.default_rng(1)
    network.initialize(inputs, seed=1, dtype=dtype)
    values = network.parameters()
    network.set_parameters(
        {name: value + 0.1 * random.normal(size=value.shape) for name, value in values.items()}
    )
    return network


def bags(size: int, weighted: bool = False) -> Bags:
    """Return a bag for each of the rows, some of them empty, some with an id twice."""
    random = np.random.default_rng(2)
    starts = np.concatenate([[0], np.sort(random.integers(0, 100, len(X) - 1)), [100]])
    ids = random.integers(0, size, 100).astype(np.int32)
    return Bags(ids, starts, size, random.normal(size=100).astype(np.float32) if weighted else None)


BAGS: dict[str, tuple[Any, Features]] = {
    "mean": ([Embedding(20, 4), Embedding(9, 3, "sum")], Features(X, bags=(bags(20), bags(9)))),
    "weighted mean": ([Embedding(20, 4)], Features(X, bags=(bags(20, True),))),
    "weighted sum": ([Embedding(20, 4, "sum")], Features(X, bags=(bags(20, True),))),
    "max": ([Embedding(20, 4, "max")], Features(X, bags=(bags(20),))),
    "ids alone": ([Embedding(20, 4)], Features(X[:, :0], bags=(bags(20),))),
}


def agree(found: Any, network: Network, rows: Any = X) -> None:
    """Check raw outputs against a network's: within 1e-5 of their scale, or four roundings of float32.

    The latter is the distance between the network's own outputs in float32 and float64.
    """
    expected = network.outputs(rows).astype(np.float64)
    wide = Network(network.layers)
    wide.initialize(network.inputs or 0, dtype=np.float64, values=network.parameters())
    rounding = np.abs(expected - wide.outputs(rows)).max()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= max(1e-5 * np.abs(expected).max(), 4 * rounding)
