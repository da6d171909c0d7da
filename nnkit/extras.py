"""The optional packages: which modules they bring, and how to install those that are missing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nnkit.errors import ConfigError

__all__ = ["EXTRAS", "extra_module", "install_command"]

# For each extra in pyproject.toml that a user may lack: its modules, and the package that brings each.
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "cuda12": {
        "cupy": "cupy-cuda12x",
        "numba_cuda": "numba-cuda[cu12]",
        "nvmath": "nvmath-python",
        "nvidia.cublas": "nvidia-cublas-cu12",
        "ml_dtypes": "ml_dtypes",
    },
    "cuda13": {
        "cupy": "cupy-cuda13x",
        "numba_cuda": "numba-cuda[cu13]",
        "nvmath": "nvmath-python",
        "nvidia.cublas": "nvidia-cublas",
        "ml_dtypes": "ml_dtypes",
    },
    "excel": {"python_calamine": "python-calamine"},
    "plots": {"matplotlib": "matplotlib"},
    "explain": {"shap": "shap", "lime": "lime"},
    "audit": {"fairlearn": "fairlearn"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "mlflow": {"mlflow": "mlflow"},
    "wandb": {"wandb": "wandb"},
    "bench": {"torch": "torch", "jax": "jax"},
}


def install_command(module: str, extra: str | None = None) -> str:
    """Return the command that installs an optional module and the others of its extra.

    It names their own packages, not an extra of nnkit: that works however nnkit itself was installed.

    Parameters
    ----------
    module : str
        A module that `EXTRAS` lists. For CUDA 13 the command is only given where its CuPy is installed; the
        packages for CUDA 12 work with a driver for CUDA 13 too.
    extra : str, optional
        Its extra, where not the usual one of those that list the module.
    """
    if extra is not None:
        return f"pip install {shlex.join(EXTRAS[extra].values())}"
    extra = next(name for name, packages in EXTRAS.items() if module in packages)
    if extra == "cuda12" and _is_installed("cupy-cuda13x"):
        extra = "cuda13"
    return f"pip install {shlex.join(EXTRAS[extra].values())}"


def extra_module(name: str) -> Any:
    """Import a module of an optional package, or raise `ConfigError` with the command that installs it.

    Parameters
    ----------
    name : str
        The module's full name, in a package that `EXTRAS` lists.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        if (error.name or "").split(".")[0] != package:
            raise
        raise ConfigError(f"{package} is not installed: {install_command(package)}") from None


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
