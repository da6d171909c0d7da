"""The figures behind the pictures, against scikit-learn and against plain loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from nnkit.errors import DataError
from nnkit.insight.class_plots import calibration, precision_recall_curve, roc_curve
from nnkit.insight.evaluated_model import EvaluatedModel
from nnkit.insight.learning_plots import learning_plots
from nnkit.training.history import History


@pytest.fixture(params=[False, True], ids=["distinct", "ties"])
def binary(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    truth = generator.random(400) < 0.3
    scores = np.clip(0.3 * truth + 0.7 * generator.random(400), 0, 1)
    return truth, np.round(scores, 1) if request.param else scores


def test_curves_are_those_of_a_loop_over_thresholds(binary: tuple[np.ndarray, np.ndarray]) -> None:
    truth, scores = binary
    taken = [scores >= threshold for threshold in (np.inf, *np.unique(scores)[::-1])]
    recall = [truth[some].sum() / truth.sum() for some in taken]
    roc, curve = roc_curve(*binary), precision_recall_curve(*binary)
    np.testing.assert_allclose(roc.x, [(~truth[some]).sum() / (~truth).sum() for some in taken])
    np.testing.assert_allclose(roc.y, recall)
    assert roc.area == pytest.approx(metrics.roc_auc_score(*binary), abs=1e-12)
    np.testing.assert_allclose(curve.x, recall)
    np.testing.assert_allclose(curve.y, [1.0, *(truth[some].mean() for some in taken[1:])])
    assert curve.area == pytest.approx(np.sum(np.diff(curve.x) * curve.y[1:]), abs=1e-12)


@pytest.mark.parametrize("bins", [5, 15])
def test_the_bins_of_calibration_are_scikit_learns(binary: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    truth, probabilities = binary
    observed, predicted = calibration_curve(truth, probabilities, n_bins=bins)
    bins_here = calibration(truth, probabilities, bins)
    full = bins_here.counts > 0
    np.testing.assert_allclose(bins_here.observed[full], observed)
    np.testing.assert_allclose(bins_here.predicted[full], predicted)
    assert np.isnan(bins_here.predicted[~full]).all()
    assert bins_here.counts.sum() == len(truth)


def test_the_expected_calibration_error_is_that_of_a_plain_loop() -> None:
    generator = np.random.default_rng(2)
    probabilities = generator.random(500)
    right = generator.random(500) < probabilities**2
    expected = 0.0
    for number in range(10):
        inside = [i for i in range(500) if number / 10 < probabilities[i] <= (number + 1) / 10]
        if inside:
            gap = sum(right[i] for i in inside) / len(inside) - sum(probabilities[i] for i in inside) / len(
                inside
            )
            expected += len(inside) / 500 * abs(gap)
    assert calibration(right, probabilities, 10).error == pytest.approx(expected, abs=1e-12)
    assert calibration(np.array([True, False]), np.array([1.0, 0.0])).error == 0.0


def evaluated(task: str, truth: np.ndarray, **found: np.ndarray) -> Any:
    """Return an evaluated model by its truth and predictions alone."""
    made: Any = SimpleNamespace(task=task, truth=truth, **found)
    made.worst = lambda count: EvaluatedModel.worst(made, count)
    return made


def test_the_most_confident_mistakes_are_those_of_a_sort() -> None:
    generator = np.random.default_rng(3)
    truth, predicted, confidence = (
        generator.integers(0, 3, 200),
        generator.integers(0, 3, 200),
        generator.random(200),
    )
    wrong = [i for i in range(200) if truth[i] != predicted[i]]
    expected = sorted(wrong, key=lambda i: -confidence[i])[:7]
    given = {"predicted": predicted, "confidence": confidence}
    assert evaluated("multiclass", truth, **given).worst(7).tolist() == expected
    assert len(evaluated("multiclass", predicted, **given).worst(7)) == 0


def test_the_largest_residuals_are_relative_to_their_column() -> None:
    residuals = np.array([[2.0, 0], [0, -50], [2, -100]])
    # By the largest of each column: 1 + 0, 0 + 0.5, 1 + 1.
    assert evaluated("regression", residuals, residuals=residuals).worst(2).tolist() == [2, 0]


def test_only_one_kind_of_rows_has_no_curve() -> None:
    for curve in (roc_curve, precision_recall_curve):
        for truth in (np.zeros(3, bool), np.ones(3, bool)):
            with pytest.raises(DataError, match="of one kind"):
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
    loss, accuracy, rate = learning_plots(history)
    assert [plot.key for plot in (loss, accuracy, rate)] == [
        "learning-loss",
        "learning-accuracy",
        "learning-learning-rate",
    ]
    assert loss.headers == ["epoch", "training", "validation"]
    assert loss.rows == [["1", "0.9", "1"], ["2", "0.5", "0.8"]]
    assert accuracy.headers == ["epoch", "validation"]
    assert rate.headers == ["epoch", "training"]
    with pytest.raises(DataError, match="no epoch"):
        learning_plots(History())
