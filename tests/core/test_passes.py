"""Devices whose products add the bias and apply the ReLU: the passes use them, and no gradient changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nnkit.backends.numpy import NumpyBackend
from nnkit.core.layers import Activation, Dense, Dropout, Layer
from nnkit.core.network import Network

CASES: dict[str, tuple[list[Layer], int, int]] = {
    "two hidden ReLU layers": ([Dense(7, "relu"), Dense(5, "relu"), Dense(3)], 2, 2),
    "tanh between": ([Dense(7, "relu"), Dense(5, "tanh"), Dense(3)], 1, 1),
    "no bias": ([Dense(7, "relu", bias=False), Dense(3)], 0, 0),
    "an activation of its own stage": ([Dense(7, "relu"), Activation("tanh"), Dense(3)], 1, 0),
    "ReLU outputs": ([Dense(7, "relu"), Dense(3, "relu")], 2, 1),
}


class Fusing(NumpyBackend):
    """A CPU that has the whole products, and counts those prepared; it may lack the backward one."""

    def __init__(self, backward: bool = True) -> None:
        self.forwards = self.backwards = 0
        self._backward = backward

    def matmul_relu(self, a, b, bias, out, mask) -> Callable[[], None]:
        def run() -> None:
            np.maximum(a @ b + bias, 0, out=out)
            if mask is not None:
                mask[:] = 0
                packed = np.packbits(out > 0, axis=1, bitorder="little")
                mask[:, : packed.shape[1]] = packed

        self.forwards += 1
        return run

    def matmul_relu_gradient(self, a, b, mask, out, bias_gradient) -> Callable[[], None] | None:
        def run() -> None:
            kept = np.unpackbits(mask, axis=1, bitorder="little")[:, : out.shape[1]]
            out[...] = (a @ b) * kept
            bias_gradient[...] = out.sum(axis=0)

        if not self._backward:
            return None
        self.backwards += 1
        return run


def network_on(backend: NumpyBackend, layers: list[Layer]) -> Network:
    network = Network(layers)
    network.initialize(4, 3, np.float64, backend)
    random = np.random.default_rng(0)
    network.set_parameters(
        {name: random.normal(size=value.shape) for name, value in network.parameters().items()}
    )
    return network


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_whole_products_change_no_gradient(case: str, backward: bool) -> None:
    layers, forwards, backwards = CASES[case]
    random = np.random.default_rng(1)
    X, y = random.normal(size=(20, 4)), random.normal(size=(20, 3))
    fusing = Fusing(backward)
    whole = network_on(fusing, layers).gradients(X, y, "mse", l2=0.1)
    apart = network_on(NumpyBackend(), layers).gradients(X, y, "mse", l2=0.1)
    assert (fusing.forwards, fusing.backwards) == (forwards, backwards if backward else 0)
    for name, gradient in apart.items():
        assert np.any(gradient != 0)
        np.testing.assert_allclose(whole[name], gradient, rtol=1e-12, atol=1e-14)


def test_whole_products_serve_prediction_too_but_not_under_dropout() -> None:
    layers: list[Layer] = [Dense(7, "relu"), Dropout(0.5), Dense(3)]
    X = np.random.default_rng(1).normal(size=(20, 4))
    fusing = Fusing()
    predicted = network_on(fusing, layers).outputs(X)
    assert fusing.forwards > 0
    np.testing.assert_allclose(predicted, network_on(NumpyBackend(), layers).outputs(X), rtol=1e-12)
    from nnkit.training.trainer import Trainer

    fusing.forwards = 0
    trainer = Trainer(network := network_on(fusing, layers), "mse", device="cpu", precision="fp64")
    trainer.backend = fusing
    trainer.fit(X, np.zeros((20, 3)), epochs=1, batch_size=20)
    assert network.arena.backend is fusing
    assert fusing.forwards == 0
