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
    """Raise a DataError if a file, or one in a folder, changes while this context lasts.

    The file itself, its size and its time of change are compared, also where reading it failed: the change is
    then the reason. A stream, such as standard input, has nothing to compare.
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
            pass  # the reader says why
    return signs
