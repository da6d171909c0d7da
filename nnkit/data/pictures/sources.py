"""Find pictures in tables and lists of their paths, or take them from a program, and decode them.

Order: tables and lists, decoding, pictures as a program gives them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples
from nnkit.data.files.text import plain_name
from nnkit.data.messages import listed, more, reading
from nnkit.data.pictures.cache import Decoded, decode_pictures
from nnkit.data.pictures.columns import PictureOptions, Pictures, PictureSettings, printable, shown_path
from nnkit.data.pictures.folders import ExampleFiles, Kind, load_files
from nnkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PICTURES", "as_pictures", "load_pictures", "picture_column", "picture_table", "read_list"]

PICTURES = Kind(
    "picture",
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    beside="error",
)
"""The files that are decoded."""

_LOOKED_AT = 20  # values of a column
_LONGEST_PATH = 300
_LARGEST_LIST = 1 << 28
_DEPTHS = (8, 10, 12, 14, 16)
_ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FILE_ADDRESS = re.compile(r"file:(//(localhost)?(?=/))?", re.IGNORECASE)


# --- tables and lists ---


def picture_column(
    table: pa.Table, names: Sequence[str], folder: Path, options: PictureOptions
) -> str | None:
    """Return the column of a table that holds the paths of pictures; None for a table without one.

    It is the one that the options name, or one of `names` where the first values end with a picture's suffix.
    The paths are relative to `folder`, that of the table. A DataError says if several columns hold paths,
    none of the files is there, or a model of pictures finds no column.
    """
    from nnkit.data.tables.columns import type_kind
    from nnkit.data.tables.frames import column_name

    if options.expected is False:
        return None
    if options.column is not None:
        return column_name(options.column, table.column_names)
    finder = _Finder(folder)
    readable = [name for name in names if type_kind(table[name].type) in ("text", "category", "number")]
    first = {
        name: [value for value in table[name].slice(0, _LOOKED_AT).to_pylist() if value not in (None, "")]
        for name in readable
    }
    likely = {name: values for name, values in first.items() if _look_like_paths(values)}
    found = [name for name in likely if finder.finds_any(table[name])]
    if not found and likely:
        name, values = next(iter(likely.items()))
        raise finder.none_found(name, values)
    if options.expected and not found:
        found = [name for name, values in first.items() if any(finder.find(str(value)) for value in values)]
        if not found:
            raise DataError(
                "the model was trained on pictures, and no column holds their paths, relative to "
                f"{finder.where}: the columns are {listed(table.column_names)}"
            )
    if len(found) > 1:
        raise DataError(
            f"several columns hold paths of pictures, {listed(map(repr, found))}: say data.image_column"
        )
    return found[0] if found else None


def _look_like_paths(values: list[Any]) -> bool:
    return bool(values) and all(
        isinstance(value, str)
        and PICTURES.matches((value.partition("?")[0] if _ADDRESS.match(value) else value).strip())
        for value in values
    )


class _Finder:
    """Finds pictures by paths relative to a folder, or else to the working directory.

    A path may have the separators of Windows or begin with ``file://``, and may lack the suffix.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = tuple(dict.fromkeys((folder, Path())))

    def find(self, value: str) -> Path | None:
        """Return the path of a picture that is there; None for a missing one."""
        for folder in self._folders:
            for name in _spellings(value):
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    return Path(path)
        return None

    def finds_any(self, column: pa.ChunkedArray) -> bool:
        """Tell whether one of a column's pictures is there."""
        values = (value for chunk in column.chunks for value in chunk.to_pylist() if value)
        return any(self.find(value) is not None for value in values if not _ADDRESS.match(value))

    @property
    def where(self) -> str:
        """The folders, for messages."""
        return " or ".join(dict.fromkeys(shown_path(folder.absolute()) for folder in self._folders))

    def none_found(self, column: str, values: Sequence[str]) -> DataError:
        """Return the error for a column of paths where no picture is found."""
        shown = f"{values[0][:_LONGEST_PATH]}{', ...' if len(values) > 1 else ''}"
        advice = "or leave the column out by `drop`"
        if _ADDRESS.match(values[0]):
            return DataError(
                f"column {column!r} holds web addresses of pictures ({shown}), and only files are read\n"
                f"Download them first and give the paths of the files, {advice}"
            )
        return DataError(
            f"column {column!r} looks like paths of pictures ({shown}), and none is there, relative to "
            f"{self.where}\nCorrect the paths or put the pictures there, {advice}"
        )


def _spellings(value: str) -> Iterator[str]:
    name = value.strip()
    if _FILE_ADDRESS.match(name):
        name = unquote(_FILE_ADDRESS.sub("", name, count=1))
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        spelling = os.path.expanduser(spelling)
        yield spelling
        if not PICTURES.matches(spelling):
            yield from (spelling + suffix for suffix in PICTURES.suffixes)


def picture_table(
    table: pa.Table, column: str, path: Path, labels: Any, names: Sequence[str]
) -> ExampleFiles:
    """Return the pictures of a column of paths, with their labels (None for none)."""
    values = [str(value) if isinstance(value, int) else value for value in table[column].to_pylist()]
    finder = _Finder(path.parent)
    paths: list[Path] = []
    missing: list[str] = []
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value or "\0" in value or len(value) > 4 * _LONGEST_PATH:
            shown = "nothing" if value in (None, "") else repr(value)[:_LONGEST_PATH]
            raise DataError(
                f"column {column!r} holds {shown} in row {row} (counting from 0), and not a picture's path"
            )
        found = finder.find(value)
        if found is None:
            missing.append(value)
        paths.append(path.parent / os.path.expanduser(value) if found is None else found)
    if values and len(missing) == len(values):
        raise finder.none_found(column, missing)
    others = [name for name in table.column_names if name != column and name not in names]
    note = f"pictures are learned from alone: not used are {', '.join(map(repr, others))[:200]}"
    name = plain_name(path).rsplit(".", 1)[0]
    notes = (note,) if others and labels is not None else ()
    return ExampleFiles(PICTURES, name, paths, labels, tuple(names), notes=notes)


def read_list(path: Path) -> ExampleFiles | None:
    """Return the pictures that a text names, one in each line; None where the first line is no picture's."""
    with reading(path), path.open("rb") as stream:
        content = stream.read(_LARGEST_LIST + 1)
    if len(content) > _LARGEST_LIST:
        return None
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        return None
    named = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not named or not PICTURES.matches(named[0][1]):
        return None
    wrong = next(((n, line) for n, line in named if not PICTURES.matches(line) or "\0" in line), None)
    if wrong is not None:
        shown = "".join(sign if sign.isprintable() else "�" for sign in wrong[1][:80])
        raise DataError(f"{path}, line {wrong[0]}: {shown} is no picture's path ({PICTURES.listed})")
    finder = _Finder(path.parent)
    paths = [finder.find(line) or path.parent / os.path.expanduser(line) for _, line in named]
    return ExampleFiles(PICTURES, path.stem, paths)


# --- decoding ---


def load_pictures(files: ExampleFiles, options: PictureOptions, keep: bool) -> Dataset:
    """Decode pictures, or read them from the cache (`keep` adds them to it however few they are).

    Pictures that cannot be read are an error, or are left out, as the options say.
    """
    settings = options.settings
    decoded = _decode(files, options, settings, keep)
    if options.expected is None and decoded.highest > 0:
        # The training set determines the range, also of the test set and of predictions.
        settings = replace(settings, depth=next(bits for bits in _DEPTHS if decoded.highest < 1 << bits))
        top = 2**settings.depth - 1
        note = f"the pictures have 16 bits and values up to {decoded.highest:,}: 0 to {top:,} become 0 to 255"
        files = replace(files, notes=(*files.notes, note))
        if settings != options.settings:
            decoded = _decode(files, options, settings, keep)

    def read(part: ExampleFiles) -> tuple[Examples, list[str]]:
        found = decoded if part is files else _decode(part, options, settings, keep)
        rows = np.array([place for place in range(len(part.paths)) if place not in found.bad], np.int64)
        paths = [printable(path) for path in part.paths]
        pictures = Pictures(found.pixels, settings, rows, paths, found.origin)
        labels = None if part.labels is None else part.labels[rows]
        return Examples(pictures, labels), [f"{paths[place]}: {why}" for place, why in found.bad.items()]

    return load_files(files, read, settings.shape)


def _decode(files: ExampleFiles, options: PictureOptions, settings: PictureSettings, keep: bool) -> Decoded:
    skip = options.on_bad == "skip"
    missing = [] if skip else [path for path in files.paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{shown_path(missing[0])}{more(missing)}: there is no such picture; paths are relative to the "
            "file that names them, or to the working directory"
        )
    return decode_pictures(files.paths, settings, skip=skip, keep=keep)


# --- pictures as a program gives them ---


def as_pictures(given: Any, settings: PictureSettings) -> Pictures:
    """Return `Pictures` from paths, Pillow's images, a list of these, or an array.

    An array is uint8 of shape (samples, height, width), (samples, height, width, channels) with 1, 3 or 4
    channels, or (samples, channels · height · width) as `Pictures` has them.
    """
    if isinstance(given, Pictures):
        return given
    if isinstance(given, np.ndarray) and given.dtype != object:
        pixels = _pixels_of_array(given, settings)
    else:
        single = isinstance(given, str | os.PathLike) or _is_image(given)
        pixels = _pixels_of_items([given] if single else _items(given), settings)
    return Pictures(pixels, settings, np.arange(len(pixels)))


def _items(given: Any) -> list[Any]:
    if not isinstance(given, Iterable) or hasattr(given, "column_names") or hasattr(given, "columns"):
        raise DataError(
            f"the model was trained on pictures, not on {type(given).__name__}: give paths, Pillow's images "
            "or an array of shape (samples, height, width, channels)"
        )
    items = list(given)
    if not items:
        raise DataError("there are no pictures")
    return items


def _is_image(value: Any) -> bool:
    return hasattr(value, "getexif") and hasattr(value, "convert")


def _pixels_of_items(items: list[Any], settings: PictureSettings) -> NDArray[np.uint8]:
    from nnkit.data.pictures.decoding import decode_image, pillow_is_quiet

    if all(isinstance(item, str | os.PathLike) for item in items):
        return decode_pictures([Path(item) for item in items], settings, keep=False).pixels
    pixels = np.empty((len(items), settings.count), np.uint8)
    with pillow_is_quiet():
        for place, item in enumerate(items):
            if not _is_image(item):
                raise DataError(f"picture {place} is neither a path nor an image of Pillow's, as others are")
            pixels[place] = decode_image(item, settings).reshape(-1)
    return pixels


def _pixels_of_array(array: NDArray[Any], settings: PictureSettings) -> NDArray[np.uint8]:
    from PIL import Image

    from nnkit.data.pictures.decoding import decode_image

    if array.dtype != np.uint8:
        raise DataError(f"pictures in an array are uint8, from 0 to 255, not {array.dtype}")
    if array.ndim == 2 and array.shape[1] == settings.count and len(array):
        return np.ascontiguousarray(array)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (3, 4))):
        raise DataError(
            "pictures in an array have the shape (samples, height, width) or (samples, height, width, "
            f"channels), not {array.shape}"
        )
    pixels = np.empty((len(array), settings.count), np.uint8)
    for place, picture in enumerate(array):
        pixels[place] = decode_image(Image.fromarray(np.ascontiguousarray(picture)), settings).reshape(-1)
    return pixels
