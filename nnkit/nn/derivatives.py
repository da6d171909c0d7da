"""The check of a registered formula's derivative against differences of its value, at a few points.

It finds plain mistakes, such as 3 z for the derivative of z². It tolerates an error of 0.1 %, because a
formula may approximate a function by a polynomial. A point near a kink, where the differences on both sides
or with two step sizes disagree, is skipped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from inspect import Parameter, signature
from types import FunctionType

import numpy as np

from nnkit.errors import ConfigError, shown

__all__ = ["Sample", "check_derivative", "check_function", "check_name"]

_STEP = 1e-3
_TOLERANCE = 1e-3  # of the derivative
_FLOOR = 1e-5  # of the function, where its derivative is small


@dataclass(frozen=True)
class Sample:
    """A point at which a derivative is compared with differences of the value; `words` are for messages."""

    x: float
    value: Callable[[float], float]
    derivative: Callable[[float], float]
    words: str


def check_name(kind: str, name: object, built_in: Collection[str]) -> None:
    """Raise `ConfigError` unless the name is an identifier and not built in."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"the name of the {kind}, {shown(name)}, must be an identifier such as 'my_{kind}'")
    if name in built_in:
        raise ConfigError(f"the {kind} {name!r} is nnkit's own; choose another name")


def check_function(function: object, what: str, of: str) -> None:
    """Raise `ConfigError` unless a function has plain parameters only."""
    if not isinstance(function, FunctionType):
        raise ConfigError(f"the {what} of {of} must be a Python function, not {shown(function)}")
    for parameter in signature(function).parameters.values():
        if parameter.kind is not Parameter.POSITIONAL_OR_KEYWORD:
            raise ConfigError(f"the {what} of {of} takes {parameter}: a formula takes plain parameters only")


def check_derivative(name: str, samples: Iterable[Sample]) -> None:
    """Compare derivatives with central differences; warn if none could be computed.

    `name` is for messages, such as "the activation 'square'"; the samples should be away from likely kinks.

    Raises
    ------
    ConfigError
        If a derivative is wrong; the message names the point with the largest error.
    """
    wrong, checked, reason = [], 0, "it is not finite at any of the checked points"
    with np.errstate(all="ignore"):
        for sample in samples:
            try:
                expected, floor = _slope(sample.value, sample.x)
                given = float(sample.derivative(sample.x))
            except Exception as error:  # whatever a user's function raises
                reason = f"{type(error).__name__}: {error}"
                continue
            if expected is None:
                continue
            checked += 1
            off = abs(given - expected) - _TOLERANCE * max(abs(expected), abs(given)) - floor
            if not off <= 0:
                wrong.append((off, sample, given, expected))
    if not checked:
        warnings.warn(f"the derivative of {name} was not checked: {reason}", stacklevel=4)
    if wrong:
        _, sample, given, expected = max(wrong, key=lambda one: one[0])
        raise ConfigError(
            f"the derivative of {name} is wrong: at {sample.words} it gives {given:.6g}, and differences of "
            f"the value give {expected:.6g}; correct the derivative, or the value"
        )


def _slope(value: Callable[[float], float], x: float) -> tuple[float | None, float]:
    """Return the derivative by differences, None near a kink, and the absolute error to tolerate."""
    h = np.float64(_STEP * max(1.0, abs(x)))
    here, *sides = (float(value(x + k * h)) for k in (0, -1e-2, 1e-2, -0.5, 0.5, -1, 1, -2, 2))
    before, after, left1, right1, left2, right2, left4, right4 = sides
    left, right = (here - before) / (1e-2 * float(h)), (after - here) / (1e-2 * float(h))
    # Central differences with one Richardson extrapolation: fourth order.
    near = (8.0 * (right1 - left1) - (right2 - left2)) / (6.0 * float(h))
    far = (8.0 * (right2 - left2) - (right4 - left4)) / (12.0 * float(h))
    floor = _FLOOR * max(abs(here), abs(near))
    smooth = abs(near - far) <= floor and abs(left - right) <= _TOLERANCE * abs(near) + floor
    return (near if smooth and math.isfinite(near) else None), floor
