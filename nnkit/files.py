"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from nnkit.errors import FileError

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, and rename it.

    Parameters
    ----------
    path : path-like
        The final name; what lies there is replaced in one instant. Its folder is made if it is missing.
    data : bytes
        The whole content.

    Raises
    ------
    FileError
        If the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt leaves nothing behind either
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
