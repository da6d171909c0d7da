"""Class weights as sample weights."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from nnkit.errors import ConfigError, DataError
from nnkit.training.class_weights import class_weights


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_balanced_weights_are_those_of_scikit_learn(shape: tuple[int, ...]) -> None:
    codes = np.repeat([0, 1, 2], [5, 12, 3])
    np.testing.assert_allclose(
        class_weights("balanced", codes.reshape(shape), 3), compute_sample_weight("balanced", codes)
    )


def test_balanced_weights_leave_out_classes_that_have_no_samples() -> None:
    codes = np.array([0, 0, 0, 2])
    np.testing.assert_allclose(class_weights("balanced", codes, 4), compute_sample_weight("balanced", codes))


def test_balanced_weights_give_each_class_the_same_sum_and_the_samples_a_mean_of_one() -> None:
    codes = np.repeat([0, 1, 2], [1, 30, 7])
    weights = class_weights("balanced", codes, 3)
    np.testing.assert_allclose(np.bincount(codes, weights), len(codes) / 3)
    assert weights.mean() == pytest.approx(1.0)


def test_one_output_stands_for_two_classes() -> None:
    targets = np.array([[0.0], [1.0], [1.0]])
    assert class_weights({0: 3.0, 1: 0.5}, targets, 1).tolist() == [3.0, 0.5, 0.5]


def test_classes_that_a_mapping_does_not_name_weigh_one() -> None:
    assert class_weights({2: 4, np.int64(0): 0.0}, np.array([0, 1, 2, 3]), 4).tolist() == [0, 1, 4, 1]


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ("balancd", "balancd"),
        ([1.0, 2.0, 3.0], "mapping"),
        ({1: "heavy"}, "heavy"),
        ({3: 1.0}, "0 to 2"),
        ({-1: 1.0}, "0 to 2"),
        ({"cat": 1.0}, "cat"),
        ({1.0: 1.0}, "1.0"),
        ({1: -0.5}, "-0.5"),
        ({1: float("nan")}, "nan"),
        ({1: float("inf")}, "inf"),
    ],
)
def test_what_is_no_class_or_no_weight_is_named(weight: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        class_weights(weight, np.array([0, 1, 2]), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "targets",
    [
        np.array([[0.0, 1.0], [1.0, 1.0]]),  # several labels
        np.array([0.5, 1.0]),  # probabilities
        np.array([[7.0], [0.0]]),  # a regression's numbers
        np.array([[-1.0], [0.0]]),
    ],
)
@pytest.mark.parametrize("weight", ["balanced", {0: 2.0}])
def test_targets_that_are_no_classes_are_refused(targets: np.ndarray, weight: object) -> None:
    with pytest.raises(DataError, match="class_weight needs"):
        class_weights(weight, targets, 1)  # type: ignore[arg-type]
