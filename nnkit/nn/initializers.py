"""How weights are drawn before training: small pure functions by name, and the default for an activation.

Each function takes the two fans and two callables that give `count` uniform (0, 1) or standard normal
numbers, and returns ``fan_in * fan_out`` numbers in float64. The numbers are a function of (seed, layer,
element), drawn on the host, so they are the same for every device, batch size and precision.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.checks import Number
from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels import philox
from nnkit.kernels.layout import WEIGHTS

__all__ = [
    "INITIALIZERS",
    "Draw",
    "Initializer",
    "default_initializer",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "initialize",
    "initialize_table",
    "initializer_from",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "register_initializer",
    "zeros",
]

Draw = Callable[[int], NDArray[np.float64]]
"""``draw(count)`` gives `count` random numbers, shape (count,), float64."""

Initializer = Callable[[int, int, Draw, Draw], NDArray[np.float64]]
"""``initializer(fan_in, fan_out, uniform, normal)`` gives ``fan_in * fan_out`` weights, float64."""

_RECTIFIERS = frozenset({"relu", "leaky_relu", "elu", "gelu", "silu", "softplus"})


def glorot_uniform(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Draw uniform in ±√(6 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, equation 16 (https://proceedings.mlr.press/v9/glorot10a.html).
    """
    return _symmetric(uniform(fan_in * fan_out), np.sqrt(6.0 / (fan_in + fan_out)))


def glorot_normal(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Draw normal with variance 2 / (fan_in + fan_out). Source as for `glorot_uniform`, equation 12."""
    return np.sqrt(2.0 / (fan_in + fan_out)) * normal(fan_in * fan_out)


def he_uniform(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Draw uniform in ±√(6 / fan_in), of the variance of `he_normal`."""
    return _symmetric(uniform(fan_in * fan_out), np.sqrt(6.0 / fan_in))


def he_normal(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Draw normal with variance 2 / fan_in, not truncated.

    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation 10
    (https://arxiv.org/abs/1502.01852).
    """
    return np.sqrt(2.0 / fan_in) * normal(fan_in * fan_out)


def lecun_uniform(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Draw uniform in ±√(3 / fan_in), of the variance of `lecun_normal`."""
    return _symmetric(uniform(fan_in * fan_out), np.sqrt(3.0 / fan_in))


def lecun_normal(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Draw normal with variance 1 / fan_in.

    LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998, section 4.6
    (https://doi.org/10.1007/978-3-642-35289-8_3).
    """
    return np.sqrt(1.0 / fan_in) * normal(fan_in * fan_out)


def normal(
    fan_in: int, fan_out: int, uniform: Draw, normal: Draw, *, std: float = 0.01
) -> NDArray[np.float64]:
    """Draw normal with standard deviation `std`, whatever the fans."""
    return std * normal(fan_in * fan_out)


def zeros(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Return zeros. Fit for an output layer; hidden units that all begin at zero stay alike for ever."""
    return np.zeros(fan_in * fan_out)


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "normal": normal,
    "zeros": zeros,
}


def register_initializer(name: str, function: Initializer) -> None:
    """Make `function` known as `name`.

    Raises
    ------
    ConfigError
        If the name is taken by another function.
    """
    if INITIALIZERS.get(name, function) is not function:
        raise ConfigError(f"the initializer name {name!r} is taken; choose another")
    INITIALIZERS[name] = function


def default_initializer(activation: str) -> str:
    """Return the initializer's name that suits the activation that follows the weights.

    he_normal for relu, leaky_relu, elu, gelu, silu and softplus, glorot_uniform for everything else.
    """
    return "he_normal" if activation in _RECTIFIERS else "glorot_uniform"


def initializer_from(value: str | Mapping[str, Any] | Initializer) -> Initializer:
    """Return the initializer for a name, a table such as ``{"name": "normal", "std": 0.02}``, or as given.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, or a parameter is not a finite number.
    """
    if callable(value):
        return value
    options: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(
            'an initializer is a name or a table with one, such as {"name": "normal", "std": 0.02}'
        )
    if name not in INITIALIZERS:
        raise unknown_name("initializer", name, INITIALIZERS)
    function = INITIALIZERS[name]
    known = [
        key
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for key, number in options.items():
        if key not in known:
            raise unknown_name("parameter", key, known, f"of the initializer {name}")
        Number()(f"initializer {name}: {key}", number)
    return partial(function, **options) if options else function


def initialize(
    initializer: str | Mapping[str, Any] | Initializer,
    fan_in: int,
    fan_out: int,
    seed: int,
    layer: int,
    dtype: DTypeLike = np.float32,
) -> NDArray:
    """Draw one layer's weights.

    Parameters
    ----------
    initializer : str, mapping or callable
        As `initializer_from` takes it.
    fan_in, fan_out : int
        The layer's inputs and outputs.
    seed : int
        In ``[0, 2**64)``.
    layer : int
        The layer's index; another layer gets other numbers.
    dtype : dtype
        They are drawn in float64 and rounded to it.

    Returns
    -------
    ndarray of shape (fan_in, fan_out), C-contiguous

    Raises
    ------
    ConfigError
        If the initializer is unknown, a fan is below 1, or it returned something of another size.
    """
    if fan_in < 1 or fan_out < 1:
        raise ConfigError(f"a layer needs at least one input and one output, not {fan_in} and {fan_out}")
    function = initializer_from(initializer)

    def uniform_draw(count: int) -> NDArray[np.float64]:
        return philox.uniform(seed, count, layer, 0, WEIGHTS)

    def normal_draw(count: int) -> NDArray[np.float64]:
        return philox.normal(seed, count, layer, 0, WEIGHTS)

    weights = np.asarray(function(fan_in, fan_out, uniform_draw, normal_draw))
    if weights.size != fan_in * fan_out:
        raise ConfigError(
            f"the initializer returned {weights.size} numbers for a layer of {fan_in} x {fan_out} weights"
        )
    return np.ascontiguousarray(weights.reshape(fan_in, fan_out), dtype=dtype)


def initialize_table(
    initializer: str | Mapping[str, Any] | Initializer | None,
    size: int,
    width: int,
    seed: int,
    layer: int,
    dtype: DTypeLike = np.float32,
) -> Iterator[tuple[int, NDArray]]:
    """Draw an embedding's table, some rows at a time, with the first one's number.

    Parameters
    ----------
    initializer : str, mapping, callable or None
        As `initialize` takes it, for a matrix of `size` inputs; None for normal with standard deviation
        1 / √width.
    size, width : int
        The table's shape.
    seed, layer, dtype
        As for `initialize`.
    """
    if initializer is not None:
        yield 0, initialize(initializer, size, width, seed, layer, dtype)
        return
    # A table may be half of a machine's memory, and a draw takes several times the space of what it gives.
    rows = max(4, _DRAWN_AT_ONCE // width // 4 * 4)  # a draw gives four numbers
    for first in range(0, size, rows):
        count = min(rows, size - first) * width
        drawn = philox.normal(seed, count, layer, 0, WEIGHTS, first=first * width // 4)
        yield first, (drawn / np.sqrt(width)).reshape(-1, width).astype(dtype)


_DRAWN_AT_ONCE = 1 << 17


def _symmetric(uniform: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    return (2.0 * uniform - 1.0) * limit
