"""Statistics of the training rows, and the layers that are prepared with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nnkit import Dense, Network, Residual, Trainer
from nnkit.feed.features import Features
from nnkit.feed.statistics import ColumnStatistics, RowStatistics


def test_a_columns_statistics_are_those_of_the_rows_with_a_value() -> None:
    random = np.random.default_rng(2)
    values = random.integers(0, 9, 40).astype(np.float64) ** 2
    values[[3, 17]] = np.nan
    present = values[~np.isnan(values)]
    statistics = ColumnStatistics(values)
    assert (statistics.count, statistics.missing) == (40, 2)
    assert (statistics.low, statistics.high) == (present.min(), present.max())
    assert statistics.median == np.nanmedian(values)
    np.testing.assert_allclose(statistics.quantiles((0.1, 0.75)), np.nanquantile(values, (0.1, 0.75)))
    filled = np.nan_to_num(values, nan=7.0)
    np.testing.assert_allclose(statistics.moments(7.0), (filled.mean(), filled.std()), rtol=1e-15)
    found = statistics.distinct(9)
    assert found is not None
    assert found.tolist() == sorted(set(present.tolist()))
    assert statistics.distinct(len(found) - 1) is None
    lowest, highest = statistics.extremes()
    assert lowest == (found[0], (present == found[0]).sum(), found[1])
    assert highest == (found[-1], (present == found[-1]).sum(), found[-2])


def test_columns_are_those_of_the_rows_as_the_network_sees_them() -> None:
    random = np.random.default_rng(0)
    dense = random.integers(0, 9, (50, 3)).astype(np.float32)
    rows = np.array([4, 0, 7, 7, 30])
    features = Features(dense, shift=np.array([1.0, 2, 3]), scale=np.array([0.5, 1, 2]), rows=rows)
    statistics = RowStatistics(features)
    assert (statistics.count, statistics.columns) == (5, 3)
    seen = (dense[rows].astype(np.float64) - [1, 2, 3]) * [0.5, 1, 2]
    for column in range(3):
        expected = np.quantile(seen[:, column], [0.25, 0.5, 1])
        np.testing.assert_allclose(statistics.quantiles(column, (0.25, 0.5, 1)), expected, rtol=1e-15)
        values = sorted(set(seen[:, column]))
        found = statistics.distinct(column, len(values))
        assert found is not None
        assert found.tolist() == values
        assert statistics.distinct(column, len(values) - 1) is None


@dataclass(frozen=True)
class Knowing(Dense):
    """A layer whose description keeps the medians of the training rows."""

    medians: tuple[float, ...] = ()

    def prepared(self, statistics: RowStatistics) -> Dense:
        medians = [float(statistics.quantiles(column, [0.5])[0]) for column in range(statistics.columns)]
        return replace(self, medians=tuple(medians))


def test_layers_are_prepared_with_the_rows_that_are_trained_on_and_no_others() -> None:
    X = np.random.default_rng(1).normal(size=(40, 2))
    held = np.full((10, 2), 1e6)
    network = Network([Residual(Knowing(2)), Dense(1)])
    trainer = Trainer(network, "mse", device="cpu")
    trainer.fit(X, X[:, 0], epochs=1, validation=(held, held[:, 0]), progress=False)
    (layer,) = network.layers[0].layers
    np.testing.assert_allclose(layer.medians, np.median(X, axis=0), rtol=1e-6)
    before = network.layers
    trainer.fit(X + 5, X[:, 0], epochs=1, progress=False)
    assert network.layers == before
