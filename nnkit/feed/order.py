"""The order in which an epoch takes its rows: a function of (seed, epoch) and of nothing else.

Rows that are mapped from a file are taken in blocks, for a disk reads 128 KiB about as fast as one row. The
blocks are shuffled, and the rows of each window of 256 shuffled blocks are shuffled among each other: a batch
has its rows from all over the file, even where that lies sorted, and 32 MiB of it are read at a time. A file
of fewer blocks is one window, and its order is uniform over all permutations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOW_BLOCKS", "epoch_order", "rows_to_a_block"]

_BLOCK_BYTES = 1 << 17
WINDOW_BLOCKS = 256
"""Whose rows are shuffled among each other."""


def rows_to_a_block(row_bytes: int) -> int:
    """Return how many rows of so many bytes are read in one go: 128 KiB of them, or one."""
    return max(1, _BLOCK_BYTES // max(1, row_bytes))


def epoch_order(
    count: int, seed: int, epoch: int, shuffle: bool = True, block_rows: int | None = None
) -> NDArray[np.int64]:
    """Return the epoch's permutation of the rows.

    Parameters
    ----------
    count : int
        The number of rows.
    seed : int
        In [0, 2**64).
    epoch : int
        From 0.
    shuffle : bool
        False takes the rows as they lie.
    block_rows : int, optional
        Take the rows in blocks of so many neighbours; without it, each by itself.

    Returns
    -------
    ndarray of shape (count,), int64
    """
    if not shuffle:
        return np.arange(count)
    from nnkit.kernels import host

    key = (epoch, seed & 0xFFFFFFFF, seed >> 32)
    block_rows = None if block_rows is None else min(block_rows, count)  # it may come from a checkpoint
    blocks = np.arange(count if block_rows is None else -(-count // block_rows))
    host.kernel("shuffle", np.dtype(np.float64)).entry(blocks, *key)
    if block_rows is None:
        return blocks
    order = _rows_of(blocks, block_rows, count)
    window = WINDOW_BLOCKS * block_rows
    host.kernel("shuffle_within", np.dtype(np.float64)).entry(order, window, *key)
    return order


def _rows_of(blocks: NDArray[np.int64], block_rows: int, count: int) -> NDArray[np.int64]:
    """Return the rows of the blocks, one after the other; the file's last block may be a short one."""
    rows = (blocks[:, None] * block_rows + np.arange(block_rows)).reshape(-1)
    return rows[rows < count]
