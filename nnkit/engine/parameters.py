"""The arena: all parameters in one flat array.

Weights and biases first, then the tables of embeddings, whose gradients are not as long as they are: a flat
gradient has the first part alone.
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
        Where they live.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    values : array of shape (size,)
        All parameters; the gaps between segments hold zeros.
    dense_size : int
        How much of it comes before the tables of embeddings: the length of a gradient.
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
        """Return zeros in the arena's layout: a copy, or a slot of optimizer state."""
        return self.backend.zeros(self.size, self.dtype)

    def like_gradients(self) -> Array:
        """Return zeros in the layout of a gradient."""
        return self.backend.zeros(self.dense_size, self.dtype)

    def in_half(self, half: HalfPrecision) -> HalfParameters:
        """Return the parameters in 16 bits, the same arrays to all who ask."""
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
        stretch = flat[segment.offset : segment.offset + segment.size]
        rows = stretch.reshape((*segment.shape[:-1], segment.leading_dimension))
        return rows[..., : segment.shape[-1]]

    @property
    def trained(self) -> list[Segment]:
        """The segments that the update's kernel goes through: those that train, without tables."""
        return [segment for segment in self.segments if segment.trains and segment.role != "table"]

    def table(self) -> NDArray[np.int64]:
        """Return the segments of `trained` as the kernels read them, shape (segments, columns)."""
        return segment_table(self.trained)

    def rate_factors(self) -> NDArray[np.float64]:
        """Return what the learning rate is multiplied by for each segment of `trained`."""
        return np.array([segment.rate for segment in self.trained], np.float64)

    def to_host(self, flat: Array | None = None) -> dict[str, NDArray]:
        """Return every segment by name, copied to the host."""
        host = self.backend.to_host(self.values if flat is None else flat)
        return {segment.name: np.array(self.view(segment.name, host)) for segment in self.segments}
