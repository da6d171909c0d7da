"""The same training on the CPU and on a CUDA device, simulated or real."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import rounding

from nnkit import (
    Activation,
    BatchEnsemble,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    LayerNorm,
    Network,
    PiecewiseLinear,
    Residual,
    Trainer,
)
from nnkit.backends import select
from nnkit.diagnostics.diagnosis import Diagnosis
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import Passes
from nnkit.engine.segments import segments_for
from nnkit.feed import ring
from nnkit.feed.batch import Batch
from nnkit.feed.features import Bags, Features
from nnkit.nn.layers import place_layers

pytestmark = pytest.mark.gpu

SIMULATED = "simulated.driver" in sys.modules
# A few steps of float32 on a card differ by the order in which its products are summed.
TOLERANCES = {"fp32": 1e-5 if SIMULATED else 1e-4, "fp64": 1e-12}
ROWS, INPUTS, CLASSES, BATCH = 19, 6, 3, 8  # the last batch is ragged


def layers(activation: str, dropout: float, outputs: int) -> list[Any]:
    hidden = [Dense(8, activation), *([Dropout(dropout)] if dropout else []), Dense(5, activation)]
    return [*hidden, Dense(outputs)]


def numbers() -> NDArray:
    return np.random.default_rng(1).normal(size=(ROWS, INPUTS))


def classes() -> NDArray:
    return np.arange(ROWS) % CLASSES


def targets(outputs: int) -> NDArray:
    X = numbers()
    return np.stack([np.sin(X[:, column]) + X[:, -1] for column in range(outputs)], axis=1)


def weights() -> NDArray:
    return np.random.default_rng(2).uniform(0.5, 2, ROWS)


def categories() -> Features:
    random = np.random.default_rng(3)
    codes = np.stack([random.integers(0, k, ROWS) for k in (4, 3)], axis=1).astype(np.int32)
    return Features(np.empty((ROWS, 0), np.float32), codes=codes, cardinalities=(4, 3))


def documents(weighted: bool = False, longest: int = 5) -> Features:
    """Return two columns of numbers, and two bags of up to `longest` ids for each row."""
    random = np.random.default_rng(4)
    bags = []
    for size in (9, 40):
        starts = np.concatenate([[0], np.cumsum(random.integers(0, longest + 1, ROWS))])
        ids = random.integers(0, size, starts[-1]).astype(np.int32)
        bags.append(Bags(ids, starts, size, random.uniform(0.5, 2, len(ids)) if weighted else None))
    return Features(random.normal(size=(ROWS, 2)).astype(np.float32), bags=tuple(bags))


def pictures() -> Features:
    """Return rows that lie, in another order, among more rows of pictures of 2 × 3 pixels."""
    random = np.random.default_rng(4)
    pixels = random.integers(0, 256, (2 * ROWS, INPUTS), np.uint8)
    rows, scale = random.permutation(2 * ROWS)[:ROWS], np.full(INPUTS, 1 / 255)
    return Features(pixels, None, scale, rows=rows, picture=(1, 2, 3))


# By name: the layers, the trainer's settings, X, y and what else `fit` is given.
CASES: dict[str, tuple[list[Any], dict[str, Any], Any, Any, dict[str, Any]]] = {
    "relu, dropout, weights, adam": (
        layers("relu", 0.4, CLASSES),
        {"loss": "cross_entropy", "optimizer": "adam"},
        numbers(),
        classes(),
        {"sample_weight": weights()},
    ),
    "tanh, penalties, clipping, momentum": (
        layers("tanh", 0.0, 2),
        {"loss": "mse", "optimizer": "momentum", "l1": 1e-3, "l2": 1e-2, "clip_norm": 0.1},
        numbers(),
        targets(2),
        {},
    ),
    "pictures, varied": (
        layers("relu", 0.0, CLASSES),
        {"loss": "cross_entropy", "augment": {"shift": 0.5, "flip": True, "erase": 0.5}},
        pictures(),
        classes(),
        {},
    ),
    "everything at once, adamw": (
        layers("gelu", 0.25, CLASSES),
        {"loss": "cross_entropy", "optimizer": "adamw", "l1": 1e-3, "l2": 1e-2, "clip_norm": 0.5},
        numbers(),
        classes(),
        {"sample_weight": weights()},
    ),
    "layer norms and residuals, adam": (
        [
            Dense(8),
            Residual(LayerNorm(), Dense(5, "relu"), Dropout(0.25), Dense(8)),
            LayerNorm(bias=False),
            Dense(CLASSES),
        ],
        {"loss": "cross_entropy", "optimizer": "adam", "l2": 1e-3},
        numbers(),
        classes(),
        {},
    ),
    "piecewise-linear numbers, adamw": (
        [PiecewiseLinear(4), Dense(8, "silu"), Dropout(0.2), Dense(CLASSES)],
        {"loss": "cross_entropy", "optimizer": "adamw"},
        numbers(),
        classes(),
        {},
    ),
    "their shares by themselves, sgd": (
        [PiecewiseLinear(4), LayerNorm(), Dense(5, "relu"), Dense(CLASSES)],
        {"loss": "cross_entropy", "optimizer": "sgd"},
        numbers(),
        classes(),
        {},
    ),
    "one output, relu throughout, sgd": (
        layers("relu", 0.0, 1),
        {"loss": "huber", "optimizer": "sgd"},
        numbers(),
        targets(1),
        {},
    ),
    "pixels, nesterov": (
        layers("relu", 0.0, CLASSES),
        {"loss": "cross_entropy", "optimizer": "nesterov"},
        (numbers() * 20 + 128).clip(0, 255).astype(np.uint8),
        classes(),
        {},
    ),
    "nothing but categories, adagrad": (
        layers("relu", 0.0, 1),
        {"loss": "binary_cross_entropy", "optimizer": "adagrad"},
        categories(),
        classes() % 2,
        {},
    ),
    "an activation of its own, rmsprop": (
        [Dense(8), Activation("relu"), Dropout(0.2), Dense(5, "sigmoid", bias=False), Dense(CLASSES, "relu")],
        {"loss": "mse", "optimizer": "rmsprop"},
        numbers(),
        targets(CLASSES),
        {},
    ),
    "embeddings, penalties, clipping, rmsprop": (
        [Embedding(9, 3, "mean"), Embedding(40, 4, "sum"), Dense(5, "relu"), Dense(CLASSES)],
        {"loss": "cross_entropy", "optimizer": "rmsprop", "l1": 1e-3, "l2": 1e-2, "clip_norm": 0.5},
        documents(weighted=True),
        classes(),
        {},
    ),
    "groups, a frozen table, adamw": (
        [Embedding(9, 3, "max"), Embedding(40, 4, "sum"), Dense(5, "relu"), Dense(CLASSES)],
        {
            "loss": "cross_entropy",
            "optimizer": "adamw",
            "l2": 1e-2,
            "clip_norm": 0.5,
            "groups": {
                "layers.0.weight": {"trains": False},
                "layers.1": {"rate": 3, "decays": False},
                "layers.2": {"rate": 0.1},
                "layers.3.bias": {"trains": False},
            },
        },
        documents(weighted=False),
        classes(),
        {},
    ),
    "nothing but tables, rmsprop": (
        [Embedding(9, 3), Embedding(40, 4, "sum"), Dense(CLASSES)],
        {
            "loss": "cross_entropy",
            "optimizer": "rmsprop",
            "clip_norm": 0.5,
            "l2": 1e-2,
            "groups": {"layers.2.weight": {"trains": False}, "layers.2.bias": {"trains": False}},
        },
        documents(),
        classes(),
        {},
    ),
    "embeddings of long texts, nesterov": (
        [Embedding(9, 9, "sum"), Embedding(40, 4, "max"), Dense(CLASSES)],
        {"loss": "cross_entropy", "optimizer": "nesterov"},
        documents(longest=50),
        classes(),
        {},
    ),
    "embeddings under dropout, a maximum, adam": (
        [Embedding(9, 4, "max"), Embedding(40, 4), Dropout(0.2), Dense(CLASSES)],
        {"loss": "cross_entropy", "optimizer": "adam"},
        documents(),
        classes(),
        {"sample_weight": weights()},
    ),
    "an ensemble over embeddings, dropout, adam": (
        [
            *(Embedding(9, 3, "mean"), Embedding(40, 4, "sum")),
            Ensemble(Dense(6, "tanh"), Dropout(0.3), Dense(CLASSES), members=3, link="softmax"),
        ],
        {"loss": "cross_entropy", "optimizer": "adam"},
        documents(),
        classes(),
        {"sample_weight": weights()},
    ),
    "tabm, dropout, adam": (
        [
            BatchEnsemble(8, "gelu", members=3),
            Dropout(0.2),
            BatchEnsemble(16, "tanh", members=3),
            Ensemble(Dense(2), members=3, link="identity"),
        ],
        {"loss": "mse", "optimizer": "adam", "clip_norm": 0.5},
        numbers(),
        targets(2),
        {},
    ),
}


def trained(case: str, device: str, precision: str, **others: Any) -> tuple[Trainer, list[float]]:
    described, settings, X, y, given = CASES[case]
    settings = {**settings, **others}
    trainer = Trainer(Network(described), device=device, precision=precision, seed=7, **settings)
    validation = (X.take(np.arange(5)) if isinstance(X, Features) else X[:5], y[:5])
    history = trainer.fit(X, y, epochs=2, batch_size=BATCH, validation=validation, **given)
    return trainer, [row[name] for row in history for name in ("loss", "validation_loss")]


@pytest.mark.parametrize(
    ("case", "precision"),
    # float64 shows every mistake; where kernels are compiled for a simulated device, one in float32 must do.
    [
        *((case, "fp64") for case in CASES),
        *((case, "fp32") for case in list(CASES)[: 1 if SIMULATED else None]),
    ],
)
def test_a_training_is_the_same_as_on_the_cpu(case: str, precision: str) -> None:
    tolerance = TOLERANCES[precision]
    here, losses = trained(case, "cpu", precision)
    there, same_losses = trained(case, "cuda", precision)
    assert there.backend.name == "cuda:0"
    assert there.network.arena.backend.name == "cuda:0"
    np.testing.assert_allclose(same_losses, losses, rtol=tolerance)
    initial = Network(here.network.layers, inputs=here.network.inputs, seed=7).parameters()
    groups = CASES[case][1].get("groups", {})
    frozen = {name for name, group in groups.items() if not group.get("trains", True)}
    for name, value in here.network.parameters().items():
        same = there.network.parameters()[name]
        assert same.dtype == value.dtype
        assert np.any(value.astype(np.float32) != initial[name]) == (name not in frozen)
        np.testing.assert_allclose(same, value, rtol=tolerance, atol=tolerance * np.abs(value).max())
    X = CASES[case][2]
    expected = here.network.outputs(X)
    np.testing.assert_allclose(
        there.network.outputs(X), expected, rtol=tolerance, atol=10 * tolerance * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("case", "precision"),
    [
        ("pictures, varied", "fp64"),
        ("tanh, penalties, clipping, momentum", "fp64"),
        ("pixels, nesterov", "fp64"),
        ("nothing but categories, adagrad", "fp64"),
        ("relu, dropout, weights, adam", "fp32"),
        ("relu, dropout, weights, adam", "fp16"),
    ],
)
@pytest.mark.parametrize("slot_bytes", [1, 10**6])
def test_rows_that_come_through_pinned_buffers_give_the_same_bits(
    case: str, precision: str, slot_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision not in select("cuda").backend.precisions:
        pytest.skip(f"the card or its libraries have no {precision}")
    monkeypatch.setattr(ring, "SLOT_BYTES", slot_bytes)
    found = []
    for placement in ("device", "pinned"):
        trainer, losses = trained(case, "cuda", precision, data_placement=placement)
        found.append((losses, trainer.network.parameters()))
    assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][name], value)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnkit-reader")]


@pytest.mark.parametrize(
    ("case", "precision"),
    [
        ("relu, dropout, weights, adam", "fp16"),
        ("relu, dropout, weights, adam", "bf16"),
        ("everything at once, adamw", "fp16"),
        ("an activation of its own, rmsprop", "fp16"),
        ("embeddings, penalties, clipping, rmsprop", "fp16"),
        ("piecewise-linear numbers, adamw", "fp16"),
        ("their shares by themselves, sgd", "bf16"),
        ("an ensemble over embeddings, dropout, adam", "fp16"),
        ("tabm, dropout, adam", "fp16"),
    ],
)
def test_mixed_precision_is_that_of_the_cpu_with_16_bits_stood_in_for(case: str, precision: str) -> None:
    if precision not in select("cuda").backend.precisions:
        pytest.skip(f"the card or its libraries have no {precision}")
    # A rule that divides by the gradient's size makes much of a little one's last bit: SGD does not.
    with rounding.installed() as device:
        here, losses = trained(case, device, precision, optimizer="sgd")
    there, same_losses = trained(case, "cuda", precision, optimizer="sgd")
    # Sums in another order are now and then rounded to the neighbour.
    unit = {"fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
    np.testing.assert_allclose(same_losses, losses, rtol=4 * unit)
    for name, value in here.network.parameters().items():
        same = there.network.parameters()[name]
        assert same.dtype == np.float32
        np.testing.assert_allclose(same, value, rtol=0, atol=unit * max(np.abs(value).max(), 0.1))
    for column in ("loss_scale", "skipped_steps") if precision == "fp16" else ():
        np.testing.assert_array_equal(there.history[column], here.history[column])


def test_an_overflow_is_skipped_and_the_training_goes_on() -> None:
    X = numbers()
    X[3] *= 1e6
    network = Network([Dense(9, "relu"), Dense(5, "relu"), Dense(CLASSES)])
    trainer = Trainer(network, "cross_entropy", device="cuda", precision="fp16", seed=7)
    history = trainer.fit(X, classes(), epochs=3, batch_size=BATCH)
    assert list(history["skipped_steps"]) == [1, 2, 3]
    assert list(history["loss_scale"]) == [32768, 16384, 8192]
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(value).all() for value in network.parameters().values())


@pytest.mark.parametrize("outputs", [7, 8])
def test_dropout_drops_the_same_neurons(outputs: int) -> None:
    masks = []
    for device in ("cpu", "cuda"):
        backend = select(device).backend
        places = place_layers([Dense(outputs, "tanh"), Dropout(0.3), Dense(2)], INPUTS)
        passes = Passes(places, Arena(segments_for(places), backend, np.float32), ROWS, training=True)
        inputs = backend.from_host(numbers().astype(np.float32))
        counters = backend.from_host(np.array([3, 5, 0]))
        batch = Batch({"inputs": inputs}, ROWS, backend.zeros(1, np.int64))
        backend.compile(passes.forward(batch, counters, seed=2**40 + 17)).run()
        _, mask = passes.layer_outputs(places[0], ROWS)
        masks.append(backend.to_host(mask))
    assert 0 < masks[0].mean() < 1
    np.testing.assert_array_equal(*masks)


def test_a_network_moves_between_the_devices() -> None:
    network = Network(layers("relu", 0.0, CLASSES))
    devices = ("cuda", "cpu", "cuda")
    losses = [one_epoch(network, device) for device in devices]
    apart = Network(layers("relu", 0.0, CLASSES))
    assert losses[1] < losses[0]
    np.testing.assert_allclose(losses, [one_epoch(apart, "cpu") for _ in devices], rtol=1e-12)


def one_epoch(network: Network, device: str) -> float:
    trainer = Trainer(network, "cross_entropy", device=device, precision="fp64")
    return trainer.fit(numbers(), classes(), epochs=1)["loss"][-1]


def test_gradients_are_the_same_as_on_the_cpu() -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        network = Network(layers("relu", 0.3, CLASSES))
        network.initialize(INPUTS, 5, np.float64, select(device).backend)
        gradients.append(network.gradients(numbers(), classes(), "cross_entropy", sample_weight=weights()))
    for name, gradient in gradients[0].items():
        assert np.any(gradient != 0)
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-11, atol=1e-13)


def test_an_embeddings_gradient_is_the_same_as_on_the_cpu() -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        network = Network([Embedding(9, 3, "max"), Embedding(40, 5), Dense(4, "tanh"), Dense(CLASSES)])
        network.initialize(2, 5, np.float64, select(device).backend)
        gradients.append(network.gradients(documents(), classes(), "cross_entropy", l2=0.1))
    for name, gradient in gradients[0].items():
        assert np.any(gradient != 0)
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-11, atol=1e-13)


def test_a_diagnosis_sees_the_same_figures() -> None:
    seen = []
    for device in ("cpu", "cuda"):
        X, y = numbers().astype(np.float32), classes().astype(np.int32)
        trainer = Trainer(Network(layers("tanh", 0.4, CLASSES)), "cross_entropy", device=device)
        watch = Diagnosis(Features(X), y)
        trainer.fit(X, y, epochs=2, batch_size=BATCH, callbacks=[watch])
        seen.append(watch.figures[-1])
    assert seen[0].rows == seen[1].rows
    for one, two in zip(seen[0].layers, seen[1].layers, strict=True):
        assert one.saturated == two.saturated
        assert one.gradient_norm == pytest.approx(two.gradient_norm, rel=1e-3)
        assert one.weight_norm == pytest.approx(two.weight_norm, rel=1e-4)
        assert one.update_ratio == pytest.approx(two.update_ratio, rel=0.5)  # of other steps, as time allows
