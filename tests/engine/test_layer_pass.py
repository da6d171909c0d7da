"""What a layer is handed in a pass, and what the chain does with what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nnkit import Activation, Dense, Dropout, Embedding, LayerNorm, Network, Residual, Trainer
from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Copy, Kernel, Operation, Product
from nnkit.diagnostics.network import Probe
from nnkit.engine.layer_pass import LayerPass
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import Passes
from nnkit.engine.precision import HalfPrecision
from nnkit.engine.segments import segments_for
from nnkit.errors import ConfigError
from nnkit.feed.batch import Batch, Rows
from nnkit.feed.features import Bags, Features
from nnkit.nn.layers import Layer, place_layers
from nnkit.nn.losses import loss_from

ROWS = 8


def passes_over(
    layers: list[Layer], features: Features, half: HalfPrecision | None = None
) -> list[Operation]:
    """Return the operations of a forward pass, a loss and a backward pass over one batch."""
    backend = NumpyBackend()
    places = place_layers(layers, features.width)
    arena = Arena(segments_for(places), backend, np.float32)
    targets = np.zeros((len(features), places[-1].outputs[0]), np.float32)
    rows = Rows(backend, np.float32, features, targets)
    passes = Passes(places, arena, ROWS, True, most_tokens=rows.most_tokens(ROWS), half=half)
    batch: Batch = passes.batch_of(rows)
    counters, scalars = backend.zeros(3, np.int64), backend.zeros(6, np.float64)
    forward = passes.forward(batch, counters, 0)
    loss = passes.loss(loss_from("mse"), batch, scalars, ROWS)
    return [*forward, loss, *passes.backward()]


def bags() -> Bags:
    return Bags(np.arange(ROWS, dtype=np.int32), np.arange(ROWS + 1), 9)


@pytest.mark.parametrize("inputs", [0, 3])
def test_vectors_of_tables_have_a_float32_gradient_in_mixed_precision(inputs: int) -> None:
    """Alone in a row or beside other inputs: of the columns that are embedded, without padding."""
    features = Features(np.zeros((ROWS, inputs), np.float32), bags=(bags(),))
    half = HalfPrecision(np.dtype(np.float16), scales=True)
    operations = passes_over([Embedding(9, 5), Dense(4, "tanh"), Dense(2)], features, half)
    (gradient,) = [one for one in operations if isinstance(one, Kernel) and one.name == "embed_gradient"]
    assert gradient.arguments["delta"].dtype == np.float32
    assert gradient.arguments["delta"].shape == (ROWS, 5)
    assert gradient.arguments["column"] == 0


@dataclass(frozen=True)
class Wrong(Layer):
    """A layer that returns an array that the pass did not hand out by name."""

    def forward(self, at: LayerPass, x: Any) -> Any:
        out = at.exact_buffer("out", (at.width,), at.dtype)
        return [Copy(x, out)], out


def test_outputs_that_the_pass_cannot_find_again_are_refused() -> None:
    network = Network([Dense(3), Wrong()], inputs=2)
    with pytest.raises(
        TypeError, match=r"Wrong\.forward must return its inputs or an array from `LayerPass\.buffer`"
    ):
        network.outputs(np.zeros((4, 2)))


def test_a_residual_at_the_bottom_computes_no_derivative_that_nobody_wants() -> None:
    features = Features(np.zeros((ROWS, 4), np.float32))
    operations = passes_over([Residual(Dense(4, "relu")), Dense(2)], features)
    products = [one for one in operations if isinstance(one, Product)]
    # Forward, two gradients of weights, and the derivative by the residual's outputs.
    assert len(products) == 5
    added = [one for one in operations if isinstance(one, Kernel) and one.name == "add"]
    assert len(added) == 1


def test_a_network_whose_width_its_inputs_decide_is_trained_once_these_are_known() -> None:
    X, y = np.random.default_rng(0).normal(size=(20, 12)), np.arange(20) % 3
    network = Network([Residual(Dense(8, "relu"), Dense(12)), LayerNorm(), Dense(3)])
    assert network.output_width == 3
    Trainer(network, "cross_entropy", device="cpu").fit(X, y, epochs=1, progress=False)
    assert network.outputs(X).shape == (20, 3)


def test_layers_without_a_matrix_of_weights_are_no_network() -> None:
    with pytest.raises(ConfigError, match="a matrix of weights"):
        Network([LayerNorm()])


@pytest.mark.parametrize(
    ("layers", "activations"),
    [
        (
            [Dense(16, "relu"), Residual(Activation("identity"), Dense(16, "relu")), Dense(3)],
            ["identity", "relu", "identity"],
        ),
        ([Dense(16, "relu"), LayerNorm(), Dropout(0.1), Dense(3)], ["relu", "identity"]),
    ],
    ids=["an identity begins a residual", "a norm and a dropout follow"],
)
def test_the_probe_looks_at_units_behind_norms_and_in_residuals(
    layers: list[Layer], activations: list[str]
) -> None:
    X, y = np.random.default_rng(0).normal(size=(32, 5)), np.arange(32) % 3
    network = Network(layers)
    step, order = Trainer(network, "cross_entropy", device="cpu").prepared_step(X, y, 16)
    step.begin_epoch(0, order(0), np.full(step.steps_per_epoch, 1e-3))
    step.run(0, 2)
    probe = Probe(step, 16)
    probe.look()
    found = probe.figures(1).layers
    assert [layer.activation for layer in found] == activations
    assert all(layer.dead is not None for layer in found if layer.activation == "relu")
