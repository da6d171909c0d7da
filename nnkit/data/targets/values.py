"""Check the values of a target and show them in messages; split, encode and join lists of labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.data import messages
from nnkit.errors import DataError

__all__ = [
    *("as_numbers", "called", "check_target", "distinct_values", "encode_lists", "find_labels"),
    *(
        "find_separator",
        "is_number",
        "is_zeros_and_ones",
        "join_labels",
        "listed",
        "looks_like_lists",
        "shown",
    ),
]

_LONGEST_SHOWN = 60  # label in a message
_SEPARATORS = (";", "|", ",")
_LISTS_SHARE = 0.5
_LONGEST_LABEL = 40


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
            f"{called(names)}a target of shape (samples,) or (samples, k) with at least one row is required, "
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
    """Return the beginning of a message about a target."""
    return f"target {listed(list(names))}: " if names else ""


def shown(label: Any) -> str:
    """Return a label for a message, shortened."""
    return messages.shortened(repr(label), _LONGEST_SHOWN)


def listed(labels: Sequence[Any]) -> str:
    """Return labels for a message, the first of them where there are many."""
    return messages.listed(map(repr, labels), 10)


def is_zeros_and_ones(values: NDArray) -> bool:
    """Tell whether all values are the numbers 0 and 1."""
    return values.dtype.kind in "biuf" and bool(np.all((values == 0) | (values == 1)))


def distinct_values(values: NDArray, names: Sequence[str]) -> tuple[NDArray, NDArray[np.intp], NDArray]:
    """Return the distinct values, ascending, the first row of each, and each row's place among them."""
    try:
        found, rows, places = np.unique(values, return_index=True, return_inverse=True)
    except TypeError:
        raise DataError(f"{called(names)}labels are either numbers or texts, not a mixture") from None
    return found, rows, places.reshape(-1)


def as_numbers(values: NDArray, names: Sequence[str]) -> NDArray[np.float64]:
    """Return finite numbers; a DataError names the first value that is not one."""
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


# --- lists of labels ---


def find_separator(cells: Iterable[Any]) -> str:
    """Return the separator of labels: the sign in most texts, or for lists a sign in no label; else ""."""
    cells = list(cells)
    texts = [cell for cell in cells if isinstance(cell, str)]
    if len(texts) < len(cells):
        labels = "".join(label for cell in cells for label in split_labels(cell, ""))
        return next((sign for sign in _SEPARATORS if sign not in labels), _SEPARATORS[0])
    counts = [sum(sign in text for text in texts) for sign in _SEPARATORS]
    return _SEPARATORS[int(np.argmax(counts))] if any(counts) else ""


def split_labels(cell: Any, separator: str) -> tuple[str, ...]:
    """Return the distinct labels of a cell, which is a text or a sequence of labels."""
    if isinstance(cell, str):
        cell = cell.split(separator) if separator else [cell]
    return tuple(dict.fromkeys(filter(None, (str(label).strip() for label in cell))))


def join_labels(chosen: NDArray, labels: Sequence[str], separator: str) -> NDArray[np.object_]:
    """Return each row's labels as one text; `chosen` is of shape (samples, labels)."""
    joined = [
        separator.join(label for label, yes in zip(labels, row, strict=True) if yes)
        for row in chosen.astype(bool).tolist()
    ]
    return np.array(joined, dtype=object)


def find_labels(cells: Iterable[Any], separator: str) -> tuple[str, ...]:
    """Return all distinct labels, sorted."""
    return tuple(sorted({label for cell in set(cells) for label in split_labels(cell, separator)}))


def encode_lists(
    cells: NDArray, labels: Sequence[str], separator: str, names: Sequence[str]
) -> NDArray[np.int8]:
    """Return 0 and 1 for each row and label, shape (samples, labels); a DataError names an unknown label."""
    places = {label: place for place, label in enumerate(labels)}
    known: dict[Any, list[int]] = {}
    encoded = np.zeros((len(cells), len(labels)), np.int8)
    for row, cell in enumerate(cells.tolist()):
        if cell not in known:
            found = split_labels(cell, separator)
            for label in found:
                if label not in places:
                    raise DataError(
                        f"{called(names)}label {shown(label)} is not among the labels that the model knows, "
                        f"first in row {row} (counting from 0): they are {listed(labels)}"
                    )
            known[cell] = [places[label] for label in found]
        encoded[row, known[cell]] = 1
    return encoded


def looks_like_lists(values: Sequence[Any]) -> bool:
    """Tell whether most cells are lists: many different combinations of few labels."""
    texts = [value for value in values if isinstance(value, str)]
    separator = find_separator(set(texts)) if len(texts) == len(values) else ""
    if not separator or sum(separator in text for text in texts) <= _LISTS_SHARE * len(texts):
        return False
    cells = set(texts)
    labels = find_labels(cells, separator)
    return 1 < len(labels) < len(cells) and max(map(len, labels)) <= _LONGEST_LABEL
