"""Cells that hold several labels, such as ``a;c``: split, encoded as 0 and 1, and joined again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.targets.values import called, listed, shown
from nnkit.errors import DataError

__all__ = ["encode_lists", "find_labels", "find_separator", "join_labels", "looks_like_lists", "split_labels"]

_SEPARATORS = (";", "|", ",")
_LISTS_SHARE = 0.5
_LONGEST_LABEL = 40


def find_separator(cells: Iterable[Any]) -> str:
    """Return what separates labels: the sign in most cells; of lists, one that no label holds; else ""."""
    cells = list(cells)
    texts = [cell for cell in cells if isinstance(cell, str)]
    if len(texts) < len(cells):
        labels = "".join(label for cell in cells for label in split_labels(cell, ""))
        return next((sign for sign in _SEPARATORS if sign not in labels), _SEPARATORS[0])
    counts = [sum(sign in text for text in texts) for sign in _SEPARATORS]
    return _SEPARATORS[int(np.argmax(counts))] if any(counts) else ""


def split_labels(cell: Any, separator: str) -> tuple[str, ...]:
    """Return the different labels of a cell: a text, or a sequence of them."""
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
    """Return all different labels, sorted."""
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
