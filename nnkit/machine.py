"""This machine's devices, BLAS and versions, for `nnkit info` and the records of benchmarks."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nnkit.backends import available, select
from nnkit.cache import describe_cache
from nnkit.errors import DeviceError

__all__ = ["describe_machine"]

_PACKAGES = (
    "nnkit-train",
    "numpy",
    "numba",
    "scipy",
    "scikit-learn",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "numba-cuda",
    "nvmath-python",
)


def describe_machine() -> dict[str, str]:
    """Return names and values, in the order in which they are shown."""
    rows = {"system": platform.platform(), "processor": _processor()}
    for name in _device_names():
        try:
            backend = select(name).backend
        except DeviceError as error:
            rows[f"device {name}"] = "not usable: " + str(error).removeprefix(f"device {name!r}: ")
            continue
        rows[f"device {name}"] = f"precisions {', '.join(backend.precisions)}"
        # There may be several GPUs, with rows of the same names.
        of = "" if name == "cpu" else f"{name} "
        rows |= {f"  {of}{key}": value for key, value in backend.describe().items()}
    rows["cache"] = describe_cache()
    rows["python"] = platform.python_version()
    return rows | {package: _version(package) for package in _PACKAGES}


def _device_names() -> list[str]:
    """Return the names of all devices, each GPU by its number."""
    from nnkit.backends.cuda_probe import cuda_device_names

    names = list(available())
    try:
        gpus = cuda_device_names()
    except DeviceError:
        return names  # choosing it says why
    place = names.index("cuda")
    return [*names[:place], *gpus, *names[place + 1 :]]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
