"""Read Parquet, Arrow and Feather files; a small one that stands for more than fits is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from nnkit.data.limits import check_size
from nnkit.data.tables.arrow_sizes import check_unpacked
from nnkit.data.tables.frames import as_table, check_names
from nnkit.data.tables.raw import RawTable
from nnkit.data.tables.string_views import plain_schema
from nnkit.errors import DataError, FileError

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData, ParquetFile

__all__ = ["read_arrow", "read_parquet"]

# What a value takes in memory; of a text, its offset.
_PARQUET_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
_TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), pa.binary_view())
_NUMBER_BYTES = 4  # what any value takes once it is encoded


def read_parquet(path: Path) -> RawTable:
    """Read a Parquet file.

    Texts are read as the dictionaries that they are stored as, for a few bytes of a file can repeat a long
    text for millions of rows; they are written out once their size is known.
    """
    return _read(path, lambda: _parquet_table(path), "Parquet")


def _parquet_table(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        _check_claims(file.metadata, str(path))
        schema = file.schema_arrow
        check_names(schema.names)
        texts = [field.name for field in schema if field.type in _TEXTS]
        table = file.read([name for name in schema.names if name not in set(texts)])
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts) as packed:
            for name in texts:
                table = table.append_column(name, _text_column(file, packed, name))
    _check_table(table, str(path))
    return table.select(schema.names).cast(plain_schema(schema))


def _check_claims(metadata: FileMetaData, where: str) -> None:
    """Raise a DataError if the rows that the file claims cannot fit.

    Of the columns' own metadata nothing is asked: Arrow ends the process where they are damaged.
    """
    rows = max(0, metadata.num_rows)
    rows = max(
        rows, sum(max(0, metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups))
    )
    columns = [metadata.schema.column(number) for number in range(len(metadata.schema))]
    check_size(
        rows * sum(_PARQUET_BYTES.get(column.physical_type, column.length) for column in columns), where
    )


def _text_column(file: ParquetFile, packed: ParquetFile, name: str) -> pa.ChunkedArray:
    """Read a column as a dictionary; Arrow cannot where texts are stored as differences from one another."""
    try:
        return packed.read(columns=[name]).column(0)
    except (OSError, NotImplementedError) as error:
        if "Not yet implemented" not in str(error):
            raise
        return file.read(columns=[name]).column(0)


def read_arrow(path: Path) -> RawTable:
    """Read an Arrow IPC file or stream; a Feather file is one, since its version 2."""

    def read() -> pa.Table:
        with path.open("rb") as stream:
            magic = stream.read(6)
        if magic.startswith(b"FEA1"):
            raise DataError(
                "Feather version 1, which Arrow reads without checking it: "
                "write it again as version 2 or Parquet"
            )
        check_unpacked(path)
        opened = pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream
        with pa.OSFile(str(path)) as source, opened(source) as reader:
            table = reader.read_all()
        _check_table(table, str(path))
        return table

    return _read(path, read, "Arrow")


def _check_table(table: pa.Table, where: str) -> None:
    """Raise unless offsets, indices and texts are valid, and the values, written out one by one, fit."""
    # Offsets and indices come from the file: none may point outside its buffers.
    table.validate(full=True)
    size = table.num_rows * table.num_columns * _NUMBER_BYTES
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            size += sum(_written_out(chunk) for chunk in column.chunks)
    check_size(size, where)


def _written_out(column: pa.DictionaryArray) -> int:
    """Return the bytes that a dictionary's values take, repeated for each row."""
    values = column.dictionary
    types = pa.types
    if types.is_string_view(values.type) or types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    if not (types.is_binary(values.type) or types.is_string(values.type)) and not (
        types.is_large_binary(values.type) or types.is_large_string(values.type)
    ):
        return 8 * len(column)
    lengths = pc.binary_length(values).cast(pa.int64())
    return pc.sum(lengths.take(column.indices)).as_py() or 0


def _index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that hold the index of a pandas frame, by the metadata that pandas writes."""
    try:
        columns = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    # A range of numbers is described, and is no column.
    names = [name for name in columns if isinstance(name, str)] if isinstance(columns, list) else []
    return tuple(name for name in names if name in schema.names)


def _read(path: Path, read: Callable[[], pa.Table], kind: str) -> RawTable:
    try:
        table = read()
        if table.num_rows == 0:
            raise DataError("the table has no rows")
        index = _index_columns(table.schema)
        return RawTable(as_table(table.replace_schema_metadata(None)), index=index)
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: no {kind} file, or a damaged one: {reason}") from None
