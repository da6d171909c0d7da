"""The plots of a regression's values: predicted against true, and the residuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError
from nnkit.insight.drawing import Palette, Plot, grid_of, literal, number_text
from nnkit.insight.evaluated_model import EvaluatedModel

__all__ = ["predicted_plot", "residuals_plot"]

_MOST_POINTS = 2000  # of a scatter: a page of 20,000 takes 2 MB more and shows no more


def predicted_plot(evaluated: EvaluatedModel) -> Plot:
    """Return a regression's predicted values by the true ones.

    Raises
    ------
    DataError
        If the model is a classifier.
    """

    def draw(axes: Any, output: int, rows: NDArray[np.int64], palette: Palette) -> None:
        pair = evaluated.truth[rows, output], evaluated.values[rows, output]
        ends = [min(map(np.min, pair)), max(map(np.max, pair))]
        axes.plot(ends, ends, color=palette.soft, linewidth=0.8, linestyle=":")
        axes.scatter(*pair, s=6, alpha=0.5, linewidths=0, color=palette.series[0])
        axes.set_xlabel(f"true {literal(evaluated.labels[output])}")
        axes.set_ylabel(f"predicted {literal(evaluated.labels[output])}")

    words = "On the dotted line both are equal."
    return _by_output(evaluated, "predicted", "Predicted against true", words, draw)


def residuals_plot(evaluated: EvaluatedModel) -> Plot:
    """Return a regression's residuals by the predicted values, and their histogram.

    Raises
    ------
    DataError
        If the model is a classifier.
    """

    def draw(axes: Any, output: int, rows: NDArray[np.int64], palette: Palette) -> None:
        pair = evaluated.values[rows, output], evaluated.residuals[rows, output]
        axes.axhline(0, color=palette.soft, linewidth=0.8, linestyle=":")
        axes.scatter(*pair, s=6, alpha=0.5, linewidths=0, color=palette.series[0])
        side = axes.inset_axes((1.02, 0, 0.18, 1), sharey=axes)
        side.hist(evaluated.residuals[:, output], bins=40, orientation="horizontal", color=palette.series[0])
        side.tick_params(labelleft=False)
        side.set_xlabel("rows", fontsize=8)
        axes.set_xlabel(f"predicted {literal(evaluated.labels[output])}")
        axes.set_ylabel(f"true − predicted {literal(evaluated.labels[output])}")

    words = "Above the dotted line the prediction is too low."
    return _by_output(evaluated, "residuals", "Residuals", words, draw)


def _by_output(
    evaluated: EvaluatedModel,
    key: str,
    title: str,
    words: str,
    draw_output: Callable[[Any, int, NDArray[np.int64], Palette], None],
) -> Plot:
    """Return a plot of a panel for each output, which `draw_output` fills with a sample of the rows."""
    if evaluated.task != "regression":
        raise DataError(f"this plot is of a regression's values, and this is a {evaluated.task} model")
    count, labels = len(evaluated.truth), evaluated.labels
    rows = np.arange(count)
    if count > _MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(count, _MOST_POINTS, replace=False))

    def draw(figure: Any, palette: Palette) -> None:
        from matplotlib.ticker import FuncFormatter

        for output, axes in enumerate(grid_of(figure, len(labels), 1, len(labels))):
            draw_output(axes, output, rows, palette)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, position: _short(value)))
            axes.grid()

    found = evaluated.residuals
    moments = [
        [label, number_text(mean), number_text(spread)]
        for label, mean, spread in zip(labels, found.mean(axis=0), found.std(axis=0), strict=True)
    ]
    parts = [f"{label}: mean {mean}, standard deviation {spread}" for label, mean, spread in moments[:3]]
    words += f" Residuals (true − predicted), in the target's units: {'; '.join(parts)}."
    if len(rows) < count:
        words += f" Drawn are {len(rows):,} of {count:,} rows, sampled at random."
    headers = ["output", "mean residual", "spread of residuals"]
    return Plot(
        key, title, words, headers, moments, draw, (4.8, 3.4 * len(labels) if len(labels) <= 3 else 10)
    )


def _short(value: float) -> str:
    for size, unit, sign in ((1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if abs(value) >= size:
            return f"{value / unit:g}{sign}"
    return f"{value:g}"
