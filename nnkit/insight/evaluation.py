"""The figures behind the pictures of a model: functions over host arrays, no plotting.

Order: classes (confusion, mistakes), probabilities (ROC, precision and recall, calibration), values
(residuals), epochs (learning curves).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError
from nnkit.nn.metrics import ranked_counts
from nnkit.training.history import History

__all__ = [
    "Calibration",
    "Curve",
    "LearningCurves",
    "calibration",
    "confident_mistakes",
    "confusion_matrix",
    "greatest_residuals",
    "learning_curves",
    "multilabel_confusion_matrix",
    "precision_recall_curve",
    "residuals",
    "roc_curve",
]


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve over all thresholds.

    Parameters
    ----------
    x, y : ndarray of shape (points,), float64
        Between 0 and 1.
    thresholds : ndarray of shape (points,), float64
        Yes is said to a score of at least so much.
    area : float
        What sums the curve up: the area under a ROC curve, the average precision of the other.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    area: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often what is said with a probability is so.

    Parameters
    ----------
    edges : ndarray of shape (bins + 1,)
        Of the bins of probability, equally wide.
    said, found : ndarray of shape (bins,)
        The mean probability in each, and the share that is so; NaN where a bin is empty.
    counts : ndarray of shape (bins,), int64
        How many are in each.
    error : float
        The expected calibration error: the mean of \\|said − found\\|, each bin by its count.
    """

    edges: NDArray[np.float64]
    said: NDArray[np.float64]
    found: NDArray[np.float64]
    counts: NDArray[np.int64]
    error: float


@dataclass(frozen=True, eq=False)
class LearningCurves:
    """What belongs in one picture of a training: a figure on training and on validation rows.

    Parameters
    ----------
    name : str
        Such as ``loss``, ``accuracy`` or ``learning_rate``.
    epochs : ndarray of shape (epochs,), int64
    curves : dict of str to ndarray of shape (epochs,)
        By the rows they are of: ``training`` and ``validation``. NaN where an epoch has none.
    """

    name: str
    epochs: NDArray[np.int64]
    curves: dict[str, NDArray[np.float64]]


def confusion_matrix(truth: NDArray, predicted: NDArray, classes: int) -> NDArray[np.int64]:
    """Return how many rows of each class are predicted as each.

    Parameters
    ----------
    truth, predicted : ndarray of shape (samples,), int
        Encoded classes, from 0 to `classes` − 1.
    classes : int

    Returns
    -------
    ndarray of shape (classes, classes)
        A row for each true class, a column for each predicted one.
    """
    pairs = truth.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def multilabel_confusion_matrix(truth: NDArray, predicted: NDArray) -> NDArray[np.int64]:
    """Return for each label how many rows without it and with it are predicted without and with.

    Parameters
    ----------
    truth, predicted : ndarray of shape (samples, labels), int
        0 or 1.

    Returns
    -------
    ndarray of shape (labels, 2, 2)
        Of each label a confusion matrix of no and yes.
    """
    pairs = zip(truth.T, predicted.T, strict=True)
    return np.stack([confusion_matrix(true, said, 2) for true, said in pairs])


def confident_mistakes(
    truth: NDArray, predicted: NDArray, probabilities: NDArray, count: int
) -> NDArray[np.int64]:
    """Return the rows that are predicted wrong, those with the most probable wrong answer first.

    Parameters
    ----------
    truth, predicted : ndarray of shape (samples,), int
        Encoded classes.
    probabilities : ndarray of shape (samples, classes)
    count : int
        At most so many.
    """
    said = np.take_along_axis(probabilities, predicted.astype(np.int64)[:, None], axis=1)[:, 0]
    wrong = np.flatnonzero(truth != predicted)
    return wrong[np.argsort(-said[wrong], kind="stable")][:count]


def roc_curve(truth: NDArray, scores: NDArray) -> Curve:
    """Return the share of all no that yes is said to (x) and of all yes (y), and the area under the curve.

    Parameters
    ----------
    truth : ndarray of shape (samples,), bool
    scores : ndarray of shape (samples,)
        Higher for a surer yes.

    Raises
    ------
    DataError
        If there are only yes, or only no, or a score is not finite.

    References
    ----------
    Fawcett 2006, "An introduction to ROC analysis", algorithms 1 and 3.
    """
    wrong, right, thresholds = _ranked(truth, scores)
    x, y = wrong / wrong[-1], right / right[-1]
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    return Curve(x, y, thresholds, area)


def precision_recall_curve(truth: NDArray, scores: NDArray) -> Curve:
    """Return recall (x) and precision (y), and the average precision.

    The average precision is the sum of the precisions, each by the recall it adds: no line is drawn between
    two points, for between them precision is not linear (Davis and Goadrich 2006).

    Parameters
    ----------
    truth, scores
        As for `roc_curve`.

    Raises
    ------
    DataError
        As `roc_curve` does.
    """
    wrong, right, thresholds = _ranked(truth, scores)
    recall, precision = right / right[-1], np.ones(len(right))
    precision[1:] = right[1:] / (right[1:] + wrong[1:])
    return Curve(recall, precision, thresholds, float(np.sum(np.diff(recall) * precision[1:])))


def calibration(right: NDArray, said: NDArray, bins: int = 15) -> Calibration:
    """Return how often what is said with a probability is so, in bins of equal width.

    Parameters
    ----------
    right : ndarray of shape (samples,), bool
        Whether it is so.
    said : ndarray of shape (samples,)
        The probability it was said with.
    bins : int
        15, as in Guo et al. 2017.

    References
    ----------
    Guo et al. 2017, "On calibration of modern neural networks" (arXiv:1706.04599), equation 3.
    """
    _check_finite(said)
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.searchsorted(edges[1:-1], said)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_said = np.bincount(place, said, bins) / counts
        found = np.bincount(place, right.astype(np.float64), bins) / counts
    error = float(np.nansum(np.abs(mean_said - found) * counts) / max(len(said), 1))
    return Calibration(edges, mean_said, found, counts.astype(np.int64), error)


def residuals(truth: NDArray, values: NDArray) -> NDArray[np.float64]:
    """Return the truth less what was predicted, in the target's units: positive where it was too low."""
    return np.asarray(truth, np.float64) - values


def greatest_residuals(truth: NDArray, values: NDArray, count: int) -> NDArray[np.int64]:
    """Return the rows whose residual is farthest from 0, the farthest first; at most `count`.

    Of several outputs, the sum over them, each by the spread of its residuals, decides.
    """
    found = np.abs(residuals(truth, values)).reshape(len(truth), -1)
    spread = found.max(axis=0)
    shares = np.divide(found, spread, out=np.zeros_like(found), where=spread > 0)
    return np.argsort(-shares.sum(axis=1), kind="stable")[:count]


def learning_curves(history: History) -> list[LearningCurves]:
    """Return the pictures that a training's record makes: the loss, each metric, the learning rate.

    Raises
    ------
    DataError
        If it has no epoch.
    """
    if not len(history):
        raise DataError("the training has no epoch yet: there is nothing to draw")
    names = [name.removeprefix("validation_") for name in history.columns]
    figures = [name for name in dict.fromkeys(names) if name not in _NO_FIGURES]
    figures.sort(key=lambda name: (name != "loss", name == "learning_rate"))
    epochs = history["epoch"].astype(np.int64)
    of: dict[str, Callable[[str], str]] = {
        "training": lambda name: name,
        "validation": lambda name: f"validation_{name}",
    }
    return [
        LearningCurves(
            name,
            epochs,
            {
                rows: history[column(name)].astype(np.float64)
                for rows, column in of.items()
                if column(name) in history
            },
        )
        for name in figures
    ]


_NO_FIGURES = ("epoch", "step", "seconds", "samples_per_second")


def _ranked(
    truth: NDArray, scores: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    _check_finite(scores)
    yes = np.asarray(truth, bool)
    if not yes.any() or yes.all():
        raise DataError("a curve over thresholds wants rows of both kinds, and all of these are of one")
    return ranked_counts(yes, np.asarray(scores, np.float64), np.ones(len(yes)))


def _check_finite(probabilities: NDArray) -> None:
    if not np.isfinite(probabilities).all():
        raise DataError("the model's probabilities are not finite: its training diverged; lower the rate")
