"""The stand-in for CUDA's driver: built from `driver.c` and `threads.c`, and loaded in the driver's place.

numba-cuda compiles, links and loads kernels as for a card. A launch runs the kernel's LLVM IR on the CPU, on
the stream that it names.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llvmlite.binding as llvm

from simulated import ORDERS
from simulated.runs import compiler
from simulated.translation import Executable, executable

__all__ = ["Driver", "driver"]


class _Configuration(ctypes.Structure):
    """How a kernel is launched, as far as we look at it."""

    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
                ("stream", ctypes.c_void_p)]  # fmt: skip


class _Shared(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("size", ctypes.c_size_t)]


_CALLBACK = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.POINTER(_Configuration), ctypes.POINTER(ctypes.c_void_p)
)


class Driver:
    """The stand-in, in this process.

    Parameters
    ----------
    version : int
        Of CUDA, that the driver is for, such as 13000.
    capability : int
        Of the device, such as 90.
    order : {"forward", "backward", "random"}
        Of threads and blocks.

    Attributes
    ----------
    launches : Counter
        By the kernels' names.
    errors : list of str
        What went wrong in launches, whose errors a caller in C does not see.
    """

    def __init__(self, version: int, capability: int, order: str) -> None:
        self.capability = capability
        self.version = version
        self.launches: Counter[str] = Counter()
        self.errors: list[str] = []
        self._order = ORDERS.index(order)
        self._ir: dict[str, Callable[[], str]] = {}
        self._executables: dict[str, Executable] = {}
        self._library = _loaded()
        self._callback = _CALLBACK(self._launched)
        self._library.simulated_configure(version, capability, self._callback)
        self._keep_ir()

    def _keep_ir(self) -> None:
        from numba.cuda.codegen import CUDACodeLibrary

        load = CUDACodeLibrary.get_cufunc

        def loaded(library: Any) -> Any:
            self._ir[library._entry_name] = library.get_llvm_str
            return load(library)

        CUDACodeLibrary.get_cufunc = loaded

    def calls(self, operation: Callable[[], object]) -> list[str]:
        """Return which of the driver's functions an operation calls."""
        self._library.simulated_forget()
        operation()
        return self._library.simulated_calls().decode().split()

    def make_current(self, device: int) -> None:
        """Make a device's context the calling thread's."""
        context = ctypes.c_void_p()
        self._library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        self._library.cuCtxSetCurrent(context)

    def count(self, what: str) -> int:
        """Return how many ``blocks``, ``barriers`` or ``divergent`` barriers there were."""
        return ctypes.c_long.in_dll(self._library, f"simulated_{what}").value

    def _launched(self, name: bytes, configuration: Any, addresses: Any) -> None:
        try:
            self._submit(name.decode(), configuration[0], addresses)
        except BaseException as error:  # it cannot pass through C
            self.errors.append(f"{name.decode()}: {type(error).__name__}: {error}")

    def _submit(self, name: str, configuration: _Configuration, addresses: Any) -> None:
        from simulated.cupy import stream_of

        if name not in self._executables:
            self._executables[name] = executable(self._ir[name](), name)
        kernel = self._executables[name]
        grid, block = ((ctypes.c_uint * 3)(*shape) for shape in (configuration.grid, configuration.block))
        # What a card refuses.
        assert all(length > 0 for length in (*grid, *block))
        assert grid[1] <= 65535
        assert block[0] * block[1] <= 1024
        assert grid[2] == block[2] == 1
        assert configuration.shared + sum(size for _, size in kernel.shared) <= 48 * 1024
        # The caller's arguments are its own again when the launch has returned.
        values = (ctypes.c_uint64 * kernel.arguments)()
        for i in range(kernel.arguments):
            ctypes.memmove(ctypes.byref(values, 8 * i), addresses[i], 8)
        self.launches[name] += 1
        stream_of(configuration.stream).submit(lambda: self._run(name, kernel, grid, block, values))

    def _run(self, name: str, kernel: Executable, grid: Any, block: Any, values: Any) -> None:
        first = ctypes.addressof(values)
        pointers = (ctypes.c_void_p * len(values))(*(first + 8 * i for i in range(len(values))))
        shared = (_Shared * len(kernel.shared))(*kernel.shared)
        from simulated.cupy import overrun

        before = self.count("divergent")
        entry = ctypes.c_void_p(kernel.address)
        self._library.simulated_run(entry, pointers, grid, block, shared, len(shared), self._order)
        if self.count("divergent") != before:
            self.errors.append(f"{name}: not all threads of a block come to the same barrier")
        self.errors += [f"{name}: {wrong}" for wrong in overrun()]


@cache
def driver() -> Driver:
    """Return the driver of this process, as the environment wants it."""
    wanted = os.environ.get
    version, capability = wanted("SIMULATED_DRIVER", "13000"), wanted("SIMULATED_CAPABILITY", "90")
    return Driver(int(version), int(capability), wanted("SIMULATED_ORDER", "forward"))


def _loaded() -> ctypes.CDLL:
    """Compile and load the library: later loads of its name find it, so that none looks for a real driver."""
    here = Path(__file__).parent
    sources = [str(here / name) for name in ("driver.c", "threads.c")]
    options = ["-O2", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    with TemporaryDirectory() as folder:
        path = f"{folder}/libcuda.so.1"
        command = [compiler() or "cc", *options, "-o", path, *sources, "-lm", "-ldl"]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        llvm.load_library_permanently(path)  # for what kernels call
    library.simulated_calls.restype = ctypes.c_char_p
    return library
