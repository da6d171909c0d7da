"""Tables of named columns: from other libraries' frames, their columns found by name, and their target."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from nnkit.data.examples import RawTable
from nnkit.data.messages import listed
from nnkit.data.tables.arrow import plain_table
from nnkit.data.tables.columns import column_kind, target_values
from nnkit.data.tables.inference import infer
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.reading import read_columns, report_misfits
from nnkit.data.tables.schema import METADATA, Schema
from nnkit.errors import DataError

__all__ = [
    "as_read_table",
    "as_table",
    "check_distinct",
    "check_names",
    "column_name",
    "join_target",
    "read_raw",
]

_LONGEST_NAME = 300
_DEFAULT_TARGETS = ("target", "label", "class", "y")


def as_table(data: Any) -> pa.Table:
    """Return any library's frame as an Arrow table, without its index.

    Raises
    ------
    DataError
        Where two columns have the same name, or a column mixes types.
    """
    try:
        table = _converted(data)
    except DataError:
        raise
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(" ".join(str(part) for part in error.args).split())
        raise DataError(f"the table cannot be read: {reason}") from None
    check_names(table.column_names)
    return plain_table(table)


def _converted(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        check_names([str(name) for name in data.columns])
        return pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
    if hasattr(data, "__arrow_c_stream__") or isinstance(data, Mapping):
        return pa.table(data)
    if hasattr(data, "to_arrow"):
        return data.to_arrow()
    raise DataError(
        f"{type(data).__name__} is not a table: give an Arrow, pandas or Polars frame, or an array"
    )


def as_read_table(data: Any) -> tuple[pa.Table, Schema]:
    """Return any library's frame as a table that was read by a schema: its own, or an inferred one."""
    table = as_table(data)
    kept = (table.schema.metadata or {}).get(METADATA)
    if kept is None:
        return read_raw(RawTable(table), TableOptions(), None)
    schema = Schema.from_json(json.loads(kept))
    added = [name for name in table.column_names if name not in schema.by_name]
    if not added:
        return table, schema
    others, found = read_raw(RawTable(table.select(added)), TableOptions(), None)
    for name in added:
        table = table.set_column(table.column_names.index(name), name, others[name])
    schema = replace(schema, columns=schema.columns + found.columns)
    return table.replace_schema_metadata({METADATA: schema.metadata}), schema


def read_raw(raw: RawTable, options: TableOptions, schema: Schema | None) -> tuple[pa.Table, Schema]:
    """Read a table by a schema, or by an inferred one; raise where a column cannot be read."""
    table, read = raw.table, None
    if schema is None:
        found = infer(raw, options)
        schema, read = found.schema, found.read
        for column in schema.columns:
            if column.note.startswith("it holds"):
                column_kind(column.name, table[column.name].type)  # raises
    names = [name for name in table.column_names if name in schema.by_name]
    result, misfits = read_columns(table, schema, names, read)
    report_misfits(misfits, strict=True)
    return result, schema


def check_names(names: Sequence[str]) -> None:
    """Raise a DataError if two columns have one name, or a name is too long to be one."""
    for place, name in enumerate(names, 1):
        if len(name) > _LONGEST_NAME:
            raise DataError(
                f"the name of column {place} has {len(name)} characters and begins with {name[:40]!r}: "
                "rename it"
            )
    check_distinct(names)


def check_distinct(names: Sequence[str], unnamed: bool = False) -> None:
    """Raise a DataError if two columns have the same name; if `unnamed`, "" is no name."""
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if (name or not unnamed) and seen.setdefault(name, place) != place:
            raise DataError(
                f"columns {seen[name]} and {place} are both named {name[:60]!r}: rename one of them"
            )


def column_name(key: Any, names: Sequence[str]) -> str:
    """Return the name of a column, given by its name or else its number (negative: from the end)."""
    if str(key) in names:
        return str(key)
    try:
        index = int(key)
    except (TypeError, ValueError):
        raise DataError(f"there is no column {key!r}{_suggestion(str(key), names)}") from None
    if not -len(names) <= index < len(names):
        raise DataError(f"there is no column {index}: the columns are 0 to {len(names) - 1}")
    return names[index]


def _suggestion(key: str, names: Sequence[str]) -> str:
    lower = {name.lower(): name for name in names}
    near = [lower[name] for name in difflib.get_close_matches(key.lower(), lower, n=3)]
    if near:
        return f": did you mean {' or '.join(repr(name) for name in near)}?"
    return f": the only column is {names[0]!r}" if len(names) == 1 else f": the columns are {listed(names)}"


def default_target(names: Sequence[str]) -> str | None:
    """Return the one column named target, label, class or y; None where there is none or more than one."""
    found = [name for name in names if name.strip().lower() in _DEFAULT_TARGETS]
    return found[0] if len(found) == 1 else None


def join_target(table: pa.Table, names: Sequence[str]) -> Any:
    """Return the target columns as one array of shape (samples,), or (samples, k) for several."""
    columns = [target_values(name, table[name]) for name in names]
    return columns[0] if len(columns) == 1 else np.column_stack(columns)
