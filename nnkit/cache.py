"""The folder of what nnkit keeps to save time: compiled kernels, decoded pictures, downloads.

Python runs what lies there, so the folder is used only if no other user can write to its code.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

from nnkit.errors import FileError
from nnkit.files import write_whole

__all__ = ["MEND", "cache_folder", "describe_cache", "write_cached"]

logger = logging.getLogger("nnkit")

MEND = "set NNKIT_CACHE to a folder with free space that only you can write to"
"""How to fix every problem with the folder; the end of a message."""

# The folders whose files are executed.
_CODE = ("kernels", "kernels/native", "kernels/__pycache__")


def cache_folder() -> Path:
    """Return the cache's folder, which exists.

    It is ``NNKIT_CACHE``, or ``nnkit`` in ``XDG_CACHE_HOME`` or in ``~/.cache``. If that folder cannot be
    used, one warning says why, and a folder of this user's among the temporary files takes its place.

    Raises
    ------
    FileError
        If neither can be used.
    """
    return _chosen(*_environment())[0]


def describe_cache() -> str:
    """Return where the cache is, and what is wrong with the folder that it should be in, if anything."""
    try:
        folder, problem = _found(*_environment())
    except FileError as error:
        return str(error)
    return f"{folder} ({problem})" if problem else str(folder)


def write_cached(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file into the cache, whole or not at all.

    Raises
    ------
    FileError
        If it cannot be written; the message says how to fix it.
    """
    write_whole(path, data, mend=MEND)


def _environment() -> tuple[str, ...]:
    return tuple(os.environ.get(name, "") for name in ("NNKIT_CACHE", "XDG_CACHE_HOME", "HOME"))


@cache
def _chosen(own: str, shared: str, home: str) -> tuple[Path, str]:
    folder, problem = _found(own, shared, home)
    if problem:
        logger.warning(f"{problem}; the cache is in {folder} instead: {MEND}")
    return folder, problem


@cache
def _found(own: str, shared: str, home: str) -> tuple[Path, str]:
    """Return the folder for these values of the environment, and why it is not the one they name."""
    try:
        folder = _named(own, shared)
        _claim(folder)
        return folder, ""
    except OSError as error:
        problem = _reason(error)
    try:
        return _private_folder(), problem
    except OSError as error:
        raise FileError(f"{problem}, and {_reason(error)}: {MEND}") from None


def _reason(error: OSError) -> str:
    if error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _named(own: str, shared: str) -> Path:
    """Return the folder that the environment names; an empty value is none."""
    try:
        if own:
            # A relative one stays where it was first looked for.
            return Path(own).expanduser().absolute()
        # The XDG Base Directory Specification: a relative path is ignored.
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    except RuntimeError:
        raise FileNotFoundError(f"{own or '~/.cache'}: the home folder is not known") from None
    if not base.is_absolute():
        raise FileNotFoundError(f"{base}: the home folder is not an absolute path")
    return base / "nnkit"


def _claim(folder: Path) -> None:
    """Make a folder where it is missing, with those for code in it.

    Raises
    ------
    OSError
        If another user can write to the code, or if nobody can and there is none.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.mkdir(mode=0o755, exist_ok=True)
    above = folder.parent.stat().st_mode
    if above & stat.S_IWOTH and not above & stat.S_ISVTX and hasattr(os, "geteuid"):
        raise PermissionError(f"{folder.parent}: other users can put {folder.name} aside")
    _check(folder, sticky=True)
    for name in _CODE:
        # Not by the umask alone, which may let everybody write.
        (folder / name).mkdir(mode=0o755, exist_ok=True)
        _check(folder / name)
    # One that cannot be written to, or is full, may still hold all that is needed.
    if not any((folder / "kernels" / "native").iterdir()):
        _try_to_write(folder / "kernels")


def _check(folder: Path, sticky: bool = False) -> None:
    """Raise if another user, root apart, may have written to a folder."""
    if not hasattr(os, "geteuid"):  # Windows keeps a user's folders from the others by itself
        return
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"{folder}: it belongs to another user")
    # Where each user is the one member of a group, the usual umask leaves folders writable for the group.
    others = stat.S_IWOTH | (0 if status.st_gid == os.getegid() else stat.S_IWGRP)
    if status.st_mode & others and not (sticky and status.st_mode & stat.S_ISVTX):
        raise PermissionError(f"{folder}: other users can write to it")


def _try_to_write(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


@cache
def _private_folder() -> Path:
    """Return a folder among the temporary files: this user's own, or else one for this process alone."""
    base = Path(tempfile.gettempdir())
    if base == Path.cwd() and base not in (Path("/tmp"), Path("/var/tmp")):
        # Python's last resort. What came with the data is not to be executed.
        raise FileNotFoundError("no folder for temporary files can be written to")
    try:
        folder = base / (f"nnkit-{os.geteuid()}" if hasattr(os, "geteuid") else "nnkit")
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink():
            raise PermissionError(f"{folder}: it is a link")
        _claim(folder)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="nnkit-", dir=base))
        atexit.register(partial(_remove, folder, os.getpid()))
        _claim(folder)
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not a child that was forked
        shutil.rmtree(folder, ignore_errors=True)
