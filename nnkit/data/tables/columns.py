"""Read columns of a table: as numbers, as texts, or as a target; by several threads where they are long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nnkit.backends.blas import usable_cores
from nnkit.data.messages import shortened
from nnkit.data.tables.arrow import null_of, numpy_array, text_scalar
from nnkit.data.tables.numerals import parse_numbers
from nnkit.data.tables.schema import toml_text
from nnkit.errors import DataError

__all__ = [
    "ColumnKind",
    "column_kind",
    "each_column",
    "is_list_of_labels",
    "label_lists",
    "numbers",
    "target_values",
    "texts",
    "type_kind",
]

ColumnKind = Literal["number", "time", "category", "empty"]
TypeKind = Literal["number", "date", "boolean", "text", "category", "empty", "nested"]

_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_SECONDS_A_DAY = 86400.0
_LONGEST_TYPE = 80  # in a message: a nested type names all its fields
# Arrow and NumPy release Python's lock; shorter columns are read before another thread begins.
_FEWEST_ROWS = 20_000
_Column = TypeVar("_Column")
_Result = TypeVar("_Result")


def each_column(
    function: Callable[[_Column], _Result], columns: Sequence[_Column], rows: int
) -> list[_Result]:
    """Apply a function to each column of `rows` rows, by several threads where the columns are long."""
    if rows < _FEWEST_ROWS or len(columns) < 2:
        return [function(column) for column in columns]
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(function, columns))


def type_kind(type_: pa.DataType) -> TypeKind:
    """Return what a column of an Arrow type holds; "text" may still be numbers or dates, written out."""
    types = pa.types
    if types.is_null(type_):
        return "empty"
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_date(type_) or types.is_time(type_) or types.is_timestamp(type_) or types.is_duration(type_):
        return "date"
    if types.is_boolean(type_):
        return "boolean"
    if types.is_string(type_) or types.is_large_string(type_):
        return "text"
    if types.is_dictionary(type_) and not types.is_nested(type_.value_type):
        return "category"
    return "nested"


def column_kind(name: str, type_: pa.DataType) -> ColumnKind:
    """Return how a column is encoded, or raise a DataError where it cannot be."""
    kind = type_kind(type_)
    if kind == "nested":
        raise DataError(
            f"column {name!r} holds {str(type_)[:_LONGEST_TYPE]}, which is neither a number nor a text: "
            "drop it or split it into columns"
        )
    if kind in ("boolean", "text"):
        return "category"
    return "time" if kind == "date" else kind  # type: ignore[return-value]


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _check_finite(name: str, column: pa.ChunkedArray) -> None:
    """Raise a DataError for infinite numbers; rows count from 0, without the header."""
    if not pa.types.is_floating(column.type):
        return
    infinite = pc.is_inf(column)
    if pc.any(infinite).as_py():
        row = _first_row(infinite)
        raise DataError(
            f"column {name!r} holds {column[row].as_py()} in row {row} (counting from 0): correct it "
            "or leave it empty (a missing value)"
        )


def _first_row(flags: pa.ChunkedArray) -> int:
    """Return the first row with the flag True, or -1; `pc.index` would import pandas too."""
    found = np.flatnonzero(numpy_array(flags) & numpy_array(pc.is_valid(flags)))
    return int(found[0]) if len(found) else -1


def numbers(name: str, column: pa.ChunkedArray, kind: str = "number") -> NDArray[np.float64]:
    """Return a column of the kind "number" or "time" as float64, in seconds for "time"; missing is NaN.

    Raises
    ------
    DataError
        Where the column is of the other kind, or a value is infinite or not a number; its row is named.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = column_kind(name, column.type)
    if found == "empty":
        return np.full(len(column), np.nan)
    if (found == "time") != (kind == "time"):
        wanted = "dates or times" if kind == "time" else "numbers"
        raise DataError(f"column {name!r} should hold {wanted}, but holds {str(column.type)[:_LONGEST_TYPE]}")
    if found == "time":
        return _seconds(column)
    if _is_text(column.type):
        column = _parsed(name, column)
    _check_finite(name, column)
    return _to_float(column)


def _to_float(column: pa.ChunkedArray) -> NDArray[np.float64]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = numpy_array(pc.cast(column, pa.float64(), safe=False))
    return np.where(numpy_array(column.is_null()), np.nan, values) if column.null_count else values


def _parsed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read texts as numbers; blank ones are missing."""
    column = pc.utf8_trim_whitespace(column)
    values = parse_numbers(column)
    filled = pc.not_equal(column, text_scalar("", column.type))
    wrong = pc.and_(pc.is_null(values), filled)
    row = _first_row(wrong)
    if row >= 0:
        raise DataError(
            f"column {name!r} should hold numbers, but row {row} (counting from 0) holds "
            f"{shortened(column[row].as_py(), 40)!r}: correct it or leave the cell empty"
        )
    return values


def _seconds(column: pa.ChunkedArray) -> NDArray[np.float64]:
    type_ = column.type
    if pa.types.is_date32(type_):
        return _to_float(column.cast(pa.int32())) * _SECONDS_A_DAY
    whole = pa.int32() if pa.types.is_time32(type_) else pa.int64()
    unit = "ms" if pa.types.is_date64(type_) else type_.unit
    return _to_float(column.cast(whole)) / _UNITS[unit]


def texts(name: str, column: pa.ChunkedArray) -> pa.Array:
    """Return a column's values as texts in one dictionary array; None among its values is missing."""
    kind = column_kind(name, column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind == "empty":
        column = pa.chunked_array([pa.nulls(len(column), pa.string())])
    elif kind == "time":
        raise DataError(f"column {name!r} should hold texts, but holds {str(column.type)[:_LONGEST_TYPE]}")
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), null_of(column.type), column)
    try:
        encoded = column.cast(pa.string()).dictionary_encode(null_encoding="encode").combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r} cannot be read as text: {str(error)[:160]}") from None
    if isinstance(encoded, pa.ChunkedArray):
        encoded = (
            encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
        )
    return encoded


def is_list_of_labels(type_: pa.DataType) -> bool:
    """Tell whether each cell of a column is a list of texts or numbers."""
    types = pa.types
    lists = types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)
    return lists and type_kind(type_.value_type) in ("text", "number", "boolean", "category", "empty")


def label_lists(name: str, column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Return a target of lists as tuples of texts; a DataError names the first row without a list."""
    cells = column.to_pylist()
    values = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        if cell is None or None in cell:
            what = "is missing" if cell is None else "holds a missing label"
            raise DataError(
                f"target {name!r} {what} in row {row} (counting from 0): leave out the rows without a "
                "target, and write [] for no label"
            )
        values[row] = tuple(str(label) for label in cell)
    return values


def target_values(name: str, column: pa.ChunkedArray) -> NDArray:
    """Return a target column in its own type: texts as objects, numbers and booleans as such.

    Raises
    ------
    DataError
        Where the target of a row (which is named) is missing or infinite, or the type suits no target.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column_kind(name, column.type)
    if kind == "time":
        raise DataError(
            f"target {name!r} holds dates or times: turn them into numbers, such as days, or take each for a "
            f'class by `types` = {{{toml_text(name)} = "category"}}'
        )
    missing = pc.is_null(column, nan_is_null=True)
    row = _first_row(missing)
    if row >= 0:
        count = pc.sum(missing).as_py()
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise DataError(
            f"target {name!r} is missing in row {row} (counting from 0){more}: leave out the rows without "
            "a target"
        )
    if _is_text(column.type):
        encoded = texts(name, column)
        labels = np.array(encoded.dictionary.to_pylist(), dtype=object)
        return labels[numpy_array(encoded.indices)]
    _check_finite(name, column)
    if pa.types.is_decimal(column.type):
        return _to_float(column)
    return numpy_array(column)
