"""The arena: all parameters in one flat array.

Weights and biases come first, then embedding tables. A flat gradient has the first part only: the gradient of
a table holds only the rows that a batch looks up.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array
from nnkit.backends.protocol import Backend
from nnkit.engine.precision import HalfParameters, HalfPrecision
from nnkit.engine.segments import Segment, aligned, grouped, segment_table

__all__ = ["Arena"]


class Arena:
    """The parameters of a network on one device.

    Parameters
    ----------
    segments : sequence of Segment
        The layout.
    backend : Backend
        The device.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    values : array of shape (size,)
        All parameters; the gaps between segments hold zeros.
    dense_size : int
        The elements before the embedding tables: the length of a gradient.
    """

    def __init__(self, segments: Sequence[Segment], backend: Backend, dtype: DTypeLike) -> None:
        self.segments = tuple(segments)
        self._named = {segment.name: segment for segment in self.segments}
        self.backend = backend
        self.dtype = np.dtype(dtype)
        dense = [segment for segment in self.segments if segment.role != "table"]
        self.size, self.dense_size = (
            max(segment.offset + aligned(segment.size) for segment in some) for some in (self.segments, dense)
        )
        self.values = self.like_values()
        self._half: dict[HalfPrecision, HalfParameters] = {}

    def like_values(self) -> Array:
        """Return zeros in the arena's layout, such as for a slot of optimizer state."""
        return self.backend.zeros(self.size, self.dtype)

    def like_gradients(self) -> Array:
        """Return zeros in the layout of a gradient."""
        return self.backend.zeros(self.dense_size, self.dtype)

    def in_half(self, half: HalfPrecision) -> HalfParameters:
        """Return the parameters in 16 bits, the same arrays at each call."""
        if half not in self._half:
            self._half[half] = HalfParameters(self.segments, self.values, half, self.backend)
        return self._half[half]

    def grouped(self, groups: Mapping[str, Mapping[str, Any]]) -> Arena:
        """Return an arena over the same arrays, its segments changed as `segments.grouped` does."""
        arena = copy.copy(self)
        arena.segments = grouped(self.segments, groups)
        arena._named = {segment.name: segment for segment in arena.segments}
        return arena

    def segment(self, name: str) -> Segment:
        """Return the segment of that name."""
        return self._named[name]

    def view(self, name: str, flat: Array | None = None) -> Array:
        """Return the segment of that name in its logical shape, a view into `flat` (default: the values)."""
        segment = self.segment(name)
        flat = self.values if flat is None else flat
        return flat[segment.offset : segment.offset + segment.size].reshape(segment.shape)

    @property
    def trained(self) -> list[Segment]:
        """The segments that the update kernel covers: those that train, without embedding tables."""
        return [segment for segment in self.segments if segment.trains and segment.role != "table"]

    def table(self) -> NDArray[np.int64]:
        """Return the `trained` segments as the kernels read them, shape (segments, SEGMENT_COLUMNS)."""
        return segment_table(self.trained)

    def rate_factors(self) -> NDArray[np.float64]:
        """Return the factor of the learning rate for each `trained` segment."""
        return np.array([segment.rate for segment in self.trained], np.float64)

    def to_host(self, flat: Array | None = None) -> dict[str, NDArray]:
        """Return every segment by name, copied to the host."""
        host = self.backend.to_host(self.values if flat is None else flat)
        return {segment.name: np.array(self.view(segment.name, host)) for segment in self.segments}
