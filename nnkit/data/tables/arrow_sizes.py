"""How much an Arrow file unpacks to, read from its messages' headers before any of it is unpacked.

The headers are FlatBuffers (https://flatbuffers.dev/internals), which Arrow has verified when it returns a
message; their tables are those of the Arrow columnar format, Message.fbs, Schema.fbs and File.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from nnkit.data.limits import check_size

__all__ = ["check_unpacked"]

_FILE_MAGIC = b"ARROW1"
_FOOTER_END = struct.Struct("<i6s")  # the footer's length, and the magic again
_BLOCK = struct.Struct("<qi4xq")  # a message's offset, its metadata's length and its body's
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
# The numbers of the fields in their tables.
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_DATA = 1
_BUFFERS, _COMPRESSION = 2, 3
_DICTIONARIES, _RECORD_BATCHES = 2, 3


def check_unpacked(path: Path) -> None:
    """Raise a DataError if an IPC file or stream claims to unpack to more than fits into memory."""
    with pa.OSFile(str(path)) as source:
        size = 0
        for message in _messages(source):
            size += _unpacked(message)
            check_size(size, str(path))


def _messages(source: pa.NativeFile) -> Iterator[pa.ipc.Message]:
    """Yield the messages: of a file those that its footer names, as Arrow reads it, of a stream all."""
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
