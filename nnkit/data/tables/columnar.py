"""Read Parquet, Arrow and Feather files; a small one that stands for more than fits is refused.

Order: Parquet, Arrow, checks of both, how much an Arrow file unpacks to.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from nnkit.data.examples import RawTable
from nnkit.data.limits import check_size
from nnkit.data.messages import about, reason, unreadable
from nnkit.data.tables.arrow import plain_schema
from nnkit.data.tables.frames import as_table, check_names
from nnkit.errors import DataError

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData, ParquetFile

__all__ = ["read_arrow", "read_parquet"]

# The bytes of a value in memory; for a text, of its offset.
_PARQUET_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
_TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), pa.binary_view())
_NUMBER_BYTES = 4  # of any value once it is encoded

_FILE_MAGIC = b"ARROW1"
_FOOTER_END = struct.Struct("<i6s")  # the footer's length, and the magic again
_BLOCK = struct.Struct("<qi4xq")  # a message's offset, its metadata's length and its body's
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
# The numbers of the fields in their tables.
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_DATA = 1
_BUFFERS, _COMPRESSION = 2, 3
_DICTIONARIES, _RECORD_BATCHES = 2, 3


def read_parquet(path: Path) -> RawTable:
    """Read a Parquet file.

    Texts are read as the dictionaries in which they are stored, and written out once their size is known:
    a few bytes of a file can repeat a long text for millions of rows.
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

    The columns' own metadata is not read: Arrow ends the process where it is damaged.
    """
    groups = range(metadata.num_row_groups)
    claimed = sum(max(0, metadata.row_group(number).num_rows) for number in groups)
    rows = max(0, metadata.num_rows, claimed)
    columns = [metadata.schema.column(number) for number in range(len(metadata.schema))]
    width = sum(_PARQUET_BYTES.get(column.physical_type, column.length) for column in columns)
    check_size(rows * width, where)


def _text_column(file: ParquetFile, packed: ParquetFile, name: str) -> pa.ChunkedArray:
    """Read a column as a dictionary, or as texts where Arrow cannot, as for texts stored as differences."""
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
        with pa.OSFile(str(path)) as source:
            size = 0
            for message in _messages(source):
                size += _unpacked(message)
                check_size(size, str(path))
        opened = pa.ipc.open_file if magic == _FILE_MAGIC else pa.ipc.open_stream
        with pa.OSFile(str(path)) as source, opened(source) as reader:
            table = reader.read_all()
        _check_table(table, str(path))
        return table

    return _read(path, read, "Arrow")


def _read(path: Path, read: Callable[[], pa.Table], kind: str) -> RawTable:
    try:
        with about(path):
            table = read()
            if table.num_rows == 0:
                raise DataError("the table has no rows")
            index = _index_columns(table.schema)
            return RawTable(as_table(table.replace_schema_metadata(None)), index=index)
    except DataError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise DataError(f"{path}: no {kind} file, or a damaged one: {reason(error)}") from None


def _index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that hold the index of a pandas frame, by the metadata that pandas writes."""
    try:
        columns = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    # A range of numbers is described by an object, and has no column.
    names = [name for name in columns if isinstance(name, str)] if isinstance(columns, list) else []
    return tuple(name for name in names if name in schema.names)


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
    if values.type not in _TEXTS:
        return 8 * len(column)
    lengths = pc.binary_length(values).cast(pa.int64())
    return pc.sum(lengths.take(column.indices)).as_py() or 0


# --- how much an Arrow file unpacks to ---
#
# The headers of its messages say it, before anything is unpacked. They are FlatBuffers
# (https://flatbuffers.dev/internals), which Arrow has verified when it returns a message; their tables are
# those of the Arrow columnar format, Message.fbs, Schema.fbs and File.fbs.


def _messages(source: pa.NativeFile) -> Iterator[pa.ipc.Message]:
    """Yield the messages of a stream, or those named in the footer of a file, as Arrow reads it."""
    if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
        with pa.ipc.open_file(source):
            pass  # which verifies the footer
        for offset in list(_message_offsets(source)):
            source.seek(offset)
            yield pa.ipc.read_message(source)
        return
    source.seek(0)
    reader = pa.ipc.MessageReader.open_stream(source)
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _message_offsets(source: pa.NativeFile) -> Iterator[int]:
    end = source.size() - _FOOTER_END.size
    source.seek(end)
    length, _ = _FOOTER_END.unpack(source.read(_FOOTER_END.size))
    source.seek(end - length)
    footer = memoryview(source.read(length))
    root = struct.unpack_from("<I", footer)[0]
    for field in (_DICTIONARIES, _RECORD_BATCHES):
        place = _field(footer, root, field)
        if place is None:
            continue
        vector = _target(footer, place)
        for number in range(struct.unpack_from("<I", footer, vector)[0]):
            yield _BLOCK.unpack_from(footer, vector + 4 + _BLOCK.size * number)[0]


def _unpacked(message: pa.ipc.Message) -> int:
    """Return the bytes that a message's buffers claim to take, unpacked."""
    metadata, body = memoryview(message.metadata), message.body
    root = struct.unpack_from("<I", metadata)[0]
    kind, header = _field(metadata, root, _HEADER_TYPE), _field(metadata, root, _HEADER)
    if kind is None or header is None or body is None:
        return 0
    batch = _target(metadata, header)
    if metadata[kind] == _DICTIONARY_BATCH:
        data = _field(metadata, batch, _DICTIONARY_DATA)
        if data is None:
            return 0
        batch = _target(metadata, data)
    elif metadata[kind] != _RECORD_BATCH:
        return 0
    if _field(metadata, batch, _COMPRESSION) is None:
        return body.size
    buffers = _field(metadata, batch, _BUFFERS)
    return 0 if buffers is None else _claimed(metadata, _target(metadata, buffers), body)


def _claimed(metadata: memoryview, vector: int, body: pa.Buffer) -> int:
    """Add up the numbers before the packed buffers: the size unpacked, or -1 for one that is not packed."""
    size = 0
    for number in range(struct.unpack_from("<I", metadata, vector)[0]):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
        if 0 <= offset <= body.size - 8 and length >= 8:
            (claimed,) = struct.unpack_from("<q", body, offset)
            size += length if claimed < 0 else claimed
    return size


def _target(metadata: memoryview, place: int) -> int:
    """Follow the offset at a place."""
    return place + int(struct.unpack_from("<I", metadata, place)[0])


def _field(metadata: memoryview, table: int, number: int) -> int | None:
    """Return the place of a table's field, or None where it has its default."""
    virtual = table - struct.unpack_from("<i", metadata, table)[0]
    entry = 4 + 2 * number
    if entry + 2 > struct.unpack_from("<H", metadata, virtual)[0]:
        return None
    offset = struct.unpack_from("<H", metadata, virtual + entry)[0]
    return table + offset if offset else None
