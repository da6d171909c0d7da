"""Read JSON: one object a line, its keys the columns, or a document that holds a table."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.json

from nnkit.data.files.text import not_utf8, read_text
from nnkit.data.tables.frames import as_table
from nnkit.data.tables.json_documents import JsonRows, document_rows, json_lines, line_rows
from nnkit.data.tables.raw import RawTable
from nnkit.errors import DataError

__all__ = ["read_json_lines"]

_CHUNK = 1 << 20
_LONGEST_REASON = 160
# A number or a null of two characters becomes eight bytes, a key that few rows have a column for all.
_MOST_GROWTH = 8
# Arrow ends the process where a block that it reads begins with one; it begins blocks after either sign.
_NULL = re.compile(rb"(?:^|\r)(?:\xef\xbb\xbf)?\s*null")


def read_json_lines(path: Path) -> RawTable:
    """Read a file of JSON Lines, or a JSON document, compressed or not; what a row lacks is missing.

    Of which documents the rows are read, `document_rows` says. A key whose values are of several types in
    different rows becomes a column of texts.

    Raises
    ------
    DataError
        Where a line is no JSON object, a document holds no table, or the text is not UTF-8.
    FileError
        Where the file cannot be read.
    """
    text = read_text(path, _MOST_GROWTH)
    try:
        text.decode()
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    if not text.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{path}: the file is empty")
    read: Callable[..., JsonRows | None] = document_rows
    found = read(text, path)
    if found is None:
        try:
            return RawTable(_table(text, _survey(text, path), path))
        except _SeveralTypes:
            read = line_rows
            found = line_rows(text, path)
    if not found.rows:
        raise DataError(f"{path}: there is not a single row of data")
    lines = json_lines(found.rows, partial(read, text, path, literal=True))
    return RawTable(_table(lines, _survey(lines, path), path), named=found.named, index=found.index)


class _SeveralTypes(Exception):
    """A key has values of several types, which Arrow does not read."""


def _survey(text: bytes, path: Path) -> int:
    """Return the length of the longest line; a DataError for what would end Arrow."""
    longest = 0
    for number, line in enumerate(io.BytesIO(text), 1):
        if _NULL.search(line):
            raise DataError(f"{path}: line {number} is null and no object: write one object a line")
        longest = max(longest, len(line))
    return longest


def _table(text: bytes, longest: int, path: Path) -> pa.Table:
    """Read JSON Lines by Arrow.

    From memory of Arrow's own: of a stream, or of Python's memory, its threads would ask Python, which ends
    the process where an error has meanwhile brought Python to its end.
    """
    block = max(_CHUNK, 2 * longest)
    memory = pa.BufferOutputStream()
    memory.write(text)
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(memory.getvalue()), read_options=pyarrow.json.ReadOptions(block_size=block)
        )
        table.validate(full=True)
    except pa.ArrowException as error:
        if "changed from" in str(error):
            raise _SeveralTypes from None
        raise _mistake(path, str(error), len(text) <= block) from None
    if table.num_rows == 0:
        raise DataError(f"{path}: there is not a single row of data")
    try:
        return as_table(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _mistake(path: Path, message: str, one_block: bool) -> DataError:
    """Return Arrow's complaint, without the row where it is counted within one of several blocks."""
    message = " ".join(message.split()).removeprefix("JSON parse error: ")
    message = re.sub(r" in row (\d+)", r" in row \1 (counting from 0)" if one_block else "", message)
    shown = message if len(message) <= _LONGEST_REASON else message[:_LONGEST_REASON] + "…"
    return DataError(
        f"{path}: not readable as JSON Lines: {shown}: write one object a line, for example with jq -c ."
    )
