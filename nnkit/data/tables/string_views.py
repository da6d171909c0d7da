"""Replace the string views of Polars, for which few of Arrow's functions are made, by plain texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from nnkit.data.tables.columns import numpy_array

__all__ = ["plain_schema", "plain_table"]

_VIEW = np.dtype("V16")


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

    What stands there may be anything: Arrow does not validate it, and yet its cast ends the process where
    the length is negative.
    """
    if array.null_count == 0:
        return array
    validity, views, *texts = array.buffers()
    cleared = np.frombuffer(views, _VIEW, array.offset + len(array)).copy()
    cleared[array.offset :][~numpy_array(array.is_valid())] = np.zeros((), _VIEW)
    buffers = [validity, pa.py_buffer(cleared), *texts]
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count, array.offset)
