"""The initial values of weights: pure functions by name, and the default for an activation.

Each function takes the two fans and two callables that return `count` uniform (0, 1) or standard normal
numbers, and returns ``fan_in * fan_out`` numbers in float64. They are drawn on the host as a function of
(seed, layer, element), so they are the same for every device, batch size and precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import Parameter, signature
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.checks import Number
from nnkit.errors import ConfigError
from nnkit.kernels import philox
from nnkit.kernels.layout import WEIGHTS
from nnkit.nn.options import check_parameters, named_options

__all__ = [
    "INITIALIZERS",
    "Draw",
    "Initializer",
    "default_initializer",
    "initialize",
    "initialize_table",
    "initializer_from",
    "normal",
    "register_initializer",
    "zeros",
]

Draw = Callable[[int], NDArray[np.float64]]
"""``draw(count)`` returns `count` random numbers, shape (count,), float64."""

Initializer = Callable[[int, int, Draw, Draw], NDArray[np.float64]]
"""``initializer(fan_in, fan_out, uniform, normal)`` returns ``fan_in * fan_out`` weights, float64."""

_DRAWN_AT_ONCE = 1 << 17
_RECTIFIERS = frozenset({"relu", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus"})


def _scaled(variance: float, both: bool, *, is_uniform: bool) -> Initializer:
    """Return the initializer with variance `variance` / fan, where fan is fan_in, or fan_in + fan_out."""

    def initializer(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
        fan = fan_in + fan_out if both else fan_in
        if is_uniform:
            return (2.0 * uniform(fan_in * fan_out) - 1.0) * np.sqrt(3.0 * variance / fan)
        return np.sqrt(variance / fan) * normal(fan_in * fan_out)

    return initializer


def normal(
    fan_in: int, fan_out: int, uniform: Draw, normal: Draw, *, std: float = 0.01
) -> NDArray[np.float64]:
    """Draw normal with standard deviation `std`, whatever the fans."""
    return std * normal(fan_in * fan_out)


def zeros(fan_in: int, fan_out: int, uniform: Draw, normal: Draw) -> NDArray[np.float64]:
    """Return zeros: for an output layer only, because hidden units that begin equal stay equal."""
    return np.zeros(fan_in * fan_out)


INITIALIZERS: dict[str, Initializer] = {
    # Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    # 2010, equations 16 and 12 (https://proceedings.mlr.press/v9/glorot10a.html).
    "glorot_uniform": _scaled(2.0, both=True, is_uniform=True),
    "glorot_normal": _scaled(2.0, both=True, is_uniform=False),
    # He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation 10
    # (https://arxiv.org/abs/1502.01852); not truncated.
    "he_uniform": _scaled(2.0, both=False, is_uniform=True),
    "he_normal": _scaled(2.0, both=False, is_uniform=False),
    # LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998, section 4.6
    # (https://doi.org/10.1007/978-3-642-35289-8_3).
    "lecun_uniform": _scaled(1.0, both=False, is_uniform=True),
    "lecun_normal": _scaled(1.0, both=False, is_uniform=False),
    # As PyTorch's Linear begins, and the layers of TabM: up to 1 / √fan_in.
    "fan_in_uniform": _scaled(1.0 / 3.0, both=False, is_uniform=True),
    "normal": normal,
    "zeros": zeros,
}


def register_initializer(name: str, function: Initializer) -> None:
    """Register `function` as `name`, or raise `ConfigError` if another function has that name."""
    if INITIALIZERS.get(name, function) is not function:
        raise ConfigError(f"the initializer name {name!r} is taken; choose another")
    INITIALIZERS[name] = function


def default_initializer(activation: str) -> str:
    """Return "he_normal" for the ReLU family, "lecun_normal" for SELU, else "glorot_uniform".

    SELU keeps its units' mean and variance with LeCun's (Klambauer et al. 2017, arXiv:1706.02515).
    """
    if activation == "selu":
        return "lecun_normal"
    return "he_normal" if activation in _RECTIFIERS else "glorot_uniform"


def initializer_from(value: str | Mapping[str, Any] | Initializer) -> Initializer:
    """Return the initializer for a name or a table such as ``{"name": "normal", "std": 0.02}``.

    A function is returned unchanged.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, or a parameter is not a finite number.
    """
    if callable(value):
        return value
    example = '{"name": "normal", "std": 0.02}'
    name, options = named_options("initializer", value, INITIALIZERS, example)
    function = INITIALIZERS[name]
    parameters = signature(function).parameters.values()
    known = [one.name for one in parameters if one.kind is Parameter.KEYWORD_ONLY]
    check_parameters("initializer", name, options, known)
    for key, number in options.items():
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
        The layer's number, on which the draws depend.
    dtype : dtype
        The weights are drawn in float64 and rounded to it.

    Returns
    -------
    ndarray of shape (fan_in, fan_out), C-contiguous

    Raises
    ------
    ConfigError
        If the initializer is unknown or returns a wrong number of weights, or a fan is below 1.
    """
    if fan_in < 1 or fan_out < 1:
        raise ConfigError(f"a layer needs at least one input and one output, not {fan_in} and {fan_out}")
    uniform, normal = (
        lambda count, draw=draw: draw(seed, count, layer, 0, WEIGHTS)
        for draw in (philox.uniform, philox.normal)
    )
    weights = np.asarray(initializer_from(initializer)(fan_in, fan_out, uniform, normal))
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
    """Draw an embedding's table of shape (size, width), in blocks with the number of the first row.

    Parameters as for `initialize`, with fans of `size` and `width`; None draws normal with standard deviation
    1 / √width.
    """
    if initializer is not None:
        yield 0, initialize(initializer, size, width, seed, layer, dtype)
        return
    # A table may take half of the machine's memory, and drawing takes several times the memory of the result.
    rows = max(4, _DRAWN_AT_ONCE // width // 4 * 4)  # the generator returns four numbers at a time
    for first in range(0, size, rows):
        count = min(rows, size - first) * width
        drawn = philox.normal(seed, count, layer, 0, WEIGHTS, first=first * width // 4)
        yield first, (drawn / np.sqrt(width)).reshape(-1, width).astype(dtype)
