"""Initial weights: moments and bounds of the papers, drawn from seed, layer and element alone."""

from __future__ import annotations

import numpy as np
import pytest

from nnkit.errors import ConfigError
from nnkit.kernels.philox import philox_words
from nnkit.nn import initializers
from nnkit.nn.initializers import default_initializer, initialize

FAN_IN, FAN_OUT = 300, 200

VARIANCES = {
    "glorot_uniform": 2 / (FAN_IN + FAN_OUT),
    "glorot_normal": 2 / (FAN_IN + FAN_OUT),
    "he_uniform": 2 / FAN_IN,
    "he_normal": 2 / FAN_IN,
    "lecun_uniform": 1 / FAN_IN,
    "lecun_normal": 1 / FAN_IN,
    "normal": 0.01**2,
}
PINNED = [0.38112372159957886, -0.7027451395988464, 0.5303500294685364]
KURTOSIS = {"uniform": 1.8, "normal": 3.0}


@pytest.mark.parametrize("name", VARIANCES)
def test_moments_are_those_of_the_paper(name: str) -> None:
    weights = initialize(name, FAN_IN, FAN_OUT, seed=1, layer=0, dtype=np.float64)
    assert weights.shape == (FAN_IN, FAN_OUT)
    deviation = np.sqrt(VARIANCES[name])
    assert abs(weights.mean()) < 4 * deviation / np.sqrt(weights.size)
    assert weights.std() == pytest.approx(deviation, rel=0.02)
    kurtosis = np.mean((weights / weights.std()) ** 4)
    assert kurtosis == pytest.approx(KURTOSIS[name.split("_")[-1]], rel=0.05)


@pytest.mark.parametrize("name", [name for name in VARIANCES if name.endswith("uniform")])
def test_uniform_draws_fill_their_bounds(name: str) -> None:
    limit = np.sqrt(3 * VARIANCES[name])
    weights = initialize(name, FAN_IN, FAN_OUT, seed=2, layer=3, dtype=np.float64)
    assert 0.999 * limit < weights.max() < limit
    assert -limit < weights.min() < -0.999 * limit


def test_zeros_are_zeros() -> None:
    assert not initialize("zeros", 3, 2, seed=0, layer=0).any()


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
def test_float32_is_float64_rounded(name: str) -> None:
    exact = initialize(name, 20, 30, seed=5, layer=1, dtype=np.float64)
    single = initialize(name, 20, 30, seed=5, layer=1, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, exact.astype(np.float32))


def test_same_seed_and_layer_give_the_same_bits_and_others_do_not() -> None:
    first = initialize("he_normal", 10, 10, seed=1, layer=0)
    np.testing.assert_array_equal(first, initialize("he_normal", 10, 10, seed=1, layer=0))
    assert not np.any(first == initialize("he_normal", 10, 10, seed=2, layer=0))
    assert not np.any(first == initialize("he_normal", 10, 10, seed=1, layer=1))
    assert not np.any(first == initialize("he_normal", 10, 10, seed=1 + 2**40, layer=0))


def test_weights_are_a_function_of_seed_layer_and_element() -> None:
    """Saved results depend on these numbers: a change of them is a change of format."""
    blocks = [philox_words(9, block, 2, 0, 0x57454947)[0] for block in range(2)]
    uniform = (np.concatenate(blocks) // 256 + 0.5) / 2**24
    weights = initialize("lecun_uniform", 3, 2, seed=9, layer=2, dtype=np.float64)
    np.testing.assert_allclose(weights.ravel(), 2 * uniform[:6] - 1, rtol=0, atol=1e-15)
    first = initialize("lecun_uniform", 3, 1, seed=0, layer=0, dtype=np.float64)
    np.testing.assert_allclose(first.ravel(), PINNED, rtol=0, atol=1e-15)


def test_defaults_follow_the_activation() -> None:
    for activation in ("relu", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus"):
        assert default_initializer(activation) == "he_normal"
    for activation in ("identity", "sigmoid", "tanh", "a_users_own"):
        assert default_initializer(activation) == "glorot_uniform"
    assert default_initializer("selu") == "lecun_normal"


def test_a_table_sets_the_parameter() -> None:
    small = initialize({"name": "normal", "std": 0.5}, 4, 4, seed=0, layer=0, dtype=np.float64)
    usual = initialize("normal", 4, 4, seed=0, layer=0, dtype=np.float64)
    np.testing.assert_allclose(small, 50 * usual, rtol=1e-14)


def test_a_users_function_is_taken_and_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initializers, "INITIALIZERS", dict(initializers.INITIALIZERS))

    def ramp(fan_in, fan_out, uniform, normal):
        return np.arange(fan_in * fan_out, dtype=float)

    initializers.register_initializer("ramp", ramp)
    np.testing.assert_array_equal(initialize("ramp", 2, 3, seed=0, layer=0), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(initialize(ramp, 1, 2, seed=0, layer=0), [[0, 1]])
    with pytest.raises(ConfigError, match="'zeros' is taken"):
        initializers.register_initializer("zeros", ramp)
    with pytest.raises(ConfigError, match="5 numbers for a layer of 2 x 3"):
        initialize(lambda *args: np.zeros(5), 2, 3, seed=0, layer=0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("he_norml", "unknown initializer 'he_norml'; did you mean he_normal"),
        (
            {"name": "normal", "stdd": 1.0},
            "unknown parameter 'stdd' of the initializer normal; did you mean std",
        ),
        ({"name": "zeros", "std": 1.0}, "unknown parameter 'std' of the initializer zeros; it takes none"),
        ({"name": "normal", "std": "wide"}, "std = 'wide' must be a finite number"),
        ({"std": 1.0}, "must be a name or a table"),
    ],
)
def test_mistakes_are_named(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        initialize(value, 2, 2, seed=0, layer=0)  # type: ignore[arg-type]


def test_a_layer_without_inputs_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one input"):
        initialize("zeros", 0, 2, seed=0, layer=0)
