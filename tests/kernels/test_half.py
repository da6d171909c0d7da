"""The CUDA kernels on arrays in 16 bits: what they compute in float32, rounded to the format once.

On a GPU, real or simulated. The float32 kernels have expectations of their own.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_devices import CudaDevice, HostDevice

from nnkit.kernels.layout import COUNTERS, LOSS_SCALE, LOSS_SUM, LOSS_WEIGHT, SCALARS, SCALING, WEIGHT_SUM
from nnkit.nn.activations import activation_function, activation_names
from nnkit.nn.losses import loss_from
from nnkit.nn.optimizers import optimizer_from

pytestmark = pytest.mark.gpu

FORMATS = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
ROWS = 6


@pytest.fixture
def device() -> CudaDevice:
    """The CPU's kernels take no arrays in 16 bits."""
    return CudaDevice()


@pytest.fixture(params=FORMATS)
def half(request: pytest.FixtureRequest) -> np.dtype:
    """A format of 16 bits."""
    return FORMATS[request.param]


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def rounded(array: np.ndarray, half: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array.astype(half)


def both(
    device: HostDevice, half: np.dtype, in_half: tuple[str, ...], name: str, formulas: dict, constants: dict,
    arguments: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Run a kernel with some arrays in 16 bits, and with the same values in float32."""
    copies = [
        {key: np.copy(value) if isinstance(value, np.ndarray) else value for key, value in arguments.items()}
        for _ in range(2)
    ]
    halves = {key: rounded(arguments[key], half) for key in in_half}
    narrow = {**copies[0], **halves}
    wide = {**copies[1], **{key: array.astype(np.float32) for key, array in halves.items()}}
    device.run(name, "float32", formulas, constants, narrow)
    device.run(name, "float32", formulas, constants, wide)
    return narrow, wide


def assert_rounded(result: np.ndarray, exact: np.ndarray, half: np.dtype) -> None:
    """The result is the float32 one, rounded once to the nearest."""
    assert result.dtype == half
    np.testing.assert_array_equal(result.astype(np.float32), rounded(exact, half).astype(np.float32))


# A half-precision pass gives the bias in 16 bits too, but that of float32 outputs.
@pytest.mark.parametrize("columns", [12, 10])
@pytest.mark.parametrize(
    ("name", "in_half"),
    [*((name, ("z", "a", "bias")) for name in activation_names()), ("relu", ("z", "a"))],
)
def test_a_layer_forward_and_backward(
    device: HostDevice, half: np.dtype, name: str, in_half: tuple[str, ...], columns: int
) -> None:
    function = activation_function(name)
    z = normal(ROWS, columns, scale=2.0)
    arguments = {
        "z": z,
        "a": np.zeros_like(z) if function.needs_z else z,
        "bias": normal(columns, seed=1),
        "mask": np.zeros((ROWS, -(-columns // 4) * 4), np.uint8),
        "counters": np.zeros(COUNTERS, np.int64),
        **{"layer": 1, "key0": 1, "key1": 2, "threshold": 2**30, "kept_scale": 4 / 3, "keep": 0.75},
        "delta": normal(ROWS, columns, seed=2),
        "bias_gradient": np.zeros(columns, np.float32),
    }
    flags = {"BIAS": True, "DROPOUT": True, "KEEP_Z": function.needs_z, "FROM_Z": function.needs_z}
    formulas = {"activation": function.value, "activation_derivative": function.derivative}
    narrow, wide = both(device, half, in_half, "forward", formulas, flags, arguments)
    assert np.array_equal(narrow["mask"], wide["mask"]), "other neurons are dropped"
    for key in ("z", "a") if function.needs_z else ("z",):
        assert_rounded(narrow[key], wide[key], half)
    kept = {**arguments, "mask": narrow["mask"]}
    kept |= {key: narrow[key if function.needs_z else "z"].astype(np.float32) for key in ("z", "a")}
    narrow, wide = both(device, half, ("z", "a", "delta"), "backward", formulas, flags, kept)
    assert_rounded(narrow["delta"], wide["delta"], half)
    # Summed in float32, before anything is rounded.
    assert np.array_equal(narrow["bias_gradient"], wide["bias_gradient"])


def loss_arguments(columns: int, indices: bool) -> dict[str, Any]:
    scaling = np.zeros(SCALING)
    scaling[LOSS_SCALE] = 1024.0
    labels = np.arange(ROWS, dtype=np.int32) % columns
    return {
        "outputs": normal(ROWS, columns),
        "bias": normal(columns, seed=1),
        "labels": labels if indices else np.abs(normal(ROWS, columns, seed=2)),
        "batch_weights": np.abs(normal(ROWS, seed=3)),
        "count": np.array([ROWS - 1]),
        "gradient": np.full((ROWS, columns), 7, np.float32),
        "bias_gradient": np.zeros(columns, np.float32),
        "scalars": np.zeros(SCALARS),
        "scaling": scaling,
        "batch_size": ROWS,
    }


@pytest.mark.parametrize("columns", [12, 10])
@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_a_loss_and_its_scaled_gradient(device: HostDevice, half: np.dtype, name: str, columns: int) -> None:
    loss = loss_from(name)
    indices = loss.value is None
    flags = {"BIAS": True, "GRADIENT": True, "WEIGHTED": True, "INDICES": indices, **loss.kernel_constants}
    arguments = loss_arguments(columns, indices)
    scaled = {**flags, "RESCALED": True}
    narrow, wide = both(device, half, ("gradient",), loss.kernel, loss.formulas, scaled, arguments)
    assert_rounded(narrow["gradient"], wide["gradient"], half)
    assert np.array_equal(narrow["scalars"], wide["scalars"])
    plain = {
        key: np.copy(value) if isinstance(value, np.ndarray) else value for key, value in arguments.items()
    }
    device.run(loss.kernel, "float32", loss.formulas, flags, plain)
    # A power of two changes no bit.
    assert np.array_equal(wide["gradient"], 1024 * plain["gradient"])
    assert np.array_equal(wide["scalars"], plain["scalars"])
    # The softmax's sum for the bias is of what it has written: half a unit in the last place of each.
    unit = float(ml_dtypes.finfo(half).eps)
    allowed = ROWS * unit * np.abs(wide["gradient"]).max() * (loss.value is None)
    np.testing.assert_allclose(narrow["bias_gradient"], wide["bias_gradient"], rtol=1e-6, atol=allowed + 1e-6)


@pytest.mark.filterwarnings("ignore:overflow encountered in scalar multiply:RuntimeWarning")
@pytest.mark.parametrize("output", [np.inf, np.nan, 1e30])
def test_a_loss_that_overflowed_is_not_counted_and_its_gradient_is_not_finite(
    device: HostDevice, output: float
) -> None:
    half = FORMATS["float16"]
    loss = loss_from("mse")
    flags = {"BIAS": True, "GRADIENT": True, "WEIGHTED": True, "RESCALED": True, **loss.kernel_constants}
    arguments = loss_arguments(10, indices=False)
    arguments["outputs"][1, 2] = output
    arguments["scalars"][LOSS_SUM], arguments["scalars"][LOSS_WEIGHT] = 5.0, 3.0
    with np.errstate(all="ignore"):
        narrow, _ = both(device, half, ("gradient",), loss.kernel, loss.formulas, flags, arguments)
    assert not np.isfinite(narrow["gradient"].astype(np.float32)).all()
    assert list(narrow["scalars"][[LOSS_SUM, LOSS_WEIGHT]]) == [5.0, 3.0]
    assert narrow["scalars"][WEIGHT_SUM] > 0


@pytest.mark.parametrize("columns", [12, 9])
def test_a_batch_is_gathered_into_16_bits(device: HostDevice, half: np.dtype, columns: int) -> None:
    arguments = {
        "source": np.random.default_rng(0).integers(0, 256, (20, columns)).astype(np.uint8),
        "shift": normal(columns, seed=1),
        "scale": normal(columns, seed=2),
        "order": np.random.default_rng(1).permutation(20),
        "counters": np.array([0, 1, 0]),
        "batch_size": ROWS,
        "inputs": np.full((ROWS, columns), 7, np.float32),
        "count": np.zeros(1, np.int64),
        "row_offset": 0,
    }
    flags = {"SCALED": True, "SHUFFLED": True}
    narrow, wide = both(device, half, ("inputs",), "gather", {}, flags, arguments)
    assert_rounded(narrow["inputs"], wide["inputs"], half)
    assert abs(wide["inputs"]).max() > 100


@pytest.mark.parametrize(("width", "pitch"), [(8, 8), (5, 8)])
def test_an_update_writes_float32_and_16_bits(
    device: HostDevice, half: np.dtype, width: int, pitch: int
) -> None:
    optimizer = optimizer_from("adam")
    scalars, scaling = np.zeros(SCALARS), np.zeros(SCALING)
    scalars[WEIGHT_SUM], scaling[LOSS_SCALE] = ROWS, 256.0
    rows = 9
    arguments = {
        "values": normal(96),
        "gradients": normal(96, seed=1, scale=256.0),
        "state0": normal(96, seed=2),
        "state1": np.abs(normal(96, seed=3)),
        "segments": np.array([[0, rows * width, 1]]),
        "copy": np.zeros(128, np.float32),
        "copies": np.array([[0, width, pitch]]),
        "counters": np.zeros(COUNTERS, np.int64),
        "rates": np.full(3, 0.01),
        "scalars": scalars,
        "scaling": scaling,
        **{"batch_size": ROWS, "clip_norm": np.float64(0), "weight_decay": 0.1},
    }
    flags = {
        "SLOTS": 2,
        "CLIP": False,
        "PREPARED": True,
        "RESCALED": True,
        "COPIED": True,
        **optimizer.constants,
    }
    narrow, wide = both(device, half, ("copy",), "update", optimizer.formulas, flags, arguments)
    for key in ("values", "state0", "state1", "scaling", "counters"):
        assert np.array_equal(narrow[key], wide[key])
    expected = np.zeros(128, np.float32)
    expected[: rows * pitch].reshape(rows, pitch)[:, :width] = wide["values"][: rows * width].reshape(
        rows, width
    )
    assert_rounded(narrow["copy"], expected, half)
    arguments["values"] = narrow["values"]
    narrow, _ = both(device, half, ("copy",), "copy_parameters", {}, {}, arguments)
    assert_rounded(narrow["copy"], expected, half)


def test_what_float16_cannot_hold_becomes_infinite_or_denormal(device: HostDevice) -> None:
    values = np.array([65504, 65519, 65520, 1e30, -1e30, 6e-8, 2.9e-8, np.nan] * 2, np.float32)
    arguments = {
        "values": values,
        "segments": np.array([[0, 16, 1]]),
        "copy": np.zeros(16, np.float32),
        "copies": np.array([[0, 16, 16]]),
    }
    narrow, _ = both(device, FORMATS["float16"], ("copy",), "copy_parameters", {}, {}, arguments)
    expected = [65504, 65504, np.inf, np.inf, -np.inf, 2.0**-24, 0, np.nan]
    np.testing.assert_array_equal(narrow["copy"], np.array(expected * 2, np.float16))


@pytest.mark.parametrize("width", [4, 6])
def test_an_embedding_fills_16_bits_and_sums_its_gradient_in_float32(
    device: HostDevice, half: np.dtype, width: int
) -> None:
    lengths = np.array([2, 1, 3, 0, 2, 1])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = int(starts[-1])
    arguments = {
        "table": normal(7, width),
        "ids": np.array([3, 1, 3, 0, 6, 6, 2, 3, 5], np.int32),
        "starts": starts,
        "counters": np.zeros(COUNTERS, np.int64),
        "batch_size": ROWS,
        "column": 4,
        "inputs": np.full((ROWS, 4 + width), 7, np.float32),
        "totals": np.zeros(ROWS, np.float32),
        "owners": np.zeros(tokens, np.int32),
        "offsets": np.zeros(tokens, np.int32),
        "runs": np.zeros(tokens, np.int32),
        "run_starts": np.zeros(8, np.int32),
        "rows_seen": np.zeros(7, np.int32),
        "seen": np.zeros(1, np.int64),
        "partial": np.zeros(width, np.float32),
        "delta": normal(ROWS, 4 + width, seed=1),
        "gradient": np.zeros((7, width), np.float32),
        "order": np.zeros(1, np.int64),
    }
    flags = {"MEAN": True, "GRADIENT": True}
    device.run("unique_rows", "float32", {}, flags, arguments)
    narrow, wide = both(device, half, ("inputs",), "embed", {}, flags, arguments)
    assert_rounded(narrow["inputs"], wide["inputs"], half)
    arguments["totals"] = narrow["totals"]
    narrow, wide = both(device, half, ("delta",), "embed_gradient", {}, flags, arguments)
    assert np.array_equal(narrow["gradient"], wide["gradient"])
    assert wide["gradient"].any()
