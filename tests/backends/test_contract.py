"""What any backend must do: every method of the protocol, on each device that works here."""

from __future__ import annotations

import numpy as np
import pytest

from nnkit.backends import available
from nnkit.backends.protocol import Backend
from nnkit.errors import DeviceError
from nnkit.training.precision import half_of

DTYPES = (np.float32, np.float64)


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.gpu if name == "cuda" else ()) for name in sorted(available())
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return available()[request.param](request.param)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_it_is_a_backend_and_says_what_it_is(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.name
    assert set(backend.precisions) <= {"fp32", "fp64", "tf32", "fp16", "bf16"}
    assert {"fp32", "fp64"} <= set(backend.precisions)
    described = backend.describe()
    assert described
    assert all(isinstance(text, str) for item in described.items() for text in item)


def test_in_each_of_its_precisions_it_is_the_same_device(backend: Backend) -> None:
    for precision in backend.precisions:
        again = backend.computing(precision)
        assert isinstance(again, Backend)
        assert again.name == backend.name
        assert again.precisions == backend.precisions


@pytest.mark.parametrize("dtype", [*DTYPES, np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [7, (3, 5), (0, 4), (2, 3, 4)])
def test_new_arrays_have_their_shape_and_dtype(backend: Backend, shape, dtype) -> None:
    empty, zeros = backend.empty(shape, dtype), backend.zeros(shape, dtype)
    for array in (empty, zeros):
        assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
        assert array.dtype == dtype
    assert not backend.to_host(zeros).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8])
def test_values_come_back_as_they_went(backend: Backend, dtype) -> None:
    array = np.arange(30).reshape(5, 6).astype(dtype)
    for source in (array, array.T, array[::2, 1:4], np.asfortranarray(array), array[:0]):
        placed = backend.from_host(source)
        assert placed.flags.c_contiguous
        back = backend.to_host(placed)
        assert isinstance(back, np.ndarray)
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, source)


def test_read_only_arrays_are_taken_and_serve_kernels(backend: Backend) -> None:
    gradients = np.arange(8.0)
    segments = np.array([[0, 8, 1]])
    for array in (gradients, segments):
        array.flags.writeable = False
    scalars = backend.zeros(8, np.float64)
    arguments = {
        "gradients": backend.from_host(gradients),
        "segments": backend.from_host(segments),
        "scalars": scalars,
    }
    backend.program([backend.kernel("squared_norm", np.float64, {}, {}, arguments)]).run()
    assert backend.to_host(scalars).max() == 140
    assert not gradients.flags.writeable


def test_what_comes_to_the_host_is_a_copy(backend: Backend) -> None:
    array = backend.zeros(4, np.float32)
    host = backend.to_host(array)
    host[:] = 1
    assert not backend.to_host(array).any()
    backend.write(array, 2.0)
    assert host.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_view_come_to_the_host_in_the_order_asked_for(backend: Backend, dtype) -> None:
    values = np.arange(60).astype(dtype)
    flat = backend.from_host(values)
    for picked in ([4, 0, 2, 2], [3], []):
        rows = backend.from_host(np.array(picked, np.int64))
        for shape, view in (((10, 5), flat[5:55].reshape(10, 5)[:, 1:4]), ((50,), flat[5:55])):
            expected = values[5:55].reshape(shape)[picked] if picked else np.empty((0, *shape[1:]))
            found = backend.to_host(view, rows)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected[:, 1:4] if len(shape) > 1 else expected)


def test_rows_that_come_to_the_host_are_a_copy_made_after_the_work_before(backend: Backend) -> None:
    array = backend.zeros((3, 2), np.float64)
    rows = backend.from_host(np.arange(3))
    source = backend.from_host(np.ones((3, 2)))
    program = backend.program([backend.copy(source, array)])
    program.run()
    host = backend.to_host(array, rows)
    np.testing.assert_array_equal(host, np.ones((3, 2)))
    host[:] = 7
    np.testing.assert_array_equal(backend.to_host(array), np.ones((3, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_writes_take_arrays_numbers_and_slices(backend: Backend, dtype) -> None:
    array = backend.zeros((2, 3), dtype)
    backend.write(array, np.arange(6.0).reshape(2, 3))
    backend.write(array[1:, :2], -1)
    flat = array.reshape(6)
    backend.write(flat[5:6], 9.5)
    np.testing.assert_array_equal(backend.to_host(array), [[0, 1, 2], [-1, -1, 9.5]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_share_their_arrays_memory(backend: Backend, dtype) -> None:
    flat = backend.zeros(12, dtype)
    matrix = flat[2:8].reshape(2, 3)
    backend.write(matrix, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(backend.to_host(flat), [0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0])
    np.testing.assert_array_equal(backend.to_host(matrix.T), [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("dtype", [*DTYPES, np.uint8, np.int64])
def test_a_copy_is_prepared_and_then_made(backend: Backend, dtype) -> None:
    source, target = backend.zeros((3, 4), dtype), backend.zeros((5, 4), dtype)
    copy = backend.program([backend.copy(source, target[1:4])])
    backend.write(source, np.arange(12).reshape(3, 4))
    assert not backend.to_host(target).any()
    copy.run()
    np.testing.assert_array_equal(backend.to_host(target)[1:4], np.arange(12).reshape(3, 4))
    assert not backend.to_host(target)[[0, 4]].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", ["none", "a", "b"])
@pytest.mark.parametrize(("m", "k", "n"), [(5, 7, 3), (1, 4, 6), (4, 1, 6), (6, 4, 1), (130, 65, 70)])
def test_products(backend: Backend, random: np.random.Generator, m, k, n, transposed, dtype) -> None:
    a, b = random.normal(size=(m, k)).astype(dtype), random.normal(size=(k, n)).astype(dtype)
    left = backend.from_host(a.T).T if transposed == "a" else backend.from_host(a)
    right = backend.from_host(b.T).T if transposed == "b" else backend.from_host(b)
    arena = backend.zeros(m * n + 40, dtype)
    out = arena[32 : 32 + m * n].reshape(m, n)
    product = backend.program([backend.matmul(left, right, out)])
    product.run()
    product.run()
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(backend.to_host(out), expected, rtol=tolerance, atol=tolerance * k)
    around = np.delete(backend.to_host(arena), np.arange(32, 32 + m * n))
    assert not around.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("m", "k", "n"), [(5, 7, 3), (1, 4, 6), (130, 65, 200)])
def test_a_product_with_bias_and_relu_where_there_is_one(
    backend: Backend, random: np.random.Generator, m, k, n, masked, dtype
) -> None:
    a, b = random.normal(size=(m, k)).astype(dtype), random.normal(size=(k, n)).astype(dtype)
    bias = random.normal(size=n).astype(dtype)
    out = backend.zeros((m, n), dtype)
    mask = backend.zeros((m, -(-n // 128) * 16), np.uint8) if masked else None
    placed = [backend.from_host(array) for array in (a, b, bias)]
    forward = backend.matmul_relu(*placed, out, mask)
    if forward is None:
        pytest.skip(f"device {backend.name} has no such product")
    backend.program([forward]).run()
    expected = np.maximum(a.astype(np.float64) @ b + bias, 0)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(backend.to_host(out), expected, rtol=tolerance, atol=tolerance * k)
    if mask is None:
        return
    delta, weight = random.normal(size=(m, 9)).astype(dtype), random.normal(size=(n, 9)).astype(dtype)
    onto, sums = backend.zeros((m, n), dtype), backend.zeros(n, dtype)
    backward = backend.matmul_relu_gradient(
        backend.from_host(delta), backend.from_host(weight).T, mask, onto, sums
    )
    if backward is None:
        pytest.skip(f"device {backend.name} has no such product backwards")
    backend.program([backward]).run()
    gradient = (delta.astype(np.float64) @ weight.T) * (backend.to_host(out) > 0)
    np.testing.assert_allclose(backend.to_host(onto), gradient, rtol=tolerance, atol=tolerance * 9)
    np.testing.assert_allclose(
        backend.to_host(sums), gradient.sum(axis=0), rtol=tolerance, atol=tolerance * 9 * m
    )


def test_products_in_16_bits_sum_in_float32(backend: Backend, random: np.random.Generator) -> None:
    for precision in {"fp16", "bf16"} & set(backend.precisions):
        half, one = half_of(precision), backend.computing(precision)
        assert half is not None
        a, b = (random.normal(size=shape).astype(half.dtype) for shape in ((9, 600), (600, 16)))
        exact = a.astype(np.float64) @ b.astype(np.float64)
        unit = {"fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
        for dtype, tolerance in ((np.float32, 0.0), (half.dtype, 1.01 * unit)):
            out = one.zeros((9, 16), dtype)
            one.program([one.matmul(one.from_host(a), one.from_host(b.T).T, out)]).run()
            found = one.to_host(out)
            assert found.dtype == dtype
            # What 600 sums in float32 lose; in 16 bits they would lose hundreds of its units.
            np.testing.assert_allclose(found.astype(np.float64), exact, rtol=tolerance, atol=2e-4)


def test_a_product_reads_its_operands_when_it_runs(backend: Backend) -> None:
    a, b = backend.zeros((6, 4), np.float64), backend.from_host(np.eye(4))
    out = backend.zeros((3, 4), np.float64)
    product = backend.program([backend.matmul(a[:3], b, out)])
    for value in (1.0, 2.0):
        backend.write(a, value)
        product.run()
        assert np.all(backend.to_host(out) == value)


def test_a_program_runs_in_order_and_as_often_as_told(backend: Backend) -> None:
    matrix = np.array([[1.0, 1.0], [1.0, 0.0]])
    x, y = backend.zeros((1, 2), np.float64), backend.zeros((1, 2), np.float64)
    fibonacci = backend.program([backend.matmul(x, backend.from_host(matrix), y), backend.copy(y, x)])
    backend.write(x, [[1.0, 0.0]])
    fibonacci.run(10)
    assert backend.to_host(x).tolist() == [[89, 55]]
    fibonacci.run()
    assert backend.to_host(x).tolist() == [[144, 89]]
    fibonacci.run(0)
    assert backend.to_host(x).tolist() == [[144, 89]]


def test_writes_stand_in_order_with_programs(backend: Backend) -> None:
    source, target = backend.zeros(1, np.float64), backend.zeros(4, np.float64)
    copies = [backend.program([backend.copy(source, target[i : i + 1])]) for i in range(4)]
    for i, copy in enumerate(copies):
        backend.write(source, i + 1)
        copy.run()
    backend.write(source, -1.0)
    backend.synchronize()
    assert backend.to_host(target).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kernel_takes_the_arguments_it_needs_and_numbers_in_its_dtype(backend: Backend, dtype) -> None:
    def scaled(z):
        return z * 0.1

    z = backend.from_host(np.arange(6).reshape(2, 3).astype(dtype))
    bias = backend.from_host(np.ones(3, dtype))
    target = backend.zeros((2, 3), dtype)
    constants = {"BIAS": True, "DROPOUT": False, "KEEP_Z": True}
    arguments = {"z": z, "a": target, "bias": bias, "mask": None, "kept_scale": 3.5, "of_no_use": object()}
    operation = backend.kernel("forward", dtype, {"activation": scaled}, constants, arguments)
    backend.program([operation]).run()
    expected = (np.arange(6).reshape(2, 3).astype(dtype) + dtype(1)) * dtype(0.1)
    np.testing.assert_array_equal(backend.to_host(target), expected)
