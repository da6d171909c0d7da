"""Read one column of a table: as numbers, as texts, or as a target."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nnkit.errors import DataError

__all__ = [
    "ColumnKind",
    "arrow_array",
    "check_column",
    "column_kind",
    "numbers",
    "numpy_array",
    "target_values",
    "texts",
]

ColumnKind = Literal["number", "time", "category", "empty"]

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
# A column of texts of which this share are numbers is a column of numbers with mistakes in it.
_NUMBER_SHARE = 0.9
# A target of no more different texts than this is labels; numbers may be among them ("0" to "9" and "X") if
# the others are at least this share of the rows.
_LABELS = 20
_TEXT_LABELS_SHARE = 0.05
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_SECONDS_A_DAY = 86400.0
_LONGEST_TYPE = 80  # in a message: a nested type names all its fields


def arrow_array(values: NDArray) -> pa.Array:
    """Wrap plain numbers without a copy; `pa.array` would import pandas (0.6 s)."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def numpy_array(column: pa.Array | pa.ChunkedArray) -> NDArray:
    """Return plain numbers or booleans, not masking the missing.

    `to_numpy` would import pandas, and so would `to_pandas_dtype` before pyarrow 26.
    """
    if pa.types.is_boolean(column.type):
        return numpy_array(column.cast(pa.uint8())).view(np.bool_)
    types = pa.types
    kind = "f" if types.is_floating(column.type) else "u" if types.is_unsigned_integer(column.type) else "i"
    dtype = np.dtype(f"{kind}{column.type.bit_width // 8}")
    parts = [np.empty(0, dtype)]
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        data = chunk.buffers()[1]
        if data is None:
            parts.append(np.zeros(len(chunk), dtype))
        else:
            parts.append(np.frombuffer(data, dtype, len(chunk), chunk.offset * dtype.itemsize))
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def column_kind(name: str, type_: pa.DataType) -> ColumnKind:
    """Say how a column is encoded; a DataError where it cannot be."""
    types = pa.types
    if types.is_null(type_):
        return "empty"
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_date(type_) or types.is_time(type_) or types.is_timestamp(type_) or types.is_duration(type_):
        return "time"
    if types.is_boolean(type_) or _is_text(type_):
        return "category"
    if types.is_dictionary(type_) and not types.is_nested(type_.value_type):
        return "category"
    raise DataError(
        f"column {name!r} holds {_type_name(type_)}, which is neither a number nor a text: "
        "drop it or take it apart"
    )


def _type_name(type_: pa.DataType) -> str:
    return str(type_)[:_LONGEST_TYPE]


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def check_column(name: str, column: pa.ChunkedArray) -> None:
    """Raise a DataError for what no training can use: infinite numbers, and texts among numbers.

    Rows count from 0, without the header.
    """
    kind = column_kind(name, column.type)
    if kind == "number" and pa.types.is_floating(column.type):
        infinite = pc.is_inf(column)
        if pc.any(infinite).as_py():
            row = _first_row(infinite, True)
            raise DataError(
                f"column {name!r} holds {column[row].as_py()} in row {row} (counting from 0): correct it "
                "or leave it empty (a missing value)"
            )
    elif _is_text(column.type):
        _check_texts(name, column)


def _check_texts(name: str, column: pa.ChunkedArray, share: float = _NUMBER_SHARE) -> None:
    """Refuse a column of which at least `share` of the values are numbers and some are not."""
    matches = pc.match_substring_regex(column, _NUMBER)
    numeric = pc.sum(matches).as_py() or 0
    present = len(column) - column.null_count
    if numeric == present or numeric < share * present:
        return
    row = _first_row(matches, False)
    others = present - numeric - 1
    more = f" (and {others} more like it)" if others else ""
    raise DataError(
        f"column {name!r} holds numbers but {_shown(column[row].as_py())} in row {row} (counting from 0)"
        f"{more}: correct it, leave the cell empty, or drop the column"
    )


def _first_row(flags: pa.ChunkedArray, wanted: bool) -> int:
    """Return the first row with that flag, or -1; `pc.index` would import pandas too."""
    found = np.flatnonzero((numpy_array(flags) == wanted) & numpy_array(pc.is_valid(flags)))
    return int(found[0]) if len(found) else -1


def _shown(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:40] + "…")


def numbers(name: str, column: pa.ChunkedArray, kind: str = "number") -> NDArray[np.float64]:
    """Return a column as float64 with NaN for the missing; dates and times become seconds.

    Parameters
    ----------
    name : str
        The column's name, for messages.
    column : pyarrow.ChunkedArray
    kind : {"number", "time"}
        What the column is expected to be.

    Raises
    ------
    DataError
        Where a value is no number, or infinite; its row counts from 0.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = column_kind(name, column.type)
    if found == "empty":
        return np.full(len(column), np.nan)
    if (found == "time") != (kind == "time"):
        wanted = "dates or times" if kind == "time" else "numbers"
        raise DataError(f"column {name!r} should hold {wanted}, but holds {_type_name(column.type)}")
    if found == "time":
        return _seconds(column)
    if _is_text(column.type):
        column = _parsed(name, column)
    check_column(name, column)
    return _to_float(column)


def _to_float(column: pa.ChunkedArray) -> NDArray[np.float64]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = numpy_array(pc.cast(column, pa.float64(), safe=False))
    return np.where(numpy_array(column.is_null()), np.nan, values) if column.null_count else values


def _parsed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read texts as numbers; blank ones are missing."""
    trimmed = pc.utf8_trim_whitespace(column)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)
    matches = pc.match_substring_regex(trimmed, _NUMBER)
    row = _first_row(matches, False)
    if row >= 0:
        raise DataError(
            f"column {name!r} should hold numbers, but row {row} (counting from 0) holds "
            f"{_shown(column[row].as_py())}: correct it or leave the cell empty"
        )
    # Arrow's parser knows no leading plus sign.
    return pc.cast(pc.replace_substring_regex(trimmed, r"^\+", ""), pa.float64())


def _seconds(column: pa.ChunkedArray) -> NDArray[np.float64]:
    type_ = column.type
    if pa.types.is_date32(type_):
        return _to_float(column.cast(pa.int32())) * _SECONDS_A_DAY
    whole = pa.int32() if pa.types.is_time32(type_) else pa.int64()
    unit = "ms" if pa.types.is_date64(type_) else type_.unit
    return _to_float(column.cast(whole)) / _UNITS[unit]


def texts(name: str, column: pa.ChunkedArray) -> pa.Array:
    """Return a column's values as texts in one dictionary array, in which the missing are a None."""
    kind = column_kind(name, column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind == "empty":
        column = pa.chunked_array([pa.nulls(len(column), pa.string())])
    elif kind == "time":
        raise DataError(f"column {name!r} should hold texts, but holds {_type_name(column.type)}")
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        encoded = column.cast(pa.string()).dictionary_encode(null_encoding="encode").combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r} cannot be read as text: {str(error)[:160]}") from None
    if isinstance(encoded, pa.ChunkedArray):
        encoded = (
            encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
        )
    return encoded


def target_values(name: str, column: pa.ChunkedArray) -> NDArray:
    """Return a target column in its own type: texts as objects, numbers and booleans as such.

    Raises
    ------
    DataError
        Where a row has no target or an infinite one, or the type can be no target; the row counts from 0.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column_kind(name, column.type)
    if kind == "time":
        raise DataError(
            f"target {name!r} holds {_type_name(column.type)}: turn it into numbers or classes first"
        )
    missing = pc.is_null(column, nan_is_null=True)
    row = _first_row(missing, True)
    if row >= 0:
        count = pc.sum(missing).as_py()
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise DataError(
            f"target {name!r} is missing in row {row} (counting from 0){more}: leave out the rows without "
            "a target"
        )
    if _is_text(column.type):
        share = _NUMBER_SHARE if pc.count_distinct(column).as_py() > _LABELS else 1 - _TEXT_LABELS_SHARE
        _check_texts(name, column, share)
        encoded = texts(name, column)
        labels = np.array(encoded.dictionary.to_pylist(), dtype=object)
        return labels[numpy_array(encoded.indices)]
    check_column(name, column)
    if pa.types.is_decimal(column.type):
        return _to_float(column)
    return numpy_array(column)
