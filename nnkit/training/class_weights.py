"""Class weights as weights of the samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Number, settings_of
from nnkit.errors import ConfigError, DataError
from nnkit.training.settings import TrainingSettings

__all__ = ["class_weights"]


def class_weights(
    class_weight: str | Mapping[int, float], targets: NDArray, outputs: int
) -> NDArray[np.float64]:
    """Return a weight for each sample.

    Parameters
    ----------
    class_weight : "balanced" or mapping of int to float
        ``balanced`` gives class k the weight ``samples / (classes * samples of k)``, as in scikit-learn;
        classes missing in a mapping weigh 1.
    targets : ndarray
        Class indices of shape (samples,), or (samples, 1) of 0 and 1.
    outputs : int
        The network's outputs: the number of classes, or 1 for two.

    Returns
    -------
    ndarray of shape (samples,), float64

    Raises
    ------
    ConfigError
        If a class or weight is out of range.
    DataError
        If the targets are not classes.
    """
    if targets.size != len(targets) or not np.array_equal(targets, np.round(targets)):
        raise DataError("class_weight needs one class for each sample")
    codes = targets.reshape(-1).astype(np.int64)
    classes = max(outputs, 2)
    if codes.min() < 0 or codes.max() >= classes:
        raise DataError(f"class_weight needs classes from 0 to {classes - 1} as targets")
    settings_of(TrainingSettings)["class_weight"].check("class_weight", class_weight)
    if isinstance(class_weight, str):
        counts = np.bincount(codes, minlength=classes)
        table = len(codes) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return table[codes]
    table = np.ones(classes)
    for label, weight in class_weight.items():
        if not isinstance(label, int | np.integer) or not 0 <= label < classes:
            raise ConfigError(f"class_weight names class {label!r}; the classes are 0 to {classes - 1}")
        table[label] = Number(0)(f"class_weight of class {label}", weight)
    return table[codes]
