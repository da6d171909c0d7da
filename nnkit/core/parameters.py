"""The arena: all parameters in one flat array, and the table that says what each stretch is.

Weights and biases first, then the tables of embeddings, whose gradients are not as long as they are: a flat
gradient has the first part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.protocol import Array, Backend
from nnkit.core.layers import Stage
from nnkit.core.mixed import Copies, Half
from nnkit.kernels.layout import SEGMENT_COLUMNS, SEGMENT_DECAYS, SEGMENT_START, SEGMENT_STOP

__all__ = ["Arena", "Segment", "segments_for"]

_ALIGNMENT = (
    32  # elements: a segment starts at a multiple of 128 bytes in float32, and of 64 in half precision
)


@dataclass(frozen=True)
class Segment:
    """A stretch of the arena.

    Parameters
    ----------
    name : str
        Such as ``layers.0.weight``.
    offset : int
        Its first element.
    shape : tuple of int
        The logical shape.
    leading_dimension : int
        The distance between rows; at least the last of `shape`.
    role : {"weight", "bias", "table"}
        What it is.
    decays : bool
        Whether L1, L2 and weight decay touch it.
    trains : bool
        Whether updates touch it.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    leading_dimension: int
    role: Literal["weight", "bias", "table"]
    decays: bool
    trains: bool = True

    @property
    def size(self) -> int:
        """The elements it takes, padding between rows included."""
        return prod(self.shape[:-1]) * self.leading_dimension


def segments_for(stages: Sequence[Stage]) -> tuple[Segment, ...]:
    """Lay out the parameters of the stages, weights before biases, tables last, each start aligned.

    The segments are in the layers' order: tables come first among them.
    """
    segments: list[Segment] = []
    offset = 0
    for stage in stages:
        if stage.layer is None:
            continue
        shapes: list[tuple[Literal["weight", "bias"], tuple[int, ...]]] = [
            ("weight", (stage.inputs, stage.outputs))
        ]
        if stage.bias:
            shapes.append(("bias", (stage.outputs,)))
        for role, shape in shapes:
            name = f"layers.{stage.layer}.{role}"
            segments.append(Segment(name, offset, shape, stage.outputs, role, decays=role == "weight"))
            offset += _aligned(segments[-1].size)
    tables: list[Segment] = []
    for table in stages[0].tables if stages else ():
        name, shape = f"layers.{table.layer}.weight", (table.size, table.width)
        tables.append(Segment(name, offset, shape, table.width, "table", decays=True))
        offset += _aligned(tables[-1].size)
    return (*tables, *segments)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


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
        self.backend = backend
        self.dtype = np.dtype(dtype)
        dense = [segment for segment in self.segments if segment.role != "table"]
        self.size, self.dense_size = (
            max(segment.offset + _aligned(segment.size) for segment in some)
            for some in (self.segments, dense)
        )
        self.values = self.like_values()
        self._copies: dict[Half, Copies] = {}

    def like_values(self) -> Array:
        """Return zeros in the arena's layout: a copy, or a slot of optimizer state."""
        return self.backend.zeros(self.size, self.dtype)

    def like_gradients(self) -> Array:
        """Return zeros in the layout of a gradient."""
        return self.backend.zeros(self.dense_size, self.dtype)

    def copies(self, half: Half) -> Copies:
        """Return the parameters in 16 bits, the same arrays to all who ask."""
        if half not in self._copies:
            self._copies[half] = Copies(self, half)
        return self._copies[half]

    def view(self, name: str, flat: Array | None = None) -> Array:
        """Return the segment of that name in its logical shape, a view into `flat` (default: the values)."""
        segment = next(segment for segment in self.segments if segment.name == name)
        flat = self.values if flat is None else flat
        stretch = flat[segment.offset : segment.offset + segment.size]
        rows = stretch.reshape((*segment.shape[:-1], segment.leading_dimension))
        return rows[..., : segment.shape[-1]]

    def table(self, of_all: bool = False) -> NDArray[np.int64]:
        """Return the segments that train as the kernels read them, shape (segments, columns).

        Parameters
        ----------
        of_all : bool
            Whether the tables of embeddings are among them.
        """
        training = [
            segment for segment in self.segments if segment.trains and (of_all or segment.role != "table")
        ]
        table = np.zeros((len(training), SEGMENT_COLUMNS), np.int64)
        table[:, SEGMENT_START] = [segment.offset for segment in training]
        table[:, SEGMENT_STOP] = [segment.offset + segment.size for segment in training]
        table[:, SEGMENT_DECAYS] = [segment.decays for segment in training]
        return table

    def to_host(self, flat: Array | None = None) -> dict[str, NDArray]:
        """Return every segment by name, copied to the host."""
        host = self.backend.to_host(self.values if flat is None else flat)
        return {segment.name: np.array(self.view(segment.name, host)) for segment in self.segments}
