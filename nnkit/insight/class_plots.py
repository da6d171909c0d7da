"""The plots of a classifier's predictions: confusion, curves over thresholds, calibration.

Order: the figures, then the plots that draw them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError
from nnkit.insight.drawing import Palette, Plot, grid_of, literal, number_text, tinted
from nnkit.insight.evaluated_model import EvaluatedModel

__all__ = [
    "Calibration",
    "Curve",
    "calibration",
    "calibration_of",
    "calibration_plot",
    "confusion_plot",
    "precision_recall_curve",
    "precision_recall_plot",
    "roc_curve",
    "roc_plot",
]

_MOST_CURVES = 10
_MOST_CLASSES_WRITTEN = 15  # in the cells of a confusion matrix
_MOST_LABELS = 12
_ONE_KIND = "a curve over thresholds needs positive and negative rows, and all of these are of one kind"


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve over all thresholds, from the highest to the lowest."""

    x: NDArray[np.float64]  # shape (points,), from 0 to 1
    y: NDArray[np.float64]
    area: float  # the area under a ROC curve; the average precision of a precision-recall curve


@dataclass(frozen=True, eq=False)
class Calibration:
    """Reliability: the observed frequency per predicted probability."""

    edges: NDArray[np.float64]  # of the bins of probability, shape (bins + 1,)
    predicted: NDArray[np.float64]  # the mean probability in each bin, shape (bins,); NaN where it is empty
    observed: NDArray[np.float64]  # the share of positives in each bin; NaN where it is empty
    counts: NDArray[np.int64]
    error: float  # the expected calibration error: the mean of |predicted − observed| over all samples


def roc_curve(truth: NDArray, scores: NDArray) -> Curve:
    """Return the true positive rate (y) by the false positive rate (x) of scores, shape (samples,)."""
    from sklearn import metrics

    _check_scores(truth, scores)
    x, y, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    return Curve(x, y, float(metrics.auc(x, y)))


def precision_recall_curve(truth: NDArray, scores: NDArray) -> Curve:
    """Return precision (y) by recall (x) of scores, shape (samples,)."""
    from sklearn import metrics

    _check_scores(truth, scores)
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    return Curve(recall[::-1], precision[::-1], float(metrics.average_precision_score(truth, scores)))


def calibration(truth: NDArray, probabilities: NDArray, bins: int = 15) -> Calibration:
    """Return the reliability of probabilities, in bins of equal width.

    The bins are those of scikit-learn's `calibration_curve`, which keeps no counts. The error is equation 3
    of Guo et al. 2017, "On calibration of modern neural networks" (arXiv:1706.04599), who take 15 bins too.
    """
    _check_finite(probabilities)
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.searchsorted(edges[1:-1], probabilities)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(place, probabilities, bins) / counts
        observed = np.bincount(place, truth.astype(np.float64), bins) / counts
    error = float(np.nansum(np.abs(predicted - observed) * counts) / max(len(probabilities), 1))
    return Calibration(edges, predicted, observed, counts, error)


def calibration_of(evaluated: EvaluatedModel) -> tuple[Calibration, str]:
    """Return a classifier's calibration, and what its probabilities are of."""
    probabilities = evaluated.probabilities
    if evaluated.task == "binary":
        return calibration(evaluated.truth == 1, probabilities[:, 1]), f"probability of {evaluated.labels[1]}"
    if evaluated.task == "multilabel":
        return calibration(evaluated.truth.ravel() == 1, probabilities.ravel()), "probability of a label"
    right = evaluated.truth == evaluated.predicted
    return calibration(right, probabilities.max(axis=1)), "probability of the predicted class"


def _check_scores(truth: NDArray, scores: NDArray) -> None:
    _check_finite(scores)
    if not truth.any() or truth.all():
        raise DataError(_ONE_KIND)


def _check_finite(probabilities: NDArray) -> None:
    if not np.isfinite(probabilities).all():
        raise DataError("the model's probabilities are not finite: its training diverged; lower the rate")


def confusion_plot(evaluated: EvaluatedModel) -> Plot:
    """Return the confusion matrix; one for each label of a multilabel model.

    Raises
    ------
    DataError
        If the model is a regression.
    """
    from sklearn.metrics import confusion_matrix

    if evaluated.task == "multilabel":
        return _labels_plot(evaluated)
    if evaluated.task == "regression":
        raise DataError("a confusion matrix is of classes, and this is a regression model")
    labels = evaluated.labels
    counts = confusion_matrix(evaluated.truth, evaluated.predicted, labels=np.arange(len(labels)))

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        few = len(labels) <= _MOST_CLASSES_WRITTEN
        _draw_counts(axes, counts, few)
        if len(labels) <= 40:
            size, ticks = 9 if few else 6, [literal(label) for label in labels]
            long = max(map(len, labels)) * len(labels) > 50
            axes.set_xticks(range(len(labels)), ticks, rotation="vertical" if long else 0, fontsize=size)
            axes.set_yticks(range(len(labels)), ticks, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")

    right, total = int(np.trace(counts)), int(counts.sum())
    wrong = counts - np.diag(np.diag(counts))
    words = f"{right:,} of {total:,} {evaluated.kind} rows are right ({right / total:.2%})."
    if wrong.any():
        row, column = np.unravel_index(np.argmax(wrong), wrong.shape)
        words += f" The most frequent mistake, {wrong[row, column]:,} times: {labels[row]} is predicted as "
        words += f"{labels[column]}."
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
    """Return a 2 × 2 matrix for each label, or for those with the most mistakes."""
    from sklearn.metrics import multilabel_confusion_matrix

    counts, labels = multilabel_confusion_matrix(evaluated.truth, evaluated.predicted), evaluated.labels
    wrong = counts[:, 0, 1] + counts[:, 1, 0]
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_LABELS])
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)

    def draw(figure: Any, palette: Palette) -> None:
        for axes, place in zip(grid_of(figure, lines, columns, len(shown)), shown, strict=True):
            label = labels[place]
            _draw_counts(axes, counts[place], written=True)
            axes.set_title(literal(label if len(label) <= 24 else label[:23] + "…"), fontsize=9)
            axes.set_xticks([0, 1], ["no", "yes"], fontsize=8)
            axes.set_yticks([0, 1], ["no", "yes"], fontsize=8)
            axes.set_xlabel("predicted", fontsize=8)
            axes.set_ylabel("true", fontsize=8)

    every = int((evaluated.truth == evaluated.predicted).all(axis=1).sum())
    worst = int(np.argmax(wrong))
    total = len(evaluated.truth)
    words = (
        f"{every:,} of {total:,} {evaluated.kind} rows are right in every label ({every / total:.2%}). "
        f"The label with the most mistakes, {wrong[worst]:,}, is {labels[worst]}: "
        f"{counts[worst, 1, 0]:,} false negatives and {counts[worst, 0, 1]:,} false positives. "
        "A cell is tinted by its share of the true value."
    )
    if len(shown) < len(labels):
        words += f" Drawn are the {len(shown)} of {len(labels)} labels with the most mistakes."
    headers = ["label", "true negatives", "false positives", "false negatives", "true positives"]
    rows = [
        [label, *(f"{count:,}" for count in matrix.ravel())]
        for label, matrix in zip(labels, counts, strict=True)
    ]
    size = (1.75 * columns + 0.4, 1.7 * lines)
    return Plot("confusion", "Confusion matrices", words, headers, rows, draw, size)


def roc_plot(evaluated: EvaluatedModel) -> Plot:
    """Return the ROC curve; of more than two classes, of each against the rest.

    Raises
    ------
    DataError
        If the model is a regression, or the rows are all of one class.
    """
    words = "The true positive rate by the false positive rate, of each class against the others."
    axes = ("false positive rate", "true positive rate")
    return _curves(evaluated, "roc", "ROC curve", roc_curve, axes, "area", words)


def precision_recall_plot(evaluated: EvaluatedModel) -> Plot:
    """Return precision by recall; of more than two classes, of each against the rest.

    Raises
    ------
    DataError
        As `roc_plot` does.
    """
    words = "The precision by the recall, of each class against the others."
    axes = ("recall", "precision")
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
) -> Plot:
    curves = {name: curve_of(*pair) for name, pair in _against_rest(evaluated).items()}
    kind = "label" if evaluated.task == "multilabel" else "class"
    worst = sorted(curves, key=lambda name: curves[name].area)
    chosen = curves if len(curves) <= _MOST_CURVES else {name: curves[name] for name in worst[:_MOST_CURVES]}

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        # Between two points of a precision-recall curve precision is not linear (Davis and Goadrich 2006).
        style = "default" if key == "roc" else "steps-pre"
        for number, (name, curve) in enumerate(chosen.items()):
            label, places = f"{literal(name)} ({curve.area:.3f})", _visible(curve)
            line = {"drawstyle": style, "linewidth": 1.4, "label": label, **palette.line(number)}
            axes.plot(curve.x[places], curve.y[places], **line)
        if key == "roc":
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
        words += f" The {area} for {worst[0]} is {curves[worst[0]].area:.4f}."
    else:
        words += f" The {area} is lowest for {worst[0]}, {curves[worst[0]].area:.4f}"
        words += f", and {np.mean([curve.area for curve in curves.values()]):.4f} in the mean."
    if len(chosen) < len(curves):
        words += f" Drawn are the {len(chosen)} of {len(curves)} with the lowest."
    rows = [[name, f"{curve.area:.4f}"] for name, curve in curves.items()]
    size = (4.8, 4.4 if len(chosen) > 4 else 3.4)
    return Plot(key, title, words, [kind, area], rows, draw, size)


def _against_rest(evaluated: EvaluatedModel) -> dict[str, tuple[NDArray, NDArray]]:
    """Return truth and scores for each class or label; of two classes, for the second."""
    truth, labels = evaluated.truth, evaluated.labels
    positive = truth == 1 if evaluated.task == "multilabel" else truth[:, None] == np.arange(len(labels))
    pairs = dict(zip(labels, zip(positive.T, evaluated.probabilities.T, strict=True), strict=True))
    if evaluated.task == "binary":
        return {labels[1]: pairs[labels[1]]}
    found = {name: pair for name, pair in pairs.items() if pair[0].any() and not pair[0].all()}
    if not found:
        raise DataError(_ONE_KIND)
    return found


def _visible(curve: Curve) -> NDArray[np.int64]:
    """Return the points that a picture of some hundred dots a side can show, first and last among them."""
    places = np.round(np.stack([curve.x, curve.y]) * 500)
    moved = np.any(np.diff(places, axis=1) != 0, axis=0)
    return np.flatnonzero(np.concatenate([[True], moved]) | np.concatenate([moved, [True]]))


def calibration_plot(evaluated: EvaluatedModel) -> Plot:
    """Return the observed frequency per predicted probability.

    The probability is that of the second of two classes; of the predicted one of more classes; of each
    label of a multilabel model.

    Raises
    ------
    DataError
        If the model is a regression.
    """
    bins, described = calibration_of(evaluated)
    full = bins.counts > 0
    middles, width = (bins.edges[1:] + bins.edges[:-1]) / 2, bins.edges[1] - bins.edges[0]

    def draw(figure: Any, palette: Palette) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        axes.plot([0, 1], [0, 1], color=palette.soft, linewidth=0.8, linestyle=":", label="perfect")
        line = {"marker": "o", "markersize": 4, "label": "observed", **palette.line(0)}
        axes.plot(bins.predicted[full], bins.observed[full], **line)
        axes.set_ylabel("observed share")
        axes.legend()
        axes.grid()
        below.bar(middles, bins.counts, 0.9 * width, color=palette.series[0])
        below.set_yscale("symlog")
        below.set_xlim(0, 1)
        below.set_ylabel("count")
        below.set_xlabel(f"{literal(described)} (predicted)")

    worst = int(np.nanargmax(np.abs(bins.predicted - bins.observed) * bins.counts))
    words = (
        f"The expected calibration error is {bins.error:.4f}, over {len(bins.counts)} bins. Most of it is "
        f"from the {bins.counts[worst]:,} rows with a mean probability of {bins.predicted[worst]:.3f}: the "
        f"observed share is {bins.observed[worst]:.3f}."
    )
    rows = [
        [f"{low:.3f} to {high:.3f}", *(number_text(x) if n else "–" for x in shares), f"{n:,}"]
        for low, high, *shares, n in zip(
            bins.edges[:-1], bins.edges[1:], bins.predicted, bins.observed, bins.counts, strict=True
        )
    ]
    headers = ["probability", "mean probability", "observed share", "count"]
    return Plot("calibration", "Calibration", words, headers, rows, draw, (4.8, 4.2))
