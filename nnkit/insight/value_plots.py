"""The plots of a regression's values: predicted against true, and the residuals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError
from nnkit.insight.drawing import Palette, Plot, literal, number_text
from nnkit.insight.evaluated_model import EvaluatedModel
from nnkit.insight.evaluation import residuals

__all__ = ["predicted_plot", "residuals_plot"]

_MOST_POINTS = 2000  # of a scatter: a page of 20,000 takes 2 MB more and shows no more


def predicted_plot(evaluated: EvaluatedModel) -> Plot:
    """Return a regression's predicted values by the true ones.

    Raises
    ------
    DataError
        If the model is none.
    """
    _check_regression(evaluated)
    truth, values, labels = evaluated.truth, evaluated.values, evaluated.labels
    chosen = _sample(len(truth))

    def draw(figure: Any, palette: Palette) -> None:
        for place, axes in enumerate(_panels(figure, len(labels))):
            pair = truth[chosen, place], values[chosen, place]
            ends = [min(map(np.min, pair)), max(map(np.max, pair))]
            axes.plot(ends, ends, color=palette.soft, linewidth=0.8, linestyle=":")
            axes.scatter(*pair, s=6, alpha=0.5, linewidths=0, color=palette.series[0])
            _engineering(axes)
            axes.set_xlabel(f"true {literal(labels[place])}")
            axes.set_ylabel(f"predicted {literal(labels[place])}")
            axes.grid()

    words = f"On the dotted line both are equal. {_spread(evaluated)}{_sampled(len(truth), len(chosen))}"
    headers, rows = ["output", "mean residual", "spread of residuals"], _moments(evaluated)
    size = (4.8, 3.4 * len(labels) if len(labels) <= 3 else 10)
    return Plot("predicted", "Predicted against true", words, headers, rows, draw, size)


def residuals_plot(evaluated: EvaluatedModel) -> Plot:
    """Return a regression's residuals by what is predicted, and how they are spread.

    Raises
    ------
    DataError
        If the model is none.
    """
    _check_regression(evaluated)
    found, values, labels = residuals(evaluated.truth, evaluated.values), evaluated.values, evaluated.labels
    chosen = _sample(len(found))

    def draw(figure: Any, palette: Palette) -> None:
        for place, axes in enumerate(_panels(figure, len(labels))):
            axes.axhline(0, color=palette.soft, linewidth=0.8, linestyle=":")
            axes.scatter(
                values[chosen, place],
                found[chosen, place],
                s=6,
                alpha=0.5,
                linewidths=0,
                color=palette.series[0],
            )
            side = axes.inset_axes((1.02, 0, 0.18, 1), sharey=axes)
            side.hist(found[:, place], bins=40, orientation="horizontal", color=palette.series[0])
            side.tick_params(labelleft=False)
            side.set_xlabel("rows", fontsize=8)
            _engineering(axes)
            axes.set_xlabel(f"predicted {literal(labels[place])}")
            axes.set_ylabel(f"true − predicted {literal(labels[place])}")
            axes.grid()

    words = f"Above the dotted line the prediction is too low. {_spread(evaluated)}"
    words += _sampled(len(found), len(chosen))
    headers, rows = ["output", "mean residual", "spread of residuals"], _moments(evaluated)
    size = (4.8, 3.4 * len(labels) if len(labels) <= 3 else 10)
    return Plot("residuals", "Residuals", words, headers, rows, draw, size)


def _check_regression(evaluated: EvaluatedModel) -> None:
    if evaluated.task != "regression":
        raise DataError(f"this plot is of a regression's values, and this is a {evaluated.task} model")


def _moments(evaluated: EvaluatedModel) -> list[list[str]]:
    found = residuals(evaluated.truth, evaluated.values)
    return [
        [label, number_text(mean), number_text(spread)]
        for label, mean, spread in zip(evaluated.labels, found.mean(axis=0), found.std(axis=0), strict=True)
    ]


def _spread(evaluated: EvaluatedModel) -> str:
    parts = [f"of {label} {mean} in the mean, spread {spread}" for label, mean, spread in _moments(evaluated)]
    return f"Residuals (true − predicted): {'; '.join(parts[:3])}, in its units."


def _sample(count: int) -> NDArray[np.int64]:
    """Return the rows to draw, the same each time."""
    if count <= _MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, _MOST_POINTS, replace=False))


def _sampled(count: int, drawn: int) -> str:
    return f" Drawn are {drawn:,} of {count:,} rows, by chance." if drawn < count else ""


def _panels(figure: Any, count: int) -> list[Any]:
    return list(np.atleast_1d(figure.subplots(count, 1)))


def _engineering(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, position: _short(value)))


def _short(value: float) -> str:
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if sign == ' k' else size):g}{sign}"
    return f"{value:g}"
