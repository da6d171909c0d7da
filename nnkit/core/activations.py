"""The activation functions by name, and the registry a user adds their own to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels import formulas

__all__ = ["ActivationFunction", "activation_function", "activation_names", "register_activation"]


@dataclass(frozen=True)
class ActivationFunction:
    """A scalar function and its derivative.

    Parameters
    ----------
    name : str
        What a layer calls it.
    value : function of z
        The activation of one pre-activation.
    derivative : function of z or of a
        Its derivative, computed from the pre-activation if its parameter is named ``z`` and from the
        activation if it is named ``a``; the latter spares keeping z.
    """

    name: str
    value: Callable
    derivative: Callable

    @property
    def needs_z(self) -> bool:
        """Whether the backward pass needs the pre-activation."""
        return next(iter(signature(self.derivative).parameters)) == "z"


_REGISTRY: dict[str, ActivationFunction] = {}
_BUILT_IN: frozenset[str] = frozenset()


def register_activation(name: str, value: Callable, derivative: Callable) -> ActivationFunction:
    """Add an activation; its two scalar functions are fused into the kernels as nnkit's own are.

    Parameters
    ----------
    name : str
        What layers will call it.
    value : function
        ``value(z)``, straight-line Python over a float (2.0, not 2) with one ``return`` at its end. It may
        call functions of `math`.
    derivative : function
        ``derivative(z)`` or ``derivative(a)``.

    Raises
    ------
    ConfigError
        If the derivative's parameter is named neither z nor a.

    Examples
    --------
    >>> def square(z):
    ...     return z * z
    >>> def square_derivative(z):
    ...     return 2.0 * z
    >>> register_activation("square", square, square_derivative).needs_z
    True
    """
    parameters = list(signature(derivative).parameters)
    if parameters not in (["z"], ["a"]):
        raise ConfigError(
            f"the derivative of activation {name!r} takes ({', '.join(parameters)}); name its one "
            "parameter z, the value before the activation, or a, the value after it"
        )
    if name in _BUILT_IN:
        raise ConfigError(f"the activation {name!r} is nnkit's own; choose another name")
    _REGISTRY[name] = ActivationFunction(name, value, derivative)
    return _REGISTRY[name]


def activation_function(name: str) -> ActivationFunction:
    """Return the activation of that name, or raise `ConfigError` with the names there are."""
    if name not in _REGISTRY:
        raise unknown_name("activation", name, _REGISTRY)
    return _REGISTRY[name]


def activation_names() -> tuple[str, ...]:
    """Return the names of all registered activations."""
    return tuple(_REGISTRY)


register_activation("identity", formulas.identity, formulas.identity_derivative)
register_activation("sigmoid", formulas.sigmoid, formulas.sigmoid_derivative)
register_activation("tanh", formulas.hyperbolic_tangent, formulas.hyperbolic_tangent_derivative)
register_activation("relu", formulas.relu, formulas.relu_derivative)
register_activation("leaky_relu", formulas.leaky_relu, formulas.leaky_relu_derivative)
register_activation("elu", formulas.elu, formulas.elu_derivative)
register_activation("gelu", formulas.gelu, formulas.gelu_derivative)
register_activation("silu", formulas.silu, formulas.silu_derivative)
register_activation("softplus", formulas.softplus, formulas.softplus_derivative)
_BUILT_IN = frozenset(_REGISTRY)
