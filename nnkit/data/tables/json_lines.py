"""Read JSON Lines: one object a line, its keys the columns."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.json

from nnkit.data.limits import check_size
from nnkit.data.tables.frames import as_table
from nnkit.data.text_files import UNREADABLE, not_utf8, open_text, unreadable
from nnkit.errors import DataError

__all__ = ["read_json_lines"]

_CHUNK = 1 << 20
_LONGEST_REASON = 160
# A number or a null of two characters becomes eight bytes, a key that few rows have a column for all.
_MOST_GROWTH = 8
# Arrow ends the process where a block that it reads begins with one; it begins blocks after either sign.
_NULL = re.compile(rb"(?:^|\r)(?:\xef\xbb\xbf)?\s*null")


def read_json_lines(path: Path) -> pa.Table:
    """Read a file of JSON Lines, compressed by gzip or not, as a table; what a row lacks is missing.

    Raises
    ------
    DataError
        Where a line is no JSON object, a key's values are of different types, or the text is not UTF-8.
    FileError
        Where the file cannot be read.
    """
    size, longest = _survey(path)
    block = max(_CHUNK, 2 * longest)
    try:
        with open_text(path) as stream:
            options = pyarrow.json.ReadOptions(block_size=block)
            table = pyarrow.json.read_json(stream, read_options=options)
        table.validate(full=True)
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    except pa.ArrowException as error:
        raise _mistake(path, str(error), size <= block) from None
    if table.num_rows == 0:
        raise DataError(f"{path}: there is not a single row of data")
    try:
        return as_table(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _survey(path: Path) -> tuple[int, int]:
    """Read the text once: raise what is wrong with it; return its length and that of the longest line."""
    size = longest = 0
    begun = True
    try:
        with open_text(path) as stream:
            for number, line in enumerate(stream, 1):
                if _NULL.search(line):
                    raise DataError(f"{path}: line {number} is null and no object: write one object a line")
                if begun and line.strip():
                    _check_beginning(path, line)
                    begun = False
                size += len(line)
                longest = max(longest, len(line))
                check_size(_MOST_GROWTH * size, str(path))
                try:
                    line.decode()
                except UnicodeDecodeError:
                    raise not_utf8(path) from None
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    if begun:
        raise DataError(f"{path}: the file is empty")
    return size, longest


def _check_beginning(path: Path, line: bytes) -> None:
    if line.lstrip().startswith(b"["):
        raise DataError(
            f"{path}: the file is one JSON list and not an object a line: write it as JSON Lines, "
            "for example with jq -c '.[]'"
        )


def _mistake(path: Path, message: str, one_block: bool) -> DataError:
    """Return Arrow's complaint, without the row where it is counted within one of several blocks."""
    message = " ".join(message.split()).removeprefix("JSON parse error: ")
    message = re.sub(r" in row (\d+)", r" in row \1 (counting from 0)" if one_block else "", message)
    shown = message if len(message) <= _LONGEST_REASON else message[:_LONGEST_REASON] + "…"
    return DataError(f"{path}: not readable as JSON Lines: {shown}: write one object a line")
