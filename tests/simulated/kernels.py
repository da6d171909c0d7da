"""What Numba's simulator lacks: foreign arrays and streams, compiling ahead, configurations that stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simulated.blocks import take_turns
from simulated.cupy import current_stream


def patch_simulator() -> None:
    """Give the simulated `numba.cuda` what the backend calls."""
    from numba import cuda
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    from nnkit.backends import cuda_device

    def as_cuda_array(array: Any, sync: bool = True) -> FakeCUDAArray:
        assert not sync, "waits for the stream"
        assert array.__cuda_array_interface__["stream"]
        wrapped = FakeCUDAArray(array.view(np.ndarray))
        wrapped.gpu_data = array.ctypes.data if array.size else None
        return wrapped

    plain = FakeCUDAKernel.__getitem__

    def configured(kernel: FakeCUDAKernel, configuration: tuple) -> Callable[..., None]:
        grid, block, stream = configuration
        assert all(type(length) is int and length > 0 for length in (*grid, *block))

        def launch(*arguments: Any) -> None:
            addresses = [item.gpu_data for item in arguments if isinstance(item, FakeCUDAArray)]
            assert all(addresses), "a launch takes no null pointer"
            # A launch is what the simulator keeps in the kernel itself, where the next one replaces it.
            stream.submit(lambda: plain(kernel, (grid, block))(*arguments))

        return launch

    cuda.as_cuda_array = as_cuda_array
    # The simulator's arrays are NumPy's, which know the type.
    cuda_device._wrap_bfloat16 = lambda array: as_cuda_array(array, sync=False)
    take_turns()
    cuda.external_stream = _external_stream
    FakeCUDAKernel.typeof_pyval = lambda kernel, value: _type_of(value)
    FakeCUDAKernel.compile = lambda kernel, types: None
    FakeCUDAKernel.__getitem__ = configured


def _external_stream(pointer: int) -> Any:
    stream = current_stream()
    assert stream is not None
    assert stream.ptr == pointer
    return stream


def _type_of(value: Any) -> Any:
    """Return the type of what a launch may be given: arrays, and numbers of a fixed width."""
    if hasattr(value, "_numba_type_"):
        return value._numba_type_
    assert type(value) in (int, np.float32, np.float64), value
    return type(value)
