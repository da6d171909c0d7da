"""Layer normalisation and the sum of two arrays against NumPy in float64 and PyTorch, on each device."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_devices import CudaDevice, HostDevice
from numpy.typing import NDArray

DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 3e-6, "float64": 1e-12}
EPSILON = 1e-5
# Rows of one group and within one, of several threads, of more groups than a block has threads; one row, a
# few to a block, and more than the sums over them leave to one block. Each is compiled for CUDA on its own.
SHAPES = [(1, 1), (9, 3), (300, 4), (1, 33), (70, 40), (12, 1000), (3, 5000)]
CASES = [(*shape, "float32") for shape in SHAPES] + [
    (300, 4, "float64"),
    (1, 33, "float64"),
    (3, 5000, "float64"),
]
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def padded(array: NDArray, padding: int = 0) -> NDArray:
    """Return a copy whose rows are followed by so many NaNs that are not part of it."""
    room = np.full((len(array), array.shape[1] + padding), np.nan, array.dtype)
    room[:, : array.shape[1]] = array
    return room[:, : array.shape[1]]


def problem(rows: int, columns: int, dtype: str, bias: bool = True, padding: int = 0) -> dict[str, Any]:
    """Return the arguments of both kernels, with NaN where they write."""
    random = np.random.default_rng(columns)
    x, delta = (random.normal(size=(2, rows, columns)) * 2 + 0.5).astype(dtype)
    weight, shift = random.normal(size=(2, columns)).astype(dtype)
    return {
        "x": padded(x, padding),
        "delta": padded(delta, padding),
        "out": padded(np.full((rows, columns), np.nan, dtype), padding),
        "weight": weight,
        "bias": shift if bias else None,
        "mean": np.full(rows, np.nan, dtype),
        "inverse": np.full(rows, np.nan, dtype),
        "weight_gradient": np.full(columns, np.nan, dtype),
        "bias_gradient": np.full(columns, np.nan, dtype) if bias else None,
        "epsilon": EPSILON,
    }


def expected(given: dict[str, Any], epsilon: float = EPSILON) -> dict[str, NDArray]:
    """Return what both kernels should write, in float64, the gradient as the product with the Jacobian."""
    x, delta, weight = (given[key].astype(np.float64) for key in ("x", "delta", "weight"))
    mean, columns = x.mean(axis=1), x.shape[1]
    inverse = 1 / np.sqrt(x.var(axis=1) + epsilon)
    x_hat = (x - mean[:, None]) * inverse[:, None]
    out = x_hat * weight if given["bias"] is None else x_hat * weight + given["bias"].astype(np.float64)
    by_x = np.empty_like(x)
    for i, h in enumerate(x_hat):
        jacobian = inverse[i] * (np.eye(columns) - 1 / columns - np.outer(h, h) / columns)
        by_x[i] = jacobian @ (weight * delta[i])
    sums = {"weight_gradient": (delta * x_hat).sum(axis=0), "bias_gradient": delta.sum(axis=0)}
    return {"out": out, "mean": mean, "inverse": inverse, "delta": by_x, **sums}


def run_both(device: HostDevice, dtype: str, arguments: dict[str, Any]) -> None:
    """Run the kernels, one after the other; the gradient reads the statistics that the first has left."""
    bias = arguments["bias"] is not None
    device.run("layer_norm", dtype, {}, {"BIAS": bias, "GRADIENT": True}, arguments)
    device.run("layer_norm_gradient", dtype, {}, {"BIAS": bias}, arguments)


def assert_close(found: dict[str, Any], wanted: dict[str, NDArray], dtype: str) -> None:
    for key, values in wanted.items():
        if found[key] is not None:
            # A sum is as exact as its addends are large.
            scale = max(1.0, np.abs(values).max()) if key != "out" else 1.0
            limits = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * scale}
            np.testing.assert_allclose(found[key], values, **limits, err_msg=key)


@pytest.mark.parametrize(("rows", "columns", "dtype"), CASES)
def test_forward_and_backward_are_the_expressions(
    device: HostDevice, rows: int, columns: int, dtype: str
) -> None:
    arguments = problem(rows, columns, dtype)
    wanted = expected(arguments)
    run_both(device, dtype, arguments)
    assert_close(arguments, wanted, dtype)


def test_without_a_bias(device: HostDevice) -> None:
    arguments = problem(6, 33, "float64", bias=False)
    wanted = expected(arguments)
    run_both(device, "float64", arguments)
    assert_close(arguments, wanted, "float64")


def test_without_a_gradient_no_statistics_are_kept(device: HostDevice) -> None:
    arguments = problem(6, 33, "float64")
    kept = {key: value for key, value in arguments.items() if key not in ("mean", "inverse")}
    device.run("layer_norm", "float64", {}, {"BIAS": True}, kept)
    assert_close(kept, {"out": expected(arguments)["out"]}, "float64")


@pytest.mark.parametrize(
    ("columns", "padding", "dtype"), [(33, 3, "float32"), (40, 4, "float32"), (33, 3, "float64")]
)
def test_rows_may_lie_apart(device: HostDevice, columns: int, padding: int, dtype: str) -> None:
    """What lies between them is NaN: it is not read, and on the CPU it can be seen that it is not written."""
    arguments = problem(21, columns, dtype, padding=padding)
    wanted = expected(arguments)
    run_both(device, dtype, arguments)
    assert_close(arguments, wanted, dtype)
    for key in ("x", "delta", "out"):
        assert np.isnan(arguments[key].base[:, columns:]).all()


@pytest.mark.parametrize(
    ("columns", "dtype"), [(4, "float32"), (33, "float32"), (5000, "float32"), (33, "float64")]
)
@pytest.mark.parametrize("deviation", [1.0, 0.01])
def test_a_mean_that_is_large_beside_the_deviation_cancels_nothing(
    device: HostDevice, columns: int, dtype: str, deviation: float
) -> None:
    """float32 resolves 0.001 at 10⁴: a mean rounded to that would shift the second case by a twentieth."""
    arguments = problem(4, columns, dtype)
    random = np.random.default_rng(3)
    arguments["x"][...] = 1e4 + random.normal(size=(4, columns)) * deviation
    wanted = expected(arguments)
    run_both(device, dtype, arguments)
    # In float64 the noise itself keeps 12 digits, less what the mean's rounding is beside it.
    np.testing.assert_allclose(arguments["out"], wanted["out"], atol=2e-5 if dtype == "float32" else 1e-9)
    np.testing.assert_allclose(arguments["inverse"], wanted["inverse"], rtol=TOLERANCE[dtype] * 10)
    # The gradient has the mean as it is kept: right to its last digit, 10⁻³ or 2 · 10⁻¹² of a deviation of 1.
    shifted = 1e4 * np.finfo(dtype).eps / deviation * np.abs(arguments["inverse"]).max() * 40
    np.testing.assert_allclose(arguments["delta"], wanted["delta"], atol=shifted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4, 1e8])
def test_a_row_of_equal_elements_is_the_bias(device: HostDevice, value: float, dtype: str) -> None:
    arguments = problem(3, 33, dtype)
    arguments["x"][...] = value
    run_both(device, dtype, arguments)
    np.testing.assert_allclose(arguments["out"], np.tile(arguments["bias"], (3, 1)), atol=1e-5)
    np.testing.assert_allclose(arguments["inverse"], 1 / np.sqrt(EPSILON), rtol=1e-5)
    assert np.isfinite(arguments["delta"]).all()


def test_the_gradient_is_that_of_central_differences(device: HostDevice) -> None:
    arguments = problem(2, 33, "float64")
    delta = arguments["delta"].copy()
    run_both(device, "float64", arguments)

    def total(changed: dict[str, NDArray]) -> float:
        given = {**problem(2, 33, "float64"), **changed}
        device.run("layer_norm", "float64", {}, {"BIAS": True}, given)
        return float((given["out"] * delta).sum())

    gradients = {"x": "delta", "weight": "weight_gradient", "bias": "bias_gradient"}
    for key, gradient in gradients.items():
        values = arguments[key]
        found = np.empty_like(values)
        for place in np.ndindex(values.shape):
            step = np.zeros_like(values)
            step[place] = 1e-6
            found[place] = (total({key: values + step}) - total({key: values - step})) / 2e-6
        np.testing.assert_allclose(arguments[gradient], found, rtol=1e-6, atol=1e-8, err_msg=key)


@pytest.mark.extra("torch")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon", [1e-5, 0.3])
def test_on_the_cpu_it_is_pytorchs(dtype: str, epsilon: float) -> None:
    import torch

    arguments = {**problem(17, 33, dtype), "epsilon": epsilon}
    leaves = {
        key: torch.from_numpy(arguments[key].copy()).requires_grad_() for key in ("x", "weight", "bias")
    }
    out = torch.nn.functional.layer_norm(leaves["x"], (33,), leaves["weight"], leaves["bias"], epsilon)
    out.backward(torch.from_numpy(arguments["delta"].copy()))
    run_both(HostDevice(), dtype, arguments)
    gradients = {"delta": "x", "weight_gradient": "weight", "bias_gradient": "bias"}
    wanted = {key: leaves[leaf].grad.numpy() for key, leaf in gradients.items()}
    assert_close(arguments, {"out": out.detach().numpy(), **wanted}, dtype)


def test_a_nan_stays_in_its_row_and_its_columns_sums(device: HostDevice) -> None:
    arguments = problem(4, 33, "float32")
    arguments["x"][1, 20] = np.nan
    run_both(device, "float32", arguments)
    rows = np.array([0, 2, 3])
    for key in ("out", "delta"):
        assert np.isnan(arguments[key][1]).all()
        assert np.isfinite(arguments[key][rows]).all()
    assert np.isnan(arguments["weight_gradient"]).all()
    assert np.isfinite(arguments["bias_gradient"]).all()


@pytest.mark.parametrize(
    ("rows", "columns", "padding", "dtype"),
    [
        (1, 1, 0, "float32"),
        (300, 4, 0, "float32"),
        (9, 33, 3, "float32"),
        (2, 5000, 4, "float32"),
        (9, 33, 0, "float64"),
        (9, 40, 4, "float64"),
    ],
)
def test_one_array_is_added_to_another(
    device: HostDevice, rows: int, columns: int, padding: int, dtype: str
) -> None:
    target, source = np.random.default_rng(1).normal(size=(2, rows, columns)).astype(dtype)
    arguments = {"target": padded(target, padding), "source": padded(source, 2 * padding)}
    device.run("add", dtype, {}, {}, arguments)
    np.testing.assert_array_equal(arguments["target"], target + source)
    np.testing.assert_array_equal(arguments["source"], source)


# ---------------------------------------------------------------------------------------------------------
# CUDA: several blocks, accesses of each kind, and arrays in 16 bits, on a GPU, real or simulated.
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("rows", "columns", "dtype", "bias"),
    [
        (40, 40, "float32", True),
        (40, 40, "float64", False),
        (33, 13, "float32", False),
        (33, 13, "float64", True),
        (3, 160, "float32", True),
        (70, 1, "float32", True),
    ],
)
def test_blocks_of_few_threads_and_accesses_of_each_kind_give_the_same(
    rows: int, columns: int, dtype: str, bias: bool
) -> None:
    """A second run of the gradient finds the tickets that the first has left."""
    given = [problem(rows, columns, dtype, bias) for _ in range(2)]
    wanted = expected(given[0])
    for arguments, offset in zip(given, (0, 1), strict=True):
        device = CudaDevice(threads=8, offset=offset)
        device.run("layer_norm", dtype, {}, {"BIAS": bias, "GRADIENT": True}, arguments)
        assert ("load4(" in device.launch.kernel.path.read_text()) == (columns % 4 == 0 and offset == 0)
        operation = device.prepare("layer_norm_gradient", dtype, {}, {"BIAS": bias}, arguments)
        delta = arguments["delta"].copy()
        for _ in range(2):
            arguments["delta"][...] = delta
            for key in ("weight_gradient", "bias_gradient")[: 1 + bias]:
                arguments[key][...] = np.nan
            operation()
        assert_close(arguments, wanted, dtype)
    for key in wanted:
        if given[0][key] is not None:
            np.testing.assert_array_equal(given[0][key], given[1][key], err_msg=key)


@pytest.mark.gpu
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize(("columns", "parameters_too"), [(12, False), (10, True), (1100, False)])
def test_16_bits_are_what_float32_computes_rounded_once(
    half: np.dtype, columns: int, parameters_too: bool
) -> None:
    device, flags = CudaDevice(), {"BIAS": True, "GRADIENT": True}
    arguments = problem(6, columns, "float32")
    in_half = ("x", "out", "delta", *(("weight", "bias") if parameters_too else ()))
    narrow = {**arguments, **{key: arguments[key].astype(half) for key in in_half}}
    wide = {**problem(6, columns, "float32"), **{key: narrow[key].astype(np.float32) for key in in_half}}
    for name in ("layer_norm", "layer_norm_gradient"):
        for given in (narrow, wide):
            device.run(name, "float32", {}, flags, given)
    for key in ("out", "delta"):
        assert narrow[key].dtype == half
        np.testing.assert_array_equal(
            narrow[key].astype(np.float32), wide[key].astype(half).astype(np.float32)
        )
    for key in ("mean", "inverse", "weight_gradient", "bias_gradient"):
        assert narrow[key].dtype == np.float32
        np.testing.assert_array_equal(narrow[key], wide[key])


@pytest.mark.gpu
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize(("columns", "both"), [(12, False), (10, True)])
def test_16_bits_are_added_in_float32_and_rounded_once(half: np.dtype, columns: int, both: bool) -> None:
    target, source = np.random.default_rng(2).normal(size=(2, 6, columns)).astype(np.float32)
    arguments = {"target": target.astype(half), "source": source.astype(half) if both else source}
    wanted = (arguments["target"].astype(np.float32) + arguments["source"].astype(np.float32)).astype(half)
    CudaDevice().run("add", "float32", {}, {}, arguments)
    np.testing.assert_array_equal(arguments["target"].astype(np.float32), wanted.astype(np.float32))
