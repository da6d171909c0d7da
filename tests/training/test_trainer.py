"""The training loop: what one fit does, from the same bits twice to the calls on the way.

Order: repeatability, which weights are kept, validation, weights, limits on the update, losses and
optimizers, schedules, inputs, calls, metrics, mistakes, and a run on real digits. Float64 on the CPU unless a
test says otherwise, for each kernel of another type takes a second to compile.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.data.arrays.idx import read_idx
from nnkit.data.splitting import split_rows
from nnkit.errors import ConfigError, DataError, DeviceError, DivergenceError
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.network import Network
from nnkit.nn.optimizers import SGD, Adam, Momentum, Optimizer, optimizer_from, optimizer_names
from nnkit.nn.schedules import Cosine, ReduceOnPlateau
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.history import History
from nnkit.training.periods import Period
from nnkit.training.trainer import Trainer

Weights = dict[str, NDArray]


def blobs(rows: int = 90, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Return three classes around three centres in four dimensions, 5 : 3 : 1."""
    generator = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [rows * 5 // 9, rows * 3 // 9, rows - rows * 5 // 9 - rows * 3 // 9])
    centres = np.array([[2.0, 0, 0, 1], [0, 2.0, 0, 1], [0, 0, 2.0, -1]])
    X = centres[y] + generator.normal(size=(rows, 4))
    order = generator.permutation(rows)
    return X[order], y[order]


def classifier() -> Network:
    return Network([Dense(8, "tanh"), Dense(3)])


def trainer_for(network: Network, loss: Any = "cross_entropy", **options: Any) -> Trainer:
    settings = {"optimizer": SGD(0.1), "device": "cpu", "precision": "fp64", **options}
    return Trainer(network, loss, **settings)


def assert_same_bits(a: Weights, b: Weights) -> None:
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)


def assert_close(a: Weights, b: Weights, tolerance: float = 1e-12) -> None:
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance, err_msg=name)


def without_times(history: History) -> list[dict[str, float]]:
    times = ("seconds", "samples_per_second")
    return [{name: value for name, value in row.items() if name not in times} for row in history]


class Capture(Callback):
    """Keeps the weights after each epoch."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def on_epoch_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        self.weights.append(trainer.network.parameters())


class Recorder(Callback):
    """Keeps every call's name and figures."""

    def __init__(self, every: Period | None = None) -> None:
        self.every = every
        self.calls: list[tuple[str, TrainingStatus]] = []

    def on_train_begin(self, trainer: Trainer, figures: TrainingStatus) -> None:
        self.calls.append(("begin", figures))

    def on_step_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        self.calls.append(("step", figures))

    def on_epoch_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        self.calls.append(("epoch", figures))

    def on_train_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        self.calls.append(("end", figures))


class StopAt(Callback):
    """Stops the training at a step."""

    every = Period(1, "steps")

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        if figures.step == self.step:
            trainer.stop()


# Repeatability.


def dropout_run(seed: int, callbacks: tuple[Callback, ...] = ()) -> tuple[Weights, History]:
    X, y = blobs()
    network = Network([Dense(8, "tanh"), Dropout(0.3), Dense(3)])
    trainer = trainer_for(network, optimizer=Adam(1e-2), precision="fp32", seed=seed)
    history = trainer.fit(X, y, epochs=3, batch_size=4, validation=0.2, callbacks=callbacks)
    return network.parameters(), history


def test_one_seed_gives_the_same_bits_and_another_seed_others() -> None:
    (first, history), (again, history_again), (other, _) = (dropout_run(seed) for seed in (1, 1, 2))
    assert_same_bits(first, again)
    assert without_times(history) == without_times(history_again)
    assert not np.array_equal(first["layers.0.weight"], other["layers.0.weight"])


def test_callbacks_of_odd_periods_change_no_bit_and_no_figure() -> None:
    weights, history = dropout_run(1)
    watchers = (Recorder(Period(3, "steps")), Recorder(Period(7, "steps")), Recorder(Period(1e-9, "seconds")))
    watched, history_watched = dropout_run(1, watchers)
    assert_same_bits(weights, watched)
    assert without_times(history) == without_times(history_watched)
    assert [f.step for name, f in watchers[0].calls if name == "step"] == list(range(3, 55, 3))


def test_each_epoch_takes_an_order_of_its_own_unless_told_otherwise() -> None:
    X, y = blobs()
    ends = []
    for seed, shuffle in [(0, True), (1, True), (0, False), (1, False)]:
        network = classifier()
        network.initialize(4, 9, np.float64)
        trainer_for(network, seed=seed).fit(X, y, epochs=1, batch_size=16, shuffle=shuffle)
        ends.append(network.parameters())
    assert not np.array_equal(ends[0]["layers.0.weight"], ends[1]["layers.0.weight"])
    assert_same_bits(ends[2], ends[3])


# Which weights are kept.


def overfit(epochs: int = 30, **options: Any) -> tuple[Network, Trainer, Capture, History]:
    """Train on labels without meaning: the validation loss rises soon."""
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(40, 4)), generator.integers(0, 3, 40)
    network, capture = classifier(), Capture()
    trainer = trainer_for(network, optimizer=Adam(0.05), **options)
    history = trainer.fit(
        X[:20], y[:20], epochs=epochs, batch_size=5, validation=(X[20:], y[20:]), callbacks=[capture]
    )
    return network, trainer, capture, history


def test_early_stopping_waits_for_its_patience_and_returns_to_the_best_epoch() -> None:
    network, trainer, capture, history = overfit(early_stopping=3)
    best = int(np.argmin(history["validation_loss"])) + 1
    assert len(history) == best + 3 < 30
    assert history.best_epoch == trainer.state.best_epoch == best
    assert_same_bits(network.parameters(), capture.weights[best - 1])
    assert not np.array_equal(
        capture.weights[best - 1]["layers.0.bias"], capture.weights[-1]["layers.0.bias"]
    )


def test_a_cooldown_trains_the_best_weights_on_while_the_rate_falls_to_zero() -> None:
    plain = overfit(early_stopping=3)[3]
    _network, trainer, _capture, history = overfit(early_stopping=3, cooldown=0.5)
    stopped, best = len(plain), plain.best_epoch
    assert best is not None
    assert figures_of(history)[:stopped] == figures_of(plain)
    epochs = len(history) - stopped
    assert epochs == -(-best // 2)
    assert trainer.state.stopped_early
    # The history has the rate of an epoch's last step.
    steps = int(history["step"][0])
    falling = history["learning_rate"][best - 1] * (
        1 - (np.arange(1, epochs + 1) * steps - 1) / (epochs * steps)
    )
    np.testing.assert_allclose(history["learning_rate"][stopped:], falling, rtol=1e-12)
    # The first epoch of the cooldown goes on from the best weights, not from the last.
    assert history["loss"][stopped] < plain["loss"][best - 1]
    assert history["validation_loss"][stopped] < plain["validation_loss"][-1]


def figures_of(history: History) -> list[tuple[float, ...]]:
    return [(row["loss"], row["validation_loss"], row["learning_rate"]) for row in history]


def test_a_cooldown_ends_with_the_training() -> None:
    history = overfit(early_stopping=3, cooldown=1.0, epochs=len(overfit(early_stopping=3)[3]) + 1)[3]
    assert len(history) == len(overfit(early_stopping=3)[3]) + 1


def test_the_monitored_metric_tells_the_best_epoch_and_the_last_of_equals_counts() -> None:
    _network, trainer, _capture, history = overfit(
        monitor="accuracy", restore_best=True, metrics=["log_loss"]
    )
    accuracy = history["validation_accuracy"]
    assert trainer.state.best_epoch == np.flatnonzero(accuracy == accuracy.max())[-1] + 1
    assert history.best_epoch == trainer.state.best_epoch
    assert trainer.state.best_epoch != np.argmin(history["validation_loss"]) + 1


def test_without_early_stopping_the_last_weights_stay() -> None:
    network, _, capture, history = overfit()
    assert len(history) == 30 > history.best_epoch
    assert_same_bits(network.parameters(), capture.weights[-1])


def test_restore_best_returns_to_the_best_epoch_after_all_epochs() -> None:
    network, _, capture, history = overfit(restore_best=True)
    assert len(history) == 30
    assert_same_bits(network.parameters(), capture.weights[history.best_epoch - 1])


def test_early_stopping_without_restoring_keeps_the_last_weights() -> None:
    network, _, capture, history = overfit(early_stopping=3, restore_best=False)
    assert len(history) < 30
    assert_same_bits(network.parameters(), capture.weights[-1])


class RaiseScale(Callback):
    """Makes the weights infinite after an epoch, so that the next one diverges."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        if figures.epoch == self.epoch:
            trainer.network.set_parameters({"layers.1.bias": [np.inf, 0, 0]})


@pytest.mark.parametrize("validated", [True, False])
def test_divergence_names_epoch_and_rate_and_keeps_the_best_weights(validated: bool) -> None:
    X, y = blobs()
    validation = (X, y) if validated else None
    network, capture = classifier(), Capture()
    trainer = trainer_for(network, optimizer=SGD(0.25))
    recorder = Recorder(Period(1, "steps"))
    words = r"the loss became nan in epoch 4 at learning rate 0\.25.*\n.*0\.025"
    with pytest.raises(DivergenceError, match=words) as raised:
        trainer.fit(
            X,
            y,
            epochs=6,
            batch_size=16,
            validation=validation,
            callbacks=[capture, recorder, RaiseScale(3)],
        )
    assert [f.step for name, f in recorder.calls if name == "step"][-1] == 18  # seen at the first step after
    best = trainer.history.best_epoch
    assert len(trainer.history) == 3
    # A training loss is that of the weights an epoch begins with, a validation loss that of those it leaves.
    kept, words = (best - 1, "") if validated else (best - 2, "the beginning of ")
    assert f"the weights kept are those of {words}epoch {best}" in str(raised.value)
    assert_same_bits(network.parameters(), capture.weights[kept])


@pytest.mark.parametrize("epochs", [1, 2])
def test_an_update_that_overflows_is_divergence_even_if_no_loss_has_seen_it(epochs: int) -> None:
    X = np.array([[1.0], [2.0]])
    network = Network([Dense(1)], inputs=1)
    initial = network.parameters()
    trainer = trainer_for(network, "mse", optimizer=SGD(1e308))
    with pytest.raises(DivergenceError, match=r"epoch 1 .*1e\+308"):
        trainer.fit(X, [100.0, -300.0], epochs=epochs, batch_size=2)
    assert_same_bits(network.parameters(), initial)


def test_a_huge_rate_diverges_and_leaves_finite_weights() -> None:
    X, y = blobs()
    network = Network([Dense(1)])
    with pytest.raises(DivergenceError, match=r"1e\+06"):
        trainer_for(network, "mse", optimizer=SGD(1e6)).fit(X, y, epochs=50, batch_size=16)
    assert all(np.isfinite(value).all() for value in network.parameters().values())


def test_parameters_that_are_there_are_gone_on_from() -> None:
    X, y = blobs()
    steps = []
    network = classifier()
    trainer = trainer_for(network)
    for _ in range(2):
        trainer.fit(X, y, epochs=1, batch_size=90, shuffle=False)
        steps.append(network.parameters())
    whole = classifier()
    trainer_for(whole).fit(X, y, epochs=2, batch_size=90, shuffle=False)
    assert_same_bits(whole.parameters(), steps[1])
    assert not np.array_equal(steps[0]["layers.1.bias"], steps[1]["layers.1.bias"])


def test_parameters_are_drawn_from_the_seed_and_move_to_the_precision() -> None:
    X, y = blobs()
    network, expected = classifier(), classifier()
    trainer_for(network, optimizer=SGD(1e-30), seed=4).fit(X, y, epochs=1)
    expected.initialize(4, 4, np.float64)
    assert_close(network.parameters(), expected.parameters(), 1e-20)
    trainer_for(network, precision="fp32").fit(X, y, epochs=1)
    assert network.parameters()["layers.0.weight"].dtype == np.float32


# Validation.


def test_a_validation_share_is_stratified_and_not_trained_on() -> None:
    X, y = blobs()
    training, held_out = split_rows(90, 0.2, 5, y)
    assert np.bincount(y[held_out]).tolist() == [10, 6, 2]
    by_share, by_hand = classifier(), classifier()
    history = trainer_for(by_share, seed=5).fit(X, y, epochs=3, batch_size=16, validation=np.float32(0.2))
    history_by_hand = trainer_for(by_hand, seed=5).fit(
        X[training], y[training], epochs=3, batch_size=16, validation=(X[held_out], y[held_out])
    )
    assert history["step"].tolist() == [5, 10, 15]  # 72 rows in batches of 16
    assert_same_bits(by_share.parameters(), by_hand.parameters())
    assert without_times(history) == without_times(history_by_hand)


def test_sample_weights_follow_their_rows_through_the_split() -> None:
    X, y = blobs()
    weights = np.random.default_rng(1).uniform(0.1, 2, 90)
    training, held_out = split_rows(90, 0.2, 5, y)
    by_share, by_hand = classifier(), classifier()
    trainer_for(by_share, seed=5).fit(X, y, epochs=1, validation=0.2, sample_weight=weights)
    trainer_for(by_hand, seed=5).fit(X[training], y[training], epochs=1, sample_weight=weights[training])
    assert_same_bits(by_share.parameters(), by_hand.parameters())
    assert len(held_out) == 18


def test_the_validation_figures_are_those_of_the_epochs_weights() -> None:
    X, y = blobs()
    Xv, yv = blobs(30, seed=1)
    network = classifier()
    trainer = trainer_for(network, metrics=["accuracy", "log_loss"])
    history = trainer.fit(X, y, epochs=2, batch_size=16, validation=(Xv, yv))
    logits = network.outputs(Xv)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    row = history.rows[-1]
    cross_entropy = -np.log(probabilities[np.arange(30), yv]).mean()
    assert row["validation_loss"] == pytest.approx(cross_entropy, rel=1e-12)
    assert row["validation_accuracy"] == np.mean(logits.argmax(axis=1) == yv)
    assert row["validation_log_loss"] == pytest.approx(cross_entropy, rel=1e-12)


def test_a_regression_is_measured_in_the_units_that_decode_returns() -> None:
    X, y = blobs()
    network = Network([Dense(1)])
    scaled = (y - 10.0) / 4.0
    history = trainer_for(network, "mse").fit(
        X, scaled, epochs=2, validation=(X, scaled), decode=lambda values: 4.0 * values + 10.0
    )
    errors = 4.0 * network.outputs(X).ravel() + 10.0 - y
    assert history["validation_mae"][-1] == pytest.approx(np.abs(errors).mean(), rel=1e-12)
    assert history["validation_loss"][-1] == pytest.approx(np.mean(0.5 * (errors / 4) ** 2), rel=1e-12)


# Weights.


def trained(X: NDArray, y: NDArray, weights: Any = None, **options: Any) -> Weights:
    """Return the weights after three full batches."""
    network = classifier()
    trainer_for(network, **options).fit(X, y, epochs=3, batch_size=1000, sample_weight=weights)
    return network.parameters()


def test_sample_weights_equal_repeated_rows() -> None:
    X, y = blobs()
    times = np.random.default_rng(0).integers(1, 4, 90)
    assert_close(trained(X, y, times), trained(X.repeat(times, axis=0), y.repeat(times)))
    assert not np.allclose(trained(X, y)["layers.0.weight"], trained(X, y, times)["layers.0.weight"])


def test_rows_of_weight_zero_change_nothing() -> None:
    X, y = blobs()
    weights = np.ones(90)
    weights[60:] = 0
    assert_close(trained(X, y, weights), trained(X[:60], y[:60]))


def test_a_batch_without_weight_is_skipped() -> None:
    X, y = blobs()
    weights = np.ones(90)
    weights[30:60] = 0
    kept = np.r_[0:30, 60:90]
    networks = [classifier() for _ in range(2)]
    options = {"optimizer": Momentum(0.1)}
    trainer_for(networks[0], **options).fit(
        X, y, epochs=2, batch_size=30, sample_weight=weights, shuffle=False
    )
    trainer_for(networks[1], **options).fit(
        X[kept], y[kept], epochs=2, batch_size=30, sample_weight=weights[kept], shuffle=False
    )
    assert_same_bits(networks[0].parameters(), networks[1].parameters())


def test_balanced_class_weights_equal_the_mapping_and_the_sample_weights() -> None:
    X, y = blobs()
    by_class = 90 / (3 * np.bincount(y))
    balanced = trained(X, y, class_weight="balanced")
    assert_close(balanced, trained(X, y, class_weight=dict(enumerate(by_class))))
    assert_close(balanced, trained(X, y, by_class[y]))
    assert not np.allclose(balanced["layers.0.weight"], trained(X, y)["layers.0.weight"])


def test_class_weights_multiply_the_sample_weights() -> None:
    X, y = blobs()
    weights = np.random.default_rng(0).uniform(0.1, 2, 90)
    both = trained(X, y, weights, class_weight={1: 3.0})
    assert_close(both, trained(X, y, weights * np.where(y == 1, 3.0, 1.0)))


# Limits on the update.


def step_length(before: Weights, after: Weights) -> float:
    return float(np.sqrt(sum(np.sum((after[name] - before[name]) ** 2) for name in before)))


@pytest.mark.parametrize("clip_norm", [0.01, 100.0])
def test_clip_norm_bounds_the_step_and_leaves_short_gradients_alone(clip_norm: float) -> None:
    X, y = blobs()
    weights = np.where(y == 0, 2.0, 0.5)  # the norm is that of the weighted mean's gradient
    network = classifier()
    network.initialize(4, dtype=np.float64)
    before = network.parameters()
    gradients = network.gradients(X, y, "cross_entropy", sample_weight=weights)
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
    assert 0.01 < norm < 100
    trainer_for(network, optimizer=SGD(0.5), clip_norm=clip_norm).fit(
        X, y, epochs=1, batch_size=100, sample_weight=weights
    )
    expected = {n: before[n] - 0.5 * min(1.0, clip_norm / norm) * gradients[n] for n in before}
    assert_close(network.parameters(), expected)
    assert step_length(before, network.parameters()) <= 0.5 * clip_norm * (1 + 1e-9)


def test_l1_drives_the_weights_of_irrelevant_features_towards_zero() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(200, 6))
    y = X[:, 0] - 2 * X[:, 1] + 0.1 * generator.normal(size=200)
    weights = []
    for l1 in (0.0, 0.1):
        network = Network([Dense(1)])
        trainer_for(network, "mse", l1=l1, optimizer=SGD(0.01)).fit(X, y, epochs=100, batch_size=50)
        weights.append(np.abs(network.parameters()["layers.0.weight"].ravel()))
    assert weights[1][2:].max() < 0.002 < weights[0][2:].max()
    # The lasso's solution of nearly uncorrelated features: each kept weight shrinks by l1.
    np.testing.assert_allclose(weights[0][:2] - weights[1][:2], 0.1, atol=0.02)


def test_weight_decay_shrinks_weights_and_not_biases() -> None:
    X, y = blobs()
    network = classifier()
    network.initialize(4, dtype=np.float64)
    before = network.parameters() | {"layers.1.bias": np.array([1.0, 2, 3])}
    network.set_parameters(before)
    gradients = network.gradients(X, y, "cross_entropy")
    optimizer = SGD(0.1, weight_decay=0.3)
    trainer_for(network, optimizer=optimizer).fit(X, y, epochs=1, batch_size=90)
    expected = {
        name: value * (1 - 0.03 * name.endswith("weight")) - 0.1 * gradients[name]
        for name, value in before.items()
    }
    assert_close(network.parameters(), expected)


def test_a_schedule_of_the_weight_decay_multiplies_that_of_the_learning_rate() -> None:
    """Rows that are all zeros move no weight of the first layer but by its decay."""
    X, y = np.zeros((12, 4)), np.arange(12) % 3
    network = classifier()
    network.initialize(4, dtype=np.float64)
    before = network.parameters()["layers.0.weight"].copy()
    options = {"schedule": "cosine", "weight_decay_schedule": "flat_cos", "dropout_schedule": "flat_cos"}
    trainer = trainer_for(network, optimizer=SGD(0.1, weight_decay=0.3), **options)
    trainer.fit(X, y, epochs=4, batch_size=6)
    times = np.arange(8) / 8
    rates = 0.1 * np.cos(np.pi / 2 * times) ** 2
    decays = 0.3 * np.where(times < 0.5, 1, np.sin(np.pi * times) ** 2)
    expected = before * np.prod(1 - rates * decays)
    np.testing.assert_allclose(network.parameters()["layers.0.weight"], expected, rtol=1e-12)


# Losses and optimizers.


def regression(rows: int = 64) -> tuple[NDArray, NDArray]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(rows, 4))
    return X, X @ [0.5, -0.3, 0.2, 0.1]


TASKS = {
    "cross_entropy": lambda X, y: (3, np.digitize(y, [-0.3, 0.3])),
    "binary_cross_entropy": lambda X, y: (1, y > 0),
    "mse": lambda X, y: (2, np.column_stack([y, -y])),
    "mae": lambda X, y: (1, y),
    "huber": lambda X, y: (1, y),
    "poisson": lambda X, y: (1, np.exp(y)),
    "poisson_deviance": lambda X, y: (1, np.exp(y)),
}
# What each loss comes to where the outputs are right, computed from its definition.
LEAST = {"poisson": lambda t: np.mean(t - t * np.log(t))}


@pytest.mark.parametrize("loss", sorted(TASKS))
def test_every_loss_learns_what_it_is_for(loss: str) -> None:
    X, y = regression()
    outputs, targets = TASKS[loss](X, y)
    network = Network([Dense(outputs)])
    history = trainer_for(network, loss, optimizer=SGD(0.2)).fit(
        X, targets, epochs=60, batch_size=32, validation=(X, targets)
    )
    least = LEAST[loss](targets) if loss in LEAST else 0.0
    initial, final = history["loss"][0] - least, history["validation_loss"][-1] - least
    assert final < 0.5 * initial
    name = {"cross_entropy": "accuracy", "binary_cross_entropy": "accuracy"}.get(loss, "r2")
    assert history[f"validation_{name}"][-1] > 0.85


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_learns(name: str) -> None:
    X, y = blobs()
    optimizer: Optimizer = optimizer_from(name, learning_rate=0.05)
    history = trainer_for(classifier(), optimizer=optimizer).fit(X, y, epochs=6, batch_size=16)
    assert history["loss"][-1] < 0.75 * history["loss"][0]


# Schedules.


def test_the_learning_rate_follows_a_warm_up_and_half_a_cosine() -> None:
    X, y = blobs()
    schedule = Cosine(minimum=0.1, warmup=9)
    history = trainer_for(classifier(), optimizer=SGD(0.5), schedule=schedule).fit(
        X, y, epochs=6, batch_size=16
    )
    last = np.arange(5, 36, 6)  # the last step of each epoch, from 0
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * (last - 9) / (36 - 9)))
    expected = 0.5 * np.where(last < 9, (last + 1) / 10, cosine)
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-12)


def test_each_step_takes_the_rate_of_its_schedule() -> None:
    X, y = blobs(64)
    network, by_hand = classifier(), classifier()
    by_hand.initialize(4, dtype=np.float64)
    trainer_for(network, optimizer=SGD(0.5), schedule="cosine").fit(
        X, y, epochs=2, batch_size=32, shuffle=False
    )
    values = by_hand.parameters()
    for step in range(4):
        rows = slice(32 * (step % 2), 32 * (step % 2) + 32)
        gradients = by_hand.gradients(X[rows], y[rows], "cross_entropy")
        rate = 0.5 * 0.5 * (1 + np.cos(np.pi * step / 4))
        values = {name: value - rate * gradients[name] for name, value in values.items()}
        by_hand.set_parameters(values)
    assert_close(network.parameters(), values)


def test_reduce_on_plateau_reduces_after_its_patience() -> None:
    X, y = blobs()
    # So small a rate never improves by more than min_delta.
    schedule = ReduceOnPlateau(factor=0.5, patience=2)
    history = trainer_for(classifier(), optimizer=SGD(1e-9), schedule=schedule).fit(X, y, epochs=6)
    np.testing.assert_allclose(history["learning_rate"], 1e-9 * np.array([1, 1, 1, 0.5, 0.5, 0.25]))


# Inputs.


def test_pixels_are_divided_by_255() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(40, 4), dtype=np.uint8)
    y = (pixels[:, 0] > 127).astype(int) + (pixels[:, 1] > 127)
    networks = [classifier(), classifier()]
    histories = [
        trainer_for(network).fit(X, y, epochs=3, batch_size=16, validation=(X, y))
        for network, X in zip(networks, (pixels, pixels / 255), strict=True)
    ]
    assert_close(networks[0].parameters(), networks[1].parameters())
    np.testing.assert_allclose(histories[0]["validation_loss"], histories[1]["validation_loss"], rtol=1e-12)
    np.testing.assert_allclose(networks[0].outputs(pixels), networks[0].outputs(pixels / 255), rtol=1e-12)


def test_a_batch_may_be_larger_than_the_data_and_the_data_one_row() -> None:
    X, y = blobs()
    larger, whole, row = classifier(), classifier(), classifier()
    history = trainer_for(larger).fit(X, y, epochs=2, batch_size=2**24)
    trainer_for(whole).fit(X, y, epochs=2, batch_size=90)
    assert_same_bits(larger.parameters(), whole.parameters())
    assert history["step"].tolist() == [1, 2]
    one = trainer_for(row).fit(X[:1], y[:1], epochs=20)
    assert one["loss"][-1] < one["loss"][0]


def test_one_hot_probabilities_are_the_class_indices_and_soft_ones_a_mixture() -> None:
    X, y = blobs()
    assert_close(trained(X, np.eye(3)[y]), trained(X, y))
    # A target of 0.3 and 0.7 is each row twice, with those weights.
    mixture = 0.3 * np.eye(3)[y] + 0.7 * np.eye(3)[(y + 1) % 3]
    twice = trained(np.r_[X, X], np.r_[y, (y + 1) % 3], np.r_[np.full(90, 0.3), np.full(90, 0.7)])
    assert_close(trained(X, mixture), twice)


def test_several_labels_at_once_are_learnt() -> None:
    X, y = regression()
    labels = np.column_stack([y > 0, X[:, 0] > 0, X[:, 1] < 0])
    history = trainer_for(Network([Dense(3)]), "binary_cross_entropy", optimizer=SGD(1.0)).fit(
        X, labels, epochs=40, batch_size=32, validation=(X, labels)
    )
    assert history["validation_accuracy"][-1] > 0.8  # all three right


def test_soft_targets_of_the_validation_are_measured_as_their_nearest_classes() -> None:
    X, y = blobs()
    soft = 0.8 * np.eye(3)[y] + 0.2 / 3
    network = classifier()
    history = trainer_for(network).fit(X, soft, epochs=2, validation=(X, soft))
    assert history["validation_accuracy"][-1] == np.mean(network.outputs(X).argmax(axis=1) == y)


# Calls.


def test_callbacks_are_called_in_order_with_where_the_training_stands() -> None:
    X, y = blobs()
    recorder = Recorder(Period(2, "steps"))
    history = trainer_for(classifier()).fit(X, y, epochs=2, batch_size=40, callbacks=[recorder])
    stands = [(name, f.epoch, f.step, f.samples) for name, f in recorder.calls]
    assert stands == [
        ("begin", 0, 0, 0),
        ("step", 1, 2, 80),
        ("epoch", 1, 3, 90),
        ("step", 2, 4, 130),
        ("step", 2, 6, 180),
        ("epoch", 2, 6, 180),
        ("end", 2, 6, 180),
    ]
    assert {(f.epochs, f.steps_per_epoch, f.total_steps) for _, f in recorder.calls} == {(2, 3, 6)}
    assert [f.loss for name, f in recorder.calls if name == "epoch"] == history["loss"].tolist()
    assert {f.learning_rate for name, f in recorder.calls if name != "begin"} == {0.1}
    seconds = [f.seconds for _, f in recorder.calls]
    assert seconds == sorted(seconds)


def test_a_steps_loss_is_that_since_the_last_report() -> None:
    X, y = blobs()
    recorder = Recorder(Period(1, "steps"))
    history = trainer_for(classifier()).fit(X, y, epochs=2, batch_size=45, callbacks=[recorder])
    losses = [f.loss for name, f in recorder.calls if name == "step"]
    np.testing.assert_allclose(history["loss"], np.reshape(losses, (2, 2)).mean(axis=1), rtol=1e-12)
    assert losses[1] != losses[0]


def test_a_period_of_an_epoch_is_served() -> None:
    X, y = blobs()
    recorder = Recorder(Period(1, "epochs"))
    trainer_for(classifier()).fit(X, y, epochs=2, batch_size=40, callbacks=[recorder])
    assert [(name, f.step) for name, f in recorder.calls if name == "step"] == [("step", 3), ("step", 6)]


def test_metrics_reach_the_callbacks_at_an_epochs_end() -> None:
    X, y = blobs()
    recorder = Recorder(Period(1, "steps"))
    trainer = trainer_for(classifier(), metrics=["accuracy"])
    history = trainer.fit(X, y, epochs=1, validation=(X, y), callbacks=[recorder])
    (figures,) = (f for name, f in recorder.calls if name == "epoch")
    assert all(history[name].tolist() == [value] for name, value in figures.metrics.items())
    assert set(figures.metrics) == {"validation_loss", "validation_accuracy"}
    assert not any(f.metrics for name, f in recorder.calls if name == "step")


def test_stop_ends_in_the_middle_of_an_epoch_with_every_call_and_no_half_row() -> None:
    X, y = blobs()
    recorder, network = Recorder(Period(1, "steps")), classifier()
    trainer = trainer_for(network)
    history = trainer.fit(X, y, epochs=5, batch_size=30, callbacks=[StopAt(4), recorder])
    assert [(name, f.step) for name, f in recorder.calls][-2:] == [("step", 4), ("end", 4)]
    assert recorder.calls[-1][1].epoch == 2
    assert len(history) == 1
    assert (trainer.state.epoch, trainer.state.batch) == (1, 1)
    # A training stopped once trains again.
    assert len(trainer.fit(X, y, epochs=2)) == 2


def test_stop_with_an_epochs_last_step_keeps_the_epochs_row() -> None:
    X, y = blobs()
    recorder = Recorder()
    trainer = trainer_for(classifier())
    history = trainer.fit(X, y, epochs=5, batch_size=30, callbacks=[StopAt(6), recorder])
    assert len(history) == 2
    name, figures = recorder.calls[-1]
    assert (name, figures.epoch, figures.step, figures.epochs) == ("end", 2, 6, 5)


def test_stop_before_the_first_step_trains_nothing() -> None:
    class Never(Recorder):
        def on_train_begin(self, trainer: Trainer, figures: TrainingStatus) -> None:
            trainer.stop()

    X, y = blobs()
    never, network, expected = Never(), classifier(), classifier()
    assert len(trainer_for(network).fit(X, y, callbacks=[never])) == 0
    expected.initialize(4, dtype=np.float64)
    assert_same_bits(network.parameters(), expected.parameters())
    assert [name for name, _ in never.calls] == ["end"]


def test_the_end_is_called_after_a_failure_too() -> None:
    X, y = blobs()
    recorder = Recorder()
    with pytest.raises(DivergenceError):
        trainer_for(classifier()).fit(X, y, epochs=4, callbacks=[RaiseScale(1), recorder])
    assert recorder.calls[-1][0] == "end"


# Metrics.


def test_costly_metrics_are_measured_after_the_last_epoch_alone() -> None:
    X, y = blobs()
    options = {"metrics": ["f1", "accuracy", "roc_auc"], "optimizer": SGD(0.2)}
    network = classifier()
    history = trainer_for(network, **options).fit(X, y, epochs=3, validation=(X, y))
    assert [sorted(row.keys() & {"validation_f1", "validation_roc_auc"}) for row in history] == [
        [], [], ["validation_f1", "validation_roc_auc"],
    ]  # fmt: skip
    assert all("validation_accuracy" in row and "validation_log_loss" not in row for row in history)
    from sklearn.metrics import f1_score

    expected = f1_score(y, network.outputs(X).argmax(axis=1), average="macro")
    assert history.rows[-1]["validation_f1"] == pytest.approx(expected)


def test_costly_metrics_are_measured_where_early_stopping_ends_the_training_and_not_before() -> None:
    _, _, _, history = overfit(early_stopping=2, metrics=["f1"])
    assert 2 < len(history) < 30
    assert ["validation_f1" in row for row in history] == [False] * (len(history) - 1) + [True]


# Mistakes.


def nan_at_row_3() -> NDArray:
    X = np.zeros((10, 4))
    X[3, 1] = np.nan
    return X


X10, Y10 = np.zeros((10, 4)), np.zeros(10, dtype=int)
# 1 for the rows that a share of 0.5 holds out, else 0.
HELD_OUT = np.isin(np.arange(10), split_rows(10, 0.5, 0, Y10)[1]).astype(float)


@pytest.mark.parametrize(
    ("X", "y", "options", "words"),
    [
        (np.zeros(10), Y10, {}, "1 dimensions"),
        (np.zeros((2, 2, 2)), Y10[:2], {}, "3 dimensions"),
        (np.zeros((0, 4)), Y10[:0], {}, "no rows"),
        (X10.astype(str), Y10, {}, "not numbers"),
        (X10, Y10[:9], {}, "10 rows of features and 9 targets"),
        (X10, Y10.astype(str), {}, "encode labels"),
        (nan_at_row_3(), Y10, {}, "row 3, column 1"),
        (X10, Y10 - 1, {}, "-1"),
        (X10, Y10 + 3, {}, "0 to 2"),
        (X10, Y10 + 0.5, {}, "whole class indices"),
        (X10, np.zeros((10, 2)), {}, "2 columns"),
        (X10, np.full((10, 3), -0.1), {}, "between 0 and 1"),
        (X10, Y10, {"sample_weight": np.ones(9)}, r"\(9,\)"),
        (X10, Y10, {"sample_weight": np.full(10, -1.0)}, "at least 0"),
        (X10, Y10, {"sample_weight": np.zeros(10)}, "all sample weights are 0"),
        (X10, Y10, {"validation": (np.zeros((5, 3)), Y10[:5])}, "3 features, and the network takes 4"),
        (X10, Y10, {"validation": (X10, Y10 + 5)}, "0 to 2"),
        (X10, Y10, {"validation": (X10, Y10[:3])}, "validation: there are 10 rows of features and 3 targets"),
        (X10, Y10, {"validation": (X10, Y10, np.zeros(10))}, "validation: all sample weights are 0"),
        (
            X10,
            Y10,
            {"validation": 0.5, "sample_weight": HELD_OUT},
            "that are not held out: all sample weights",
        ),
        (
            X10,
            Y10,
            {"validation": 0.5, "sample_weight": 1 - HELD_OUT},
            "validation: all sample weights are 0",
        ),
        (X10, Y10, {"validation": 0.01}, "none of the 10 rows"),
    ],
)
def test_data_that_do_not_fit_are_refused_with_what_is_wrong(
    X: NDArray, y: NDArray, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        trainer_for(classifier()).fit(X, y, **options)


def test_data_of_another_width_than_the_network_are_refused() -> None:
    network = Network([Dense(3)], inputs=5)
    with pytest.raises(DataError, match="4 features, and the network takes 5"):
        trainer_for(network).fit(X10, Y10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs = 0"),
        ({"epochs": True}, "epochs = True"),
        ({"epochs": 2.0}, "epochs = 2.0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batch_size": 2**25}, "at most 16777216"),
        ({"batch_size": True}, "batch_size = True"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"validation": 0}, "between 0 and 1"),
    ],
)
def test_settings_of_fit_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trainer_for(classifier()).fit(X10, Y10, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "cross_entrpy"}, "did you mean cross_entropy"),
        ({"loss": {"name": "huber", "delta": -1}}, "delta"),
        ({"optimizer": "adm"}, "did you mean adam"),
        ({"optimizer": {"name": "adam", "learning_rate": -1.0}}, "learning_rate = -1.0"),
        ({"optimizer": {"name": "sgd", "learning_rate": float("nan")}}, "nan"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"precision": "fp8"}, "fp8"),
        ({"precision": "fp16"}, "no precision 'fp16'.*fp32, fp64.*auto"),
        ({"metrics": ["accuracy", "acuracy"]}, "did you mean accuracy"),
        ({"metrics": ["r2"]}, "'r2' does not apply to a multiclass task"),
        ({"metrics": "accuracy"}, r"list of names, such as \['accuracy'\]"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**64}, "seed"),
        ({"seed": True}, "seed = True"),
        ({"l1": -0.1}, "l1 = -0.1"),
        ({"l2": float("inf")}, "l2 = inf"),
        ({"l2": True}, "l2 = True"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"early_stopping": 0}, "early_stopping = 0"),
        ({"early_stopping": True}, "early_stopping = True"),
    ],
)
def test_settings_of_the_trainer_that_are_unknown_or_out_of_range_are_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        trainer_for(classifier(), **options)


@pytest.mark.parametrize("device", ["tpu", "cpu:1"])
def test_devices_that_there_are_not_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match=device):
        trainer_for(classifier(), device=device)


@pytest.mark.parametrize("class_weight", ["balancd", {3: 1.0}, {0: -1.0}])
def test_class_weights_that_fit_no_class_are_refused(class_weight: Any) -> None:
    with pytest.raises(ConfigError, match="class_weight"):
        trainer_for(classifier(), class_weight=class_weight).fit(X10, Y10)


def test_a_half_precision_that_an_automatic_device_lacks_becomes_fp32_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnkit import backends

    def no_cuda(device: str) -> NoReturn:
        raise DeviceError(f"device {device!r}: there is no NVIDIA driver")

    cpu = backends.available()["cpu"]
    monkeypatch.setattr(backends, "available", lambda: {"cpu": cpu, "cuda": no_cuda})
    X, y = blobs()
    with caplog.at_level(logging.INFO, "nnkit"):
        network = classifier()
        trainer = Trainer(network, "cross_entropy", SGD(0.1), device="auto", precision="fp16")
        history = trainer.fit(X, y, epochs=3, batch_size=16)
    assert any("device   cpu" in message for message in caplog.messages)
    assert any("fp16" in message and "fp32" in message for message in caplog.messages)
    assert trainer.precision == "fp32"
    assert network.parameters()["layers.0.weight"].dtype == np.float32
    assert history["loss"][-1] < history["loss"][0]


# Real digits.


def test_three_epochs_on_two_thousand_mnist_digits_reach_85_percent_on_others(shared_data: Path) -> None:
    images = read_idx(shared_data / "mnist" / "train-images-idx3-ubyte.gz")[:3000].reshape(3000, -1)
    labels = read_idx(shared_data / "mnist" / "train-labels-idx1-ubyte.gz")[:3000]
    network = Network([Dense(128, "relu"), Dense(10)])
    trainer = Trainer(network, "cross_entropy", Adam(2e-3), device="cpu")
    history = trainer.fit(
        images[:2000], labels[:2000], epochs=3, batch_size=32, validation=(images[2000:], labels[2000:])
    )
    assert history["validation_accuracy"][-1] > 0.85
    assert np.mean(network.outputs(images[2000:]).argmax(axis=1) == labels[2000:]) > 0.85


def test_weights_of_held_out_rows_weigh_their_loss_and_metrics() -> None:
    random = np.random.default_rng(3)
    X, y = random.normal(size=(40, 3)), random.normal(size=40)
    weights = np.repeat([1.0, 0.0], 20)
    moved = np.where(weights == 0, y + 100, y)
    rows = []
    for target in (y, moved):
        trainer = trainer_for(Network([Dense(1)]), "mse", metrics=["r2", "mae"])
        history = trainer.fit(X, target, epochs=2, validation=0.25, sample_weight=weights)
        given = trainer_for(Network([Dense(1)]), "mse", metrics=["r2", "mae"])
        other = given.fit(X, y, epochs=2, validation=(X, target, weights), sample_weight=weights)
        rows.append([(row["validation_loss"], row["validation_mae"]) for row in [*history, *other]])
    assert rows[0] == rows[1]


def test_a_validation_of_four_parts_is_refused() -> None:
    X, y = blobs()
    with pytest.raises(DataError, match=r"\(X, y, sample_weight\)"):
        trainer_for(classifier()).fit(X, y, validation=(X, y, np.ones(len(y)), 1))  # type: ignore[arg-type]
