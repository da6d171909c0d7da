"""Generated modules: named by the hash of their source, kept in the cache, executed from memory.

A source file in the cache is never executed: it is there to be read, and for Numba's disk cache, which keeps
its compiled files beside it. Numba unpickles those files, so each is checked against a digest first. Where
nothing can be kept, one warning says so, and everything is compiled in memory.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from nnkit.cache import ADVICE, cache_folder, write_cached
from nnkit.errors import FileError
from nnkit.kernels.locks import loading, uninterrupted

__all__ = [
    "forget_compiled",
    "is_cached",
    "kernel_folder",
    "load_source",
    "module_name",
    "source_name",
    "source_path",
    "warn_not_kept",
    "write_source",
]

logger = logging.getLogger("nnkit")

_sources: dict[str, str] = {}


def source_name(prefix: str, source: str) -> str:
    """Return the name of a module with this source, unique by its hash."""
    return f"{prefix}_{hashlib.sha256(source.encode()).hexdigest()[:24]}"


def module_name(name: str) -> str:
    """Return the name under which a generated module is imported."""
    return f"nnkit_kernel_{name}"


def kernel_folder() -> Path | None:
    """Return the folder of sources and machine code; None, after a warning, where there is no cache."""
    try:
        return cache_folder() / "kernels"
    except FileError as error:
        warn_not_kept(str(error))
        return None


def source_path(name: str) -> Path | None:
    """Return the path of a module's source; None where there is no cache."""
    folder = kernel_folder()
    return None if folder is None else folder / f"{name}.py"


def write_source(name: str, source: str) -> None:
    """Write a module to the cache unless it is there."""
    _sources[name] = source
    path = source_path(name)
    if path is not None and not path.exists():
        _write(path, source.encode())


def load_source(name: str, source: str) -> ModuleType:
    """Return the module of that source; it and the modules it imports are executed once in a process."""
    with uninterrupted(), loading:
        _sources[name] = source
        return _executed(name)


def is_cached(name: str) -> bool:
    """Whether a compiled function of this module is in the cache."""
    path = source_path(name)
    return path is not None and any(_compiled_files(path, "nbi"))


def forget_compiled(name: str) -> None:
    """Remove Numba's compiled files of a module, so that the next process compiles again."""
    path = source_path(name)
    if path is not None:
        _remove_compiled(path)


_warnings: list[str] = []


def warn_not_kept(problem: str) -> None:
    """Warn once in a process that compiled code cannot be kept."""
    logger.debug(problem)
    if not _warnings:
        _warnings.append(problem)
        advice = "" if ADVICE in problem else f": {ADVICE}"
        logger.warning(f"{problem}{advice}. Until then kernels are compiled again in every process")


def _write(path: Path, data: bytes) -> bool:
    try:
        write_cached(path, data)
    except FileError as error:
        warn_not_kept(str(error))
        return False
    return True


def _executed(name: str) -> ModuleType:
    full = module_name(name)
    if full not in sys.modules:
        source = _sources[name]
        for needed in re.findall(rf"^from {module_name('')}(\w+) import", source, re.MULTILINE):
            _executed(needed)
        path = source_path(name)
        kept = path is not None and _holds(path, source)
        module = ModuleType(full)
        # Executed before another thread can find it. Numba reads the file that the code names.
        code = compile(source, str(path) if kept else f"<{full}>", "exec", dont_inherit=True)
        exec(code, module.__dict__)
        sys.modules[full] = module
        if kept and path is not None:
            _keep_compiled(module, path)
    return sys.modules[full]


def _holds(path: Path, source: str) -> bool:
    """Whether a file holds this source; it is written if not."""
    try:
        if path.read_bytes() == source.encode():
            return True
    except OSError:
        pass
    return _write(path, source.encode())


# ---------------------------------------------------------------------------------------------------------
# Numba's compiled files.
# ---------------------------------------------------------------------------------------------------------


def _keep_compiled(module: ModuleType, path: Path) -> None:
    """Let Numba keep its compilations of a module's functions, where they can be kept and checked."""
    try:
        # Otherwise Numba looks for another folder, one that may be anybody's.
        tempfile.TemporaryFile(dir=_compiled_folder(path)).close()
    except OSError as error:
        warn_not_kept(f"{_compiled_folder(path)}: cannot be written: {error.strerror or error}")
        return
    if not _are_whole(path):
        _remove_compiled(path)
    for function in vars(module).values():
        if getattr(getattr(function, "py_func", None), "__module__", None) == module.__name__:
            _keep_function(function, path)


def _keep_function(function: Any, path: Path) -> None:
    """Enable Numba's disk cache of a function; a failure of the cache only costs a compilation."""
    if not hasattr(getattr(function, "_cache", None), "save_overload"):
        return  # an unknown release; without the digests below nothing could be loaded
    try:
        function.enable_caching()
    except (RuntimeError, OSError) as error:
        warn_not_kept(f"{path}: {error}")
        return
    load: Callable[..., Any] = function._cache.load_overload
    save: Callable[..., None] = function._cache.save_overload

    def load_overload(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception as error:  # unpickling may raise any
            logger.debug("Numba's compiled code of %s cannot be loaded: %s", path, error)
            return None

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except Exception as error:
            reason = getattr(error, "strerror", None) or error
            warn_not_kept(f"{_compiled_folder(path)}: cannot be written: {reason}")
        else:
            _write(_digest_file(path), _digests(path).encode())

    function._cache.load_overload = load_overload
    function._cache.save_overload = save_overload


def _compiled_folder(path: Path) -> Path:
    return path.parent / "__pycache__"


def _compiled_files(path: Path, suffix: str = "nb[ci]") -> list[Path]:
    return sorted(_compiled_folder(path).glob(f"{path.stem}.*.{suffix}"))


def _digest_file(path: Path) -> Path:
    return _compiled_folder(path) / f"{path.stem}.sha256"


def _digests(path: Path) -> str:
    """Return the digests of Numba's compiled files of a module, in the format of sha256sum."""
    files = _compiled_files(path)
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def _are_whole(path: Path) -> bool:
    try:
        return not _compiled_files(path) or _digest_file(path).read_bytes() == _digests(path).encode()
    except OSError:
        return False


def _remove_compiled(path: Path) -> None:
    for file in _compiled_files(path):
        with suppress(OSError):
            file.unlink()
