"""Where a training's rows lie, by the name that a user gave: on the device, in pinned memory, or mapped."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.typing import NDArray

from nnkit.backends.protocol import Backend
from nnkit.data.limits import memory_limit, readable
from nnkit.errors import ConfigError
from nnkit.feed.batch import Placement, device_bytes, streams
from nnkit.feed.features import Features
from nnkit.feed.order import rows_to_a_block

__all__ = ["Placed", "place_rows"]

# Of a training's data, the validation rows among them. The other half is for parameters, optimizer state,
# activations, workspaces, and whoever else is on the card.
_MOST_OF_FREE = 0.5


@dataclass(frozen=True)
class Placed:
    """A data set and where it lies.

    Parameters
    ----------
    features : Features
        The rows, in memory where they were asked to be.
    placement : {"device", "pinned"}
        As `nnkit.feed.batch.Rows` takes it.
    block_rows : int or None
        How many neighbours an epoch's order takes at a time; None where it takes each row by itself.
    note : str
        One line for the user on what was chosen; empty where there was no choice.
    amended : bool
        Whether that is not what they asked for.
    device_bytes : int
        What the data set takes of a GPU's memory, where all of it lies there; else 0.
    """

    features: Features
    placement: Placement
    block_rows: int | None = None
    note: str = ""
    amended: bool = False
    device_bytes: int = 0


def place_rows(
    wanted: str,
    backend: Backend,
    automatic: bool,
    features: Features,
    targets: NDArray | None = None,
    weights: NDArray | None = None,
    shuffled: bool = False,
    before: int = 0,
) -> Placed:
    """Decide where rows lie.

    By ``auto`` a GPU takes them where they fill at most half of its free memory together with what comes with
    them: their targets and sample weights, the epoch's order of shuffled ones (8 bytes a row), and the rows
    of the same training that it holds already.

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
    targets : ndarray, optional
        As the device receives them.
    weights : ndarray of shape (samples,), optional
        Sample weights, as the device receives them.
    shuffled : bool
        Whether each epoch has an order of its own.
    before : int
        The `device_bytes` of this training's rows that were placed before these.

    Raises
    ------
    ConfigError
        If the rows cannot lie there: ``pinned`` on a CPU that was asked for by name, ``mmap`` of what is no
        file that can be mapped, ``device`` on a CPU of what its memory has no room for.
    """
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
    if backend.shares_host_memory:
        placed = _on_host(wanted, backend, automatic, features, large)
    else:
        count = device_bytes(features, targets, weights, shuffled)
        placed = _on_gpu(wanted, backend, features, large, count, before)
    return replace(placed, block_rows=block_rows)


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


def _on_gpu(
    wanted: str, backend: Backend, features: Features, large: bool, count: int, before: int
) -> Placed:
    free = backend.free_memory() or 0
    size, room = readable(count), f"{readable(free)} free"
    fits = before + count <= _MOST_OF_FREE * (before + free)
    if wanted == "device" or (wanted == "auto" and (fits or not streams(features))):
        note = f"data: {size} on {backend.name}, {room}"
        return Placed(features, "device", note=note, device_bytes=count)
    reason = "" if wanted != "auto" else f", more than half of {room} on {backend.name}"
    if features.mapped and (wanted == "mmap" or large):
        return Placed(features, "pinned", note=f"data: {size}, mapped from the file, in blocks{reason}")
    return Placed(
        features, "pinned", note=f"data: {size} in the host's memory, through pinned buffers{reason}"
    )
