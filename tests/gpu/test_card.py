"""What only a real card shows: its memory, other streams and devices, graphs, long trainings, files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit import Callback, Dense, Dropout, Network, Trainer, load
from nnkit.backends import select
from nnkit.backends.cublaslt import CublasLt
from nnkit.backends.cublaslt_plan import mask_shape
from nnkit.backends.cuda_program import CudaProgram
from nnkit.backends.cupy import CupyBackend
from nnkit.backends.operations import Product
from nnkit.runs.config import Config
from nnkit.runs.run import Run
from nnkit.training.precision import half_of

pytestmark = pytest.mark.gpu


@pytest.fixture
def backend() -> CupyBackend:
    chosen = select("cuda").backend
    assert isinstance(chosen, CupyBackend)
    return chosen


def data(rows: int = 1280) -> tuple[NDArray, NDArray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, 20)).astype(np.float32)
    return X, (X[:, :5] + random.normal(scale=0.3, size=(rows, 5))).argmax(axis=1)


def trained(device: str, precision: str = "fp32", callbacks: Any = (), **settings: Any) -> Trainer:
    network = Network([Dense(128, "relu"), Dense(96, "relu"), Dropout(0.2), Dense(64, "tanh"), Dense(5)])
    trainer = Trainer(network, "cross_entropy", device=device, precision=precision, seed=1, **settings)
    trainer.fit(*data(), epochs=10, batch_size=128, callbacks=callbacks)  # 100 steps
    return trainer


def losses(trainer: Trainer) -> NDArray:
    return np.array(trainer.history["loss"])


def test_steps_are_captured_with_products_of_cublaslt(backend: CupyBackend) -> None:
    assert isinstance(backend.products, CublasLt)
    trained("cuda")
    described = backend.describe()
    assert described["captured steps"] == "yes", described
    assert described["products"].startswith("cuBLASLt")


def test_a_hundred_steps_with_dropout_are_the_cpus() -> None:
    np.testing.assert_allclose(losses(trained("cuda")), losses(trained("cpu")), rtol=1e-4)


def test_a_hundred_steps_in_float64_are_the_cpus() -> None:
    np.testing.assert_allclose(losses(trained("cuda", "fp64")), losses(trained("cpu", "fp64")), rtol=1e-10)


def test_two_long_trainings_have_the_same_bits() -> None:
    first, second = (trained("cuda", clip_norm=1.0, l2=1e-4).network.parameters() for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


def test_tf32_rounds_and_still_learns(backend: CupyBackend) -> None:
    if "tf32" not in backend.precisions:
        pytest.skip("the card is older than compute capability 8.0")
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(256, 256)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b
    errors = {}
    for precision in ("fp32", "tf32"):
        one = backend.with_precision(precision)
        out = one.zeros((256, 256), np.float32)
        one.compile([Product(one.from_host(a), one.from_host(b), out)]).run()
        errors[precision] = np.abs(one.to_host(out) - exact).max()
    assert errors["fp32"] < 1e-4 < errors["tf32"] < 0.2
    assert losses(trained("cuda", "tf32"))[-1] < 0.7 * losses(trained("cuda", "tf32"))[0]


HALVES = ("fp16", "bf16")


def without(backend: CupyBackend, precision: str) -> None:
    if precision not in backend.precisions:
        pytest.skip(f"the card or its libraries have no {precision}")


@pytest.mark.parametrize("precision", HALVES)
def test_products_in_16_bits_sum_in_float32(backend: CupyBackend, precision: str) -> None:
    without(backend, precision)
    half = half_of(precision)
    assert half is not None
    random = np.random.default_rng(0)
    m, k, n = 512, 4096, 768
    a, b = (random.normal(size=shape).astype(half.dtype) for shape in ((m, k), (k, n)))
    bias = random.normal(size=n).astype(half.dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    one = backend.with_precision(precision)
    placed = [one.from_host(array) for array in (a, b, bias)]
    wide, narrow, relu = one.zeros((m, n), np.float32), *(one.zeros((m, n), half.dtype) for _ in range(2))
    # As cuBLASLt has it, whether or not it is used: `relu_difference` decides that by its corners.
    forward = one.products._matmul_relu(*placed, relu, None)
    assert forward is not None, f"cuBLASLt has no ReLU with bias for {precision}"
    one.compile([Product(*placed[:2], wide), Product(*placed[:2], narrow)]).run()
    with one.active():
        forward()
    unit = {"fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
    np.testing.assert_allclose(one.to_host(wide), exact, rtol=1e-4, atol=k * 2.0**-22)
    found = one.to_host(narrow).astype(np.float64)
    np.testing.assert_allclose(found, exact, rtol=2 * unit, atol=k * 2.0**-22)
    expected = np.maximum(exact + bias.astype(np.float64), 0)
    np.testing.assert_allclose(one.to_host(relu).astype(np.float64), expected, rtol=2 * unit, atol=1e-2)


# Rows, terms of each sum, columns: an ordinary layer, the edges, and odd numbers.
EDGES = [(128, 784, 512), (64, 1, 32), (64, 48, 1), (128, 512, 10), (129, 77, 131)]
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.mark.parametrize("shape", EDGES)
@pytest.mark.parametrize("precision", ["fp32", "fp64", *HALVES])
def test_products_and_their_epilogues_err_no_more_than_rounding(
    backend: CupyBackend, precision: str, shape: tuple[int, int, int]
) -> None:
    """Against float64, and sums in 16 bits as those of float32; an epilogue may be absent."""
    without(backend, precision)
    half, one = half_of(precision), backend.with_precision(precision)
    dtype = half.dtype if half else np.dtype(np.float64 if precision == "fp64" else np.float32)
    (m, k, n), random, unit = shape, np.random.default_rng(0), UNITS[dtype.name]
    a, b, bias, c = (random.normal(size=size).astype(dtype) for size in ((m, k), (k, n), n, (n, k)))
    A, B, C = (array.astype(np.float64) for array in (a, b, c))
    left, right, shift = map(one.from_host, (a, b, bias))
    out, sums, mask = one.zeros((m, n), dtype), one.zeros(n, dtype), one.zeros(mask_shape(m, n), np.uint8)

    def check(array: Any, exact: NDArray, sizes: NDArray, terms: int = k) -> NDArray:
        found = one.to_host(array).astype(np.float64)
        assert (np.abs(found - exact) <= (2 * unit + (terms + 2) * min(unit, 2.0**-24)) * sizes).all()
        return found

    one.compile([Product(left, right, out)]).run()
    check(out, A @ B, np.abs(A) @ np.abs(B))
    exact = np.maximum(A @ B + bias.astype(np.float64), 0)
    sizes = np.abs(A) @ np.abs(B) + np.abs(bias.astype(np.float64))
    for bits in (None, mask):
        if (forward := one.products.matmul_relu(left, right, shift, out, bits)) is None:
            return
        with one.active():
            forward()
        passed = check(out, exact, sizes) > 0
    backward = one.products.matmul_relu_gradient(left, one.from_host(c).T, mask, out, sums)
    if backward is not None:
        with one.active():
            backward()
        gradient, sizes = (A @ C.T) * passed, np.abs(A) @ np.abs(C.T)
        check(out, gradient, sizes)
        check(sums, gradient.sum(axis=0), sizes.sum(axis=0), k + m)


@pytest.mark.parametrize("precision", HALVES)
def test_mixed_precision_learns_as_float32_does_and_twice_the_same(
    backend: CupyBackend, precision: str
) -> None:
    without(backend, precision)
    first, second = (trained("cuda", precision, clip_norm=1.0, l2=1e-4) for _ in range(2))
    reference = trained("cuda", clip_norm=1.0, l2=1e-4)
    np.testing.assert_allclose(losses(first), losses(reference), rtol=2e-2)
    for name, value in first.network.parameters().items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(second.network.parameters()[name], value)


@pytest.mark.parametrize("precision", HALVES)
def test_steps_in_mixed_precision_are_captured_and_allocate_nothing(
    backend: CupyBackend, precision: str
) -> None:
    without(backend, precision)
    memory = Memory()
    trained("cuda", precision, callbacks=[memory])
    assert len(set(memory.used)) == 1
    assert backend.describe()["captured steps"] == "yes"


class Memory(Callback):
    """Notes what is allocated at each step."""

    every = "1 steps"

    def __init__(self) -> None:
        self.used: list[int] = []

    def on_step_end(self, trainer: Any, figures: Any) -> None:
        import cupy

        self.used.append(cupy.get_default_memory_pool().used_bytes())


def test_steps_allocate_nothing() -> None:
    memory = Memory()
    trained("cuda", callbacks=[memory])
    assert len(memory.used) == 100
    assert len(set(memory.used)) == 1


def test_the_host_programs_device_and_stream_stay(backend: CupyBackend) -> None:
    import cupy

    device, stream = cupy.cuda.runtime.getDevice(), cupy.cuda.Stream()
    with stream:
        trained("cuda")
        select("cuda").backend.synchronize()
        assert cupy.cuda.runtime.getDevice() == device
        assert cupy.cuda.get_current_stream() == stream
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
    assert cupy.zeros(3).get().tolist() == [0, 0, 0]


def test_wide_products_have_their_epilogues(backend: CupyBackend) -> None:
    """What a training on a card is built upon, at a size where tensor cores and split sums come in."""
    random = np.random.default_rng(0)
    m, k, n = 512, 1024, 768
    a, b = random.normal(size=(m, k)).astype(np.float32), random.normal(size=(k, n)).astype(np.float32)
    bias = random.normal(size=n).astype(np.float32)
    out, mask = backend.zeros((m, n), np.float32), backend.zeros(mask_shape(m, n), np.uint8)
    placed = [backend.from_host(array) for array in (a, b, bias)]
    # As cuBLASLt has them, whether or not they are used: `relu_difference` decides that by their corners.
    forward = backend.products._matmul_relu(*placed, out, mask)
    assert forward is not None, "cuBLASLt has no ReLU with bias and mask for float32"
    delta = random.normal(size=(m, 64)).astype(np.float32)
    weight = random.normal(size=(n, 64)).astype(np.float32)
    onto, sums = backend.zeros((m, n), np.float32), backend.zeros(n, np.float32)
    backward = backend.products._matmul_relu_gradient(
        backend.from_host(delta), backend.from_host(weight).T, mask, onto, sums
    )
    assert backward is not None, "cuBLASLt has no gradient of the ReLU for float32"
    program = CudaProgram(backend._device, [forward, backward], capturable=True)
    results = []
    for _ in range(5):
        program.run()
        results.append([backend.to_host(array) for array in (out, onto, sums)])
    expected = np.maximum(a.astype(np.float64) @ b + bias, 0)
    gradient = (delta.astype(np.float64) @ weight.T) * (results[0][0] > 0)
    for array, exact in zip(results[0], (expected, gradient, gradient.sum(axis=0)), strict=True):
        np.testing.assert_allclose(array, exact, rtol=1e-3, atol=1e-3)
    for again in results[1:]:
        for array, first in zip(again, results[0], strict=True):
            np.testing.assert_array_equal(array, first)


CORNERS = (-np.inf, -1.0, -0.0, 0.0, 1e-30, 1.0, np.inf, np.nan)
SHAPES = [(3, 5, 8), (128, 784, 512), (512, 1024, 768), (4096, 512, 256)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_relus_corners_are_the_cpus(backend: CupyBackend, dtype: Any, shape: tuple[int, int, int]) -> None:
    """Weights of zero, and a bias that puts each unit at a corner, in every row."""
    rows, inputs, units = shape
    random = np.random.default_rng(0)
    X, y = random.normal(size=(rows, inputs)), random.normal(size=(rows, 2))
    bias = np.resize(CORNERS, units)
    outputs, gradients = [], []
    for device in (select("cpu").backend, backend):
        network = Network([Dense(units, "relu")], inputs=inputs)
        network.initialize(inputs, 0, dtype, device)
        network.set_parameters({"layers.0.weight": np.zeros((inputs, units)), "layers.0.bias": bias})
        outputs.append(network.outputs(X))
        network = Network([Dense(units, "relu"), Dense(2)], inputs=inputs)
        network.initialize(inputs, 0, dtype, device)
        finite = np.where(np.isfinite(bias), bias, 0)
        network.set_parameters({"layers.0.weight": np.zeros((inputs, units)), "layers.0.bias": finite})
        gradients.append(network.gradients(X, y, "mse"))
    np.testing.assert_array_equal(*outputs)
    at_zero = gradients[0]["layers.0.bias"][finite <= 0]
    assert not at_zero.any()
    for name, value in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp64", *HALVES])
def test_a_relu_that_passed_its_trial_has_the_same_corners_in_other_products(
    backend: CupyBackend, precision: str, shape: tuple[int, int, int]
) -> None:
    without(backend, precision)
    half = half_of(precision)
    dtype = (
        {"fp64": np.dtype(np.float64)}.get(precision, np.dtype(np.float32)) if half is None else half.dtype
    )
    one, (m, k, n) = backend.with_precision(precision), shape
    bias = np.resize(CORNERS, n).astype(dtype)
    a, b, out = (one.zeros(size, dtype) for size in ((m, k), (k, n), (m, n)))
    products = one.products
    forward = products.matmul_relu(a, b, one.from_host(bias), out, None)
    if forward is None:
        pytest.skip(f"cuBLASLt's ReLU is not used: {products.relu_difference(dtype, dtype, False)}")
    with one.active():
        forward()
    expected = np.where(bias.astype(np.float64) < 0, 0, bias.astype(np.float64))
    np.testing.assert_array_equal(one.to_host(out).astype(np.float64), np.tile(expected, (m, 1)))
    mask = one.zeros(mask_shape(m, n), np.uint8)
    if products.relu_difference(dtype, dtype, True):
        pytest.skip(f"its mask is not used: {products.relu_difference(dtype, dtype, True)}")
    onto, sums = one.zeros((m, n), dtype), one.zeros(n, dtype)
    delta, weight = (one.from_host(np.ones(size).astype(dtype)) for size in ((m, 8), (n, 8)))
    for call in (
        products.matmul_relu(a, b, one.from_host(bias), out, mask),
        products.matmul_relu_gradient(delta, weight.T, mask, onto, sums),
    ):
        assert call is not None
        with one.active():
            call()
    np.testing.assert_array_equal(one.to_host(onto).astype(np.float64), np.tile(8 * (expected > 0), (m, 1)))


def test_a_run_on_the_card_leaves_a_model_for_any_machine(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = ["data.train=iris", "run.device=cuda", "training.epochs=3", f"run.out={folder}"]
    run = Run(Config().with_overrides(settings))
    run.train()
    network = load(folder / "model.safetensors").network
    assert network.arena.backend.name == "cpu"
    X = np.random.default_rng(0).normal(size=(4, network.inputs)).astype(np.float32)
    expected = run.trainer.network.outputs(X)
    np.testing.assert_allclose(network.outputs(X), expected, rtol=1e-4, atol=1e-5)
    network.place(select("cuda").backend, np.float32)
    assert network.arena.backend.name == "cuda:0"
    np.testing.assert_array_equal(network.outputs(X), expected)


def test_kernels_are_compiled_once_for_all_processes(tmp_path: Path) -> None:
    program = (
        "import numpy as np\nfrom nnkit import *\n"
        "net = Network([Dense(128, 'relu'), Dense(96, 'relu'), Dropout(0.2), Dense(64, 'tanh'), Dense(5)])\n"
        "X = np.random.default_rng(0).normal(size=(1280, 20)).astype(np.float32)\n"
        "Trainer(net, 'cross_entropy', device='cuda', seed=1)"
        ".fit(X, np.arange(1280) % 5, epochs=1, batch_size=128)\n"
    )
    # Other tests' processes may compile at the same time, into the cache that they share.
    environment = {**os.environ, "NNKIT_CACHE": str(tmp_path)}

    def compiled() -> dict[Path, int]:
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*cuda*")}

    first = compiled()
    assert first
    assert compiled() == first
