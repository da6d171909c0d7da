"""The layout of the parameters in the arena: one segment each, weights and biases first, then the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.places import Parameter, Place, leaves
from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels.layout import SEGMENT_COLUMNS, SEGMENT_DECAYS, SEGMENT_START, SEGMENT_STOP

__all__ = ["Segment", "aligned", "grouped", "segment_table", "segments_for"]

# Elements: a segment starts at a multiple of 128 bytes in float32, and of 64 in half precision.
_ALIGNMENT = 32


@dataclass(frozen=True, kw_only=True)
class Segment(Parameter):
    """A parameter at its place in the arena.

    Parameters
    ----------
    name : str
        The full name, such as ``layers.0.weight``.
    offset : int
        The index of its first element.
    """

    name: str
    offset: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


def segments_for(places: Sequence[Place]) -> tuple[Segment, ...]:
    """Lay out a network's parameters in the order of its layers, each start aligned; tables come last."""
    named = [item for place in leaves(places) for item in place.parameters.items()]
    offset, found = 0, {}
    for name, parameter in sorted(named, key=lambda item: item[1].role == "table"):
        found[name] = Segment(**vars(parameter), name=name, offset=offset)
        offset += aligned(found[name].size)
    return tuple(found[name] for name, _ in named)


def grouped(segments: Sequence[Segment], groups: Mapping[str, Mapping[str, Any]]) -> tuple[Segment, ...]:
    """Return the segments with the values of parameter groups.

    Parameters
    ----------
    segments : sequence of Segment
        The layout.
    groups : mapping of str to mapping
        Values of `rate`, `decays` and `trains`, by the name of a parameter or a layer; a longer name takes
        precedence over a shorter one.

    Raises
    ------
    ConfigError
        If no parameter or layer has the name, or nothing is left to train.
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
    """Return the segments as the kernels read them, shape (segments, SEGMENT_COLUMNS)."""
    table = np.zeros((len(segments), SEGMENT_COLUMNS), np.int64)
    table[:, SEGMENT_START] = [segment.offset for segment in segments]
    table[:, SEGMENT_STOP] = [segment.offset + segment.size for segment in segments]
    table[:, SEGMENT_DECAYS] = [segment.decays for segment in segments]
    return table


def aligned(size: int) -> int:
    """Return `size` rounded up to the alignment of segments."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
