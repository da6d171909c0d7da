"""Open files of text, compressed or not, and say where one is damaged or not UTF-8."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import IO, cast

from nnkit.data.limits import check_size
from nnkit.errors import DataError, FileError

__all__ = ["UNREADABLE", "compression", "not_utf8", "open_text", "plain_name", "read_text", "unreadable"]

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading an opened file may raise."""
_SUFFIXES = (".gz", ".bz2", ".zst", ".zstd")
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # A first block, or the end of an empty file: a text may well begin with BZh.
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
_LONGEST_LINE = 1 << 26
_LONGEST_REASON = 160
_CHUNK = 1 << 20


def plain_name(path: Path) -> str:
    """Return a file's name without the suffix of its compression."""
    packed = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(packed)]


def compression(path: Path) -> str:
    """Return what a file is compressed by, found by its first bytes: gzip, bzip2, zstd, or "" for nothing."""
    with path.open("rb") as stream:
        start = stream.read(10)
    return next((name for name, magic in _MAGIC.items() if magic.match(start)), "")


def open_text(path: Path) -> IO[bytes]:
    """Open a file, or what a compressed one holds."""
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
    """Return all bytes of a file of text, unpacked.

    Parameters
    ----------
    path : Path
    growth : int
        How many bytes of memory one byte of the text may take once it is read.

    Raises
    ------
    FileError
        Where it cannot be read.
    DataError
        Where more than `memory_limit` is needed; a small packed file may stand for a large one.
    """
    chunks, size = [], 0
    try:
        if not compression(path):
            # In one go: chunks joined would be copied once more.
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


def unreadable(path: Path, error: Exception) -> FileError:
    """Return what to raise for a file that cannot be read."""
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    # An error of the operating system has a number; one of a decompressor has none.
    if isinstance(error, OSError) and error.errno is not None:
        return FileError(f"{path}: cannot be read: {error.strerror or reason}")
    cut = isinstance(error, EOFError) or "Truncated" in reason
    what = "is cut short" if cut else f"is damaged ({reason})"
    return FileError(f"{path}: the {compression(path)} file {what}: copy or download it again")


def not_utf8(path: Path) -> DataError:
    """Return what to raise for a text that is not UTF-8: it names the first line that is not."""
    line = 0
    with open_text(path) as stream:
        while text := stream.readline(_LONGEST_LINE):
            line += 1
            try:
                text.decode()
            except UnicodeDecodeError as error:
                found = f"its byte {error.start + 1} is 0x{text[error.start]:02x}"
                place = f"line {line} is not UTF-8 text ({found})"
                break
        else:
            place = "the text is not UTF-8"
    return DataError(f"{path}: {place}: convert the file, for example with iconv -f LATIN1 -t UTF-8")
