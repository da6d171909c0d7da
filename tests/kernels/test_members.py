"""The kernels over an ensemble's members against NumPy in float64, on each device."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_devices import HostDevice

from nnkit.kernels.layout import EXP, IDENTITY, SIGMOID, SOFTMAX
from nnkit.nn.links import averaged_outputs, inverse_link

LINKS = {"identity": IDENTITY, "sigmoid": SIGMOID, "softmax": SOFTMAX, "exp": EXP}
SHAPES = [(1, 2, 1), (300, 5, 3), (7, 32, 11)]


def joined(device: HostDevice, z: np.ndarray, columns: int, link: str) -> np.ndarray:
    outputs = np.full((len(z), columns), np.nan, z.dtype)
    device.run("join_members", z.dtype.name, {}, {"LINK": LINKS[link]}, {"z": z, "outputs": outputs})
    return outputs


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("rows", "members", "columns"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
def test_the_prediction_is_the_mean_of_the_members(
    device: HostDevice, rows: int, members: int, columns: int, dtype: str, tolerance: float, link: str
) -> None:
    z = (np.random.default_rng(rows).normal(size=(rows, members, columns)) * 5).astype(dtype)
    outputs = joined(device, z.reshape(rows, -1), columns, link)
    expected = averaged_outputs(list(z.transpose(1, 0, 2)), link)  # type: ignore[arg-type]
    np.testing.assert_allclose(outputs, expected, rtol=tolerance, atol=tolerance * 20)


@pytest.mark.parametrize("link", ["sigmoid", "softmax", "exp"])
def test_predictions_that_underflow_have_exact_logarithms(device: HostDevice, link: str) -> None:
    """Each member is sure, of e^-800 and less, which no type here holds."""
    z = np.array([[900.0, -20.0, 1000.0, 30.0, 850.0, 3.0], [-900.0, 0.0, -850.0, 1.0, -830.0, 2.0]])
    if link == "exp":
        z = -abs(z)
    outputs = joined(device, z.copy(), 2, link)
    expected = averaged_outputs(list(z.reshape(2, 3, 2).transpose(1, 0, 2)), link)  # type: ignore[arg-type]
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(outputs, expected, rtol=1e-13)


@pytest.mark.parametrize("link", LINKS)
def test_the_gradient_is_that_of_central_differences(device: HostDevice, link: str) -> None:
    rows, members, columns = 3, 4, 3
    random = np.random.default_rng(1)
    z, delta = random.normal(size=(rows, members * columns)) * 2, random.normal(size=(rows, columns))
    outputs, found = joined(device, z, columns, link), np.full_like(z, np.nan)
    arguments = {"z": z, "outputs": outputs, "delta": delta, "z_gradient": found}
    device.run("join_gradient", "float64", {}, {"LINK": LINKS[link]}, arguments)
    host = HostDevice()
    for place in np.ndindex(z.shape):
        moved = np.zeros_like(z)
        moved[place] = 1e-6
        differences = joined(host, z + moved, columns, link) - joined(host, z - moved, columns, link)
        assert found[place] == pytest.approx((differences * delta).sum() / 2e-6, rel=1e-6, abs=1e-8)


def test_a_mean_probability_is_the_mean_of_probabilities(device: HostDevice) -> None:
    z = np.random.default_rng(2).normal(size=(9, 5, 4))
    outputs = joined(device, z.reshape(9, -1), 4, "softmax")
    each = np.mean([inverse_link(z[:, member], "softmax") for member in range(5)], axis=0)
    np.testing.assert_allclose(inverse_link(outputs, "softmax"), each, rtol=1e-13)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "members", "columns"), [(1, 2, 1), (9, 3, 12), (300, 5, 33), (40, 2, 260)])
def test_scales_and_biases_forward_and_backward(
    device: HostDevice, rows: int, members: int, columns: int, bias: bool, shared: bool
) -> None:
    random = np.random.default_rng(columns)
    x = random.normal(size=(rows, 1 if shared else members, columns))
    scale, shift = random.normal(size=(2, members, columns))
    delta = random.normal(size=(rows, members, columns))
    wanted = {
        "out": x * scale + (shift if bias else 0),
        "scale_gradient": (delta * x).sum(axis=0),
        "bias_gradient": delta.sum(axis=0),
        "delta": delta * scale,
    }
    given = {
        **{
            "x": x.reshape(-1, columns),
            "scale": scale,
            "bias": shift,
            "delta": delta.reshape(-1, columns).copy(),
        },
        "out": np.full((rows * members, columns), np.nan),
        **{name: np.full((members, columns), np.nan) for name in ("scale_gradient", "bias_gradient")},
    }
    for name in ("scale_members", "scale_members_gradient"):
        device.run(name, "float64", {}, {"BIAS": bias, "SHARED": shared}, given)
    for name, values in wanted.items():
        if bias or name != "bias_gradient":
            np.testing.assert_allclose(given[name].reshape(values.shape), values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rows", "members", "columns"), [(1, 2, 1), (9, 3, 12), (300, 5, 33)])
def test_members_are_summed(device: HostDevice, rows: int, members: int, columns: int) -> None:
    x = np.random.default_rng(0).normal(size=(rows, members, columns + 4))[:, :, 4:]
    whole = np.ascontiguousarray(x.reshape(rows * members, columns))
    out = np.full((rows, columns), np.nan)
    device.run("sum_members", "float64", {}, {}, {"x": whole, "out": out})
    np.testing.assert_allclose(out, x.sum(axis=1), rtol=1e-13, atol=1e-13)
