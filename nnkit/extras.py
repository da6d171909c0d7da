"""The optional packages: their modules, and how to install them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nnkit.errors import ConfigError

__all__ = ["EXTRAS", "extra_module", "install_command"]

# For each extra of pyproject.toml that users may lack: its modules, and the package of each.
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
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime", "skl2onnx": "skl2onnx"},
    "explain": {"shap": "shap", "lime": "lime"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "mlflow": {"mlflow": "mlflow"},
    "wandb": {"wandb": "wandb"},
    "torch": {"torch": "torch"},
    "keras": {"keras": "keras"},
    "bench": {"torch": "torch", "jax": "jax"},
}


def install_command(module: str, extra: str | None = None) -> str:
    """Return the command that installs an optional module and the others of its extra.

    It names packages, not an extra of nnkit, so it works however nnkit was installed.

    Parameters
    ----------
    module : str
        A module in `EXTRAS`. The command is for CUDA 13 only if CuPy for CUDA 13 is installed; the packages
        for CUDA 12 work with a driver for CUDA 13 too.
    extra : str, optional
        Its extra; by default the first that has the module.
    """
    if extra is None:
        extra = next(name for name, packages in EXTRAS.items() if module in packages)
        if extra == "cuda12" and _is_installed("cupy-cuda13x"):
            extra = "cuda13"
    return f"pip install {shlex.join(EXTRAS[extra].values())}"


def extra_module(name: str) -> Any:
    """Import a module of an optional package, or raise `ConfigError` with the command that installs it.

    Parameters
    ----------
    name : str
        The full name of a module in a package of `EXTRAS`.
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
