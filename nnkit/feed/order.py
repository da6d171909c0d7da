"""The order in which an epoch takes its rows: a function of (seed, epoch) only.

Rows that are mapped from a file are taken in blocks, because a disk reads 128 KiB about as fast as one row.
The blocks are shuffled, and then the rows within each window of 256 shuffled blocks. A batch thus has rows
from all over the file, even if that is sorted, and 32 MiB of it are read at a time. A file of fewer blocks is
one window, and its order is uniform over all permutations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOW_BLOCKS", "epoch_order", "rows_per_block"]

_BLOCK_BYTES = 1 << 17
WINDOW_BLOCKS = 256
"""The number of blocks whose rows are shuffled together."""


def rows_per_block(row_bytes: int) -> int:
    """Return the number of rows of this size that are read at once: 128 KiB, or one row."""
    return max(1, _BLOCK_BYTES // max(1, row_bytes))


def epoch_order(
    count: int, seed: int, epoch: int, shuffle: bool = True, block_rows: int | None = None
) -> NDArray[np.int64]:
    """Return the epoch's permutation of the rows, shape (count,), int64.

    Parameters
    ----------
    count : int
        The number of rows.
    seed : int
        In [0, 2**64).
    epoch : int
        From 0.
    shuffle : bool
        False keeps the storage order.
    block_rows : int, optional
        Rows of a block; without it, rows are shuffled one by one.
    """
    if not shuffle:
        return np.arange(count)
    from nnkit.kernels import host

    key = (epoch, seed & 0xFFFFFFFF, seed >> 32)
    # A small file has less than a block, and a damaged checkpoint may hold any number.
    block_rows = None if block_rows is None else min(block_rows, count)
    blocks = np.arange(count if block_rows is None else -(-count // block_rows))
    host.kernel("shuffle", np.dtype(np.float64)).entry(blocks, *key)
    if block_rows is None:
        return blocks
    order = (blocks[:, None] * block_rows + np.arange(block_rows)).reshape(-1)
    order = order[order < count]  # the last block may be shorter
    host.kernel("shuffle_within", np.dtype(np.float64)).entry(order, WINDOW_BLOCKS * block_rows, *key)
    return order
