"""Losses as descriptions: links, tasks, their JSON, and mistakes; and the targets they take."""

from __future__ import annotations

import json
import math
import re
import warnings

import numpy as np
import pytest
from scipy import special

from nnkit.errors import ConfigError, DataError
from nnkit.nn import losses
from nnkit.nn.links import inverse_link
from nnkit.nn.losses import loss_for_task, loss_from, loss_names, register_loss
from nnkit.nn.targets import loss_targets, loss_weights

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
        ({}, "loss = {} must be a name or a table"),
        ({"name": "mse", "delta": 1.0}, "unknown parameter 'delta' of the loss mse; it takes none"),
        ({"name": "huber", "dela": 1.0}, "unknown parameter 'dela' of the loss huber; did you mean delta"),
        (
            {"name": "huber", "delta": 0},
            "loss huber: delta = 0 must be a finite number greater than 0",
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
    np.testing.assert_allclose(inverse_link(z, "softmax"), special.softmax(z.astype(float), axis=1))
    np.testing.assert_allclose(inverse_link(z, "sigmoid"), special.expit(z.astype(float)))
    np.testing.assert_array_equal(inverse_link(z, "identity"), z)
    np.testing.assert_allclose(inverse_link(z[1:], "exp"), np.exp(z[1:].astype(float)))
    assert np.all(np.isfinite(inverse_link(z, "exp")))


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
    found = inverse_link(np.array([logits, [1.0, 2.0, 3.0]]), "softmax")
    np.testing.assert_allclose(found, [limit, ordinary])
    assert inverse_link(np.empty((0, 3)), "softmax").shape == (0, 3)


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


# ---------------------------------------------------------------------------------------------------------
# Registering.
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_REGISTRY", dict(losses._REGISTRY))


def cauchy(y, t, width):
    d = (y - t) / width
    return width * width * math.log1p(d * d)


def cauchy_derivative(y, t, width):
    d = (y - t) / width
    return 2.0 * width * d / (1.0 + d * d)


def right_for_a_width_of_one_alone(y, t, width):
    d = y - t
    return 2.0 * d / (1.0 + d * d)


def without_the_two(y, t, width):
    d = (y - t) / width
    return width * d / (1.0 + d * d)


def gamma(y, t):
    """Negative log-likelihood of a gamma distribution with the mean e^y, but for its constants."""
    return y + t * math.exp(-y)


def gamma_derivative(y, t):
    return 1.0 - t * math.exp(-y)


def pinball(y, t, share):
    d = t - y
    return share * d if d > 0.0 else (share - 1.0) * d


def pinball_derivative(y, t, share):
    return -share if t > y else 1.0 - share


def one_parameter(y):
    return y


def of_reduction(y, t, reduction):
    return reduction * (y - t)


def of_check(y, t, check):
    return check * (y - t)


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize(
    ("value", "derivative", "link", "constants"),
    [
        (cauchy, cauchy_derivative, "identity", {"width": 1}),
        (gamma, gamma_derivative, "exp", {}),
        (pinball, pinball_derivative, "identity", {"share": 0.9}),
    ],
)
def test_a_right_loss_is_taken_without_a_word(value, derivative, link, constants) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = register_loss("mine", value, derivative, link, **constants)
    assert loss == loss_from("mine")
    # No value of a constant is compiled anew, for each is a float.
    assert all(type(number) is float for number in loss.constants.values())


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize("name", [name for name in OWN if name != "cross_entropy"])
def test_nnkits_own_losses_pass_the_check(name: str) -> None:
    own = loss_from(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_loss("same_again", own.value, own.derivative, own.link, **own.constants)


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize(
    ("derivative", "message"),
    [
        (without_the_two, r"loss 'mine' is wrong: at y = -?[\d.]+, t = -?[\d.]+, width = 1 it gives"),
        (right_for_a_width_of_one_alone, r"loss 'mine' is wrong: at y = .*, width = 0.73 it gives"),
    ],
)
def test_a_wrong_derivative_is_refused_with_the_point(derivative, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        register_loss("mine", cauchy, derivative, width=1.0)
    assert "mine" not in loss_names()
    # What it says of the point is true.
    numbers = re.search(
        r"y = (.*), t = (.*), width = (.*) it gives (.*), and .* give (.*);", str(caught.value)
    )
    assert numbers is not None
    y, t, width, given, right = map(float, numbers.groups())
    assert derivative(y, t, width) == pytest.approx(given, rel=1e-5)
    assert cauchy_derivative(y, t, width) == pytest.approx(right, rel=1e-5)


@pytest.mark.usefixtures("_own_registry")
def test_a_derivative_may_differ_on_purpose() -> None:
    loss = register_loss("mine", cauchy, without_the_two, width=1.0, check=False)
    assert loss.derivative is without_the_two
    assert loss.constants == {"width": 1.0}


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize(
    ("name", "value", "derivative", "options", "message"),
    [
        ("mine", gamma, gamma_derivative, {"link": "foo"}, "unknown link 'foo' of the loss mine.*: identity"),
        ("mine", gamma, gamma_derivative, {"link": "softmax"}, "unknown link 'softmax'.*, sigmoid, exp"),
        ("mine", gamma, gamma_derivative, {"link": None}, "unknown link 'None'.*: identity, sigmoid, exp"),
        ("a loss", gamma, gamma_derivative, {}, "name of the loss, 'a loss', must be an identifier"),
        ("mse", gamma, gamma_derivative, {}, "the loss 'mse' is nnkit's own"),
        ("mine", cauchy, cauchy_derivative, {"width": "1"}, "width = '1' must be a finite number"),
        ("mine", cauchy, cauchy_derivative, {"width": True}, "width = True must be a finite number"),
        ("mine", cauchy, cauchy_derivative, {"width": math.nan}, "width = nan must be a finite number"),
        ("mine", of_reduction, of_reduction, {"reduction": 1.0}, "parameter 'reduction', a reserved name"),
        ("mine", of_check, of_check, {"check": True}, "parameter 'check', a reserved name"),
        ("mine", one_parameter, gamma_derivative, {}, r"takes \(y\); it must take \(y, t, ...\)"),
        ("mine", abs, gamma_derivative, {}, "value of the loss 'mine' must be a Python function"),
        ("mine", gamma, lambda y, t: 1.0 - t, {}, "formula '<lambda>'"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_refused_when_it_is_registered(name, value, derivative, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        register_loss(name, value, derivative, **options)
    assert "mine" not in loss_names()
