"""The plots of a training by its epochs: the loss, each metric, the learning rate."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.insight.drawing import MARKERS, Palette, Plot, literal, number_text
from nnkit.insight.evaluation import LearningCurves, learning_curves
from nnkit.nn.metrics import METRICS
from nnkit.training.history import History

__all__ = ["learning_plots"]

_NAMES = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "roc auc": "ROC AUC"}
_LARGEST = 1e100  # of a diverged training; beyond, matplotlib finds no ticks for an axis


def learning_plots(history: History, loss: str = "", units: str = "") -> list[Plot]:
    """Return a plot for the loss, for each metric and for the learning rate, by epoch.

    Parameters
    ----------
    history : History
        Of the training.
    loss : str
        The loss's name.
    units : str
        The target's name, in whose units a regression's errors are.
    """
    return [_learning(curves, loss, units) for curves in learning_curves(history)]


def _learning(curves: LearningCurves, loss: str, units: str) -> Plot:
    words = curves.name.replace("_", " ")
    label = _NAMES.get(words, words)
    if curves.name == "loss":
        label = f"loss ({loss.replace('_', ' ')}, mean of a row)" if loss else "loss (mean of a row)"
    elif curves.name in ("rmse", "mae"):
        label = f"{label} (in units of {units or 'the target'})"
    elif curves.name == "learning_rate":
        label = "learning rate (each step's factor)"
    rows = list(curves.curves)
    shown = {name: values for name, values in curves.curves.items() if np.isfinite(values).any()}
    if list(shown) == ["validation"]:
        label += " (validation rows)"

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        few = len(curves.epochs) <= 30
        drawn = {name: np.where(np.abs(of) < _LARGEST, of, np.nan) for name, of in shown.items()}
        for number, (name, values) in enumerate(drawn.items()):
            marker = MARKERS[number] if few else None
            axes.plot(curves.epochs, values, marker=marker, markersize=4, label=name, **palette.line(number))
        finite = np.concatenate([values[np.isfinite(values)] for values in drawn.values()] or [np.ones(1)])
        if curves.name == "loss" and len(finite) and finite.min() > 0 and finite.max() > 20 * finite.min():
            axes.set_yscale("log")
        axes.set_xlabel("epoch (passes over the training rows)")
        axes.set_ylabel(literal(label).replace(" (", "\n("))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid()
        if len(shown) > 1:
            axes.legend()

    return Plot(
        f"learning-{re.sub(r'[^A-Za-z0-9]+', '-', curves.name)}",
        _NAMES.get(words, words.capitalize()),
        " ".join(_course(name, values, curves) for name, values in shown.items()),
        ["epoch", *rows],
        [[str(epoch), *cells] for epoch, *cells in zip(curves.epochs, *_cells(curves), strict=True)],
        draw,
    )


def _cells(curves: LearningCurves) -> list[list[str]]:
    return [[number_text(value) for value in values] for values in curves.curves.values()]


def _course(name: str, values: NDArray[np.float64], curves: LearningCurves) -> str:
    """Say how a curve goes: from where to where, and where it was best."""
    finite = np.flatnonzero(np.isfinite(values))
    first, last = values[finite[0]], values[finite[-1]]
    words = f"{name.capitalize()}: from {number_text(first)} to {number_text(last)}"
    known = METRICS.get(curves.name)
    if name == "validation":
        greater = known is not None and known.greater_is_better
        best = finite[np.argmax(values[finite]) if greater else np.argmin(values[finite])]
        kind = "greatest" if greater else "least"
        words += f", {kind}, {number_text(values[best])}, in epoch {curves.epochs[best]}"
    return words + "."
