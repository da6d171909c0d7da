"""A model's input columns as the user has them, and the place of each among the network's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.data.operations import (
    ArrayColumns,
    CategoryColumn,
    NumberColumn,
    PictureColumns,
    PlainRows,
    TextColumn,
    flagged_columns,
)
from nnkit.errors import DataError
from nnkit.feed.features import Bags, Features
from nnkit.model import Model

__all__ = ["Column", "embedded_terms", "model_columns", "permuted", "spread", "term_name"]


@dataclass(frozen=True)
class Column:
    """One of the columns that a model was trained on."""

    name: str  # a table's; an array's number; a picture's channel and pixel
    part: Literal["dense", "codes", "bags"]  # the part of the encoded `Features` that holds it
    place: int  # its column there, or its place among the bags
    first: int  # its first place among the inputs of the network's first layer
    width: int
    flag: int | None = None  # the dense column, and the input, that is 1 where the number is missing

    @property
    def inputs(self) -> list[int]:
        """Its places among the inputs of the network's first layer."""
        return [*range(self.first, self.first + self.width), *([] if self.flag is None else [self.flag])]


def model_columns(model: Model) -> tuple[Column, ...]:
    """Return the columns in the order of the model's own preprocessing."""
    preprocessor = model.preprocessor
    if isinstance(preprocessor.operations[0], ArrayColumns | PictureColumns | PlainRows):
        return tuple(Column(name, "dense", j, j, 1) for j, name in enumerate(preprocessor.output_names))
    widths = iter([layer.width for layer in model.network.embeddings])
    numbers = sum(isinstance(operation, NumberColumn) for operation in preprocessor.operations)
    flagged = flagged_columns(preprocessor.operations)
    flags = {operation.column: place for place, operation in enumerate(flagged, numbers)}
    nexts = {"dense": (0, 0), "codes": (0, numbers + len(flags)), "bags": (0, preprocessor.width)}
    columns = []
    for operation in preprocessor.operations:
        part: Literal["dense", "codes", "bags"]
        if isinstance(operation, NumberColumn):
            part, width = "dense", 1
        elif isinstance(operation, CategoryColumn) and not operation.embedded:
            part, width = "codes", operation.places
        else:
            assert isinstance(operation, CategoryColumn | TextColumn)
            part, width = "bags", next(widths)
        place, first = nexts[part]
        flag = flags.get(operation.column)
        columns.append(Column(operation.column, part, place, first, width, flag))
        nexts[part] = (place + 1, first + width)
    return tuple(columns)


def spread(model: Model, features: Features) -> NDArray[np.float64]:
    """Return encoded rows as they enter the network's first layer, shape (rows, inputs).

    These are the scaled numbers, their flags, one-hot categories and embedded bags.
    """
    if features.sparse is not None:
        raise DataError("rows of a sparse matrix are not explained: give them as an array")
    dense = (features.dense if features.rows is None else features.dense[features.rows]).astype(np.float64)
    dense = dense if features.shift is None else dense - features.shift
    blocks = [dense if features.scale is None else dense * features.scale]
    if features.codes is not None:
        for codes, places in zip(features.codes.T, features.cardinalities, strict=True):
            blocks.append((codes[:, None] == np.arange(places)).astype(np.float64))
    tables = model.network.tables() if features.bags else []
    for bags, (embedding, table) in zip(features.bags, tables, strict=True):
        blocks.append(_embedded(bags, table, embedding.reduce))
    return np.concatenate(blocks, axis=1)


def _embedded(bags: Bags, table: NDArray, reduce: str) -> NDArray[np.float64]:
    """Return each bag's vector, as the network's lookup makes it."""
    vectors = np.zeros((len(bags), table.shape[1]))
    for row in range(len(bags)):
        ids, weights = _weights(bags, row, reduce)
        if len(ids):
            found = table[ids].astype(np.float64)
            vectors[row] = found.max(axis=0) if reduce == "max" else weights @ found
    return vectors


def _weights(bags: Bags, row: int, reduce: str) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the ids of a row's bag, and the weight of each in its vector."""
    place = slice(bags.starts[row], bags.starts[row + 1])
    ids = bags.ids[place]
    weights = np.ones(len(ids)) if bags.weights is None else bags.weights[place].astype(np.float64)
    if reduce == "mean":
        total = weights.sum()
        weights = weights / total if total else np.zeros_like(weights)
    return ids, weights


def embedded_terms(bags: Bags, table: NDArray, reduce: str, row: int, slopes: NDArray) -> dict[int, float]:
    """Return the contribution of each id of a row's bag through the bag's vector, from an empty bag on.

    Parameters
    ----------
    bags : Bags
    table : ndarray of shape (size, width)
        The embedding's.
    reduce : {"mean", "sum", "max"}
    row : int
    slopes : ndarray of shape (width,)
        The gradient of the output by the vector, averaged along the path.
    """
    ids, weights = _weights(bags, row, reduce)
    found: dict[int, float] = {}
    if not len(ids):
        return found
    vectors = table[ids].astype(np.float64)
    if reduce == "max":
        # Each element of the vector is that of one id, the first that has the maximum.
        chosen = vectors.argmax(axis=0)
        vectors = np.where(np.arange(len(ids))[:, None] == chosen, vectors, 0.0)
        weights = np.ones(len(ids))
    for key, value in zip(ids.tolist(), (weights * (vectors @ slopes)).tolist(), strict=True):
        found[key] = found.get(key, 0.0) + value
    return found


def term_name(operation: TextColumn | CategoryColumn, row: int) -> str:
    """Return the term or category that a row of an embedding's table stands for."""
    if isinstance(operation, CategoryColumn):
        return operation.names[row]
    if operation.buckets:
        return f"bucket {row}"
    if row == 0:
        return "(unknown words)"
    # A character n-gram begins with a space, unlike a word of the same letters.
    term = operation.terms[row - 1]
    return f"{term[1:]} (characters)" if term.startswith(" ") else term


def permuted(features: Features, columns: Sequence[Column], order: NDArray[np.integer]) -> Features:
    """Return a copy of the rows in which some columns have the values of the rows in `order`."""
    dense, codes, bags = features.dense, features.codes, list(features.bags)
    numbers = [place for column in columns if column.part == "dense" for place in column.inputs]
    categories = [column.place for column in columns if column.part == "codes"]
    if numbers:
        dense = (dense if features.rows is None else dense[features.rows]).copy()
        dense[:, numbers] = dense[order][:, numbers]
        features = replace(features, rows=None)
    if categories and codes is not None:
        codes = codes.copy()
        codes[:, categories] = codes[order][:, categories]
    for column in columns:
        if column.part == "bags":
            bags[column.place] = bags[column.place].take(order)
    return replace(features, dense=dense, codes=codes, bags=tuple(bags))
