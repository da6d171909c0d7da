"""What a network's outputs predict: the inverse link of a loss, stable, on the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnkit.core.losses import Link

__all__ = ["predicted"]


def predicted(outputs: NDArray, link: Link) -> NDArray[np.float64]:
    """Return probabilities or values for raw outputs.

    Parameters
    ----------
    outputs : ndarray of shape (samples, outputs)
        Logits, or a regression's outputs.
    link : {"identity", "sigmoid", "softmax", "exp"}
        The loss's.

    Returns
    -------
    ndarray of the same shape, float64
        Of logits that are infinite, the limit: one that is infinite has probability 1. Not a number where
        there is no limit, as where several are.
    """
    z = outputs.astype(np.float64)
    if link == "softmax":
        return _softmax(z)
    if link == "sigmoid":
        e = np.exp(-np.abs(z))
        return np.where(z >= 0, 1.0, e) / (1.0 + e)
    return np.exp(np.minimum(z, 700.0)) if link == "exp" else z


def _softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    greatest = z.max(axis=1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = z - greatest
    if np.isposinf(greatest).any():
        infinite = np.isposinf(z)
        apart[infinite & (infinite.sum(axis=1, keepdims=True) == 1)] = 0.0
    e = np.exp(apart)
    return e / e.sum(axis=1, keepdims=True)
