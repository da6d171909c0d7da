"""Encode tables: numbers are filled in and standardised, categories become codes, texts bags of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nnkit.core.features import Bags, Features
from nnkit.data.operations import CategoryColumn, ColumnOperation, NumberColumn, TextColumn
from nnkit.data.tables.columns import (
    ColumnKind,
    arrow_array,
    check_column,
    column_kind,
    numbers,
    numpy_array,
    texts,
)
from nnkit.data.text import encode_texts, fit_texts, holds_text
from nnkit.data.text_options import TextOptions
from nnkit.errors import DataError

__all__ = ["encode_table", "fit_table", "table_as_array"]

# A text column with more values than this, or in which nearly each row has a value of its own, is free text
# or an identifier: its one-hot places would each see too few rows to learn from.
_MOST_CATEGORIES = 1000
_UNIQUE_SHARE = 0.9
_UNIQUE_ROWS = 20


@dataclass
class _Fitted:
    operations: list[ColumnOperation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)


def fit_table(
    table: pa.Table,
    rows: NDArray[np.integer] | None,
    scaling: str,
    text: TextOptions | None = None,
    embedded: bool = False,
) -> tuple[tuple[ColumnOperation, ...], tuple[str, ...], tuple[str, ...]]:
    """Return an operation for each column that can be learned from, notes on the others, and constant ones.

    Without `text` no column is learnt from as text; with `embedded`, categories are rows of an embedding.
    """
    fitted = _Fitted()
    for name in table.column_names:
        column = table[name]
        named = text is not None and text.columns is not None and name in text.columns
        if not named:
            check_column(name, column)
        kind = column_kind(name, column.type)
        if named or (kind == "category" and (text is None or text.columns is None) and holds_text(column)):
            _fit_text(name, column, rows, text, fitted)
        elif kind == "empty":
            fitted.notes.append(f"dropped column {name!r}: every value is missing")
        elif kind == "category":
            taken = column if rows is None else column.take(arrow_array(rows))
            _fit_category(name, taken, embedded, fitted)
        else:
            values = numbers(name, column, kind)
            _fit_number(name, values if rows is None else values[rows], kind, scaling, fitted)
    if not fitted.operations:
        raise DataError(
            f"no column is left to learn from: {'; '.join(fitted.notes) or 'the table has no columns'}"
        )
    return tuple(fitted.operations), tuple(fitted.notes), tuple(fitted.constant)


def _fit_text(
    name: str,
    column: pa.ChunkedArray,
    rows: NDArray[np.integer] | None,
    options: TextOptions | None,
    fitted: _Fitted,
) -> None:
    if options is None:
        fitted.notes.append(f"dropped column {name!r}: it is text, and not learnt from here")
        return
    operation, note = fit_texts(name, column, rows, options)
    fitted.notes.append(note)
    if operation is not None:
        fitted.operations.append(operation)


def _fit_number(
    name: str, values: NDArray[np.float64], kind: ColumnKind, scaling: str, fitted: _Fitted
) -> None:
    missing = np.isnan(values)
    absent = int(missing.sum())
    if absent == len(values):
        fitted.notes.append(f"dropped column {name!r}: every value is missing")
        return
    present = values[~missing] if absent else values
    low, high = float(present.min()), float(present.max())
    if low == high:
        fitted.notes.append(f"dropped column {name!r}: every value is the same, {low:g}")
        fitted.constant.append(name)
        return
    fill = float(np.median(present))
    if kind == "time":
        fitted.notes.append(f"column {name!r} holds dates or times: they become numbers, in seconds")
    if absent:
        plural = "value" if absent == 1 else "values"
        verb = "becomes" if absent == 1 else "become"
        fitted.notes.append(f"{absent} missing {plural} in {name!r} {verb} the median {fill:g}")
        values = np.where(missing, fill, values)
    shift, scale = 0.0, 1.0
    if scaling == "unit":
        shift, scale = low, 1.0 / (high - low)
    elif scaling != "none":
        with np.errstate(over="ignore", invalid="ignore"):
            shift, spread = float(values.mean()), float(values.std())
        scale = 1.0 / spread if spread > 0 else 0.0
    if not (np.isfinite(shift) and np.isfinite(scale) and scale > 0):
        raise DataError(
            f"column {name!r} cannot be scaled, with values from {low:g} to {high:g}: rescale or drop it"
        )
    fitted.operations.append(NumberColumn(name, "time" if kind == "time" else "number", fill, shift, scale))


def _fit_category(name: str, column: pa.ChunkedArray, embedded: bool, fitted: _Fitted) -> None:
    counts = pc.value_counts(texts(name, column).dictionary_decode())
    found = dict(zip(*(part.to_pylist() for part in counts.flatten()), strict=True))
    absent = found.pop(None, 0)
    present = len(column) - absent
    if present == 0:
        fitted.notes.append(f"dropped column {name!r}: every value is missing")
    elif len(found) == 1 and not absent:
        fitted.notes.append(f"dropped column {name!r}: every value is the same, {next(iter(found))[:40]!r}")
        fitted.constant.append(name)
    elif (not embedded and len(found) > _MOST_CATEGORIES) or _identifies(len(found), present):
        fitted.notes.append(
            f"dropped column {name!r}: {len(found)} different texts in {present} rows "
            "(free text or identifiers)"
        )
    else:
        if absent:
            plural = "value" if absent == 1 else "values"
            fitted.notes.append(f"{absent} missing {plural} in {name!r} share the place of values never seen")
        fitted.operations.append(CategoryColumn(name, tuple(sorted(found)), embedded))


def _identifies(different: int, present: int) -> bool:
    return present > _UNIQUE_ROWS and different > _UNIQUE_SHARE * present


def encode_table(
    table: pa.Table,
    operations: Sequence[ColumnOperation],
    rows: NDArray[np.integer] | None,
    dtype: np.dtype,
) -> Features:
    """Encode the rows; columns are matched by name, and those that no operation wants are ignored."""
    _check_present(table, [operation.column for operation in operations])
    number_columns = [operation for operation in operations if isinstance(operation, NumberColumn)]
    categories = [operation for operation in operations if isinstance(operation, CategoryColumn)]
    one_hot = [category for category in categories if not category.embedded]
    count = len(table) if rows is None else len(rows)
    dense = np.empty((count, len(number_columns)), dtype=dtype)
    for place, number in enumerate(number_columns):
        dense[:, place] = _encode_number(number, table[number.column], rows, dtype)
    bags = tuple(
        _encode_bags(operation, table[operation.column], rows, dtype)
        for operation in operations
        if isinstance(operation, TextColumn) or (isinstance(operation, CategoryColumn) and operation.embedded)
    )
    if not one_hot:
        return Features(dense, bags=bags)
    codes = np.empty((count, len(one_hot)), dtype=np.int32)
    for place, category in enumerate(one_hot):
        codes[:, place] = _encode_category(category, table[category.column], rows)
    cardinalities = tuple(category.places for category in one_hot)
    return Features(dense, codes=codes, cardinalities=cardinalities, bags=bags)


def _check_present(table: pa.Table, wanted: Sequence[str]) -> None:
    present = set(table.column_names)
    missing = [name for name in wanted if name not in present]
    if missing:
        from nnkit.data.tables.frames import listed

        plural = "column" if len(missing) == 1 else "columns"
        raise DataError(
            f"{plural} {listed(map(repr, missing))} missing: the model was trained on them; "
            f"there are {listed(map(repr, table.column_names))}"
        )


def _encode_bags(
    operation: TextColumn | CategoryColumn,
    column: pa.ChunkedArray,
    rows: NDArray[np.integer] | None,
    dtype: np.dtype,
) -> Bags:
    if isinstance(operation, TextColumn):
        return encode_texts(operation, column, rows, dtype)
    codes = _encode_category(operation, column, rows)
    return Bags(codes, np.arange(len(codes) + 1), operation.places)


def _encode_number(
    operation: NumberColumn, column: pa.ChunkedArray, rows: NDArray[np.integer] | None, dtype: np.dtype
) -> NDArray:
    values = numbers(operation.column, column, operation.kind)
    values = values if rows is None else values[rows]
    with np.errstate(over="ignore", invalid="ignore"):
        values = (np.where(np.isnan(values), operation.fill, values) - operation.shift) * operation.scale
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        place = int(np.argmin(np.isfinite(stored)))
        row = place if rows is None else int(rows[place])
        raise DataError(
            f"column {operation.column!r} in row {row} (counting from 0) is too large for {dtype}: rescale it"
        )
    return stored


def _encode_category(
    operation: CategoryColumn, column: pa.ChunkedArray, rows: NDArray[np.integer] | None
) -> NDArray[np.int32]:
    encoded = texts(operation.column, column)
    places = {value: code for code, value in enumerate(operation.values)}
    other = len(operation.values)
    table = np.array([places.get(value, other) for value in encoded.dictionary.to_pylist()], dtype=np.int32)
    indices = numpy_array(encoded.indices)
    return table[indices if rows is None else indices[rows]]


def table_as_array(table: pa.Table, count: int, names: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return a table of numbers as an array, for a model that was trained on one; columns by name, if any."""
    if names:
        _check_present(table, names)
        table = table.select(names)
    if table.num_columns != count:
        raise DataError(
            f"the table has {table.num_columns} feature columns, the model was trained on {count}"
        )
    columns = [numbers(name, table[name]) for name in table.column_names]
    for name, values in zip(table.column_names, columns, strict=True):
        if np.isnan(values).any():
            row = int(np.argmax(np.isnan(values)))
            raise DataError(
                f"column {name!r} is missing in row {row} (counting from 0), and the model has no value "
                "to fill in"
            )
    return np.column_stack(columns)
