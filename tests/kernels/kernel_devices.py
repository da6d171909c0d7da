"""The devices that the fused kernels are tested on: the CPU, Numba's CUDA simulator, a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numba import config, cuda

from nnkit.backends.numpy import NumpyBackend

SIMULATED = bool(config.ENABLE_CUDASIM)
GPU = not SIMULATED and cuda.is_available()


class HostDevice:
    """The CPU."""

    def prepare(
        self, name: str, dtype: str, formulas: Mapping, constants: Mapping, arguments: Mapping[str, Any]
    ) -> Callable[[], object]:
        return NumpyBackend().kernel(name, dtype, formulas, constants, arguments)

    def run(self, name: str, dtype: str, formulas: Mapping, constants: Mapping, arguments: Mapping) -> None:
        """Run a kernel once on NumPy arrays, in place."""
        self.prepare(name, dtype, formulas, constants, arguments)()


class CudaDevice(HostDevice):
    """The simulator, or a GPU: arrays are copied to its memory and back.

    Parameters
    ----------
    threads : int
        The most threads of a block. The simulator makes a Python thread of each.
    offset : int
        By how many elements each array lies beside an address that suits wide accesses.
    """

    def __init__(self, threads: int = 16, offset: int = 0) -> None:
        self.threads = threads
        self.offset = offset

    def prepare(
        self, name: str, dtype: str, formulas: Mapping, constants: Mapping, arguments: Mapping[str, Any]
    ) -> Callable[[], object]:
        from nnkit.kernels.cuda import launch

        real = np.dtype(dtype).type
        values = {key: real(value) if type(value) is float else value for key, value in arguments.items()}
        arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
        placed = {key: self._placed(array) for key, array in arrays.items()}
        self.launch = launch(name, dtype, formulas, constants, {**values, **placed}, self.threads)
        kernel, grid, block = self.launch.kernel, self.launch.grid, self.launch.block
        scratch = {key: self._placed(np.zeros(*kind)) for key, kind in self.launch.scratch.items()}
        inputs = list(map(_launched, kernel.bind({**values, **placed, **scratch}, constants)))

        def operation() -> None:
            for key, array in arrays.items():
                placed[key][...] = _module().asarray(array)
            kernel.entry[grid, block](*inputs)
            for key, array in arrays.items():
                if key in kernel.parameters:
                    array[...] = _to_host(placed[key])
            if "tickets" in scratch:
                assert not _to_host(scratch["tickets"]).any(), "the tickets are not ready for the next launch"

        return operation

    def _placed(self, array: np.ndarray) -> Any:
        """Return a copy whose address is a multiple of 64 bytes, or `offset` elements beside one."""
        place = _module().zeros(array.nbytes + 64 + self.offset * array.itemsize, np.uint8)
        interface = place.__cuda_array_interface__ if GPU else place.__array_interface__
        start = -interface["data"][0] % 64 + self.offset * array.itemsize
        copy = place[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = _module().asarray(array)
        return copy


def _module() -> Any:
    if not GPU:
        return np
    import cupy

    return cupy


def _launched(value: Any) -> Any:
    """Return an argument as a launch takes it: Numba does not know CuPy's bfloat16."""
    if not GPU or getattr(getattr(value, "dtype", None), "name", "") != "bfloat16":
        return value
    from nnkit.backends.cuda_device import _wrap_bfloat16

    return _wrap_bfloat16(value)


def _to_host(array: Any) -> np.ndarray:
    return array.get() if GPU else np.array(array)
