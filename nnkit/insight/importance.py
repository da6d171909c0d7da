"""Permutation importance: what a metric loses where a column's values are dealt out among the rows anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.checks import Whole
from nnkit.errors import DataError, unknown_name
from nnkit.feed.features import Features
from nnkit.insight.columns import Column, model_columns, permuted
from nnkit.model import Model
from nnkit.nn.metrics import default_metrics, get_metric

__all__ = ["Importance", "permutation_importance"]


@dataclass(frozen=True, eq=False)
class Importance:
    """How much worse a metric becomes without what a column tells.

    Parameters
    ----------
    metric : str
        Which.
    baseline : float
        The metric on the rows as they are.
    columns : tuple of str
        The model's input columns.
    drops : ndarray of shape (columns, repeats)
        By how much the metric is worse: what it falls by, or rises by where less is better.
    rows : int
        How many rows it was measured on.
    """

    metric: str
    baseline: float
    columns: tuple[str, ...]
    drops: NDArray[np.float64]
    rows: int

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean drop of each column, shape (columns,)."""
        return self.drops.mean(axis=1)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation over the repeats, shape (columns,)."""
        return self.drops.std(axis=1)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values, the most important column first."""
        order = np.argsort(-self.mean, kind="stable")
        return {
            "method": "permutation",
            "metric": self.metric,
            "baseline": self.baseline,
            "rows": self.rows,
            "repeats": self.drops.shape[1],
            "columns": [
                {
                    "column": self.columns[place],
                    "importance": float(self.mean[place]),
                    "deviation": float(self.deviation[place]),
                    "drops": self.drops[place].tolist(),
                }
                for place in order
            ],
        }


def permutation_importance(
    model: Model,
    X: Any,
    y: ArrayLike,
    metric: str | None = None,
    *,
    repeats: int = 5,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    sample_weight: ArrayLike | None = None,
) -> Importance:
    """Measure each of the model's own input columns by shuffling it, the others left in place.

    A category is one column, however many places it has. On an array the result is that of
    `sklearn.inspection.permutation_importance` with this ``random_state``: the same draws of NumPy's
    RandomState, and a column's shuffles one upon the other.

    Parameters
    ----------
    model : Model
        A trained one.
    X : array or table
        As `Model.predict` takes it.
    y : array_like
        The truth, as `Model.evaluate` takes it.
    metric : str, optional
        Of `nnkit.nn.metrics`; accuracy or R² where not given.
    repeats : int
        How often each column is shuffled.
    seed : int
        In [0, 2**32).
    columns : sequence of str, optional
        Which columns; all where not given.
    sample_weight : array_like of shape (samples,), optional
        Weights of the samples in the metric.

    Returns
    -------
    Importance

    Raises
    ------
    ConfigError
        If the metric does not apply to the model's task, or a column or a number is not one.
    DataError
        If the rows do not match the model.

    References
    ----------
    Breiman 2001, "Random Forests", section 10; of any model, Fisher et al. 2019, arXiv:1801.01489.
    """
    repeats, seed = Whole(1)("repeats", repeats), Whole(0, 2**32 - 1)("seed", seed)
    name = default_metrics(model.target.task)[0] if metric is None else metric
    sign = 1.0 if get_metric(name).greater_is_better else -1.0
    wanted = _wanted(model, columns)
    features: Features = model.preprocessor.transform(X)
    if features.rows is not None:
        features = features.take(np.arange(len(features)))
    truth = np.asarray(y)

    def measured(rows: Features) -> float:
        outputs = model.encoded_outputs(rows)
        return model.measure(outputs, truth, [name], sample_weight)[name]

    baseline = measured(features)
    draws = np.random.RandomState(seed).randint(np.iinfo(np.int32).max + 1)
    drops = np.empty((len(wanted), repeats))
    for place, column in enumerate(wanted):
        for repeat, order in enumerate(_orders(len(features), repeats, draws)):
            drops[place, repeat] = sign * (baseline - measured(permuted(features, [column], order)))
    return Importance(name, baseline, tuple(column.name for column in wanted), drops, len(features))


def _wanted(model: Model, names: Sequence[str] | None) -> list[Column]:
    columns = model_columns(model)
    if model.preprocessor.pictures is not None and names is None:
        raise DataError("a picture's pixels are not shuffled one by one: explain pictures by gradients")
    if names is None:
        return list(columns)
    found = {column.name: column for column in columns}
    for name in names:
        if name not in found:
            raise unknown_name("column", name, found, "of the model")
    return [found[name] for name in names]


def _orders(count: int, repeats: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the rows that a column's values come from at each repeat."""
    random = np.random.RandomState(seed)
    shuffled, current, orders = np.arange(count), np.arange(count), []
    for _ in range(repeats):
        random.shuffle(shuffled)
        current = current[shuffled]
        orders.append(current)
    return orders
