"""Where the rows of a training are kept: on the device, in pinned memory, or mapped from a file."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.typing import NDArray

from nnkit.backends.protocol import Backend
from nnkit.data.limits import memory_limit, readable
from nnkit.errors import ConfigError
from nnkit.feed.batch import Placement, device_bytes, streams
from nnkit.feed.features import Features
from nnkit.feed.order import rows_per_block

__all__ = ["Placed", "place_rows"]

# The largest share of a GPU's free memory for data, including validation rows. The rest is for parameters,
# optimizer state, activations, workspaces and other processes.
_MOST_OF_FREE = 0.5


@dataclass(frozen=True)
class Placed:
    """The rows of a data set and their placement.

    Parameters
    ----------
    features : Features
        The rows, loaded into memory if necessary.
    placement : {"device", "pinned"}
        As in `nnkit.feed.batch.Rows`.
    block_rows : int or None
        The number of rows in a block of the epoch's order; None if single rows are shuffled.
    note : str
        One line for the user about the choice; empty if there was none.
    amended : bool
        Whether the placement is not the requested one.
    device_bytes : int
        The bytes of GPU memory that the data set takes, 0 if it is not on the GPU.
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
    placed_bytes: int = 0,
) -> Placed:
    """Decide where rows are kept.

    With ``auto``, rows go to a GPU if they, their targets and weights, the order of shuffled rows (8 bytes
    each) and the rows already placed there take at most half of its free memory.

    Rows are shuffled in blocks if they are mapped from a file by request or because it exceeds half of the
    memory; on every device, so that the device does not change the order of the rows.

    Parameters
    ----------
    wanted : {"auto", "device", "pinned", "mmap"}
        The requested placement.
    backend : Backend
        The device.
    automatic : bool
        Whether the device was chosen by ``auto``.
    features : Features
        The rows.
    targets : ndarray, optional
        The targets, in the device's types.
    weights : ndarray of shape (samples,), optional
        Sample weights, in the device's types.
    shuffled : bool
        Whether the rows are shuffled in each epoch.
    placed_bytes : int
        The `device_bytes` of rows placed earlier for the same training.

    Raises
    ------
    ConfigError
        For ``pinned`` on a CPU chosen by name, ``mmap`` without a file that can be mapped, and ``device`` on
        a CPU without enough memory.
    """
    # Long for its parameters and their description.
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
            f"data_placement = {wanted!r} is for numbers, pixels and categories; these rows are sparse or "
            "texts, which are kept on the device: leave the setting out"
        )
    block_rows = rows_per_block(features.row_bytes) if large or wanted == "mmap" else None
    if backend.shares_host_memory:
        placed = _on_host(wanted, backend, automatic, features, large)
    else:
        count = device_bytes(features, targets, weights, shuffled)
        placed = _on_gpu(wanted, backend, features, large, count, placed_bytes)
    return replace(placed, block_rows=block_rows)


def _on_host(wanted: str, backend: Backend, automatic: bool, features: Features, large: bool) -> Placed:
    size = readable(features.row_bytes * len(features))
    if wanted == "pinned" and not automatic:
        raise ConfigError(
            f"data_placement = 'pinned' is for a GPU, and device {backend.name} reads the host's memory "
            "directly: leave the setting out, or use device 'auto'"
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
        note = f"device {backend.name} needs no pinned memory: it reads the rows directly"
        return Placed(features, "device", note=note, amended=True)
    return Placed(features, "device")


def _on_gpu(
    wanted: str, backend: Backend, features: Features, large: bool, count: int, placed_bytes: int
) -> Placed:
    free = backend.free_memory() or 0
    size, room = readable(count), f"{readable(free)} free"
    fits = placed_bytes + count <= _MOST_OF_FREE * (placed_bytes + free)
    if wanted == "device" or (wanted == "auto" and (fits or not streams(features))):
        note = f"data: {size} on {backend.name}, {room}"
        return Placed(features, "device", note=note, device_bytes=count)
    reason = "" if wanted != "auto" else f", more than half of {room} on {backend.name}"
    if features.mapped and (wanted == "mmap" or large):
        return Placed(features, "pinned", note=f"data: {size}, mapped from the file, in blocks{reason}")
    return Placed(
        features, "pinned", note=f"data: {size} in the host's memory, through pinned buffers{reason}"
    )
