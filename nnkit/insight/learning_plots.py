"""The plots of a training by its epochs, and of a learning-rate range test."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.diagnostics.rate_test import RateCurve
from nnkit.errors import ConfigError, DataError
from nnkit.insight.drawing import MARKERS, Palette, Plot, literal, number_text
from nnkit.nn.metrics import get_metric
from nnkit.training.history import History

__all__ = ["learning_plots", "rate_plot"]

_NOT_DRAWN = ("epoch", "step", "seconds", "samples_per_second")
_NAMES = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "roc auc": "ROC AUC"}
_LARGEST = 1e100  # of a diverged training; beyond, matplotlib finds no ticks for an axis
_ABOVE = 1.3  # times the range of the smoothed loss: a loss that soars would flatten all else


def learning_plots(history: History, loss: str = "", units: str = "") -> list[Plot]:
    """Return a plot for the loss, for each metric and for the learning rate, by epoch.

    Parameters
    ----------
    history : History
        Of the training.
    loss : str
        The loss's name.
    units : str
        The target's name, which gives a regression's errors their unit.

    Raises
    ------
    DataError
        If no epoch has ended.
    """
    if not len(history):
        raise DataError("the training has no epoch yet: there is nothing to draw")
    names = dict.fromkeys(name.removeprefix("validation_") for name in history.columns)
    shown = [name for name in names if name not in _NOT_DRAWN]
    shown.sort(key=lambda name: (name != "loss", name == "learning_rate"))
    return [_learning(history, name, loss, units) for name in shown]


def _learning(history: History, name: str, loss: str, units: str) -> Plot:
    """Return the plot of one metric, on training and on validation rows."""
    epochs = history["epoch"].astype(np.int64)
    columns = {"training": name, "validation": f"validation_{name}"}
    curves = {rows: history[column] for rows, column in columns.items() if column in history}
    words = name.replace("_", " ")
    label = _NAMES.get(words, words)
    if name == "loss":
        label = f"loss ({loss.replace('_', ' ')}, mean of a row)" if loss else "loss (mean of a row)"
    elif name in ("rmse", "mae"):
        label = f"{label} (in units of {units or 'the target'})"
    elif name == "learning_rate":
        label = "learning rate (each step's factor)"
    shown = {rows: values for rows, values in curves.items() if np.isfinite(values).any()}
    if list(shown) == ["validation"]:
        label += " (validation rows)"

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        few = len(epochs) <= 30
        drawn = {rows: np.where(np.abs(values) < _LARGEST, values, np.nan) for rows, values in shown.items()}
        for number, (rows, values) in enumerate(drawn.items()):
            marker = MARKERS[number] if few else None
            axes.plot(epochs, values, marker=marker, markersize=4, label=rows, **palette.line(number))
        finite = np.concatenate([values[np.isfinite(values)] for values in drawn.values()] or [np.ones(1)])
        if name == "loss" and len(finite) and finite.min() > 0 and finite.max() > 20 * finite.min():
            axes.set_yscale("log")
        axes.set_xlabel("epoch (passes over the training rows)")
        axes.set_ylabel(literal(label).replace(" (", "\n("))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid()
        if len(shown) > 1:
            axes.legend()

    key = f"learning-{re.sub(r'[^A-Za-z0-9]+', '-', name)}"
    described = " ".join(_course(name, rows, values, epochs) for rows, values in shown.items())
    cells = [map(number_text, values) for values in curves.values()]
    table = [[str(epoch), *line] for epoch, *line in zip(epochs, *cells, strict=True)]
    title = _NAMES.get(words, words.capitalize())
    return Plot(key, title, described, ["epoch", *curves], table, draw)


def _higher_is_better(name: str) -> bool:
    try:
        return get_metric(name).greater_is_better
    except ConfigError:  # the loss, or a metric that this process has not registered
        return False


def _course(name: str, rows: str, values: NDArray[np.float64], epochs: NDArray[np.int64]) -> str:
    """Describe a curve: its first and last value, and on validation rows its best."""
    finite = np.flatnonzero(np.isfinite(values))
    first, last = values[finite[0]], values[finite[-1]]
    words = f"{rows.capitalize()}: from {number_text(first)} to {number_text(last)}"
    if rows == "validation":
        higher = _higher_is_better(name)
        best = finite[np.argmax(values[finite]) if higher else np.argmin(values[finite])]
        kind = "highest" if higher else "lowest"
        words += f", {kind} in epoch {epochs[best]}, {number_text(values[best])}"
    return words + "."


def rate_plot(curve: RateCurve) -> Plot:
    """Return a range test's losses by learning rate, with the suggested rate and that of the lowest loss."""
    low = float(curve.smoothed.min())
    top = float(curve.smoothed[: int(np.argmin(curve.smoothed)) + 1].max())

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        axes.plot(curve.rates, curve.losses, ".", markersize=3, color=palette.soft, label="of each step")
        axes.plot(curve.rates, curve.smoothed, color=palette.series[0], label="smoothed")
        for rate, name, number in ((curve.suggested, "suggested", 1), (curve.least, "lowest loss", 2)):
            line = palette.line(number)
            axes.axvline(rate, color=line["color"], linestyle="--", label=f"{name}: {rate:.2g}")
        axes.set_xscale("log")
        room = max(top - low, 1e-12)
        axes.set_ylim(low - 0.1 * room, low + _ABOVE * room)
        axes.set_xlabel("learning rate (of one step, rising)")
        axes.set_ylabel("loss (mean of a row of the batch)")
        axes.grid()
        figure.legend(loc="outside lower center", ncols=2)

    rises = "rises beyond" if curve.diverged else "does not rise up to the last rate"
    words = (
        f"The loss at learning rates that rise from {curve.rates[0]:.2g} to {curve.rates[-1]:.2g}: it is "
        f"lowest at {curve.least:.2g} and {rises}. A tenth of that is suggested, {curve.suggested:.2g}."
    )
    rows = [
        [f"{rate:.4g}", f"{loss:.6g}", f"{smooth:.6g}"]
        for rate, loss, smooth in zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    ]
    headers = ["learning rate", "loss", "smoothed"]
    return Plot("rate", "Learning-rate range test", words, headers, rows, draw, (4.8, 3.9))
