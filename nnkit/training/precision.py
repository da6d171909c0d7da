"""Precisions by name: the type a training computes in on a device, and what is said where it cannot."""

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
        fp32 or fp64 (or, where the device has them, tf32, fp16, bf16).
    dtype : dtype
        Of the parameters: float32 or float64.
    note : str
        One line for the user where this is not what they asked for, else empty.
    half : HalfPrecision or None
        What is kept in 16 bits beside the parameters.
    """

    name: str
    dtype: np.dtype
    note: str = ""
    half: HalfPrecision | None = None


def half_of(precision: str) -> HalfPrecision | None:
    """Return what a precision keeps in 16 bits, or None where it keeps nothing so."""
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
        What the user asked for.
    backend : Backend
        The device.
    automatic : bool
        Whether the device was chosen by ``auto``, which falls back to fp32 where the device lacks the
        precision.

    Raises
    ------
    ConfigError
        If the device asked for by name does not have it.
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
