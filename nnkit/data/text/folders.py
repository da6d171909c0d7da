"""Read the files of a folder of texts into a table."""

from __future__ import annotations

import codecs
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnkit.data.examples import Dataset, Examples
from nnkit.data.limits import check_size
from nnkit.data.messages import reading
from nnkit.data.pictures.columns import printable, shown_path
from nnkit.data.pictures.folders import CLASS, ExampleFiles, Kind, load_files
from nnkit.errors import DataError, NnkitError

if TYPE_CHECKING:
    from nnkit.data.tables.schema import Schema

__all__ = ["TEXTS", "read_text_folder"]

TEXTS = Kind("text", (".txt", ".text"), beside="note")
_TEXT, _PATH = "text", "path"


def read_text_folder(files: ExampleFiles, skip: bool = False, encoding: str | None = None) -> Dataset:
    """Read the texts of a folder into a table with a column of texts, and of paths for texts to predict.

    A byte-order mark at a text's beginning is left out; an empty file is an empty text. The encoding is UTF-8
    unless it is given by a name that Python knows. With `skip`, files that cannot be read are left out.
    """
    from nnkit.data.tables.schema import Column, Schema

    schema = Schema((Column(_TEXT, "text"), Column(CLASS, "category")))
    dataset = load_files(files, lambda part: _read(part, skip, encoding, schema))
    if files.labels is not None:
        return replace(dataset, columns=(_TEXT, CLASS), schema=schema)
    return replace(dataset, columns=(_TEXT, _PATH), schema=schema, source=dataset.train.features)


def _read(
    files: ExampleFiles, skip: bool, encoding: str | None, schema: Schema
) -> tuple[Examples, list[str]]:
    import pyarrow as pa

    from nnkit.data.tables.schema import METADATA

    texts: dict[int, str] = {}
    bad: list[str] = []
    size = 0
    for row, path in enumerate(files.paths):
        try:
            text, length = _text(path, encoding)
        except NnkitError as error:
            if not skip:
                raise
            bad.append(str(error).partition("\n")[0])
            continue
        size += length
        check_size(2 * size, files.name)  # as Python's texts and in the Arrow array made of them
        texts[row] = text
    if not texts:
        raise DataError(f"none of the {len(bad):,} texts can be read, first {bad[0]}")
    columns = {_TEXT: pa.array(texts.values(), pa.large_string())}
    labels = None
    if files.labels is None:
        columns[_PATH] = pa.array([printable(files.paths[row]) for row in texts], pa.large_string())
    else:
        labels = files.labels[np.array(list(texts))]
    return Examples(pa.table(columns, metadata={METADATA: schema.metadata}), labels), bad


def _text(path: Path, encoding: str | None) -> tuple[str, int]:
    """Return a file's text, and its number of bytes."""
    with reading(shown_path(path)):
        content = path.read_bytes()
    utf8 = encoding is None or codecs.lookup(encoding).name == "utf-8"
    try:
        return content.decode("utf-8-sig" if utf8 else str(encoding)), len(content)
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        raise DataError(
            f"{shown_path(path)}: byte {start + 1} is not {'UTF-8' if utf8 else encoding} text\n"
            "Give the encoding of the texts by `encoding`, such as latin-1 or utf-16, or convert the file"
        ) from None
    except LookupError:
        raise DataError(
            f"`encoding` {encoding!r} is not for texts: give one such as utf-8 or latin-1"
        ) from None
