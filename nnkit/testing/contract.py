"""What any backend must do, as tests that a backend's author runs against it; see `BackendContract`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nnkit.backends.operations import Array, Copy, Kernel, Operation, Product, Reduce
from nnkit.backends.protocol import Backend
from nnkit.kernels.formulas import relu
from nnkit.testing.cases import KernelCase, kernel_cases

__all__ = ["BackendContract", "compare_with_python"]

DTYPES = (np.float32, np.float64)
# What a float32 loses in a sum of some hundred numbers, and a float64 too.
_TOLERANCES = {"float32": (2e-5, 2e-6), "float64": (1e-11, 1e-12)}


def _half(precision: str) -> np.dtype:
    """Return the type of 16 bits that a precision multiplies."""
    if precision == "fp16":
        return np.dtype(np.float16)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


class BackendContract:
    """Every method of `nnkit.backends.protocol.Backend`, and every kernel of the catalogue.

    Make a subclass whose name begins with ``Test`` in a module of your tests, which has a fixture `backend`
    that returns the backend, and run pytest. Each kernel runs with several combinations of its flags, in
    float32 and float64, on arrays of some hundred numbers, and is compared with what plain Python computes in
    float64 from the same formulas. Enough of the meaningful combinations are taken that any two flags
    have all the values that they can have together.

    Examples
    --------
    >>> import pytest
    >>> from nnkit.testing import BackendContract
    >>> @pytest.fixture
    ... def backend():
    ...     return MyBackend()
    >>> class TestMyBackend(BackendContract):
    ...     pass
    """

    def test_it_is_a_backend_and_says_what_it_is(self, backend: Backend) -> None:
        assert isinstance(backend, Backend)
        assert backend.name
        assert set(backend.precisions) <= {"fp32", "fp64", "tf32", "fp16", "bf16"}
        assert {"fp32", "fp64"} <= set(backend.precisions)
        described = backend.describe()
        assert described
        assert all(isinstance(text, str) for item in described.items() for text in item)

    def test_in_each_of_its_precisions_it_is_the_same_device(self, backend: Backend) -> None:
        for precision in backend.precisions:
            again = backend.with_precision(precision)
            assert isinstance(again, Backend)
            assert again.name == backend.name
            assert again.precisions == backend.precisions

    @pytest.mark.parametrize("dtype", [*DTYPES, np.int32, np.int64, np.uint8])
    @pytest.mark.parametrize("shape", [7, (3, 5), (0, 4), (2, 3, 4)])
    def test_new_arrays_have_their_shape_and_dtype(self, backend: Backend, shape: Any, dtype: Any) -> None:
        empty, zeros = backend.empty(shape, dtype), backend.zeros(shape, dtype)
        for array in (empty, zeros):
            assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
            assert array.dtype == dtype
        assert not backend.to_host(zeros).any()

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8])
    def test_values_come_back_as_they_went(self, backend: Backend, dtype: Any) -> None:
        array = np.arange(30).reshape(5, 6).astype(dtype)
        for source in (array, array.T, array[::2, 1:4], np.asfortranarray(array), array[:0]):
            placed = backend.from_host(source)
            assert placed.flags.c_contiguous
            back = backend.to_host(placed)
            assert isinstance(back, np.ndarray)
            assert back.dtype == dtype
            np.testing.assert_array_equal(back, source)

    def test_read_only_arrays_are_taken_and_serve_kernels(self, backend: Backend) -> None:
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
        backend.compile([Kernel("squared_norm", np.float64, {}, {}, arguments)]).run()
        assert backend.to_host(scalars).max() == 140
        assert not gradients.flags.writeable

    def test_what_comes_to_the_host_is_a_copy(self, backend: Backend) -> None:
        array = backend.zeros(4, np.float32)
        host = backend.to_host(array)
        host[:] = 1
        assert not backend.to_host(array).any()
        backend.write(array, 2.0)
        assert host.tolist() == [1, 1, 1, 1]

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_rows_of_a_view_come_to_the_host_in_the_order_asked_for(
        self, backend: Backend, dtype: Any
    ) -> None:
        values = np.arange(60).astype(dtype)
        flat = backend.from_host(values)
        for picked in ([4, 0, 2, 2], [3], []):
            rows = backend.from_host(np.array(picked, np.int64))
            for shape, view in (((10, 5), flat[5:55].reshape(10, 5)[:, 1:4]), ((50,), flat[5:55])):
                expected = values[5:55].reshape(shape)[picked] if picked else np.empty((0, *shape[1:]))
                found = backend.to_host(view, rows)
                assert found.dtype == dtype
                np.testing.assert_array_equal(found, expected[:, 1:4] if len(shape) > 1 else expected)

    def test_rows_that_come_to_the_host_are_a_copy_made_after_the_work_before(self, backend: Backend) -> None:
        array = backend.zeros((3, 2), np.float64)
        rows = backend.from_host(np.arange(3))
        source = backend.from_host(np.ones((3, 2)))
        program = backend.compile([Copy(source, array)])
        program.run()
        host = backend.to_host(array, rows)
        np.testing.assert_array_equal(host, np.ones((3, 2)))
        host[:] = 7
        np.testing.assert_array_equal(backend.to_host(array), np.ones((3, 2)))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_writes_take_arrays_numbers_and_slices(self, backend: Backend, dtype: Any) -> None:
        array = backend.zeros((2, 3), dtype)
        backend.write(array, np.arange(6.0).reshape(2, 3))
        backend.write(array[1:, :2], -1)
        flat = array.reshape(6)
        backend.write(flat[5:6], 9.5)
        np.testing.assert_array_equal(backend.to_host(array), [[0, 1, 2], [-1, -1, 9.5]])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_views_share_their_arrays_memory(self, backend: Backend, dtype: Any) -> None:
        flat = backend.zeros(12, dtype)
        matrix = flat[2:8].reshape(2, 3)
        backend.write(matrix, np.arange(6.0).reshape(2, 3))
        np.testing.assert_array_equal(backend.to_host(flat), [0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0])
        np.testing.assert_array_equal(backend.to_host(matrix.T), [[0, 3], [1, 4], [2, 5]])

    @pytest.mark.parametrize("dtype", [*DTYPES, np.uint8, np.int64])
    def test_a_copy_is_prepared_and_then_made(self, backend: Backend, dtype: Any) -> None:
        source, target = backend.zeros((3, 4), dtype), backend.zeros((5, 4), dtype)
        copy = backend.compile([Copy(source, target[1:4])])
        backend.write(source, np.arange(12).reshape(3, 4))
        assert not backend.to_host(target).any()
        copy.run()
        np.testing.assert_array_equal(backend.to_host(target)[1:4], np.arange(12).reshape(3, 4))
        assert not backend.to_host(target)[[0, 4]].any()

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("transposed", ["none", "a", "b"])
    @pytest.mark.parametrize(("m", "k", "n"), [(5, 7, 3), (1, 4, 6), (4, 1, 6), (6, 4, 1), (130, 65, 70)])
    def test_products(self, backend: Backend, m: int, k: int, n: int, transposed: str, dtype: Any) -> None:
        random = np.random.default_rng(0)
        a, b = random.normal(size=(m, k)).astype(dtype), random.normal(size=(k, n)).astype(dtype)
        left = backend.from_host(a.T).T if transposed == "a" else backend.from_host(a)
        right = backend.from_host(b.T).T if transposed == "b" else backend.from_host(b)
        arena = backend.zeros(m * n + 40, dtype)
        out = arena[32 : 32 + m * n].reshape(m, n)
        product = backend.compile([Product(left, right, out)])
        product.run()
        product.run()
        tolerance = 1e-5 if dtype == np.float32 else 1e-13
        expected = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_allclose(backend.to_host(out), expected, rtol=tolerance, atol=tolerance * k)
        around = np.delete(backend.to_host(arena), np.arange(32, 32 + m * n))
        assert not around.any()

    def test_products_in_16_bits_sum_in_float32(self, backend: Backend) -> None:
        random = np.random.default_rng(0)
        for precision in {"fp16", "bf16"} & set(backend.precisions):
            half, one = _half(precision), backend.with_precision(precision)
            a, b = (random.normal(size=shape).astype(half) for shape in ((9, 600), (600, 16)))
            exact = a.astype(np.float64) @ b.astype(np.float64)
            unit = {"fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
            for dtype, tolerance in ((np.float32, 0.0), (half, 1.01 * unit)):
                out = one.zeros((9, 16), dtype)
                one.compile([Product(one.from_host(a), one.from_host(b.T).T, out)]).run()
                found = one.to_host(out)
                assert found.dtype == dtype
                # What 600 sums in float32 lose; in 16 bits they would lose hundreds of its units.
                np.testing.assert_allclose(found.astype(np.float64), exact, rtol=tolerance, atol=2e-4)

    def test_a_product_reads_its_operands_when_it_runs(self, backend: Backend) -> None:
        a, b = backend.zeros((6, 4), np.float64), backend.from_host(np.eye(4))
        out = backend.zeros((3, 4), np.float64)
        product = backend.compile([Product(a[:3], b, out)])
        for value in (1.0, 2.0):
            backend.write(a, value)
            product.run()
            assert np.all(backend.to_host(out) == value)

    def test_a_program_runs_in_order_and_as_often_as_told(self, backend: Backend) -> None:
        matrix = np.array([[1.0, 1.0], [1.0, 0.0]])
        x, y = backend.zeros((1, 2), np.float64), backend.zeros((1, 2), np.float64)
        fibonacci = backend.compile([Product(x, backend.from_host(matrix), y), Copy(y, x)])
        backend.write(x, [[1.0, 0.0]])
        fibonacci.run(10)
        assert backend.to_host(x).tolist() == [[89, 55]]
        fibonacci.run()
        assert backend.to_host(x).tolist() == [[144, 89]]
        fibonacci.run(0)
        assert backend.to_host(x).tolist() == [[144, 89]]

    def test_writes_stand_in_order_with_programs(self, backend: Backend) -> None:
        source, target = backend.zeros(1, np.float64), backend.zeros(4, np.float64)
        copies = [backend.compile([Copy(source, target[i : i + 1])]) for i in range(4)]
        for i, copy in enumerate(copies):
            backend.write(source, i + 1)
            copy.run()
        backend.write(source, -1.0)
        backend.synchronize()
        assert backend.to_host(target).tolist() == [1, 2, 3, 4]

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_kernel_takes_the_arguments_it_needs_and_numbers_in_its_dtype(
        self, backend: Backend, dtype: Any
    ) -> None:
        def scaled(z):  # type: ignore[no-untyped-def]
            return z * 0.1

        z = backend.from_host(np.arange(6).reshape(2, 3).astype(dtype))
        bias = backend.from_host(np.ones(3, dtype))
        target = backend.zeros((2, 3), dtype)
        constants = {"BIAS": True, "DROPOUT": False, "KEEP_Z": True}
        arguments = {
            "z": z,
            "a": target,
            "bias": bias,
            "mask": None,
            "kept_scale": 3.5,
            "of_no_use": object(),
        }
        operation = Kernel("forward", dtype, {"activation": scaled}, constants, arguments)
        backend.compile([operation]).run()
        expected = (np.arange(6).reshape(2, 3).astype(dtype) + dtype(1)) * dtype(0.1)
        np.testing.assert_array_equal(backend.to_host(target), expected)

    def test_a_single_workers_reductions_run_in_their_place_without_waiting(self, backend: Backend) -> None:
        x, y, z = (backend.from_host(np.array([[value, 2.0]])) for value in (-1.0, 0.0, 0.0))
        backend.compile([Copy(x, y), Reduce(_rectified(y)), Copy(y, z)]).run()
        assert [backend.to_host(array).tolist() for array in (x, y, z)] == [[[-1, 2]], [[0, 2]], [[0, 2]]]

    def test_workers_reduce_what_all_of_them_have_written(self, backend: Backend) -> None:
        x, y, z = (backend.from_host(np.array([[value, 2.0]])) for value in (-1.0, 5.0, 5.0))
        # Each one's reduction changes what the other one copies.
        workers: list[list[Operation]] = [
            [Copy(x, y), Reduce(_rectified(z))],
            [Copy(x, z), Reduce(_rectified(y))],
        ]
        backend.compile_parallel(workers).run(2)
        assert backend.to_host(y).tolist() == backend.to_host(z).tolist() == [[0, 2]]

    def test_what_the_array_library_computes_runs_in_order_with_programs(self, backend: Backend) -> None:
        source, target = backend.from_host(np.arange(3.0)), backend.zeros(3, np.float64)
        program = backend.compile([Copy(source, target)])
        with backend.active():
            program.run()
            copied = target.copy()
        backend.write(source, 7.0)
        program.run()
        assert backend.to_host(copied).tolist() == [0, 1, 2]

    def test_more_workers_than_one_run_as_often_as_told(self, backend: Backend) -> None:
        totals = [backend.from_host(np.ones((1, 2))) for _ in range(3)]
        others = [backend.zeros((1, 2), np.float64) for _ in range(3)]
        doubled = backend.from_host(2 * np.eye(2))
        workers: list[list[Operation]] = [
            [Product(total, doubled, other), Copy(other, total)]
            for total, other in zip(totals, others, strict=True)
        ]
        program = backend.compile_parallel(workers)
        program.run(3)
        program.run()
        assert [backend.to_host(total).tolist() for total in totals] == [[[16, 16]]] * 3

    @pytest.mark.parametrize("kind", ["pinned", "pageable"])
    def test_uploads_bring_what_each_slot_was_filled_with(self, backend: Backend, kind: str) -> None:
        uploads = backend.uploads(2, kind)
        slots = [uploads.buffer((3, 2), np.float32) for _ in range(2)]
        targets = [backend.zeros((3, 2), np.float32) for _ in range(6)]
        programs = [backend.compile([Copy(slots[k % 2][1], target)]) for k, target in enumerate(targets)]
        for k, program in enumerate(programs):
            slot, (host, device) = k % 2, slots[k % 2]
            assert host.shape == device.shape == (3, 2)
            assert host.dtype == device.dtype == np.float32
            uploads.prepare(slot)
            host[...] = k
            uploads.send(slot, [(host, device)])
            uploads.receive(slot)
            program.run()
            uploads.done(slot)
        uploads.synchronize()
        assert [float(backend.to_host(target).max()) for target in targets] == [0, 1, 2, 3, 4, 5]
        assert [float(backend.to_host(target).min()) for target in targets] == [0, 1, 2, 3, 4, 5]

    def test_what_it_says_of_itself_can_be_used(self, backend: Backend) -> None:
        assert backend.readers() >= 0
        assert backend.shards(1, 1.0) == 1
        assert 1 <= backend.shards(4096, 1e12) <= 4096
        free = backend.free_memory()
        assert free is None if backend.shares_host_memory else free is not None and free > 0

    def test_its_numerics_are_texts_that_it_can_match(self, backend: Backend) -> None:
        numerics = backend.numerics()
        assert numerics
        assert all(isinstance(text, str) for item in numerics.items() for text in item)
        with backend.matching_numerics(numerics):
            assert backend.numerics() == numerics
        assert backend.numerics() == numerics

    @pytest.mark.parametrize("case", kernel_cases(), ids=str)
    def test_a_kernel_computes_what_plain_python_does(self, backend: Backend, case: KernelCase) -> None:
        compare_with_python(backend, case)

    def test_in_the_hosts_memory_kernels_know_the_flags_of_the_host(self, backend: Backend) -> None:
        for case in kernel_cases("shared memory") if backend.shares_host_memory else ():
            compare_with_python(backend, case)


def _rectified(z: Array) -> Kernel:
    return Kernel("forward", np.float64, {"activation": relu}, {}, {"z": z})


def compare_with_python(backend: Backend, case: KernelCase) -> None:
    """Run a case twice, from the same arguments: it is right, and the bits are the same."""
    given = case.arguments()
    arrays = {key: value for key, value in given.items() if isinstance(value, np.ndarray)}
    placed = {key: backend.empty(array.shape, array.dtype) for key, array in arrays.items()}
    program = backend.compile(case.kernels({**given, **placed}))
    first, second = (_run(backend, program, case, arrays, placed) for _ in range(2))
    relative, absolute = _TOLERANCES[case.dtype]
    expected = case.expected()
    assert first.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(first[key], second[key], err_msg=f"{key}, the second time")
        np.testing.assert_allclose(first[key], values, relative, absolute, err_msg=key)


def _run(
    backend: Backend, program: Any, case: KernelCase, arrays: Mapping[str, Any], placed: Mapping[str, Array]
) -> dict[str, Any]:
    for key, array in arrays.items():
        if array.size:
            backend.write(placed[key], array)
    program.run()
    return case.results({key: backend.to_host(array) for key, array in placed.items()})
