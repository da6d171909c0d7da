"""nnkit's version, and the versions that a model file records."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["nnkit_version", "recorded_versions"]


def nnkit_version() -> str:
    """Return nnkit's version; its distribution is called ``nnkit-train``."""
    return version("nnkit-train")


def recorded_versions() -> dict[str, str]:
    """Return the versions that a model file records: nnkit's and NumPy's."""
    import numpy as np

    return {"nnkit": nnkit_version(), "numpy": np.__version__}
