"""Findings while training: each mistake is committed and named; the weights do not know they are watched."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit import SGD, Activation, Adam, Callback, Dense, Dropout, Embedding, Network, Trainer
from nnkit.backends.numpy import NumpyBackend
from nnkit.diagnostics.curves import baseline_loss, check_curves
from nnkit.diagnostics.diagnosis import Diagnosis
from nnkit.diagnostics.findings import Finding, read_findings
from nnkit.diagnostics.network import (
    Probe,
    check_network,
)
from nnkit.engine.parameters import Arena
from nnkit.errors import DivergenceError
from nnkit.feed.features import Bags, Features, features_from
from nnkit.nn.losses import loss_from
from nnkit.runs.config import Config
from nnkit.runs.run import Run
from nnkit.training.history import History

SOUND = {"loss": [0.5, 0.3, 0.2, 0.15, 0.12, 0.11], "validation_loss": [0.45, 0.3, 0.25, 0.22, 0.21, 0.21]}


def names(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings]


def history_of(loss: list[float], validation_loss: list[float] | None = None) -> History:
    history = History()
    for number, value in enumerate(loss):
        row = {"epoch": number + 1, "step": 100 * (number + 1), "loss": value, "learning_rate": 0.01}
        if validation_loss is not None:
            row["validation_loss"] = validation_loss[number]
        history.append(row)
    return history


def curves(loss: list[float], validation_loss: list[float] | None = None) -> list[Finding]:
    return check_curves(history_of(loss, validation_loss), 0.69, 0.01)


def rings(rows: int = 600) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    X = np.random.default_rng(0).standard_normal((rows, 2)).astype(np.float32)
    return X, (np.hypot(X[:, 0], X[:, 1]) > 1.2).astype(np.int32)


def trained(
    layers: list[Any], optimizer: Any, epochs: int = 12, X: Any = None, y: Any = None, **options: Any
) -> list[Finding]:
    """Train on rings, or on what is given, with a look at the end; return the findings."""
    if X is None:
        X, y = rings()
    loss = options.pop("loss", "cross_entropy")
    trainer = Trainer(Network(layers), loss, optimizer, device="cpu", **options)
    watch = Diagnosis(features_from(X, np.float32), y)
    with suppress(DivergenceError):
        trainer.fit(X, y, epochs=epochs, batch_size=32, validation=0.2, callbacks=[watch])
    return watch.findings


# --- curves ---


def test_sound_curves_raise_no_alarm() -> None:
    assert curves(**SOUND) == []
    assert curves(SOUND["loss"]) == []


def test_short_trainings_have_no_curves_yet() -> None:
    assert curves([0.7, 0.7, 0.7]) == []


def test_overfitting_is_dated_and_measured() -> None:
    [finding] = curves([0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02], [0.6, 0.5, 0.45, 0.5, 0.6, 0.7, 0.8])
    assert finding.name == "overfitting"
    assert "since epoch 3 of 7" in finding.seen
    assert "78%" in finding.seen  # 0.8 / 0.45 − 1
    assert "early_stopping" in finding.change


def test_a_lowest_validation_loss_in_an_early_epoch_is_told_though_it_rose_little() -> None:
    training = np.linspace(0.4, 0.2, 20).tolist()
    early = [0.35, 0.33, 0.32, *np.linspace(0.321, 0.335, 17)]
    [finding] = curves(training, early)
    assert finding.name == "overfitting"
    assert "since epoch 3 of 20 the validation loss has risen by 5%" in finding.seen
    assert curves(training, [*np.linspace(0.39, 0.33, 8), *early[1:-7]]) == []
    assert curves(training, [0.35, 0.33, 0.32, *np.linspace(0.321, 0.322, 17)]) == []


def test_a_training_that_stops_early_is_not_told_to() -> None:
    losses = [0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02], [0.6, 0.5, 0.45, 0.5, 0.6, 0.7, 0.8]
    assert check_curves(history_of(*losses), 0.69, 0.01, stops=True) == []
    unlearnt = history_of([0.9, 0.70, 0.685, 0.685, 0.685, 0.685])
    [finding] = check_curves(unlearnt, 0.69, 0.01, stops=True)
    assert "epochs" not in finding.change


def test_epochs_that_a_cooldown_returned_from_are_not_judged() -> None:
    """Noise is learnt by heart, then the best weights are trained on: the loss of the last is higher."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((300, 20)).astype(np.float32)
    y = ((X[:, 0] + generator.standard_normal(300)) > 0).astype(np.int32)
    trainer = Trainer(
        Network([Dense(64, "relu"), Dense(2)]),
        "cross_entropy",
        Adam(3e-3),
        device="cpu",
        early_stopping=30,
        cooldown=1.0,
    )
    watch = Diagnosis(features_from(X, np.float32), y)
    trainer.fit(X, y, epochs=100, batch_size=32, validation=0.3, callbacks=[watch])
    loss = trainer.history["loss"]
    assert loss[-1] - loss.min() > 0.25 * math.log(2)
    assert watch.findings == []
    assert names(check_curves(trainer.history, math.log(2), 3e-3)) == ["diverging_loss"]


def test_validation_that_rises_with_training_is_not_overfitting() -> None:
    both = [0.3, 0.2, 0.22, 0.24, 0.27, 0.3]
    assert "overfitting" not in names(curves(both, both))


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ([0.69, 0.69, 0.689, 0.689, 0.689, 0.689], "flat_loss"),
        ([1.2, 1.18, 1.16, 1.14, 1.12, 1.10], "flat_loss"),
        ([0.9, 0.70, 0.685, 0.685, 0.685, 0.685], "underfitting"),
        ([0.5, 0.4, 0.6, 0.4, 0.6, 0.4, 0.6, 0.4], "oscillating_loss"),
        ([0.5, 0.4, 0.6, 0.9, 2.0, 9.0], "diverging_loss"),
        ([50.0, 40.0, 30.0, 30.0, 20.0, 22.0], "diverging_loss"),
    ],
)
def test_the_shape_of_a_curve_is_named(loss: list[float], name: str) -> None:
    [finding] = curves(loss)
    assert (finding.name, finding.severity) == (name, "serious")


def test_penalties_are_no_loss() -> None:
    penalised = [value + 5 for value in SOUND["loss"]]
    history = history_of(penalised, SOUND["validation_loss"])
    assert check_curves(history, 0.69, 0.01, penalised=True) == []


def scaled(scales: list[float], skipped: list[int], steps: int = 500) -> list[Finding]:
    history = History()
    for number, (scale, some) in enumerate(zip(scales, skipped, strict=True), start=1):
        row = {"epoch": number, "step": steps * number, "loss": 0.5, "learning_rate": 0.01}
        history.append({**row, "loss_scale": scale, "skipped_steps": some})
    return check_curves(history, 0.69, 0.01)


def test_a_loss_scale_that_finds_no_value_is_named() -> None:
    [finding] = scaled([1024.0, 512.0, 512.0], [30, 70, 120])
    assert finding.name == "loss_scale_thrashing"
    assert "120 of 1,500 steps were skipped for an overflow (8.0%)" in finding.seen
    assert "from 1024 to 512" in finding.seen
    assert 'run.precision = "bf16"' in finding.change
    assert "training.learning_rate = 0.001" in finding.change


def test_a_loss_scale_that_has_fallen_to_nothing_is_named() -> None:
    assert names(scaled([1.0, 1.0, 1.0], [16, 16, 16])) == ["loss_scale_thrashing"]


def test_a_loss_scale_that_settles_is_sound() -> None:
    assert scaled([8192.0, 8192.0, 16384.0], [3, 3, 4]) == []
    assert scaled([2.0, 2.0, 2.0], [15, 15, 15]) == []  # it came down from 65536 once


# --- the baseline ---


def constant(loss: str, targets: NDArray, outputs: NDArray, **options: Any) -> float:
    """Return the loss of one constant output as the kernels compute it."""
    network = Network([Dense(outputs.shape[-1])], inputs=1)
    network.set_parameters({"layers.0.weight": np.zeros((1, outputs.shape[-1])), "layers.0.bias": outputs})
    trainer = Trainer(network, {"name": loss, **options}, SGD(1e-30), device="cpu")
    X = np.zeros((len(targets), 1), np.float32)
    trainer.fit(X, targets, epochs=1, validation=(X, targets))
    return float(trainer.history["validation_loss"][-1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_baseline_of_classes_is_the_loss_of_their_shares(smoothing: float) -> None:
    y = np.array([0] * 50 + [1] * 30 + [2] * 20, np.int32)
    found = baseline_loss(loss_from({"name": "cross_entropy", "label_smoothing": smoothing}), y)
    prior = (1 - smoothing) * np.array([0.5, 0.3, 0.2]) + smoothing / 3
    expected = constant("cross_entropy", y, np.log(prior), label_smoothing=smoothing)
    assert found == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_make_the_baseline_that_of_equal_shares() -> None:
    y = np.array([0] * 90 + [1] * 10, np.int32)
    weights = np.where(y == 0, 100 / 180, 100 / 20)
    assert baseline_loss(loss_from("cross_entropy"), y, weights) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("loss", "link"),
    [("mse", "mean"), ("mae", "median"), ("poisson", "log mean"), ("binary_cross_entropy", "log odds")],
)
def test_the_baseline_of_numbers_is_the_loss_of_their_best_constant(loss: str, link: str) -> None:
    t = np.random.default_rng(0).gamma(2.0, 1.0, (301, 1)).astype(np.float32)
    if loss == "binary_cross_entropy":
        t = (t > 2.5).astype(np.float32)
    mean = float(t.mean())
    output = {
        "mean": mean,
        "median": float(np.median(t)),
        "log mean": math.log(mean),
        "log odds": math.log(mean / (1 - mean)) if mean < 1 else 0.0,
    }[link]
    expected = constant(loss, t, np.array([output]))
    assert baseline_loss(loss_from(loss), t) == pytest.approx(expected, rel=1e-3)


# --- the network's figures ---


STILL = SGD(1e-30)  # the weights stay as they are


def stepped(
    network: Network, X: NDArray, y: NDArray, optimizer: Any = STILL, batch_size: int = 1_000
) -> tuple[Probe, Any]:
    """Return a probe of a step, and the step, which has been run once over the first batch."""
    trainer = Trainer(network, "cross_entropy", optimizer, device="cpu")
    step, order_of = trainer.prepared_step(X, y, batch_size)
    step.begin_epoch(0, order_of(0), np.full(step.steps_per_epoch, optimizer.learning_rate))
    step.run(0, 1)
    return Probe(step, 10_000), step


def test_the_figures_are_those_of_a_plain_forward_pass() -> None:
    X, y = rings(200)
    network = Network([Dense(16, "relu"), Dense(8), Activation("tanh"), Dense(2)], inputs=2)
    weights = network.parameters()
    weights["layers.0.bias"][:6] = -100.0  # dead
    weights["layers.1.weight"] *= 20.0
    network.set_parameters(weights)
    probe, _ = stepped(network, X, y)
    probe.look()
    look = probe.figures(3)
    W, b = (
        [weights[f"layers.{i}.{part}"].astype(np.float64) for i in range(3)] for part in ("weight", "bias")
    )
    first = np.maximum(X @ W[0] + b[0], 0)
    second = np.tanh(first @ W[1] + b[1])
    assert look.rows == 200
    assert [layer.name for layer in look.layers] == ["layers.0", "layers.1", "layers.2"]
    assert [layer.activation for layer in look.layers] == ["relu", "tanh", "identity"]
    assert look.layers[0].dead == np.mean((first == 0).all(axis=0))
    assert look.layers[0].dead >= 6 / 16
    assert look.layers[1].saturated == pytest.approx(np.mean(np.abs(second) > 0.99), abs=0.002)
    assert look.layers[2].dead is None
    assert look.layers[2].saturated is None
    gradients = network.gradients(X, y, "cross_entropy")
    for i, layer in enumerate(look.layers):
        assert layer.gradient_norm == pytest.approx(np.linalg.norm(gradients[f"layers.{i}.weight"]), rel=1e-5)
        assert layer.weight_norm == pytest.approx(np.linalg.norm(W[i]), rel=1e-5)


def test_a_step_in_shards_and_its_ragged_batch_have_the_same_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = rings(460)
    seen = []
    for shards in (1, 2):
        monkeypatch.setattr(NumpyBackend, "shards", lambda self, rows, work, count=shards: count)
        network = Network([Dense(32, "relu"), Dense(16, "tanh"), Dense(2)], inputs=2, seed=1)
        probe, step = stepped(network, X, y, batch_size=120)
        step.run(1, 3)  # the last one has 100 rows
        probe.look()
        assert len(step.outputs(step.places[0], 1_000)[0]) == 120
        seen.append(probe.figures(1))
    for one, two in zip(*(figures.layers for figures in seen), strict=True):
        assert one.gradient_norm == pytest.approx(two.gradient_norm, rel=1e-5)
        assert (one.dead, one.weight_norm) == (two.dead, two.weight_norm)
        assert one.saturated == pytest.approx(two.saturated) if one.saturated is not None else True


def test_dropped_outputs_are_not_saturated() -> None:
    X, y = rings(400)
    network = Network([Dense(16, "sigmoid"), Dropout(0.5), Dense(2)], inputs=2)
    for factor, low, high in ((1.0, 0.0, 0.0), (1e6, 0.99, 1.0)):
        weights = network.parameters()
        weights["layers.0.weight"] *= factor
        network.set_parameters(weights)
        probe, _ = stepped(network, X, y)
        probe.look()
        share = probe.figures(1).layers[0].saturated
        assert share is not None
        assert low <= share <= high


def test_a_unit_is_dead_that_no_look_saw_alive() -> None:
    X = np.eye(4, dtype=np.float32).repeat(10, axis=0)
    network = Network([Dense(4, "relu"), Dense(2)], inputs=4)
    weights = network.parameters()
    weights["layers.0.weight"][:] = np.diag([1.0, 1.0, 1.0, -1.0])
    network.set_parameters(weights)
    trainer = Trainer(network, "cross_entropy", STILL, device="cpu")
    step, _ = trainer.prepared_step(X, np.zeros(40, np.int32), 10)
    step.begin_epoch(0, np.arange(40), np.full(4, 1e-30))
    probe = Probe(step, 100)
    dead = []
    for batch in range(4):
        step.run(batch, 1)
        probe.look()
        dead.append(probe._window[0].alive.tolist().count(False))
    assert dead == [3, 2, 1, 1]
    assert probe.figures(1).layers[0].dead == 0.25


def test_the_norm_of_a_large_layer_is_reckoned_from_a_sample() -> None:
    X = np.random.default_rng(0).standard_normal((64, 500)).astype(np.float32)
    y = np.arange(64, dtype=np.int32) % 2
    network = Network([Dense(300, "relu"), Dense(2)], inputs=500)
    probe, _ = stepped(network, X, y)
    probe.look()
    layer = probe.figures(1).layers[0]
    gradient = network.gradients(X, y, "cross_entropy")["layers.0.weight"]
    assert layer.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=0.15)
    assert layer.weight_norm == pytest.approx(
        np.linalg.norm(network.parameters()["layers.0.weight"]), rel=0.02
    )


class OnDevice(np.ndarray):
    """An array as a GPU's are to be treated: sliced by anyone, and all else left to the backend."""

    __array_ufunc__ = None

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        assert all(isinstance(one, slice | int | type(Ellipsis)) for one in keys), "picked outside the stream"
        return super().__getitem__(key)

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise AssertionError(f"{function.__name__} outside the stream")


def test_a_look_leaves_it_to_the_device_to_pick_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).standard_normal((64, 500)).astype(np.float32)
    network = Network([Dense(300, "relu"), Dense(2)], inputs=500)
    probe, _ = stepped(network, X, np.arange(64, dtype=np.int32) % 2)
    view, to_host = Arena.view, NumpyBackend.to_host
    monkeypatch.setattr(Arena, "view", lambda *given: view(*given).view(OnDevice))
    monkeypatch.setattr(
        NumpyBackend,
        "to_host",
        lambda backend, array, rows=None: to_host(backend, array.view(np.ndarray), rows),
    )
    probe.look()
    probe.measure_update(1)
    figures = probe.figures(1)
    assert figures.layers[0].weight_norm > 0
    assert figures.layers[0].update_ratio == 0


def test_the_size_of_an_update_is_that_of_one_step() -> None:
    X, y = rings(320)
    network = Network([Dense(16, "relu"), Dense(2)], inputs=2)
    probe, step = stepped(network, X, y, SGD(0.1), batch_size=32)
    before = network.parameters()
    probe.look()
    step.run(1, 1)
    probe.measure_update(1)
    after = network.parameters()
    for layer in probe.figures(1).layers:
        old, new = (which[f"{layer.name}.weight"].astype(np.float64) for which in (before, after))
        expected = np.linalg.norm(new - old) / np.linalg.norm(old)
        assert layer.update_ratio == pytest.approx(expected, rel=1e-6)


def test_updates_are_measured_while_training() -> None:
    X, y = rings(32_000)
    watch = Diagnosis(features_from(X, np.float32), y)
    trainer = Trainer(Network([Dense(16, "relu"), Dense(2)]), "cross_entropy", Adam(1e-3), device="cpu")
    trainer.fit(X, y, epochs=4, batch_size=32, callbacks=[watch])
    ratios = [layer.update_ratio for look in watch.figures for layer in look.layers]
    measured = [ratio for ratio in ratios if ratio is not None]
    # Adam moves a weight by at most about its rate a step.
    assert len(measured) >= 2
    assert watch.figures[-1].rows == 256
    assert all(1e-6 < ratio < 1e-2 for ratio in measured)
    assert trainer.step is None


def test_a_callback_may_ask_for_its_next_call_soon() -> None:
    class Soon(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step_end(self, trainer: Any, figures: Any) -> None:
            self.steps.append(figures.step)
            self.within = 3 if len(self.steps) % 2 else None

    X, y = rings(3200)
    soon = Soon()
    Trainer(Network([Dense(2)]), "cross_entropy", device="cpu").fit(
        X, y, epochs=1, batch_size=8, callbacks=[soon]
    )
    gaps = np.diff(soon.steps)
    assert max(gaps[::2]) <= 3
    assert max(gaps[1::2]) > 3


def test_a_network_with_embeddings_is_looked_at_too() -> None:
    ids = np.random.default_rng(0).integers(0, 50, 900).astype(np.int32)
    features = Features(np.empty((300, 0), np.float32), bags=(Bags(ids, np.arange(0, 901, 3), 50),))
    y = (ids.reshape(300, 3).min(axis=1) < 10).astype(np.int32)
    network = Network([Embedding(50, 8), Dense(16, "relu"), Dense(2)])
    watch = Diagnosis(features, y)
    Trainer(network, "cross_entropy", device="cpu").fit(features, y, epochs=2, callbacks=[watch])
    assert [layer.name for layer in watch.figures[-1].layers] == ["layers.1", "layers.2"]
    assert all(layer.gradient_norm > 0 for layer in watch.figures[-1].layers)


# --- mistakes that are committed ---


def test_a_rate_too_small_is_named() -> None:
    assert "flat_loss" in names(trained([Dense(16, "relu"), Dense(2)], SGD(1e-6)))


@pytest.mark.parametrize("optimizer", [Adam(1.0), SGD(20.0)])
def test_a_rate_too_large_is_named(optimizer: Any) -> None:
    found = trained([Dense(64, "tanh"), Dense(2)], optimizer)
    [named] = [finding for finding in found if finding.name in ("diverging_loss", "oscillating_loss")]
    assert f"training.learning_rate = {optimizer.learning_rate / 10:.2g}" in named.change


def test_relus_that_a_large_rate_has_killed_are_named() -> None:
    X, y = rings()
    found = trained([Dense(64, "relu"), Dense(64, "relu"), Dense(2)], SGD(30.0), X=X, y=y, clip_norm=1.0)
    [dead] = [finding for finding in found if finding.name == "dead_relus"]
    assert "layers.0" in dead.seen
    assert "layers.1" in dead.seen


def test_sigmoids_that_large_inputs_saturate_are_named() -> None:
    X, y = rings()
    found = trained([Dense(32, "sigmoid"), Dense(2)], SGD(0.01), X=X * 1000, y=y)
    assert "saturated_units" in names(found)


def test_gradients_that_vanish_in_deep_sigmoids_are_named() -> None:
    found = trained([*[Dense(16, "sigmoid")] * 7, Dense(2)], SGD(0.01))
    assert "vanishing_gradients" in names(found)
    assert "flat_loss" in names(found)


def test_gradients_that_explode_are_named() -> None:
    wide = {"name": "normal", "std": 10.0}
    layers = [Dense(64, "tanh", {"name": "normal", "std": 0.01}), *[Dense(64, "relu", wide)] * 3]
    network = Network([*layers, Dense(2, "identity", wide)], inputs=2)
    X, y = rings()
    probe, _ = stepped(network, X, y)
    probe.look()
    look = probe.figures(1)
    gradients = network.gradients(X, y, "cross_entropy")
    first, last = (np.linalg.norm(gradients[f"layers.{i}.weight"]) for i in (0, 4))
    assert first > 1e3 * last
    [finding] = [finding for finding in check_network([look], 0.1) if "gradients" in finding.name]
    assert finding.name == "exploding_gradients"
    assert "clip_norm" in finding.change


def test_outputs_and_gradients_that_grow_from_layer_to_layer_are_named() -> None:
    wide = {"name": "normal", "std": 2.0}
    X, y = rings()
    network = Network([*[Dense(64, "relu", wide)] * 5, Dense(2, "identity", wide)], inputs=2)
    probe, _ = stepped(network, X, y)
    probe.look()
    gradients, weights = network.gradients(X, y, "cross_entropy"), network.parameters()
    norms = [[np.linalg.norm(of[f"layers.{i}.weight"]) for i in range(6)] for of in (gradients, weights)]
    assert 1e-2 < norms[0][0] / norms[0][-1] < 1e2
    assert max(np.divide(*norms)) > 100
    assert names(check_network([probe.figures(1)], 0.1)) == ["exploding_gradients"]


@pytest.mark.parametrize(
    ("rate", "name", "change"), [(2.5, "large_updates", "0.25"), (1e-9, "small_updates", "1e-08")]
)
def test_updates_out_of_proportion_to_the_weights_are_named(rate: float, name: str, change: str) -> None:
    X, _ = rings()
    y = (X @ np.array([[1.0], [-2.0]])).astype(np.float32)
    # The mean squared error of inputs of variance 1 has a curvature of 1: from a rate of 2 on each step
    # overshoots by more than it was off.
    found = trained([Dense(1)], SGD(rate), 4, X, y, loss="mse")
    [updates] = [finding for finding in found if "updates" in finding.name]
    assert (updates.name, updates.severity) == (name, "notice")
    assert "layers.0" in updates.seen
    assert f"training.learning_rate = {change} " in updates.change


def test_labels_learnt_by_heart_are_named() -> None:
    generator = np.random.default_rng(0)
    X = generator.standard_normal((200, 30)).astype(np.float32)
    y = generator.integers(0, 2, 200).astype(np.int32)
    found = trained([Dense(256, "relu"), Dense(128, "relu"), Dense(2)], Adam(3e-3), 30, X, y)
    assert "overfitting" in names(found)


def test_a_linear_network_on_rings_is_named() -> None:
    assert "underfitting" in names(trained([Dense(2)], Adam(1e-2), 20))


def test_a_sound_training_on_rings_is_not() -> None:
    assert trained([Dense(32, "relu"), Dense(32, "relu"), Dense(2)], Adam(3e-3), 20) == []


# --- the training that is watched ---


def run_in(folder: Path, *settings: str) -> Run:
    given = ["data.train=digits", "model.hidden=[32]", "training.epochs=6", "run.device=cpu", *settings]
    return Run(Config().with_overrides([*given, f"run.out={folder}"]))


def test_the_weights_are_the_same_bits_with_diagnosis_and_without(tmp_path: Path) -> None:
    runs = [
        run_in(tmp_path / str(on), "model.dropout=0.2", f"run.diagnostics={str(on).lower()}")
        for on in (True, False)
    ]
    for run in runs:
        run.train()
    with_it, without = (run.model.network.parameters() for run in runs)
    assert all(np.array_equal(with_it[name], without[name]) for name in with_it)
    assert (tmp_path / "True" / "findings.json").is_file()
    assert not (tmp_path / "False" / "findings.json").exists()


def test_a_resumed_training_is_the_same_bits_and_is_diagnosed(tmp_path: Path) -> None:
    class Stop(Callback):
        def __init__(self, run: Run) -> None:
            self.run = run

        def on_epoch_end(self, trainer: Any, figures: Any) -> None:
            if figures.epoch == 3:
                self.run.stop()

    whole = run_in(tmp_path / "whole")
    whole.train()
    parted = run_in(tmp_path / "parted")
    parted.train([Stop(parted)])
    resumed = Run.resumed(tmp_path / "parted")
    resumed.train()
    expected, found = whole.model.network.parameters(), resumed.model.network.parameters()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    findings, figures = read_findings(tmp_path / "parted" / "findings.json")
    assert names(findings) == names(whole.findings)
    assert figures[-1]["epoch"] == 6


def test_findings_are_kept_with_the_run(tmp_path: Path) -> None:
    run = run_in(tmp_path, "training.learning_rate=1e-7", "training.epochs=8")
    run.train()
    findings, figures = read_findings(tmp_path / "findings.json")
    assert "flat_loss" in names(findings)
    assert findings == run.findings
    assert figures[-1]["layers"][0]["units"] == 32
    assert json.loads((tmp_path / "findings.json").read_text())["format"] == 1


def test_a_training_that_ends_in_infinities_keeps_its_findings(tmp_path: Path) -> None:
    run = run_in(tmp_path, "data.train=diabetes", "training.optimizer=sgd", "training.learning_rate=100")
    with pytest.raises(DivergenceError):
        run.train()
    findings, _ = read_findings(tmp_path / "findings.json")
    assert "diverging_loss" in names(findings)


# --- sound trainings ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", ["digits", "iris", "wine", "breast_cancer", "diabetes", "xor", "exam", "moons"]
)
def test_trainings_on_the_built_in_data_raise_no_alarm(tmp_path: Path, source: str) -> None:
    run = Run(Config().with_overrides([f"data.train={source}", f"run.out={tmp_path / 'run'}"]))
    run.train()
    assert run.findings == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("digits", ["model.hidden=[64, 64]", "model.activation=tanh", "run.seed=1"]),
        ("digits", ["training.optimizer=sgd", "training.learning_rate=0.1", "training.batch_size=32"]),
        ("digits", ["model.activation=gelu", "training.schedule=cosine", "model.dropout=0.3"]),
        ("digits", ["model.hidden=[64]", "model.activation=sigmoid", "training.optimizer=rmsprop"]),
        ("wine", ["training.optimizer=sgd", "training.learning_rate=0.1", "training.batch_size=16"]),
        ("breast_cancer", ["model.activation=leaky_relu", "training.optimizer=adamw", "training.l2=0.001"]),
        ("iris", ["model.hidden=[]", "training.learning_rate=0.01", "training.epochs=50"]),
        ("diabetes", ["model.hidden=[16]", "training.loss=huber", "training.epochs=100"]),
    ],
)
def test_trainings_of_other_kinds_raise_no_alarm(tmp_path: Path, source: str, settings: list[str]) -> None:
    run = Run(Config().with_overrides([f"data.train={source}", f"run.out={tmp_path / 'run'}", *settings]))
    run.train()
    assert run.findings == []


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("california_housing.csv", ["data.target=median_house_value"]),
        ("sms_spam.tsv", ["data.target=0"]),
        ("mnist", ["model.hidden=[128, 64]", "training.epochs=6"]),
    ],
)
def test_trainings_on_real_data_raise_no_alarm(
    shared_data: Path, tmp_path: Path, source: str, settings: list[str]
) -> None:
    given = [f"data.train={shared_data / source}", f"run.out={tmp_path / 'run'}", *settings]
    run = Run(Config().with_overrides(given))
    run.train()
    assert run.findings == []
