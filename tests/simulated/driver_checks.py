"""The simulation itself: what it counts, what it refuses, and that it finds what it is there to find.

Run by test_simulated.py, in a process that has it.
"""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest
from numba import cuda, float32

from nnkit.backends import select
from nnkit.backends.operations import Kernel
from simulated.driver import driver

pytestmark = pytest.mark.gpu


def run(kernel, blocks: int, threads: int, *arrays: np.ndarray) -> list[str]:
    """Launch a kernel on copies of the arrays, write them back, and return what went wrong."""
    backend = select("cuda").backend
    placed = [backend.from_host(array) for array in arrays]
    device = backend._device
    values = [device.wrap(array) for array in placed]
    with backend.active():
        device.launcher(kernel, (blocks, 1), (threads, 1), values)()
    for array, result in zip(arrays, placed, strict=True):
        array[...] = backend.to_host(result)
    found = list(driver().errors)
    driver().errors.clear()
    return found


def test_a_launch_is_one_call_of_the_driver() -> None:
    backend = select("cuda").backend
    scalars, segments = backend.zeros(8, np.float64), backend.from_host(np.array([[0, 8, 1]]))
    arguments = {"gradients": backend.from_host(np.ones(8)), "segments": segments, "scalars": scalars}
    [launch] = backend.compile([Kernel("squared_norm", np.float64, {}, {}, arguments)])._calls
    with backend.active():
        launch()
        calls = driver().calls(launch)
    # Beside which context is current, Numba asks for nothing: so launches can be captured.
    assert [call for call in calls if not call.startswith("cuCtxGet")] == ["cuLaunchKernelEx"]


def test_a_device_array_is_used_on_its_stream_alone() -> None:
    backend = select("cuda").backend
    array, rows = backend.from_host(np.arange(6.0).reshape(3, 2)), backend.from_host(np.array([2, 0]))
    assert array[1:].shape == (2, 2)  # a view
    for use in (lambda: array[rows], array.copy, lambda: array.__setitem__(0, 1.0)):
        with pytest.raises(AssertionError, match="outside the device's own stream"):
            use()
        with backend._device.active():
            use()


@cuda.jit
def _reversed_by_a_block(x):
    shared = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    shared[i] = x[64 * cuda.blockIdx.x + i]
    cuda.syncthreads()
    x[64 * cuda.blockIdx.x + i] = shared[63 - i]


@cuda.jit
def _reversed_without_a_barrier(x):
    shared = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    shared[i] = x[64 * cuda.blockIdx.x + i]
    x[64 * cuda.blockIdx.x + i] = shared[63 - i]


@cuda.jit
def _half_at_a_barrier(x):
    if cuda.threadIdx.x < 32:
        cuda.syncthreads()
    x[cuda.threadIdx.x] = 1


@cuda.jit
def _at_two_barriers(x):
    if cuda.threadIdx.x < 32:
        x[cuda.threadIdx.x] += 1
        cuda.syncthreads()
        x[cuda.threadIdx.x] *= 3
    else:
        x[cuda.threadIdx.x] *= 4
        cuda.syncthreads()
        x[cuda.threadIdx.x] += 2


@cuda.jit
def _beside_its_array(x):
    x[x.shape[0]] = x[0]


def test_a_write_beside_an_array_is_an_error() -> None:
    [error] = run(_beside_its_array, 1, 1, np.zeros(8, np.float32))
    assert error.endswith("it writes beside an array of 32 bytes")


def test_a_launch_that_a_card_refuses_is_an_error() -> None:
    [error] = run(_beside_its_array, 1, 1025, np.zeros(8, np.float32))
    assert "AssertionError" in error


def test_blocks_have_real_barriers() -> None:
    numbers = np.arange(640, dtype=np.float32).reshape(10, 64)
    x = numbers.ravel().copy()
    assert run(_reversed_by_a_block, 10, 64, x) == []
    np.testing.assert_array_equal(x.reshape(10, 64), numbers[:, ::-1])


def test_a_missing_barrier_shows() -> None:
    x = np.arange(640, dtype=np.float32)
    run(_reversed_without_a_barrier, 10, 64, x)
    # What no thread has written is NaN.
    assert np.isnan(x.reshape(10, 64)).any(axis=1).all()


@pytest.mark.parametrize("kernel", [_half_at_a_barrier, _at_two_barriers])
def test_threads_that_come_to_different_barriers_are_an_error(kernel) -> None:
    [error] = run(kernel, 1, 64, np.zeros(64, np.float32))
    assert error.endswith("not all threads of a block come to the same barrier")


def test_16_bits_are_converted_as_numpy_converts_them() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    random = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32).view(np.float32)
    for name, dtype in (("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        library = driver()._library
        widen, narrow = getattr(library, f"cu_f32_of_{name}"), getattr(library, f"cu_{name}_of_f32")
        widen.restype, widen.argtypes = ctypes.c_float, [ctypes.c_uint16]
        narrow.restype, narrow.argtypes = ctypes.c_uint16, [ctypes.c_float]
        wide = bits.view(dtype).astype(np.float32)
        np.testing.assert_array_equal([widen(int(one)) for one in bits], wide)
        for values in (wide, random):
            with np.errstate(over="ignore", invalid="ignore"):
                expected = values.astype(dtype)
            found = np.array([narrow(float(one)) for one in values], np.uint16).view(dtype)
            np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))
