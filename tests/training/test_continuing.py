"""Trainings in several calls, with orders and rates from outside, and on sparse rows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from nnkit.errors import ConfigError, DataError
from nnkit.feed.features import features_from
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.network import Network
from nnkit.nn.optimizers import SGD, Adam, Momentum
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.checkpoint import Checkpoints
from nnkit.training.trainer import Trainer

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 5))
Y = X @ RANDOM.normal(size=(5, 2))


def trainer(optimizer=None, dropout: float = 0.0, **options) -> Trainer:
    layers = [Dense(6, "tanh"), *([Dropout(dropout)] if dropout else []), Dense(2)]
    network = Network(layers, inputs=5, seed=1)
    settings = {"device": "cpu", "precision": "fp64", "seed": 4, **options}
    return Trainer(network, "mse", optimizer or Adam(0.01), **settings)


def weights(of: Trainer) -> NDArray:
    return np.concatenate([array.ravel() for array in of.network.parameters().values()])


@pytest.mark.parametrize("optimizer", [Adam(0.01), Momentum(0.01)])
def test_calls_that_continue_are_one_long_call(optimizer) -> None:
    whole, parts = trainer(optimizer, dropout=0.3), trainer(optimizer, dropout=0.3)
    whole.fit(X, Y, epochs=6, batch_size=16)
    for epochs in (1, 2, 3):
        parts.fit(X, Y, epochs=epochs, batch_size=16, continued=True)
    np.testing.assert_array_equal(weights(parts), weights(whole))
    assert parts.optimizer_state is not None
    assert (parts.optimizer_state.steps, parts.optimizer_state.epochs) == (24, 6)


def test_a_call_that_does_not_continue_begins_the_optimizer_and_the_orders_anew() -> None:
    first, again = trainer(), trainer()
    first.fit(X, Y, epochs=2, batch_size=16)
    again.network.initialize(5, dtype=np.float64)
    again.network.set_parameters(first.network.parameters())
    first.fit(X, Y, epochs=1, batch_size=16)
    again.fit(X, Y, epochs=1, batch_size=16)
    np.testing.assert_array_equal(weights(first), weights(again))


@pytest.mark.parametrize(
    "schedule",
    [
        "exponential",
        "cosine",
        {"name": "one_cycle", "warmup": 3},
        {"name": "reduce_on_plateau", "patience": 1, "min_delta": 1e9},
    ],
    ids=str,
)
def test_calls_that_continue_go_on_in_the_schedule(schedule) -> None:
    whole, parts = trainer(SGD(0.1), schedule=schedule), trainer(SGD(0.1), schedule=schedule)
    whole.fit(X, Y, epochs=6, batch_size=16)
    rates: list[float] = []
    for epochs in (1, 2, 3):
        history = parts.fit(X, Y, epochs=epochs, batch_size=16, continued=True, schedule_epochs=6)
        rates += list(history["learning_rate"])
    assert rates == list(whole.history["learning_rate"])
    np.testing.assert_array_equal(weights(parts), weights(whole))


def test_a_resumed_training_keeps_the_length_of_its_schedule(tmp_path) -> None:
    class Stopping(Callback):
        def on_epoch_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
            if figures.epoch == 2:
                trainer.stop()

    whole, cut, again = (trainer(SGD(0.1), schedule="cosine") for _ in range(3))
    for each in (whole, cut):
        each.fit(X, Y, epochs=2, batch_size=16, continued=True, schedule_epochs=9)
    whole.fit(X, Y, epochs=4, batch_size=16, continued=True, schedule_epochs=9)
    cut.fit(
        X,
        Y,
        epochs=4,
        batch_size=16,
        continued=True,
        schedule_epochs=9,
        callbacks=[Stopping()],
        checkpoints=Checkpoints(tmp_path, "1 epochs"),
    )
    again.resume(tmp_path, X, Y)
    assert list(again.history["learning_rate"]) == list(whole.history["learning_rate"])
    np.testing.assert_array_equal(weights(again), weights(whole))


def test_continuing_takes_other_rows() -> None:
    one = trainer()
    one.fit(X[:30], Y[:30], epochs=1, batch_size=16)
    one.fit(X[30:], Y[30:], epochs=1, batch_size=7, continued=True)
    assert one.optimizer_state is not None
    assert one.optimizer_state.steps == 2 + 3


def test_an_order_may_be_a_function_of_the_epoch() -> None:
    """Reversed rows in their order are the rows in their reversed order."""
    asked = []

    def backwards(epoch: int) -> NDArray[np.int64]:
        asked.append(epoch)
        return np.arange(50)[::-1].copy()

    given, turned = trainer(), trainer()
    given.fit(X, Y, epochs=3, batch_size=16, shuffle=backwards)
    turned.fit(X[::-1], Y[::-1], epochs=3, batch_size=16, shuffle=False)
    assert asked == [0, 1, 2]
    np.testing.assert_array_equal(weights(given), weights(turned))


def test_what_is_ordered_by_a_function_keeps_no_checkpoints(tmp_path) -> None:
    with pytest.raises(ConfigError, match="shuffled by a function"):
        trainer().fit(X, Y, shuffle=lambda epoch: np.arange(50), checkpoints=tmp_path)


class Halving(Callback):
    """Halves the rate after each epoch, and keeps what it was."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_epoch_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        self.rates.append(figures.learning_rate)
        trainer.scale_learning_rate(0.5**figures.epoch)


def test_a_callback_scales_the_rate_of_the_epochs_to_come() -> None:
    by_callback, by_schedule = (
        trainer(SGD(0.1)),
        trainer(SGD(0.1), schedule={"name": "step", "every": 1, "factor": 0.5}),
    )
    halving = Halving()
    by_callback.fit(X, Y, epochs=3, batch_size=16, callbacks=[halving])
    by_schedule.fit(X, Y, epochs=3, batch_size=16)
    assert halving.rates == [0.1, 0.05, 0.025]
    np.testing.assert_array_equal(weights(by_callback), weights(by_schedule))


def test_a_resumed_training_keeps_the_rate_that_callbacks_set(tmp_path) -> None:
    class Stopping(Halving):
        def on_epoch_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
            super().on_epoch_end(trainer, figures)
            if figures.epoch == 2:
                trainer.stop()

    whole, stopped = trainer(SGD(0.1)), trainer(SGD(0.1))
    whole.fit(X, Y, epochs=4, batch_size=16, callbacks=[Halving()])
    stopped.fit(X, Y, epochs=4, batch_size=16, callbacks=[Stopping()], checkpoints=Checkpoints(tmp_path))
    resumed = trainer(SGD(0.1))
    resumed.resume(tmp_path, X, Y, callbacks=[Halving()])
    np.testing.assert_array_equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("on", ["mean", "sum"])
def test_figures_tell_the_penalty_apart(on: str) -> None:
    """In an epoch of one batch it is that of the weights before the step."""
    told: list[TrainingStatus] = []

    class Record(Callback):
        def on_epoch_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
            told.append(figures)

    one = trainer(l2=0.5, penalty_on=on)
    squares = sum(np.sum(one.network.parameters()[f"layers.{i}.weight"] ** 2) for i in range(2))
    errors = one.network.outputs(X).astype(np.float64) - Y
    one.fit(X, Y, epochs=1, batch_size=50, callbacks=[Record()])
    penalty = 0.25 * squares / (50 if on == "sum" else 1)
    assert told[0].penalty == pytest.approx(penalty, rel=1e-6)
    assert told[0].loss == pytest.approx(0.5 * np.mean(errors**2) + penalty, rel=1e-6)


def test_a_penalty_on_neither_is_refused() -> None:
    with pytest.raises(ConfigError, match="penalty_on = 'max' must be one of mean, sum"):
        trainer(penalty_on="max")


def test_sparse_rows_train_as_dense_ones_do() -> None:
    dense = X * (RANDOM.random(X.shape) < 0.3)
    one, other = trainer(), trainer()
    one.fit(dense, Y, epochs=3, batch_size=16, validation=0.2)
    other.fit(sparse.csc_matrix(dense), Y, epochs=3, batch_size=16, validation=0.2)
    np.testing.assert_array_equal(weights(one), weights(other))
    np.testing.assert_array_equal(other.network.outputs(sparse.coo_matrix(dense)), one.network.outputs(dense))


def test_entries_of_a_sparse_matrix_given_twice_are_added() -> None:
    matrix = sparse.csr_matrix(
        (np.array([1.0, 2.0, 4.0]), (np.array([0, 0, 1]), np.array([1, 1, 0]))), (2, 3)
    )
    raw = sparse.csr_matrix((np.array([1.0, 2.0, 4.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), (2, 3))
    network = trainer().network
    given = np.pad(matrix.toarray(), ((0, 0), (0, 2)))
    raw.resize(2, 5)
    np.testing.assert_allclose(network.outputs(raw), network.outputs(given), rtol=1e-6)
    assert raw.nnz == 3  # the caller's matrix is as it was


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (sparse.csr_matrix(np.array([[0.0, np.nan]])), "row 0, column 1"),
        (sparse.csr_matrix(np.array([[0.0, 0.0], [np.inf, 0.0]])), "row 1, column 0"),
        (sparse.csr_matrix((0, 2)), "no rows"),
        (sparse.csr_matrix(np.array([[1j, 0]])), "not numbers"),
    ],
)
def test_sparse_rows_that_cannot_be_trained_on_are_refused(matrix, words: str) -> None:
    with pytest.raises(DataError, match=words):
        features_from(matrix, np.float64)
