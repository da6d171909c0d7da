"""The float32 elementary functions, through compiled kernels, against float64."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Kernel
from nnkit.kernels import elementary

REFERENCE: dict[str, Callable] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "erf": special.erf,
}
RANGES = {
    "exp": (-87.3, 88.7228),
    "expm1": (-100.0, 88.7228),
    "log": (1.1754944e-38, 3.4e38),
    "log1p": (-0.9999999, 3.4e38),
    "tanh": (-30.0, 30.0),
    "erf": (-10.0, 10.0),
}
SPECIAL = {
    "exp": {math.inf: math.inf, -math.inf: 0, 89: math.inf, 1e30: math.inf, -104: 0, -1e30: 0},
    "expm1": {math.inf: math.inf, -math.inf: -1, 89: math.inf, 1e30: math.inf, -1e30: -1},
    "log": {math.inf: math.inf, -math.inf: math.nan, 0: -math.inf, -1: math.nan, 1: 0},
    "log1p": {math.inf: math.inf, -math.inf: math.nan, -1: -math.inf, -2: math.nan, 0: 0},
    "tanh": {math.inf: 1, -math.inf: -1, 1e30: 1, -1e30: -1, 0: 0},
    "erf": {math.inf: 1, -math.inf: -1, 1e30: 1, -1e30: -1, 0: 0},
}
TINY = float(np.finfo(np.float32).tiny)


def compiled(name: str, x: np.ndarray) -> np.ndarray:
    """Return the function of x, as the activation of a compiled kernel."""
    z = np.array(x, np.float32).reshape(1, -1)
    constants = {"BIAS": False, "DROPOUT": False, "KEEP_Z": False}
    kernel = Kernel("forward", np.float32, {"activation": elementary.FLOAT32[name]}, constants, {"z": z})
    NumpyBackend().compile([kernel]).run()
    return z[0]


def dense_grid(name: str) -> np.ndarray:
    """Return numbers dense on a linear and on a logarithmic scale, of both signs."""
    low, high = RANGES[name]
    magnitudes = np.geomspace(1.2 * TINY, max(-low, high), 500_000)
    numbers = np.concatenate([np.linspace(low, high, 500_000), magnitudes, -magnitudes])
    if name in ("log", "log1p"):
        numbers = np.concatenate([numbers, np.linspace(max(low, -0.99), 4, 500_000)])
    single = numbers.astype(np.float32)
    return single[(single >= np.float32(low)) & (single <= np.float32(high))]


@pytest.mark.parametrize("name", REFERENCE)
def test_error_is_within_what_the_module_says(name: str) -> None:
    assert elementary.__doc__ is not None
    stated = dict(re.findall(r"(\w+) (\d)[,.]", elementary.__doc__.partition("result:")[2]))
    x = dense_grid(name)
    exact = REFERENCE[name](x.astype(np.float64))
    errors = abs(compiled(name, x) - exact) / np.spacing(abs(exact).astype(np.float32)).astype(np.float64)
    # Of a denormal result only as many digits are asked as a normal one's last place has.
    errors[abs(exact) < TINY] = 0
    assert np.max(errors) <= int(stated[name]), x[np.argmax(errors)]
    assert np.max(errors) > int(stated[name]) - 2, "the module promises less than it keeps"


@pytest.mark.parametrize("name", REFERENCE)
def test_nan_and_infinities_behave(name: str) -> None:
    points = np.array([math.nan, *SPECIAL[name]], np.float32)
    expected = np.array([math.nan, *SPECIAL[name].values()])
    np.testing.assert_allclose(compiled(name, points), expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_a_bounded_function_stays_in_its_bounds(name: str) -> None:
    values = compiled(name, np.linspace(-12, 12, 200_001))
    assert np.all(abs(values) <= 1)
