"""The devices that the fused kernels are tested on: the CPU, and CUDA's, real or simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from typing import Any

import numpy as np

from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Kernel


class HostDevice:
    """The CPU."""

    def prepare(
        self, name: str, dtype: str, formulas: Mapping, constants: Mapping, arguments: Mapping[str, Any]
    ) -> Callable[[], object]:
        return NumpyBackend().compile([Kernel(name, dtype, formulas, constants, arguments)]).run

    def run(self, name: str, dtype: str, formulas: Mapping, constants: Mapping, arguments: Mapping) -> None:
        """Run a kernel once on NumPy arrays, in place."""
        self.prepare(name, dtype, formulas, constants, arguments)()


class CudaDevice(HostDevice):
    """A GPU, real or simulated: arrays are copied to its memory and back.

    Parameters
    ----------
    threads : int
        The most threads of a block.
    offset : int
        By how many elements each array lies beside an address that suits wide accesses.
    """

    def __init__(self, threads: int = 256, offset: int = 0) -> None:
        self.threads = threads
        self.offset = offset

    def prepare(
        self, name: str, dtype: str, formulas: Mapping, constants: Mapping, arguments: Mapping[str, Any]
    ) -> Callable[[], object]:
        from nnkit.backends.cupy import CupyBackend
        from nnkit.kernels.cuda import launches

        opened = _backend()
        backend = CupyBackend(opened._device, opened.products, self.threads)
        arrays = {key: value for key, value in arguments.items() if isinstance(value, np.ndarray)}
        placed = {key: self._placed(backend, array) for key, array in arrays.items()}
        given = {**arguments, **placed}
        with backend._device.active():
            self.launches = launches(name, dtype, formulas, constants, given, self.threads)
        self.launch = self.launches[0]
        program = backend.compile([Kernel(name, dtype, formulas, constants, given)])
        taken = arrays.keys() & {key for launch in self.launches for key in launch.kernel.parameters}

        def operation() -> None:
            for key, array in arrays.items():
                backend.write(placed[key], array)
            program.run()
            for key in taken:
                arrays[key][...] = backend.to_host(placed[key])

        return operation

    def _placed(self, backend: Any, array: np.ndarray) -> Any:
        """Return room for an array at a multiple of 64 bytes, or `offset` elements beside one.

        Rows that lie apart on the host do so there.
        """
        columns = array.shape[-1]
        pitch = array.strides[0] // array.itemsize if array.ndim == 2 and array.size else columns
        shape = (*array.shape[:-1], max(pitch, columns))
        size = prod(shape) * array.itemsize
        place = backend.zeros(size + 64 + self.offset * array.itemsize, np.uint8)
        start = -place.data.ptr % 64 + self.offset * array.itemsize
        whole = place[start : start + size].view(array.dtype).reshape(shape)
        return whole if shape == array.shape else whole[:, :columns]


@cache
def _backend() -> Any:
    from nnkit.backends import select

    return select("cuda").backend
