"""The activation functions by name, and the registry for a user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import signature

from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels import formulas
from nnkit.kernels.plain import plain_function
from nnkit.nn.derivatives import Sample, check_derivative, check_function, check_name

__all__ = ["ActivationFunction", "activation_function", "activation_names", "register_activation"]


@dataclass(frozen=True)
class ActivationFunction:
    """A scalar function and its derivative.

    Parameters
    ----------
    name : str
        The name in the registry.
    value : function of z
        The activation as a function of the pre-activation.
    derivative : function of z or of a
        Its derivative as a function of the pre-activation, if its parameter is named ``z``, or of the
        activation, if it is named ``a``; z is then not kept for the backward pass.
    """

    name: str
    value: Callable
    derivative: Callable

    @cached_property
    def needs_z(self) -> bool:
        """Whether the backward pass needs the pre-activation."""
        return next(iter(signature(self.derivative).parameters)) == "z"

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        """Pickle the name: a user's activation must be registered again before unpickling."""
        return activation_function, (self.name,)

    def __copy__(self) -> ActivationFunction:
        return self

    def __deepcopy__(self, memo: object) -> ActivationFunction:
        return self


_REGISTRY: dict[str, ActivationFunction] = {}
_BUILT_IN: frozenset[str] = frozenset()
# Where derivatives are checked: on both sides of 0, away from likely kinks.
_POINTS = (-4.37, -2.61, -1.293, -0.538, -0.1173, 0.0831, 0.4137, 0.967, 1.834, 3.192, 5.319)


def register_activation(
    name: str, value: Callable, derivative: Callable, *, check: bool = True
) -> ActivationFunction:
    """Add an activation; its two scalar functions are fused into the kernels like nnkit's own.

    A network keeps the functions that its activations had when it was created: registering the name again, as
    when a notebook's cell is run a second time, affects only later networks.

    Parameters
    ----------
    name : str
        The name for layers, an identifier.
    value : function
        ``value(z)``, straight-line Python over a float (2.0, not 2) with one ``return`` at the end, written
        with `def`. It may call functions of `math`, and other functions of this kind.
    derivative : function
        ``derivative(z)`` or ``derivative(a)``, of the value before or after the activation.
    check : bool
        Whether to compare the derivative with differences of the value; False for one that differs on
        purpose, such as a straight-through estimator's.

    Raises
    ------
    ConfigError
        If the name is nnkit's own or not an identifier, a kernel cannot be made from a function, the
        derivative's parameter is named neither z nor a, or the derivative is wrong.

    Warns
    -----
    UserWarning
        If the functions cannot be computed in Python, so that the derivative is not checked.

    Examples
    --------
    >>> def square(z):
    ...     return z * z
    >>> def square_derivative(z):
    ...     return 2.0 * z
    >>> register_activation("square", square, square_derivative).needs_z
    True
    """
    check_name("activation", name, _BUILT_IN)
    words = f"the activation {name!r}"
    for function, what in ((value, "value"), (derivative, "derivative")):
        check_function(function, what, words)
    parameters = list(signature(derivative).parameters)
    if parameters not in (["z"], ["a"]):
        raise ConfigError(
            f"the derivative of activation {name!r} takes ({', '.join(parameters)}); name its only "
            "parameter z, the value before the activation, or a, the value after it"
        )
    registered = ActivationFunction(name, value, derivative)
    f, slope = plain_function(value, 1), plain_function(derivative, 1)
    of_z = slope if registered.needs_z else lambda z: slope(f(z))
    if check:
        check_derivative(words, [Sample(z, f, of_z, f"z = {z:g}") for z in _POINTS])
    _REGISTRY[name] = registered
    return registered


def activation_function(name: str) -> ActivationFunction:
    """Return the activation of that name, or raise `ConfigError`."""
    if name not in _REGISTRY:
        raise unknown_name("activation", name, _REGISTRY)
    return _REGISTRY[name]


def activation_names() -> tuple[str, ...]:
    """Return the names of all registered activations."""
    return tuple(_REGISTRY)


for _function in (
    ActivationFunction("identity", formulas.identity, formulas.identity_derivative),
    ActivationFunction("sigmoid", formulas.sigmoid, formulas.sigmoid_derivative),
    ActivationFunction("tanh", formulas.hyperbolic_tangent, formulas.hyperbolic_tangent_derivative),
    ActivationFunction("relu", formulas.relu, formulas.relu_derivative),
    ActivationFunction("leaky_relu", formulas.leaky_relu, formulas.leaky_relu_derivative),
    ActivationFunction("elu", formulas.elu, formulas.elu_derivative),
    ActivationFunction("gelu", formulas.gelu, formulas.gelu_derivative),
    ActivationFunction("silu", formulas.silu, formulas.silu_derivative),
    ActivationFunction("selu", formulas.selu, formulas.selu_derivative),
    ActivationFunction("mish", formulas.mish, formulas.mish_derivative),
    ActivationFunction("softplus", formulas.softplus, formulas.softplus_derivative),
):
    _REGISTRY[_function.name] = _function
_BUILT_IN = frozenset(_REGISTRY)
