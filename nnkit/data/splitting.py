"""Split rows into a training and a validation part, the same rows for the same seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import ConfigError, DataError

__all__ = ["split_rows"]


def split_rows(
    count: int, share: float, seed: int, classes: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a validation share, between 0 and 1, of `count` rows; the same seed draws the same rows.

    With `classes`, integer codes of shape (count,), each class has its share of the validation rows (to
    within one row), and keeps at least one row for training.

    Returns
    -------
    training, validation : ndarray of int64
        Row numbers, ascending.

    Raises
    ------
    ConfigError
        Where `share` is not between 0 and 1.
    DataError
        Where a side would be empty.
    """
    if not 0 < share < 1:
        raise ConfigError(f"a validation share lies between 0 and 1, not at {share:g}")
    wanted = int(count * share + 0.5)
    if wanted == 0 or wanted >= count:
        side = "validation" if wanted == 0 else "training"
        raise DataError(
            f"a validation share of {share:g} leaves none of the {count} rows for {side}: "
            "choose another share, or train without validation"
        )
    generator = np.random.Generator(np.random.Philox(seed))
    if classes is None:
        validation = generator.permutation(count)[:wanted]
    else:
        validation = _stratified(np.asarray(classes), wanted, generator)
    held = np.zeros(count, dtype=bool)
    held[validation] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _stratified(classes: NDArray, wanted: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw about `wanted` rows, distributed over the classes by largest remainder."""
    _, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    exact = sizes * (wanted / len(classes))
    quota = np.floor(exact).astype(np.int64)
    # The random second key lets equal remainders not always favour the first classes.
    by_remainder = np.lexsort((generator.random(len(sizes)), quota - exact))
    quota[by_remainder[: wanted - int(quota.sum())]] += 1
    quota = np.minimum(quota, sizes - 1)
    if quota.sum() == 0:
        raise DataError(
            "every class has a single row, so that none can validate: give more rows or do without validation"
        )
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(sizes)[:-1])
    return np.concatenate([generator.permutation(rows)[:n] for rows, n in zip(members, quota, strict=True)])
