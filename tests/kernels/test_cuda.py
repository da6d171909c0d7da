"""The CUDA kernels against the host's loops, over shapes that a grid finds hard, on a GPU, real or simulated.

Several blocks, rows and columns that end within a group of four, chunks of rows, groups of blocks; wide and
scalar accesses, which must give the same bits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from embedding_cases import Case
from embedding_cases import trained as trained_embedding
from kernel_devices import CudaDevice, HostDevice

from nnkit.kernels.layout import (
    BATCH,
    COUNTERS,
    EPOCH,
    PENALTY_SUM,
    SCALARS,
    SQUARED_NORM,
    STEP,
    WEIGHT_SUM,
)
from nnkit.nn.activations import activation_function
from nnkit.nn.losses import loss_from
from nnkit.nn.optimizers import optimizer_from, optimizer_names

pytestmark = pytest.mark.gpu

TOLERANCE = {"float32": 3e-6, "float64": 1e-13}
HOST = HostDevice()


def copied(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: np.array(x) if isinstance(x, np.ndarray) else x for key, x in arguments.items()}


def compared(
    threads: int,
    name: str,
    dtype: str,
    formulas: dict,
    constants: dict,
    arguments: dict,
    runs: int = 2,
    ignored: Collection[str] = (),
) -> tuple[dict[str, Any], CudaDevice]:
    """Run a kernel on the host and for CUDA, with wide and with scalar accesses; return CUDA's results.

    A second run, from where the first one ended, finds the tickets that the first one left.
    """
    expected, wide, scalar = copied(arguments), copied(arguments), copied(arguments)
    device, beside = CudaDevice(threads), CudaDevice(threads, offset=1)
    prepared = [
        one.prepare(name, dtype, formulas, constants, given)
        for one, given in ((HOST, expected), (device, wide), (beside, scalar))
    ]
    assert "load4(" not in beside.launch.kernel.path.read_text()
    for _ in range(runs):
        for operation in prepared:
            operation()
    for key, array in expected.items():
        # The row is the host's to work in.
        if isinstance(array, np.ndarray) and key not in ("row", *ignored):
            np.testing.assert_array_equal(wide[key], scalar[key], err_msg=f"{key}, wide and scalar")
            tolerance = 0.0 if array.dtype.kind in "iu" else TOLERANCE[dtype]
            np.testing.assert_allclose(
                wide[key], array, rtol=tolerance, atol=tolerance, err_msg=f"{key}, CUDA and host"
            )
    return wide, device


def is_wide(device: CudaDevice) -> bool:
    return "load4(" in device.launch.kernel.path.read_text()


# ---------------------------------------------------------------------------------------------------------
# Layers. Rows, columns, threads of a block.
# ---------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1, 8), (40, 40, 8), (33, 13, 16), (9, 4, 32), (67, 1, 16), (3, 160, 8)]


def layer(rows: int, columns: int, dtype: str, dropout: float, name: str) -> tuple[dict, dict, dict]:
    """Return the formulas, flags and arguments of a stage's two kernels."""
    random = np.random.default_rng(rows * columns)
    function = activation_function(name)
    z, delta = random.normal(size=(2, rows, columns)).astype(dtype)
    counters = np.zeros(COUNTERS, np.int64)
    counters[[BATCH, EPOCH]] = 4, 2
    arguments = {
        "z": z,
        "a": random.normal(size=(rows, columns)).astype(dtype),
        "delta": delta,
        "bias": random.normal(size=columns).astype(dtype),
        "bias_gradient": np.full(columns, np.nan, dtype),
        "mask": random.integers(0, 2, (rows, -(-columns // 4) * 4)).astype(np.uint8),
        "counters": counters,
        **{"layer": 3, "key0": 0xFFFFFFFF, "key1": 12345, "threshold": round(dropout * 2**32)},
        **{"kept_scale": 1 / (1 - dropout), "keep": 1 - dropout},
    }
    flags = {"BIAS": True, "DROPOUT": dropout > 0, "KEEP_Z": function.needs_z, "FROM_Z": function.needs_z}
    formulas = {"activation": function.value, "activation_derivative": function.derivative}
    return formulas, flags, arguments


@pytest.mark.parametrize(("rows", "columns", "threads"), SHAPES)
def test_forward_over_several_blocks_draws_the_hosts_mask(rows: int, columns: int, threads: int) -> None:
    formulas, flags, arguments = layer(rows, columns, "float32", 0.4, "gelu")
    _, device = compared(threads, "forward", "float32", formulas, flags, arguments, runs=1)
    assert is_wide(device) == (columns % 4 == 0)
    assert rows * columns < 100 or np.prod(device.launch.grid) > 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "threads"), SHAPES)
def test_backward_sums_the_bias_over_chunks_of_rows(
    rows: int, columns: int, threads: int, dtype: str
) -> None:
    formulas, flags, arguments = layer(rows, columns, dtype, 0.4, "silu" if columns == 40 else "tanh")
    _, device = compared(threads, "backward", dtype, formulas, flags, arguments, runs=1)
    assert is_wide(device) == (columns % 4 == 0)
    assert (device.launch.grid[1] > 1) == (rows > 30)


def test_backward_without_a_bias_sums_nothing() -> None:
    formulas, flags, arguments = layer(21, 8, "float32", 0.0, "relu")
    _, device = compared(8, "backward", "float32", formulas, {**flags, "BIAS": False}, arguments)
    assert device.launch.scratch == {}


# ---------------------------------------------------------------------------------------------------------
# Losses.
# ---------------------------------------------------------------------------------------------------------


def loss_case(name: str, rows: int, columns: int, dtype: str, indices: bool = False, **flags: bool):
    """Return a loss's formulas, constants and arguments, the last two rows beyond the count."""
    random = np.random.default_rng(rows + columns)
    loss = loss_from({"name": name, "label_smoothing": 0.1} if name == "cross_entropy" else name)
    outputs = random.normal(scale=3, size=(rows, columns)).astype(dtype)
    targets = random.dirichlet(np.ones(columns), rows).astype(dtype)
    targets[0] = np.arange(columns) == 0
    arguments = {
        "outputs": outputs,
        "bias": random.normal(size=columns).astype(dtype),
        "labels": random.integers(0, columns, rows).astype(np.int32) if indices else targets,
        "batch_weights": random.random(rows).astype(dtype),
        "count": np.array([max(1, rows - 2)]),
        "gradient": np.full((rows, columns), np.nan, dtype),
        "bias_gradient": np.full(columns, np.nan, dtype),
        "row": np.empty(columns, dtype),
        "scalars": np.zeros(SCALARS),
        "batch_size": 16,
    }
    constants = {"BIAS": True, "GRADIENT": True, "WEIGHTED": True, "INDICES": indices}
    return loss, {**constants, **flags, **loss.constants}, arguments


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "threads"), SHAPES)
def test_elementwise_loss_over_several_blocks(rows: int, columns: int, threads: int, dtype: str) -> None:
    # Its value at 0 is log 2: what lies beyond a row's end must not be counted.
    loss, constants, arguments = loss_case("binary_cross_entropy", rows, columns, dtype)
    _, device = compared(threads, loss.kernel, dtype, loss.formulas, constants, arguments)
    assert is_wide(device) == (columns % 4 == 0)
    assert (np.prod(device.launch.grid) > 1) == (rows * columns > 50)


# Rows of one thread, of several, of a whole block, and longer than its threads hold in registers.
SPLIT = [(70, 3, 8), (17, 40, 16), (33, 13, 16), (7, 150, 8), (3, 160, 8)]


@pytest.mark.parametrize("indices", [True, False])
@pytest.mark.parametrize(
    ("rows", "columns", "threads"),
    [(1, 1, 8), (9, 10, 32), (5, 33, 32), *SPLIT],
)
def test_softmax_loss_with_rows_of_any_width(rows: int, columns: int, threads: int, indices: bool) -> None:
    loss, constants, arguments = loss_case("cross_entropy", rows, columns, "float32", indices)
    _, device = compared(threads, loss.kernel, "float32", loss.formulas, constants, arguments)
    assert is_wide(device) == (columns % 4 == 0)
    blocks = device.launch.grid[0]
    assert (blocks > 1) == ((rows, columns, threads) in SPLIT)
    assert ("group_sums" in device.launch.scratch) == (blocks > 1)


@pytest.mark.parametrize("name", ["cross_entropy", "huber"])
@pytest.mark.parametrize("columns", [5, 72])
def test_a_loss_without_its_gradient_takes_no_buffer_for_it(name: str, columns: int) -> None:
    flags = {"GRADIENT": False, "BIAS": False, "WEIGHTED": False}
    loss, constants, arguments = loss_case(name, 19, columns, "float64", **flags)
    # The host's softmax works in it.
    others = {key: value for key, value in arguments.items() if key != "gradient"}
    given = arguments if name == "cross_entropy" else others
    _, device = compared(16, loss.kernel, "float64", loss.formulas, constants, given, ignored={"gradient"})
    assert not {"gradient", "bias_gradient", "partials", "group_sums"} & {*device.launch.kernel.parameters}


def test_the_softmax_takes_logits_of_any_size() -> None:
    loss, constants, arguments = loss_case("cross_entropy", 4, 6, "float32", indices=True)
    arguments["outputs"][:] = [[1e38, -1e38, 0, 1, 2, 3], [-1e5] * 6, [1e5] * 6, [0, 0, 0, 0, 0, -np.inf]]
    arguments["labels"][:] = 0
    result, _ = compared(8, loss.kernel, "float32", loss.formulas, {**constants, "BIAS": False}, arguments)
    assert np.isfinite(result["gradient"]).all()


# ---------------------------------------------------------------------------------------------------------
# Filling a batch.
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["uint8", "float32", "float64", "int32", "int64"])
@pytest.mark.parametrize(
    ("columns", "cardinalities", "threads"),
    [
        (8, (), 8),
        (3, (), 16),
        (16, (5, 1, 2, 4), 16),
        (5, (3, 2), 8),
        (0, (9, 7, 1, 1, 1), 8),
        (40, (70,), 16),
    ],
)
def test_gather_over_several_blocks(source: str, columns: int, cardinalities: tuple, threads: int) -> None:
    random = np.random.default_rng(columns)
    width, samples, capacity = columns + sum(cardinalities), 23, 9
    codes = [random.integers(-1, cardinality, samples) for cardinality in cardinalities]
    counters = np.zeros(COUNTERS, np.int64)
    counters[BATCH] = 2
    arguments = {
        "source": random.integers(0, 200, (samples, columns)).astype(source),
        "codes": np.array(codes, np.int32).T.copy() if codes else None,
        "offsets": np.cumsum((0, *cardinalities[:-1])),
        "shift": random.random(columns, np.float32),
        "scale": random.random(columns, np.float32),
        "targets": random.random((samples, 3), np.float32),
        "labels": np.full((capacity, 3), np.nan, np.float32),
        "weights": random.random(samples, np.float32),
        "batch_weights": np.full(capacity, np.nan, np.float32),
        "order": random.permutation(samples),
        "counters": counters,
        "count": np.zeros(1, np.int64),
        "inputs": np.full((capacity, width), np.nan, np.float32),
        "batch_size": 8,
    }
    flags = dict.fromkeys(("SHUFFLED", "TARGETS", "WEIGHTED"), True)
    constants = {**flags, "SCALED": columns != 40, "CODES": bool(codes), "INDICES": False}
    result, device = compared(threads, "gather", "float32", {}, constants, arguments)
    # Rows 16 .. 22 of the order are left for the third batch.
    assert result["count"] == 7
    assert not result["inputs"][7:].any()
    assert is_wide(device) == (columns % 4 == 0 and width % 4 == 0 and columns > 0)


# ---------------------------------------------------------------------------------------------------------
# Over the arena: several segments and blocks; NaN in the gaps.
# ---------------------------------------------------------------------------------------------------------

SEGMENTS = np.array([[0, 250, 1], [256, 259, 0], [288, 288 + 64, 1], [352, 353, 0], [384, 511, 1]], np.int64)
SIZE = 512


def arena(dtype: str, **others: Any) -> dict[str, Any]:
    """Return the arguments of the kernels over the arena, NaN where no segment is."""
    random = np.random.default_rng(6)
    arrays = dict(
        zip(("values", "gradients", "state0", "state1"), random.normal(size=(4, SIZE)), strict=True)
    )
    arrays["state0"], arrays["state1"] = abs(arrays["state0"]), abs(arrays["state1"])
    trained = np.concatenate([np.arange(start, stop) for start, stop, _ in SEGMENTS])
    for array in arrays.values():
        array[np.setdiff1d(np.arange(SIZE), trained)] = np.nan
    scalars = np.zeros(SCALARS)
    scalars[[WEIGHT_SUM, PENALTY_SUM, SQUARED_NORM]] = 24.0, 1.0, np.nansum(arrays["gradients"] ** 2)
    counters = np.zeros(COUNTERS, np.int64)
    counters[[BATCH, STEP]] = 1, 5
    return {
        **{name: array.astype(dtype) for name, array in arrays.items()},
        "segments": SEGMENTS,
        "scalars": scalars,
        "counters": counters,
        "rates": np.array([9.0, 0.01, 0.02, 0.03]),
        **{"batch_size": 32, "l1": 0.2, "l2": 0.5, "weight_decay": 0.1, "clip_norm": np.float64(0.3)},
        **others,
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["penalise", "squared_norm"])
@pytest.mark.parametrize("threads", [8, 32])
def test_penalty_and_norm_over_several_blocks(name: str, threads: int, dtype: str) -> None:
    result, device = compared(threads, name, dtype, {}, {}, arena(dtype))
    assert is_wide(device)
    assert device.launch.grid == (SIZE // 4 // threads, 1)
    changed = result["scalars"][PENALTY_SUM if name == "penalise" else SQUARED_NORM]
    assert changed != 1
    assert np.isfinite(changed)


def test_the_norm_of_a_gradient_whose_squares_overflow_float32() -> None:
    arguments = arena("float32")
    arguments["gradients"] *= np.float32(1e30)
    result, _ = compared(16, "squared_norm", "float32", {}, {}, arguments)
    assert 1e60 < result["scalars"][SQUARED_NORM] < 1e65


def update(name: str, dtype: str, threads: int, arguments: dict, clip: bool) -> dict[str, Any]:
    optimizer = optimizer_from(name)
    flags = {
        "SLOTS": len(optimizer.state),
        "CLIP": clip,
        "FOLDED": False,
        "PREPARED": type(optimizer).prepare is not None,
        **optimizer.constants,
    }
    result, device = compared(threads, "update", dtype, optimizer.formulas, flags, arguments, runs=3)
    assert is_wide(device)
    assert device.launch.grid == (max(1, SIZE // 4 // threads), 1)
    return result


@pytest.mark.parametrize("name", optimizer_names())
def test_update_over_several_blocks(name: str) -> None:
    before = arena("float32")
    after = update(name, "float32", 16, before, clip=name != "adam")
    assert after["counters"].tolist() == [0, 4, 8]
    np.testing.assert_array_equal(np.isnan(after["values"]), np.isnan(before["values"]))
    trained = ~np.isnan(before["values"])
    assert (after["values"][trained] != before["values"][trained]).all()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_update_in_float64_in_one_block(name: str) -> None:
    assert update(name, "float64", 128, arena("float64"), clip=True)["counters"].tolist() == [0, 4, 8]


@pytest.mark.parametrize("threads", [16, 128])
def test_a_batch_without_weight_is_counted_and_updates_nothing(threads: int) -> None:
    before = arena("float32")
    before["scalars"][WEIGHT_SUM] = 0.0
    after = update("adam", "float32", threads, before, clip=True)
    assert after["counters"].tolist() == [0, 4, 5]
    for name in ("values", "state0", "state1"):
        np.testing.assert_array_equal(after[name], before[name])


def test_moments_that_decay_below_the_normal_numbers_become_zero() -> None:
    arguments = arena("float32")
    arguments["gradients"][:] = 0.0
    arguments["state0"][:] = 1.2e-38
    after = update("momentum", "float32", 16, arguments, clip=False)
    trained = ~np.isnan(arguments["values"])
    assert not after["state0"][trained].any()


# ---------------------------------------------------------------------------------------------------------
# Embeddings.
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [4, 32])
@pytest.mark.parametrize(
    "case",
    [
        Case("mean", width=40, weighted=True, capacity=9),
        Case("max", width=8, longest=20),
        Case("sum", width=13, capacity=3),
        Case("mean", width=20, capacity=9, longest=40, frequent=0.5),
    ],
)
def test_an_embeddings_step_has_the_same_bits_wide_and_scalar_and_the_hosts_numbers(
    case: Case, threads: int
) -> None:
    host = trained_embedding(HOST, case, "float32", "adam")
    wide, scalar = (
        trained_embedding(CudaDevice(threads, offset=offset), case, "float32", "adam") for offset in (0, 1)
    )
    for name in ("inputs", "gradient", "table", "state0", "state1", "scalars", "rows_seen"):
        np.testing.assert_array_equal(wide[name], scalar[name], err_msg=name)
    for name in ("inputs", "table", "state0", "state1", "scalars"):
        np.testing.assert_allclose(wide[name], host[name], rtol=3e-6, atol=3e-6, err_msg=name)
    count = int(host["seen"][0])
    assert wide["seen"][0] == count
    # The GPU lists the rows in the order of their ids.
    order = np.argsort(host["rows_seen"][:count])
    np.testing.assert_array_equal(wide["rows_seen"][:count], host["rows_seen"][order])
    np.testing.assert_allclose(wide["gradient"][:count], host["gradient"][order], rtol=3e-6, atol=3e-6)
