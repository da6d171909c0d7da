"""Groups of parameters: a rate of their own, no decay, frozen; against loops of plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import rounding

from nnkit import Adam, AdamW, Callback, Dense, Embedding, LayerNorm, Network, Trainer
from nnkit.diagnostics.diagnosis import Diagnosis
from nnkit.engine.places import Parameter, Shape
from nnkit.engine.segments import grouped, segments_for
from nnkit.errors import ConfigError
from nnkit.feed.features import Bags, Features
from nnkit.feed.order import epoch_order
from nnkit.nn.layers import place_layers
from nnkit.nn.optimizers import SGD, Momentum, Optimizer, optimizer_from, optimizer_names

ROWS, INPUTS, HIDDEN, CLASSES, BATCH, SEED = 40, 5, 6, 3, 16, 3
SIZE, WIDTH = 12, 4
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(ROWS, INPUTS)), RANDOM.integers(0, CLASSES, ROWS)
FROZEN = {"layers.0.weight": {"trains": False}}


def network(*layers: Any, dtype: type = np.float64) -> Network:
    net = Network(layers or (Dense(HIDDEN, "tanh"), Dense(CLASSES)))
    net.initialize(INPUTS, 1, dtype)
    return net


def train(net: Network, X: Any = X, epochs: int = 2, **settings: Any) -> Trainer:
    given = {"device": "cpu", "precision": "fp64", "seed": SEED, **settings}
    trainer = Trainer(net, "cross_entropy", **given)
    trainer.fit(X, Y, epochs=epochs, batch_size=BATCH, progress=False)
    return trainer


def batches(epochs: int = 2) -> list[NDArray[np.int64]]:
    orders = [epoch_order(ROWS, SEED, epoch) for epoch in range(epochs)]
    return [order[first : first + BATCH] for order in orders for first in range(0, ROWS, BATCH)]


def softmax_error(logits: NDArray, y: NDArray) -> NDArray:
    """Return the gradient of the mean cross-entropy by the logits."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True) - np.eye(CLASSES)[y]) / len(y)


def gradients(p: dict[str, NDArray], x: NDArray, y: NDArray) -> dict[str, NDArray]:
    """Return those of the mean cross-entropy of a network with one hidden layer of tanh."""
    h = np.tanh(x @ p["layers.0.weight"] + p["layers.0.bias"])
    d = softmax_error(h @ p["layers.1.weight"] + p["layers.1.bias"], y)
    below = d @ p["layers.1.weight"].T * (1 - h**2)
    return {
        "layers.0.weight": x.T @ below,
        "layers.0.bias": below.sum(axis=0),
        "layers.1.weight": h.T @ d,
        "layers.1.bias": d.sum(axis=0),
    }


def in_numpy(
    start: dict[str, NDArray], optimizer: Optimizer, rates: dict[str, float], decays: dict[str, bool]
) -> dict[str, NDArray]:
    """Train with plain descent or AdamW, each parameter with a factor of the rate."""
    p = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in p.items()}
    v = {name: np.zeros_like(value) for name, value in p.items()}
    for t, rows in enumerate(batches(), 1):
        for name, g in gradients(p, X[rows], Y[rows]).items():
            rate = optimizer.learning_rate * rates.get(name, 1.0)
            if decays.get(name, name.endswith("weight")):
                p[name] -= rate * optimizer.weight_decay * p[name]
            step = g
            if isinstance(optimizer, Adam):
                m[name] = optimizer.beta1 * m[name] + (1 - optimizer.beta1) * g
                v[name] = optimizer.beta2 * v[name] + (1 - optimizer.beta2) * g**2
                corrected = m[name] / (1 - optimizer.beta1**t), v[name] / (1 - optimizer.beta2**t)
                step = corrected[0] / (np.sqrt(corrected[1]) + optimizer.epsilon)
            p[name] -= rate * step
    return p


def assert_close(found: dict[str, NDArray], expected: dict[str, NDArray]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-13, err_msg=name)


# ---------------------------------------------------------------------------------------------------------
# Rates and decay.
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(0.5, 0.1), AdamW(0.02, 0.3)], ids=lambda one: one.name)
def test_each_parameter_follows_its_own_rate_and_decay(optimizer: Optimizer) -> None:
    groups = {"layers.0": {"rate": 0.1}, "layers.0.bias": {"rate": 3, "decays": True}}
    groups["layers.1.weight"] = {"decays": False}
    net = network()
    start = net.parameters()
    train(net, optimizer=optimizer, groups=groups)
    rates = {"layers.0.weight": 0.1, "layers.0.bias": 3.0}
    decays = {"layers.0.bias": True, "layers.1.weight": False}
    assert_close(net.parameters(), in_numpy(start, optimizer, rates, decays))


def test_groups_that_say_the_default_change_no_bit() -> None:
    plain, told = network(), network()
    train(plain, optimizer="adamw", l2=0.1)
    train(told, optimizer="adamw", l2=0.1, groups={"layers": {"rate": 1, "trains": True}})
    for name, value in plain.parameters().items():
        np.testing.assert_array_equal(told.parameters()[name], value)


def test_a_penalty_is_of_what_decays_alone() -> None:
    """The loss of a step at a rate of nearly nothing is that of the weights it began with."""
    net = network()
    before = net.parameters()
    trainer = train(net, epochs=1, optimizer=SGD(1e-300), l1=0.2, l2=0.3, groups=FROZEN)
    w = before["layers.1.weight"]
    logits = net.outputs(X)
    loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(ROWS), Y])
    expected = loss + 0.2 * abs(w).sum() + 0.15 * (w**2).sum()
    assert trainer.history.rows[0]["loss"] == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------------------------------------------------
# Frozen parameters.
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frozen", ["layers.0", "layers.0.weight", "layers.1", "layers.2.weight", "layers.1.bias"]
)
@pytest.mark.parametrize("optimizer", optimizer_names())
def test_what_is_frozen_keeps_its_bits_and_the_rest_trains(optimizer: str, frozen: str) -> None:
    net = network(Dense(HIDDEN, "relu"), LayerNorm(), Dense(CLASSES))
    before = net.parameters()
    chosen = optimizer_from({"name": optimizer, "weight_decay": 0.1})
    groups = {frozen: {"trains": False}}
    train(net, optimizer=chosen, l1=0.01, l2=0.1, clip_norm=0.5, groups=groups)
    for name, after in net.parameters().items():
        kept = f"{name}.".startswith(f"{frozen}.")
        assert np.array_equal(after, before[name]) == kept, name


@pytest.mark.parametrize("frozen", ["layers.0", "layers.0.weight", "layers.1.weight"])
def test_the_gradients_norm_does_not_count_what_is_frozen(frozen: str) -> None:
    net = network()
    start = net.parameters()
    trainer = Trainer(
        net,
        "cross_entropy",
        SGD(1.0),
        device="cpu",
        precision="fp64",
        clip_norm=1e-3,
        groups={frozen: {"trains": False}},
    )
    step, _ = trainer.prepared_step(X, Y, ROWS)
    step.begin_epoch(0, np.arange(ROWS), np.ones(1))
    step.run(0, 1)
    trained = {k: g for k, g in gradients(start, X, Y).items() if not f"{k}.".startswith(f"{frozen}.")}
    norm = np.sqrt(sum((g**2).sum() for g in trained.values()))
    assert step.gradient_norm() == pytest.approx(norm, rel=1e-10)
    moved = {name: start[name] - after for name, after in net.parameters().items() if name in trained}
    for name, difference in moved.items():
        np.testing.assert_allclose(difference, 1e-3 * trained[name] / norm, rtol=1e-9, atol=1e-15)
    parameters = net.parameters().values()
    assert step.weight_norm() == pytest.approx(np.sqrt(sum((w**2).sum() for w in parameters)), rel=1e-12)


def test_frozen_layers_at_the_beginning_have_no_backward_pass() -> None:
    net = network(Dense(HIDDEN, "tanh"), Dense(HIDDEN, "tanh"), Dense(CLASSES))
    products = {}
    for groups in (None, {"layers.0": {"trains": False}, "layers.1": {"trains": False}}):
        trainer = Trainer(net, "cross_entropy", device="cpu", precision="fp64", groups=groups)
        step, _ = trainer.prepared_step(X, Y, BATCH)
        products[groups is None] = [type(one).__name__ for one in step.operations_of(BATCH)].count("Product")
    assert products == {True: 8, False: 4}  # three forward, three of weights, two of inputs


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("frozen", ["layers.0", "layers.1.weight"])
def test_the_copies_in_16_bits_are_those_of_the_parameters(precision: str, frozen: str) -> None:
    with rounding.installed() as device:
        net = network(Dense(9, "relu"), Dense(13, "tanh"), Dense(CLASSES), dtype=np.float32)
        trainer = Trainer(
            net,
            "cross_entropy",
            "adam",
            device=device,
            precision=precision,
            groups={frozen: {"trains": False}},
        )
        step, order = trainer.prepared_step(X.astype(np.float32), Y, BATCH)
        before = net.parameters()
        step.begin_epoch(0, order(0), np.full(step.steps_per_epoch, 0.01))
        step.run(0, step.steps_per_epoch)
        assert trainer.half is not None
        copies = net.arena.in_half(trainer.half)
        for name, after in net.parameters().items():
            copy = copies.view(name)[tuple(slice(length) for length in after.shape)]
            rounded = after.astype(trainer.half.dtype).astype(np.float32)
            np.testing.assert_array_equal(np.asarray(copy, np.float32), rounded)
            assert np.array_equal(after, before[name]) == f"{name}.".startswith(f"{frozen}.")


def test_a_resumed_training_has_the_bits_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    class Stops(Callback):
        every = "1 steps"

        def on_step_end(self, trainer: Trainer, figures: Any) -> None:
            if figures.step == 4:
                trainer.stop()

    groups = {"layers.0": {"rate": 0.1}, "layers.1.bias": {"trains": False}}
    ends = []
    for stops in (False, True):
        net = network()
        trainer = Trainer(net, "cross_entropy", "adamw", device="cpu", precision="fp64", groups=groups)
        how: dict[str, Any] = {"callbacks": [Stops()], "checkpoints": tmp_path} if stops else {}
        trainer.fit(X, Y, epochs=3, batch_size=BATCH, progress=False, **how)
        if stops:
            net = network()
            trainer = Trainer(net, "cross_entropy", "adamw", device="cpu", precision="fp64", groups=groups)
            trainer.resume(tmp_path, X, Y, progress=False)
        ends.append(net.parameters())
    for name, value in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], value)


@pytest.mark.parametrize("frozen", [("layers.0",), ("layers.0", "layers.1.weight")])
def test_a_diagnosis_is_of_the_layers_that_train(frozen: tuple[str, ...]) -> None:
    diagnosis = Diagnosis(Features(X), Y)
    groups = {name: {"trains": False} for name in frozen}
    trainer = Trainer(network(), "cross_entropy", device="cpu", precision="fp64", groups=groups)
    trainer.fit(X, Y, epochs=4, batch_size=BATCH, progress=False, callbacks=[diagnosis])
    looked = [len(look.layers) for look in diagnosis.figures]
    assert set(looked) == {2 - len(frozen)}
    assert not {"vanishing_gradients", "small_updates"} & {finding.name for finding in diagnosis.findings}


class Halves(Dense):
    """A layer whose weights are frozen and whose bias learns at twice the rate, whatever the trainer says."""

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        own = super().parameters(shape)
        return {"weight": replace(own["weight"], trains=False), "bias": replace(own["bias"], rate=2.0)}


def test_a_layer_can_declare_rates_and_frozen_parameters() -> None:
    net, optimizer = network(Halves(HIDDEN, "tanh"), Dense(CLASSES)), SGD(0.5)
    start = net.parameters()
    found = net.gradients(X, Y, "cross_entropy", l2=0.1)
    expected = gradients(start, X, Y)
    expected["layers.1.weight"] += 0.1 * start["layers.1.weight"]
    assert_close(found, {**expected, "layers.0.weight": np.zeros((INPUTS, HIDDEN))})
    train(net, optimizer=optimizer)
    assert_close(
        net.parameters(), in_numpy(start, optimizer, {"layers.0.weight": 0, "layers.0.bias": 2.0}, {})
    )


# ---------------------------------------------------------------------------------------------------------
# Tables.
# ---------------------------------------------------------------------------------------------------------


def documents() -> Features:
    """Return one bag of one to five ids a row, beside numbers."""
    starts = np.concatenate([[0], np.cumsum(np.random.default_rng(5).integers(1, 6, ROWS))])
    ids = np.random.default_rng(6).integers(0, SIZE, starts[-1]).astype(np.int32)
    return Features(X, bags=(Bags(ids, starts, SIZE),))


def counts(held: Features) -> NDArray:
    """Return the matrix whose product with the table is the bags' sums."""
    (bag,) = held.bags
    matrix = np.zeros((ROWS, SIZE))
    np.add.at(matrix, (np.repeat(np.arange(ROWS), np.diff(bag.starts)), bag.ids), 1)
    return matrix


@pytest.mark.parametrize(
    "group", [{"rate": 0.1}, {"rate": 5, "decays": False}, {"decays": False}, {"trains": False}]
)
def test_a_table_follows_its_group(group: dict[str, Any]) -> None:
    """Plain descent with L2 and weight decay, both of the rows that a batch looks up."""
    held, rate, l2, weight_decay = documents(), 0.3, 0.1, 0.2
    net = network(Embedding(SIZE, WIDTH, "sum"), Dense(CLASSES))
    p, C = net.parameters(), counts(held)
    train(net, held, optimizer=SGD(rate, weight_decay), l2=l2, groups={"layers.0": group})
    for rows in batches():
        table, w = p["layers.0.weight"], p["layers.1.weight"]
        inputs = np.hstack([X[rows], C[rows] @ table])
        d = softmax_error(inputs @ w + p["layers.1.bias"], Y[rows])
        seen = C[rows].any(axis=0)[:, None]
        decay, own = group.get("decays", True), rate * group.get("rate", 1) * group.get("trains", True)
        by_table = C[rows].T @ (d @ w[INPUTS:].T) + seen * decay * l2 * table
        p["layers.0.weight"] = table * (1 - own * weight_decay * decay * seen) - own * by_table
        p["layers.1.weight"] = w * (1 - rate * weight_decay) - rate * (inputs.T @ d + l2 * w)
        p["layers.1.bias"] = p["layers.1.bias"] - rate * d.sum(axis=0)
    assert_close(net.parameters(), p)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_a_frozen_table_keeps_its_bits_and_costs_its_lookup_alone(reduce: str, optimizer: str) -> None:
    held = documents()
    net = network(Embedding(SIZE, WIDTH, reduce), Dense(HIDDEN, "tanh"), Dense(CLASSES))
    before = net.parameters()
    groups = {"layers.0": {"trains": False}}
    trainer = train(net, held, optimizer=optimizer, l2=0.1, clip_norm=1.0, groups=groups)
    for name, after in net.parameters().items():
        assert np.array_equal(after, before[name]) == (name == "layers.0.weight")
    step, _ = trainer.prepared_step(held, Y, BATCH)
    kernels = {getattr(one, "name", "") for one in step.operations_of(BATCH)}
    assert "embed" in kernels
    assert "last_seen" not in step.state
    assert not kernels & {
        *("unique_rows", "embed_gradient", "penalise_rows", "squared_norm_rows", "update_rows", "mark_rows")
    }


@pytest.mark.parametrize("frozen", [0, 1])
def test_of_two_tables_one_is_frozen(frozen: int) -> None:
    """The other follows the gradient that it has where both train."""
    first, second = documents(), documents()
    held = Features(X, bags=(first.bags[0], second.bags[0]))
    layers = [
        Embedding(SIZE, WIDTH, "sum"),
        Embedding(SIZE, 3, "mean"),
        Dense(HIDDEN, "tanh"),
        Dense(CLASSES),
    ]
    one, both = network(*layers), network(*layers)
    for net, groups in ((one, {f"layers.{frozen}": {"trains": False}}), (both, None)):
        trainer = Trainer(net, "cross_entropy", SGD(0.5), device="cpu", precision="fp64", groups=groups)
        step, _ = trainer.prepared_step(held, Y, ROWS)
        step.begin_epoch(0, np.arange(ROWS), np.full(1, 0.5))
        step.run(0, 1)
    for name, value in both.parameters().items():
        if name == f"layers.{frozen}.weight":
            np.testing.assert_array_equal(one.parameters()[name], network(*layers).parameters()[name])
        else:
            np.testing.assert_array_equal(one.parameters()[name], value)


def test_tables_alone_can_train() -> None:
    held = documents()
    net = network(Embedding(SIZE, WIDTH), Dense(CLASSES))
    before = net.parameters()
    groups = {"layers.1": {"trains": False}}
    trainer = train(net, held, optimizer=Momentum(0.5), clip_norm=1.0, groups=groups)
    moved = [name for name, after in net.parameters().items() if not np.array_equal(after, before[name])]
    assert moved == ["layers.0.weight"]
    assert trainer.history.rows[-1]["loss"] < trainer.history.rows[0]["loss"]


# ---------------------------------------------------------------------------------------------------------
# Names and mistakes.
# ---------------------------------------------------------------------------------------------------------


def test_a_longer_name_takes_precedence_in_any_order() -> None:
    segments = segments_for(place_layers([*[Dense(2)] * 11, Dense(2)], 2, {}))
    groups = {
        "layers.1.bias": {"rate": 3.0},
        "layers.1": {"rate": 2.0, "decays": False},
        "layers": {"trains": True},
    }
    for order in (list(groups), list(reversed(groups))):
        found = {one.name: one for one in grouped(segments, {name: groups[name] for name in order})}
        assert found["layers.1.bias"].rate == 3.0
        assert (found["layers.1.weight"].rate, found["layers.1.weight"].decays) == (2.0, False)
        assert found["layers.10.weight"] == next(one for one in segments if one.name == "layers.10.weight")
        assert list(found) == [one.name for one in segments]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"layers.9": {"rate": 0.5}}, "unknown parameter or layer 'layers.9' in groups"),
        ({"layers.0.weigh": {"rate": 0.5}}, "did you mean layers.0.weight"),
        ({"layers": {"trains": False}}, "groups leave no parameter to train; let one"),
    ],
)
def test_a_mistake_in_a_name_is_found_before_the_training(groups: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(network(), groups=groups)
