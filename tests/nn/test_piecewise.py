"""Piecewise-linear numbers: where their bins lie, and that the lookup is a product with their shares."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit import BatchEnsemble, Dense, Embedding, Ensemble, Network, PiecewiseLinear, Trainer, load
from nnkit.engine.input_gradient import InputGradient
from nnkit.errors import ConfigError
from nnkit.feed.features import Bags, Features
from nnkit.feed.statistics import RowStatistics

RANDOM = np.random.default_rng(3)
COLUMNS = np.column_stack(
    [
        RANDOM.normal(size=400),
        np.where(RANDOM.random(400) < 0.8, 0.0, RANDOM.exponential(size=400)),  # mostly zero
        RANDOM.integers(0, 5, 400),
        RANDOM.integers(0, 2, 400),
    ]
)


def prepared(X: NDArray, bins: int = 16) -> PiecewiseLinear:
    layer = PiecewiseLinear(bins).prepared(RowStatistics(Features(X)))
    assert isinstance(layer, PiecewiseLinear)
    return layer


def expanded(layer: PiecewiseLinear, X: NDArray) -> NDArray:
    """Return the inputs and each bin's share, by NumPy's interpolation."""
    shares = [
        np.interp(X[:, column], edges[r : r + 2], (0, 1))
        for column, edges in enumerate(layer.edges or ())
        for r in range(len(edges) - 1)
    ]
    return np.column_stack([X, *shares])


def test_half_of_the_edges_are_quantiles_of_rows_and_half_of_distinct_values() -> None:
    edges = np.array(prepared(COLUMNS).edges[0])
    for values, probabilities in (
        (COLUMNS[:, 0], np.linspace(0, 1, 9)),
        (np.unique(COLUMNS[:, 0]), np.linspace(0, 1, 10)[1:-1]),
    ):
        for quantile in np.quantile(values, probabilities):
            assert abs(edges - quantile).min() < 1e-6
    assert len(edges) <= 17


def test_a_column_that_is_mostly_one_value_still_has_bins() -> None:
    edges = np.array(prepared(COLUMNS).edges[1])
    assert (edges > 0).sum() >= 8


def test_few_distinct_values_are_the_edges_and_two_need_none() -> None:
    assert prepared(COLUMNS).edges[2:] == ((0.0, 1.0, 2.0, 3.0, 4.0), ())


def test_edges_that_are_given_stay() -> None:
    layer = PiecewiseLinear(4, [[0.0, 0.5, 2.0]])
    assert layer.prepared(RowStatistics(Features(COLUMNS))) == layer


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_the_lookup_is_the_product_with_the_shares(rows: int) -> None:
    layer = prepared(COLUMNS)
    network = Network([layer, Dense(7, "tanh"), Dense(2)])
    network.initialize(4, 5, np.float64)
    plain = Network([Dense(7, "tanh"), Dense(2)])
    plain.initialize(4 + layer.bin_count, 5, np.float64, values=network.parameters())
    X, y = COLUMNS[:rows] * 1.5, RANDOM.normal(size=(rows, 2))  # some lie beyond the edges
    np.testing.assert_allclose(network.outputs(X), plain.outputs(expanded(layer, X)), rtol=1e-12, atol=1e-12)
    gradients = network.gradients(X, y, "mse")
    for name, wanted in plain.gradients(expanded(layer, X), y, "mse").items():
        np.testing.assert_allclose(gradients[name], wanted, rtol=1e-10, atol=1e-13, err_msg=name)


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    network = Network([prepared(COLUMNS), Dense(7, "silu"), Dense(2)])
    network.initialize(4, 5)
    X = COLUMNS.astype(np.float32)
    whole = network.outputs(X, reproducible=True)
    for row in (0, 17, 399):
        assert (network.outputs(X[row : row + 1], reproducible=True)[0] == whole[row]).all()


def test_beside_embedded_categories_and_one_hot_codes() -> None:
    ids = RANDOM.integers(0, 3, 400)
    features = Features(
        COLUMNS.astype(np.float32),
        codes=RANDOM.integers(0, 2, (400, 1)).astype(np.int32),
        cardinalities=(2,),
        bags=(Bags(ids.astype(np.int32), np.arange(401), 3),),
    )
    y = COLUMNS[:, 0] + ids + 2 * (COLUMNS[:, 2] == 3)
    network = Network([Embedding(3, 2, "sum"), PiecewiseLinear(8), Dense(32, "silu"), Dense(1)])
    trainer = Trainer(network, "mse", {"name": "adam", "learning_rate": 0.01}, device="cpu", seed=1)
    history = trainer.fit(features, y, epochs=40, batch_size=50)
    assert history["loss"][-1] < 0.02 * history["loss"][0]


def test_the_derivative_by_the_numbers_is_that_of_differences() -> None:
    layer = prepared(COLUMNS)
    network = Network([layer, Dense(6, "tanh"), Dense(1)])
    network.initialize(4, 5, np.float64)
    X = COLUMNS[:9] + 1e-3  # off the edges
    found = InputGradient(network.places, network.arena).gradients(X, np.ones((9, 1)))
    for column in range(4):
        step = np.zeros(4)
        step[column] = 1e-6
        wanted = (network.outputs(X + step) - network.outputs(X - step))[:, 0] / 2e-6
        np.testing.assert_allclose(found[:, column], wanted, rtol=1e-6, atol=1e-8)


def test_a_model_file_keeps_the_edges(tmp_path) -> None:
    network = Network([PiecewiseLinear(8), Dense(5, "relu"), Dense(1)])
    trainer = Trainer(network, "mse", device="cpu")
    trainer.fit(COLUMNS, COLUMNS[:, 0], epochs=1)
    network.save(tmp_path / "model.safetensors", "mse")
    again = load(tmp_path / "model.safetensors").network
    assert again.layers == network.layers
    assert again.layers[0].edges is not None
    X = COLUMNS.astype(np.float32)
    assert (again.outputs(X) == network.outputs(X)).all()


def test_edges_of_more_columns_than_there_are_inputs_are_refused() -> None:
    network = Network([PiecewiseLinear(2, [[0, 1], [0, 1]]), Dense(1)], inputs=1)
    with pytest.raises(ConfigError, match="edges of 2 columns, and 1 inputs"):
        network.outputs([[0.5]])


def test_the_members_of_a_batch_ensemble_scale_the_shares_themselves() -> None:
    layer = prepared(COLUMNS)
    layers = [BatchEnsemble(6, "tanh", members=3), Ensemble(Dense(1), members=3, link="identity")]
    network = Network([layer, *layers])
    network.initialize(4, 5, np.float64)
    plain = Network(layers)
    plain.initialize(4 + layer.bin_count, 5, np.float64, values=network.parameters())
    np.testing.assert_allclose(network.outputs(COLUMNS), plain.outputs(expanded(layer, COLUMNS)), rtol=1e-12)


def test_each_member_of_an_ensemble_looks_its_numbers_up() -> None:
    layer = prepared(COLUMNS)
    ensemble = Ensemble(layer, Dense(5, "silu"), Dense(1), members=2, link="identity")
    network = Network([ensemble])
    network.initialize(4, 5, np.float64)
    plain = Network([Ensemble(Dense(5, "silu"), Dense(1), members=2, link="identity")])
    plain.initialize(4 + layer.bin_count, 5, np.float64, values=network.parameters())
    np.testing.assert_allclose(network.outputs(COLUMNS), plain.outputs(expanded(layer, COLUMNS)), rtol=1e-12)


def test_without_edges_nothing_is_computed() -> None:
    network = Network([PiecewiseLinear(4), Dense(1)], inputs=2)
    with pytest.raises(ConfigError, match="has no edges yet: give them, or leave out the network's `inputs`"):
        network.outputs([[0.5, 1.0]])
