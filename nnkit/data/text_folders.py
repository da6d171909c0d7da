"""Read a folder of text files: each subfolder's name is the class of the files in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nnkit.data.limits import check_size
from nnkit.errors import DataError, FileError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CLASS", "holds_texts", "read_text_folder"]

TEXT, CLASS = "text", "class"
"""The columns of the table that such a folder becomes."""
_SUFFIX = ".txt"


def holds_texts(path: Path) -> bool:
    """Tell whether a folder has files of text, in it or in its subfolders."""
    return any(_files(path)) or any(any(_files(folder)) for folder in _folders(path))


def read_text_folder(path: Path, require_target: bool = True) -> pa.Table:
    """Return a row for each .txt file: its text, and the name of the subfolder it lies in as its class.

    The rows are in the order of the classes' and the files' names. A folder without subfolders has no
    classes, and is for prediction only. A byte order mark at a text's beginning is left out.

    Raises
    ------
    DataError
        Where a file is not UTF-8, or there are no classes and `require_target` is set.
    FileError
        Where a file or a folder cannot be read.
    """
    import pyarrow as pa

    try:
        classes = {folder.name: list(_files(folder)) for folder in _folders(path)}
        classes = {name: files for name, files in classes.items() if files}
        loose = list(_files(path))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not classes and require_target:
        raise DataError(f"{path}: the texts have no classes: put those of each class into a subfolder")
    if not classes:
        return pa.table({TEXT: pa.array(_read(loose, path), pa.large_string())})
    files = [file for name in classes for file in classes[name]]
    labels = [name for name, files in classes.items() for _ in files]
    return pa.table({TEXT: pa.array(_read(files, path), pa.large_string()), CLASS: labels})


def _folders(path: Path) -> Iterator[Path]:
    return (item for item in sorted(path.iterdir()) if item.is_dir() and not item.name.startswith("."))


def _files(path: Path) -> Iterator[Path]:
    return (item for item in sorted(path.iterdir()) if item.suffix.lower() == _SUFFIX and item.is_file())


def _read(files: list[Path], folder: Path) -> list[str]:
    texts, size = [], 0
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise FileError(f"{file}: cannot be read: {error.strerror or error}") from None
        size += len(content)
        check_size(2 * size, str(folder))
        try:
            texts.append(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file}: byte {error.start + 1} is not UTF-8 text: convert the file, "
                "for example with iconv -f LATIN1 -t UTF-8"
            ) from None
    return texts
