"""The metrics: functions over host arrays, and a registry with the tasks that they apply to.

Order: the cheap ones, for every epoch; those of classes and rankings, for the end of a training; the
registry; evaluation by name. Every function takes `sample_weight`, shape (samples,), and returns NaN where it
is undefined (no samples, no weight, a missing class). They are written here because importing scikit-learn's
takes over a second and 100 MB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.errors import ConfigError, DataError, unknown_name
from nnkit.nn.losses import Task

__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "balanced_accuracy",
    "best_f1_threshold",
    "default_metrics",
    "evaluate_metrics",
    "get_metric",
    "log_loss",
    "mae",
    "metrics_for",
    "r2",
    "ranked_counts",
    "register_metric",
    "rmse",
    "top_k_accuracy",
    "undefined_metrics",
]

Weights = NDArray[np.floating] | None


def accuracy(y_true: NDArray, y_pred: NDArray, sample_weight: Weights = None) -> float:
    """Return the fraction of samples predicted correctly; with several labels, all must be correct.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (samples,) or (samples, labels)
        Encoded classes, or 0 and 1 for each label.
    """
    right = y_true == y_pred
    return _mean(right if right.ndim == 1 else right.all(axis=1), sample_weight)


def top_k_accuracy(
    y_true: NDArray, probabilities: NDArray, sample_weight: Weights = None, *, k: int = 5
) -> float:
    """Return the fraction of samples with their class among the `k` most probable ones.

    Of equal probabilities, the later class ranks higher, as in scikit-learn.

    Parameters
    ----------
    y_true : ndarray of shape (samples,), int
    probabilities : ndarray of shape (samples, classes)
    """
    true = np.take_along_axis(probabilities, y_true[:, None], axis=1)
    later = np.arange(probabilities.shape[1]) > y_true[:, None]
    ahead = np.sum((probabilities > true) | (later & (probabilities == true)), axis=1)
    # Nothing compares greater than NaN: without this, a diverged network would always be correct.
    return _mean((ahead < k) & np.isfinite(true[:, 0]), sample_weight)


def log_loss(y_true: NDArray, probabilities: NDArray, sample_weight: Weights = None) -> float:
    """Return the mean negative logarithm of the probability of the true class, in nats.

    Probabilities are clipped at a rounding error of their dtype from 0 and 1. Several labels are averaged.

    Parameters
    ----------
    y_true : ndarray of shape (samples,) or (samples, labels), int
    probabilities : ndarray of shape (samples,), (samples, classes) or (samples, labels)
        Of class 1, of each class, or of each label.
    """
    epsilon = np.finfo(probabilities.dtype).eps
    if y_true.ndim == 1 and probabilities.ndim == 2:
        given = np.take_along_axis(probabilities, y_true[:, None], axis=1)[:, 0]
    else:
        given = np.where(y_true == 1, probabilities, 1 - probabilities)
    losses = -np.log(np.clip(given, epsilon, 1 - epsilon), dtype=np.float64)
    return _mean(losses if losses.ndim == 1 else losses.mean(axis=1), sample_weight)


def r2(y_true: NDArray, y_pred: NDArray, sample_weight: Weights = None) -> float:
    """Return the coefficient of determination, averaged over the outputs.

    A constant target counts as 1 if it is predicted exactly and as 0 otherwise; NaN for fewer than two
    samples.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (samples, outputs)
    """
    if len(y_true) < 2 or not _has_weight(y_true, sample_weight):
        return float("nan")
    y_true = np.asarray(y_true, dtype=np.float64)
    mean = np.average(y_true, axis=0, weights=sample_weight)
    residual = np.average((y_true - y_pred) ** 2, axis=0, weights=sample_weight)
    variance = np.average((y_true - mean) ** 2, axis=0, weights=sample_weight)
    # The mean of equal numbers is rounded; their range is not.
    counted = y_true if sample_weight is None else y_true[np.asarray(sample_weight) > 0]
    varies = np.ptp(counted, axis=0) > 0
    constant = np.where(residual == 0, 1.0, np.where(np.isnan(residual), np.nan, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(np.where(varies, 1.0 - residual / variance, constant)))


def mae(y_true: NDArray, y_pred: NDArray, sample_weight: Weights = None) -> float:
    """Return the mean absolute error, averaged over the outputs; parameters as for `r2`."""
    errors = np.abs(np.asarray(y_true, dtype=np.float64) - y_pred)
    return _mean(errors if errors.ndim == 1 else errors.mean(axis=1), sample_weight)


def rmse(y_true: NDArray, y_pred: NDArray, sample_weight: Weights = None) -> float:
    """Return the root mean squared error, averaged over the outputs; parameters as for `r2`."""
    if not _has_weight(y_true, sample_weight):
        return float("nan")
    squares = (np.asarray(y_true, dtype=np.float64) - y_pred) ** 2
    return float(np.mean(np.sqrt(np.average(squares, axis=0, weights=sample_weight))))


def best_f1_threshold(
    y_true: NDArray, probabilities: NDArray, sample_weight: Weights = None
) -> tuple[float, float]:
    """Return the threshold on the probability that maximises the F1 of class 1, and that F1.

    It lies midway between two neighbouring probabilities (or one and 0). Of equally good thresholds, the
    nearest to 0.5 is returned. NaN and NaN if class 1 has no samples, a probability is not finite, or all of
    them are 0.

    Parameters
    ----------
    y_true : ndarray of shape (samples,), 0 and 1
    probabilities : ndarray of shape (samples,)
        Of class 1.
    """
    weights = np.ones(len(y_true)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    total = float(weights[y_true == 1].sum())
    if total <= 0 or not np.isfinite(probabilities).all():
        return float("nan"), float("nan")
    order = np.argsort(-probabilities, kind="stable")
    ranked = np.asarray(probabilities, np.float64)[order]
    predicted = np.cumsum(weights[order])
    right = np.cumsum(weights[order] * (y_true[order] == 1))
    below = np.append(ranked[1:], 0.0)
    # Samples of equal probability are all above a threshold or none; 0 is never above a threshold.
    ends = np.flatnonzero(ranked > below)
    f1 = 2 * right[ends] / (predicted[ends] + total)
    middles = (ranked[ends] + below[ends]) / 2
    middles = np.where(middles < ranked[ends], middles, below[ends])  # there may be no number between them
    if len(ends) == 0:
        return float("nan"), float("nan")
    best = np.flatnonzero(f1 >= f1.max() * (1 - 1e-12))
    chosen = best[np.argmin(np.abs(middles[best] - 0.5))]
    return float(middles[chosen]), float(f1[chosen])


def _mean(values: NDArray, sample_weight: Weights) -> float:
    """Return the weighted mean over samples, NaN if there is nothing to average."""
    if not _has_weight(values, sample_weight):
        return float("nan")
    return float(np.average(np.asarray(values, dtype=np.float64), weights=sample_weight))


def _has_weight(values: NDArray, sample_weight: Weights) -> bool:
    return len(values) > 0 and (sample_weight is None or bool(np.sum(sample_weight) > 0))


def balanced_accuracy(y_true: NDArray, y_pred: NDArray, sample_weight: Weights = None) -> float:
    """Return the mean recall over the classes that occur in `y_true`.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (samples,), int
        Encoded classes.
    """
    counts = _Counts.of(y_true, y_pred, sample_weight)
    occurring = counts.true > 0
    return float(np.mean(counts.right[occurring] / counts.true[occurring])) if occurring.any() else math.nan


@dataclass(frozen=True)
class _Counts:
    """For each class or label, the weight of its correct predictions, of its samples, of its predictions."""

    right: NDArray[np.float64]
    true: NDArray[np.float64]
    predicted: NDArray[np.float64]

    @classmethod
    def of(cls, y_true: NDArray, y_pred: NDArray, sample_weight: Weights) -> _Counts:
        """Count classes, of shape (samples,), or labels 0 and 1, (samples, labels)."""
        weight = np.ones(len(y_true)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        if y_true.ndim == 2:
            pairs = (y_true * y_pred, y_true, y_pred)
            return cls(*(weight @ (labels == 1) for labels in pairs))
        classes = int(max(y_true.max(initial=0), y_pred.max(initial=0))) + 1
        right = y_true == y_pred
        counted = ((y_true[right], weight[right]), (y_true, weight), (y_pred, weight))
        return cls(*(np.bincount(of, by, classes).astype(np.float64) for of, by in counted))

    def precision(self) -> NDArray[np.float64]:
        """The fraction of a class's predictions that are correct; 0 without predictions."""
        return _ratio(self.right, self.predicted)

    def recall(self) -> NDArray[np.float64]:
        """The fraction of a class's samples that are predicted correctly; 0 without samples."""
        return _ratio(self.right, self.true)

    def f1(self) -> NDArray[np.float64]:
        """The harmonic mean of precision and recall."""
        return _ratio(2 * self.right, self.true + self.predicted)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _over_classes(
    y_true: NDArray,
    y_pred: NDArray,
    sample_weight: Weights = None,
    *,
    score: Callable[[_Counts], NDArray[np.float64]],
    task: Task,
) -> float:
    """Return a score of class 1 in a binary task, else its mean over the occurring classes or the labels."""
    if not _has_weight(y_true, sample_weight):
        return math.nan
    counts = _Counts.of(y_true, y_pred, sample_weight)
    values = score(counts)
    if task == "binary":
        return float(values[1]) if len(values) > 1 else 0.0
    if task == "multiclass":
        found = np.zeros(len(values), bool)
        found[y_true] = found[y_pred] = True
        values = values[found]
    return float(np.mean(values))


def _roc_auc(y_true: NDArray, probabilities: NDArray, sample_weight: Weights = None, *, task: Task) -> float:
    """Return the area under the ROC curve: for several classes, the mean of each against the rest."""
    if not _has_weight(y_true, sample_weight) or not np.all(np.isfinite(probabilities)):
        return math.nan
    if task == "multiclass":
        truth: NDArray = np.asarray(y_true)[:, None] == np.arange(probabilities.shape[1])
    else:
        truth = np.asarray(y_true).reshape(len(y_true), -1) == 1
    columns = probabilities.reshape(len(probabilities), -1)
    weight = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    return float(np.mean([_area(*pair, weight) for pair in zip(truth.T, columns.T, strict=True)]))


def ranked_counts(
    truth: NDArray, scores: NDArray, weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the cumulative false and true positives by decreasing threshold.

    Parameters
    ----------
    truth : ndarray of shape (samples,), bool
    scores : ndarray of shape (samples,)
        Finite.
    weight : ndarray of shape (samples,)

    Returns
    -------
    wrong, right : ndarray of shape (distinct scores + 1,)
        The weight of the false and of the true positives.
    thresholds : ndarray of the same shape
        Scores of at least the threshold are positive; the first is infinite.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each score
    right = np.append(0.0, np.cumsum(weight[order] * truth[order])[last])
    wrong = np.append(0.0, np.cumsum(weight[order] * ~truth[order])[last])
    return wrong, right, np.append(np.inf, scores[order][last])


def _area(truth: NDArray, scores: NDArray, weight: NDArray[np.float64]) -> float:
    """Return the area under one ROC curve, by trapezoids; NaN unless both classes occur.

    Reference: Fawcett 2006, "An introduction to ROC analysis", algorithm 3.
    """
    wrong, right, _ = ranked_counts(truth, scores, weight)
    if right[-1] <= 0 or wrong[-1] <= 0:
        return math.nan
    between = np.diff(wrong) * (right[1:] + right[:-1]) / 2
    return float(between.sum() / (right[-1] * wrong[-1]))


@dataclass(frozen=True)
class Metric:
    """A metric and how it is used.

    Parameters
    ----------
    name : str
        The name in the registry.
    function : callable
        ``function(y_true, outputs, sample_weight)``, which returns a float; with ``task=`` if `takes_task`.
    tasks : tuple of Task
        The tasks that it applies to.
    consumes : {"labels", "probabilities", "values"}
        The kind of `outputs`: predicted classes, probabilities of classes, or a regression's values.
    greater_is_better : bool
    cheap : bool
        Whether it may be evaluated in every epoch, not only at the end of a training.
    takes_task : bool
    """

    name: str
    function: Callable[..., float]
    tasks: tuple[Task, ...]
    consumes: Literal["labels", "probabilities", "values"]
    greater_is_better: bool = True
    cheap: bool = True
    takes_task: bool = False


_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_LABELS: tuple[Task, ...] = ("binary", "multiclass", "multilabel")
_VALUES: tuple[Task, ...] = ("regression",)
_SCORES = {"f1": _Counts.f1, "precision": _Counts.precision, "recall": _Counts.recall}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy, _LABELS, "labels"),
        Metric("top_5_accuracy", top_k_accuracy, ("multiclass",), "probabilities"),
        Metric("log_loss", log_loss, _LABELS, "probabilities", greater_is_better=False),
        Metric("r2", r2, _VALUES, "values"),
        Metric("rmse", rmse, _VALUES, "values", greater_is_better=False),
        Metric("mae", mae, _VALUES, "values", greater_is_better=False),
        Metric("balanced_accuracy", balanced_accuracy, _CLASSES, "labels", cheap=False),
        *(
            Metric(name, partial(_over_classes, score=score), _LABELS, "labels", cheap=False, takes_task=True)
            for name, score in _SCORES.items()
        ),
        Metric("roc_auc", _roc_auc, _LABELS, "probabilities", cheap=False, takes_task=True),
    )
}


def register_metric(metric: Metric) -> None:
    """Register a metric by its name, or raise `ConfigError` if another metric has that name."""
    if METRICS.get(metric.name, metric) != metric:
        raise ConfigError(f"the metric name {metric.name!r} is taken; choose another")
    METRICS[metric.name] = metric


def get_metric(name: str) -> Metric:
    """Return the metric of that name, or raise `ConfigError`; "top_k_accuracy" exists for every whole k."""
    if name in METRICS:
        return METRICS[name]
    top = re.fullmatch(r"top_([1-9][0-9]{0,8})_accuracy", name, re.ASCII)
    if top is None:
        raise unknown_name("metric", name, METRICS)
    return Metric(name, partial(top_k_accuracy, k=int(top[1])), ("multiclass",), "probabilities")


def metrics_for(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that apply to a task."""
    return tuple(name for name, metric in METRICS.items() if task in metric.tasks)


def default_metrics(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that are reported by default: all are cheap."""
    # The log loss of a classification is by default its loss already.
    return ("r2", "rmse", "mae") if task == "regression" else ("accuracy",)


def evaluate_metrics(
    names: Iterable[str],
    task: Task,
    y_true: ArrayLike,
    outputs: ArrayLike,
    sample_weight: ArrayLike | None = None,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Return metrics by name, in the order of `names`.

    Parameters
    ----------
    names : iterable of str
    task : {"binary", "multiclass", "multilabel", "regression"}
    y_true : array_like, encoded
        Binary: 0 and 1, shape (samples,) or (samples, 1). Multiclass: class indices, (samples,). Multilabel:
        0 and 1, (samples, labels). Regression: values, (samples,) or (samples, outputs).
    outputs : array_like
        Probabilities: (samples,), (samples, 1) or (samples, 2) for a binary task, (samples, classes),
        (samples, labels). Values, shaped as `y_true`, for a regression.
    sample_weight : array_like of shape (samples,), optional
    threshold : float
        The probability above which a binary or multilabel prediction is 1.

    Raises
    ------
    ConfigError
        If a metric is unknown or does not apply to the task.
    DataError
        If the shapes do not match.
    """
    metrics = [get_metric(name) for name in names]
    for metric in metrics:
        if task not in metric.tasks:
            known = ", ".join(metrics_for(task))
            raise ConfigError(
                f"the metric {metric.name!r} does not apply to a {task} task; these do: {known}"
            )
    truth, given = _shaped(task, np.asarray(y_true), np.asarray(outputs))
    weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weight is not None and weight.shape != truth.shape[:1]:
        raise DataError(f"sample_weight has shape {weight.shape} for {len(truth)} samples")
    if task == "regression":
        labels = given
    else:
        labels = given.argmax(axis=1) if task == "multiclass" else (given > threshold).astype(np.int64)
    results = {}
    for metric in metrics:
        taken = labels if metric.consumes == "labels" else given
        options = {"task": task} if metric.takes_task else {}
        results[metric.name] = float(metric.function(truth, taken, weight, **options))
    return results


def undefined_metrics(
    measured: Mapping[str, float],
    task: Task,
    y_true: ArrayLike,
    labels: Sequence[str] = (),
    sample_weight: ArrayLike | None = None,
) -> dict[str, str]:
    """Return why metrics are undefined on these rows, by name: those that are NaN, or 0 or 1 by convention.

    Parameters
    ----------
    measured : mapping of str to float
        The result of `evaluate_metrics`.
    task, y_true
        As for `evaluate_metrics`.
    labels : sequence of str
        The names of the classes, of the labels, or of a regression's outputs.
    sample_weight : array_like of shape (samples,), optional
        Rows without weight do not count.
    """
    truth = np.asarray(y_true)
    truth = truth if sample_weight is None else truth[np.asarray(sample_weight) > 0]
    if len(truth) == 0:
        return dict.fromkeys(measured, "there are no rows")
    missing = _missing_kinds(task, truth, labels)
    positives = ("f1", "precision", "recall") if task == "binary" else ()
    reasons = {}
    for name, value in measured.items():
        of_missing = name in ("roc_auc", "r2") or (name in positives and not np.any(truth == 1))
        if name == "r2" and len(truth) < 2:
            reasons[name] = "it needs two rows or more"
        elif missing and of_missing and (math.isnan(value) or name != "roc_auc"):
            reasons[name] = missing
        elif math.isnan(value):
            reasons[name] = "the model's outputs are not finite"
    return reasons


def _missing_kinds(task: Task, truth: NDArray, labels: Sequence[str]) -> str:
    """Return in words which classes have no row, or which targets do not vary; "" if there are none."""
    columns = truth.reshape(len(truth), -1)
    if task in ("binary", "multiclass"):
        count = len(labels) or 2
        absent = sorted(set(range(count)) - set(np.unique(columns).astype(int).tolist()))
        if not absent:
            return ""
        more = f" and {len(absent) - 1} more classes" if len(absent) > 1 else ""
        return f"no row here is of class {_label(labels, absent[0])!r}{more}"
    constant = np.flatnonzero(columns.min(axis=0) == columns.max(axis=0)).tolist()
    if not constant:
        return ""
    more = f" and {len(constant) - 1} more targets" if len(constant) > 1 else ""
    which = f"{_label(labels, constant[0])!r}" if labels else "the target"
    return f"{which}{more} is the same in all rows here" if not more else f"{which}{more} do not vary here"


def _label(labels: Sequence[str], place: int) -> str:
    return labels[place] if place < len(labels) else str(place)


def _shaped(task: Task, truth: NDArray, given: NDArray) -> tuple[NDArray, NDArray]:
    """Return y_true and the outputs in the shapes that the metrics of a task take."""
    shapes = f"y_true has shape {truth.shape} and the outputs {given.shape}"
    if truth.ndim not in (1, 2) or given.ndim not in (1, 2) or len(truth) != len(given):
        raise DataError(f"{shapes}: both need one row for each sample")
    if not np.issubdtype(given.dtype, np.floating):
        given = given.astype(np.float64)
    elif given.dtype == np.float16:
        given = given.astype(np.float32)
    if task in ("binary", "multiclass"):
        if truth.ndim == 2:
            if truth.shape[1] != 1:
                raise DataError(f"{shapes}: a {task} task needs one class index for each sample")
            truth = truth[:, 0]
        truth = truth.astype(np.int64)
    if task == "binary":
        if given.ndim == 2:
            given = given[:, -1]
    elif task == "multiclass":
        if given.ndim != 2 or (len(truth) and not 0 <= truth.min() <= truth.max() < given.shape[1]):
            raise DataError(f"{shapes}: a multiclass task needs a probability for each class of y_true")
    else:
        truth, given = (array[:, None] if array.ndim == 1 else array for array in (truth, given))
        if truth.shape != given.shape:
            raise DataError(f"{shapes}: they must be the same")
    return truth, given
