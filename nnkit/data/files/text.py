"""Open files of text, compressed or not, and say what is wrong with a damaged one."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import IO, cast

from nnkit.data import messages
from nnkit.data.limits import check_size
from nnkit.errors import FileError

__all__ = ["UNREADABLE", "compression", "open_text", "plain_name", "read_text", "read_up_to", "unreadable"]

UNREADABLE = (OSError, EOFError, zlib.error)
"""The errors of reading an opened file."""
_SUFFIXES = (".gz", ".bz2", ".zst", ".zstd")
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # A first block, or the end of an empty file: a text may well begin with BZh.
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
_CHUNK = 1 << 20


def plain_name(path: Path) -> str:
    """Return a file's name without the suffix of its compression."""
    packed = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(packed)]


def compression(path: Path) -> str:
    """Return how a file is compressed, by its first bytes: gzip, bzip2, zstd, or "" for not at all."""
    with path.open("rb") as stream:
        start = stream.read(10)
    return next((name for name, magic in _MAGIC.items() if magic.match(start)), "")


def open_text(path: Path) -> IO[bytes]:
    """Open a file, or the content of a compressed one."""
    packed = compression(path)
    if packed == "gzip":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if packed == "bzip2":
        return cast(IO[bytes], bz2.open(path, "rb"))
    if packed == "zstd":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def read_text(path: Path, growth: int) -> bytes:
    """Return all bytes of a file of text, unpacked; a DataError if they need more than `memory_limit`.

    They need `growth` bytes for each byte of the text: a small packed file may stand for a large one.
    """
    chunks, size = [], 0
    try:
        if not compression(path):
            # At once: joined chunks would be copied once more.
            check_size(growth * path.stat().st_size, str(path))
            return path.read_bytes()
        with open_text(path) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                check_size(growth * size, str(path))
                chunks.append(chunk)
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    return b"".join(chunks)


def read_up_to(stream: IO[bytes], size: int) -> bytearray:
    """Read `size` bytes or all there are; the memory follows the bytes that are there, not a claimed size."""
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(_CHUNK, size - len(data)))):
        data += chunk
    return data


def unreadable(path: Path, error: Exception) -> FileError:
    """Return the error for a file that cannot be read."""
    # An error of the operating system has a number; one of a decompressor has none.
    if isinstance(error, OSError) and error.errno is not None:
        return messages.unreadable(path, error)
    reason = messages.reason(error)
    cut = isinstance(error, EOFError) or "Truncated" in reason
    what = "is cut short" if cut else f"is damaged ({reason})"
    return FileError(f"{path}: the {compression(path)} file {what}: copy or download it again")
