"""Parts of error messages: names cut short and listed, why a file cannot be read, which source is meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path

from nnkit.errors import DataError, FileError

__all__ = ["about", "listed", "more", "reading", "reason", "shortened", "unreadable"]

_LONGEST_LISTED = 60
_LONGEST_REASON = 160


def shortened(text: str, most: int) -> str:
    """Return a text, cut off with "…" after `most` characters."""
    return text if len(text) <= most else text[:most] + "…"


def listed(names: Iterable[str], most: int = 20) -> str:
    """Return names joined by commas: the first `most`, and the number of all where there are more."""
    names = list(names)
    words = ", ".join(shortened(name, _LONGEST_LISTED) for name in names[:most])
    return words if len(names) <= most else f"{words}, … ({len(names)} in all)"


def more(items: Sized) -> str:
    """Return " (and 2 more)" for three items, after the name of the first; "" for one."""
    return f" (and {len(items) - 1:,} more)" if len(items) > 1 else ""


def reason(error: Exception) -> str:
    """Return another library's error in one line."""
    return " ".join(str(error).split())[:_LONGEST_REASON]


def unreadable(path: str | Path, error: OSError | ValueError) -> FileError:
    """Return the error for a file that the operating system does not let us read."""
    return FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn an error of the operating system into a FileError that names the file."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None


@contextmanager
def about(where: str | Path) -> Iterator[None]:
    """Let the message of a DataError begin with the name of the source."""
    try:
        yield
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(where)) else f"{where}: {text}") from None
