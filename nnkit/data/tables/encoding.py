"""Encode tables: numbers are filled in, scaled and flagged, categories become codes, texts bags of ids.

Order: operations from the training rows, rows encoded, categories matched, tables as arrays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nnkit.data.messages import listed
from nnkit.data.operations import (
    CategoryColumn,
    ColumnOperation,
    NumberColumn,
    Rows,
    TextColumn,
    flagged_columns,
)
from nnkit.data.tables.arrow import arrow_array, numpy_array
from nnkit.data.tables.columns import each_column, numbers, texts
from nnkit.data.tables.numerals import PLAIN_NUMBER
from nnkit.data.tables.reading import Misfits
from nnkit.data.tables.schema import Column, Schema
from nnkit.data.text.encoding import encode_texts, fit_texts
from nnkit.data.text.options import TextOptions
from nnkit.errors import DataError
from nnkit.feed.features import Bags, Features
from nnkit.feed.statistics import ColumnStatistics

__all__ = [
    "MOST_ONE_HOT",
    "categories_of",
    "check_present",
    "codes_of",
    "encode_table",
    "fit_table",
    "table_as_array",
]

# A column of text with more values than this, or with a value of its own in nearly each row, is free text
# or an identifier: each one-hot place would see too few rows to learn from.
_MOST_CATEGORIES = 1000
_UNIQUE_SHARE = 0.9
# With "auto", a category of more values than this, missing ones included, is embedded. With one-hot inputs,
# each value has a row of the first layer's weights, which learnt better for 14 values and as well for 28;
# RealMLP's bound is 9 (Holzmüller et al. 2024, arXiv:2407.04491).
MOST_ONE_HOT = 50
# With "auto", a column of more than `_MOST_CATEGORIES` values is dropped if it has fewer rows than this for
# each value, on average.
_ROWS_OF_MANY = 10
# Numbers that programs write for a missing value, if they are this many times the range of all others away.
_CODES_OF_MISSING, _FAR = (99.0, 999.0, 9999.0, 99999.0, 999999.0), 2.0
_UNIQUE_ROWS = 20


@dataclass
class _Fitted:
    operations: list[ColumnOperation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)

    def drop(self, name: str, why: str) -> None:
        self.notes.append(f"dropped column {name!r}: {why}")

    def add(self, other: _Fitted) -> None:
        """Add the results of another column."""
        self.operations += other.operations
        self.notes += other.notes
        self.constant += other.constant


def fit_table(
    table: pa.Table,
    schema: Schema,
    rows: Rows,
    scaling: str,
    text: TextOptions | None = None,
    categories: str = "onehot",
    missing_flags: bool = True,
) -> tuple[tuple[ColumnOperation, ...], tuple[str, ...], tuple[str, ...]]:
    """Return operations for the columns to learn from, notes on the others, and the constant columns.

    The table was read by the schema. Without `text` no column is encoded as text. The other arguments are
    those of `Preprocessor.fit`.
    """
    fitted = _Fitted()
    named_texts = () if text is None or text.columns is None else text.columns

    def fit_number(name: str) -> _Fitted:
        kind = "time" if schema.by_name[name].kind == "date" else "number"
        found, values = _Fitted(), numbers(name, table[name], kind)
        statistics = ColumnStatistics(values if rows is None else values[rows])
        _fit_number(name, statistics, kind, scaling, missing_flags, found)
        return found

    counted = [
        name
        for name in table.column_names
        if schema.by_name[name].kind in ("number", "date") and name not in named_texts
    ]
    of_numbers = dict(zip(counted, each_column(fit_number, counted, len(table)), strict=True))
    for name in table.column_names:
        column, entry = table[name], schema.by_name[name]
        if name in named_texts or (entry.kind == "text" and (text is None or text.columns is None)):
            _fit_text(name, column, rows, text, fitted)
        elif name in of_numbers:
            fitted.add(of_numbers[name])
        elif entry.kind in ("category", "boolean", "text"):
            taken = column if rows is None else column.take(arrow_array(rows))
            _fit_category(name, taken, categories, fitted)
        else:
            fitted.drop(name, entry.why_left_out)
    if not fitted.operations:
        raise DataError(
            f"no column is left to learn from: {'; '.join(fitted.notes) or 'the table has no columns'}"
        )
    return tuple(fitted.operations), tuple(fitted.notes), tuple(fitted.constant)


def _fit_text(
    name: str, column: pa.ChunkedArray, rows: Rows, options: TextOptions | None, fitted: _Fitted
) -> None:
    if options is None:
        fitted.drop(name, "it is free text: give `text` to learn from it")
        return
    operation, note = fit_texts(name, column, rows, options)
    fitted.notes.append(note)
    if operation is not None:
        fitted.operations.append(operation)


def _fit_number(
    name: str,
    statistics: ColumnStatistics,
    kind: str,
    scaling: str,
    missing_flags: bool,
    fitted: _Fitted,
) -> None:
    absent = statistics.missing
    if absent == statistics.count:
        fitted.drop(name, "every value is missing")
        return
    low, high, fill = statistics.low, statistics.high, statistics.median
    if low == high:
        fitted.drop(name, f"every value is the same, {low:g}")
        fitted.constant.append(name)
        return
    if kind == "number":
        fitted.notes += _codes_of_missing(name, statistics)
    if kind == "time":
        fitted.notes.append(f"column {name!r} holds dates or times: they become numbers, in seconds")
    if absent:
        words = "value in {!r} becomes" if absent == 1 else "values in {!r} become"
        beside = ", beside a flag" if missing_flags else ""
        fitted.notes.append(f"{absent} missing {words.format(name)} the median {fill:g}{beside}")
    shift, spread = _shift_and_spread(statistics, scaling)
    scale = 1.0 / spread if spread > 0 else 0.0
    if not (np.isfinite(shift) and np.isfinite(scale) and scale > 0):
        raise DataError(
            f"column {name!r} cannot be scaled, with values from {low:g} to {high:g}: rescale or drop it"
        )
    flagged = missing_flags and absent > 0
    clipped = scaling == "robust"
    fitted.operations.append(NumberColumn(name, kind, fill, shift, scale, flagged, clipped))


def _shift_and_spread(statistics: ColumnStatistics, scaling: str) -> tuple[float, float]:
    """Return what is subtracted from a column, and what it is then divided by."""
    if scaling == "none":
        return 0.0, 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        width = statistics.high - statistics.low
        if scaling == "unit":
            return statistics.low, width
        if scaling == "robust":
            lower, upper = statistics.quantiles((0.25, 0.75)).tolist()
            return statistics.median, upper - lower or width / 2
        return statistics.moments(statistics.median)


def _codes_of_missing(name: str, statistics: ColumnStatistics) -> list[str]:
    """Return a note where the least or the greatest value looks like a code for a missing one: -999, 9999."""
    notes = []
    lowest, highest = statistics.extremes()
    for one, other in ((lowest, highest), (highest, lowest)):
        if abs(one.value) not in _CODES_OF_MISSING:
            continue
        # With two values in all, the other one is the nearest, and the range of all others is 0.
        reach = abs(other.value - one.nearest) or 1.0
        if one.rows > 1 and abs(one.value - one.nearest) > _FAR * reach:
            notes.append(
                f"column {name!r}: {one.value:g} stands in {one.rows:,} rows, far from all other values; if "
                f'it means a missing one, set `missing` = ["{one.value:g}"]'
            )
    return notes


def _fit_category(name: str, column: pa.ChunkedArray, categories: str, fitted: _Fitted) -> None:
    counts = pc.value_counts(texts(name, column).dictionary_decode())
    found = dict(zip(*(part.to_pylist() for part in counts.flatten()), strict=True))
    absent = found.pop(None, 0)
    present = len(column) - absent
    many = len(found) + (absent > 0) > MOST_ONE_HOT
    embedded = categories == "embed" or (categories == "auto" and many)
    learnable = len(found) <= _MOST_CATEGORIES or (embedded and present >= _ROWS_OF_MANY * len(found))
    unique = present > _UNIQUE_ROWS and len(found) > _UNIQUE_SHARE * present
    if present == 0:
        fitted.drop(name, "every value is missing")
    elif len(found) == 1 and not absent:
        fitted.drop(name, f"every value is the same, {next(iter(found))[:40]!r}")
        fitted.constant.append(name)
    elif unique or not (categories == "embed" or learnable):
        fitted.drop(name, f"{len(found)} different texts in {present} rows (free text or identifiers)")
    else:
        if absent:
            words = (
                "value in {!r} is a category of its"
                if absent == 1
                else "values in {!r} are a category of their"
            )
            fitted.notes.append(f"{absent} missing {words.format(name)} own")
        fitted.operations.append(
            CategoryColumn(name, tuple(sorted(found)), embedded, "missing" if absent else "none")
        )


def encode_table(
    table: pa.Table, operations: Sequence[ColumnOperation], rows: Rows, dtype: np.dtype
) -> tuple[Features, list[Misfits]]:
    """Encode the rows of a table that was read by the model's schema.

    Columns are matched by name; others are ignored. The misfits are categories that the training data lack.
    """
    check_present(table.column_names, [operation.column for operation in operations])
    number_columns = [operation for operation in operations if isinstance(operation, NumberColumn)]
    categories = [operation for operation in operations if isinstance(operation, CategoryColumn)]
    count = len(table) if rows is None else len(rows)
    flagged = flagged_columns(operations)
    flags = {number.column: place for place, number in enumerate(flagged, len(number_columns))}
    dense = np.empty((count, len(number_columns) + len(flags)), dtype=dtype)

    def encode(place: int) -> None:
        number = number_columns[place]
        values = numbers(number.column, table[number.column], number.kind)
        values = values if rows is None else values[rows]
        dense[:, place] = _encode_number(number, values, rows, dtype)
        if number.flagged:
            dense[:, flags[number.column]] = np.isnan(values)

    each_column(encode, range(len(number_columns)), count)
    coded = {
        category.column: _encode_category(category, table[category.column], rows) for category in categories
    }
    bags = []
    for operation in operations:
        if isinstance(operation, TextColumn):
            bags.append(encode_texts(operation, table[operation.column], rows, dtype))
        elif isinstance(operation, CategoryColumn) and operation.embedded:
            bags.append(_bags(coded[operation.column][0], operation.places))
    unseen = [found for _, found in coded.values() if found is not None]
    one_hot = [category for category in categories if not category.embedded]
    if not one_hot:
        return Features(dense, bags=tuple(bags)), unseen
    codes = np.empty((count, len(one_hot)), dtype=np.int32)
    for place, category in enumerate(one_hot):
        codes[:, place] = coded[category.column][0]
    cardinalities = tuple(category.places for category in one_hot)
    return Features(dense, codes=codes, cardinalities=cardinalities, bags=tuple(bags)), unseen


def _bags(codes: NDArray[np.int32], places: int) -> Bags:
    """Return a bag of one id for each row, and an empty one for the code -1."""
    placed = codes >= 0
    return Bags(codes[placed], np.concatenate([[0], np.cumsum(placed)]), places)


def check_present(names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise a DataError where a table with columns of these names lacks a column of the model."""
    present = set(names)
    missing = [name for name in wanted if name not in present]
    if missing:
        plural = "column" if len(missing) == 1 else "columns"
        raise DataError(
            f"{plural} {listed(map(repr, missing))} missing: the model was trained on them; "
            f"there are {listed(map(repr, names))}"
        )


def _encode_number(
    operation: NumberColumn, values: NDArray[np.float64], rows: Rows, dtype: np.dtype
) -> NDArray:
    with np.errstate(over="ignore"):
        stored = operation.encoded(values).astype(dtype)
    if not np.isfinite(stored).all():
        place = int(np.argmin(np.isfinite(stored)))
        row = place if rows is None else int(rows[place])
        raise DataError(
            f"column {operation.column!r} in row {row} (counting from 0) is too large for {dtype}: rescale it"
        )
    return stored


def _encode_category(
    operation: CategoryColumn, column: pa.ChunkedArray, rows: Rows
) -> tuple[NDArray[np.int32], Misfits | None]:
    """Return each row's code, and the values that the training data lack."""
    encoded = texts(operation.column, column)
    names = encoded.dictionary.to_pylist()
    found = codes_of(operation.values, names)
    indices = numpy_array(encoded.indices)
    taken = indices if rows is None else indices[rows]
    unseen = [place for place, name in enumerate(names) if found[place] < 0 and name is not None]
    without = {place: operation.missing_code for place, name in enumerate(names) if name is None}
    without |= dict.fromkeys(unseen, operation.unseen_code)
    codes = np.array([without.get(place, code) for place, code in enumerate(found)], np.int32)[taken]
    places = np.flatnonzero(np.isin(taken, unseen))
    if not len(places):
        return codes, None
    row = int(places[0] if rows is None else rows[places[0]])
    text = str(names[indices[row]])
    alike = next((value for value in operation.values if value.lower() == text.lower()), "")
    entry = Column(operation.column, "category")
    return codes, Misfits(entry, len(places), len(codes), row, text, unseen=True, alike=alike)


def categories_of(operation: CategoryColumn, column: pa.ChunkedArray, rows: Rows) -> tuple[list[str], bool]:
    """Return the values that have no place yet, sorted, and whether values are missing."""
    encoded = texts(operation.column, column)
    indices = numpy_array(encoded.indices)
    used = set(np.unique(indices if rows is None else indices[rows]).tolist())
    names = [name for place, name in enumerate(encoded.dictionary.to_pylist()) if place in used]
    found = zip(names, codes_of(operation.values, names), strict=True)
    return sorted(name for name, code in found if name is not None and code < 0), None in names


def codes_of(values: Sequence[str], texts: Sequence[str | None]) -> list[int]:
    """Return the code of each text, or -1: of the value it equals, else of the only one that means the same.

    Another file may hold 1.0 or True as a number or a boolean: 1.0 is also 1, and True is true.
    """
    places = {value: code for code, value in enumerate(values)}
    found = [-1 if text is None else places.get(text, -1) for text in texts]
    if any(code < 0 and text is not None for code, text in zip(found, texts, strict=True)):
        for same in (_value_key, _number_key):
            keys: dict[str, list[int]] = {}
            for code, value in enumerate(values):
                keys.setdefault(same(value), []).append(code)
            alike = {key: codes[0] for key, codes in keys.items() if key and len(codes) == 1}
            found = [
                alike.get(same(text), -1) if code < 0 and text is not None else code
                for code, text in zip(found, texts, strict=True)
            ]
    return found


def _value_key(text: str) -> str:
    """Return a key shared by texts of the same boolean, or the same number without leading zeros; else ""."""
    lower = text.lower()
    if lower in ("true", "false"):
        return lower
    return "" if re.match("[+-]?0[0-9]", text) else _number_key(text)


def _number_key(text: str) -> str:
    if not re.fullmatch(PLAIN_NUMBER, text):
        return ""
    # Two account numbers of 17 digits may be one float.
    whole = re.fullmatch(r"\+?(-?)0*([0-9]+)(?:\.0*)?", text)
    if whole:
        return whole[1] + whole[2] if whole[2] != "0" else "0"
    number = float(text)
    return str(int(number)) if number.is_integer() else repr(number)


def table_as_array(table: pa.Table, count: int, names: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return a table of numbers as an array of `count` columns, found by name where names are given."""
    if names:
        check_present(table.column_names, names)
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
