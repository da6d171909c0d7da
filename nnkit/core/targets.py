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
    with np.errstate(over="ignore"):
        targets = np.ascontiguousarray(array, dtype)
    if not np.isfinite(targets).all():
        row, column = np.argwhere(~np.isfinite(targets))[0]
        value = array[row, column]
        if np.isfinite(value):
            raise DataError(
                f"the target in row {row}, {value:g}, does not fit in {targets.dtype}: scale the targets, or "
                "take dtype='float64' (of a Trainer: precision='fp64')"
            )
        raise DataError(f"the target in row {row} is {value}; remove the row or correct the value")
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


def loss_weights(
    sample_weight: ArrayLike | None, count: int, dtype: DTypeLike, of: str = "sample_weight"
) -> NDArray | None:
    """Return sample weights of shape (samples,) in `dtype`, or None where none are given.

    Parameters
    ----------
    sample_weight : array_like of shape (samples,), optional
        The weights.
    count : int
        The number of samples.
    dtype : dtype
        The working type.
    of : str
        What messages call the weights.

    Raises
    ------
    DataError
        If there are not as many as samples, or one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    with np.errstate(over="ignore"):
        weights = np.ascontiguousarray(sample_weight, dtype)
    if weights.shape != (count,):
        raise DataError(f"{of} has shape {weights.shape}, and there are {count} samples")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        value = np.asarray(sample_weight)[row]
        if np.isfinite(value) and value > 0:
            raise DataError(
                f"{of} of row {row}, {value:g}, does not fit in {weights.dtype}: divide all by it"
            )
        raise DataError(f"{of} of row {row} is {value:g}; weights must be finite and at least 0")
    if weights.max() == 0:
        raise DataError(f"{of} is 0 in every row; weights must be not all 0")
    return weights
