"""Ensembles in one network: against networks on their own, and against differences in float64."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit import (
    Activation,
    Bags,
    Callback,
    Checkpoints,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    Features,
    LayerNorm,
    Momentum,
    Network,
    Residual,
    Trainer,
    load,
)
from nnkit.backends.numpy import NumpyBackend
from nnkit.diagnostics.network import Probe
from nnkit.engine.input_gradient import InputGradient
from nnkit.errors import ConfigError
from nnkit.nn.layers import Layer
from nnkit.nn.links import averaged_outputs
from nnkit.nn.losses import Link, loss_from

MEMBERS, ROWS, INPUTS, OUTPUTS = 3, 37, 5, 3
LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "poisson")


def member(outputs: int = OUTPUTS) -> list[Layer]:
    return [Dense(6, "tanh"), Residual(LayerNorm(), Dense(6, "silu")), Dense(outputs)]


def ensemble(link: Link, layers: list[Layer] | None = None) -> Network:
    network = Network([Ensemble(layers or member(), members=MEMBERS, link=link)])
    network.initialize(INPUTS, seed=4, dtype=np.float64)
    return network


def alone(network: Network, layers: list[Layer] | None = None) -> list[Network]:
    """Return each member as a network on its own, with a copy of its parameters."""
    values = network.parameters()
    networks = []
    for number in range(MEMBERS):
        one = Network(layers or member())
        one.initialize(INPUTS, dtype=np.float64)
        one.set_parameters({name: values[full] for name, full in names(one, number).items()})
        networks.append(one)
    return networks


def names(one: Network, number: int) -> dict[str, str]:
    """Return by the name of a member's own parameter that in the ensemble."""
    count = 1 + max(int(name.split(".")[1]) for name in one.parameters())
    parts = (name.split(".") for name in one.parameters())
    return {f"layers.{k}.{name}": f"layers.{number * count + int(k)}.{name}" for _, k, name in parts}


def problem(loss: str) -> tuple[NDArray, NDArray, NDArray]:
    random = np.random.default_rng(3)
    X, weights = random.normal(size=(ROWS, INPUTS)), random.uniform(0.5, 2, ROWS)
    weights[3] = 0
    targets: dict[str, NDArray] = {
        "cross_entropy": random.integers(0, OUTPUTS, ROWS),
        "binary_cross_entropy": random.integers(0, 2, (ROWS, OUTPUTS)),
        "poisson": random.poisson(2, (ROWS, OUTPUTS)),
    }
    return X, targets.get(loss, random.normal(size=(ROWS, OUTPUTS))), weights


@pytest.mark.parametrize("loss", LOSSES)
def test_outputs_are_those_of_the_mean_prediction_and_gradients_a_share_of_each_members(loss: str) -> None:
    X, y, weights = problem(loss)
    network = ensemble(loss_from(loss).link)
    members = alone(network)
    expected = averaged_outputs([one.outputs(X) for one in members], loss_from(loss).link)
    np.testing.assert_allclose(network.outputs(X), expected, rtol=1e-12, atol=1e-12)
    gradients = network.gradients(X, y, loss, sample_weight=weights)
    for number, one in enumerate(members):
        own = one.gradients(X, y, loss, sample_weight=weights)
        for name, full in names(one, number).items():
            np.testing.assert_allclose(gradients[full], own[name] / MEMBERS, rtol=1e-12, atol=1e-15)
    assert len(gradients) == MEMBERS * len(own)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_derivative_of_the_mean_prediction_is_that_of_differences(loss: str) -> None:
    X, _, _ = problem(loss)
    network = ensemble(loss_from(loss).link)
    weights = np.random.default_rng(5).normal(size=(ROWS, OUTPUTS))
    by_inputs = InputGradient(network.places, network.arena)
    found = by_inputs.gradients(X, weights)
    for column in range(INPUTS):
        moved = 1e-6 * (np.arange(INPUTS) == column)
        differences = (network.outputs(X + moved) - network.outputs(X - moved)) / 2e-6
        np.testing.assert_allclose(
            found[:, column], (differences * weights).sum(axis=1), rtol=1e-6, atol=1e-8
        )
    np.testing.assert_allclose(by_inputs.outputs(X), network.outputs(X), rtol=1e-14)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("average_rows", [False, True])
def test_its_training_is_that_of_each_member_alone(
    shards: int, average_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a ragged last batch, weights and penalties. A member has a share of the gradient."""
    monkeypatch.setattr(NumpyBackend, "shards", lambda self, batch_size, work: shards)
    X, y, weights = problem("cross_entropy")
    network = ensemble("softmax")
    members = alone(network)
    losses = []
    for one, share in ((network, MEMBERS), *((one, 1) for one in members)):
        trainer = Trainer(
            one,
            "cross_entropy",
            Momentum(0.01 * share),
            device="cpu",
            precision="fp64",
            seed=2,
            l2=0.1 / share,
            average="rows" if average_rows else "weights",
        )
        history = trainer.fit(X, y, epochs=3, batch_size=8, sample_weight=weights)
        losses.append(history["loss"])
    values = network.parameters()
    for number, one in enumerate(members):
        for name, full in names(one, number).items():
            np.testing.assert_allclose(values[full], one.parameters()[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(losses[0], np.mean(losses[1:], axis=0), rtol=1e-10)


def test_members_begin_and_drop_differently() -> None:
    X, y, _ = problem("mse")
    layers = [Dense(40, "relu"), Dropout(0.5), Dense(OUTPUTS)]
    network = ensemble("identity", layers)
    weights = [network.parameters()[f"layers.{2 * number}.weight"] for number in range(MEMBERS)]
    assert not np.allclose(weights[0], weights[1])
    trainer = Trainer(network, "mse", device="cpu", precision="fp64")
    step, order = trainer.prepared_step(X, y, ROWS)
    step.begin_epoch(0, order(0), np.zeros(step.steps_per_epoch))
    step.run(0, 1)
    masks = [step.outputs(branch[0], ROWS)[1] for branch in step.places[0].branches]  # type: ignore[index]
    for one, other in pairwise(masks):
        assert 0.3 < np.mean(one != other) < 0.7


def test_a_shared_embedding_has_the_sum_of_the_members_gradients() -> None:
    random = np.random.default_rng(0)
    ids, starts = random.integers(0, 7, 60).astype(np.int32), np.arange(0, 61, 3)
    features = Features(random.normal(size=(20, 2)), bags=(Bags(ids, starts, 7),))
    y = random.normal(size=(20, 1))
    layers = [
        Embedding(7, 3),
        Ensemble(Activation("tanh"), Dense(4, "gelu"), Dense(1), members=2, link="identity"),
    ]
    network = Network(layers)
    network.initialize(2, seed=1, dtype=np.float64)
    gradient = network.gradients(features, y, "mse")["layers.0.weight"]
    table = network.parameters()["layers.0.weight"]
    values = {name: value for name, value in network.parameters().items() if name != "layers.0.weight"}

    def loss() -> float:
        x = np.hstack([features.dense, table[ids].reshape(20, 3, 3).mean(axis=1)])
        total = 0.0
        for first in (1, 3):
            one = Network([Activation("tanh"), Dense(4, "gelu"), Dense(1)])
            one.initialize(5, dtype=np.float64)
            one.set_parameters(
                {
                    f"layers.{k}.{name}": values[f"layers.{first + k}.{name}"]
                    for k in (0, 1)
                    for name in ("weight", "bias")
                }
            )
            total += float(((one.outputs(x) - y) ** 2 / 2).mean()) / 2
        return total

    for place in np.ndindex(table.shape):
        kept = table[place]
        table[place] = kept + 1e-6
        above = loss()
        table[place] = kept - 1e-6
        expected = (above - loss()) / 2e-6
        table[place] = kept
        assert gradient[place] == pytest.approx(expected, rel=1e-6, abs=1e-9)


class Stop(Callback):
    every = "1 steps"

    def on_step_end(self, trainer: Trainer, status: Any) -> None:
        if status.step == 7:
            trainer.stop()


def test_resume_in_mid_epoch_is_bit_exact(tmp_path: Path) -> None:
    X, y, _ = problem("cross_entropy")
    layers = [Dense(8, "relu"), Dropout(0.3), Dense(OUTPUTS)]
    fit: dict[str, Any] = {"epochs": 3, "batch_size": 8, "validation": 0.2}

    def trainer() -> Trainer:
        network = Network([Ensemble(layers, members=MEMBERS, link="softmax")])
        return Trainer(network, "cross_entropy", device="cpu", seed=3)

    whole, stopped, resumed = trainer(), trainer(), trainer()
    whole.fit(X, y, **fit)
    stopped.fit(X, y, **fit, callbacks=[Stop()], checkpoints=Checkpoints(tmp_path, "1 steps"))
    resumed.resume(tmp_path, X, y, validation=0.2)
    for name, value in whole.network.parameters().items():
        np.testing.assert_array_equal(resumed.network.parameters()[name], value)
    np.testing.assert_array_equal(resumed.history["validation_loss"], whole.history["validation_loss"])


def test_a_model_file_holds_all_members(tmp_path: Path) -> None:
    X, _, _ = problem("cross_entropy")
    network = ensemble("softmax")
    network.save(tmp_path / "model.safetensors", "cross_entropy")
    again = load(tmp_path / "model.safetensors")
    assert again.network.layers == network.layers
    np.testing.assert_array_equal(again.network.outputs(X), network.outputs(X))
    probabilities = again.predict_proba(X)
    members = [
        np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (one.outputs(X) for one in alone(network))
    ]
    np.testing.assert_allclose(probabilities, np.mean(members, axis=0), rtol=1e-12)


def test_its_summary_counts_every_members_parameters() -> None:
    network = ensemble("softmax", [Dense(4, "relu"), Dense(OUTPUTS)])
    lines = network.summary().splitlines()
    assert [line.split("  ")[0] or line.split()[0] for line in lines[1:2]] == ["Ensemble, 3 members"]
    assert lines[-1].split()[-1] == str(MEMBERS * (INPUTS * 4 + 4 + 4 * OUTPUTS + OUTPUTS))


def test_the_probe_looks_at_every_member() -> None:
    X, y, _ = problem("cross_entropy")
    network = Network([Ensemble(Dense(16, "relu"), Dense(OUTPUTS), members=MEMBERS, link="softmax")])
    step, order = Trainer(network, "cross_entropy", device="cpu").prepared_step(X, y, 16)
    step.begin_epoch(0, order(0), np.full(step.steps_per_epoch, 1e-3))
    step.run(0, 2)
    probe = Probe(step, 16)
    probe.look()
    found = probe.figures(1).layers
    assert [layer.activation for layer in found] == ["relu", "identity"] * MEMBERS
    assert all(layer.gradient_norm > 0 for layer in found)


def test_the_loss_must_have_its_link() -> None:
    with pytest.raises(ConfigError, match="give it link = 'sigmoid'"):
        Trainer(ensemble("softmax"), "binary_cross_entropy", device="cpu")


@pytest.mark.parametrize(
    "layers",
    [
        [Ensemble(Dense(3), members=2, link="identity"), Dense(2)],
        [Residual(Ensemble(Dense(INPUTS), members=2, link="identity")), Dense(2)],
        [Ensemble(Ensemble(Dense(3), members=2, link="identity"), members=2, link="identity")],
    ],
)
def test_it_must_be_the_last_layer(layers: list[Layer]) -> None:
    with pytest.raises(ConfigError, match="an Ensemble must be"):
        Network(layers, inputs=INPUTS)
