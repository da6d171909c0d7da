"""Open files of text, compressed by gzip or not, and say where one is damaged or not UTF-8."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO

from nnkit.data.limits import check_size
from nnkit.errors import DataError, FileError

__all__ = ["UNREADABLE", "not_utf8", "open_text", "read_text", "unreadable"]

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading an opened file may raise."""
_LONGEST_LINE = 1 << 26
_CHUNK = 1 << 20


def open_text(path: Path) -> IO[bytes]:
    """Open a file, or what a gzip file holds."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


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
    if isinstance(error, EOFError):
        return FileError(f"{path}: the gzip file is cut short: copy or download it again")
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return FileError(f"{path}: the gzip file is damaged ({error}): copy or download it again")
    return FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")


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
