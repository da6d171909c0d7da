"""Streams, such as standard input, can be read only once: keep them in a temporary file while it is read."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnkit.data.limits import check_size
from nnkit.data.messages import unreadable
from nnkit.errors import FileError, NnkitError

__all__ = ["STANDARD_INPUT", "is_stream", "spooled", "stream_name"]

STANDARD_INPUT = "-"
_STANDARD_INPUTS = (STANDARD_INPUT, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_CHUNK = 1 << 20


def is_stream(source: str | Path) -> bool:
    """Tell whether a source is standard input, a pipe or a terminal."""
    if str(source) == STANDARD_INPUT:
        return True
    try:
        mode = Path(source).stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def stream_name(source: str | Path) -> str:
    """Return the name of a stream in messages."""
    return "standard input" if str(source) in _STANDARD_INPUTS else str(source)


@contextmanager
def spooled(source: str | Path) -> Iterator[Path]:
    """Write a stream to a temporary file and yield its path; errors inside name the stream.

    A terminal, and a stream larger than `memory_limit`, are errors.
    """
    name = stream_name(source)
    with tempfile.TemporaryDirectory(prefix="nnkit-") as folder:
        path = Path(folder, "stream")
        try:
            # Standard input by its number: sys.stdin may be None or another object.
            given: str | Path | int = os.dup(0) if name == "standard input" else source
            with open(given, "rb") as stream, path.open("wb") as file:
                if stream.isatty():
                    raise FileError(f"{name}: it is a terminal: pipe a file into it, or give a file's name")
                size = 0
                while chunk := stream.read(_CHUNK):
                    size += len(chunk)
                    check_size(size, name)
                    file.write(chunk)
            yield path
        except NnkitError as error:
            raise type(error)(str(error).replace(str(path), name)) from None
        except OSError as error:
            raise unreadable(name, error) from None
