"""Metrics against scikit-learn's, with and without weights, and where they are undefined."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn.metrics as theirs

from nnkit.errors import ConfigError, DataError
from nnkit.nn import metrics
from nnkit.nn.metrics import (
    best_f1_threshold,
    default_metrics,
    evaluate_metrics,
    get_metric,
    metrics_for,
    undefined_metrics,
)

SAMPLES = 157


def weights(weighted: bool, seed: int = 5) -> np.ndarray | None:
    if not weighted:
        return None
    drawn = np.random.default_rng(seed).uniform(0.0, 3.0, SAMPLES)
    drawn[::7] = 0.0
    return drawn


def binary_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, SAMPLES)
    return y, np.round(np.clip(0.35 * y + rng.uniform(0, 0.65, SAMPLES), 0, 1), 2)


def multiclass_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 7, SAMPLES)
    logits = rng.normal(size=(SAMPLES, 7)) + 1.5 * np.eye(7)[y]
    probabilities = np.exp(logits)
    return y, probabilities / probabilities.sum(axis=1, keepdims=True)


def multilabel_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, (SAMPLES, 3))
    return y, np.clip(0.4 * y + rng.uniform(0, 0.6, y.shape), 0, 1)


def regression_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = rng.normal(size=(SAMPLES, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, -3.0]
    return y, y + rng.normal(size=y.shape) * [0.3, 4.0, 0.2]


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_metrics_equal_scikit_learns(weighted: bool) -> None:
    y, p = binary_case()
    w = weights(weighted)
    labels = p > 0.5
    expected = {
        "accuracy": theirs.accuracy_score(y, labels, sample_weight=w),
        "log_loss": theirs.log_loss(y, p, sample_weight=w),
        "balanced_accuracy": theirs.balanced_accuracy_score(y, labels, sample_weight=w),
        "f1": theirs.f1_score(y, labels, sample_weight=w),
        "precision": theirs.precision_score(y, labels, sample_weight=w),
        "recall": theirs.recall_score(y, labels, sample_weight=w),
        "roc_auc": theirs.roc_auc_score(y, p, sample_weight=w),
    }
    assert set(expected) == set(metrics_for("binary"))
    for outputs in (p, p[:, None], np.stack([1 - p, p], axis=1)):
        for truth in (y, y[:, None]):
            result = evaluate_metrics(expected, "binary", truth, outputs, w)
            assert result == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_multiclass_metrics_equal_scikit_learns(weighted: bool) -> None:
    y, p = multiclass_case()
    w = weights(weighted)
    labels = p.argmax(axis=1)
    expected = {
        "accuracy": theirs.accuracy_score(y, labels, sample_weight=w),
        "top_5_accuracy": theirs.top_k_accuracy_score(y, p, k=5, sample_weight=w),
        "top_2_accuracy": theirs.top_k_accuracy_score(y, p, k=2, sample_weight=w),
        "log_loss": theirs.log_loss(y, p, sample_weight=w),
        "balanced_accuracy": theirs.balanced_accuracy_score(y, labels, sample_weight=w),
        "f1": theirs.f1_score(y, labels, average="macro", sample_weight=w),
        "precision": theirs.precision_score(y, labels, average="macro", sample_weight=w),
        "recall": theirs.recall_score(y, labels, average="macro", sample_weight=w),
        "roc_auc": theirs.roc_auc_score(y, p, multi_class="ovr", average="macro", sample_weight=w),
    }
    assert set(expected) - {"top_2_accuracy"} == set(metrics_for("multiclass"))
    assert evaluate_metrics(expected, "multiclass", y, p, w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel_metrics_equal_scikit_learns(weighted: bool) -> None:
    y, p = multilabel_case()
    w = weights(weighted)
    labels = (p > 0.5).astype(int)
    expected = {
        "accuracy": theirs.accuracy_score(y, labels, sample_weight=w),
        "log_loss": np.mean([theirs.log_loss(y[:, k], p[:, k], sample_weight=w) for k in range(3)]),
        "f1": theirs.f1_score(y, labels, average="macro", sample_weight=w),
        "precision": theirs.precision_score(y, labels, average="macro", sample_weight=w),
        "recall": theirs.recall_score(y, labels, average="macro", sample_weight=w),
        "roc_auc": theirs.roc_auc_score(y, p, average="macro", sample_weight=w),
    }
    assert set(expected) == set(metrics_for("multilabel"))
    assert evaluate_metrics(expected, "multilabel", y, p, w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_metrics_equal_scikit_learns(outputs: int, weighted: bool) -> None:
    y, prediction = (array[:, :outputs] for array in regression_case())
    w = weights(weighted)
    expected = {
        "r2": theirs.r2_score(y, prediction, sample_weight=w),
        "rmse": theirs.root_mean_squared_error(y, prediction, sample_weight=w),
        "mae": theirs.mean_absolute_error(y, prediction, sample_weight=w),
    }
    assert set(expected) == set(metrics_for("regression"))
    assert evaluate_metrics(expected, "regression", y, prediction, w) == pytest.approx(expected, rel=1e-12)
    if outputs == 1:
        flat = evaluate_metrics(expected, "regression", y[:, 0], prediction[:, 0], w)
        assert flat == pytest.approx(expected, rel=1e-12)


def test_integer_weights_are_repetitions() -> None:
    y, p = multiclass_case()
    counts = np.random.default_rng(9).integers(0, 4, SAMPLES)
    names = metrics_for("multiclass")
    repeated = evaluate_metrics(names, "multiclass", np.repeat(y, counts), np.repeat(p, counts, axis=0))
    assert evaluate_metrics(names, "multiclass", y, p, counts) == pytest.approx(repeated, rel=1e-12)


def test_single_precision_agrees_to_rounding() -> None:
    y, p = multiclass_case()
    names = metrics_for("multiclass")
    single = evaluate_metrics(names, "multiclass", y, p.astype(np.float32))
    assert single == pytest.approx(evaluate_metrics(names, "multiclass", y, p), rel=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_breaks_ties_as_scikit_learn_does(k: int) -> None:
    p = np.array([[0.25, 0.25, 0.25, 0.25], [0.4, 0.4, 0.1, 0.1], [0.1, 0.4, 0.1, 0.4]])
    for truth in ([0, 0, 0], [1, 1, 1], [2, 3, 3], [3, 2, 2]):
        expected = theirs.top_k_accuracy_score(truth, p, k=k, labels=range(4))
        assert evaluate_metrics([f"top_{k}_accuracy"], "multiclass", truth, p) == {
            f"top_{k}_accuracy": expected
        }


def test_r2_of_a_constant_target_is_scikit_learns() -> None:
    y = np.full(10, 0.1)
    assert evaluate_metrics(["r2"], "regression", y, y) == {"r2": 1.0}
    assert evaluate_metrics(["r2"], "regression", y, y + 1) == {"r2": 0.0}
    assert theirs.r2_score(y, y + 1) == 0.0
    # Constant where the weights count.
    y[0], only = 7.0, np.r_[0.0, np.ones(9)]
    assert evaluate_metrics(["r2"], "regression", y, y + 1, only) == {"r2": 0.0}
    assert math.isnan(evaluate_metrics(["r2"], "regression", [1.0], [1.0])["r2"])


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    result = evaluate_metrics(["log_loss"], "binary", [1, 0], np.array([0.0, 1.0]))["log_loss"]
    assert result == pytest.approx(-math.log(np.finfo(np.float64).eps))


def test_a_missing_class_makes_roc_auc_nan_and_silent() -> None:
    y, p = multiclass_case()
    y = np.where(y == 3, 2, y)
    cases = [
        ("binary", np.ones(SAMPLES, int), p[:, 0]),
        ("multiclass", y, p),
        ("multilabel", np.stack([y > 2, np.zeros(SAMPLES, bool)], axis=1), p[:, :2]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task, truth, outputs in cases:
            result = evaluate_metrics(metrics_for(task), task, truth, outputs)
            assert math.isnan(result.pop("roc_auc"))
            assert all(math.isfinite(value) for value in result.values())


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("trouble", ["no samples", "no weight", "not finite", "one class has no weight"])
def test_what_is_undefined_is_nan_and_silent(task, trouble: str) -> None:
    y, outputs = globals()[f"{task}_case"]()
    w = None
    if trouble == "no samples":
        y, outputs = y[:0], outputs[:0]
    elif trouble == "no weight":
        w = np.zeros(SAMPLES)
    elif trouble == "not finite":
        outputs = np.full_like(outputs, np.nan)
    else:
        w = (y.reshape(SAMPLES, -1)[:, 0] != 0).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate_metrics(metrics_for(task), task, y, outputs, w)
    if trouble in ("no samples", "no weight"):
        assert all(math.isnan(value) for value in result.values())
    elif trouble == "not finite":
        for name in result:
            if metrics.METRICS[name].consumes != "labels" and name != "top_5_accuracy":
                assert math.isnan(result[name]), name


def test_metrics_import_neither_scikit_learn_nor_scipy() -> None:
    code = """
import sys, numpy as np
from nnkit.nn.metrics import evaluate_metrics, metrics_for
p = np.full((4, 2), 0.5)
evaluate_metrics(metrics_for("multiclass"), "multiclass", [0, 1, 1, 0], p)
evaluate_metrics(metrics_for("regression"), "regression", p, p)
assert not {"sklearn", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_defaults_are_cheap_and_apply() -> None:
    for task in ("binary", "multiclass", "multilabel", "regression"):
        assert set(default_metrics(task)) <= set(metrics_for(task))
        assert all(metrics.METRICS[name].cheap for name in default_metrics(task))


def test_losses_and_errors_are_better_when_smaller() -> None:
    smaller = {name for name, metric in metrics.METRICS.items() if not metric.greater_is_better}
    assert smaller == {"log_loss", "rmse", "mae"}


def test_a_users_metric_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))

    def bias(y_true, values, sample_weight=None):
        return np.mean(values - y_true)

    metrics.register_metric(metrics.Metric("bias", bias, ("regression",), "values"))
    assert evaluate_metrics(["bias"], "regression", [1.0, 2.0], [2.0, 4.0]) == {"bias": 1.5}
    with pytest.raises(ConfigError, match="'mae' is taken"):
        metrics.register_metric(metrics.Metric("mae", bias, ("regression",), "values"))


def test_a_metric_that_does_not_fit_the_task_is_refused_with_those_that_do() -> None:
    with pytest.raises(
        ConfigError, match="'accuracy' does not apply to a regression task; these do: r2, rmse, mae"
    ):
        evaluate_metrics(["accuracy"], "regression", [1.0], [1.0])
    with pytest.raises(ConfigError, match="unknown metric 'acuracy'; did you mean accuracy"):
        get_metric("acuracy")
    with pytest.raises(ConfigError, match="unknown metric 'top_0_accuracy'"):
        get_metric("top_0_accuracy")


@pytest.mark.parametrize(
    ("task", "y", "outputs", "w", "message"),
    [
        ("binary", [0, 1], np.zeros(3), None, "one row for each sample"),
        ("multiclass", [0, 3], np.zeros((2, 3)), None, "a probability for each class"),
        ("multiclass", [0, -1], np.zeros((2, 3)), None, "a probability for each class"),
        ("multiclass", [0, 1], np.zeros(2), None, "a probability for each class"),
        ("multiclass", np.eye(2), np.zeros((2, 2)), None, "one class index for each sample"),
        ("regression", np.zeros((2, 2)), np.zeros((2, 1)), None, "must be the same"),
        ("regression", [0, 1], [0, 1], [1.0], r"sample_weight has shape \(1,\) for 2 samples"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(task, y, outputs, w, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_metrics(default_metrics(task), task, y, outputs, w)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_has_the_greatest_f1_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, 60)
    probabilities = np.round(generator.random(60) * 0.5 + truth * 0.3, 2)  # many are equal
    drawn = None if seed % 2 else generator.random(60)
    threshold, best = best_f1_threshold(truth, probabilities, drawn)
    found = theirs.f1_score(truth, probabilities > threshold, sample_weight=drawn)
    assert best == pytest.approx(found, abs=1e-12)
    precision, recall, _ = theirs.precision_recall_curve(truth, probabilities, sample_weight=drawn)
    with np.errstate(invalid="ignore"):
        greatest = np.nanmax(2 * precision * recall / (precision + recall))
    assert best == pytest.approx(greatest, abs=1e-12)


def test_the_best_threshold_is_the_nearest_to_one_half() -> None:
    assert best_f1_threshold(np.array([0, 1]), np.array([0.2, 0.6])) == (pytest.approx(0.4), 1.0)
    assert best_f1_threshold(np.array([1, 1]), np.array([0.0, 0.6]))[0] == pytest.approx(0.3)
    close = np.array([0.5, np.nextafter(0.5, 1)])
    threshold, _ = best_f1_threshold(np.array([0, 1]), close)
    assert (close > threshold).tolist() == [False, True]


@pytest.mark.parametrize(
    ("truth", "probabilities"), [([0, 0], [0.1, 0.9]), ([], []), ([1, 0], [np.nan, 0.1]), ([1], [0.0])]
)
def test_without_a_positive_sample_or_finite_probabilities_there_is_no_threshold(
    truth: list[int], probabilities: list[float]
) -> None:
    found = best_f1_threshold(np.array(truth, np.int64), np.array(probabilities))
    assert np.isnan(found).all()


@pytest.mark.parametrize(
    ("task", "truth", "outputs", "labels", "reasons"),
    [
        ("binary", [0, 0, 1], [0.1, 0.2, 0.9], ["no", "yes"], {}),
        (
            "binary",
            [0, 0],
            [0.1, 0.2],
            ["no", "yes"],
            dict.fromkeys(["f1", "precision", "recall", "roc_auc"], "no row here is of class 'yes'"),
        ),
        ("binary", [1, 1], [0.9, 0.8], ["no", "yes"], {"roc_auc": "no row here is of class 'no'"}),
        (
            "multiclass",
            [0, 0, 1],
            np.full((3, 4), 0.25),
            ["a", "b", "c", "d"],
            {"roc_auc": "no row here is of class 'c' and 1 more classes"},
        ),
        (
            "multilabel",
            [[0, 1], [1, 1]],
            [[0.1, 0.8], [0.6, 0.9]],
            ["wet", "cold"],
            {"roc_auc": "'cold' is the same in all rows here"},
        ),
        ("regression", [[1.0]], [[1.5]], [], {"r2": "it needs two rows or more"}),
        ("regression", [[2.0], [2.0]], [[1.5], [2.5]], [], {"r2": "the target is the same in all rows here"}),
        ("regression", [[2.0], [3.0]], [[1.5], [2.5]], [], {}),
    ],
)
def test_what_these_rows_do_not_define_has_a_reason(task, truth, outputs, labels, reasons) -> None:
    measured = evaluate_metrics(metrics_for(task), task, np.array(truth), np.array(outputs))
    assert undefined_metrics(measured, task, truth, labels) == reasons
    assert {name for name, value in measured.items() if np.isnan(value)} <= set(reasons)


def test_rows_without_weight_do_not_count_where_a_metric_is_undefined() -> None:
    truth, weight = np.array([0, 0, 1]), np.array([1.0, 2.0, 0.0])
    measured = evaluate_metrics(["roc_auc"], "binary", truth, np.array([0.2, 0.3, 0.9]), weight)
    assert np.isnan(measured["roc_auc"])
    assert undefined_metrics(measured, "binary", truth, ("no", "yes"), weight) == {
        "roc_auc": "no row here is of class 'yes'"
    }


def test_without_rows_and_with_outputs_that_are_not_finite_every_metric_has_a_reason() -> None:
    assert undefined_metrics({"accuracy": np.nan}, "binary", []) == {"accuracy": "there are no rows"}
    nan = {"rmse": np.nan, "mae": 1.0}
    assert undefined_metrics(nan, "regression", [1.0, 2.0]) == {"rmse": "the model's outputs are not finite"}
