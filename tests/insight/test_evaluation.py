"""The figures behind the pictures, against scikit-learn and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from nnkit.errors import DataError
from nnkit.insight.evaluation import (
    calibration,
    confident_mistakes,
    confusion_matrix,
    greatest_residuals,
    learning_curves,
    precision_recall_curve,
    residuals,
    roc_curve,
)
from nnkit.training.history import History


@pytest.fixture(params=[False, True], ids=["distinct", "ties"])
def binary(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    truth = generator.random(400) < 0.3
    scores = np.clip(0.3 * truth + 0.7 * generator.random(400), 0, 1)
    return truth, np.round(scores, 1) if request.param else scores


def test_the_confusion_matrix_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, 300), generator.integers(0, 3, 300)
    expected = metrics.confusion_matrix(truth, predicted, labels=range(5))
    np.testing.assert_array_equal(confusion_matrix(truth, predicted, 5), expected)


def test_the_roc_curve_is_scikit_learns(binary: tuple[np.ndarray, np.ndarray]) -> None:
    curve = roc_curve(*binary)
    x, y, thresholds = metrics.roc_curve(*binary, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x)
    np.testing.assert_allclose(curve.y, y)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert curve.area == pytest.approx(metrics.roc_auc_score(*binary), abs=1e-12)


def test_precision_and_recall_are_scikit_learns(binary: tuple[np.ndarray, np.ndarray]) -> None:
    curve = precision_recall_curve(*binary)
    precision, recall, thresholds = metrics.precision_recall_curve(*binary)
    np.testing.assert_allclose(curve.y, precision[::-1])
    np.testing.assert_allclose(curve.x, recall[::-1])
    np.testing.assert_array_equal(curve.thresholds[1:], thresholds[::-1])
    assert curve.area == pytest.approx(metrics.average_precision_score(*binary), abs=1e-12)


@pytest.mark.parametrize("bins", [5, 15])
def test_the_bins_of_calibration_are_scikit_learns(binary: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    truth, said = binary
    found, mean_said = calibration_curve(truth, said, n_bins=bins)
    bins_here = calibration(truth, said, bins)
    full = bins_here.counts > 0
    np.testing.assert_allclose(bins_here.found[full], found)
    np.testing.assert_allclose(bins_here.said[full], mean_said)
    assert np.isnan(bins_here.said[~full]).all()
    assert bins_here.counts.sum() == len(truth)


def test_the_expected_calibration_error_is_that_of_a_plain_loop() -> None:
    generator = np.random.default_rng(2)
    said = generator.random(500)
    right = generator.random(500) < said**2
    expected = 0.0
    for number in range(10):
        inside = [i for i in range(500) if number / 10 < said[i] <= (number + 1) / 10]
        if inside:
            gap = sum(right[i] for i in inside) / len(inside) - sum(said[i] for i in inside) / len(inside)
            expected += len(inside) / 500 * abs(gap)
    assert calibration(right, said, 10).error == pytest.approx(expected, abs=1e-12)
    assert calibration(np.array([True, False]), np.array([1.0, 0.0])).error == 0.0


def test_the_most_confident_mistakes_are_those_of_a_sort() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(200, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth, predicted = generator.integers(0, 3, 200), probabilities.argmax(axis=1)
    wrong = [i for i in range(200) if truth[i] != predicted[i]]
    expected = sorted(wrong, key=lambda i: -probabilities[i].max())[:7]
    assert confident_mistakes(truth, predicted, probabilities, 7).tolist() == expected
    assert len(confident_mistakes(truth, truth, probabilities, 7)) == 0


def test_residuals_are_the_truth_less_the_prediction() -> None:
    truth, values = np.array([[3.0, 10], [1, 0], [2, 0]]), np.array([[1.0, 10], [1, 50], [0, 100]])
    np.testing.assert_array_equal(residuals(truth, values), [[2, 0], [0, -50], [2, -100]])
    # By the largest of each column: 1 + 0, 0 + 0.5, 1 + 1.
    assert greatest_residuals(truth, values, 2).tolist() == [2, 0]


def test_only_one_kind_of_rows_has_no_curve() -> None:
    for curve in (roc_curve, precision_recall_curve):
        for truth in (np.zeros(3, bool), np.ones(3, bool)):
            with pytest.raises(DataError, match="both kinds"):
                curve(truth, np.arange(3.0))
        with pytest.raises(DataError, match="diverged"):
            curve(np.array([True, False]), np.array([np.nan, 1.0]))
    with pytest.raises(DataError, match="diverged"):
        calibration(np.array([True, False]), np.array([np.inf, 1.0]))


def test_learning_curves_pair_training_and_validation() -> None:
    history = History()
    rows = [(1, 0.9, 1.0, 0.5), (2, 0.5, 0.8, 0.7)]
    for epoch, loss, validation_loss, accuracy in rows:
        history.append(
            {
                "epoch": epoch,
                "step": 10 * epoch,
                "loss": loss,
                "learning_rate": 1e-3 / epoch,
                "seconds": 1.0,
                "samples_per_second": 9.0,
                "validation_loss": validation_loss,
                "validation_accuracy": accuracy,
            }
        )
    loss, accuracy, rate = learning_curves(history)
    assert [curves.name for curves in (loss, accuracy, rate)] == ["loss", "accuracy", "learning_rate"]
    assert loss.epochs.tolist() == [1, 2]
    assert {name: values.tolist() for name, values in loss.curves.items()} == {
        "training": [0.9, 0.5],
        "validation": [1.0, 0.8],
    }
    assert list(accuracy.curves) == ["validation"]
    assert list(rate.curves) == ["training"]
    with pytest.raises(DataError, match="no epoch"):
        learning_curves(History())
