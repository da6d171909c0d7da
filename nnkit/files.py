"""Files written whole or not at all, and folders that one process at a time may write to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnkit.errors import FileError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows, where `locked` fails and `waited_for` does not wait
    fcntl = None  # type: ignore[assignment]

__all__ = ["holder_of", "in_use", "locked", "remove_unfinished", "waited_for", "write_whole"]


def write_whole(
    path: str | os.PathLike[str], data: bytes | Iterable[bytes | memoryview], mend: str = ""
) -> None:
    """Write a file under a temporary name in the same folder, flush it to the disk, and rename it.

    The folder is flushed too: after a power failure there is the old file or the new one, whole. It has the
    permissions that the umask leaves of any new file.

    Parameters
    ----------
    path : path-like
        The final name; what lies there is replaced in one instant. Its folder is made if it is missing.
    data : bytes, or an iterable of buffers
        The whole content, or its parts in order.
    mend : str
        What the user can do if it cannot be written, the end of the message.

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
            end = f": {mend}" if mend else ""
            raise FileError(f"{path}: cannot be written: {error.strerror or error}{end}") from error
        raise


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove what killed processes left of files that had no name yet.

    Parameters
    ----------
    folder : Path
        One that no other process writes to now, see `locked`.
    pattern : str
        Their final names, such as ``step-*.safetensors``.
    """
    with suppress(OSError):
        for path in folder.glob(f".{pattern}.*"):
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; a process that dies, however it dies, lets go of it.

    Raises
    ------
    FileError
        If another process holds it, it cannot be written to, or the system is Windows.
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
    """Hold a file, which is made if it is missing, after waiting until no other process holds it.

    On Windows, nothing is waited for.
    """
    with open(path, "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def holder_of(folder: Path) -> str | None:
    """Return the number of the process that holds a folder by `locked`; None where none does."""
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
    """Return the error for a folder that another process holds."""
    return FileError(
        f"{folder}: in use by another training (process {holder}); wait for it, or choose another folder"
    )


def _locked_file(path: Path) -> int:
    """Return the handle of the lock's file, locked, with the number of this process in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before removes the file as he goes: the lock counts only on the one that is there.
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
    except PermissionError:  # no folder can be opened on Windows, and elsewhere none without read permission
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
