"""Targets and sample weights, checked and shaped for the loss kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.errors import DataError
from nnkit.nn.losses import Loss

__all__ = ["loss_targets", "loss_weights"]


def loss_targets(y: ArrayLike, loss: Loss, outputs: int, count: int, dtype: DTypeLike) -> NDArray:
    """Return targets in the shape and type of the loss kernels.

    These are class indices, (samples,) int32, or numbers, (samples, outputs) in `dtype`.

    Parameters
    ----------
    y : array_like
        For ``cross_entropy``, class indices of shape (samples,) or probabilities of shape (samples, outputs);
        for other losses, (samples,) or (samples, outputs).
    loss : Loss
        The loss.
    outputs, count : int
        The number of the network's outputs, and of samples.
    dtype : dtype
        The working type.

    Raises
    ------
    DataError
        If the shape is wrong, a class index is out of range, or a number is not finite or outside the range
        of the loss.
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
    targets = _in_type("target", array, dtype)
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
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.floor(array))
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(
                f"the target in row {row} is {array[row]}; cross_entropy takes whole class indices, or "
                "probabilities of shape (samples, outputs)"
            )
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest >= outputs:
        raise DataError(
            f"class indices reach from {lowest} to {highest}; "
            f"with {outputs} outputs they are 0 to {outputs - 1}"
        )
    return array.astype(np.int32)


def _in_type(what: str, values: NDArray, dtype: DTypeLike) -> NDArray:
    """Return numbers, one or more a row, in the working type; raise if one is not finite in it."""
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, dtype)
    finite = np.isfinite(converted)
    if not finite.all():
        place = tuple(np.argwhere(~finite)[0])
        given, row = values[place], int(place[0])
        if np.isfinite(given):
            raise DataError(
                f"the {what} {given} in row {row} is too large for {converted.dtype}; divide all of them by "
                "a constant, or train with precision='fp64' (dtype='float64' of an estimator)"
            )
        raise DataError(f"the {what} in row {row} is {given}; remove the row or correct the value")
    return converted


def loss_weights(sample_weight: ArrayLike | None, count: int, dtype: DTypeLike) -> NDArray | None:
    """Return sample weights of shape (count,) in `dtype`, or None for None.

    Raises
    ------
    DataError
        If the shape is another one, a weight is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    given = np.asarray(sample_weight)
    if given.shape != (count,):
        raise DataError(f"sample_weight has shape {given.shape}, and there are {count} samples")
    if given.dtype.kind not in "biuf":
        raise DataError(f"sample weights of dtype {given.dtype} are not numbers")
    weights = _in_type("sample weight", given, dtype)
    if weights.min() < 0:
        row = int(np.argmax(weights < 0))
        raise DataError(f"the sample weight in row {row} is {given[row]}; weights are at least 0")
    if weights.max() == 0:
        raise DataError("all sample weights are 0; give at least one row a weight above 0")
    return weights
