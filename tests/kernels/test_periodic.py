"""The kernels that scale and embed inputs, against NumPy in float64 on each device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_devices import HostDevice
from numpy.typing import NDArray

from nnkit.kernels import formulas

TOLERANCE = {"float32": 3e-6, "float64": 1e-12}
# One row and several blocks of them; groups of four that end within a column's waves, and at its end.
SHAPES = [(1, 1, 1, 1), (9, 3, 5, 2), (700, 2, 16, 3)]
CASES = [*((shape, "float32") for shape in SHAPES), (SHAPES[1], "float64")]


def problem(shape: tuple[int, int, int, int], dtype: str) -> dict[str, Any]:
    """Return the arguments of all kernels for rows, columns, waves and lines, and two inputs more."""
    rows, columns, count, lines = shape
    random = np.random.default_rng(rows)
    sizes = {"frequency": columns * count, "phase": columns * count, "weight": columns * lines * count}
    flat = {name: random.normal(size=size).astype(dtype) for name, size in sizes.items()}
    width = columns * lines + columns + 2
    return {
        **flat,
        "bias": random.normal(size=columns * lines).astype(dtype),
        "x": random.normal(size=(rows, columns + 2)).astype(dtype),
        "delta": random.normal(size=(rows, width)).astype(dtype),
        "out": np.full((rows, width), np.nan, dtype),
        "onto": np.full((rows, columns + 2), np.nan, dtype),
        **{f"{name}_gradient": np.full(size, np.nan, dtype) for name, size in sizes.items()},
        **{"waves": np.full(2 * count, np.nan, dtype), "columns": columns, "first": 0},
    }


def expected(given: dict[str, Any], shape: tuple[int, int, int, int]) -> dict[str, NDArray]:
    rows, columns, count, lines = shape
    names = ("frequency", "phase", "weight", "bias", "x", "delta")
    frequency, phase, weight, bias, x, delta = (given[name].astype(np.float64) for name in names)
    frequency, phase = frequency.reshape(columns, count), phase.reshape(columns, count)
    weight, numbers = weight.reshape(columns, lines, count), x[:, :columns, None]
    angle = 2 * np.pi * numbers * frequency + phase
    by_line = delta[:, : columns * lines].reshape(rows, columns, lines)
    by_angle = np.einsum("ncl,clf->ncf", by_line, weight) * -np.sin(angle)
    embedded = np.einsum("ncf,clf->ncl", np.cos(angle), weight).reshape(rows, -1) + bias
    onto = delta[:, columns * lines :].copy()
    onto[:, :columns] += 2 * np.pi * (by_angle * frequency).sum(axis=2)
    return {
        "out": np.hstack([embedded, x]),
        "onto": onto,
        "frequency_gradient": 2 * np.pi * (by_angle * numbers).sum(axis=0).ravel(),
        "phase_gradient": by_angle.sum(axis=0).ravel(),
        "weight_gradient": np.einsum("ncl,ncf->clf", by_line, np.cos(angle)).ravel(),
    }


@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_embedding_and_gradients_are_the_expressions(
    device: HostDevice, shape: tuple[int, int, int, int], dtype: str
) -> None:
    given = problem(shape, dtype)
    wanted = expected(given, shape)
    for kernel in ("periodic", "periodic_gradient", "periodic_inputs"):
        device.run(kernel, dtype, {}, {}, given)
    for name, values in wanted.items():
        # A sum is as exact as its addends are large.
        atol = TOLERANCE[dtype] * max(1.0, np.abs(values).max()) * (1 + shape[0] ** 0.5)
        np.testing.assert_allclose(given[name], values, rtol=0, atol=atol, err_msg=name)


def test_the_derivative_may_be_of_the_inputs_after_the_numbers_alone(device: HostDevice) -> None:
    given = problem((9, 3, 5, 2), "float64")
    wanted = expected(given, (9, 3, 5, 2))["onto"]
    given |= {"onto": np.full((9, 3), np.nan), "first": 2}
    device.run("periodic_inputs", "float64", {}, {}, given)
    np.testing.assert_allclose(given["onto"], wanted[:, 2:], rtol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (9, 33), (300, 40)])
def test_columns_are_scaled(device: HostDevice, rows: int, columns: int) -> None:
    x, delta = np.random.default_rng(0).normal(size=(2, rows, columns)).astype(np.float32)
    weight = np.linspace(-1, 2, columns, dtype=np.float32)
    given = {"x": x, "weight": weight, "out": np.full_like(x, np.nan), "delta": delta.copy()}
    given["weight_gradient"] = np.full(columns, np.nan, np.float32)
    for kernel in ("scale_columns", "scale_columns_gradient"):
        device.run(kernel, "float32", {}, {}, given)
    np.testing.assert_array_equal(given["out"], x * weight)
    np.testing.assert_array_equal(given["delta"], delta * weight)
    sums = (x.astype(np.float64) * delta).sum(axis=0)
    np.testing.assert_allclose(given["weight_gradient"], sums, atol=2e-5)


def test_waves_are_exact_in_float64() -> None:
    r = np.linspace(-0.5, 0.5, 4001)
    cosines = [formulas.cosine_of_turns(float(one)) for one in r]
    sines = [formulas.sine_of_turns(float(one)) for one in r]
    np.testing.assert_allclose(cosines, np.cos(2 * np.pi * r), atol=5e-16)
    np.testing.assert_allclose(sines, np.sin(2 * np.pi * r), atol=5e-16)


def test_what_is_too_large_for_a_wave_or_no_number_does_no_harm(device: HostDevice) -> None:
    given = problem((9, 3, 5, 2), "float32")
    given["x"][:4, 0] = [1e30, -np.inf, np.nan, 12345.678]
    device.run("periodic", "float32", {}, {}, given)
    assert np.isnan(given["out"][2, :2]).all()
    assert np.isfinite(given["out"][[0, 1, 3], :6]).all()
    assert np.isfinite(given["out"][:, 2:6]).all()
