"""A CUDA GPU: CuPy's arrays, cuBLASLt's products, the kernels of `nnkit.kernels.cuda`, captured steps."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import version
from typing import Any

from numpy.typing import DTypeLike, NDArray

from nnkit.backends.blas import usable_cores
from nnkit.backends.cublaslt import load_cublaslt
from nnkit.backends.cuda_device import CudaDevice, first_line
from nnkit.backends.cuda_lowering import Products, lower
from nnkit.backends.cuda_probe import find_cuda_device
from nnkit.backends.cuda_program import CudaProgram
from nnkit.backends.cuda_uploads import CudaUploads
from nnkit.backends.operations import Array, Operation, split_at_reductions
from nnkit.backends.protocol import Uploads
from nnkit.errors import DeviceError, DeviceMemoryError
from nnkit.extras import install_command

__all__ = ["CupyBackend", "create"]

logger = logging.getLogger("nnkit")

# One core gathers some 5 to 10 GB/s, and a card on PCIe 5 takes about 50.
_MOST_READERS = 12


class CupyBackend:
    """A CUDA GPU as a device.

    Parameters
    ----------
    device : CudaDevice
        The GPU.
    products : Products
        Its matrix products.
    threads : int
        The maximum number of threads in a block.
    captures : bool
        Whether programs are captured into graphs, where they can be.
    """

    shares_host_memory = False

    def __init__(
        self, device: CudaDevice, products: Products, threads: int = 256, captures: bool = True
    ) -> None:
        self.name = device.name
        self.precisions = products.precisions
        self.products = products
        self._device = device
        self._threads = threads
        self._captures = captures

    def with_precision(self, precision: str) -> CupyBackend:
        products = self.products.with_precision(precision)
        return CupyBackend(self._device, products, self._threads, self._captures)

    def uncaptured(self) -> CupyBackend:
        """Return the same device, whose programs enqueue their operations one by one at every run."""
        return CupyBackend(self._device, self.products, self._threads, captures=False)

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

    def compile(self, operations: Sequence[Operation]) -> CudaProgram:
        calls = lower(operations, self._device, self.products, self._threads)
        return CudaProgram(self._device, calls, not self._why_not_captured)

    def active(self) -> AbstractContextManager[Any]:
        return self._device.active()

    def shards(self, batch_size: int, work: float) -> int:
        return 1  # a GPU divides every kernel among its multiprocessors

    def compile_parallel(self, workers: Sequence[Sequence[Operation]]) -> CudaProgram:
        stretches = zip(*map(split_at_reductions, workers), strict=True)
        return self.compile([record for stretch in stretches for records in stretch for record in records])

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
            "products": self.products.describe(),
            "numba-cuda": version("numba-cuda"),
        }

    def matching_numerics(self, numerics: Mapping[str, str]) -> AbstractContextManager[None]:
        """Change nothing: the card and its libraries cannot be chosen."""
        return nullcontext()

    @property
    def _why_not_captured(self) -> str:
        return self.products.why_not_captured if self._captures else "asked not to"

    def describe(self) -> dict[str, str]:
        why_not = self._why_not_captured or self._device.capture_failure
        return {
            **self._device.describe(),
            "products": self.products.describe(),
            "ReLU in products": self.products.describe_relu(),
            "numba-cuda": version("numba-cuda"),
            "captured steps": f"no ({why_not})" if why_not else "yes",
        }


class _PlainProducts:
    """Products by cuBLAS through CuPy, without nvmath-python: one by one, never captured."""

    precisions: tuple[str, ...] = ("fp32", "fp64")

    def __init__(self, why_not_captured: str) -> None:
        self.why_not_captured = why_not_captured

    def with_precision(self, precision: str) -> _PlainProducts:
        return self

    def describe(self) -> str:
        return "cuBLAS through CuPy"

    def describe_relu(self) -> str:
        return "no"

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """None: CuPy multiplies."""

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
