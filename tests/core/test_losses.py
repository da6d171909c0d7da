"""Losses as descriptions: links, tasks, their JSON, and mistakes; and the targets they take."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import special

from nnkit.core.links import predicted
from nnkit.core.losses import loss_for_task, loss_from, loss_names, register_loss
from nnkit.core.targets import loss_targets, loss_weights
from nnkit.errors import ConfigError, DataError

OWN = ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "poisson", "poisson_deviance")


def test_the_losses_there_are() -> None:
    assert set(OWN) <= set(loss_names())


@pytest.mark.parametrize("value", [*OWN, {"name": "huber", "delta": 0.5}])
def test_a_loss_survives_json(value) -> None:
    loss = loss_from(value)
    assert loss_from(json.loads(json.dumps(loss.to_json()))) == loss
    assert loss_from(loss) is loss


def test_parameters_are_taken_as_floats_and_leave_the_default_alone() -> None:
    assert loss_from({"name": "huber", "delta": 2}).constants == {"delta": 2.0}
    assert loss_from("huber").constants == {"delta": 1.0}
    assert loss_from({"name": "cross_entropy", "label_smoothing": 0.1}).constants == {"label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("name", "outputs", "task"),
    [
        ("cross_entropy", 3, "multiclass"),
        ("binary_cross_entropy", 1, "binary"),
        ("binary_cross_entropy", 4, "multilabel"),
        ("mse", 1, "regression"),
        ("poisson", 2, "regression"),
    ],
)
def test_a_loss_says_what_is_learnt(name: str, outputs: int, task) -> None:
    assert loss_from(name).task(outputs) == task
    chosen = {"mae", "huber", "poisson", "mse"} if task == "regression" else {name}
    assert loss_for_task(task).name in chosen


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("crossentropy", "unknown loss 'crossentropy'; did you mean cross_entropy"),
        ({}, "unknown loss ''"),
        ({"name": "mse", "delta": 1.0}, "unknown parameter 'delta' of the loss mse; it takes none"),
        ({"name": "huber", "dela": 1.0}, "unknown parameter 'dela' of the loss huber; did you mean delta"),
        (
            {"name": "huber", "delta": 0},
            "'huber': delta = 0 must be a number that is finite and greater than 0",
        ),
        ({"name": "huber", "delta": "1"}, "delta = '1'"),
        ({"name": "huber", "delta": True}, "delta = True"),
        ({"name": "huber", "delta": float("nan")}, "delta = nan"),
        ({"name": "cross_entropy", "label_smoothing": 1}, "label_smoothing = 1 must be .* less than 1"),
    ],
)
def test_mistakes_are_named(value, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss_from(value)


def test_predictions_are_the_inverse_links() -> None:
    z = np.array([[-1000.0, 0.0, 1000.0], [1.0, 2.0, 3.0]], np.float32)
    np.testing.assert_allclose(predicted(z, "softmax"), special.softmax(z.astype(float), axis=1))
    np.testing.assert_allclose(predicted(z, "sigmoid"), special.expit(z.astype(float)))
    np.testing.assert_array_equal(predicted(z, "identity"), z)
    np.testing.assert_allclose(predicted(z[1:], "exp"), np.exp(z[1:].astype(float)))
    assert np.all(np.isfinite(predicted(z, "exp")))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("logits", "limit"),
    [
        ([np.inf, 0.0, 5.0], [1.0, 0.0, 0.0]),
        ([-np.inf, 2.0, 2.0], [0.0, 0.5, 0.5]),
        ([1e308, -1e308, 0.0], [1.0, 0.0, 0.0]),
        ([np.inf, -np.inf, 0.0], [1.0, 0.0, 0.0]),
        ([np.inf, np.inf, 0.0], [np.nan] * 3),
        ([-np.inf] * 3, [np.nan] * 3),
        ([np.nan, 0.0, 1.0], [np.nan] * 3),
    ],
)
def test_probabilities_of_infinite_logits_are_the_limit_where_there_is_one(
    logits: list[float], limit: list[float]
) -> None:
    ordinary = special.softmax([1.0, 2.0, 3.0])
    found = predicted(np.array([logits, [1.0, 2.0, 3.0]]), "softmax")
    np.testing.assert_allclose(found, [limit, ordinary])
    assert predicted(np.empty((0, 3)), "softmax").shape == (0, 3)


def test_targets_take_the_shape_and_dtype_of_the_kernel() -> None:
    softmax, mse = loss_from("cross_entropy"), loss_from("mse")
    for classes in ([0, 2, 1], [0.0, 2.0, 1.0], [[0], [2], [1]]):
        indices = loss_targets(classes, softmax, 3, 3, np.float32)
        assert indices.dtype == np.int32
        assert indices.tolist() == [0, 2, 1]
    probabilities = loss_targets([[0.5, 0.5], [1, 0]], softmax, 2, 2, np.float32)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (2, 2)
    column = loss_targets([1, 2, 3], mse, 1, 3, np.float64)
    assert column.dtype == np.float64
    assert column.shape == (3, 1)
    assert loss_targets([True, False], loss_from("binary_cross_entropy"), 1, 2, np.float32).tolist() == [
        [1],
        [0],
    ]


@pytest.mark.parametrize(
    ("targets", "loss", "outputs", "message"),
    [
        ([0, 1, 3], "cross_entropy", 3, "from 0 to 3; with 3 outputs they are 0 to 2"),
        ([0, -1, 1], "cross_entropy", 3, "class indices reach from -1"),
        ([0, 0.5, 1], "cross_entropy", 3, "whole class indices"),
        ([0, np.nan, 1], "cross_entropy", 3, "in row 1 is nan; cross_entropy takes whole class indices"),
        ([0, 1, np.inf], "cross_entropy", 3, "in row 2 is inf; cross_entropy takes whole class indices"),
        ([0, 2**32, 1], "cross_entropy", 3, "from 0 to 4294967296; with 3 outputs they are 0 to 2"),
        ([0, 1, 1e39], "mse", 1, r"the target 1e\+39 in row 2 is too large for float32; divide"),
        ([0, 1], "mse", 1, "3 rows of features and 2 targets"),
        (["a", "b", "c"], "cross_entropy", 3, "are not numbers"),
        (np.zeros((3, 2)), "mse", 1, "2 columns, and the network has 1 outputs"),
        ([0, np.inf, 1], "mse", 1, "the target in row 1 is inf"),
        ([0, 2, 1], "binary_cross_entropy", 1, "lie between 0 and 1"),
        ([[0.5, 1.5]] * 3, "cross_entropy", 2, "lie between 0 and 1"),
        ([0, -2, 1], "poisson", 1, "at least 0; the least here is -2"),
    ],
)
def test_targets_that_do_not_fit_are_named(targets, loss: str, outputs: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss_targets(targets, loss_from(loss), outputs, 3, np.float32)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "shape"),
        ([[1], [2], [3]], "shape"),
        ([1, -1, 1], "in row 1 is -1; weights are at least 0"),
        ([0, 0, 0], "all sample weights are 0"),
        ([1, np.nan, 1], "sample weight in row 1 is nan"),
        ([1, 1, 1e39], r"sample weight 1e\+39 in row 2 is too large for float32"),
        (["a", "b", "c"], "are not numbers"),
    ],
)
def test_sample_weights_that_do_not_fit_are_named(weights, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss_weights(weights, 3, np.float32)


@pytest.mark.parametrize("loss", ["mse", "mae", "poisson"])
def test_a_target_too_large_for_the_type_is_told_from_one_that_is_infinite(loss: str) -> None:
    large = np.array([[1.0, 2.0], [3.0, 1e300], [5.0, 6.0]])
    with pytest.raises(DataError, match=r"1e\+300 in row 1 is too large for float32; .*dtype='float64'"):
        loss_targets(large, loss_from(loss), 2, 3, np.float32)
    np.testing.assert_array_equal(loss_targets(large, loss_from(loss), 2, 3, np.float64), large)
    with pytest.raises(DataError, match="row 1 is inf; remove the row"):
        loss_targets(np.where(large > 1e9, np.inf, large), loss_from(loss), 2, 3, np.float32)


def test_sample_weights_take_the_dtype() -> None:
    assert loss_weights(None, 3, np.float32) is None
    weights = loss_weights([1, 0, 2], 3, np.float32)
    assert weights is not None
    assert weights.dtype == np.float32


def test_a_registered_loss_names_its_parameters_and_takes_no_name_of_nnkits() -> None:
    def value(y, t, factor):
        return factor * (y - t)

    def derivative(y, t, factor):
        return factor

    with pytest.raises(ConfigError, match=r"'value' takes \['factor'\] besides the output and the target"):
        register_loss("without_its_constant", value, derivative)
    with pytest.raises(ConfigError, match="'mse' is nnkit's own"):
        register_loss("mse", value, derivative, factor=1.0)
