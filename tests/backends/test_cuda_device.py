"""A CUDA device, simulated or real: its stream, copies of every layout, memory, and captured steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import cublaslt as stand_in

from nnkit import Dense, Dropout, Network, Trainer
from nnkit.backends import cublaslt, select
from nnkit.backends import cupy as cupy_backend
from nnkit.backends.cublaslt import CublasLt
from nnkit.backends.cublaslt_plan import ProductPlan
from nnkit.backends.cuda_device import Call, CudaDevice, Uncapturable
from nnkit.backends.cuda_program import CudaProgram
from nnkit.backends.cuda_relu import relu_difference
from nnkit.backends.cupy import CupyBackend
from nnkit.backends.operations import Copy, Product
from nnkit.errors import DeviceError, DeviceMemoryError, DivergenceError, NnkitError

pytestmark = pytest.mark.gpu


@pytest.fixture
def backend() -> CupyBackend:
    chosen = select("cuda").backend
    assert isinstance(chosen, CupyBackend)
    return chosen


def weights_after(backend: CupyBackend) -> dict[str, NDArray]:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(14, 5)), np.arange(14) % 3
    network = Network([Dense(5, "relu"), Dense(4, "relu"), Dropout(0.25), Dense(3)])
    trainer = Trainer(network, "cross_entropy", device="cuda", seed=3)
    trainer.backend = backend
    trainer.fit(X, y, epochs=2, batch_size=4)
    return network.parameters()


def test_trainings_have_the_same_bits_captured_or_not(backend: CupyBackend) -> None:
    captured = weights_after(backend)
    for again in (weights_after(backend), weights_after(backend.uncaptured())):
        for name, value in captured.items():
            np.testing.assert_array_equal(again[name], value)


def test_a_product_without_an_algorithm_leaves_the_rest_captured(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = weights_after(backend)
    prepared = CublasLt._prepared

    def without_one(products: CublasLt, plan: ProductPlan | None, *arrays: Any) -> Call | None:
        # The products of the first layer forwards, of a batch and of what is left at its end.
        lacking = plan is not None and plan.a.rows == 5 and plan.b.rows == 5
        return None if lacking else prepared(products, plan, *arrays)

    monkeypatch.setattr(CublasLt, "_prepared", without_one)
    captures = []
    capture = backend._device.capture
    monkeypatch.setattr(
        backend._device, "capture", lambda operations: captures.append(operations) or capture(operations)
    )
    other = weights_after(backend)
    assert len(captures) > 2  # the step before and after the products, at least
    assert backend._device.capture_failure == ""
    assert backend.describe()["captured steps"] == "yes"
    for name, value in fused.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5)


def test_cupys_products_refuse_to_be_captured(backend: CupyBackend) -> None:
    matrix = backend.zeros((4, 4), np.float32)
    product = backend._device.matmul(matrix, matrix, backend.zeros((4, 4), np.float32))
    assert isinstance(product, Uncapturable)
    CudaProgram(backend._device, [product], capturable=True).run()
    with pytest.raises(DeviceError, match="captur"):
        backend._device.capture([product])
    CudaProgram(backend._device, [product], capturable=True).run(3)
    assert backend._device.capture_failure == ""


@pytest.mark.parametrize("cut", [slice(None), slice(0, 3)])
def test_a_product_of_nothing_is_zero_in_a_graph_too(backend: CupyBackend, cut: slice) -> None:
    out = backend.from_host(np.ones((3, 4), np.float32))
    empty = backend.zeros((3, 0), np.float32), backend.zeros((0, len(range(4)[cut])), np.float32)
    program = backend.compile([Product(*empty, out[:, cut])])
    program.run(2)
    backend.write(out, 1)
    program.run()
    expected = np.ones((3, 4))
    expected[:, cut] = 0
    np.testing.assert_array_equal(backend.to_host(out), expected)
    assert isinstance(program._replay, tuple)
    assert backend._device.capture_failure == ""


def test_the_second_run_captures_and_later_ones_replay(backend: CupyBackend) -> None:
    source, target = backend.from_host(np.arange(6.0)), backend.zeros(6, np.float64)
    once, often = (backend.compile([Copy(source, target)]) for _ in range(2))
    once.run()
    often.run(3)
    backend.write(source, 7)
    often.run()
    assert once._replay is None
    assert often._replay is not None
    assert backend.to_host(target).tolist() == [7.0] * 6


def test_steps_are_not_captured_where_that_is_not_wanted(backend: CupyBackend) -> None:
    other = backend.uncaptured().with_precision("fp32")
    program = other.compile([Copy(other.zeros(3, np.float32), other.zeros(3, np.float32))])
    program.run(3)
    assert program._replay is None
    assert other.describe()["captured steps"] == "no (asked not to)"
    assert backend.describe()["captured steps"] == "yes"


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[1:3],
        lambda a: a[:, :5],
        lambda a: a[::2, 1:4],
        lambda a: a[2, 1:],
        lambda a: a[:, 3],
        lambda a: a[1:2, 2:3],
        lambda a: a[:0],
        lambda a: a.T,
    ],
)
def test_views_are_written_copied_and_read(backend: CupyBackend, view: Callable) -> None:
    host = np.arange(42.0).reshape(6, 7)
    device = backend.from_host(host)
    np.testing.assert_array_equal(backend.to_host(view(device)), view(host))
    target = backend.zeros((6, 7), np.float64)
    values = -1 - view(host)
    if view(device).flags.c_contiguous or not view(device).flags.f_contiguous:
        backend.compile([Copy(view(device), view(target))]).run()
        expected = np.zeros((6, 7))
        view(expected)[...] = view(host)
        np.testing.assert_array_equal(backend.to_host(target), expected)
        backend.write(view(target), values)
        view(expected)[...] = values
        np.testing.assert_array_equal(backend.to_host(target), expected)


def test_many_writes_are_made_in_their_order(backend: CupyBackend) -> None:
    array = backend.zeros(1, np.int64)
    for number in range(1000):
        backend.write(array, number)
    assert backend.to_host(array) == [999]


def test_what_the_host_changes_after_a_write_does_not_matter(backend: CupyBackend) -> None:
    values = np.arange(5.0)
    array, placed = backend.zeros(5, np.float64), backend.from_host(values)
    backend.write(array, values)
    values[:] = -1
    for written in (array, placed):
        assert backend.to_host(written).tolist() == [0, 1, 2, 3, 4]


def test_an_array_that_does_not_fit_is_an_error_that_says_what_to_lower(backend: CupyBackend) -> None:
    for allocate in (backend.empty, backend.zeros):
        with pytest.raises(DeviceError, match=r"cuda:0.* 128.0 TiB does not fit.*batch_size") as caught:
            allocate((2**30, 2**15), np.float32)
        assert isinstance(caught.value, MemoryError)
        assert isinstance(caught.value, NnkitError)
        assert "\n" not in str(caught.value)


def test_errors_of_the_libraries_are_errors_of_one_line(backend: CupyBackend) -> None:
    import cupy
    from numba.cuda.cudadrv.driver import CudaAPIError
    from numba.cuda.cudadrv.error import CudaDriverError, CudaSupportError, NvvmError

    device = backend._device
    for context in (device.active, device.current):
        for error in (
            cupy.cuda.compiler.CompileException("words\nthe source", "source", "name", ()),
            CudaAPIError(700, "words\nand more"),
            CudaDriverError("CUDA initialized before forking"),
            CudaSupportError("Error at driver init: words"),
            NvvmError("libNVVM failed"),
            CudaPythonError("CUDA_ERROR_ILLEGAL_ADDRESS: words"),
            RuntimeError("CuPy failed to load libcublas.so.12\nand advice"),
        ):
            said = r"^device cuda:0: CUDA failed \([^\n]+\)$"
            with pytest.raises(DeviceError, match=said) as failed, context():
                raise error
            assert not isinstance(failed.value, MemoryError)
        for own in (
            DeviceError("as it was"),
            ValueError("ours"),
            RecursionError("ours"),
            MemoryError("host"),
        ):
            with pytest.raises(type(own)) as caught, context():
                raise own
            assert caught.value is own


class CudaPythonError(Exception):
    """As cuda-python's: it derives from no other class, and its module is no part of the interface."""

    __module__ = "cuda.core._utils.cuda_utils"


def errors_of_full_memory() -> list[Exception]:
    import cupy
    from numba.cuda.cudadrv.driver import CudaAPIError

    return [
        cupy.cuda.memory.OutOfMemoryError(1, 2),
        CudaAPIError(2, "words\nand more"),
        CudaPythonError("CUDA_ERROR_OUT_OF_MEMORY: words"),
        RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    ]


def test_errors_of_full_memory_say_what_to_lower(backend: CupyBackend) -> None:
    device = backend._device
    for context in (device.active, device.current):
        for error in errors_of_full_memory():
            said = r"^device cuda:0: its memory is exhausted \([^\n]+\); lower `batch_size`[^\n]*$"
            with pytest.raises(DeviceMemoryError, match=said) as failed, context():
                raise error
            assert isinstance(failed.value, MemoryError)


def test_a_copy_that_does_not_fit_says_what_to_lower(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cupy

    def full(array: object) -> None:
        raise cupy.cuda.memory.OutOfMemoryError(1, 2)

    monkeypatch.setattr(cupy, "ascontiguousarray", full)
    with pytest.raises(DeviceMemoryError, match="lower `batch_size`"):
        backend.to_host(backend.zeros((4, 4), np.float32)[::2, ::2])


def launched_after(backend: CupyBackend, error: Exception) -> None:
    class Entry:
        typeof_pyval = staticmethod(type)

        def compile(self, types: tuple) -> None:
            raise error

    backend._device.launcher(Entry(), (1, 1), (1, 1), [1.0])


def test_what_fails_while_a_kernel_is_compiled_is_told_as_what_it_is(backend: CupyBackend) -> None:
    from numba.cuda.cudadrv.driver import CudaAPIError, LinkerError
    from numba.cuda.cudadrv.error import NvvmError

    for full in errors_of_full_memory():
        with pytest.raises(DeviceMemoryError, match="exhausted"):
            launched_after(backend, full)
    for sticky in (CudaAPIError(700, "words"), CudaPythonError("CUDA_ERROR_ILLEGAL_ADDRESS: words")):
        with pytest.raises(DeviceError, match=r"^device cuda:0: CUDA failed \([^\n]*words\)$"):
            launched_after(backend, sticky)
    for own in (MemoryError("host"), DeviceError("as it was"), RecursionError("too deep")):
        with pytest.raises(type(own)) as caught:
            launched_after(backend, own)
        assert caught.value is own
    for compiler in (ImportError("a"), OSError("a"), NvvmError("a"), LinkerError("a"), CudaPythonError("a")):
        with pytest.raises(DeviceError, match=r"kernels cannot be compiled \(\w+: a\); pip install"):
            launched_after(backend, compiler)


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("matmul_desc_create", "ALLOC_FAILED"),
        ("matrix_layout_create", "ALLOC_FAILED"),
        ("matmul_preference_create", "ALLOC_FAILED"),
        ("matmul_desc_set_attribute", "INVALID_VALUE"),
        ("matmul_algo_get_heuristic", "ALLOC_FAILED"),
        ("matmul", "EXECUTION_FAILED"),
    ],
)
def test_a_cublaslt_that_fails_is_an_error_of_one_line(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, call: str, status: str
) -> None:
    fail_in(backend, monkeypatch, call, status)
    arrays = [backend.zeros((4, 4), np.float32) for _ in range(3)]
    with pytest.raises(DeviceError, match=r"^device cuda:0: cuBLASLt failed \([^\n]*\)$"):
        backend.compile([Product(*arrays)]).run()


def test_a_heuristic_that_refuses_leaves_the_product_to_cupy(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in ("NOT_SUPPORTED", "INVALID_VALUE"):
        with monkeypatch.context() as patch:
            fail_in(backend, patch, "matmul_algo_get_heuristic", status)
            program = backend.compile([Product(*(backend.zeros((4, 4), np.float32) for _ in range(3)))])
        assert isinstance(program._calls[0], Uncapturable)


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("create", "ALLOC_FAILED"),
        ("matmul_algo_get_heuristic", "NOT_SUPPORTED"),
        ("matmul", "EXECUTION_FAILED"),
    ],
)
def test_a_cublaslt_that_fails_at_first_leaves_all_products_to_cupy(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, call: str, status: str
) -> None:
    with monkeypatch.context() as patch:
        fail_in(backend, patch, call, status)
        products = cupy_backend._products(backend._device)
    assert products.why_not_captured.startswith("nvmath-python cannot be used: ")
    assert "\n" not in products.why_not_captured
    plain = CupyBackend(backend._device, products)
    assert plain.describe()["captured steps"].startswith("no (nvmath-python cannot be used: ")
    assert plain.describe()["ReLU in products"] == "no"
    matrix, out = plain.from_host(np.diag([1.0, 2.0, 3.0])), plain.zeros((3, 3), np.float64)
    program = plain.compile([Product(matrix, matrix, out)])
    program.run(3)
    np.testing.assert_array_equal(plain.to_host(out), np.diag([1.0, 4.0, 9.0]))
    assert program._replay is None


def fail_in(backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, call: str, status: str) -> None:
    """Let a call of cuBLASLt fail, as it does with such a status."""
    library = backend.products._library

    def fails(*arguments: object) -> None:
        raise library.lt.cuBLASLtError(library.cublas.Status[status])

    monkeypatch.setattr(library.lt, call, fails)


# What the stand-in's epilogues do at the corners, and what of them may then be used.
CONVENTIONS = {
    "nnkit's": ({}, "yes"),
    "mask at 0": (
        {"passes_gradient_at_zero": True},
        "forward only (the derivative of cuBLASLt's ReLU at 0.0 is not 0)",
    ),
    "NaN to 0": ({"keeps_nan": False}, "no (cuBLASLt's ReLU of nan is not nan)"),
    "both": (
        {"passes_gradient_at_zero": True, "keeps_nan": False},
        "no (cuBLASLt's ReLU of nan is not nan)",
    ),
}


@pytest.fixture(params=CONVENTIONS)
def convention(backend: CupyBackend, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the stand-in's ReLU behave so; its products are tried anew."""
    library = backend.products._library
    if library.lt.matmul is not stand_in.matmul:
        pytest.skip("a real cuBLASLt's ReLU is what it is: see test_card.py")
    monkeypatch.setattr(library, "relu_differences", {})
    for name, value in CONVENTIONS[request.param][0].items():
        monkeypatch.setattr(stand_in.Relu, name, value)
    return request.param


def test_a_relu_of_cublaslt_is_used_as_far_as_it_is_nnkits(backend: CupyBackend, convention: str) -> None:
    said = CONVENTIONS[convention][1]
    assert backend.describe()["ReLU in products"] == said
    matrix, bias, mask = (
        backend.zeros(shape, dtype)
        for shape, dtype in (((4, 4), np.float32), (4, np.float32), ((4, 16), np.uint8))
    )
    out = backend.zeros((4, 4), np.float32)
    products = backend.products
    assert (products.matmul_relu(matrix, matrix, bias, out, None) is None) == said.startswith("no")
    assert (products.matmul_relu(matrix, matrix, bias, out, mask) is None) == (said != "yes")
    backward = products.matmul_relu_gradient(matrix, matrix.T, mask, out, bias)
    assert (backward is None) == (said != "yes")


def test_a_relu_of_cublaslt_that_fails_is_not_used(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = backend.products._library
    matmul = library.lt.matmul
    if matmul is not stand_in.matmul:
        pytest.skip("a real cuBLASLt's ReLU does not fail at will")
    fails_with: list[str] = []

    def fails(handle: int, descriptor: int, *arguments: Any) -> None:
        if stand_in.Epilogue(stand_in._things[descriptor]["EPILOGUE"]).name in fails_with:
            raise library.lt.cuBLASLtError(library.cublas.Status.EXECUTION_FAILED)
        matmul(handle, descriptor, *arguments)

    monkeypatch.setattr(library.lt, "matmul", fails)
    failed = "it fails: device cuda:0: cuBLASLt failed ("
    for epilogues, said in (
        (["DRELU_BGRAD"], f"forward only ({failed}"),
        (["RELU_BIAS", "RELU_AUX_BIAS"], f"no ({failed}"),
    ):
        monkeypatch.setattr(library, "relu_differences", {})
        fails_with[:] = epilogues
        assert backend.describe()["ReLU in products"].startswith(said)
        weights_after(backend)
    monkeypatch.setattr(library, "relu_differences", {})
    fails_with[:] = ["RELU_BIAS", "RELU_AUX_BIAS", "DEFAULT"]
    with pytest.raises(DeviceError, match=r"^device cuda:0: cuBLASLt failed"):
        backend.describe()
    assert library.relu_differences == {}


def test_a_relu_that_does_not_fit_into_memory_is_an_error(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> str:
        raise DeviceMemoryError("device cuda:0: full")

    monkeypatch.setattr(backend.products._library, "relu_differences", {})
    monkeypatch.setattr(cublaslt, "relu_difference", full)
    with pytest.raises(DeviceMemoryError):
        backend.describe()


def test_it_is_tried_once_for_each_type(backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.products._library, "relu_differences", {})
    trials = []

    def tried(device: CudaDevice, forward: Any, backward: Any, dtype: np.dtype, out: np.dtype) -> str:
        trials.append((dtype, backward is not None))
        return relu_difference(device, forward, backward, dtype, out)

    monkeypatch.setattr(cublaslt, "relu_difference", tried)
    for dtype in (np.float32, np.float64, np.float32):
        matrix, bias = backend.zeros((4, 4), dtype), backend.zeros(4, dtype)
        backend.products.matmul_relu(matrix, matrix, bias, backend.zeros((4, 4), dtype), None)
    assert trials == [(np.float32, False), (np.float64, False)]


def test_rows_of_zeros_train_as_on_the_cpu(convention: str) -> None:
    """A bias begins at zero, so each unit of a row of zeros is at exactly 0, where the gradient stops."""
    X = np.random.default_rng(0).normal(size=(12, 5))
    X[::2] = 0
    trained = {}
    for device in ("cpu", "cuda"):
        network = Network([Dense(6, "relu"), Dense(5, "relu"), Dense(2)])
        trainer = Trainer(network, "mse", optimizer="sgd", device=device, precision="fp64", seed=3)
        trainer.fit(X, np.ones((12, 2)), epochs=2, batch_size=4)
        trained[device] = network.parameters()
    for name, value in trained["cpu"].items():
        np.testing.assert_allclose(trained["cuda"][name], value, rtol=1e-12, atol=1e-14)


def test_nan_goes_through_a_relu_as_on_the_cpu(convention: str) -> None:
    X, y = np.ones((8, 3)), np.ones((8, 2))
    for device in ("cpu", "cuda"):
        network = Network([Dense(4, "relu"), Dense(2)], inputs=3, seed=0)
        network.set_parameters({"layers.0.weight": np.full((3, 4), np.nan)})
        trainer = Trainer(network, "mse", optimizer="sgd", device=device, precision="fp64")
        with pytest.raises(DivergenceError):
            trainer.fit(X, y, epochs=1, batch_size=4)
        assert np.isnan(network.outputs(X)).all()


def test_one_gpus_backends_share_its_stream(backend: CupyBackend) -> None:
    assert select("cuda:0").backend is backend
    assert backend.with_precision("fp64")._device is backend._device


def test_a_thread_waits_while_another_uses_the_device(backend: CupyBackend) -> None:
    held, order = threading.Event(), []

    def hold() -> None:
        with backend._device.active():
            held.set()
            waiting.join(0.2)
            order.append("first")

    def wait() -> None:
        held.wait()
        backend.synchronize()
        order.append("second")

    holding, waiting = threading.Thread(target=hold), threading.Thread(target=wait)
    waiting.start()
    holding.start()
    holding.join()
    waiting.join()
    assert order == ["first", "second"]


def test_it_says_what_its_bits_depend_on(backend: CupyBackend) -> None:
    numerics = backend.numerics()
    assert numerics["device"] == "cuda"
    assert {"GPU", "products", "numba-cuda"} <= set(numerics)
    with backend.matching_numerics(numerics):
        assert backend.numerics() == numerics
