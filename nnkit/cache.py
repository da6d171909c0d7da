"""The cache folder: compiled kernels, decoded pictures, downloads.

nnkit executes code from this folder, so it is used only if no other user can write to that code.
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

__all__ = ["ADVICE", "cache_folder", "describe_cache", "write_cached"]

logger = logging.getLogger("nnkit")

ADVICE = "set NNKIT_CACHE to a folder with free space that only you can write to"
"""How to fix any problem with the folder: the end of a message."""

# The folders whose files are executed.
_CODE = ("kernels", "kernels/native", "kernels/__pycache__")


def cache_folder() -> Path:
    """Return the cache's folder, which exists.

    It is ``NNKIT_CACHE``, or ``nnkit`` in ``XDG_CACHE_HOME`` or in ``~/.cache``. If that folder cannot be
    used, one warning says why, and a private folder among the temporary files replaces it.

    Raises
    ------
    FileError
        If neither can be used.
    """
    return _chosen(*_environment())


def describe_cache() -> str:
    """Return the cache's folder and, if it replaces another one, the problem with that."""
    try:
        folder, problem = _found(*_environment())
    except FileError as error:
        return str(error)
    return f"{folder} ({problem})" if problem else str(folder)


def write_cached(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file into the cache, whole or not at all; or raise a `FileError` with advice."""
    write_whole(path, data, advice=ADVICE)


def _environment() -> tuple[str, ...]:
    return tuple(os.environ.get(name, "") for name in ("NNKIT_CACHE", "XDG_CACHE_HOME", "HOME"))


@cache
def _chosen(own: str, shared: str, home: str) -> Path:
    folder, problem = _found(own, shared, home)
    if problem:
        logger.warning(f"{problem}; the cache is in {folder} instead: {ADVICE}")
    return folder


@cache
def _found(own: str, shared: str, home: str) -> tuple[Path, str]:
    """Return the folder for these environment variables, and the problem with the one that they name."""
    try:
        folder = _named(own, shared)
        _claim(folder)
        return folder, ""
    except OSError as error:
        problem = _reason(error)
    try:
        return _private_folder(), problem
    except OSError as error:
        raise FileError(f"{problem}, and {_reason(error)}: {ADVICE}") from None


def _reason(error: OSError) -> str:
    if error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _named(own: str, shared: str) -> Path:
    """Return the folder that the environment variables name; an empty one counts as unset."""
    try:
        if own:
            # Absolute, so that a later change of the working directory does not matter.
            return Path(own).expanduser().absolute()
        # The XDG Base Directory Specification: a relative path is ignored.
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    except RuntimeError:
        raise FileNotFoundError(f"{own or '~/.cache'}: the home folder is not known") from None
    if not base.is_absolute():
        raise FileNotFoundError(f"{base}: the home folder is not an absolute path")
    return base / "nnkit"


def _claim(folder: Path) -> None:
    """Create the folder, and those for code in it, if they are missing.

    Raises `OSError` if another user can write to the code, or if this process cannot and there is none yet.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.mkdir(mode=0o755, exist_ok=True)
    above = folder.parent.stat().st_mode
    if above & stat.S_IWOTH and not above & stat.S_ISVTX and hasattr(os, "geteuid"):
        raise PermissionError(f"{folder.parent}: other users can replace {folder.name}")
    _check(folder, sticky=True)
    for name in _CODE:
        # The umask alone might let everybody write.
        (folder / name).mkdir(mode=0o755, exist_ok=True)
        _check(folder / name)
    # A folder that is read-only or full may still hold all the kernels that are needed.
    if not any((folder / "kernels" / "native").iterdir()):
        _try_to_write(folder / "kernels")


def _check(folder: Path, sticky: bool = False) -> None:
    """Raise `PermissionError` if a user other than root may have written to a folder."""
    if not hasattr(os, "geteuid"):  # Windows protects a user's folders from others by itself
        return
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"{folder}: it belongs to another user")
    # Where each user has a group of their own, the usual umask leaves folders writable for the group.
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
    """Return a folder among the temporary files: this user's, or else one for this process only."""
    base = Path(tempfile.gettempdir())
    if base == Path.cwd() and base not in (Path("/tmp"), Path("/var/tmp")):
        # Python's last resort is the working directory, which may hold files that came with the data.
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
