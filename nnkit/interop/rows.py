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
    shift = 0.0 if plain.shift is None else plain.shift
    scale = 1.0 if plain.scale is None else plain.scale
    blocks = [((plain.dense.astype(np.float64) - shift) * scale).astype(dtype)]
    for column, width in enumerate(plain.cardinalities):
        codes = plain.codes[:, column]  # type: ignore[index]
        blocks.append((codes[:, None] == np.arange(width)).astype(dtype))
    return np.concatenate(blocks, axis=1)
