"""Tables of named columns: from files, from other libraries' frames, and checked."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from nnkit.data.columns import check_column, target_values
from nnkit.errors import DataError, FileError

__all__ = ["as_table", "check_table", "column_name", "is_frame", "join_target", "read_arrow", "read_parquet"]

_DEFAULT_TARGETS = ("target", "label", "class", "y")


def is_frame(data: Any) -> bool:
    """Tell whether `as_table` takes it: an Arrow, pandas, Polars or cuDF frame."""
    return isinstance(data, pa.Table | pa.RecordBatch) or any(
        hasattr(data, name) for name in ("__arrow_c_stream__", "to_arrow", "__dataframe__")
    )


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
    _check_names(table.column_names)
    fields = [field.with_type(_plain(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields)) if fields != list(table.schema) else table


def _converted(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        _check_names([str(name) for name in data.columns])
        return pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
    if hasattr(data, "__arrow_c_stream__") or isinstance(data, Mapping):
        return pa.table(data)
    if hasattr(data, "to_arrow"):
        return data.to_arrow()
    raise DataError(
        f"{type(data).__name__} is not a table: give an Arrow, pandas or Polars frame, or an array"
    )


def _plain(type_: pa.DataType) -> pa.DataType:
    """Replace the string views of Polars, for which few of Arrow's functions are made."""
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, _plain(type_.value_type), type_.ordered)
    return pa.large_string() if pa.types.is_string_view(type_) else type_


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"two columns are both named {twice[0]!r}: rename one of them")


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file."""
    import pyarrow.parquet as pq

    return _read(path, lambda: pq.read_table(path, partitioning=None), "Parquet")


def read_arrow(path: Path) -> pa.Table:
    """Read an Arrow IPC file or stream, or a Feather file."""
    import pyarrow.feather as feather

    def read() -> pa.Table:
        with path.open("rb") as stream:
            magic = stream.read(6)
        if magic.startswith((b"ARROW1", b"FEA1")):
            table = feather.read_table(path, memory_map=False)
        else:
            with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
                table = reader.read_all()
        # Offsets and indices come from the file: none may point outside its buffers.
        table.validate(full=True)
        return table

    return _read(path, read, "Arrow")


def _read(path: Path, read: Any, kind: str) -> pa.Table:
    try:
        table = read()
        if table.num_rows == 0:
            raise DataError("the table has no rows")
        return as_table(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: no {kind} file, or a damaged one: {reason}") from None


def check_table(table: pa.Table) -> None:
    """Raise a DataError for what no training can use, naming column and row."""
    for name in table.column_names:
        check_column(name, table[name])


def column_name(key: Any, names: Sequence[str]) -> str:
    """Return the name of the column that a name or a number (negative: from the end) means."""
    if isinstance(key, str) and key in names:
        return key
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
    return f": the columns are {listed(names)}"


def listed(names: Iterable[str], most: int = 20) -> str:
    """Return names for a message, the first of them where there are many."""
    names = list(names)
    words = ", ".join(names[:most])
    return words if len(names) <= most else f"{words}, … ({len(names)} in all)"


def default_target(names: Sequence[str]) -> str | None:
    """Return the one column named target, label, class or y; None where there is none or more than one."""
    found = [name for name in names if name.strip().lower() in _DEFAULT_TARGETS]
    return found[0] if len(found) == 1 else None


def join_target(table: pa.Table, names: Sequence[str]) -> Any:
    """Return the target columns as one array of shape (samples,), or (samples, k) for several."""
    import numpy as np

    columns = [target_values(name, table[name]) for name in names]
    return columns[0] if len(columns) == 1 else np.column_stack(columns)
