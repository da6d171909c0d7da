"""Encoded rows as the plain arrays that other libraries take."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.feed.features import Features

__all__ = ["dense_rows"]


def dense_rows(rows: Features, dtype: DTypeLike) -> NDArray:
    """Return the network's inputs without embedded vectors, shape (samples, inputs).

    These are the numbers, shifted and scaled, and a one-hot block for each column of codes.
    """
    plain = rows.loaded()
    if plain.sparse is not None:
        sparse = plain.sparse
        out = np.zeros((len(rows), sparse.width), dtype)
        out[np.repeat(np.arange(len(rows)), np.diff(sparse.starts)), sparse.columns] = sparse.values
        return out
    # In the network's type, as a batch is filled.
    x = plain.dense.astype(dtype)
    x = x if plain.shift is None else x - plain.shift.astype(dtype)
    blocks = [x if plain.scale is None else x * plain.scale.astype(dtype)]
    for column, width in enumerate(plain.cardinalities):
        codes = plain.codes[:, column]  # type: ignore[index]
        blocks.append((codes[:, None] == np.arange(width)).astype(dtype))
    return np.concatenate(blocks, axis=1)
