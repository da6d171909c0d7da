"""The plots of a trained model on rows with their truth, and of its training.

Order: epochs, classes, probabilities, values, mistakes, weights. Each function returns a `Plot`, whose
numbers and words are made here and which matplotlib draws when it is asked for; `nnkit.insight.surfaces` has
those that run the network on a grid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.core.metrics import METRICS
from nnkit.errors import DataError
from nnkit.insight.drawing import MARKERS, Palette, Plot, literal
from nnkit.insight.evaluation import (
    Calibration,
    Curve,
    LearningCurves,
    calibration,
    confusion_matrix,
    learning_curves,
    precision_recall_curve,
    residuals,
    roc_curve,
)
from nnkit.insight.examples import picture_of
from nnkit.insight.subject import Subject, as_picture, is_picture_shape
from nnkit.model import Model
from nnkit.training.history import History

__all__ = [
    "calibration_plot",
    "confusion_plot",
    "learning_plots",
    "mistakes_plot",
    "precision_recall_plot",
    "predicted_plot",
    "residuals_plot",
    "roc_plot",
    "weights_plot",
]

_MOST_CURVES = 10
_MOST_CLASSES_WRITTEN = 15  # in the cells of a confusion matrix
_MOST_POINTS = 2000  # of a scatter: a page of 20,000 takes 2 MB more and shows no more
_MOST_UNITS = 64
_LARGEST = 1e100  # of a diverged training; beyond, matplotlib finds no ticks for an axis
# Of two signs, each over a light and a dark surface.
_POSITIVE, _NEGATIVE = (0.18, 0.50, 0.86), (0.87, 0.42, 0.12)


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
    label = words
    if curves.name == "loss":
        label = f"loss ({loss.replace('_', ' ')}, mean of a row)" if loss else "loss (mean of a row)"
    elif curves.name in ("rmse", "mae"):
        label = f"{curves.name.upper()} (in units of {units or 'the target'})"
    elif curves.name == "learning_rate":
        label = "learning rate (each step's factor)"
    rows = list(curves.curves)
    shown = {name: values for name, values in curves.curves.items() if np.isfinite(values).any()}

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
        words.capitalize() if words not in ("rmse", "mae") else words.upper(),
        " ".join(_course(name, values, curves) for name, values in shown.items()),
        ["epoch", *rows],
        [[str(epoch), *cells] for epoch, *cells in zip(curves.epochs, *_cells(curves), strict=True)],
        draw,
    )


def _cells(curves: LearningCurves) -> list[list[str]]:
    return [[_number(value) for value in values] for values in curves.curves.values()]


def _course(name: str, values: NDArray[np.float64], curves: LearningCurves) -> str:
    """Say how a curve goes: from where to where, and where it was best."""
    finite = np.flatnonzero(np.isfinite(values))
    first, last = values[finite[0]], values[finite[-1]]
    words = f"{name.capitalize()}: from {_number(first)} to {_number(last)}"
    known = METRICS.get(curves.name)
    if name == "validation":
        greater = known is not None and known.greater_is_better
        best = finite[np.argmax(values[finite]) if greater else np.argmin(values[finite])]
        words += (
            f", {'greatest' if greater else 'least'}, {_number(values[best])}, in epoch {curves.epochs[best]}"
        )
    return words + "."


def confusion_plot(subject: Subject) -> Plot:
    """Return how many rows of each class are predicted as each.

    Raises
    ------
    DataError
        If the model's answer is not one class.
    """
    counts, labels = confusion(subject), subject.labels

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(_tinted(shares), interpolation="nearest")
        few = len(labels) <= _MOST_CLASSES_WRITTEN
        for (row, column), count in np.ndenumerate(counts):
            if few and count:
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8)
        if len(labels) <= 40:
            size, ticks = 9 if few else 6, [literal(label) for label in labels]
            axes.set_xticks(
                range(len(labels)), ticks, rotation="vertical" if _long(labels) else 0, fontsize=size
            )
            axes.set_yticks(range(len(labels)), ticks, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.spines[:].set_visible(False)

    right, total = int(np.trace(counts)), int(counts.sum())
    wrong = counts - np.diag(np.diag(counts))
    words = f"{right:,} of {total:,} {subject.kind} rows are right ({right / total:.2%})."
    if wrong.any():
        row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
        words += f" Most often, {wrong[row, column]:,} times, {labels[row]} is taken for {labels[column]}."
    words += " A cell is tinted by its share of the true class."
    rows = [[label, *(f"{count:,}" for count in line)] for label, line in zip(labels, counts, strict=True)]
    headers = ["true \\ predicted", *labels]
    return Plot("confusion", "Confusion matrix", words, headers, rows, draw, (5.0, 4.8))


def confusion(subject: Subject) -> NDArray[np.int64]:
    """Return the confusion matrix of a subject; a DataError where its answer is not one class."""
    if subject.task not in ("binary", "multiclass"):
        raise DataError(f"a confusion matrix is of one class a row, and this is a {subject.task} model")
    return confusion_matrix(subject.truth, subject.predicted, len(subject.labels))


def _long(labels: Sequence[str]) -> bool:
    return max(map(len, labels)) * len(labels) > 50


def _tinted(shares: NDArray) -> NDArray:
    """Return colours for shares, or for numbers of both signs up to 1: clear at 0, on any surface."""
    colours = np.empty((*shares.shape, 4))
    colours[..., :3] = np.where((shares < 0)[..., None], _NEGATIVE, _POSITIVE)
    colours[..., 3] = np.minimum(np.abs(shares), 1)
    return colours


def _against_rest(subject: Subject) -> dict[str, tuple[NDArray, NDArray]]:
    """Return truth and scores by the class or label that they ask for; of two classes, of the second."""
    probabilities, labels = subject.probabilities, subject.labels
    if subject.task == "binary":
        return {labels[1]: (subject.truth == 1, probabilities[:, 1])}
    if subject.task == "multilabel":
        pairs = {name: (subject.truth[:, k] == 1, probabilities[:, k]) for k, name in enumerate(labels)}
    else:
        pairs = {name: (subject.truth == k, probabilities[:, k]) for k, name in enumerate(labels)}
    both = {name: pair for name, pair in pairs.items() if pair[0].any() and not pair[0].all()}
    if not both:
        raise DataError("a curve over thresholds wants rows of both kinds, and all of these are of one")
    return both


def roc_plot(subject: Subject) -> Plot:
    """Return the ROC curve; of more than two classes, of each against the rest.

    Raises
    ------
    DataError
        If the model is a regression, or the rows are all of one class.
    """
    curves = {name: roc_curve(*pair) for name, pair in _against_rest(subject).items()}
    words = "Share of the other rows taken for it (false positives), and of its own found (true positives)."
    axes = ("false positive rate (share of the others)", "true positive rate (of its own)")
    return _curves("roc", "ROC curve", curves, axes, "area", words, diagonal=True)


def precision_recall_plot(subject: Subject) -> Plot:
    """Return precision by recall; of more than two classes, of each against the rest.

    Raises
    ------
    DataError
        As `roc_plot` does.
    """
    curves = {name: precision_recall_curve(*pair) for name, pair in _against_rest(subject).items()}
    words = "Share of its own found (recall), and share of what is taken for it that is it (precision)."
    axes = ("recall (share of its own found)", "precision (share of those right)")
    return _curves("precision-recall", "Precision and recall", curves, axes, "average precision", words)


def _curves(
    key: str,
    title: str,
    curves: dict[str, Curve],
    labels: tuple[str, str],
    area: str,
    words: str,
    diagonal: bool = False,
) -> Plot:
    worst = sorted(curves, key=lambda name: curves[name].area)
    chosen = curves if len(curves) <= _MOST_CURVES else {name: curves[name] for name in worst[:_MOST_CURVES]}

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        for number, (name, curve) in enumerate(chosen.items()):
            kept = _kept(curve)
            label = f"{literal(name)} ({curve.area:.3f})"
            step = {"drawstyle": "steps-pre"} if not diagonal else {}
            axes.plot(
                curve.x[kept], curve.y[kept], linewidth=1.4, label=label, **step, **palette.line(number)
            )
        if diagonal:
            axes.plot([0, 1], [0, 1], color=palette.soft, linewidth=0.8, linestyle=":")
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.grid()
        title = {"title": f"class ({area})", "title_fontsize": 8, "fontsize": 8}
        if len(chosen) > 4:  # they would hide the curves
            figure.legend(loc="outside lower center", ncols=3, **title)
        else:
            axes.legend(**title)

    if len(curves) == 1:
        [(name, curve)] = curves.items()
        words += f" The {area} for {name} is {curve.area:.4f}."
    else:
        words += f" The {area} is least for {worst[0]}, {curves[worst[0]].area:.4f}"
        words += f", and {np.mean([curve.area for curve in curves.values()]):.4f} in the mean."
    if len(chosen) < len(curves):
        words += f" Drawn are the {len(chosen)} of {len(curves)} with the least."
    rows = [[name, f"{curve.area:.4f}"] for name, curve in curves.items()]
    size = (4.8, 4.4 if len(chosen) > 4 else 3.4)
    return Plot(key, title, words, ["class", area], rows, draw, size)


def _kept(curve: Curve) -> NDArray[np.int64]:
    """Return the points that a picture of some hundred dots a side can show, first and last among them."""
    places = np.round(np.stack([curve.x, curve.y]) * 500)
    moved = np.any(np.diff(places, axis=1) != 0, axis=0)
    return np.flatnonzero(np.concatenate([[True], moved]) | np.concatenate([moved, [True]]))


def calibration_plot(subject: Subject) -> Plot:
    """Return how often what is said with a probability is so.

    Of two classes the probability is that of the second; of more, that of the class that is predicted; of
    several labels, each label's.

    Raises
    ------
    DataError
        If the model is a regression.
    """
    bins, said = calibration_of(subject)
    return _calibration(bins, said)


def calibration_of(subject: Subject) -> tuple[Calibration, str]:
    """Return the bins of a subject, and what the probabilities in them are of."""
    probabilities = subject.probabilities
    if subject.task == "binary":
        return calibration(subject.truth == 1, probabilities[:, 1]), f"probability of {subject.labels[1]}"
    if subject.task == "multilabel":
        return calibration(subject.truth.ravel() == 1, probabilities.ravel()), "probability of a label"
    right = subject.truth == subject.predicted
    return calibration(right, probabilities.max(axis=1)), "probability of the predicted class"


def _calibration(bins: Calibration, said: str) -> Plot:
    full = bins.counts > 0
    middles, width = (bins.edges[1:] + bins.edges[:-1]) / 2, bins.edges[1] - bins.edges[0]

    def draw(figure: Any, palette: Palette) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        axes.plot([0, 1], [0, 1], color=palette.soft, linewidth=0.8, linestyle=":", label="as said")
        axes.plot(
            bins.said[full], bins.found[full], marker="o", markersize=4, label="found", **palette.line(0)
        )
        axes.set_ylabel("share that is so")
        axes.legend()
        axes.grid()
        below.bar(middles, bins.counts, 0.9 * width, color=palette.series[0])
        below.set_yscale("symlog")
        below.set_xlim(0, 1)
        below.set_ylabel("count")
        below.set_xlabel(f"{literal(said)} (as the model says)")

    worst = int(np.nanargmax(np.abs(bins.said - bins.found) * bins.counts))
    words = (
        f"The expected calibration error is {bins.error:.4f}, in {len(bins.counts)} bins. It comes most from "
        f"what is said with {bins.said[worst]:.3f} and is so in {bins.found[worst]:.3f}, of "
        f"{bins.counts[worst]:,}."
    )
    rows = [
        [f"{low:.3f} to {high:.3f}", _number(mean), _number(found), f"{count:,}"]
        for low, high, mean, found, count in zip(
            bins.edges[:-1], bins.edges[1:], bins.said, bins.found, bins.counts, strict=True
        )
    ]
    headers = ["probability", "said in the mean", "found", "count"]
    return Plot("calibration", "Calibration", words, headers, rows, draw, (4.8, 4.2))


def predicted_plot(subject: Subject) -> Plot:
    """Return a regression's predicted values by the true ones.

    Raises
    ------
    DataError
        If the model is none.
    """
    _check_regression(subject)
    truth, values, labels = subject.truth, subject.values, subject.labels
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

    words = f"On the dotted line both are equal. {_spread(subject)}{_sampled(len(truth), len(chosen))}"
    headers, rows = ["output", "mean residual", "spread of residuals"], _moments(subject)
    size = (4.8, 3.4 * len(labels) if len(labels) <= 3 else 10)
    return Plot("predicted", "Predicted against true", words, headers, rows, draw, size)


def residuals_plot(subject: Subject) -> Plot:
    """Return a regression's residuals by what is predicted, and how they are spread.

    Raises
    ------
    DataError
        If the model is none.
    """
    _check_regression(subject)
    found, values, labels = residuals(subject.truth, subject.values), subject.values, subject.labels
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

    words = f"Above the dotted line the prediction is too low. {_spread(subject)}"
    words += _sampled(len(found), len(chosen))
    headers, rows = ["output", "mean residual", "spread of residuals"], _moments(subject)
    size = (4.8, 3.4 * len(labels) if len(labels) <= 3 else 10)
    return Plot("residuals", "Residuals", words, headers, rows, draw, size)


def _check_regression(subject: Subject) -> None:
    if subject.task != "regression":
        raise DataError(f"this plot is of a regression's values, and this is a {subject.task} model")


def _moments(subject: Subject) -> list[list[str]]:
    found = residuals(subject.truth, subject.values)
    return [
        [label, _number(mean), _number(spread)]
        for label, mean, spread in zip(subject.labels, found.mean(axis=0), found.std(axis=0), strict=True)
    ]


def _spread(subject: Subject) -> str:
    parts = [f"of {label} {mean} in the mean, spread {spread}" for label, mean, spread in _moments(subject)]
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


def mistakes_plot(subject: Subject, count: int = 20) -> Plot:
    """Return the most confident mistakes as pictures.

    Raises
    ------
    DataError
        If the inputs are not pictures, or there is no mistake.
    """
    if not subject.pictures:
        raise DataError("these inputs are no pictures; nnkit report lists their mistakes as a table")
    worst = subject.worst(count)
    if not len(worst):
        raise DataError(f"there is no mistake among the {len(subject.examples):,} {subject.kind} rows")
    rows = [mistake_row(subject, row) for row in worst]
    columns = min(5, len(worst))
    lines = -(-len(worst) // columns)

    def draw(figure: Any, palette: Palette) -> None:
        for axes in np.ravel(figure.subplots(lines, columns, squeeze=False))[len(worst) :]:
            axes.set_visible(False)
        for axes, row, cells in zip(figure.axes, worst, rows, strict=False):
            axes.imshow(picture_of(subject, row), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(literal(f"{cells[1]}, said {cells[2]}\n{cells[3]}"), fontsize=7)
            axes.set_axis_off()

    words = "The rows that are predicted wrong, the surest first: what is true, what is said, how surely."
    headers = ["row", "true", "said", "probability"]
    return Plot("mistakes", "The most confident mistakes", words, headers, rows, draw, (5.0, 1.25 * lines))


def mistake_row(subject: Subject, row: int) -> list[str]:
    """Return a row's number in its source, its truth, what is said of it, and how surely or how far off."""
    number = f"{subject.numbers[row]:,}"
    if subject.task == "regression":
        off = residuals(subject.truth, subject.values)[row]
        return [
            number,
            *(", ".join(map(_number, part)) for part in (subject.truth[row], subject.values[row], off)),
        ]
    labels, probabilities = subject.labels, subject.probabilities[row]
    if subject.task == "multilabel":
        named = [[labels[k] for k in np.flatnonzero(of[row])] for of in (subject.truth, subject.predicted)]
        wrong = np.flatnonzero(subject.truth[row] != subject.predicted[row])
        said = ", ".join(f"{labels[k]} {probabilities[k]:.4f}" for k in wrong)
        return [number, *(", ".join(names) or "none" for names in named), said]
    answer = int(subject.predicted[row])
    return [number, labels[subject.truth[row]], labels[answer], f"{probabilities[answer]:.4f}"]


def weights_plot(model: Model, image_shape: Sequence[int] | None) -> Plot:
    """Return the weights into each unit of the first layer as a picture, where the inputs are pictures.

    Parameters
    ----------
    model : Model
    image_shape : sequence of int, or None
        (height, width) or (channels, height, width).

    Raises
    ------
    DataError
        If the network's inputs are not the pixels of pictures.
    """
    name = next(name for name in model.network.parameters() if name.endswith(".weight"))
    weights = model.network.parameters()[name]
    shape = tuple(image_shape or ())
    if not is_picture_shape(shape) or int(np.prod(shape)) != len(weights):
        raise DataError("the inputs of this network are no pixels: its first layer makes no pictures")
    norms = np.linalg.norm(weights, axis=0)
    units = np.sort(np.argsort(-norms, kind="stable")[:_MOST_UNITS])
    side = int(np.ceil(np.sqrt(len(units))))
    lines = -(-len(units) // side)
    pictures = [_weight_picture(weights[:, unit], shape) for unit in units]

    def draw(figure: Any, palette: Palette) -> None:
        grid = np.ravel(figure.subplots(lines, side, squeeze=False))
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        for axes in grid:
            axes.set_axis_off()
        for axes, picture in zip(grid, pictures, strict=False):
            axes.imshow(picture, interpolation="nearest")

    colour = "blue is positive, orange negative, clear is 0"
    if pictures[0].shape[-1] == 3:
        colour = "each channel in its colour, grey is 0"
    words = (
        f"The weights from each pixel into a unit of the first layer: {colour}, each unit by its own largest."
    )
    if len(units) < weights.shape[1]:
        words += f" Shown are {len(units)} of {weights.shape[1]:,} units, those with the largest norms."
    rows = [[str(unit), _number(norms[unit])] for unit in units]
    return Plot(
        "weights",
        "First-layer weights",
        words,
        ["unit", "norm of its weights"],
        rows,
        draw,
        (5.0, 5.0 * lines / side),
    )


def _weight_picture(weights: NDArray, shape: tuple[int, ...]) -> NDArray:
    scaled = weights.astype(np.float64) / max(float(np.abs(weights).max()), 1e-30)
    picture = as_picture(scaled, shape)
    return _tinted(picture) if picture.ndim == 2 else 0.5 + 0.5 * picture


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
