"""A model's input columns as the user has them, and where each went among the network's inputs."""

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
)
from nnkit.errors import DataError
from nnkit.feed.features import Bags, Features
from nnkit.model import Model

__all__ = ["Column", "embedded_terms", "model_columns", "permuted", "spread", "term_name"]


@dataclass(frozen=True)
class Column:
    """One of the columns that a model was trained on.

    Parameters
    ----------
    name : str
        A table's; an array's number; a picture's channel and pixel.
    part : {"dense", "codes", "bags"}
        The part of the encoded `Features` that holds it.
    place : int
        Which column of it, or which of the bags.
    first, width : int
        Its places among the inputs of the network's first layer.
    """

    name: str
    part: Literal["dense", "codes", "bags"]
    place: int
    first: int
    width: int


def model_columns(model: Model) -> tuple[Column, ...]:
    """Return the columns in the order of the model's own preprocessing."""
    preprocessor = model.preprocessor
    if isinstance(preprocessor.operations[0], ArrayColumns | PictureColumns | PlainRows):
        return tuple(Column(name, "dense", j, j, 1) for j, name in enumerate(preprocessor.output_names))
    widths = iter([layer.width for layer in model.network.embeddings])
    numbers = sum(isinstance(operation, NumberColumn) for operation in preprocessor.operations)
    nexts = {"dense": (0, 0), "codes": (0, numbers), "bags": (0, preprocessor.width)}
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
        columns.append(Column(operation.column, part, place, first, width))
        nexts[part] = (place + 1, first + width)
    return tuple(columns)


def spread(model: Model, features: Features) -> NDArray[np.float64]:
    """Return rows as they enter the network's first layer: scaled numbers, one-hot places, embedded bags.

    Parameters
    ----------
    model : Model
        With the tables of its embeddings.
    features : Features
        As its preprocessing encodes them.

    Returns
    -------
    ndarray of shape (rows, inputs), float64
    """
    dense = features.dense if features.rows is None else features.dense[features.rows]
    blocks = [_scaled(dense, features)]
    if features.sparse is not None:
        raise DataError("rows of a sparse matrix are not explained: give them as an array")
    if features.codes is not None:
        for codes, places in zip(features.codes.T, features.cardinalities, strict=True):
            blocks.append((codes[:, None] == np.arange(places)).astype(np.float64))
    tables = model.network.tables() if features.bags else []
    for bags, (embedding, table) in zip(features.bags, tables, strict=True):
        blocks.append(_embedded(bags, table, embedding.reduce))
    return np.concatenate(blocks, axis=1)


def _scaled(dense: NDArray, features: Features) -> NDArray[np.float64]:
    values = dense.astype(np.float64)
    if features.shift is not None:
        values -= features.shift
    return values if features.scale is None else values * features.scale


def _embedded(bags: Bags, table: NDArray, reduce: str) -> NDArray[np.float64]:
    """Return each bag's vector, as the network's lookup makes it."""
    vectors = np.zeros((len(bags), table.shape[1]))
    for row in range(len(bags)):
        ids, shares = _shares(bags, row, reduce)
        if len(ids):
            found = table[ids].astype(np.float64)
            vectors[row] = found.max(axis=0) if reduce == "max" else shares @ found
    return vectors


def _shares(bags: Bags, row: int, reduce: str) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the ids of a row's bag, and what each counts in its vector."""
    place = slice(bags.starts[row], bags.starts[row + 1])
    ids = bags.ids[place]
    weights = np.ones(len(ids)) if bags.weights is None else bags.weights[place].astype(np.float64)
    if reduce == "mean":
        total = weights.sum()
        weights = weights / total if total else np.zeros_like(weights)
    return ids, weights


def embedded_terms(bags: Bags, table: NDArray, reduce: str, row: int, slopes: NDArray) -> dict[int, float]:
    """Return what each id of a row's bag contributes through the bag's vector, on a path from an empty bag.

    Parameters
    ----------
    bags : Bags
    table : ndarray of shape (size, width)
        The embedding's.
    reduce : {"mean", "sum", "max"}
    row : int
    slopes : ndarray of shape (width,)
        What one unit of each element of the vector adds to the output, averaged along the path.

    Returns
    -------
    dict of int to float
        By id, together what the vector contributes; empty where the bag is.
    """
    ids, shares = _shares(bags, row, reduce)
    found: dict[int, float] = {}
    if not len(ids):
        return found
    vectors = table[ids].astype(np.float64)
    if reduce == "max":
        # Each element of the vector is that of one id, the first that has the greatest.
        chosen = vectors.argmax(axis=0)
        vectors = np.where(np.arange(len(ids))[:, None] == chosen, vectors, 0.0)
        shares = np.ones(len(ids))
    each = shares * (vectors @ slopes)
    for key, value in zip(ids.tolist(), each.tolist(), strict=True):
        found[key] = found.get(key, 0.0) + value
    return found


def term_name(operation: TextColumn | CategoryColumn, row: int) -> str:
    """Return what a row of an embedding's table stands for."""
    if isinstance(operation, CategoryColumn):
        return operation.values[row] if row < len(operation.values) else "(other)"
    if operation.buckets:
        return f"bucket {row}"
    if row == 0:
        return "(unknown words)"
    # A run of characters is told from a word of the same letters by a space before it.
    term = operation.terms[row - 1]
    return f"{term[1:]} (characters)" if term.startswith(" ") else term


def permuted(features: Features, columns: Sequence[Column], order: NDArray[np.integer]) -> Features:
    """Return the rows with the values of some columns taken from other rows.

    Parameters
    ----------
    features : Features
        Encoded rows; left as they are.
    columns : sequence of Column
        Which columns change.
    order : ndarray of shape (rows,), integers
        The row that each row takes them from.
    """
    dense, codes, bags = features.dense, features.codes, list(features.bags)
    numbers = [column.place for column in columns if column.part == "dense"]
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
