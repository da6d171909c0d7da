"""The order in which an epoch takes its rows: a function of (seed, epoch) and of nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["epoch_order"]


def epoch_order(count: int, seed: int, epoch: int, shuffle: bool = True) -> NDArray[np.int64]:
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

    Returns
    -------
    ndarray of shape (count,), int64
    """
    order = np.arange(count)
    if shuffle:
        from nnkit.kernels import host

        host.kernel("shuffle", np.dtype(np.float64)).entry(order, epoch, seed & 0xFFFFFFFF, seed >> 32)
    return order
