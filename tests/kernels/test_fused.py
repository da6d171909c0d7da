"""The fused kernels against NumPy and SciPy, kernel by kernel, on each device that this process has."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import sparse, special, stats

from nnkit.feed.augmentation import Augmentation
from nnkit.feed.features import Features, features_from
from nnkit.kernels.layout import (
    BATCH,
    BATCH_SHARE,
    COUNTERS,
    EPOCH,
    LOSS_SUM,
    LOSS_WEIGHT,
    PENALTY_SUM,
    SCALARS,
    SQUARED_NORM,
    WEIGHT_SUM,
)
from nnkit.kernels.philox import philox_words
from nnkit.nn.activations import activation_function, activation_names
from nnkit.nn.losses import loss_from

DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}
SEED = 7 | 9 << 32

VALUES = {
    "identity": lambda z: z,
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "gelu": lambda z: z * stats.norm.cdf(z),
    "silu": lambda z: z * special.expit(z),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(-abs(z))),
    "mish": lambda z: z * np.tanh(np.logaddexp(0, z)),
    "softplus": lambda z: np.logaddexp(0, z),
}
SLOPES = {
    "identity": np.ones_like,
    "sigmoid": lambda z: special.expit(z) * special.expit(-z),
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "relu": lambda z: (z > 0) * 1.0,
    "leaky_relu": lambda z: np.where(z > 0, 1, 0.01),
    "elu": lambda z: np.where(z > 0, 1, np.exp(z)),
    "gelu": lambda z: stats.norm.cdf(z) + z * stats.norm.pdf(z),
    "silu": lambda z: special.expit(z) * (1 + z * special.expit(-z)),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0, 1, 1.6732632423543772 * np.exp(z)),
    "mish": lambda z: np.tanh(np.logaddexp(0, z)) + z * special.expit(z) / np.cosh(np.logaddexp(0, z)) ** 2,
    "softplus": special.expit,
}
# Dropout's draws are the same code in every kernel: one activation of each kind in float64, all in float32.
CASES = [
    (name, dtype, dropout)
    for name, dtype, dropout in product(activation_names(), DTYPES, (0.0, 0.3))
    if dropout == 0 or dtype == "float32" or name in ("sigmoid", "gelu")
]


def close(result: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    np.testing.assert_allclose(result, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_every_activation_has_a_reference_here() -> None:
    assert set(VALUES) <= set(activation_names())
    assert {name for name, *_ in CASES} <= set(VALUES)


# ---------------------------------------------------------------------------------------------------------
# Filling a batch.
# ---------------------------------------------------------------------------------------------------------


def gathered(
    device, dtype: str, features: Features, rows: int, batch: int, batch_size: int, **others
) -> dict:
    """Return the buffers after one gather of `rows` rows; NaN where nothing was written."""
    counters = np.zeros(COUNTERS, np.int64)
    counters[[BATCH, EPOCH]] = batch, others.get("epoch", 0)
    targets, weights, order = (others.get(key) for key in ("targets", "weights", "order"))
    buffers = {"inputs": np.full((rows, features.width), np.nan, dtype)}
    if targets is not None:
        buffers["labels"] = np.full((rows, *targets.shape[1:]), -1, targets.dtype)
    if weights is not None:
        buffers["batch_weights"] = np.full(rows, np.nan, dtype)
    cardinalities = np.cumsum((0, *features.cardinalities[:-1]))
    arguments = {
        "source": features.dense,
        "codes": features.codes,
        "offsets": cardinalities,
        "targets": targets,
        "weights": weights,
        "order": order,
        "counters": counters,
        "batch_size": batch_size,
        "count": np.zeros(1, np.int64),
        **buffers,
    }
    if features.sparse is not None:
        arguments["sparse_values"] = features.sparse.values.astype(dtype)
        arguments["sparse_columns"] = features.sparse.columns
        arguments["sparse_starts"] = features.sparse.starts
    scaled = features.scale is not None
    if scaled:
        arguments["shift"] = np.asarray(features.shift, dtype)
        arguments["scale"] = np.asarray(features.scale, dtype)
    constants = {
        "SHUFFLED": order is not None,
        "SCALED": scaled,
        "CODES": features.codes is not None,
        "SPARSE": features.sparse is not None,
        "TARGETS": targets is not None,
        "INDICES": targets is not None and targets.ndim == 1,
        "WEIGHTED": weights is not None,
    }
    if "augment" in others:
        augmentation, seed = others["augment"]
        constants |= augmentation.constants()
        arguments |= augmentation.arguments(features.picture, seed)
    device.run("gather", dtype, {}, constants, arguments)
    return buffers


@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_scales_bytes_writes_one_hot_blocks_and_follows_the_order(device, dtype: str) -> None:
    random = np.random.default_rng(0)
    dense = random.integers(0, 256, (11, 3), dtype=np.uint8)
    codes = np.stack([random.integers(-1, 2, 11), random.integers(-1, 4, 11)], axis=1).astype(np.int32)
    features = Features(dense, np.array([0.0, 100.0, 1.5]), np.array([1 / 255, 0.1, 2.0]), codes, (2, 4))
    order = random.permutation(11)
    labels, weights = random.integers(0, 9, 11).astype(np.int32), random.random(11).astype(dtype)
    for batch, rows in ((0, 4), (1, 4), (2, 3)):
        taken = order[4 * batch : 4 * batch + rows]
        result = gathered(
            device, dtype, features, rows, batch, 4, targets=labels, weights=weights, order=order.copy()
        )
        numbers = (dense[taken] - features.shift) * features.scale
        # The code -1 is the last row, which has its 1 in the column that is cut off.
        expected = np.hstack([numbers, np.eye(3)[codes[taken, 0], :2], np.eye(5)[codes[taken, 1], :4]])
        close(result["inputs"], expected, dtype)
        np.testing.assert_array_equal(result["labels"], labels[taken])
        np.testing.assert_array_equal(result["batch_weights"], weights[taken])


def test_gather_takes_rows_as_they_lie_with_targets_of_several_columns(device) -> None:
    random = np.random.default_rng(1)
    dense, targets = random.random((7, 5)), random.random((7, 2))
    result = gathered(device, "float64", Features(dense), 3, 1, 4, targets=targets)
    np.testing.assert_array_equal(result["inputs"], dense[4:7])
    np.testing.assert_array_equal(result["labels"], targets[4:7])


def test_gather_of_codes_alone(device) -> None:
    codes = np.array([[2], [0]], np.int32)
    features = Features(np.empty((2, 0), np.float32), codes=codes, cardinalities=(3,))
    result = gathered(device, "float32", features, 2, 0, 2)
    np.testing.assert_array_equal(result["inputs"], [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("columns", [1, 3, 4, 8, 33])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_of_sparse_rows_is_that_of_the_dense_ones(device, dtype: str, columns: int) -> None:
    random = np.random.default_rng(columns)
    dense = random.normal(size=(9, columns)) * (random.random((9, columns)) < 0.4)
    dense[2], dense[3] = 0.0, 1.5  # a row of zeros, and one without any
    features = features_from(sparse.csr_matrix(dense.astype(dtype)), dtype)
    order = random.permutation(9)
    for batch, rows in ((0, 4), (1, 4), (2, 1)):
        result = gathered(device, dtype, features, rows, batch, 4, order=order.copy())
        expected = dense.astype(dtype)[order[4 * batch : 4 * batch + rows]]
        np.testing.assert_array_equal(result["inputs"], expected)


def augmented_by_hand(features: Features, rows, augmentation: Augmentation, seed: int, epoch: int):
    """Return the pictures of the rows, augmented element by element; the draws are Philox's of each row."""
    channels, height, width = features.picture
    shift, scale = (
        np.zeros(features.width) if features.shift is None else features.shift,
        np.ones(features.width) if features.scale is None else features.scale,
    )
    result = np.empty((len(rows), features.width))
    for place, row in enumerate(rows):
        words = [
            [int(word) for word in philox_words(seed, row, purpose, 0, epoch)[0]]
            for purpose in (0x41554750, 0x41554745)
        ]
        most_down, most_right = round(augmentation.shift * height), round(augmentation.shift * width)
        down = words[0][0] * (2 * most_down + 1) // 2**32 - most_down
        right = words[0][1] * (2 * most_right + 1) // 2**32 - most_right
        picture = features.dense[row].reshape(channels, height, width).astype(float)
        if augmentation.flip and words[0][2] < 2**31:
            picture = picture[:, :, ::-1]
        lost = np.zeros((height, width), bool)
        if words[0][3] < augmentation.erase * 2**32:
            tall = 1 + words[1][0] * ((height + 1) // 2) // 2**32
            wide = 1 + words[1][1] * ((width + 1) // 2) // 2**32
            top = words[1][2] * (height - tall + 1) // 2**32
            left = words[1][3] * (width - wide + 1) // 2**32
            lost[top : top + tall, left : left + wide] = True
        for c, y, x in np.ndindex(channels, height, width):
            j = (c * height + y) * width + x
            source = picture[c, min(max(y - down, 0), height - 1), min(max(x - right, 0), width - 1)]
            result[place, j] = 0.0 if lost[y, x] else (source - shift[j]) * scale[j]
    return result


@pytest.mark.parametrize(
    ("shape", "augmentation"),
    [
        ((3, 8, 4), Augmentation(0.3, True, 0.6)),
        ((1, 5, 7), Augmentation(0.5, True, 1.0)),
        ((3, 3, 5), Augmentation(0.2)),
        ((1, 4, 4), Augmentation(flip=True)),
        ((2, 1, 1), Augmentation(0.5, True, 0.5)),
        ((1, 6, 2), Augmentation(erase=0.5)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_moves_mirrors_and_erases_pictures_as_a_loop_does(
    device, dtype: str, shape: tuple[int, int, int], augmentation: Augmentation
) -> None:
    random = np.random.default_rng(2)
    dense = random.integers(0, 256, (40, int(np.prod(shape))), np.uint8)
    shift, scale = (np.repeat(random.random(shape[0]), shape[1] * shape[2]) for _ in range(2))
    scaled = {"shift": np.round(200 * shift), "scale": scale} if shape[0] == 3 else {}
    features = Features(dense, picture=shape, **scaled)
    order, seed = random.permutation(40), (7 << 32) + 11
    for epoch, batch in ((0, 0), (3, 2)):
        result = gathered(
            device, dtype, features, 12, batch, 12, order=order, epoch=epoch, augment=(augmentation, seed)
        )
        rows = order[12 * batch : 12 * batch + 12]
        expected = augmented_by_hand(features, rows, augmentation, seed, epoch)
        close(result["inputs"], expected, dtype)
        assert not np.allclose(expected, augmented_by_hand(features, rows, Augmentation(), 0, 0)) or (
            shape == (2, 1, 1)
        )


# ---------------------------------------------------------------------------------------------------------
# Forward and backward.
# ---------------------------------------------------------------------------------------------------------


def kept(rows: int, columns: int, rate: float, layer: int, batch: int, epoch: int) -> np.ndarray:
    """Return which outputs dropout keeps, from the words of Philox as an array function."""
    blocks = -(-columns // 4)
    counter = np.arange(rows * blocks)
    words = philox_words(SEED, counter, layer, batch, epoch).reshape(rows, 4 * blocks)[:, :columns]
    return words >= round(rate * 2**32)


def forward(device, name: str, dtype: str, product_: np.ndarray, bias: np.ndarray, dropout: float) -> dict:
    """Run a stage as training does, in batch 5 of epoch 3; return its buffers."""
    function = activation_function(name)
    rows, columns = product_.shape
    z = product_.astype(dtype)
    counters = np.zeros(COUNTERS, np.int64)
    counters[[BATCH, EPOCH]] = 5, 3
    buffers = {
        "z": z,
        "a": np.full_like(z, np.nan) if function.needs_z else z,
        "mask": np.full((rows, -(-columns // 4) * 4), 9, np.uint8),
        "kept_scale": 1 / (1 - dropout),
    }
    draws = {
        "counters": counters,
        "layer": 2,
        "key0": SEED & 0xFFFFFFFF,
        "key1": SEED >> 32,
        "threshold": round(dropout * 2**32),
    }
    constants = {"BIAS": True, "DROPOUT": dropout > 0, "KEEP_Z": function.needs_z}
    arguments = {**buffers, **draws, "bias": bias.astype(dtype)}
    device.run("forward", dtype, {"activation": function.value}, constants, arguments)
    return buffers


@pytest.mark.parametrize(("name", "dtype", "dropout"), CASES)
def test_forward_and_backward_are_the_expressions(device, name: str, dtype: str, dropout: float) -> None:
    random = np.random.default_rng(3)
    rows, columns = 9, 7  # no multiple of the four elements of a draw
    before = random.normal(scale=3, size=(rows, columns)).astype(dtype)
    bias = random.normal(size=columns).astype(dtype)
    incoming = random.normal(size=(rows, columns)).astype(dtype)
    mask = kept(rows, columns, dropout, layer=2, batch=5, epoch=3)
    assert mask.all() == (dropout == 0)
    z = before.astype(np.float64) + bias

    buffers = forward(device, name, dtype, before, bias, dropout)
    close(buffers["a"], mask * VALUES[name](z) / (1 - dropout), dtype)
    if activation_function(name).needs_z:
        close(buffers["z"], z, dtype)
    if dropout:
        np.testing.assert_array_equal(buffers["mask"][:, :columns], mask)

    function = activation_function(name)
    delta, sums = incoming.copy(), np.full(columns, np.nan, dtype)
    arguments = {**buffers, "delta": delta, "bias_gradient": sums, "keep": 1 - dropout}
    constants = {"BIAS": True, "DROPOUT": dropout > 0, "FROM_Z": function.needs_z}
    device.run("backward", dtype, {"activation_derivative": function.derivative}, constants, arguments)
    expected = incoming * mask / (1 - dropout) * SLOPES[name](z)
    close(delta, expected, dtype)
    np.testing.assert_allclose(sums, expected.sum(axis=0), rtol=1e-5, atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 8, 13])
def test_dropouts_mask_is_philoxs_words_at_any_width(device, columns: int) -> None:
    ones = np.ones((6, columns))
    buffers = forward(device, "identity", "float32", ones, np.zeros(columns), 0.5)
    mask = kept(6, columns, 0.5, layer=2, batch=5, epoch=3)
    np.testing.assert_array_equal(buffers["z"], 2.0 * mask)


def test_dropout_keeps_the_share_it_should(device) -> None:
    buffers = forward(device, "identity", "float32", np.ones((200, 125)), np.zeros(125), 0.3)
    share = np.mean(buffers["z"] != 0)
    assert abs(share - 0.7) < 4.5 * np.sqrt(0.3 * 0.7 / 25_000)
    assert buffers["z"].max() == np.float32(1 / 0.7)


# ---------------------------------------------------------------------------------------------------------
# Losses.
# ---------------------------------------------------------------------------------------------------------

ELEMENTWISE = {
    "mse": (lambda y, t: (y - t) ** 2 / 2, lambda y, t: y - t),
    "mae": (lambda y, t: abs(y - t), lambda y, t: np.sign(y - t)),
    "huber": (lambda y, t: special.huber(1, y - t), lambda y, t: np.clip(y - t, -1, 1)),
    "binary_cross_entropy": (
        lambda y, t: -(t * special.log_expit(y) + (1 - t) * special.log_expit(-y)),
        lambda y, t: special.expit(y) - t,
    ),
    "poisson": (lambda y, t: np.exp(y) - t * y, lambda y, t: np.exp(y) - t),
    "poisson_deviance": (
        lambda y, t: special.xlogy(t, t) - t * y - t + np.exp(y),
        lambda y, t: np.exp(y) - t,
    ),
}


def lost(device, name: str, dtype: str, outputs, labels, weights=None, bias=None, nominal=10, **constants):
    """Run a loss's kernel on a fresh set of sums; return (scalars, gradient, bias gradient)."""
    average_rows = constants.pop("average_rows", False)
    loss = loss_from({"name": name, **constants})
    scalars = np.zeros(SCALARS)
    gradient, sums = np.full(outputs.shape, np.nan, dtype), np.full(outputs.shape[1], np.nan, dtype)
    arguments = {
        "outputs": outputs.astype(dtype),
        "bias": None if bias is None else bias.astype(dtype),
        "labels": labels if labels.ndim == 1 else labels.astype(dtype),
        "count": np.array([len(outputs)]),
        "batch_weights": None if weights is None else weights.astype(dtype),
        "gradient": gradient,
        "bias_gradient": sums,
        "row": np.empty(outputs.shape[1], gradient.dtype),
        "scalars": scalars,
        "batch_size": nominal,
    }
    flags = {
        "BIAS": bias is not None,
        "GRADIENT": True,
        "WEIGHTED": weights is not None,
        "INDICES": labels.ndim == 1,
    }
    constants = {**flags, "AVERAGE_ROWS": average_rows, **loss.kernel_constants}
    operation = device.prepare(loss.kernel, dtype, loss.formulas, constants, arguments)
    operation()
    once = scalars.copy()
    operation()
    np.testing.assert_array_equal(scalars[[LOSS_SUM, LOSS_WEIGHT]], 2 * once[[LOSS_SUM, LOSS_WEIGHT]])
    assert scalars[WEIGHT_SUM] == once[WEIGHT_SUM]
    return once, gradient, sums


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_rows_beyond_the_count_have_no_loss_and_no_gradient(device, name: str) -> None:
    random = np.random.default_rng(8)
    outputs, scalars = random.normal(size=(5, 3)), np.zeros(SCALARS)
    loss, gradient, sums = loss_from(name), np.full((5, 3), np.nan), np.zeros(3)
    arguments = {
        "outputs": outputs,
        "bias": np.zeros(3),
        "labels": np.zeros(5, np.int32) if name == "cross_entropy" else np.zeros((5, 3)),
        "count": np.array([2]),
        "gradient": gradient,
        "bias_gradient": sums,
        "row": np.empty(outputs.shape[1], gradient.dtype),
        "scalars": scalars,
        "batch_size": 5,
    }
    flags = {"BIAS": True, "GRADIENT": True, "WEIGHTED": False, "INDICES": name == "cross_entropy"}
    device.run(loss.kernel, "float64", loss.formulas, {**flags, **loss.constants}, arguments)
    assert scalars[WEIGHT_SUM] == 2
    assert np.all(gradient[2:] == 0)
    assert np.all(gradient[:2] != 0)
    np.testing.assert_allclose(sums, gradient.sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_losses_with_weights_and_bias(device, name: str, dtype: str) -> None:
    random = np.random.default_rng(4)
    outputs = random.normal(scale=2, size=(9, 3)).astype(dtype).astype(np.float64)
    bias = random.normal(size=3).astype(dtype).astype(np.float64)
    targets = random.random((9, 3)).astype(dtype).astype(np.float64)
    targets[0, 0] = 0.0
    weights = random.random(9).astype(dtype).astype(np.float64)
    value, derivative = ELEMENTWISE[name]
    y = outputs + bias
    scalars, gradient, sums = lost(device, name, dtype, outputs, targets, weights, bias)
    expected = derivative(y, targets) * weights[:, None] / 3 / 10
    assert scalars[LOSS_SUM] == pytest.approx(weights @ value(y, targets).mean(axis=1), rel=TOLERANCE[dtype])
    assert scalars[WEIGHT_SUM] == scalars[LOSS_WEIGHT] == pytest.approx(weights.sum())
    close(gradient, expected, dtype)
    close(sums, expected.sum(axis=0), dtype)


def test_binary_label_smoothing_moves_targets_towards_a_half(device) -> None:
    random = np.random.default_rng(5)
    outputs, targets = random.normal(size=(6, 2)), random.integers(0, 2, (6, 2)).astype(float)
    smoothed = lost(device, "binary_cross_entropy", "float64", outputs, targets, label_smoothing=0.2)
    moved = lost(device, "binary_cross_entropy", "float64", outputs, 0.8 * targets + 0.1)
    np.testing.assert_allclose(smoothed[1], moved[1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(smoothed[0], moved[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy"])
def test_a_loss_summed_over_outputs_is_so_many_times_their_mean(device, name: str) -> None:
    random = np.random.default_rng(11)
    outputs, targets, weights = random.normal(size=(7, 3)), random.random((7, 3)), random.random(7)
    mean = lost(device, name, "float64", outputs, targets, weights)
    total = lost(device, name, "float64", outputs, targets, weights, reduction="sum")
    assert total[0][LOSS_SUM] == pytest.approx(3 * mean[0][LOSS_SUM], rel=1e-13)
    np.testing.assert_allclose(total[1], 3 * mean[1], rtol=1e-13)


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_a_batch_may_count_by_its_rows_and_not_by_their_weights(device, name: str) -> None:
    """The mean loss is the same, times 7 rows in place of a weight of Σw."""
    random = np.random.default_rng(13)
    outputs, weights = random.normal(size=(7, 3)), random.random(7) + 0.1
    targets = random.integers(0, 3, 7).astype(np.int32) if name == "cross_entropy" else random.random((7, 3))
    by_weight, gradient, _ = lost(device, name, "float64", outputs, targets, weights)
    average_rows, same, _ = lost(device, name, "float64", outputs, targets, weights, average_rows=True)
    assert average_rows[LOSS_WEIGHT] == pytest.approx(7, rel=1e-13)
    assert average_rows[WEIGHT_SUM] == by_weight[WEIGHT_SUM]
    mean = by_weight[LOSS_SUM] / by_weight[LOSS_WEIGHT]
    assert average_rows[LOSS_SUM] == pytest.approx(7 * mean, rel=1e-13)
    np.testing.assert_array_equal(same, gradient)


def test_a_batch_that_weighs_nothing_does_not_count_by_its_rows_either(device) -> None:
    outputs, targets = np.ones((4, 2)), np.zeros((4, 2))
    scalars, gradient, _ = lost(device, "mse", "float64", outputs, targets, np.zeros(4), average_rows=True)
    assert scalars[[LOSS_SUM, LOSS_WEIGHT]].tolist() == [0, 0]
    assert not gradient.any()


@pytest.mark.parametrize("columns", [1, 5, 40])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_a_ceiling_is_a_clipping_of_probabilities_that_the_gradient_does_not_see(
    device, name: str, dtype: str, columns: int
) -> None:
    random = np.random.default_rng(12)
    outputs = random.normal(scale=20, size=(9, columns)).astype(dtype).astype(np.float64)
    epsilon = 1e-4
    if name == "cross_entropy":
        labels = random.integers(0, columns, 9).astype(np.int32)
        clipped = np.maximum(special.softmax(outputs, axis=1), epsilon)
        expected = -np.log(clipped[np.arange(9), labels]).sum()
    else:
        labels = random.random((9, columns)).astype(dtype).astype(np.float64)
        yes = np.log(np.maximum(special.expit(outputs), epsilon))
        no = np.log(np.maximum(special.expit(-outputs), epsilon))
        expected = -(labels * yes + (1 - labels) * no).mean(axis=1).sum()
    free = lost(device, name, dtype, outputs, labels)
    ceiled = lost(device, name, dtype, outputs, labels, ceiling=-np.log(epsilon))
    assert ceiled[0][LOSS_SUM] == pytest.approx(expected, rel=TOLERANCE[dtype], abs=1e-7)
    assert columns == 1 or ceiled[0][LOSS_SUM] < free[0][LOSS_SUM]
    np.testing.assert_array_equal(ceiled[1], free[1])


def test_hubers_delta_is_the_one_given(device) -> None:
    outputs, targets = np.array([[-3.0, 0.2, 5.0]]), np.zeros((1, 3))
    scalars, gradient, _ = lost(device, "huber", "float64", outputs, targets, nominal=1, delta=0.5)
    assert scalars[LOSS_SUM] == pytest.approx(special.huber(0.5, outputs).mean())
    np.testing.assert_allclose(gradient, np.clip(outputs, -0.5, 0.5) / 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_softmax_cross_entropy(device, soft: bool, share: float, dtype: str) -> None:
    random = np.random.default_rng(6)
    classes = 5
    outputs = random.normal(scale=4, size=(9, classes)).astype(dtype).astype(np.float64)
    bias = random.normal(size=classes).astype(dtype).astype(np.float64)
    weights = random.random(9).astype(dtype).astype(np.float64)
    labels = random.integers(0, classes, 9).astype(np.int32)
    targets = np.eye(classes)[labels]
    if soft:
        targets = random.dirichlet(np.ones(classes), 9).astype(dtype).astype(np.float64)
        targets[0] = np.eye(classes)[2]
    scalars, gradient, sums = lost(
        device,
        "cross_entropy",
        dtype,
        outputs,
        targets if soft else labels,
        weights,
        bias,
        label_smoothing=share,
    )
    targets = (1 - share) * targets + share / classes
    log_probabilities = special.log_softmax(outputs + bias, axis=1)
    expected = (np.exp(log_probabilities) - targets) * weights[:, None] / 10
    loss = -weights @ (targets * log_probabilities).sum(axis=1)
    assert scalars[LOSS_SUM] == pytest.approx(loss, rel=TOLERANCE[dtype])
    assert scalars[WEIGHT_SUM] == scalars[LOSS_WEIGHT] == pytest.approx(weights.sum())
    close(gradient, expected, dtype)
    close(sums, expected.sum(axis=0), dtype)


# ---------------------------------------------------------------------------------------------------------
# Over the arena.
# ---------------------------------------------------------------------------------------------------------

SEGMENTS = np.array([[0, 40, 1], [48, 53, 0], [64, 90, 1]], np.int64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_penalise_adds_to_decaying_segments_in_the_batchs_scale(device, dtype: str) -> None:
    random = np.random.default_rng(7)
    values, gradients = random.normal(size=(2, 96)).astype(dtype)
    values[3] = 0
    scalars = np.zeros(SCALARS)
    scalars[WEIGHT_SUM], scalars[PENALTY_SUM] = 24.0, 1.0
    decays = np.zeros(96)
    decays[0:40] = decays[64:90] = 1
    expected = gradients + 24 / 32 * decays * (0.2 * np.sign(values) + 0.5 * values)
    arguments = {"values": values, "gradients": gradients, "segments": SEGMENTS, "scalars": scalars}
    device.run("penalise", dtype, {}, {}, {**arguments, "batch_size": 32, "l1": 0.2, "l2": 0.5})
    close(gradients, expected, dtype)
    total = np.sum(decays * (0.2 * abs(values) + 0.25 * values.astype(np.float64) ** 2))
    assert scalars[PENALTY_SUM] == pytest.approx(1 + 24 * total, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_penalty_on_the_sum_counts_for_less_the_larger_the_batch(device, dtype: str) -> None:
    random = np.random.default_rng(9)
    values, gradients = random.normal(size=(2, 96)).astype(dtype)
    scalars = np.zeros(SCALARS)
    scalars[WEIGHT_SUM] = 24.0
    decays = np.zeros(96)
    decays[0:40] = decays[64:90] = 1
    expected = gradients + decays * 0.5 * values / 32  # the update multiplies by 32 / 24
    arguments = {"values": values, "gradients": gradients, "segments": SEGMENTS, "scalars": scalars}
    given = {**arguments, "batch_size": 32, "l1": 0.0, "l2": 0.5}
    device.run("penalise", dtype, {}, {"PENALTY_ON_SUM": True}, given)
    close(gradients, expected, dtype)
    total = np.sum(decays * 0.25 * values.astype(np.float64) ** 2)
    assert scalars[PENALTY_SUM] == pytest.approx(total, rel=TOLERANCE[dtype])
    scalars[BATCH_SHARE], scalars[PENALTY_SUM] = 2.5, 1.0
    device.run("penalise", dtype, {}, {"PENALTY_ON_SUM": True, "AVERAGE_ROWS": True}, given)
    assert scalars[PENALTY_SUM] == pytest.approx(1 + 2.5 * total, rel=TOLERANCE[dtype])
    scalars[WEIGHT_SUM] = 0.0
    device.run("penalise", dtype, {}, {"PENALTY_ON_SUM": True}, given)
    assert scalars[PENALTY_SUM] == pytest.approx(1 + 2.5 * total, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_norm_is_over_the_segments_and_not_the_gaps(device, dtype: str) -> None:
    gradients = np.random.default_rng(8).normal(size=96).astype(dtype)
    scalars = np.full(SCALARS, 5.0)
    device.run(
        "squared_norm", dtype, {}, {}, {"gradients": gradients, "segments": SEGMENTS, "scalars": scalars}
    )
    trained = np.r_[0:40, 48:53, 64:90]
    expected = np.sum(gradients[trained].astype(np.float64) ** 2)
    assert scalars[SQUARED_NORM] == pytest.approx(expected, rel=1e-13)
