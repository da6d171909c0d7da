"""Registering an activation: what is refused, and the check of its derivative."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from nnkit.errors import ConfigError
from nnkit.nn import activations
from nnkit.nn.activations import activation_function, activation_names, register_activation


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "_REGISTRY", dict(activations._REGISTRY))


def square(z):
    return z * z


def twice(z):
    return 2.0 * z


def thrice(z):
    return 3.0 * z


def root_of_the_square(a):
    return 2.0 * math.sqrt(a)


def always_two(z):
    return 2.0


def cube(z):
    return z * z * z


def softsign(z):
    return z / (1.0 + abs(z))


def softsign_derivative(a):
    return (1.0 - abs(a)) * (1.0 - abs(a))


def hard_sigmoid(z):
    """With kinks at -2.61 and 1.834, which are among the points of the check."""
    low = -2.61 if z < -2.61 else z
    return 1.834 if low > 1.834 else low


def hard_sigmoid_derivative(z):
    return 1.0 if z > -2.61 and z < 1.834 else 0.0


def without_import(z):
    return log1p(exp(z))  # noqa: F821 - a kernel knows the functions of math by name


def without_import_derivative(z):
    return 1.0 / (1.0 + exp(-z))  # noqa: F821


def logarithm(z):
    """Defined for z > 0 alone."""
    return math.log(z)


def logarithm_derivative(z):
    return 1.0 / z


def wrong_above_five(z):
    return 2.0 * z if z < 5.0 else z


@pytest.mark.parametrize(
    ("value", "derivative"),
    [
        (square, twice),
        (softsign, softsign_derivative),
        (hard_sigmoid, hard_sigmoid_derivative),
        (without_import, without_import_derivative),
        (logarithm, logarithm_derivative),
    ],
    ids=lambda function: function.__name__,
)
def test_a_right_derivative_is_taken_without_a_word(value, derivative) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_activation("mine", value, derivative)
    assert activation_function("mine").value is value


@pytest.mark.parametrize("name", activation_names())
def test_nnkits_own_activations_pass_the_check(name: str) -> None:
    own = activation_function(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_activation("same_again", own.value, own.derivative)


@pytest.mark.parametrize(
    ("value", "derivative", "message"),
    [
        # The furthest off of the points that are tried: 3 · 5.319 against 2 · 5.319.
        (square, thrice, r"the derivative of the activation 'mine' is wrong: at z = 5.319 it gives 15.957, "
         r"and differences of the value give 10.638; correct"),
        (square, root_of_the_square, r"at z = -4.37 it gives 8.74, and differences of the value give -8.74"),
        (cube, twice, r"at z = 5.319"),
        (square, always_two, r"at z = -4.37 it gives 2, and differences of the value give -8.74"),
        (square, wrong_above_five, r"at z = 5.319 it gives 5.319, and differences of the value give 10.638"),
        (hard_sigmoid, softsign_derivative, "is wrong: at z = "),
    ],
)  # fmt: skip
def test_a_wrong_derivative_is_refused_with_the_point(value, derivative, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        register_activation("mine", value, derivative)
    assert "mine" not in activation_names()


def test_a_derivative_may_differ_on_purpose() -> None:
    """As that of a straight-through estimator does (Bengio et al. 2013)."""
    assert register_activation("mine", square, thrice, check=False).derivative is thrice


def defined_nowhere(z):
    return math.log(-1.0 - abs(z))


def test_a_formula_that_cannot_be_computed_is_taken_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="derivative of the activation 'mine' was not checked: ValueError: "):
        register_activation("mine", defined_nowhere, twice)
    assert "mine" in activation_names()


def two_parameters(z, slope):
    return slope * z


def any_number_of_parameters(*z):
    return z


def of_x(x):
    return 2.0 * x


def early_return(z):
    if z > 0.0:
        return z
    return 0.0


@pytest.mark.parametrize(
    ("name", "value", "derivative", "message"),
    [
        ("relu", square, twice, "activation 'relu' is nnkit's own; choose another name"),
        ("my act", square, twice, "name of the activation, 'my act', must be an identifier"),
        (None, square, twice, "name of the activation, None, must be an identifier"),
        ("mine", lambda z: z * z, lambda z: 2.0 * z, "formula '<lambda>'"),
        ("mine", math.tanh, twice, "value of the activation 'mine' must be a Python function, not <built-in"),
        (
            "mine",
            square,
            np.sign,
            "derivative of the activation 'mine' must be a Python function, not <u",
        ),
        ("mine", square, 2.0, "derivative of the activation 'mine' must be a Python function, not 2.0"),
        ("mine", two_parameters, twice, "formula 'two_parameters' takes z, slope; 1 values were given"),
        ("mine", any_number_of_parameters, twice, r"activation 'mine' takes \*z: a formula takes plain"),
        ("mine", square, of_x, r"takes \(x\); name its only parameter z"),
        ("mine", square, two_parameters, r"takes \(z, slope\); name its only parameter z"),
        ("mine", early_return, twice, "'early_return' must end with its one `return`"),
    ],
)
def test_what_is_no_activation_is_refused_when_it_is_registered(name, value, derivative, message) -> None:
    with pytest.raises(ConfigError, match=message):
        register_activation(name, value, derivative)
    assert "mine" not in activation_names()
