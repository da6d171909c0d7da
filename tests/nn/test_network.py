"""A network's description, its parameters, where they lie, and its predictions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnkit.backends.blas import blas_threads
from nnkit.backends.numpy import NumpyBackend
from nnkit.engine import inference
from nnkit.engine.parameters import Arena
from nnkit.engine.segments import segments_for
from nnkit.errors import ConfigError, DataError
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.kernels.layout import SEGMENT_DECAYS, SEGMENT_START, SEGMENT_STOP
from nnkit.nn.initializers import initialize
from nnkit.nn.layers import Activation, Dense, Dropout, Layer, LayerNorm, Residual
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network

LAYERS = (Dense(7, "relu"), Dropout(0.2), Dense(5, bias=False), Activation("tanh"), Dense(3))
SHAPES = {
    "layers.0.weight": (4, 7),
    "layers.0.bias": (7,),
    "layers.1.weight": (7, 5),
    "layers.2.weight": (5, 3),
    "layers.2.bias": (3,),
}


@pytest.fixture
def net() -> Network:
    return Network(LAYERS, inputs=4, seed=2)


def test_parameters_are_numbered_over_the_layers_that_have_them(net: Network) -> None:
    assert {name: array.shape for name, array in net.parameters().items()} == SHAPES
    assert (net.inputs, net.output_width) == (4, 3)
    assert all(array.dtype == np.float32 for array in net.parameters().values())


def test_weights_are_drawn_for_the_activation_that_follows_and_biases_are_zero(net: Network) -> None:
    parameters = net.parameters()
    np.testing.assert_array_equal(parameters["layers.0.weight"], initialize("he_normal", 4, 7, 2, 0))
    np.testing.assert_array_equal(parameters["layers.1.weight"], initialize("glorot_uniform", 7, 5, 2, 1))
    assert not parameters["layers.0.bias"].any()
    drawn = Network([Dense(3, initializer="lecun_normal")], inputs=4).parameters()["layers.0.weight"]
    np.testing.assert_array_equal(drawn, initialize("lecun_normal", 4, 3, 0, 0))


def test_segments_are_aligned_apart_and_only_weights_decay(net: Network) -> None:
    segments = net.arena.segments
    end = 0
    for segment in segments:
        assert segment.offset % 32 == 0
        assert segment.offset >= end
        assert segment.size == np.prod(segment.shape)
        assert segment.decays == (segment.role == "weight") == segment.name.endswith("weight")
        end = segment.offset + segment.size
    assert end <= net.arena.size < end + 32
    assert net.arena.values.shape == (net.arena.size,)


def test_the_table_is_that_of_the_segments_that_train(net: Network) -> None:
    table = net.arena.table()
    assert table.dtype == np.int64
    for row, segment in zip(table, net.arena.segments, strict=True):
        assert row[SEGMENT_START] == segment.offset
        assert row[SEGMENT_STOP] == segment.offset + np.prod(segment.shape)
        assert row[SEGMENT_DECAYS] == segment.decays


def test_views_are_the_arenas_memory_and_gaps_hold_zeros() -> None:
    net = Network(LAYERS, inputs=4)
    arena = Arena(segments_for(net.places), NumpyBackend(), np.float64)
    for name, shape in SHAPES.items():
        view = arena.view(name)
        assert view.shape == shape
        assert np.shares_memory(view, arena.values)
        view[...] = 1
    assert arena.values.sum() == sum(np.prod(shape) for shape in SHAPES.values())
    other = arena.like_values()
    assert not other.any()
    assert np.shares_memory(arena.view("layers.1.weight", other), other)


def test_parameters_are_copies_and_setting_them_changes_only_those_named(net: Network) -> None:
    before = net.parameters()
    before["layers.0.bias"][:] = 99
    assert not net.parameters()["layers.0.bias"].any()
    before = net.parameters()
    net.set_parameters({"layers.2.bias": [1, 2, 3]})
    after = net.parameters()
    assert after["layers.2.bias"].tolist() == [1, 2, 3]
    for name in SHAPES.keys() - {"layers.2.bias"}:
        np.testing.assert_array_equal(after[name], before[name])


def test_parameters_that_do_not_fit_are_named_and_none_is_set(net: Network) -> None:
    before = net.parameters()
    with pytest.raises(ConfigError, match=r"'layers.0.weight' has shape \(4, 7\), not \(7, 4\)"):
        net.set_parameters({"layers.2.bias": np.ones(3), "layers.0.weight": np.ones((7, 4))})
    with pytest.raises(ConfigError, match=r"no parameter 'layers\.1\.bias'; it has layers\.0\.weight"):
        net.set_parameters({"layers.2.bias": np.ones(3), "layers.1.bias": np.ones(5)})
    for name, array in net.parameters().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_network_survives_json(net: Network) -> None:
    description = json.loads(json.dumps(net.to_json()))
    again = Network.from_json(description, net.parameters(), np.float32)
    assert again.layers == net.layers
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_array_equal(again.outputs(X), net.outputs(X))


def test_moving_to_another_dtype_keeps_the_values(net: Network) -> None:
    before = net.parameters()
    net.place(NumpyBackend(), np.float64)
    for name, array in net.parameters().items():
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, before[name])
    assert net.outputs(np.ones((2, 4))).dtype == np.float64


def test_the_description_is_readable(net: Network) -> None:
    assert repr(Network([Dense(3)])) == (
        "Network([Dense(units=3, activation='identity', initializer=None, bias=True)])"
    )
    assert repr(net).endswith("inputs=4)")


def test_mistakes_are_named(net: Network) -> None:
    with pytest.raises(ConfigError, match="a matrix of weights, such as Dense"):
        Network([Dropout(0.5)])
    with pytest.raises(ConfigError, match="no parameters yet"):
        Network([Dense(3)]).outputs(np.ones((1, 4)))
    with pytest.raises(DataError, match="5 features, and the network takes 4"):
        net.outputs(np.ones((1, 5)))
    with pytest.raises(DataError, match=r"1 dimensions .* reshape"):
        net.outputs(np.ones(4))
    with pytest.raises(DataError, match="no rows"):
        net.outputs(np.ones((0, 4)))
    with pytest.raises(DataError, match="nan at row 1, column 2"):
        net.outputs([[0, 0, 0, 0], [0, 0, np.nan, 0]])
    with pytest.raises(DataError, match="not numbers"):
        net.outputs([["a"] * 4])
    with pytest.raises(DataError, match="5 features, and the network takes 4"):
        net.gradients(np.ones((2, 5)), [0, 1], "cross_entropy")


@pytest.mark.parametrize("chunk", [1, 4, 10, 16])
def test_predicting_in_chunks_is_predicting_at_once(net: Network, monkeypatch, chunk: int) -> None:
    X = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    parameters = net.parameters()
    hidden = np.maximum(X @ parameters["layers.0.weight"], 0)
    expected = np.tanh(hidden @ parameters["layers.1.weight"]) @ parameters["layers.2.weight"]
    monkeypatch.setattr(inference, "_FEWEST_ROWS", chunk)
    monkeypatch.setattr(inference, "_MOST_ROWS", chunk)
    outputs = net.outputs(X)
    assert outputs.shape == (10, 3)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_the_inputs_are_not_changed(net: Network) -> None:
    X = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    X.flags.writeable = False
    held = X.copy()
    first = Network([Activation("relu"), Dropout(0.5), Dense(3)], inputs=4)
    first.outputs(X)
    first.gradients(X, np.zeros(10, int), "cross_entropy")
    np.testing.assert_array_equal(X, held)


def test_bytes_are_pixels_and_features_carry_their_own_scale() -> None:
    net = Network([Dense(3)], inputs=4)
    net.initialize(4, dtype=np.float64)
    pixels = np.random.default_rng(2).integers(0, 256, (5, 4), dtype=np.uint8)
    np.testing.assert_allclose(net.outputs(pixels), net.outputs(pixels / 255), rtol=1e-12)
    encoded = Features(
        np.array([[3.0], [5.0]]),
        shift=np.array([4.0]),
        scale=np.array([0.5]),
        codes=np.array([[2], [0]], np.int32),
        cardinalities=(3,),
    )
    plain = [[-0.5, 0, 0, 1], [0.5, 1, 0, 0]]
    np.testing.assert_allclose(net.outputs(encoded), net.outputs(plain), rtol=1e-12)


def test_few_rows_are_predicted_by_what_the_last_call_left(net: Network) -> None:
    random = np.random.default_rng(5)
    fresh = Network(net.layers, inputs=4)
    fresh.set_parameters(net.parameters())
    first, second = random.normal(size=(2, 3, 4)).astype(np.float32)
    pixels = random.integers(0, 256, (3, 4), dtype=np.uint8)
    for X in (first, second, pixels, first, pixels[::-1].copy()):
        again = Network(net.layers, inputs=4)
        again.set_parameters(net.parameters())
        kept = net.outputs(X)
        np.testing.assert_array_equal(kept, again.outputs(X))
    assert net.outputs(first) is not net.outputs(first)


def test_what_is_kept_sees_new_parameters_and_leaves_the_callers_rows(net: Network) -> None:
    X = np.random.default_rng(6).normal(size=(2, 4)).astype(np.float32)
    given = X.copy()
    before = net.outputs(X)
    net.set_parameters({name: 2 * value for name, value in net.parameters().items()})
    assert not np.allclose(net.outputs(X), before)
    net.initialize(4, seed=9, dtype=np.float64)
    assert net.outputs(X).dtype == np.float64
    net.outputs(np.zeros((2, 4), np.float32))
    np.testing.assert_array_equal(X, given)


def test_several_threads_predict_few_rows_at_once(net: Network) -> None:
    from concurrent.futures import ThreadPoolExecutor

    rows = np.random.default_rng(7).normal(size=(200, 1, 4)).astype(np.float32)
    expected = [net.outputs(X) for X in rows]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(net.outputs, rows))
    np.testing.assert_array_equal(found, expected)


def test_a_network_that_has_predicted_can_be_pickled(net: Network) -> None:
    import pickle

    X = np.ones((1, 4), np.float32)
    expected = net.outputs(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(net)).outputs(X), expected)


@pytest.mark.parametrize("cast", [False, True])
def test_rows_are_read_where_they_lie_or_gathered_to_the_same_outputs_and_loss(
    cast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_FEWEST_ROWS", 100)
    monkeypatch.setattr(inference, "_MOST_ROWS", 100)
    random = np.random.default_rng(1)
    network = Network([Dense(8, "relu"), Dense(2)])
    network.initialize(5, 3, "float64")
    for rows in (100, 499, 7000):  # 7000 are too many stretches to prepare a program for each
        X = random.normal(size=(rows, 5)).astype("float32" if cast else "float64")
        y = random.random((rows, 2))
        hidden = np.maximum(X @ network.parameters()["layers.0.weight"], 0)
        expected = hidden @ network.parameters()["layers.1.weight"]
        arena = network.arena
        held = Rows(arena.backend, "float64", Features(X), y)
        outputs, loss = inference.Inference(network.places, arena, held, loss_from("mse")).run()
        np.testing.assert_allclose(outputs, expected, rtol=1e-9, atol=1e-12)
        assert loss == pytest.approx(0.5 * np.mean((expected - y) ** 2), rel=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("inputs", "layers"),
    [
        (784, [Dense(512, "relu"), Dense(512, "relu"), Dense(10)]),
        (20, [Dense(64, "gelu"), Dense(64, "tanh"), Dense(1)]),
        (8, [Dense(100, "sigmoid"), Dense(1)]),
        (300, [Dense(7, "silu"), Dense(3)]),
        (33, [Dense(18), LayerNorm(), Residual([Dense(18, "softplus")]), Dense(600)]),
    ],
)
def test_reproducible_outputs_of_a_row_have_the_same_bits_in_any_batch(
    inputs: int, layers: list[Layer], dtype: str
) -> None:
    net = Network(layers)
    net.initialize(inputs, 3, dtype)
    X = np.random.default_rng(0).normal(size=(1100, inputs)).astype(dtype)  # more than are kept for a call
    whole = net.outputs(X, reproducible=True)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(whole, net.outputs(X), rtol=0, atol=100 * np.finfo(dtype).eps * scale)
    for rows in (1, 2, 3, 8, 13, 16, 33, 100, 300):
        for first in (0, 5, 800):
            part = net.outputs(X[first : first + rows], reproducible=True)
            np.testing.assert_array_equal(part, whole[first : first + rows])
    moved = np.roll(np.arange(len(X)), 17)
    for threads in ("1", "2"):
        with blas_threads(threads):
            np.testing.assert_array_equal(net.outputs(X[moved], reproducible=True), whole[moved])


def test_reproducible_outputs_leave_the_plain_ones_as_they_were(net: Network) -> None:
    X = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    before = net.outputs(X)
    net.outputs(X, reproducible=True)
    np.testing.assert_array_equal(net.outputs(X), before)


def test_reproducible_outputs_need_the_cpu() -> None:
    class Elsewhere(NumpyBackend):
        name = "elsewhere"
        shares_host_memory = False

    net = Network([Dense(3)])
    net.initialize(4, backend=Elsewhere())
    assert net.outputs(np.ones((2, 4))).shape == (2, 3)
    with pytest.raises(ConfigError, match=r"reproducible = True needs a network on the CPU.*'elsewhere'"):
        net.outputs(np.ones((2, 4)), reproducible=True)
