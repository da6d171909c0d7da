"""Where a training's rows lie, by the name that a user gave: on the device, in pinned memory, or mapped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from nnkit.backends.protocol import Backend
from nnkit.core.batch import Placement, streams
from nnkit.core.features import Features
from nnkit.core.order import rows_to_a_block
from nnkit.data.limits import memory_limit, readable
from nnkit.errors import ConfigError

__all__ = ["DataPlacement", "Placed", "place_rows"]

DataPlacement = Literal["auto", "device", "pinned", "mmap"]
# The other half is for parameters, activations, workspaces, and whoever else is on the card.
_MOST_OF_FREE = 0.5


@dataclass(frozen=True)
class Placed:
    """A data set and where it lies.

    Parameters
    ----------
    features : Features
        The rows, in memory where they were asked to be.
    placement : {"device", "pinned"}
        As `nnkit.core.batch.Rows` takes it.
    block_rows : int or None
        How many neighbours an epoch's order takes at a time; None where it takes each row by itself.
    note : str
        One line for the user on what was chosen; empty where there was no choice.
    amended : bool
        Whether that is not what they asked for.
    """

    features: Features
    placement: Placement
    block_rows: int | None = None
    note: str = ""
    amended: bool = False


def place_rows(wanted: str, backend: Backend, automatic: bool, features: Features) -> Placed:
    """Decide where rows lie.

    Rows that are mapped from a file larger than half of the memory, or that are to be, are taken in blocks,
    wherever they lie: where a training runs does not change which rows a step sees.

    Parameters
    ----------
    wanted : {"auto", "device", "pinned", "mmap"}
        What the user asked for.
    backend : Backend
        The device.
    automatic : bool
        Whether the device was chosen by ``auto``.
    features : Features
        The rows.

    Raises
    ------
    ConfigError
        If the rows cannot lie there: ``pinned`` on a CPU that was asked for by name, ``mmap`` of what is no
        file that can be mapped, ``device`` on a CPU of what its memory has no room for.
    """
    if wanted not in get_args(DataPlacement):
        known = ", ".join(get_args(DataPlacement))
        raise ConfigError(f"data_placement {wanted!r} is unknown; choose one of {known}")
    size = features.row_bytes * len(features)
    large = features.mapped and size > memory_limit()
    if wanted == "mmap" and not features.mapped:
        raise ConfigError(
            "data_placement = 'mmap' is for a .npy file of numbers, for pictures, and for np.load(..., "
            "mmap_mode='r'), and these rows are in memory: save them as .npy, of integers, float32 or "
            "float64 and without columns to drop, or leave the setting out"
        )
    if wanted in ("pinned", "mmap") and not streams(features):
        raise ConfigError(
            f"data_placement = {wanted!r} is for numbers, pixels and categories, and these rows are sparse "
            "or texts, which lie on the device: leave the setting out"
        )
    block_rows = rows_to_a_block(features.row_bytes) if large or wanted == "mmap" else None
    place = _on_host if backend.free_memory() is None else _on_gpu
    return replace(place(wanted, backend, automatic, features, large), block_rows=block_rows)


def _on_host(wanted: str, backend: Backend, automatic: bool, features: Features, large: bool) -> Placed:
    size = readable(features.row_bytes * len(features))
    if wanted == "pinned" and not automatic:
        raise ConfigError(
            f"data_placement = 'pinned' is for a GPU, and device {backend.name} reads the host's memory as "
            "it is: leave the setting out, or use device 'auto'"
        )
    if wanted == "device" and large:
        raise ConfigError(
            f"data_placement = 'device': the rows take {size}, and this machine has room for "
            f"{readable(memory_limit())}; leave the setting out, and they stay mapped from their file"
        )
    if wanted == "mmap" or large:
        return Placed(features, "pinned", note=f"data: {size}, mapped from the file, in blocks")
    if wanted == "device" and features.mapped:
        return Placed(features.loaded(), "device")
    if wanted == "pinned":
        note = f"device {backend.name} needs no pinned memory: the rows are read where they lie"
        return Placed(features, "device", note=note, amended=True)
    return Placed(features, "device")


def _on_gpu(wanted: str, backend: Backend, automatic: bool, features: Features, large: bool) -> Placed:
    count, free = features.row_bytes * len(features), backend.free_memory() or 0
    size, room = readable(count), f"{readable(free)} free"
    fits = count <= _MOST_OF_FREE * free
    if wanted == "device" or (wanted == "auto" and (fits or not streams(features))):
        return Placed(features, "device", note=f"data: {size} on {backend.name}, {room}")
    reason = "" if wanted != "auto" else f", more than half of {room} on {backend.name}"
    if features.mapped and (wanted == "mmap" or large):
        return Placed(features, "pinned", note=f"data: {size}, mapped from the file, in blocks{reason}")
    return Placed(
        features, "pinned", note=f"data: {size} in the host's memory, through pinned buffers{reason}"
    )
