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
from nnkit.config import Config
from nnkit.core.features import Bags, Features, features_from
from nnkit.core.losses import loss_from
from nnkit.errors import DivergenceError
from nnkit.training.diagnosis import Diagnosis
from nnkit.training.diagnostics import Finding, read_findings
from nnkit.training.diagnostics_curves import baseline_loss, check_curves
from nnkit.training.diagnostics_network import (
    LayerFigures,
    NetworkFigures,
    Probe,
    check_network,
    with_updates,
)
from nnkit.training.history import History
from nnkit.training.run import Run

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
    watch = Diagnosis(features_from(X, np.float32), y, 32)
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
    assert "since epoch 3" in finding.seen
    assert "78%" in finding.seen  # 0.8 / 0.45 − 1
    assert "early_stopping" in finding.change


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


def test_the_figures_are_those_of_a_plain_forward_pass() -> None:
    X, y = rings(200)
    network = Network([Dense(16, "relu"), Dropout(0.5), Dense(8), Activation("tanh"), Dense(2)], inputs=2)
    weights = network.parameters()
    weights["layers.0.bias"][:6] = -100.0  # dead
    weights["layers.1.weight"] *= 20.0
    network.set_parameters(weights)
    look = Probe(network, loss_from("cross_entropy"), features_from(X, np.float32), y).look(3)
    W, b = (
        [weights[f"layers.{i}.{part}"].astype(np.float64) for i in range(3)] for part in ("weight", "bias")
    )
    first = np.maximum(X @ W[0] + b[0], 0)
    second = np.tanh(first @ W[1] + b[1])
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


def test_the_updates_are_the_displacement_by_the_number_of_steps() -> None:
    layer = LayerFigures("layers.0", "relu", 2, 0.0, None, 1.0, 5.0)
    look = with_updates(NetworkFigures(1, 9, (layer,)), [np.array([3.0, 4.0])], [np.array([3.0, 5.0])], 4)
    assert look.layers[0].update_ratio == pytest.approx(1 / 4 / 5)


def test_updates_are_measured_while_training() -> None:
    X, y = rings(3200)
    watch = Diagnosis(features_from(X, np.float32), y, 32)
    trainer = Trainer(Network([Dense(16, "relu"), Dense(2)]), "cross_entropy", Adam(1e-3), device="cpu")
    watch.on_train_begin(trainer, None)
    watch._cost = 0.0

    class Eager(Callback):
        def on_epoch_end(self, trainer: Any, figures: Any) -> None:
            watch._cost = watch._spent = 0.0
            watch.on_epoch_end(trainer, figures)

        def on_step_end(self, trainer: Any, figures: Any) -> None:
            watch.on_step_end(trainer, figures)

    trainer.fit(X, y, epochs=4, batch_size=32, callbacks=[Eager()])
    assert [look.epoch for look in watch.figures] == [1, 2, 3, 4]
    ratios = [look.layers[0].update_ratio for look in watch.figures]
    assert ratios[-1] is None
    # Adam moves a weight by at most about its rate a step.
    assert all(ratio is not None and 1e-6 < ratio < 1e-2 for ratio in ratios[:-1])


def test_a_network_with_embeddings_is_looked_at_too() -> None:
    ids = np.random.default_rng(0).integers(0, 50, 900).astype(np.int32)
    features = Features(np.empty((300, 0), np.float32), bags=(Bags(ids, np.arange(0, 901, 3), 50),))
    y = (ids.reshape(300, 3).min(axis=1) < 10).astype(np.int32)
    network = Network([Embedding(50, 8), Dense(16, "relu"), Dense(2)])
    watch = Diagnosis(features, y, 64)
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
    look = Probe(network, loss_from("cross_entropy"), features_from(X, np.float32), y).look(1)
    gradients = network.gradients(X, y, "cross_entropy")
    first, last = (np.linalg.norm(gradients[f"layers.{i}.weight"]) for i in (0, 4))
    assert first > 1e3 * last
    [finding] = [finding for finding in check_network([look], 0.1) if "gradients" in finding.name]
    assert finding.name == "exploding_gradients"
    assert "clip_norm" in finding.change


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


@pytest.mark.parametrize(
    "source", ["digits", "iris", "wine", "breast_cancer", "diabetes", "xor", "exam", "moons"]
)
def test_trainings_on_the_built_in_data_raise_no_alarm(tmp_path: Path, source: str) -> None:
    run = Run(Config().with_overrides([f"data.train={source}", f"run.out={tmp_path / 'run'}"]))
    run.train()
    assert run.findings == []


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("california_housing.csv", ["data.target=median_house_value"]),
        ("sms_spam.tsv", ["data.target=0"]),
        ("mnist", ["model.hidden=[128, 64]"]),
    ],
)
def test_trainings_on_real_data_raise_no_alarm(
    shared_data: Path, tmp_path: Path, source: str, settings: list[str]
) -> None:
    given = [f"data.train={shared_data / source}", f"run.out={tmp_path / 'run'}", *settings]
    run = Run(Config().with_overrides(given))
    run.train()
    assert run.findings == []
