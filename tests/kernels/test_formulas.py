"""The scalar formulas: derivatives against differences, limits, update rules against the textbook's."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Kernel
from nnkit.kernels import formulas
from nnkit.kernels.layout import BATCH, COUNTERS, SCALARS, SQUARED_NORM, STEP, WEIGHT_SUM
from nnkit.nn.activations import activation_function, activation_names
from nnkit.nn.losses import loss_from, loss_names
from nnkit.nn.optimizers import optimizer_from

ACTIVATIONS = activation_names()
ELEMENTWISE = [name for name in loss_names() if loss_from(name).value is not None]
BACKEND = NumpyBackend()
HUGE = 1e4

# The value and the derivative at -1e4 and at 1e4.
LIMITS = {
    "identity": (-HUGE, HUGE, 1, 1),
    "sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
    "relu": (0, HUGE, 0, 1),
    "leaky_relu": (-0.01 * HUGE, HUGE, 0.01, 1),
    "elu": (-1, HUGE, 0, 1),
    "gelu": (0, HUGE, 0, 1),
    "silu": (0, HUGE, 0, 1),
    "selu": (-1.0507009873554805 * 1.6732632423543772, 1.0507009873554805 * HUGE, 0, 1.0507009873554805),
    "mish": (0, HUGE, 0, 1),
    "softplus": (0, HUGE, 0, 1),
}
# The value and the derivative at output y and target t, where they are not those of the text.
LOSSES = {
    "mse": lambda y, t: (0.5 * (y - t) ** 2, y - t),
    "mae": lambda y, t: (abs(y - t), math.copysign(1, y - t)),
    "huber": lambda y, t: (abs(y - t) - 0.5, math.copysign(1, y - t)),
    "binary_cross_entropy": lambda y, t: (max(y, 0) - t * y, float(y > 0) - t),
    "poisson": lambda y, t: (
        math.exp(60) * (y - 59) - t * y if y > 0 else -t * y,
        math.exp(60) - t if y > 0 else -t,
    ),
}
# Half the deviance has t log t − t beside it, which is −t at the targets 0 and 1.
LOSSES["poisson_deviance"] = lambda y, t: (LOSSES["poisson"](y, t)[0] - t, LOSSES["poisson"](y, t)[1])


def differences(f: Callable[[float], float], x: float) -> float:
    """Return f'(x) from central differences, extrapolated once: an error of the fourth order."""
    h = 1e-3 * max(1.0, abs(x) / 30)
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


def grid(low: float, high: float, count: int) -> list[float]:
    """Return numbers spread over an interval, none near 0, where some derivatives jump."""
    return [float(x) for x in np.linspace(low, high, count) if abs(x) > 0.01]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activations_derivative_is_that_of_its_value(name: str) -> None:
    function = activation_function(name)
    for z in grid(-40, 40, 400) + grid(-4, 4, 200):
        given = function.derivative(z if function.needs_z else function.value(z))
        assert given == pytest.approx(differences(function.value, z), rel=1e-7, abs=2e-11), z


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_losss_derivative_is_that_of_its_value(name: str, share: float) -> None:
    loss = loss_from(name)
    constants = dict(loss.constants)
    if "label_smoothing" in constants:
        constants["label_smoothing"] = share
    outputs = grid(-40, 40, 81) + grid(-3, 3, 61) + ([60.5, 75.0] if name == "poisson" else [])
    for y, t in product(outputs, (0.0, 1.0, 0.3)):
        if abs(y - t) < 0.01 or abs(abs(y - t) - 1) < 0.01:
            continue
        given = loss.derivative(y, t, **constants)
        expected = differences(lambda y, t=t: loss.value(y, t, **constants), y)
        assert given == pytest.approx(expected, rel=1e-7, abs=1e-9), (y, t)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_softmaxs_derivative_is_that_of_the_rows_loss(share: float) -> None:
    row = [-1.3, 0.4, 2.2, -7.0, 12.0]
    given = [0.1, 0.0, 0.2, 0.3, 0.4]
    targets = [formulas.smoothed_probability(t, share, 5.0) for t in given]
    assert targets == pytest.approx([(1 - share) * t + share / 5 for t in given])

    def loss(logits: list[float]) -> float:
        log_partition = math.log(sum(math.exp(x) for x in logits))
        return sum(map(formulas.cross_entropy_term, [x - log_partition for x in logits], targets))

    partition = sum(math.exp(x) for x in row)
    for j, y in enumerate(row):
        expected = differences(lambda x, j=j: loss([*row[:j], x, *row[j + 1 :]]), y)
        derivative = formulas.cross_entropy_derivative(math.exp(y) / partition, targets[j], sum(targets))
        assert derivative == pytest.approx(expected, rel=1e-7, abs=1e-10)


def test_smoothed_indicators_are_the_smoothed_one_hot_row() -> None:
    row = [formulas.smoothed_indicator(j == 2, 0.3, 4.0) for j in range(4)]
    assert row == pytest.approx([0.075, 0.075, 0.775, 0.075])


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_the_penaltys_derivative_is_that_of_its_value(l1: float, l2: float) -> None:
    assert formulas.penalty(-2.0, l1, l2) == pytest.approx(2 * l1 + 2 * l2)
    for w in grid(-3, 3, 31):
        expected = differences(lambda w: formulas.penalty(w, l1, l2), w)
        assert formulas.penalty_derivative(w, l1, l2) == pytest.approx(expected, rel=1e-7)
    assert formulas.penalty_derivative(0.0, l1, l2) == 0


def test_binary_cross_entropy_of_a_known_case() -> None:
    logit = math.log(0.633 / 0.367)
    assert formulas.binary_cross_entropy(logit, 0.0, 0.0) == pytest.approx(1.0024, abs=1e-4)


def run(*kernel) -> None:
    """Run a kernel, given as a record's fields, once."""
    BACKEND.compile([Kernel(*kernel)]).run()


def compiled_activation(name: str, z: list[float], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values and the derivatives of an activation as the fused kernels compute them."""
    function = activation_function(name)
    columns = len(z)
    before, after = np.array([z], dtype), np.empty((1, columns), dtype)
    arguments = {"z": before, "a": after, "bias": np.zeros(columns, dtype)}
    constants = {"BIAS": True, "DROPOUT": False, "KEEP_Z": function.needs_z}
    run("forward", dtype, {"activation": function.value}, constants, arguments)
    a = after if function.needs_z else before
    delta = np.ones((1, columns), dtype)
    arguments = {"delta": delta, "z": before, "a": a, "bias_gradient": np.empty(columns, dtype)}
    constants = {"BIAS": True, "DROPOUT": False, "FROM_Z": function.needs_z}
    kernel = {"activation_derivative": function.derivative}
    run("backward", dtype, kernel, constants, arguments)
    np.testing.assert_array_equal(arguments["bias_gradient"], delta[0])
    return a[0], delta[0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_reaches_its_limits(name: str) -> None:
    low, high, slope_low, slope_high = LIMITS[name]
    function = activation_function(name)
    values = [function.value(z) for z in (-HUGE, HUGE)]
    slopes = [function.derivative(x) for x in ((-HUGE, HUGE) if function.needs_z else values)]
    np.testing.assert_allclose(values, [low, high], rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(slopes, [slope_low, slope_high], rtol=1e-15, atol=1e-15)
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-15)):
        a, slope = compiled_activation(name, [-HUGE, HUGE], dtype)
        np.testing.assert_allclose(a, [low, high], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(slope, [slope_low, slope_high], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_nan_passes_through_an_activation(name: str) -> None:
    for dtype in ("float32", "float64"):
        assert np.isnan(compiled_activation(name, [math.nan, 1.0], dtype)[0][0])


def compiled_loss(name: str, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    loss = loss_from(name)
    scalars = np.zeros(SCALARS)
    arguments = {
        "outputs": outputs,
        "labels": labels,
        "count": np.array([len(outputs)]),
        "gradient": np.empty_like(outputs),
        "row": np.empty(outputs.shape[1], outputs.dtype),
        "scalars": scalars,
        "batch_size": len(outputs),
    }
    constants = {
        "BIAS": False,
        "GRADIENT": True,
        "WEIGHTED": False,
        "INDICES": labels.ndim == 1,
        **loss.constants,
    }
    run(loss.kernel, outputs.dtype, loss.formulas, constants, arguments)
    return float(scalars[1]), arguments["gradient"]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_loss_at_huge_outputs_is_finite_and_right(name: str) -> None:
    loss = loss_from(name)
    for y, t in product((-HUGE, HUGE), (0.0, 1.0)):
        value, derivative = LOSSES[name](y, t)
        assert loss.value(y, t, **loss.constants) == pytest.approx(value, rel=1e-13, abs=1e-13)
        assert loss.derivative(y, t, **loss.constants) == pytest.approx(derivative, rel=1e-13, abs=1e-13)
        for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-13)):
            total, gradient = compiled_loss(name, np.array([[y]], dtype), np.array([[t]], dtype))
            assert total == pytest.approx(value, rel=tolerance, abs=tolerance)
            assert gradient[0, 0] == pytest.approx(derivative, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_at_huge_logits_is_finite_and_right(dtype: str) -> None:
    outputs = np.array([[HUGE, -HUGE, 0.0], [HUGE, -HUGE, 0.0]], dtype)
    total, gradient = compiled_loss("cross_entropy", outputs, np.array([0, 1], np.int32))
    assert total == pytest.approx(2 * HUGE)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0.5, -0.5, 0]], atol=1e-12)


# ---------------------------------------------------------------------------------------------------------
# Update rules, through the kernel: a segment that decays, one that does not, and gaps to leave alone.
# ---------------------------------------------------------------------------------------------------------

SEGMENTS = np.array([[0, 5, 1], [8, 11, 0]], np.int64)
TRAINED = np.r_[0:5, 8:11]
DECAYING = np.r_[np.ones(5), np.zeros(3)]
SIZE = 16


class Update:
    """The update kernel over a small arena."""

    def __init__(
        self,
        optimizer: str,
        dtype: str = "float64",
        clip_norm: float | None = None,
        rate_factors: NDArray | None = None,
        **fields,
    ):
        self.optimizer = optimizer_from(optimizer, **fields)
        self.values = np.random.default_rng(1).normal(size=SIZE).astype(dtype)
        self.gradients = np.zeros(SIZE, dtype)
        self.state = [np.zeros(SIZE, dtype) for _ in self.optimizer.state]
        self.counters = np.zeros(COUNTERS, np.int64)
        self.scalars = np.zeros(SCALARS)
        self.rates = np.full(64, self.optimizer.learning_rate)
        constants = {
            "SLOTS": len(self.state),
            "CLIP": clip_norm is not None,
            "FOLDED": False,
            "GROUPED": rate_factors is not None,
            "PREPARED": type(self.optimizer).prepare is not None,
            **self.optimizer.constants,
        }
        arguments = {
            "values": self.values,
            "gradients": self.gradients,
            "segments": SEGMENTS,
            "rate_factors": rate_factors,
            "counters": self.counters,
            "rates": self.rates,
            "scalars": self.scalars,
            "batch_size": 32,
            "clip_norm": float(clip_norm or 0),
            "weight_decay": float(self.optimizer.weight_decay),
            **{f"state{i}": array for i, array in enumerate(self.state)},
        }
        update = Kernel("update", dtype, self.optimizer.formulas, constants, arguments)
        self.run = BACKEND.compile([update]).run

    def step(self, gradient: np.ndarray, weight_sum: float = 32.0) -> None:
        """Run once, on the gradient of the weighted mean over a batch whose weights come to `weight_sum`."""
        self.gradients[TRAINED] = gradient * (weight_sum / 32)
        self.scalars[WEIGHT_SUM] = weight_sum
        self.scalars[SQUARED_NORM] = np.sum(self.gradients[TRAINED].astype(np.float64) ** 2)
        self.run()


def textbook(name: str, w, g, rate, state, t, o):
    """One step of each rule as its paper writes it."""
    if name == "sgd":
        return w - rate * g
    if name in ("momentum", "nesterov") and o.rate_in_velocity:  # as scikit-learn writes it
        state["v"] = o.momentum * state.get("v", 0) - rate * g
        return w + (state["v"] if name == "momentum" else o.momentum * state["v"] - rate * g)
    if name in ("momentum", "nesterov"):
        state["v"] = o.momentum * state.get("v", 0) + g
        return w - rate * (state["v"] if name == "momentum" else g + o.momentum * state["v"])
    if name == "adagrad":
        state["s"] = state.get("s", 0) + g**2
        return w - rate * g / (np.sqrt(state["s"]) + o.epsilon)
    if name == "rmsprop":
        state["s"] = o.decay * state.get("s", 0) + (1 - o.decay) * g**2
        return w - rate * g / (np.sqrt(state["s"]) + o.epsilon)
    state["m"] = o.beta1 * state.get("m", 0) + (1 - o.beta1) * g
    state["v"] = o.beta2 * state.get("v", 0) + (1 - o.beta2) * g**2
    if o.epsilon_hat:  # as the end of the paper's section 2 has it
        rate = rate * np.sqrt(1 - o.beta2**t) / (1 - o.beta1**t)
        return w - rate * state["m"] / (np.sqrt(state["v"]) + o.epsilon)
    m, v = state["m"] / (1 - o.beta1**t), state["v"] / (1 - o.beta2**t)
    return w - rate * m / (np.sqrt(v) + o.epsilon)


@pytest.mark.parametrize(
    ("name", "dtype", "form"),
    [
        *product(("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"), ("float64",), ({},)),
        *product(("momentum", "nesterov"), ("float64",), ({"rate_in_velocity": True},)),
        # An epsilon so large that its place shows.
        *product(("adam",), ("float64", "float32"), ({"epsilon_hat": True, "epsilon": 0.1},)),
        ("adam", "float32", {}),
        ("momentum", "float32", {}),
    ],
)
def test_twenty_updates_equal_the_textbooks(name: str, dtype: str, form: dict) -> None:
    """With a rate of each batch's own, clipping, decay of the decaying segment, and ragged weight sums."""
    clip_norm = 2.5
    update = Update(name, dtype, clip_norm, weight_decay=0.05, learning_rate=0.01, **form)
    update.rates[:] = 0.01 * (1 + np.arange(64) % 5)
    random = np.random.default_rng(2)
    start = update.values.copy()
    w, state = update.values[TRAINED].astype(np.float64), {}
    clipped = 0
    for t in range(1, 21):
        gradient = random.normal(size=8)
        update.step(gradient, weight_sum=random.uniform(1, 60))
        norm = np.linalg.norm(gradient)
        clipped += norm > clip_norm
        g = gradient * min(1, clip_norm / norm)
        rate = update.rates[t - 1]
        w = w - rate * 0.05 * DECAYING * w
        w = textbook(name, w, g, rate, state, t, update.optimizer)
    assert 0 < clipped < 20
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(update.values[TRAINED], w, rtol=tolerance, atol=tolerance)
    gaps = np.setdiff1d(np.arange(SIZE), TRAINED)
    np.testing.assert_array_equal(update.values[gaps], start[gaps])
    assert update.counters[[BATCH, STEP]].tolist() == [20, 20]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adagrad", "adamw"])
def test_a_segments_factor_multiplies_its_rate_and_its_decay(name: str, dtype: str) -> None:
    factors = np.array([0.1, 3.0])
    update = Update(name, dtype, rate_factors=factors, weight_decay=0.05, learning_rate=0.01)
    random = np.random.default_rng(2)
    w, state = update.values[TRAINED].astype(np.float64), {}
    rate = 0.01 * np.r_[np.full(5, factors[0]), np.full(3, factors[1])]
    for t in range(1, 11):
        gradient = random.normal(size=8)
        update.step(gradient)
        w = w - rate * 0.05 * DECAYING * w
        w = textbook(name, w, gradient, rate, state, t, update.optimizer)
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    np.testing.assert_allclose(update.values[TRAINED], w, rtol=tolerance, atol=tolerance)


def test_adam_under_a_constant_gradient_moves_by_its_rate_at_every_step() -> None:
    """With m̂ = g and v̂ = g², each step is η g / (|g| + ε), whatever the betas."""
    update = Update("adam", "float32", learning_rate=0.25, epsilon=1e-3)
    start = update.values[TRAINED].astype(np.float64)
    gradient = np.array([1e-3, -1e-3, 2.0, -3e4, 0.5, 0.0, 1e-2, -1.0])
    for t in range(1, 11):
        update.step(gradient)
        expected = start - t * 0.25 * gradient / (abs(gradient) + 1e-3)
        np.testing.assert_allclose(update.values[TRAINED], expected, rtol=2e-6, atol=2e-6)


def test_a_batch_without_weight_changes_nothing_and_is_no_step() -> None:
    update = Update("adam", clip_norm=1.0, weight_decay=0.1)
    update.step(np.ones(8))
    before = [array.copy() for array in (update.values, *update.state)]
    update.step(np.ones(8), weight_sum=0.0)
    for array, old in zip((update.values, *update.state), before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert update.counters[[BATCH, STEP]].tolist() == [2, 1]


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_state_that_decays_into_denormals_becomes_zero(name: str) -> None:
    update = Update(name, "float32")
    tiny = np.finfo(np.float32).tiny
    for state in update.state:
        state[TRAINED] = np.float32(1.05) * tiny
        state[0] = 1.0
    for _ in range(200):
        update.step(np.zeros(8))
        for state in update.state:
            stored = state[TRAINED]
            assert np.all((stored == 0) | (abs(stored) >= tiny))
    assert update.state[0][1] == 0
    assert update.state[0][0] > 0
