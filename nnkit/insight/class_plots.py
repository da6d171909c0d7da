"""The plots of a classifier's answers: confusion, curves over thresholds, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError
from nnkit.insight.drawing import Palette, Plot, literal, number_text, tinted
from nnkit.insight.evaluated_model import EvaluatedModel
from nnkit.insight.evaluation import (
    Calibration,
    Curve,
    calibration,
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_curve,
    roc_curve,
)

__all__ = [
    "calibration_of",
    "calibration_plot",
    "confusion",
    "confusion_plot",
    "precision_recall_plot",
    "roc_plot",
]

_MOST_CURVES = 10
_MOST_CLASSES_WRITTEN = 15  # in the cells of a confusion matrix
_MOST_LABELS = 12


def confusion_plot(evaluated: EvaluatedModel) -> Plot:
    """Return how many rows of each class are predicted as each; of several labels, of each its no and yes.

    Raises
    ------
    DataError
        If the model is a regression.
    """
    if evaluated.task == "multilabel":
        return _labels_plot(evaluated)
    counts, labels = confusion(evaluated), evaluated.labels

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        few = len(labels) <= _MOST_CLASSES_WRITTEN
        _draw_counts(axes, counts, few)
        if len(labels) <= 40:
            size, ticks = 9 if few else 6, [literal(label) for label in labels]
            axes.set_xticks(
                range(len(labels)), ticks, rotation="vertical" if _long(labels) else 0, fontsize=size
            )
            axes.set_yticks(range(len(labels)), ticks, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")

    right, total = int(np.trace(counts)), int(counts.sum())
    wrong = counts - np.diag(np.diag(counts))
    words = f"{right:,} of {total:,} {evaluated.kind} rows are right ({right / total:.2%})."
    if wrong.any():
        row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
        words += f" Most often, {wrong[row, column]:,} times, {labels[row]} is taken for {labels[column]}."
    words += " A cell is tinted by its share of the true class."
    rows = [[label, *(f"{count:,}" for count in line)] for label, line in zip(labels, counts, strict=True)]
    headers = ["true \\ predicted", *labels]
    return Plot("confusion", "Confusion matrix", words, headers, rows, draw, (5.0, 4.8))


def _draw_counts(axes: Any, counts: NDArray[np.int64], written: bool) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(tinted(shares), interpolation="nearest")
    for (row, column), count in np.ndenumerate(counts):
        if written and count:
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8)
    axes.spines[:].set_visible(False)


def _labels_plot(evaluated: EvaluatedModel) -> Plot:
    """Return a matrix of no and yes for each label, those with the most mistakes where they are many."""
    counts, labels = multilabel_confusion_matrix(evaluated.truth, evaluated.predicted), evaluated.labels
    wrong = counts[:, 0, 1] + counts[:, 1, 0]
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_LABELS])
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)

    def draw(figure: Any, palette: Palette) -> None:
        grid = figure.subplots(lines, columns, squeeze=False)
        for place, axes in enumerate(np.ravel(grid)):
            if place >= len(shown):
                axes.set_visible(False)
                continue
            _draw_counts(axes, counts[shown[place]], written=True)
            axes.set_title(literal(_cut(labels[shown[place]])), fontsize=9)
            axes.set_xticks([0, 1], ["no", "yes"], fontsize=8)
            axes.set_yticks([0, 1], ["no", "yes"], fontsize=8)
            axes.set_xlabel("predicted", fontsize=8)
            axes.set_ylabel("true", fontsize=8)

    every = int((evaluated.truth == evaluated.predicted).all(axis=1).sum())
    worst = int(np.argmax(wrong))
    total = len(evaluated.truth)
    words = (
        f"{every:,} of {total:,} {evaluated.kind} rows are right in every label ({every / total:.2%}). "
        f"The most mistakes, {wrong[worst]:,}, are about {labels[worst]}: rows with it that were missed, "
        f"{counts[worst, 1, 0]:,}; rows without it that it was said of, {counts[worst, 0, 1]:,}. "
        "A cell is tinted by its share of the true."
    )
    if len(shown) < len(labels):
        words += f" Drawn are the {len(shown)} of {len(labels)} labels with the most mistakes."
    rows = [
        [label, *(f"{count:,}" for count in of.ravel())] for label, of in zip(labels, counts, strict=True)
    ]
    headers = ["label", "no, said no", "no, said yes", "yes, said no", "yes, said yes"]
    return Plot(
        "confusion", "Confusion matrices", words, headers, rows, draw, (1.75 * columns + 0.4, 1.7 * lines)
    )


def _cut(label: str) -> str:
    return label if len(label) <= 24 else label[:23] + "…"


def confusion(evaluated: EvaluatedModel) -> NDArray[np.int64]:
    """Return the confusion matrix of a evaluated; a DataError where its answer is not one class."""
    if evaluated.task not in ("binary", "multiclass"):
        raise DataError(f"a confusion matrix is of one class a row, and this is a {evaluated.task} model")
    return confusion_matrix(evaluated.truth, evaluated.predicted, len(evaluated.labels))


def _long(labels: Sequence[str]) -> bool:
    return max(map(len, labels)) * len(labels) > 50


def _against_rest(evaluated: EvaluatedModel) -> dict[str, tuple[NDArray, NDArray]]:
    """Return truth and scores by the class or label that they ask for; of two classes, of the second."""
    probabilities, labels = evaluated.probabilities, evaluated.labels
    if evaluated.task == "binary":
        return {labels[1]: (evaluated.truth == 1, probabilities[:, 1])}
    if evaluated.task == "multilabel":
        pairs = {name: (evaluated.truth[:, k] == 1, probabilities[:, k]) for k, name in enumerate(labels)}
    else:
        pairs = {name: (evaluated.truth == k, probabilities[:, k]) for k, name in enumerate(labels)}
    both = {name: pair for name, pair in pairs.items() if pair[0].any() and not pair[0].all()}
    if not both:
        raise DataError("a curve over thresholds wants rows of both kinds, and all of these are of one")
    return both


def roc_plot(evaluated: EvaluatedModel) -> Plot:
    """Return the ROC curve; of more than two classes, of each against the rest.

    Raises
    ------
    DataError
        If the model is a regression, or the rows are all of one class.
    """
    words = "Share of the other rows taken for it (false positives), and of its own found (true positives)."
    axes = ("false positive rate (share of the others)", "true positive rate (of its own)")
    return _curves(evaluated, "roc", "ROC curve", roc_curve, axes, "area", words, diagonal=True)


def precision_recall_plot(evaluated: EvaluatedModel) -> Plot:
    """Return precision by recall; of more than two classes, of each against the rest.

    Raises
    ------
    DataError
        As `roc_plot` does.
    """
    words = "Share of its own found (recall), and share of what is taken for it that is it (precision)."
    axes = ("recall (share of its own found)", "precision (share of those right)")
    title, area = "Precision and recall", "average precision"
    return _curves(evaluated, "precision-recall", title, precision_recall_curve, axes, area, words)


def _curves(
    evaluated: EvaluatedModel,
    key: str,
    title: str,
    curve_of: Callable[[NDArray, NDArray], Curve],
    labels: tuple[str, str],
    area: str,
    words: str,
    diagonal: bool = False,
) -> Plot:
    curves = {name: curve_of(*pair) for name, pair in _against_rest(evaluated).items()}
    kind = "label" if evaluated.task == "multilabel" else "class"
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
        title = {"title": f"{kind} ({area})", "title_fontsize": 8, "fontsize": 8}
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
    return Plot(key, title, words, [kind, area], rows, draw, size)


def _kept(curve: Curve) -> NDArray[np.int64]:
    """Return the points that a picture of some hundred dots a side can show, first and last among them."""
    places = np.round(np.stack([curve.x, curve.y]) * 500)
    moved = np.any(np.diff(places, axis=1) != 0, axis=0)
    return np.flatnonzero(np.concatenate([[True], moved]) | np.concatenate([moved, [True]]))


def calibration_plot(evaluated: EvaluatedModel) -> Plot:
    """Return how often what is said with a probability is so.

    Of two classes the probability is that of the second; of more, that of the class that is predicted; of
    several labels, each label's.

    Raises
    ------
    DataError
        If the model is a regression.
    """
    bins, said = calibration_of(evaluated)
    return _calibration(bins, said)


def calibration_of(evaluated: EvaluatedModel) -> tuple[Calibration, str]:
    """Return the bins of a evaluated, and what the probabilities in them are of."""
    probabilities = evaluated.probabilities
    if evaluated.task == "binary":
        return calibration(evaluated.truth == 1, probabilities[:, 1]), f"probability of {evaluated.labels[1]}"
    if evaluated.task == "multilabel":
        return calibration(evaluated.truth.ravel() == 1, probabilities.ravel()), "probability of a label"
    right = evaluated.truth == evaluated.predicted
    return calibration(right, probabilities.max(axis=1)), "probability of the predicted class"


def _calibration(bins: Calibration, said: str) -> Plot:
    full = bins.counts > 0
    middles, width = (bins.edges[1:] + bins.edges[:-1]) / 2, bins.edges[1] - bins.edges[0]

    def draw(figure: Any, palette: Palette) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        axes.plot([0, 1], [0, 1], color=palette.soft, linewidth=0.8, linestyle=":", label="perfect")
        axes.plot(
            bins.said[full], bins.found[full], marker="o", markersize=4, label="observed", **palette.line(0)
        )
        axes.set_ylabel("observed share")
        axes.legend()
        axes.grid()
        below.bar(middles, bins.counts, 0.9 * width, color=palette.series[0])
        below.set_yscale("symlog")
        below.set_xlim(0, 1)
        below.set_ylabel("count")
        below.set_xlabel(f"{literal(said)} (predicted)")

    worst = int(np.nanargmax(np.abs(bins.said - bins.found) * bins.counts))
    words = (
        f"The expected calibration error is {bins.error:.4f}, over {len(bins.counts)} bins. Most of it is "
        f"from the {bins.counts[worst]:,} rows with a mean probability of {bins.said[worst]:.3f}: the "
        f"observed share is {bins.found[worst]:.3f}."
    )
    rows = [
        [
            f"{low:.3f} to {high:.3f}",
            *(number_text(share) if count else "–" for share in (mean, found)),
            f"{count:,}",
        ]
        for low, high, mean, found, count in zip(
            bins.edges[:-1], bins.edges[1:], bins.said, bins.found, bins.counts, strict=True
        )
    ]
    headers = ["probability", "mean probability", "observed share", "count"]
    return Plot("calibration", "Calibration", words, headers, rows, draw, (4.8, 4.2))
