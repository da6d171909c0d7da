"""Predictions from a network's outputs, and the average of several networks, without overflow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnkit.nn.losses import Link

__all__ = ["averaged_outputs", "inverse_link"]


def inverse_link(outputs: NDArray, link: Link) -> NDArray[np.float64]:
    """Return probabilities or values for raw outputs.

    Parameters
    ----------
    outputs : ndarray of shape (samples, outputs)
        Logits, or a regression's outputs.
    link : {"identity", "sigmoid", "softmax", "exp"}
        The link of the loss.

    Returns
    -------
    ndarray of the same shape, float64
        For infinite logits, the limit if there is one: a class with the only infinite logit has probability
        1. NaN if there is none.
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


def averaged_outputs(outputs: Sequence[NDArray], link: Link) -> NDArray[np.float64]:
    """Return raw outputs, (samples, outputs), that predict the mean of several networks' predictions.

    They are computed from logarithms of the probabilities, which do not underflow.

    Parameters
    ----------
    outputs : sequence of ndarray of shape (samples, outputs)
        Each network's raw outputs for the same rows.
    link : {"identity", "sigmoid", "softmax", "exp"}
        The link of the loss.
    """
    z = np.stack(outputs).astype(np.float64)
    if link == "identity":
        return z.mean(axis=0)
    if link == "sigmoid":
        # log p = −log(1 + exp(−z)), log(1 − p) = −log(1 + exp(z))
        return np.logaddexp.reduce(-np.logaddexp(0, -z)) - np.logaddexp.reduce(-np.logaddexp(0, z))
    if link == "softmax":
        z = z - np.logaddexp.reduce(z, axis=2, keepdims=True)
    return np.logaddexp.reduce(z) - np.log(len(z))
