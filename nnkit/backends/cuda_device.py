"""One GPU, through CuPy: its memory, its stream, copies, launches of Numba's kernels, and captured graphs.

Everything goes onto one stream of its own, because CUDA's default stream cannot be captured; the order of
calls is the order of the work. The host program's current device and stream are left as they were.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array
from nnkit.errors import DeviceError, DeviceMemoryError, NnkitError
from nnkit.extras import install_command

__all__ = ["Call", "CopyPlan", "CudaDevice", "Uncapturable", "cuda_version", "first_line", "plan_copy"]

logger = logging.getLogger("nnkit")

Call = Callable[[], object]
"""Enqueues work on the device's stream, and returns before it is done."""

_MOST_IN_FLIGHT = 256
_OUT_OF_MEMORY = 2  # the driver's number; messages have its name, or that of CUDA's runtime
_ERROR_NAMES = ("CUDA_ERROR_", "cudaError")  # how the names of the driver's and the runtime's errors begin
_NAMES_OF_OUT_OF_MEMORY = ("CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation")


@dataclass(frozen=True)
class CopyPlan:
    """A copy of `height` rows of `width` bytes in one call of CUDA; pitches, in bytes, are between rows."""

    width: int
    height: int
    target_pitch: int
    source_pitch: int


def plan_copy(
    shape: Sequence[int], itemsize: int, target_strides: Sequence[int], source_strides: Sequence[int]
) -> CopyPlan | None:
    """Plan a copy between two arrays of one shape and dtype; None if they are not rows of equal length."""
    if 0 in shape:
        return CopyPlan(0, 0, 0, 0)
    width = itemsize
    outer: list[tuple[int, int, int]] = []
    for length, target, source in reversed(list(zip(shape, target_strides, source_strides, strict=True))):
        if length == 1:
            continue
        if not outer and target == source == width:
            width *= length
        else:
            outer.append((length, target, source))
    if not outer:
        return CopyPlan(width, 1, width, width)
    height, target_pitch, source_pitch = outer[0]
    if len(outer) > 1 or min(target_pitch, source_pitch) < width:
        return None
    return CopyPlan(width, height, target_pitch, source_pitch)


@dataclass(frozen=True)
class Uncapturable:
    """A call that CUDA must not capture into a graph, such as a product by CuPy."""

    run: Call

    def __call__(self) -> None:
        self.run()


class CudaDevice:
    """A GPU, opened.

    Parameters
    ----------
    index : int
        Its number among CUDA's devices, from 0.

    Attributes
    ----------
    name : str
        Such as ``cuda:0``.
    compute_capability : tuple of int
        Major and minor.
    capture_failure : str
        The reason why a capture failed and steps are no longer captured; else empty.
    """

    def __init__(self, index: int) -> None:
        import cupy

        self._cupy: Any = cupy
        self._runtime: Any = cupy.cuda.runtime
        self._errors = _library_errors(cupy)
        self._device = cupy.cuda.Device(index)
        self._lock = threading.RLock()
        self._in_flight: list[NDArray] = []
        self.name = f"cuda:{index}"
        self.capture_failure = ""
        self._properties = self._runtime.getDeviceProperties(index)
        self.compute_capability = (int(self._properties["major"]), int(self._properties["minor"]))
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self.stream_pointer = int(self._stream.ptr)

    @contextmanager
    def active(self) -> Iterator[Any]:
        """Make this device and its stream CuPy's current ones; Numba follows the current device.

        One thread at a time: work that another thread enqueues would become part of a graph under capture.

        Raises
        ------
        DeviceError
            In place of an error of CuPy, Numba or CUDA inside the context; where the device's memory was
            exhausted, a `DeviceMemoryError`.
        """
        with self._translated(), self._lock, self._device, self._stream:
            yield self._stream

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this device the calling thread's current one, without its stream; raises as `active` does.

        For work on another stream, which may run while a graph is captured. Each call makes a new context,
        because a CuPy `Device` stores the device to restore; threads that share one overwrite it.
        """
        with self._translated(), self._cupy.cuda.Device(self._device.id):
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise a DeviceError in place of an error of the libraries."""
        try:
            yield
        except NnkitError:
            raise
        except Exception as error:
            if not self._is_of_a_library(error):
                raise
            raise self._failure(error) from error

    def _is_of_a_library(self, error: Exception) -> bool:
        if isinstance(error, RecursionError):
            return False
        # numba-cuda launches and links through cuda-python, whose modules change from release to release.
        return isinstance(error, self._errors) or type(error).__module__.startswith("cuda.")

    def _failure(self, error: Exception) -> DeviceError:
        full = isinstance(error, self._cupy.cuda.memory.OutOfMemoryError)
        if full or getattr(error, "code", None) == _OUT_OF_MEMORY or _names_out_of_memory(error):
            return DeviceMemoryError(f"device {self.name}: its memory is exhausted ({first_line(error)})")
        return DeviceError(f"device {self.name}: CUDA failed ({first_line(error)})")

    def new_stream(self) -> Any:
        """Return a further stream, whose work runs concurrently with the device's own."""
        return self._cupy.cuda.Stream(non_blocking=True)

    def new_event(self) -> Any:
        """Return an event; a host thread that waits for it sleeps."""
        return self._cupy.cuda.Event(block=True, disable_timing=True)

    def copy_from_host(self, target: Array, host: NDArray, stream: Any) -> None:
        """Copy a contiguous array on a stream; it must not change until the copy is complete."""
        kind = self._runtime.memcpyHostToDevice
        self._runtime.memcpyAsync(target.data.ptr, host.ctypes.data, host.nbytes, kind, stream.ptr)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an uninitialised array."""
        return self._allocated(self._cupy.empty, shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""
        return self._allocated(self._cupy.zeros, shape, dtype)

    def _allocated(self, create: Callable, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        with self.active():
            try:
                return create(shape, dtype)
            except self._cupy.cuda.memory.OutOfMemoryError:
                lengths = shape if isinstance(shape, tuple) else (shape,)
                raise self._out_of_memory(prod(lengths) * np.dtype(dtype).itemsize) from None

    def _out_of_memory(self, wanted: int) -> DeviceMemoryError:
        free, total = self.free_and_total()
        return DeviceMemoryError(
            f"device {self.name}: an array of {_size(wanted)} does not fit, {_size(free)} of {_size(total)} "
            "are free"
        )

    def free_and_total(self) -> tuple[int, int]:
        """Return the free bytes, including what CuPy's pool holds unused, and the total."""
        with self.active():
            free, total = self._runtime.memGetInfo()
            return free + self._cupy.get_default_memory_pool().free_bytes(), total

    def from_host(self, array: NDArray) -> Array:
        """Return a C-contiguous copy on the device; it is complete when this returns."""
        host = np.ascontiguousarray(array)
        placed = self.empty(host.shape, host.dtype)
        self._send(placed, host)
        self.synchronize()
        return placed

    def to_host(self, array: Array, rows: Array | None = None) -> NDArray:
        """Return a copy in host memory, of these rows alone where they are given, once all work is done."""
        with self.active():
            host = self._fetched(array if rows is None else array[rows])
            self.synchronize()
        return host

    def _fetched(self, array: Array) -> NDArray:
        host = np.empty(array.shape, array.dtype)
        plan = plan_copy(host.shape, host.itemsize, host.strides, array.strides)
        if plan is not None:
            self._transfer(plan, host.ctypes.data, array.data.ptr, self._runtime.memcpyDeviceToHost)
            return host
        if array.T.flags.c_contiguous:
            return self._fetched(array.T).T
        return self._fetched(self._cupy.ascontiguousarray(array))

    def write(self, target: Array, values: object) -> None:
        """Copy host values into a device array, in order with the work around it."""
        host = np.empty(target.shape, target.dtype)
        host[...] = values
        self._send(target, host)

    def _send(self, target: Array, host: NDArray) -> None:
        with self.active():
            plan = plan_copy(host.shape, host.itemsize, target.strides, host.strides)
            if plan is None:
                staged = self.from_host(host)
                target[...] = staged
                return
            # The copy may read its source after the call has returned, so it lives until the next wait.
            if len(self._in_flight) >= _MOST_IN_FLIGHT:
                self.synchronize()
            self._in_flight.append(host)
            self._transfer(plan, target.data.ptr, host.ctypes.data, self._runtime.memcpyHostToDevice)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
        """Return page-locked host memory, from which copies run concurrently with other work."""
        count, kind = prod(shape), np.dtype(dtype)
        with self.active():
            try:
                memory = self._cupy.cuda.alloc_pinned_memory(max(1, count * kind.itemsize))
            except (MemoryError, self._runtime.CUDARuntimeError) as error:
                raise DeviceMemoryError(
                    f"device {self.name}: {_size(count * kind.itemsize)} of the host's memory cannot be "
                    f"pinned ({' '.join(str(error).split())[:100]})",
                    "lower `batch_size`",
                ) from None
        return np.frombuffer(memory, kind, count).reshape(shape)

    def copy(self, source: Array, target: Array) -> Call:
        """Prepare a copy between two device arrays of one shape and dtype."""
        plan = plan_copy(target.shape, target.dtype.itemsize, target.strides, source.strides)

        def run() -> None:
            if plan is None:
                target[...] = source
            else:
                self._transfer(plan, target.data.ptr, source.data.ptr, self._runtime.memcpyDeviceToDevice)

        return run

    def _transfer(self, plan: CopyPlan, target: int, source: int, kind: int) -> None:
        if plan.height == 0:
            return
        if plan.height == 1:
            self._runtime.memcpyAsync(target, source, plan.width, kind, self.stream_pointer)
        else:
            self._runtime.memcpy2DAsync(
                target, plan.target_pitch, source, plan.source_pitch, plan.width, plan.height,
                kind, self.stream_pointer,
            )  # fmt: skip

    def matmul(self, a: Array, b: Array, out: Array) -> Call:
        """Prepare a product by cuBLAS as CuPy calls it, which takes every shape and cannot be captured.

        CuPy raises where a call of cuBLAS would be captured. A product of nothing is zero: CuPy fills it by
        one asynchronous memset or one kernel, both of which can be captured.
        """
        if 0 in (*a.shape, *b.shape):
            return partial(out.fill, 0)
        return Uncapturable(partial(self._cupy.matmul, a, b, out=out))

    def has_bfloat16(self) -> bool:
        """Whether CuPy and Numba know bfloat16: CuPy from version 14 on, both through ml_dtypes."""
        if importlib.util.find_spec("ml_dtypes") is None:
            return False
        import ml_dtypes

        try:
            made = self.zeros(1, ml_dtypes.bfloat16)
            return bool(made.dtype == ml_dtypes.bfloat16) and self.wrap(made) is not None
        except Exception as error:  # each release refuses in its own words
            logger.debug("no bfloat16: %s", error)
            return False

    def wrap(self, array: Array) -> Any:
        """Return the array as Numba's kernels take it."""
        from numba import cuda

        with self.active():
            if array.dtype.name == "bfloat16":
                wrapped = _wrap_bfloat16(array)
            else:
                wrapped = cuda.as_cuda_array(array, sync=False)
            if array.size == 0:
                # Numba gives an empty array a null pointer, which its launch refuses.
                wrapped.gpu_data = cuda.as_cuda_array(self.zeros(1, array.dtype), sync=False).gpu_data
        return wrapped

    def launcher(
        self, entry: Any, grid: tuple[int, int], block: tuple[int, int], values: Sequence[Any]
    ) -> Call:
        """Compile a kernel for these arguments, or load it, and return the call that launches it.

        Raises
        ------
        DeviceError
            If a library of the compiler is missing or fails, or the driver does not load what it made.
        """
        from numba import cuda
        from numba.core.errors import NumbaError
        from numba.cuda.cudadrv.error import CudaDriverError

        with self.active(), warnings.catch_warnings():
            # A small network makes small grids, and there is nothing that a user could do about it.
            warnings.filterwarnings("ignore", message="(?s).*GPU under-utilization")
            try:
                entry.compile(tuple(entry.typeof_pyval(value) for value in values))
            except (NumbaError, NnkitError, MemoryError, RecursionError, CudaDriverError):
                raise  # such as for a formula that does not compile; `active` translates the driver's errors
            except Exception as error:  # the compiler's and the linker's have no base class in common
                if any(prefix in str(error) for prefix in _ERROR_NAMES):  # CUDA's own, through cuda-python
                    raise
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                raise DeviceError(
                    f"device {self.name}: kernels cannot be compiled ({reason}); {self._compiler_advice()}"
                ) from error
            configured = entry[grid, block, cuda.external_stream(self.stream_pointer)]
        return partial(configured, *values)

    def _compiler_advice(self) -> str:
        major, minor = self.compute_capability
        if major != 11:
            return install_command("numba_cuda")
        # CUDA 12 knows Jetson Thor, if at all, by its former number, 10.1.
        command = install_command("numba_cuda", "cuda13")
        return f"compute capability {major}.{minor} needs CUDA 13: pip uninstall cupy-cuda12x, then {command}"

    def capture(self, calls: Sequence[Call]) -> Call:
        """Capture the calls, whose work is not done now, and return the call that does all of it.

        In CUDA's relaxed mode, for others may allocate meanwhile: Python's garbage collector, another thread.
        """
        with self.active():
            self._stream.begin_capture(self._runtime.streamCaptureModeRelaxed)
            try:
                for call in calls:
                    call()
            except BaseException:
                with contextlib.suppress(Exception):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        return partial(graph.launch, self._stream)

    def synchronize(self) -> None:
        """Wait until all work is done."""
        with self.active():
            self._stream.synchronize()
            self._in_flight.clear()

    def numerics(self) -> dict[str, str]:
        """Return the properties of the card and its driver that the bits of a result depend on."""
        major, minor = self.compute_capability
        return {
            "GPU": self._properties["name"].decode(),
            "compute capability": f"{major}.{minor}",
            "multiprocessors": str(self._properties["multiProcessorCount"]),
            "driver": f"for CUDA {cuda_version(self._runtime.driverGetVersion())}",
        }

    def describe(self) -> dict[str, str]:
        """Return the GPU's name, memory and versions, as `nnkit info` shows them."""
        free, total = self.free_and_total()
        major, minor = self.compute_capability
        return {
            "name": self._properties["name"].decode(),
            "memory": f"{_size(total)}, {_size(free)} free",
            "compute capability": f"{major}.{minor}",
            "driver": f"for CUDA {cuda_version(self._runtime.driverGetVersion())}",
            "CUDA runtime": cuda_version(self._runtime.runtimeGetVersion()),
            "CuPy": self._cupy.__version__,
        }


def _wrap_bfloat16(array: Array) -> Any:
    """Return a bfloat16 array as Numba's: the CUDA array interface has no code for the type."""
    from numba import cuda
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    bits = cuda.as_cuda_array(array.view(np.uint16), sync=False)
    wrapped = DeviceNDArray(bits.shape, bits.strides, array.dtype, bits.stream, bits.gpu_data)
    wrapped._numba_type_  # noqa: B018 (raises where Numba lacks bfloat16)
    return wrapped


def _library_errors(cupy: Any) -> tuple[type[Exception], ...]:
    """Return the errors of CuPy and Numba where CUDA fails or one of its libraries does not load."""
    from numba.cuda.cudadrv.error import CudaDriverError, CudaSupportError, NvvmError

    # Both raise RuntimeError itself too, such as where a library does not load.
    of_cupy = (RuntimeError, cupy.cuda.memory.OutOfMemoryError, cupy.cuda.compiler.CompileException)
    return (*of_cupy, CudaDriverError, CudaSupportError, NvvmError)


def _names_out_of_memory(error: Exception) -> bool:
    return any(name in str(error) for name in _NAMES_OF_OUT_OF_MEMORY)


def first_line(error: object) -> str:
    """Return the first line of a library's message, without lines of ``=``."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and set(line) != {"="}), type(error).__name__)


def cuda_version(number: int) -> str:
    """Return CUDA's version number in words: 12090 is 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _size(count: float) -> str:
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
