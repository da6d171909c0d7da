"""Permutation importance: how much a metric worsens when a column's values are shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.checks import Whole
from nnkit.errors import DataError, unknown_name
from nnkit.feed.features import Features
from nnkit.insight.columns import Column, model_columns, permuted
from nnkit.insight.drawing import Palette, Plot, literal
from nnkit.insight.evaluated_model import EvaluatedModel, drawn_examples
from nnkit.model import Model
from nnkit.nn.metrics import default_metrics, get_metric

__all__ = ["MOST_COLUMNS", "Importance", "importance_plot", "permutation_importance"]

MOST_COLUMNS = 100  # in a plot; each is shuffled five times
_MOST_ROWS = 2000
_MOST_BARS = 20


@dataclass(frozen=True, eq=False)
class Importance:
    """How much a metric worsens when a column is shuffled.

    Parameters
    ----------
    metric : str
    baseline : float
        The metric on the rows as they are.
    columns : tuple of str
        The model's input columns.
    drops : ndarray of shape (columns, repeats)
        The decrease of the metric, or its increase where lower is better.
    rows : int
        The number of rows it was measured on.
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

    @property
    def order(self) -> NDArray[np.int64]:
        """The places of the columns, the most important first."""
        return np.argsort(-self.mean, kind="stable")

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values, the most important column first."""
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
                for place in self.order
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
    """Measure the importance of each of the model's input columns by shuffling its values.

    A categorical column is shuffled as a whole, however many inputs encode it. On an array the result is that
    of `sklearn.inspection.permutation_importance` with this ``random_state``.

    Parameters
    ----------
    model : Model
    X, y : array or table, array_like
        Rows and their true targets, as `Model.evaluate` takes them.
    metric : str, optional
        The name of a metric of `nnkit.nn.metrics`; accuracy or R² if not given.
    repeats : int
        How often each column is shuffled.
    seed : int
        In [0, 2**32).
    columns : sequence of str, optional
        The columns to measure; all if not given.
    sample_weight : array_like of shape (samples,), optional
        Weights of the samples in the metric.

    Raises
    ------
    ConfigError
        If the metric does not apply to the model's task, or a column or a number is out of range.
    DataError
        If the rows do not match the model.

    References
    ----------
    Breiman 2001, "Random Forests", section 10; of any model, Fisher et al. 2019, arXiv:1801.01489.
    """
    # Long for its documentation.
    repeats, seed = Whole(1)("repeats", repeats), Whole(0, 2**32 - 1)("seed", seed)
    name = default_metrics(model.target.task)[0] if metric is None else metric
    sign = 1.0 if get_metric(name).greater_is_better else -1.0
    chosen = _chosen(model, columns)
    features: Features = model.preprocessor.transform(X)
    if features.rows is not None:
        features = features.take(np.arange(len(features)))
    truth = np.asarray(y)

    def measured(rows: Features) -> float:
        return model.measure(model.encoded_outputs(rows), truth, [name], sample_weight)[name]

    baseline = measured(features)
    drops = [
        [
            sign * (baseline - measured(permuted(features, [column], order)))
            for order in _orders(len(features), repeats, seed)
        ]
        for column in chosen
    ]
    table = np.array(drops).reshape(len(chosen), repeats)
    return Importance(name, baseline, tuple(column.name for column in chosen), table, len(features))


def _chosen(model: Model, names: Sequence[str] | None) -> list[Column]:
    columns = model_columns(model)
    if model.preprocessor.pictures is not None and names is None:
        raise DataError(
            "permutation importance is not computed for the pixels of pictures: explain pictures by gradients"
        )
    if names is None:
        return list(columns)
    found = {column.name: column for column in columns}
    for name in names:
        if name not in found:
            raise unknown_name("column", name, found, "of the model")
    return [found[name] for name in names]


def _orders(count: int, repeats: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the order of a column's values at each repeat; as in scikit-learn, each shuffles the last one."""
    random = np.random.RandomState(np.random.RandomState(seed).randint(np.iinfo(np.int32).max + 1))
    shuffled, order = np.arange(count), np.arange(count)
    for _ in range(repeats):
        random.shuffle(shuffled)
        order = order[shuffled]
        yield order


def importance_plot(evaluated: EvaluatedModel) -> Plot:
    """Return the decrease of accuracy, or R², when a column is shuffled, the most important columns first.

    Of more than 2,000 rows, 2,000 are sampled at random.

    Raises
    ------
    DataError
        If the model has one column only, or more than `MOST_COLUMNS`.
    """
    count = len(model_columns(evaluated.model))
    if not 1 < count <= MOST_COLUMNS:
        raise DataError(
            f"the importance plot needs 2 to {MOST_COLUMNS} columns, and this model has {count:,}; "
            "nnkit explain prints the importance as a table"
        )
    taken = drawn_examples(evaluated.examples, _MOST_ROWS, 0)
    assert taken.target is not None
    found = permutation_importance(evaluated.model, taken.features, taken.target)
    shown = found.order[:_MOST_BARS]
    metric = found.metric.replace("_", " ")

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(shown))[::-1]
        spread = {"xerr": found.deviation[shown], "ecolor": palette.ink, "capsize": 2}
        axes.barh(places, found.mean[shown], 0.7, color=palette.series[0], **spread)
        axes.axvline(0, color=palette.soft, linewidth=0.8)
        axes.set_yticks(places, [literal(found.columns[column]) for column in shown])
        axes.set_xlabel(f"decrease of {metric} (from {found.baseline:.3f})")
        axes.set_ylabel("shuffled column")
        axes.grid(axis="x")

    first = shown[0]
    words = (
        f"The decrease of {metric}, {found.baseline:.4f} on {found.rows:,} rows, when a column is shuffled: "
        f"mean and standard deviation of {found.drops.shape[1]} repeats. The largest is that of "
        f"{found.columns[first]}, {found.mean[first]:.4f}. Columns with the same information share their "
        "importance."
    )
    if len(shown) < count:
        words += f" The plot shows the first {len(shown)} of {count} columns."
    rows = [
        [found.columns[column], f"{found.mean[column]:.4f}", f"{found.deviation[column]:.4f}"]
        for column in found.order
    ]
    headers = ["column", f"decrease of {metric}", "standard deviation"]
    size = (4.8, 1.2 + 0.26 * len(shown))
    return Plot("importance", "Permutation importance", words, headers, rows, draw, size)
