"""A CUDA device without one: Numba's simulator runs the kernels, and CuPy and cuBLASLt are stood in for.

As a pytest plugin in a process with NUMBA_ENABLE_CUDASIM=1 (``pytest -p simulated``, this folder's parent on
the path), it lets ``nnkit.backends.cupy`` run as it is, down to each call of a library.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

# A thread of the simulated GPU is one of Python's.
_THREADS = 16


def pytest_configure(config: pytest.Config) -> None:
    """Put the stand-ins where the backend looks for the libraries."""
    assert os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    # A draw's arithmetic is modulo 2³², as it should be.
    config.addinivalue_line("filterwarnings", "ignore:overflow encountered in scalar:RuntimeWarning")
    from nnkit import backends
    from nnkit.backends import cuda_probe
    from simulated import cublaslt, cupy, kernels

    _install(cupy.module())
    for module in cublaslt.modules():
        _install(module)
    kernels.patch_simulator()
    cuda_probe._driver_is_there = lambda: True
    backends._OWN["cuda"] = "simulated:create"


def _install(module: ModuleType) -> None:
    from importlib.machinery import ModuleSpec

    module.__spec__ = ModuleSpec(module.__name__, None)
    sys.modules[module.__name__] = module


def create(device: str):
    """Return the backend, its blocks small."""
    from nnkit.backends import cupy

    backend = cupy.create(device)
    backend._threads = _THREADS
    return backend
