"""Atomic writing of files, and locks on folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnkit.errors import FileError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["holder_of", "in_use", "locked", "remove_unfinished", "waited_for", "write_whole"]


def write_whole(
    path: str | os.PathLike[str], data: bytes | Iterable[bytes | memoryview], advice: str = ""
) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, and rename it.

    The folder is flushed too: even after a power failure there is either the old file or the new one.

    Parameters
    ----------
    path : path-like
        The final name. A file there is replaced; a missing folder is created.
    data : bytes, or an iterable of buffers
        The whole content, or its parts in order.
    advice : str
        The end of the error message: what the user can do.

    Raises
    ------
    FileError
        If the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.urandom(8).hex()}"
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder; give the name of a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            for part in [data] if isinstance(data, bytes) else data:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException as error:  # an interrupt leaves nothing behind either
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, FileError):
            end = f": {advice}" if advice else ""
            raise FileError(f"{path}: cannot be written: {error.strerror or error}{end}") from error
        raise


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove the temporary files of killed processes from a folder that no other process writes to.

    `pattern` matches their final names, such as ``step-*.safetensors``; for the folder see `locked`.
    """
    with suppress(OSError):
        for path in folder.glob(f".{pattern}.*"):
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; the lock ends with the process, even if it is killed.

    Raises
    ------
    FileError
        If another process has locked it, it cannot be written to, or the system is Windows.
    """
    path = folder / ".lock"
    if fcntl is None:
        raise FileError(f"{folder}: nnkit cannot lock a folder on Windows; train on Linux or in WSL")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _locked_file(path)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Wait for the lock on a file, which is created if it is missing, and hold it; not on Windows."""
    with open(path, "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def holder_of(folder: Path) -> str | None:
    """Return the id of the process that has locked a folder, None if there is none."""
    if fcntl is None:
        return None
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
    else:
        return None
    finally:
        os.close(handle)


def in_use(folder: Path, holder: str) -> FileError:
    """Return the error for a folder that another process has locked."""
    return FileError(
        f"{folder}: in use by another training (process {holder}); wait for it, or choose another folder"
    )


def _locked_file(path: Path) -> int:
    """Return the handle of the lock file, locked, after writing this process's id to it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder removes the file when it ends: a lock counts only on the file that exists
            # now.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
                return handle
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise in_use(path.parent, holder) from None
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # on Windows always, elsewhere without read permission
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
