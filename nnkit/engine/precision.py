"""Mixed precision: what is kept in 16 bits beside the float32 parameters, and the loss scale.

Reference: Micikevicius et al. 2017, "Mixed Precision Training", arXiv:1710.03740.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Kernel, Operation
from nnkit.backends.protocol import Backend
from nnkit.engine.segments import Segment, segment_table
from nnkit.kernels.formulas import FIRST_LOSS_SCALE, GREATEST_LOSS_SCALE, LEAST_LOSS_SCALE
from nnkit.kernels.layout import (
    CLEAN_STEPS,
    COPY_COLUMNS,
    COPY_PITCH,
    COPY_START,
    COPY_WIDTH,
    LOSS_SCALE,
    SCALING,
    SKIPPED_STEPS,
)

__all__ = ["HalfParameters", "HalfPrecision", "is_scaling", "new_scaling", "padded"]

_WIDTH = 8  # elements: 16 bytes, what a tensor core's operands are read in
_ALIGNMENT = 64  # elements: a segment starts at a multiple of 128 bytes


@dataclass(frozen=True)
class HalfPrecision:
    """What a training keeps in 16 bits: weights for the products, activations and their gradients.

    Parameters
    ----------
    dtype : dtype
        float16, or `ml_dtypes.bfloat16`.
    scales : bool
        Whether the loss is scaled, lest small gradients become zero: float16 has no exponents for them.
    """

    dtype: np.dtype
    scales: bool


def padded(width: int, half: HalfPrecision | None) -> int:
    """Return how many columns so many take: in 16 bits a multiple of 8, so that tensor cores take them."""
    return width if half is None else -(-width // _WIDTH) * _WIDTH


def new_scaling(backend: Backend) -> Array:
    """Return the loss scale's state at the beginning of a training, shape (SCALING,), float64."""
    scaling = backend.zeros(SCALING, np.float64)
    backend.write(scaling[LOSS_SCALE : LOSS_SCALE + 1], FIRST_LOSS_SCALE)
    return scaling


def is_scaling(state: NDArray[np.float64]) -> bool:
    """Tell whether numbers from a file can be a loss scale's state."""
    scale, counts = state[LOSS_SCALE], state[[CLEAN_STEPS, SKIPPED_STEPS]]
    known = LEAST_LOSS_SCALE <= scale <= GREATEST_LOSS_SCALE
    return bool(known and np.all((counts >= 0) & (counts < 2**53)))


@dataclass(frozen=True)
class _Place:
    """Where a segment's copy is: its first element, and its padded shape."""

    start: int
    shape: tuple[int, ...]


class HalfParameters:
    """An arena's weights and biases in 16 bits, rows and columns padded with zeros to multiples of 8.

    Parameters
    ----------
    segments : sequence of Segment
        The arena's; tables of embeddings are read row by row, from float32, and have no copies.
    values : array of shape (size,), float32
        The arena's, which are rounded.
    half : HalfPrecision
        To what.
    backend : Backend
        Where they live.

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
        self._places: dict[str, _Place] = {}
        size = 0
        for segment in self._segments:
            shape = tuple(padded(length, half) for length in segment.shape)
            self._places[segment.name] = _Place(size, shape)
            size += -(-int(np.prod(shape)) // _ALIGNMENT) * _ALIGNMENT
        self.values: Array = backend.zeros(size, half.dtype)

    def view(self, name: str) -> Array:
        """Return a parameter's copy in its padded shape."""
        place = self._places[name]
        size = int(np.prod(place.shape))
        return self.values[place.start : place.start + size].reshape(place.shape)

    def table(self, segments: Sequence[Segment]) -> NDArray[np.int64]:
        """Return where the copies of these segments are, as the kernels read it, (segments, COPY_COLUMNS)."""
        table = np.zeros((len(segments), COPY_COLUMNS), np.int64)
        for row, segment in zip(table, segments, strict=True):
            place = self._places[segment.name]
            row[COPY_START] = place.start
            row[COPY_WIDTH] = segment.shape[-1]
            row[COPY_PITCH] = place.shape[-1]
        return table

    def arguments(self, segments: Sequence[Segment]) -> dict[str, Any]:
        """Return what the update's kernel over these segments reads and writes of their copies."""
        return {"copy": self.values, "copies": self._backend.from_host(self.table(segments))}

    def refresh(self) -> Operation:
        """Return the operation that rounds all parameters anew: somebody else may have written them."""
        placed = self._backend.from_host
        arguments = {
            "values": self._rounded,
            "copy": self.values,
            "segments": placed(segment_table(self._segments)),
            "copies": placed(self.table(self._segments)),
        }
        return Kernel("copy_parameters", self._rounded.dtype, arguments=arguments)
