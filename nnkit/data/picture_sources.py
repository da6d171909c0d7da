"""Find pictures and their classes: in folders, in tables of paths, in lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples
from nnkit.data.picture_cache import decode_pictures
from nnkit.data.pictures import PictureOptions, Pictures, printable, shown_path
from nnkit.errors import DataError, FileError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "PICTURE_SUFFIXES",
    "PictureFiles",
    "find_pictures",
    "holds_pictures",
    "is_picture",
    "load_pictures",
    "picture_column",
    "picture_folder",
    "picture_table",
    "read_list",
]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif")
"""What the names of pictures end with, in small letters."""

_TARGET = "class"
_LITTER = (
    "thumbs.db",
    "desktop.ini",
    "__macosx",
)  # what other systems leave in folders; and names with a dot
_TRAINING, _TESTING = ("train", "training"), ("test", "testing")
_VALIDATING = ("val", "valid", "validation")
_LOOKED_AT = 20  # values of a column
_LONGEST_PATH = 300
_LARGEST_LIST = 1 << 28


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Files of pictures that are not decoded yet.

    Parameters
    ----------
    name : str
        Of the source, for the run's folder.
    paths : list of Path
        The files, of which some may be missing.
    labels : ndarray of shape (files,) or None
        The target of each.
    target_names : tuple of str
        The target's columns.
    bad : tuple of str
        What was left out already because it is no picture.
    test : PictureFiles or None
        The test set that lies beside.
    notes : tuple of str
        Words for the user.
    """

    name: str
    paths: list[Path]
    labels: NDArray[Any] | None = None
    target_names: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    test: PictureFiles | None = None
    notes: tuple[str, ...] = ()


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Tell whether a name ends as a picture's does."""
    return str(name).lower().endswith(PICTURE_SUFFIXES)


# --- folders ---


def holds_pictures(folder: Path) -> bool:
    """Tell whether a folder, or one within it, has a picture."""
    return any(is_picture(path) for path in _files(folder))


def find_pictures(folder: Path) -> PictureFiles:
    """Return all pictures of a folder and of those within it, in the order of their paths; no classes."""
    paths = [path for path in _files(folder) if is_picture(path)]
    if not paths:
        raise DataError(f"{folder}: there is no picture in this folder ({_listed_suffixes()})")
    return PictureFiles(folder.resolve().name, paths)


def picture_folder(folder: Path, options: PictureOptions) -> PictureFiles:
    """Return the pictures of a folder with one subfolder a class.

    Where the subfolders are called train and test, those of train are the classes, and test is the test set.
    """
    names = {path.name.lower(): path for path in _subfolders(folder)}
    training = [names[name] for name in _TRAINING if name in names]
    if len(training) == 1 and set(names) <= {*_TRAINING, *_TESTING, *_VALIDATING}:
        testing = [names[name] for name in _TESTING if name in names]
        test = _classes(testing[0], options) if len(testing) == 1 else None
        other = [names[name] for name in _VALIDATING if name in names]
        notes = [f"{path} is not used: data.validation = {str(path)!r} measures on it" for path in other]
        found = _classes(training[0], options)
        return PictureFiles(
            folder.resolve().name,
            found.paths,
            found.labels,
            (_TARGET,),
            found.bad + (() if test is None else test.bad),
            test,
            tuple(notes),
        )
    return _classes(folder, options)


def _classes(folder: Path, options: PictureOptions) -> PictureFiles:
    subfolders = _subfolders(folder)
    beside = [path for path in _files(folder, deep=False) if is_picture(path)]
    if not subfolders and not beside:
        raise DataError(f"{folder}: there is no picture in this folder ({_listed_suffixes()})")
    if not subfolders:
        raise DataError(
            f"{folder}: its pictures have no classes: put those of each class into a subfolder of its name, "
            "or give a table of paths and labels"
        )
    if beside:
        raise DataError(
            f"{shown_path(beside[0])}: lies beside the subfolders, so it has no class: move it into one "
            "of them, or away"
        )
    paths: list[Path] = []
    labels: list[str] = []
    bad: list[str] = []
    for subfolder in subfolders:
        name, files = printable(subfolder.name), list(_files(subfolder))
        pictures = [path for path in files if is_picture(path)]
        others = [path for path in files if not is_picture(path)]
        if others and options.on_bad == "error":
            more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
            raise DataError(
                f"{shown_path(others[0])}{more}: no picture ({_listed_suffixes()}) among those of class "
                f'{name!r}\nRemove what is none, or leave it out by `on_bad` = "skip"'
            )
        bad += [f"{shown_path(path)}: it is no picture" for path in others]
        if not pictures:
            raise DataError(f"{shown_path(subfolder)}: the class {name!r} has no pictures: remove the folder")
        paths += pictures
        labels += [name] * len(pictures)
    return PictureFiles(folder.resolve().name, paths, np.array(labels, dtype=object), (_TARGET,), tuple(bad))


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_litter(path.name))
    except OSError as error:
        raise FileError(f"{folder}: cannot be read: {error.strerror or error}") from None


def _files(folder: Path, deep: bool = True) -> Iterator[Path]:
    """Yield the files of a folder and, if asked, of those within it, sorted."""

    def refuse(error: OSError) -> None:
        raise FileError(f"{error.filename}: cannot be read: {error.strerror or error}") from None

    for parent, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if deep and not _is_litter(name))
        yield from (Path(parent, name) for name in sorted(names) if not _is_litter(name))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _listed_suffixes() -> str:
    return ", ".join(PICTURE_SUFFIXES)


# --- tables and lists ---


def picture_column(table: pa.Table, folder: Path, wanted: str | int | None) -> str | None:
    """Return the column of a table whose values are paths of pictures, relative to the folder.

    Parameters
    ----------
    table : pyarrow.Table
    folder : Path
        In which the table's file lies.
    wanted : str, int or None
        The column; None takes the one whose first values end as pictures do and of which one is there.
    """
    from nnkit.data.tables.frames import column_name, listed

    if wanted is not None:
        return column_name(wanted, table.column_names)
    found = [name for name in table.column_names if _are_pictures(table[name], folder)]
    if len(found) > 1:
        raise DataError(
            f"several columns hold paths of pictures, {listed(map(repr, found))}: say data.image_column"
        )
    return found[0] if found else None


def _are_pictures(column: pa.ChunkedArray, folder: Path) -> bool:
    first = _first_texts(column)
    return bool(first) and all(map(is_picture, first)) and any(_is_file(folder, value) for value in first)


def _first_texts(column: pa.ChunkedArray) -> list[str]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return []
    return [value for value in column.slice(0, _LOOKED_AT).to_pylist() if value is not None]


def _is_file(folder: Path, value: str) -> bool:
    try:
        return (folder / os.path.expanduser(value)).is_file()
    except (OSError, ValueError):
        return False


def picture_table(
    table: pa.Table, column: str, path: Path, labels: Any, names: Sequence[str]
) -> PictureFiles:
    """Return the pictures whose paths a table's column holds, with their labels (None for none)."""
    values = table[column].to_pylist()
    paths = []
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value or "\0" in value or len(value) > 4 * _LONGEST_PATH:
            shown = "nothing" if value in (None, "") else repr(value)[:_LONGEST_PATH]
            raise DataError(
                f"column {column!r} holds {shown} in row {row} (counting from 0), and not a picture's path"
            )
        paths.append(path.parent / os.path.expanduser(value))
    others = [name for name in table.column_names if name != column and name not in names]
    notes = (f"pictures are learned from alone: not used are {', '.join(map(repr, others))[:200]}",)
    name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    return PictureFiles(
        name, paths, labels, tuple(names), notes=notes if others and labels is not None else ()
    )


def read_list(path: Path) -> PictureFiles | None:
    """Return the pictures that a text names, one a line, relative to it; None where the first is none."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_LIST + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > _LARGEST_LIST:
        return None
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        return None
    named = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not named or not is_picture(named[0][1]):
        return None
    wrong = next(((n, line) for n, line in named if not is_picture(line) or "\0" in line), None)
    if wrong is not None:
        shown = "".join(sign if sign.isprintable() else "�" for sign in wrong[1][:80])
        raise DataError(f"{path}, line {wrong[0]}: {shown} is no picture's path ({_listed_suffixes()})")
    return PictureFiles(path.stem, [path.parent / os.path.expanduser(line) for _, line in named])


# --- decoding ---


def load_pictures(files: PictureFiles, options: PictureOptions, where: str, keep: bool) -> Dataset:
    """Decode the pictures, or read them from the cache; those that are bad are an error or are left out.

    Parameters
    ----------
    files : PictureFiles
    options : PictureOptions
    where : str
        What to call the source in messages.
    keep : bool
        Whether to keep them decoded, however few they are.
    """
    train, bad = _examples(files, options, keep)
    test, test_bad = (None, []) if files.test is None else _examples(files.test, options, keep)
    bad = [*files.bad, *bad, *test_bad]
    notes = list(files.notes)
    if bad:
        total = len(files.paths) + len(files.bad) + (0 if files.test is None else len(files.test.paths))
        notes.append(f"skipped {len(bad):,} of {total:,} files that are no whole pictures, first {bad[0]}")
    shape = options.settings.shape
    return Dataset(files.name, train, test, files.target_names, shape, notes=tuple(notes))


def _examples(files: PictureFiles, options: PictureOptions, keep: bool) -> tuple[Examples, list[str]]:
    skip = options.on_bad == "skip"
    missing = {place for place, path in enumerate(files.paths) if not _is_file(path.parent, path.name)}
    if missing and not skip:
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{shown_path(files.paths[min(missing)])}{more}: there is no such picture; paths are relative "
            "to the file that names them"
        )
    decoded = decode_pictures(files.paths, options.settings, skip=skip, keep=keep)
    bad = {
        place: ("there is no such file" if place in missing else why) for place, why in decoded.bad.items()
    }
    rows = np.array([place for place in range(len(files.paths)) if place not in bad], np.int64)
    paths = [printable(path) for path in files.paths]
    pictures = Pictures(decoded.pixels, options.settings, rows, paths, decoded.origin)
    labels = None if files.labels is None else files.labels[rows]
    return Examples(pictures, labels), [f"{paths[place]}: {why}" for place, why in bad.items()]
