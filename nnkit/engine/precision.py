"""Mixed precision: the 16-bit copies of the float32 parameters, and the loss scale.

Reference: Micikevicius et al. 2017, "Mixed Precision Training", arXiv:1710.03740.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Kernel, Operation
from nnkit.backends.protocol import Backend
from nnkit.engine.segments import Segment, segment_table
from nnkit.kernels import layout
from nnkit.kernels.formulas import FIRST_LOSS_SCALE, GREATEST_LOSS_SCALE, LEAST_LOSS_SCALE

__all__ = ["HalfParameters", "HalfPrecision", "is_scaling", "new_scaling", "padded"]

_WIDTH = 8  # elements: 16 bytes, the unit in which tensor cores read operands
_ALIGNMENT = 64  # elements: a segment starts at a multiple of 128 bytes


@dataclass(frozen=True)
class HalfPrecision:
    """The 16-bit type of mixed precision, for the operands of products, activations and their gradients.

    Parameters
    ----------
    dtype : dtype
        float16, or `ml_dtypes.bfloat16`.
    scales : bool
        Whether the loss is scaled, because small gradients underflow in float16.
    """

    dtype: np.dtype
    scales: bool


def padded(width: int, half: HalfPrecision | None) -> int:
    """Return the number of allocated columns: in 16 bits a multiple of 8, as tensor cores need it."""
    return width if half is None else -(-width // _WIDTH) * _WIDTH


def new_scaling(backend: Backend) -> Array:
    """Return the loss scale's state at the beginning of a training, shape (SCALING,), float64."""
    scaling = backend.zeros(layout.SCALING, np.float64)
    backend.write(scaling[layout.LOSS_SCALE : layout.LOSS_SCALE + 1], FIRST_LOSS_SCALE)
    return scaling


def is_scaling(state: NDArray[np.float64]) -> bool:
    """Tell whether numbers from a file are a valid state of the loss scale."""
    scale, counts = state[layout.LOSS_SCALE], state[[layout.CLEAN_STEPS, layout.SKIPPED_STEPS]]
    known = LEAST_LOSS_SCALE <= scale <= GREATEST_LOSS_SCALE
    return bool(known and np.all((counts >= 0) & (counts < 2**53)))


class HalfParameters:
    """An arena's weights and biases in 16 bits, rows and columns padded with zeros to multiples of 8.

    Parameters
    ----------
    segments, values, backend
        The arena's. Embedding tables are read row by row in float32 and have no copies.
    half : HalfPrecision
        The 16-bit type.

    Attributes
    ----------
    values : array of shape (size,)
        All copies.
    """

    def __init__(
        self, segments: Sequence[Segment], values: Array, half: HalfPrecision, backend: Backend
    ) -> None:
        self._backend = backend
        self._rounded = values
        self._segments = [segment for segment in segments if segment.role != "table"]
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}  # first element and padded shape
        size = 0
        for segment in self._segments:
            shape = tuple(padded(length, half) for length in segment.shape)
            self._places[segment.name] = size, shape
            size += -(-prod(shape) // _ALIGNMENT) * _ALIGNMENT
        self.values: Array = backend.zeros(size, half.dtype)

    def view(self, name: str) -> Array:
        """Return a parameter's copy in its padded shape."""
        start, shape = self._places[name]
        return self.values[start : start + prod(shape)].reshape(shape)

    def arguments(self, segments: Sequence[Segment]) -> dict[str, Any]:
        """Return the kernel arguments for the copies of these segments.

        ``copies``, shape (segments, COPY_COLUMNS), says where each copy is.
        """
        table = np.zeros((len(segments), layout.COPY_COLUMNS), np.int64)
        for row, segment in zip(table, segments, strict=True):
            row[layout.COPY_START], shape = self._places[segment.name]
            row[layout.COPY_WIDTH] = segment.shape[-1]
            row[layout.COPY_PITCH] = shape[-1]
        return {"copy": self.values, "copies": self._backend.from_host(table)}

    def refresh(self) -> Operation:
        """Return the operation that rounds all parameters again, after they were changed from outside."""
        segments = self._backend.from_host(segment_table(self._segments))
        arguments = {"values": self._rounded, "segments": segments, **self.arguments(self._segments)}
        return Kernel("copy_parameters", self._rounded.dtype, arguments=arguments)
