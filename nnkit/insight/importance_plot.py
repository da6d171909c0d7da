"""The plot of permutation importance: what a model's metric loses without each of its columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnkit.errors import DataError
from nnkit.insight.columns import model_columns
from nnkit.insight.drawing import Palette, Plot, literal
from nnkit.insight.evaluated_model import EvaluatedModel, drawn_examples
from nnkit.insight.importance import permutation_importance

__all__ = ["MOST_COLUMNS", "importance_plot"]

MOST_COLUMNS = 100  # of a model; each is shuffled five times
_MOST_ROWS = 2000
_MOST_BARS = 20


def importance_plot(evaluated: EvaluatedModel) -> Plot:
    """Return what accuracy, or R², falls by where a column is shuffled, the most important columns first.

    Parameters
    ----------
    evaluated : EvaluatedModel
        Of more than 2,000 rows as many are taken by chance.

    Raises
    ------
    DataError
        If the model has one column only, or more than `MOST_COLUMNS`.
    """
    count = len(model_columns(evaluated.model))
    if not 1 < count <= MOST_COLUMNS:
        raise DataError(
            f"the importance of columns is drawn of 2 to {MOST_COLUMNS}, and this model has {count:,}; "
            "nnkit explain tells it as a table"
        )
    taken = drawn_examples(evaluated.examples, _MOST_ROWS, 0)
    assert taken.target is not None
    found = permutation_importance(evaluated.model, taken.features, taken.target)
    order = np.argsort(-found.mean, kind="stable")
    shown = order[:_MOST_BARS]
    metric = found.metric.replace("_", " ")

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(shown))[::-1]
        spread = {"xerr": found.deviation[shown], "ecolor": palette.ink, "capsize": 2}
        axes.barh(places, found.mean[shown], 0.7, color=palette.series[0], **spread)
        axes.axvline(0, color=palette.soft, linewidth=0.8)
        axes.set_yticks(places, [literal(found.columns[column]) for column in shown])
        axes.set_xlabel(f"what {metric} falls by (of {found.baseline:.3f})")
        axes.set_ylabel("column, shuffled")
        axes.grid(axis="x")

    most = found.columns[order[0]]
    words = (
        f"What {metric}, {found.baseline:.4f} on {found.rows:,} rows, falls by where one column is dealt out "
        f"among the rows anew, with the spread of {found.drops.shape[1]} times. Most by {most}, "
        f"{found.mean[order[0]]:.4f}. Columns that tell the same share what they are worth."
    )
    if len(shown) < count:
        words += f" Drawn are the first {len(shown)} of {count}."
    rows = [
        [found.columns[column], f"{found.mean[column]:.4f}", f"{found.deviation[column]:.4f}"]
        for column in order
    ]
    headers = ["column", f"fall of {metric}", "deviation"]
    size = (4.8, 1.2 + 0.26 * len(shown))
    return Plot("importance", "Permutation importance", words, headers, rows, draw, size)
