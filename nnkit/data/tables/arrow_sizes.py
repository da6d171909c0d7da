"""How much an Arrow file unpacks to, read from its messages' headers before any of it is unpacked.

The headers are FlatBuffers (https://flatbuffers.dev/internals), which Arrow has verified when it returns a
message; their tables are those of the Arrow columnar format, Message.fbs and Schema.fbs.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa

from nnkit.data.limits import check_size

__all__ = ["check_unpacked"]

_FILE_MAGIC = b"ARROW1\0\0"
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
# The numbers of the fields in their tables.
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_DATA = 1
_BUFFERS, _COMPRESSION = 2, 3


def check_unpacked(path: Path) -> None:
    """Raise a DataError if an IPC file or stream claims to unpack to more than fits into memory."""
    with pa.OSFile(str(path)) as source:
        # The file format is the stream between a magic and a footer.
        if source.read(len(_FILE_MAGIC)) != _FILE_MAGIC:
            source.seek(0)
        size = 0
        reader = pa.ipc.MessageReader.open_stream(source)
        while True:
            try:
                message = reader.read_next_message()
            except StopIteration:
                return
            size += _unpacked(message)
            check_size(size, str(path))


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
    """Add up what stands before each packed buffer: its size unpacked, or -1 where it is not packed."""
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
