"""Check targets against a loss and a network, and shape them as the loss kernels read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.core.losses import Loss
from nnkit.errors import DataError

__all__ = ["loss_targets", "loss_weights"]


def loss_targets(y: ArrayLike, loss: Loss, outputs: int, count: int, dtype: DTypeLike) -> NDArray:
    """Return targets as a loss kernel reads them.

    Parameters
    ----------
    y : array_like
        For ``cross_entropy``, class indices of shape (samples,) or probabilities of shape (samples, outputs);
        for other losses, (samples,) or (samples, outputs).
    loss : Loss
        The loss.
    outputs : int
        The network's outputs.
    count : int
        The number of samples.
    dtype : dtype
        The working type.

    Returns
    -------
    ndarray of shape (samples,) int32, or (samples, outputs) in `dtype`

    Raises
    ------
    DataError
        If the shape does not fit, a class index is out of range, or a number is not finite or not a
        probability.
    """
    array = np.asarray(y)
    if array.ndim == 0 or len(array) != count:
        given = 1 if array.ndim == 0 else len(array)
        raise DataError(f"there are {count} rows of features and {given} targets")
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"targets of dtype {array.dtype} are not numbers; encode labels, or use a classifier that does"
        )
    if loss.link == "softmax" and (
        array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1 and outputs > 1)
    ):
        return _class_indices(array.reshape(-1), outputs)
    array = array.reshape(count, -1)
    if array.shape[1] != outputs:
        raise DataError(f"the targets have {array.shape[1]} columns, and the network has {outputs} outputs")
    targets = np.ascontiguousarray(array, dtype)
    if not np.isfinite(targets).all():
        row, column = np.argwhere(~np.isfinite(targets))[0]
        raise DataError(
            f"the target in row {row} is {targets[row, column]}; remove the row or mend the value"
        )
    if loss.link in ("softmax", "sigmoid") and (targets.min() < 0 or targets.max() > 1):
        raise DataError(
            f"targets of {loss.name} lie between 0 and 1; these reach from {targets.min()} to {targets.max()}"
        )
    if loss.link == "exp" and targets.min() < 0:
        raise DataError(
            f"targets of {loss.name} are counts or rates of at least 0; the least here is {targets.min()}"
        )
    return targets


def _class_indices(array: NDArray, outputs: int) -> NDArray[np.int32]:
    indices = array.astype(np.int32)
    if not np.array_equal(indices, array):
        raise DataError(
            "cross_entropy takes whole class indices, or probabilities of shape (samples, outputs)"
        )
    if indices.min() < 0 or indices.max() >= outputs:
        raise DataError(
            f"class indices reach from {indices.min()} to {indices.max()}; "
            f"with {outputs} outputs they are 0 to {outputs - 1}"
        )
    return indices


def loss_weights(sample_weight: ArrayLike | None, count: int, dtype: DTypeLike) -> NDArray | None:
    """Return sample weights of shape (samples,) in `dtype`, or None where none are given.

    Raises
    ------
    DataError
        If there are not as many as samples, or one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    weights = np.ascontiguousarray(sample_weight, dtype)
    if weights.shape != (count,):
        raise DataError(f"sample_weight has shape {weights.shape}, and there are {count} samples")
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise DataError("sample weights must be finite, at least 0, and not all 0")
    return weights
