"""Find CUDA's libraries, driver and devices, or say in one line what is missing."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from nnkit.backends.cuda_device import cuda_version, first_line
from nnkit.errors import DeviceError
from nnkit.extras import install_command

__all__ = ["cuda_device_names", "find_cuda_device", "has_nvidia_card"]

# The driver's files for a card; the last is that of Windows, seen from its Linux.
_CARD_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")
_INSUFFICIENT_DRIVER = 35  # cudaErrorInsufficientDriver
_NO_DEVICE = 100  # cudaErrorNoDevice


def find_cuda_device(device: str) -> int:
    """Return the index of the device that the user named; ``cuda`` is the first.

    Parameters
    ----------
    device : str
        ``cuda``, ``cuda:0``, ``cuda:1``, ...

    Raises
    ------
    DeviceError
        If it is malformed or not there, or CUDA does not work on this machine.
    """
    _, colon, number = device.partition(":")
    if colon and not (number.isascii() and number.isdigit()):
        raise DeviceError(f"device {device!r}: write 'cuda', or 'cuda:1' with the number of a device")
    index = int(number or 0)
    try:
        count = _count_devices()
    except DeviceError as error:
        raise DeviceError(f"device {device!r}: {error}") from error
    if index >= count:
        there = "the only one is 'cuda:0'" if count == 1 else f"they are 'cuda:0' to 'cuda:{count - 1}'"
        raise DeviceError(f"device {device!r}: there is no such GPU; {there}")
    return index


def cuda_device_names() -> list[str]:
    """Return the names of all devices; raises `DeviceError` where CUDA does not work."""
    return [f"cuda:{index}" for index in range(_count_devices())]


def has_nvidia_card() -> bool:
    """Whether there is an NVIDIA card, or its driver, on this machine; asked without CUDA."""
    return any(Path(path).exists() for path in _CARD_FILES) or _driver_is_there()


def _count_devices() -> int:
    for module, package in (("cupy", "CuPy"), ("numba_cuda", "numba-cuda")):
        # Without numba-cuda, `numba.cuda` is the target inside Numba, which lacks what the kernels use.
        if not _is_installed(module):
            raise DeviceError(f"{package} is not installed; {install_command('cupy')}")
    if not _driver_is_there():
        raise DeviceError("there is no NVIDIA driver on this machine; install one, or use device 'cpu'")
    cupy = _imported("cupy")
    count = _asked(cupy.cuda.runtime)
    numba_cuda = _imported("numba.cuda")
    if not numba_cuda.is_available():
        reason = first_line(numba_cuda.cuda_error() or "it finds no libNVVM")
        raise DeviceError(f"numba-cuda cannot use this GPU ({reason}); {install_command('cupy')}")
    return count


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _driver_is_there() -> bool:
    """Whether the driver's library loads; CuPy would find out no more, half a second later."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # an extension built for another NumPy raises a ValueError, for one
        cause = error.__cause__ or error  # CuPy wraps the loader's message into a page of advice
        raise DeviceError(
            f"{module} cannot be loaded ({first_line(cause)}); {install_command('cupy')}"
        ) from error


def _asked(runtime: Any) -> int:
    """Return CUDA's own count of the devices."""
    try:
        count = int(runtime.getDeviceCount())
    except RuntimeError as error:
        status = getattr(error, "status", None)
        if status == _INSUFFICIENT_DRIVER:
            raise DeviceError(_driver_too_old(runtime)) from error
        if status != _NO_DEVICE:
            raise DeviceError(f"CUDA does not work here ({first_line(error)})") from error
        count = 0
    if count == 0:
        raise DeviceError("there is no GPU that CUDA may use (see nvidia-smi and CUDA_VISIBLE_DEVICES)")
    return count


def _driver_too_old(runtime: Any) -> str:
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return "there is no NVIDIA driver on this machine; install one, or use device 'cpu'"
    return (
        f"the driver is for CUDA {cuda_version(driver)} and CuPy for CUDA {cuda_version(needed)}; "
        "update the driver, or install the CuPy that fits it"
    )
