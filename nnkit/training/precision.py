"""Precisions by name, and whether a device has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnkit.backends.protocol import Backend
from nnkit.engine.precision import HalfPrecision
from nnkit.errors import ConfigError

__all__ = ["Resolved", "half_of", "resolve_precision"]


@dataclass(frozen=True)
class Resolved:
    """A precision that the device has.

    Parameters
    ----------
    name : str
        fp32, fp64, tf32, fp16 or bf16.
    dtype : dtype
        The type of the parameters: float32 or float64.
    note : str
        One line for the user if this is not the requested precision, else empty.
    half : HalfPrecision or None
        The 16-bit type of mixed precision.
    """

    name: str
    dtype: np.dtype
    note: str = ""
    half: HalfPrecision | None = None


def half_of(precision: str) -> HalfPrecision | None:
    """Return the 16-bit type of fp16 and bf16; None for other precisions."""
    if precision == "fp16":
        return HalfPrecision(np.dtype(np.float16), scales=True)
    if precision == "bf16":
        import ml_dtypes

        return HalfPrecision(np.dtype(ml_dtypes.bfloat16), scales=False)
    return None


def resolve_precision(precision: str, backend: Backend, automatic: bool) -> Resolved:
    """Return the precision to train in.

    Parameters
    ----------
    precision : {"fp32", "fp64", "tf32", "fp16", "bf16"}
        The requested precision.
    backend : Backend
        The device.
    automatic : bool
        Whether the device was chosen by ``auto``, which falls back to fp32.

    Raises
    ------
    ConfigError
        If a device chosen by name does not have the precision.
    """
    if precision in backend.precisions:
        dtype = np.dtype(np.float64 if precision == "fp64" else np.float32)
        return Resolved(precision, dtype, half=half_of(precision))
    if automatic:
        note = f"device {backend.name} has no {precision}: training in fp32"
        return Resolved("fp32", np.dtype(np.float32), note)
    has = ", ".join(backend.precisions)
    raise ConfigError(
        f"device {backend.name} has no precision {precision!r}; it has {has}. Or use device 'auto'"
    )
