"""How parameters lie in the arena: one stretch each, weights and biases first, then the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.places import Place, Role, leaves
from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels.layout import SEGMENT_COLUMNS, SEGMENT_DECAYS, SEGMENT_START, SEGMENT_STOP

__all__ = ["Segment", "aligned", "grouped", "segment_table", "segments_for"]

# Elements: a segment starts at a multiple of 128 bytes in float32, and of 64 in half precision.
_ALIGNMENT = 32


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
    role : {"weight", "bias", "scale", "table"}
        What it is.
    decays : bool
        Whether L1, L2 and weight decay touch it.
    trains : bool
        Whether it is trained.
    rate : float
        What the learning rate is multiplied by for it.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    leading_dimension: int
    role: Role
    decays: bool
    trains: bool = True
    rate: float = 1.0

    @property
    def size(self) -> int:
        """The elements it takes, padding between rows included."""
        return prod(self.shape[:-1]) * self.leading_dimension


def segments_for(places: Sequence[Place]) -> tuple[Segment, ...]:
    """Lay out the parameters of a network in the order of its layers, each start aligned; tables lie last."""
    named = [item for place in leaves(places) for item in place.parameters.items()]
    offset, found = 0, {}
    for name, parameter in sorted(named, key=lambda item: item[1].role == "table"):
        found[name] = Segment(
            name, offset, parameter.shape, parameter.shape[-1],
            parameter.role, parameter.decays, parameter.trains, parameter.rate,
        )  # fmt: skip
        offset += aligned(found[name].size)
    return tuple(found[name] for name, _ in named)


def grouped(segments: Sequence[Segment], groups: Mapping[str, Mapping[str, Any]]) -> tuple[Segment, ...]:
    """Return the segments with the values that groups give them.

    Parameters
    ----------
    segments : sequence of Segment
        The layout.
    groups : mapping of str to mapping
        Values of `rate`, `decays` and `trains`, by the name of a parameter or of its layer; those of a
        longer name take precedence.

    Raises
    ------
    ConfigError
        If a name is no parameter's and no layer's, or nothing is left to train.
    """
    found = {segment.name: segment for segment in segments}
    for group in sorted(groups, key=len):
        names = [name for name in found if f"{name}.".startswith(f"{group}.")]
        if not names:
            raise unknown_name("parameter or layer", group, found, "in groups")
        found |= {name: replace(found[name], **groups[group]) for name in names}
    if not any(segment.trains for segment in found.values()):
        raise ConfigError("groups leave no parameter to train; let one of them keep trains = True")
    return tuple(found.values())


def segment_table(segments: Sequence[Segment]) -> NDArray[np.int64]:
    """Return the segments as the kernels read them, shape (segments, columns)."""
    table = np.zeros((len(segments), SEGMENT_COLUMNS), np.int64)
    table[:, SEGMENT_START] = [segment.offset for segment in segments]
    table[:, SEGMENT_STOP] = [segment.offset + segment.size for segment in segments]
    table[:, SEGMENT_DECAYS] = [segment.decays for segment in segments]
    return table


def aligned(size: int) -> int:
    """Return where the segment after one of this size may start."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
