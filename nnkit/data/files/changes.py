"""Notice a file that is written to while it is read."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnkit.errors import DataError, FileError

__all__ = ["unchanged"]

_Signs = dict[Path, tuple[int, int, int]]


@contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Raise if a file, or one in a folder, is not after reading what it was before.

    A stream, such as standard input, has no state to compare.

    Raises
    ------
    DataError
        If its size, its time of change or the file itself is another; also in place of what the reader made
        of the mixture.
    """
    before = _signs(paths)
    try:
        yield
    except (DataError, FileError):
        _compare(before, _signs(paths))
        raise
    _compare(before, _signs(paths))


def _compare(before: _Signs, after: _Signs) -> None:
    changed = [file for file in before if before[file] != after.get(file)]
    if changed:
        what = "changed" if changed[0] in after else "vanished"
        raise DataError(
            f"{changed[0]}: the file {what} while it was read; try again when it has been written whole"
        )


def _signs(paths: tuple[Path, ...]) -> _Signs:
    signs = {}
    for path in paths:
        try:
            for file in path.iterdir() if path.is_dir() else [path]:
                status = file.stat()
                if not stat.S_ISFIFO(status.st_mode) and not stat.S_ISCHR(status.st_mode):
                    signs[file] = (status.st_size, status.st_mtime_ns, status.st_ino)
        except (OSError, ValueError):
            pass  # what cannot be looked at, the reader says
    return signs
