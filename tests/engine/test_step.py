"""A compiled step: no allocation, ragged batches, pieces of an epoch, dropout, and the two counters."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from nnkit.backends.numpy import NumpyBackend
from nnkit.engine.objective import Objective, Penalty, StepSums
from nnkit.engine.step import Scheduled, Step
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.feed.order import epoch_order
from nnkit.kernels.layout import BATCH, STEP
from nnkit.nn.layers import Dense, Dropout, Layer
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import SGD, AdamW, Optimizer, optimizer_from

INPUTS, OUTPUTS = 6, 3
LAYERS = (Dense(8, "tanh"), Dropout(0.3), Dense(OUTPUTS))


class Training:
    """A network, random rows, and a step over them."""

    def __init__(
        self,
        rows: int = 50,
        batch_size: int = 16,
        optimizer: str | Optimizer = "adam",
        layers: tuple[Layer, ...] = LAYERS,
        dtype: type = np.float64,
        weights: np.ndarray | None = None,
        seed: int = 1,
        penalty: Penalty | None = None,
        clip_norm: float | None = None,
        scheduled: tuple[Scheduled, ...] = (),
    ) -> None:
        random = np.random.default_rng(0)
        backend = NumpyBackend()
        self.X = random.normal(size=(rows, INPUTS)).astype(dtype)
        self.y = random.integers(0, OUTPUTS, rows).astype(np.int32)
        self.net = Network(layers)
        self.net.initialize(INPUTS, 3, dtype, backend)
        placed = Rows(
            backend,
            dtype,
            Features(self.X),
            self.y,
            None if weights is None else weights.astype(dtype),
            shuffled=True,
        )
        self.penalty = penalty or Penalty()
        self.step = Step(
            self.net.places,
            self.net.arena,
            loss_from("cross_entropy"),
            self.penalty,
            batch_size,
            seed,
            optimizer_from(optimizer),
            placed,
            clip_norm,
            scheduled=scheduled,
        )
        self.order = epoch_order(rows, seed, 0)

    def begin(self, epoch: int = 0, rate: float = 0.01, **factors: np.ndarray) -> None:
        self.step.begin_epoch(epoch, self.order, np.full(self.step.steps_per_epoch, rate), factors)

    def flat(self) -> np.ndarray:
        return np.concatenate([array.ravel() for array in self.net.parameters().values()])


def test_a_step_allocates_nothing_however_many_there_are() -> None:
    training = Training(rows=205 * 8 + 3, batch_size=8, penalty=Penalty(0.01, 0.01), clip_norm=1.0)
    training.begin()
    steps = training.step.steps_per_epoch
    training.step.run(0, 20)  # and look, once, for a compiled loop
    training.step.run(steps - 3, 3)
    gc.collect()
    tracemalloc.start()
    try:
        training.step.run(0, 5)
        before, _ = tracemalloc.get_traced_memory()
        peaks = []
        for first, count in ((5, 10), (5, 200)):
            tracemalloc.reset_peak()
            training.step.run(first, count)
            after, peak = tracemalloc.get_traced_memory()
            peaks.append(peak - before)
            assert after - before < 1024
        training.step.run(0, steps)
        assert tracemalloc.get_traced_memory()[0] - before < 1024
    finally:
        tracemalloc.stop()
    # The smallest buffer of a batch here, (8, 3) numbers, has 192 bytes; a run itself takes a few integers.
    assert max(peaks) < 2048
    assert abs(peaks[1] - peaks[0]) < 256


@pytest.mark.parametrize("weighted", [False, True])
def test_each_batchs_update_is_the_gradient_of_its_own_weighted_mean(weighted: bool) -> None:
    """With plain descent at rate 1, each batch moves the weights by its gradient; the last is ragged."""
    rows, batch_size = 21, 8
    weights = np.random.default_rng(4).uniform(0.2, 3, rows) if weighted else None
    training = Training(
        rows,
        batch_size,
        "sgd",
        (Dense(8, "tanh"), Dense(OUTPUTS)),
        weights=weights,
        penalty=Penalty(0.01, 0.1),
    )
    training.begin(rate=1.0)
    for batch, count in ((0, 8), (1, 8), (2, 5)):
        taken = training.order[batch * batch_size :][:count]
        before = training.net.parameters()
        gradients = training.net.gradients(
            training.X[taken],
            training.y[taken],
            "cross_entropy",
            sample_weight=None if weights is None else weights[taken],
            l1=0.01,
            l2=0.1,
        )
        training.step.run(batch, 1)
        for name, after in training.net.parameters().items():
            np.testing.assert_allclose(before[name] - after, gradients[name], rtol=1e-9, atol=1e-12)


def test_the_ragged_batchs_gradient_is_that_of_the_textbook() -> None:
    training = Training(11, 8, "sgd", (Dense(OUTPUTS, bias=False),))
    training.begin(rate=1.0)
    taken = training.order[8:]
    X, W = training.X[taken], training.net.parameters()["layers.0.weight"]
    e = np.exp(X @ W)
    expected = X.T @ (e / e.sum(axis=1, keepdims=True) - np.eye(OUTPUTS)[training.y[taken]]) / 3
    training.step.run(1, 1)
    np.testing.assert_allclose(
        W - training.net.parameters()["layers.0.weight"], expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pieces", [[1] * 7, [3, 1, 3], [6, 1], [2, 5]])
def test_an_epoch_in_pieces_is_the_epoch_bit_for_bit(pieces: list[int], dtype: type) -> None:
    whole, parts = (Training(rows=100, batch_size=16, clip_norm=0.5, dtype=dtype) for _ in range(2))
    assert whole.step.steps_per_epoch == 7
    for epoch in range(2):
        whole.begin(epoch)
        whole.step.run(0, 7)
        parts.begin(epoch)
        first = 0
        for count in pieces:
            parts.step.run(first, count)
            first += count
    np.testing.assert_array_equal(whole.flat(), parts.flat())
    assert whole.step.read() == parts.step.read()
    for name, state in whole.step.state.items():
        np.testing.assert_array_equal(state, parts.step.state[name])


def test_dropout_drops_while_training_and_not_in_prediction() -> None:
    training = Training(optimizer="sgd")
    plain = Network([layer for layer in LAYERS if not isinstance(layer, Dropout)])
    plain.initialize(INPUTS, dtype=np.float64)
    plain.set_parameters(training.net.parameters())
    np.testing.assert_array_equal(training.net.outputs(training.X), plain.outputs(training.X))
    training.begin(rate=1e-300)
    training.step.run(0, training.step.steps_per_epoch)
    logits = plain.outputs(training.X)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    exact = -np.mean(np.log(probabilities[np.arange(50), training.y]))
    dropped = training.step.read().loss
    assert abs(dropped - exact) > 1e-3
    assert dropped == pytest.approx(exact, rel=0.5)


def test_dropouts_draws_are_a_function_of_seed_epoch_and_batch() -> None:
    def losses(epoch: int, batch: int, seed: int = 1) -> float:
        training = Training(rows=32, batch_size=16, seed=seed)
        training.order = np.tile(np.arange(16), 2)  # both batches hold the same rows
        training.begin(epoch)
        training.step.run(batch, 1)
        return training.step.read().loss

    first = losses(0, 0)
    assert first == losses(0, 0)
    assert len({first, losses(0, 1), losses(1, 0), losses(0, 0, seed=2), losses(0, 0, seed=1 + 2**32)}) == 5


DROPPING = (Dense(8, "gelu"), Dropout(0.4), Dense(7, "tanh"), Dropout(0.4), Dropout(0.4), Dense(OUTPUTS))


def same_rate(share: float) -> tuple[Layer, ...]:
    return tuple(Dropout(0.4 * share) if isinstance(one, Dropout) else one for one in DROPPING)


def assert_each_step_is(varied: Training, alone: Callable[[float], Training], factors: list[float]) -> None:
    """Run batch after batch of a training, and each again in one whose settings are those of the batch."""
    for batch, factor in enumerate(factors):
        other = alone(factor)
        other.net.set_parameters(varied.net.parameters())
        for name, state in varied.step.state.items():
            other.step.state[name][...] = state
        other.begin()
        other.step.counters[STEP] = batch
        for training in (varied, other):
            training.step.run(batch, 1)
        np.testing.assert_allclose(varied.flat(), other.flat(), rtol=1e-12, atol=1e-13)


def test_each_step_drops_at_its_own_rate() -> None:
    factors = [1.0, 0.5, 0.25]
    varied = Training(48, layers=DROPPING, scheduled=("dropout",))
    varied.begin(dropout=np.array(factors))
    assert_each_step_is(varied, lambda factor: Training(48, layers=same_rate(factor)), factors)


def test_each_step_decays_by_its_own_factor() -> None:
    factors = [1.0, 0.25, 0.0]
    varied = Training(48, optimizer=AdamW(weight_decay=0.5), scheduled=("weight_decay",))
    varied.begin(weight_decay=np.array(factors))
    assert_each_step_is(
        varied, lambda factor: Training(48, optimizer=AdamW(weight_decay=0.5 * factor)), factors
    )


def test_what_is_scheduled_without_factors_is_as_it_is_set() -> None:
    """As the learning-rate test runs a training's step."""
    varied = Training(scheduled=("dropout", "weight_decay"), optimizer=AdamW(weight_decay=0.5))
    plain = Training(optimizer=AdamW(weight_decay=0.5))
    for training in (varied, plain):
        training.begin()
        training.step.run(0, training.step.steps_per_epoch)
    np.testing.assert_allclose(varied.flat(), plain.flat(), rtol=1e-12, atol=1e-13)


def test_a_batch_without_weight_is_counted_as_a_batch_and_not_as_a_step() -> None:
    weights = np.ones(32)
    weights[8:16] = 0
    training = Training(32, 8, weights=weights)
    training.order = np.arange(32)
    training.begin()
    training.step.run(0, 1)
    before = training.flat()
    training.step.run(1, 1)
    np.testing.assert_array_equal(training.flat(), before)
    assert training.step.counters[[BATCH, STEP]].tolist() == [2, 1]
    training.step.run(2, 2)
    assert training.step.updates() == 3
    assert training.step.counters[BATCH] == 4
    assert training.step.read().weight == 24
    # An epoch begins its batches anew, and goes on with its steps.
    training.begin(1)
    training.step.run(0, 1)
    assert training.step.counters[[BATCH, STEP]].tolist() == [1, 4]


def test_each_batch_has_its_own_learning_rate() -> None:
    training = Training(32, 16, "sgd", (Dense(OUTPUTS),))
    training.step.begin_epoch(0, training.order, np.array([0.0, 0.5]))
    before = training.flat()
    training.step.run(1, 1)  # the first step is the second batch, and has its rate
    moved = training.flat()
    assert np.all(moved != before)
    training.step.run(0, 1)
    np.testing.assert_array_equal(training.flat(), moved)


def test_figures_are_sums_over_the_epoch_with_penalties() -> None:
    training = Training(20, 8, "sgd", (Dense(OUTPUTS),), penalty=Penalty(0.1, 0.2))
    training.begin(rate=1e-300)
    training.step.run(0, 2)
    early = training.step.read()
    training.step.run(2, 1)
    figures = training.step.read()
    assert (early.weight, figures.weight, figures.since(early).weight) == (16, 20, 4)
    W = training.net.parameters()["layers.0.weight"]
    penalty = 0.1 * abs(W).sum() + 0.1 * (W**2).sum()
    assert figures.penalty_sum == pytest.approx(20 * penalty, rel=1e-12)
    assert figures.loss == pytest.approx(figures.loss_sum / 20 + penalty, rel=1e-12)
    assert np.isnan(StepSums().loss)
    training.begin(1)
    assert training.step.read() == StepSums()


def test_clipping_bounds_the_move_and_the_norm_is_that_of_the_gradient() -> None:
    training = Training(20, 20, "sgd", (Dense(OUTPUTS),), clip_norm=1e-3)
    gradients = training.net.gradients(training.X, training.y, "cross_entropy")
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values()))
    before = training.flat()
    training.begin(rate=1.0)
    training.step.run(0, 1)
    assert training.step.gradient_norm() == pytest.approx(norm, rel=1e-9)
    assert np.linalg.norm(training.flat() - before) == pytest.approx(1e-3, rel=1e-6)


def test_rows_beyond_the_count_reach_no_gradient_whatever_lies_in_them() -> None:
    """One program of a fixed shape serves a smaller batch: what a captured graph will do."""
    random, count, capacity = np.random.default_rng(5), 5, 8
    X, y = random.normal(size=(count, 3)), random.integers(0, 2, count).astype(np.int32)
    net = Network([Dense(4, "gelu"), Dense(2)])
    net.initialize(3, dtype=np.float64)
    rows = Rows(net.arena.backend, np.float64, Features(X), y)
    objective = Objective(net.places, net.arena, loss_from("cross_entropy"), Penalty(), capacity, seed=0)
    batch = rows.batch(capacity)
    batch.inputs[:] = np.nan
    batch.labels[:] = 0
    program = [rows.gather(batch, objective.counters, capacity), *objective.operations(batch)]
    net.arena.backend.compile(program).run()
    assert batch.count[0] == count
    gradients = net.arena.to_host(objective.passes.gradients)
    for name, expected in net.gradients(X, y, "cross_entropy").items():
        np.testing.assert_allclose(gradients[name] * capacity / count, expected, rtol=1e-12, atol=1e-15)


def test_gradient_norm_of_a_ragged_batch_is_that_of_its_own_mean() -> None:
    random, count = np.random.default_rng(6), 7
    X, y = random.normal(size=(count, 3)), random.integers(0, 2, count).astype(np.int32)
    net = Network([Dense(2)])
    net.initialize(3, dtype=np.float64)
    expected = net.gradients(X[4:], y[4:], "cross_entropy")
    rows = Rows(net.arena.backend, np.float64, Features(X), y, shuffled=True)
    step = Step(net.places, net.arena, loss_from("cross_entropy"), Penalty(), 4, 0, SGD(1e-3), rows, 1.0)
    step.begin_epoch(0, np.arange(count), np.full(2, 1e-3))
    step.run(1, 1)
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in expected.values()))
    assert step.gradient_norm() == pytest.approx(norm, rel=1e-12)
