"""Trainings in mixed precision, on the CPU with 16 bits stood in for: arithmetic, loss scale, resume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special
from simulated import rounding
from sklearn import datasets

from nnkit import Activation, Adam, BatchEnsemble, Callback, Dense, Dropout, Ensemble, Network, Trainer
from nnkit.diagnostics.diagnosis import Diagnosis
from nnkit.diagnostics.network import Probe
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.errors import ConfigError, DivergenceError, ModelFileError
from nnkit.feed.batch import Rows
from nnkit.feed.features import Bags, Features
from nnkit.kernels.layout import LOSS_SCALE, SKIPPED_STEPS, STEP
from nnkit.nn.layers import Embedding
from nnkit.nn.losses import loss_from
from nnkit.nn.optimizers import SGD, optimizer_from
from nnkit.training.checkpoint import Checkpoint, Checkpoints
from nnkit.training.precision import half_of

FORMATS = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.fixture(autouse=True, scope="module")
def device() -> Iterator[str]:
    """The CPU with arrays in 16 bits."""
    with rounding.installed() as name:
        yield name


def problem(rows: int = 200, inputs: int = 11, seed: int = 0) -> tuple[NDArray, NDArray]:
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, inputs)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(np.int32) + (X[:, 2] > 1)
    return X, y.astype(np.int32)


def network() -> Network:
    """Widths of which none is a multiple of 8."""
    return Network([Dense(21, "relu"), Dropout(0.2), Dense(13, "gelu"), Dense(3)])


def trainer(net: Network, precision: str = "fp16", **settings) -> Trainer:
    given = {"optimizer": Adam(5e-3), "seed": 4, "loss": "cross_entropy", **settings}
    return Trainer(net, device=rounding.NAME, precision=precision, **given)


# ---------------------------------------------------------------------------------------------------------
# Against a loop of NumPy's.
# ---------------------------------------------------------------------------------------------------------


class PlainTraining:
    """Input, ReLU and linear layers with squared error and SGD, in mixed precision, written out."""

    def __init__(self, parameters: dict[str, NDArray], half: type, scales: bool) -> None:
        self.masters = {name: value.astype(np.float32) for name, value in parameters.items()}
        self.half = half
        self.scale = 65536.0 if scales else 1.0
        self.scales = scales
        self.clean = self.skipped = self.updates = 0

    def rounded(self, array: NDArray) -> NDArray:
        with np.errstate(over="ignore"):
            return np.asarray(array, np.float32).astype(self.half).astype(np.float32)

    def step(self, X: NDArray, y: NDArray, rate: float) -> None:
        W0, W1 = (self.rounded(self.masters[f"layers.{k}.weight"]) for k in range(2))
        b0, b1 = (self.masters[f"layers.{k}.bias"] for k in range(2))
        with np.errstate(all="ignore"):
            x = self.rounded(X)
            z = self.rounded(x @ W0)
            a = self.rounded(np.maximum(z + b0, 0))
            exact = (a @ W1 + b1 - y) * np.float32(self.scale / X.shape[0] / y.shape[1])
            delta = self.rounded(exact)
            below = self.rounded(delta @ W1.T) * (a > 0)
            gradient = {
                "layers.1.weight": a.T @ delta,
                "layers.1.bias": exact.sum(axis=0),
                "layers.0.weight": x.T @ self.rounded(below),
                "layers.0.bias": below.sum(axis=0),
            }
        if self.scales and not all(np.isfinite(g).all() for g in gradient.values()):
            self.scale, self.clean, self.skipped = max(self.scale / 2, 1.0), 0, self.skipped + 1
            return
        self.clean, self.updates = self.clean + 1, self.updates + 1
        for name, g in gradient.items():
            self.masters[name] -= np.float32(rate / self.scale) * g
        if self.scales and self.clean == 2000:
            self.scale, self.clean = self.scale * 2, 0


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("size", [1.0, 300.0], ids=["small targets", "targets whose gradients overflow"])
def test_it_is_the_training_that_numpy_does_step_by_step(precision: str, size: float) -> None:
    random = np.random.default_rng(3)
    X = random.normal(size=(40, 5)).astype(np.float32)
    y = (size * (X @ random.normal(size=(5, 2)))).astype(np.float32)
    net = Network([Dense(10, "relu"), Dense(2)], inputs=5, seed=1)
    half = half_of(precision)
    assert half is not None
    net.place(rounding.create(""), np.float32)
    rows = Rows(net.arena.backend, np.float32, Features(X), y, shuffled=True)
    step = Step(net.places, net.arena, loss_from("mse"), Penalty(), 10, 0, SGD(), rows, half=half)
    plain = PlainTraining(net.parameters(), FORMATS[precision], half.scales)
    rate = 0.01
    for epoch in range(3):
        step.begin_epoch(epoch, np.arange(40), np.full(4, rate))
        step.run(0, 4)
        for batch in range(4):
            plain.step(X[10 * batch : 10 * batch + 10], y[10 * batch : 10 * batch + 10], rate)
    figures = step.read()
    assert step.updates() == plain.updates
    if half.scales:
        assert (figures.loss_scale, figures.skipped_steps) == (plain.scale, plain.skipped)
        assert (plain.skipped > 0) == (size > 1)
    for name, value in net.parameters().items():
        np.testing.assert_allclose(value, plain.masters[name], rtol=2e-3, atol=1e-4 * size)


# ---------------------------------------------------------------------------------------------------------
# What is learnt.
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "epochs"), [("digits", 12), ("iris", 100)])
def test_it_learns_as_well_as_fp32(name: str, epochs: int) -> None:
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    X = ((X - X.mean(axis=0)) / (X.std(axis=0) + 1e-6)).astype(np.float32)
    y = y.astype(np.int32)
    right = dict.fromkeys(("fp32", *FORMATS), 0)
    seeds = range(3)
    for precision in right:
        for seed in seeds:
            net = Network([Dense(36, "relu"), Dense(int(y.max()) + 1)])
            held = np.random.default_rng(seed).random(len(y)) < 0.3
            training = trainer(net, precision, seed=seed, optimizer=Adam(2e-3))
            training.fit(X[~held], y[~held], epochs=epochs, batch_size=32)
            # Over all rows: the difference of a single one counts little.
            right[precision] += int(np.sum(net.outputs(X).argmax(axis=1) == y))
    for precision in FORMATS:
        assert abs(right[precision] - right["fp32"]) <= 0.002 * len(y) * len(seeds)
    assert right["fp32"] > 0.95 * len(y) * len(seeds)


def test_losses_stay_close_to_fp32_and_dropout_drops_the_same() -> None:
    X, y = problem()
    losses = {}
    for precision in ("fp32", *FORMATS):
        history = trainer(network(), precision).fit(X, y, epochs=3, batch_size=32, validation=(X, y))
        losses[precision] = np.array([history["loss"], history["validation_loss"]])
    np.testing.assert_allclose(losses["fp16"], losses["fp32"], rtol=2e-3)
    np.testing.assert_allclose(losses["bf16"], losses["fp32"], rtol=2e-2)
    assert np.any(losses["bf16"] != losses["fp32"])


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("kind", ["seeds", "tabm"])
def test_the_members_of_an_ensemble_are_trained_like_those_of_fp32(kind: str, precision: str) -> None:
    """Widths of seeds and numbers of outputs are none of 8; TabM's are, but not its inputs."""
    X, y = problem(400)

    def net() -> Network:
        if kind == "seeds":
            layers = [Dense(21, "relu"), Dropout(0.2), Dense(13, "gelu"), Dense(3)]
            return Network([Ensemble(layers, members=3, link="softmax")])
        shared = [BatchEnsemble(24, "relu", members=3), Dropout(0.2), BatchEnsemble(16, "gelu", members=3)]
        return Network([*shared, Ensemble(Dense(3), members=3, link="softmax")])

    plain, mixed = (trainer(net(), one) for one in ("fp32", precision))
    for one in (plain, mixed):
        one.fit(X, y, epochs=20, batch_size=48, validation=(X[:100], y[:100]))
    for column in ("loss", "validation_loss"):
        np.testing.assert_allclose(mixed.history[column], plain.history[column], rtol=0.05, atol=0.02)
    assert mixed.history["loss"][-1] < 0.6 * mixed.history["loss"][0]


def test_tabm_with_odd_widths_needs_32_bits() -> None:
    X, y = problem(40)
    net = Network([BatchEnsemble(21, members=2), Ensemble(Dense(3), members=2, link="softmax")])
    with pytest.raises(ConfigError, match="units = 21 must be a multiple of 8 in 16 bits"):
        trainer(net).fit(X, y, epochs=1)


def test_draws_are_of_the_logical_element() -> None:
    X, y = problem(32)
    masks = []
    for precision in ("fp32", "fp16"):
        step, order = trainer(network(), precision).prepared_step(X, y, 32)
        step.begin_epoch(3, order(3), np.full(1, 1e-3))
        step.run(0, 1)
        _, mask = step.passes.layer_outputs(step.places[0], 32)
        assert mask is not None
        masks.append(mask[:, :21].copy())
    assert 0.7 < masks[0].mean() < 0.9
    assert np.array_equal(*masks)


def test_fp32_on_this_device_is_the_cpu_bit_for_bit() -> None:
    X, y = problem()
    weights = []
    for device in (rounding.NAME, "cpu"):
        net = network()
        Trainer(net, loss="cross_entropy", device=device, seed=4).fit(X, y, epochs=3, batch_size=32)
        weights.append(net.parameters())
    for name, value in weights[0].items():
        assert np.array_equal(value, weights[1][name])


# ---------------------------------------------------------------------------------------------------------
# Overflow.
# ---------------------------------------------------------------------------------------------------------


def test_a_training_whose_activations_overflow_goes_on_and_says_what_it_skipped() -> None:
    X, y = problem(320)
    X[7] *= 1e5  # beyond float16's 65504 after the first layer, whatever the loss scale
    net = Network([Dense(21, "relu"), Dense(13, "relu"), Dense(3)])
    history = trainer(net).fit(X, y, epochs=8, batch_size=32)
    # One batch of each epoch.
    assert list(history["skipped_steps"]) == list(range(1, 9))
    assert list(history["loss_scale"]) == [2.0 ** (16 - k) for k in range(1, 9)]
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert all(np.isfinite(value).all() for value in net.parameters().values())


def test_logits_beyond_float16_are_no_overflow() -> None:
    X, y = problem()
    net = Network([Dense(8, "relu"), Dense(3)], inputs=X.shape[1])
    net.set_parameters({"layers.1.weight": 6e4 * net.parameters()["layers.1.weight"]})
    assert abs(net.outputs(X)).max() > 70_000
    history = trainer(net, optimizer=SGD(1e-6)).fit(X, y, epochs=1, batch_size=200)
    assert math.isfinite(history["loss"][0])
    assert history["loss"][0] > 1000


def test_an_overflow_at_the_first_step_halves_the_scale_and_leaves_the_weights() -> None:
    X, _ = problem(32)
    net = Network([Dense(8, "relu"), Dense(1)], inputs=X.shape[1])
    before = net.parameters()
    targets = 1e3 * X[:, :1]  # whose gradient overflows at 65536 / 32, and not far below
    training = trainer(net, loss="mse", optimizer=SGD(1e-6))
    history = training.fit(X, targets, epochs=1, batch_size=32)
    assert (history["skipped_steps"][0], history["loss_scale"][0]) == (1, 32768)
    for name, value in net.parameters().items():
        assert np.array_equal(value, before[name])
    training.fit(X, targets, epochs=30, batch_size=32)
    assert training.history["skipped_steps"][-1] == training.history["skipped_steps"][-10] > 1
    assert any(not np.array_equal(value, before[name]) for name, value in net.parameters().items())


def test_the_optimizers_step_is_behind_the_batches_by_what_was_skipped() -> None:
    X, y = problem(64)
    X[3] *= 1e5
    training = trainer(Network([Dense(8, "relu"), Dense(5, "relu"), Dense(3)]))
    training.fit(X, y, epochs=2, batch_size=8)
    assert training.optimizer_state is not None
    assert training.optimizer_state.steps == 16 - 2


def test_a_scale_of_1_that_does_not_help_ends_the_training() -> None:
    X, y = problem(64)
    net = Network([Dense(8, "relu"), Dense(5, "relu"), Dense(3)])
    with pytest.raises(DivergenceError, match=r"every batch overflowed fp16 [(]bf16"):
        trainer(net).fit(1e6 * X, y, epochs=20, batch_size=8)
    assert all(np.isfinite(value).all() for value in net.parameters().values())


def test_what_overflows_in_the_validation_is_evaluated_in_float32() -> None:
    X, y = problem(96)
    held = X[:24].copy()
    held[5] *= 1e5
    net = Network([Dense(21, "relu"), Dense(13, "relu"), Dense(3)])
    history = trainer(net).fit(X[24:], y[24:], epochs=2, batch_size=32, validation=(held, y[:24]))
    assert history["skipped_steps"][-1] == 0
    logits = net.outputs(held).astype(np.float64)
    log_sums = special.logsumexp(logits, axis=1)
    assert history["validation_loss"][-1] == pytest.approx(
        np.mean(log_sums - logits[np.arange(24), y[:24]]), rel=1e-5
    )


def test_epochs_without_an_update_are_no_reason_to_stop_early() -> None:
    X, _ = problem(32)
    targets = 1e3 * X[:, :1]  # whose gradient overflows until the scale has been halved several times
    training = trainer(
        Network([Dense(8, "relu"), Dense(1)]), loss="mse", optimizer=SGD(1e-5), early_stopping=1
    )
    history = training.fit(X, targets, epochs=30, batch_size=32)
    skipped = history["skipped_steps"][-1]
    assert skipped > 2
    assert len(history) > skipped + 2


def test_clipping_and_penalties_are_those_of_the_gradient_without_the_scale() -> None:
    X, y = problem()
    weights = {}
    for precision in ("fp32", "fp16"):
        net = Network([Dense(16, "tanh"), Dense(3)])
        training = trainer(net, precision, clip_norm=0.05, l2=0.3, l1=0.01, optimizer=SGD(0.5))
        history = training.fit(X, y, epochs=3, batch_size=32)
        weights[precision] = np.concatenate([value.ravel() for value in net.parameters().values()])
    assert history["skipped_steps"][-1] == 0
    np.testing.assert_allclose(weights["fp16"], weights["fp32"], atol=2e-3)
    assert np.abs(weights["fp32"]).max() > 0.1


# ---------------------------------------------------------------------------------------------------------
# What is kept, and what is not seen.
# ---------------------------------------------------------------------------------------------------------


class Stop(Callback):
    """Stops after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer, figures) -> None:
        if figures.step >= self.step:
            trainer.stop()


def overflowing() -> tuple[NDArray, NDArray]:
    X, y = problem(200)
    X[11] *= 1e5
    return X, y


@pytest.mark.parametrize("step", [3, 9, 14])
def test_resume_in_mid_epoch_is_bit_exact(step: int, tmp_path: Path) -> None:
    X, y = overflowing()
    whole = network()
    history = trainer(whole).fit(X, y, epochs=3, batch_size=32, validation=(X[50:99], y[50:99]))
    stopped = trainer(network())
    stopped.fit(
        X, y, epochs=3, batch_size=32, validation=(X[50:99], y[50:99]), callbacks=[Stop(step)],
        checkpoints=Checkpoints(tmp_path, "1 steps"),
    )  # fmt: skip
    resumed = network()
    again = trainer(resumed).resume(tmp_path, X, y, validation=(X[50:99], y[50:99]))
    for name, value in resumed.parameters().items():
        assert np.array_equal(value, whole.parameters()[name])
    for column in ("loss", "loss_scale", "skipped_steps", "validation_loss"):
        assert np.array_equal(again[column], history[column])
    assert history["skipped_steps"][-1] == 3


@pytest.mark.parametrize(
    "state", [[math.nan, 0, 0], [0.5, 0, 0], [math.inf, 0, 0], [8, -1, 0], [8, 0, math.nan]]
)
def test_a_checkpoint_whose_loss_scale_is_none_is_refused(state: list[float], tmp_path: Path) -> None:
    X, y = problem(64)
    trainer(network()).fit(X, y, epochs=1, batch_size=32, checkpoints=tmp_path)
    checkpoint = Checkpoint.load(next(tmp_path.glob("step-*")))
    altered = {**checkpoint.arrays, "state.loss_scaling": np.array(state, np.float64)}
    with pytest.raises(ModelFileError, match=r"loss scale .* is not valid"):
        trainer(network()).resume(replace(checkpoint, arrays=altered), X, y, epochs=2)


def test_parameters_gradients_and_checkpoints_have_their_logical_shapes(tmp_path: Path) -> None:
    X, y = problem()
    shapes = {}
    for precision in ("fp32", "fp16"):
        net = network()
        folder = tmp_path / precision
        trainer(net, precision).fit(X, y, epochs=1, batch_size=32, checkpoints=folder)
        arrays = Checkpoint.load(next(folder.glob("step-*"))).arrays
        shapes[precision] = {
            "parameters": {name: (value.shape, value.dtype) for name, value in net.parameters().items()},
            "gradients": {
                name: (value.shape, value.dtype)
                for name, value in net.gradients(X, y, "cross_entropy").items()
            },
            "checkpoint": {name: (value.shape, value.dtype) for name, value in arrays.items()},
        }
    scaling = shapes["fp16"]["checkpoint"].pop("state.loss_scaling")
    assert scaling == ((3,), np.float64)
    assert shapes["fp16"] == shapes["fp32"]


def test_padding_stays_zero_after_steps_and_overflows() -> None:
    X, y = overflowing()
    net = network()
    training = trainer(net)
    training.fit(X, y, epochs=2, batch_size=32)
    step, order = training.prepared_step(X, y, 32)
    step.begin_epoch(0, order(0), np.full(step.steps_per_epoch, 1e-3))
    step.run(0, step.steps_per_epoch)
    half = training.half
    assert half is not None
    copies = net.arena.in_half(half)
    for place in net.places:
        (inputs,), (outputs,) = place.inputs, place.outputs
        weight = copies.view(place.parameter_name("weight"))
        assert weight.shape == (-(-inputs // 8) * 8, -(-outputs // 8) * 8)
        assert not weight[inputs:].any()
        assert not weight[:, outputs:].any()
        inside = net.parameters()[place.parameter_name("weight")].astype(np.float16)
        assert np.array_equal(weight[:inputs, :outputs], inside.astype(np.float32))
        bias = copies.view(place.parameter_name("bias"))
        assert not bias[outputs:].any()
    # Of a batch that did not overflow, and they are all written anew by each.
    for place in net.places:
        kept = step.passes._workspace.kept(place.index, "z", 32)
        assert not np.nan_to_num(kept[:, place.outputs[0] :]).any()
    last = step.passes._workspace.kept(net.places[-1].index, "loss gradient", 32)
    assert last is not None
    assert not last[:, net.output_width :].any()


def test_the_model_is_float32_and_the_same_wherever_it_is_used(tmp_path: Path) -> None:
    X, y = problem()
    net = network()
    trainer(net).fit(X, y, epochs=2, batch_size=32)
    plain = network()
    plain.initialize(X.shape[1])
    plain.set_parameters(net.parameters())
    assert net.outputs(X).dtype == np.float32
    assert np.array_equal(net.outputs(X), plain.outputs(X))


def test_a_continued_training_goes_on_with_the_loss_scale() -> None:
    X, y = overflowing()
    training = trainer(network())
    training.fit(X, y, epochs=2, batch_size=32)
    training.fit(X, y, epochs=1, batch_size=32, continued=True)
    assert training.history["loss_scale"][0] == 65536 / 8
    assert training.history["skipped_steps"][0] == 1
    training.fit(X, y, epochs=1, batch_size=32)
    assert training.history["loss_scale"][0] == 65536 / 2


def test_weights_that_a_callback_sets_are_those_of_the_next_step() -> None:
    class Zero(Callback):
        def on_step_end(self, trainer, figures) -> None:
            trainer.network.set_parameters(
                {name: 0 * value for name, value in trainer.network.parameters().items()}
            )

    X, y = problem(64)
    history = trainer(network(), optimizer=SGD(1e-12)).fit(X, y, epochs=2, batch_size=64, callbacks=[Zero()])
    assert history["loss"][-1] == pytest.approx(math.log(3), rel=1e-5)


def test_bf16_scales_nothing_and_says_nothing_of_a_scale() -> None:
    X, y = problem()
    history = trainer(network(), "bf16").fit(X, y, epochs=1)
    assert "loss_scale" not in history
    assert "skipped_steps" not in history


def test_layers_without_weights_keep_their_16_bits() -> None:
    X, y = problem()
    losses = []
    for precision in ("fp32", "fp16"):
        net = Network([Dropout(0.1), Dense(9), Activation("tanh"), Dense(3), Activation("softplus")])
        losses.append(trainer(net, precision).fit(X, y, epochs=3, batch_size=32)["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=3e-3)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_embeddings_train_in_float32_and_a_skipped_step_leaves_them(optimizer: str) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 5, 96)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    dense = random.normal(size=(96, 3)).astype(np.float32)
    dense[5] *= 1e7
    features = Features(dense, bags=(Bags(random.integers(0, 20, starts[-1]), starts, 20),))
    y = random.integers(0, 3, 96).astype(np.int32)
    net = Network([Embedding(20, 6), Dense(9, "relu"), Dense(5, "relu"), Dense(3)])
    training = trainer(net, optimizer=optimizer_from(optimizer))
    history = training.fit(features, y, epochs=2, batch_size=16)
    assert history["skipped_steps"][-1] == 2
    assert all(np.isfinite(value).all() for value in net.parameters().values())
    before = net.parameters()
    step, _ = training.prepared_step(features, y, 16)
    step.begin_epoch(0, np.arange(96), np.full(6, 0.1))
    seen = {name: np.array(value) for name, value in step.state.items()}
    step.run(0, 1)
    assert step.state["loss_scaling"][SKIPPED_STEPS] == 1
    assert step.state["loss_scaling"][LOSS_SCALE] == 32768
    assert step.counters[STEP] == 0
    for name, value in net.parameters().items():
        assert np.array_equal(value, before[name])
    for name in set(seen) - {"loss_scaling"}:
        assert np.array_equal(step.state[name], seen[name])
    step.run(1, 1)
    assert not np.array_equal(net.parameters()["layers.0.weight"], before["layers.0.weight"])


# ---------------------------------------------------------------------------------------------------------
# What a diagnosis sees of it.
# ---------------------------------------------------------------------------------------------------------


def test_a_diagnosis_sees_the_gradients_of_the_loss_and_not_of_its_scale() -> None:
    X, y = problem()
    norms = {}
    for precision in ("fp32", "fp16"):
        diagnosis = Diagnosis(Features(X), y)
        net = Network([Dense(21, "relu"), Dense(3)])
        trainer(net, precision).fit(X, y, epochs=3, batch_size=20, callbacks=[diagnosis])
        norms[precision] = [[layer.gradient_norm for layer in look.layers] for look in diagnosis.figures]
        assert diagnosis.findings == []
    assert np.size(norms["fp32"]) > 0
    np.testing.assert_allclose(norms["fp16"], norms["fp32"], rtol=0.02)


def test_a_diagnosis_leaves_out_the_steps_that_overflowed() -> None:
    X, y = problem()
    net = Network([Dense(21, "relu"), Dense(3)], inputs=X.shape[1], seed=1)
    half = half_of("fp16")
    net.place(rounding.create(""), np.float32)
    rows = Rows(net.arena.backend, np.float32, Features(X), y, shuffled=True)
    loss = loss_from("cross_entropy")
    step = Step(net.places, net.arena, loss, Penalty(), 20, 0, SGD(), rows, half=half)
    probe = Probe(step, 100)
    step.begin_epoch(0, np.arange(len(X)), np.full(10, 1e-3))
    net.arena.backend.write(step.scaling[LOSS_SCALE : LOSS_SCALE + 1], 2.0**60)
    step.run(0, 1)
    assert step.read().skipped_steps == 1
    probe.look()
    probe.measure_update(1)
    net.arena.backend.write(step.scaling[LOSS_SCALE : LOSS_SCALE + 1], 1024.0)
    step.run(1, 1)
    probe.look()
    step.run(2, 1)
    probe.measure_update(1)
    for layer in probe.figures(0).layers:
        assert 0 < layer.gradient_norm < 10
        assert layer.update_ratio is not None
        assert layer.update_ratio > 0
