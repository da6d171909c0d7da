"""Check the values of a target, and show them in messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.errors import DataError

__all__ = [
    "as_numbers",
    "called",
    "check_target",
    "distinct_values",
    "is_number",
    "is_zeros_and_ones",
    "listed",
    "shown",
]

_LONGEST_LABEL = 60  # in a message


def check_target(target: ArrayLike, names: Sequence[str] = ()) -> NDArray:
    """Return the target as an array of shape (samples,) or (samples, k) with k > 1, every value present.

    Raises
    ------
    DataError
        Where it is empty, of another shape or type, or a value is missing or infinite (the row is named).
    """
    values = np.asarray(target)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or values.size == 0:
        raise DataError(
            f"{called(names)}a target of shape (samples,) or (samples, k) with at least one row is wanted, "
            f"not {values.shape}"
        )
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values)
    elif values.dtype.kind == "O":
        bad = np.array([_is_missing(value) for value in values.ravel()], dtype=bool).reshape(values.shape)
    elif values.dtype.kind in "biuU":
        return values
    else:
        raise DataError(f"{called(names)}a target holds numbers, texts or booleans, not {values.dtype}")
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        found = values[bad][0]
        what = "missing" if _is_missing(found) else "infinite"
        raise DataError(
            f"{called(names)}the target of row {row} (counting from 0) is {what}: "
            "leave out the rows without a target"
        )
    return values


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA has no truth value
        return True


def called(names: Sequence[str]) -> str:
    """Return how a message about a target begins."""
    return f"target {listed(list(names))}: " if names else ""


def shown(label: Any) -> str:
    """Return a label for a message, cut short."""
    words = repr(label)
    return words if len(words) <= _LONGEST_LABEL else words[:_LONGEST_LABEL] + "…"


def listed(labels: Sequence[Any], most: int = 10) -> str:
    """Return labels for a message, the first of them where there are many."""
    words = ", ".join(shown(label) for label in labels[:most])
    return words if len(labels) <= most else f"{words}, … ({len(labels)} in all)"


def is_zeros_and_ones(values: NDArray) -> bool:
    """Tell whether there are only numbers 0 and 1."""
    return values.dtype.kind in "biuf" and bool(np.all((values == 0) | (values == 1)))


def distinct_values(values: NDArray, names: Sequence[str]) -> tuple[NDArray, NDArray[np.intp], NDArray]:
    """Return the different values, ascending, the first row of each, and the place of each row's value."""
    try:
        found, rows, places = np.unique(values, return_index=True, return_inverse=True)
    except TypeError:
        raise DataError(f"{called(names)}labels are either numbers or texts, not a mixture") from None
    return found, rows, places.reshape(-1)


def as_numbers(values: NDArray, names: Sequence[str]) -> NDArray[np.float64]:
    """Return finite numbers; a DataError names the first value that is none."""
    try:
        numbers = values.astype(np.float64)
    except (ValueError, TypeError):
        row, found = next(
            (row, value)
            for row, cells in enumerate(values.reshape(len(values), -1).tolist())
            for value in cells
            if not is_number(value)
        )
        raise DataError(
            f"{called(names)}a regression wants numbers, and row {row} (counting from 0) holds "
            f"{shown(found)}: correct it or leave the row out"
        ) from None
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0][0])
        raise DataError(f"{called(names)}the target of row {row} (counting from 0) is not a finite number")
    return numbers


def is_number(value: Any) -> bool:
    """Tell whether a value can be read as a number."""
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True
