"""A CUDA GPU: CuPy's arrays, cuBLASLt's products, the kernels of `nnkit.kernels.cuda`, captured steps."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.blas import usable_cores
from nnkit.backends.cublaslt import load_cublaslt
from nnkit.backends.cuda_device import CudaDevice, first_line
from nnkit.backends.cuda_probe import find_cuda_device
from nnkit.backends.cuda_program import CudaProgram
from nnkit.backends.cuda_uploads import CudaUploads
from nnkit.backends.protocol import Array, Operation, Program, Uploads
from nnkit.errors import DeviceError, DeviceMemoryError
from nnkit.extras import install_command

__all__ = ["CupyBackend", "Products", "create"]

logger = logging.getLogger("nnkit")

# One core gathers some 5 to 10 GB/s, and a card on PCIe 5 takes about 50.
_MOST_READERS = 12


class Products(Protocol):
    """How a device multiplies matrices, in one of its precisions; None is returned where it cannot."""

    precisions: tuple[str, ...]
    why_not_captured: str
    """Why steps with these products cannot be captured into a graph; empty where they can."""

    def computing(self, precision: str) -> Products:
        """Return the same products in another precision."""

    def describe(self) -> str:
        """Return the library's name and version."""

    def describe_relu(self) -> str:
        """Return whether products include the ReLU that follows them, and why not."""

    def matmul(self, a: Array, b: Array, out: Array) -> Operation | None:
        """Prepare as `nnkit.backends.protocol.Backend.matmul` does."""

    def matmul_relu(
        self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None
    ) -> Operation | None:
        """Prepare as `Backend.matmul_relu` does."""

    def matmul_relu_gradient(
        self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array
    ) -> Operation | None:
        """Prepare as `Backend.matmul_relu_gradient` does."""


class CupyBackend:
    """A CUDA GPU as a device.

    Parameters
    ----------
    device : CudaDevice
        The GPU.
    products : Products
        What multiplies on it.
    threads : int
        The most threads of a kernel's block.
    """

    def __init__(self, device: CudaDevice, products: Products, threads: int = 256) -> None:
        self.name = device.name
        self.precisions = products.precisions
        self._device = device
        self._products = products
        self._threads = threads

    def computing(self, precision: str) -> CupyBackend:
        return CupyBackend(self._device, self._products.computing(precision), self._threads)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        return self._device.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        return self._device.zeros(shape, dtype)

    def from_host(self, array: NDArray) -> Array:
        return self._device.from_host(array)

    def to_host(self, array: Array, rows: Array | None = None) -> NDArray:
        return self._device.to_host(array, rows)

    def write(self, target: Array, values: object) -> None:
        self._device.write(target, values)

    def copy(self, source: Array, target: Array) -> Operation:
        return self._device.copy(source, target)

    def matmul(self, a: Array, b: Array, out: Array) -> Operation:
        return self._products.matmul(a, b, out) or self._device.matmul(a, b, out)

    def matmul_relu(
        self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None
    ) -> Operation | None:
        return self._products.matmul_relu(a, b, bias, out, mask)

    def matmul_relu_gradient(
        self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array
    ) -> Operation | None:
        return self._products.matmul_relu_gradient(a, b, mask, out, bias_gradient)

    def kernel(
        self,
        name: str,
        dtype: DTypeLike,
        formulas: Mapping[str, Callable],
        constants: Mapping[str, bool | int | float],
        arguments: Mapping[str, Any],
    ) -> Operation:
        from nnkit.kernels import cuda

        real: type[Any] = np.dtype(dtype).type
        with self._device.active():
            launches = cuda.launches(name, dtype, formulas, constants, arguments, self._threads)
            kinds = {key: kind for launch in launches for key, kind in launch.scratch.items()}
            shared = {**arguments, **{key: self._device.zeros(*kind) for key, kind in kinds.items()}}
            starts = []
            for launch in launches:
                bound = launch.kernel.bind({**shared, **launch.numbers}, constants)
                values = [self._argument(value, real) for value in bound]
                starts.append(self._device.launcher(launch.kernel.entry, launch.grid, launch.block, values))
        return starts[0] if len(starts) == 1 else partial(_run_all, starts)

    def _argument(self, value: Any, real: type[Any]) -> Any:
        if type(value) is float:
            return real(value)
        return value if isinstance(value, int | np.generic) else self._device.wrap(value)

    def program(self, operations: Sequence[Operation]) -> Program:
        return CudaProgram(self._device, operations, not self._products.why_not_captured)

    def shards(self, batch_size: int, work: float) -> int:
        return 1  # a GPU parts every kernel among its cores by itself

    def side_by_side(self, shards: Sequence[Sequence[Sequence[Operation]]]) -> Program:
        phases = zip(*shards, strict=True)
        return self.program(
            [operation for phase in phases for operations in phase for operation in operations]
        )

    def synchronize(self) -> None:
        self._device.synchronize()

    def uploads(self, slots: int, kind: str) -> Uploads:
        return CudaUploads(self._device, slots, kind == "pinned")

    def readers(self) -> int:
        return max(1, min(_MOST_READERS, usable_cores() - 1))

    def free_memory(self) -> int:
        return self._device.free_and_total()[0]

    def numerics(self) -> dict[str, str]:
        return {
            "device": "cuda",
            **self._device.numerics(),
            "products": self._products.describe(),
            "numba-cuda": version("numba-cuda"),
        }

    def computing_like(self, numerics: Mapping[str, str]) -> AbstractContextManager[None]:
        """Change nothing: what the bits depend on is the card and the libraries, which are as they are."""
        return nullcontext()

    def describe(self) -> dict[str, str]:
        why_not = self._products.why_not_captured or self._device.capture_failure
        return {
            **self._device.describe(),
            "products": self._products.describe(),
            "ReLU in products": self._products.describe_relu(),
            "numba-cuda": version("numba-cuda"),
            "captured steps": f"no ({why_not})" if why_not else "yes",
        }


def _run_all(operations: Sequence[Operation]) -> None:
    for operation in operations:
        operation()


class _PlainProducts:
    """Products by cuBLAS through CuPy, without nvmath-python: one by one, never captured."""

    precisions: tuple[str, ...] = ("fp32", "fp64")

    def __init__(self, why_not_captured: str) -> None:
        self.why_not_captured = why_not_captured

    def computing(self, precision: str) -> _PlainProducts:
        return self

    def describe(self) -> str:
        return "cuBLAS through CuPy"

    def describe_relu(self) -> str:
        return "no"

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """None: the device multiplies."""

    def matmul_relu(self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None) -> None:
        """None: cuBLAS adds no bias and has no ReLU."""

    def matmul_relu_gradient(self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array) -> None:
        """None, as above."""


def create(device: str) -> CupyBackend:
    """Return the backend for ``cuda`` or ``cuda:1``; one GPU's backends share its stream.

    Raises
    ------
    DeviceError
        If CUDA does not work here, or there is no such device.
    """
    return _opened(find_cuda_device(device))


@cache
def _opened(index: int) -> CupyBackend:
    # Once for each GPU: a second stream would have to wait for what the first one is still writing.
    try:
        device = CudaDevice(index)
    except Exception as error:  # of CuPy or Numba, which may be too old
        raise DeviceError(f"device 'cuda:{index}': it cannot be opened ({first_line(error)})") from error
    return CupyBackend(device, _products(device))


def _products(device: CudaDevice) -> Products:
    if importlib.util.find_spec("nvmath") is None:
        return _PlainProducts(f"nvmath-python is not installed: {install_command('nvmath')}")
    try:
        return load_cublaslt(device)
    except DeviceMemoryError as error:
        raise DeviceMemoryError(error.shortage, "free the GPU's memory, or use device 'cpu'") from None
    except Exception as error:  # nvmath's and pathfinder's errors have no base in common
        reason = f"nvmath-python cannot be used: {first_line(error)}"
        logger.warning(f"device {device.name}: steps take longer and are not captured, because {reason}")
        return _PlainProducts(reason)
