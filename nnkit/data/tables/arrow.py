"""Arrow arrays from and to NumPy, and of a few texts; pyarrow's own functions import pandas (0.6 s).

Order: conversion, texts, string views (of Polars, and with few functions in Arrow) as plain texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = [
    "arrow_array",
    "null_of",
    "nulled",
    "numpy_array",
    "plain_schema",
    "plain_table",
    "text_array",
    "text_bytes",
    "text_scalar",
    "without_words",
]

_VIEW = np.dtype("V16")
_BEGINS_NUMBER = np.isin(np.arange(256), np.frombuffer(b"0123456789+-.", np.uint8))


def arrow_array(values: NDArray) -> pa.Array:
    """Wrap plain numbers without a copy."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def numpy_array(column: pa.Array | pa.ChunkedArray) -> NDArray:
    """Return plain numbers or booleans, with any value where one is missing.

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


def null_of(type_: pa.DataType) -> pa.Scalar:
    """Return a null."""
    return pa.nulls(1, type_)[0]


def nulled(values: pa.Array, fits: NDArray[np.bool_]) -> pa.Array:
    """Return values with a null where one does not fit."""
    return pc.if_else(arrow_array(fits.view(np.uint8)).cast(pa.bool_()), values, null_of(values.type))


# --- texts ---


def text_array(texts: Sequence[str], type_: pa.DataType | None = None) -> pa.Array:
    """Return texts as an Arrow array."""
    data = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, data)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(data))]
    made = pa.Array.from_buffers(pa.string(), len(data), buffers)
    return made if type_ is None else made.cast(type_)


def text_scalar(text: str, type_: pa.DataType | None = None) -> pa.Scalar:
    """Return a text as an Arrow scalar."""
    return text_array([text], type_)[0]


def text_bytes(column: pa.ChunkedArray) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.integer]]]:
    """Yield the joined bytes of each chunk's texts, and where each text begins and the last ends."""
    for chunk in column.drop_null().chunks if column.null_count else column.chunks:
        _, offsets, data = chunk.buffers()
        if data is not None:
            ends = _offsets(chunk, offsets)
            yield np.frombuffer(data, np.uint8)[ends[0] : ends[-1]], ends - ends[0]


def _offsets(chunk: pa.Array, buffer: pa.Buffer) -> NDArray[np.integer]:
    """Return where each text of a chunk begins and the last ends."""
    size = _offset_size(chunk)
    return np.frombuffer(buffer, f"i{size}", len(chunk) + 1, chunk.offset * size)


def _offset_size(chunk: pa.Array) -> int:
    return 8 if pa.types.is_large_string(chunk.type) else 4


def without_words(column: pa.ChunkedArray, words: pa.Array) -> tuple[pa.ChunkedArray, pa.Array] | None:
    """Return a column of numbers, written out, with null for words, and the texts that became null.

    Only cells that do not begin as a number are looked at, and no text is copied. None where one of these
    cells is neither blank nor among the words, or they are too many for this to be cheaper.
    """
    parts, found = [], []
    for chunk in column.chunks:
        validity, offsets, data = chunk.buffers()
        if validity is not None and chunk.null_count:
            return None
        ends = _offsets(chunk, offsets)
        letters = np.frombuffer(data, np.uint8) if data is not None and len(data) else np.zeros(1, np.uint8)
        first = letters[np.minimum(ends[:-1], len(letters) - 1)]
        odd = (ends[1:] == ends[:-1]) | ~_BEGINS_NUMBER[first]
        places = np.flatnonzero(odd)
        if 2 * len(places) > len(chunk):
            return None
        texts = pc.utf8_trim_whitespace(chunk.take(arrow_array(places)))
        blank = pc.equal(texts, text_scalar("", texts.type))
        if not pc.all(pc.or_(pc.is_in(texts, words), blank)).as_py():
            return None
        found.append(texts)
        valid = pa.py_buffer(np.packbits(~odd, bitorder="little"))
        buffers = [valid, offsets.slice(chunk.offset * _offset_size(chunk)), data]
        parts.append(pa.Array.from_buffers(chunk.type, len(chunk), buffers, len(places)))
    return (pa.chunked_array(parts), pa.concat_arrays(found)) if parts else None


# --- string views ---


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with large strings in place of string views, within other types too."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema], schema.metadata)


def plain_table(table: pa.Table) -> pa.Table:
    """Return a table with large strings in place of string views; it shares all other columns."""
    schema = plain_schema(table.schema)
    columns = [
        column
        if column.type == field.type
        else pa.chunked_array([_plain_array(chunk, field.type) for chunk in column.chunks], field.type)
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _plain(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, _plain(type_.value_type), type_.ordered)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        build = pa.list_ if pa.types.is_list(type_) else pa.large_list
        return build(type_.value_field.with_type(_plain(type_.value_type)))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_plain(field.type)) for field in type_.fields])
    return pa.large_string() if pa.types.is_string_view(type_) else type_


def _plain_array(array: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(type_):
        values = _plain_array(array.dictionary, type_.value_type)
        return pa.DictionaryArray.from_arrays(array.indices, values, ordered=type_.ordered)
    if pa.types.is_nested(type_):
        return pa.array(array.to_pylist(), type_)
    return _without_views_of_nulls(array).cast(type_)


def _without_views_of_nulls(array: pa.Array) -> pa.Array:
    """Return the array with empty views where values are missing.

    Arrow does not validate the views there, and its cast ends the process where one has a negative length.
    """
    if array.null_count == 0:
        return array
    validity, views, *texts = array.buffers()
    cleared = np.frombuffer(views, _VIEW, array.offset + len(array)).copy()
    cleared[array.offset :][~numpy_array(array.is_valid())] = np.zeros((), _VIEW)
    buffers = [validity, pa.py_buffer(cleared), *texts]
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count, array.offset)
