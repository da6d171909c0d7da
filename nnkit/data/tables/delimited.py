"""Read delimited text (CSV, TSV and their like) as the strings that its cells are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from nnkit.data.files.text import read_text
from nnkit.data.tables.decoding import line_and_byte, not_utf8, to_utf8
from nnkit.data.tables.header import Header, are_row_names, column_names
from nnkit.data.tables.layout import Layout, find_layout
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.raw import RawTable
from nnkit.data.tables.rows import first_mistake
from nnkit.errors import ConfigError, DataError, NnkitError, shown

__all__ = ["read_delimited"]

# An empty cell and its separator, one byte, become an offset of four, beside the text itself.
_GROWTH = 5
# Arrow's own for a small file; larger ones for a large file, for each is a chunk that is gone through.
_BLOCK, _LARGER_BLOCK, _PIECES = 1 << 20, 1 << 23, 8
_ROWS_A_BLOCK = 64
_LARGEST_BLOCK = 1 << 26
# Without a header this many rows must end with a separator before it is taken for the end of a row.
_FEWEST_TRAILING = 10
# pandas writes its index without a name, and reads it under this one.
_PANDAS_INDEX = re.compile(r"Unnamed: 0(\.\d+)?")
_UNUSED = "\x1f\x1e\x1d\x1c\x01\x02\x03\x04\x05\x06\x07"
_LAST = ("the last column, which has no name", "the last {} columns, which have no names")
_FIND_OUT = TableOptions()
_HELP = "`separator`, `quote`, `comment`, `skip_rows` or `header`"


def read_delimited(path: Path, options: TableOptions = _FIND_OUT) -> RawTable:
    """Read a delimited text file; what `options` leave open is found out.

    Parameters
    ----------
    path : Path
        The file, compressed or not.
    options : TableOptions

    Returns
    -------
    RawTable
        Every column holds strings, without their quotes and else as they stand in the file; without a header
        the columns are named "0", "1", and so on.

    Raises
    ------
    ConfigError
        Where an option does not fit.
    DataError
        Where the text is not UTF-8, a row has too many or too few cells, a name stands twice, or it is empty.
    FileError
        Where the file cannot be read, or is no table.
    """
    where = str(path)
    text, notes = to_utf8(read_text(path, _GROWTH), options.encoding, where)
    layout = find_layout(text, options, where, ".tsv" in path.name.lower())
    header = layout.header
    _check_names(header.names or (), where)
    table = _parsed(layout, where)
    if table.num_rows == 0:
        raise _no_rows(where)
    notes += header.notes
    blank = _blank_at_the_end(table, header)
    if blank:
        notes.append(f"Left out: {_LAST[blank > 1].format(blank)} and no values.")
        table = table.select(range(table.num_columns - blank))
    names = column_names(header.names[: table.num_columns]) if header.names else table.column_names
    nameless = len(names) - header.cells
    if nameless > header.row_names or (header.row_names and not are_row_names(table[0])):
        cells = f"the header has {header.cells} cells and the rows have {header.width}"
        raise DataError(f"{where}: {cells}: correct the header")
    index = names[:1] if _is_index(table, header) else ()
    return RawTable(
        table.rename_columns(names), header.names is not None, layout.separator, tuple(index), tuple(notes)
    )


def _check_names(names: Sequence[str], where: str) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in seen:
            raise DataError(
                f"{where}: columns {seen[name]} and {place} are both named {name[:60]!r}: rename one of them"
            )
        if name:
            seen[name] = place


def _parsed(layout: Layout, where: str) -> pa.Table:
    """Parse the rows; the columns are named by their numbers."""
    text, dialect = layout.text, layout.dialect
    if dialect.quote == dialect.separator:
        raise ConfigError(f"{where}: `separator` and `quote` are both {dialect.quote!r}")
    names = [str(number) for number in range(layout.header.width)]
    unused = next((sign for sign in _UNUSED if sign.encode() not in text), _UNUSED[0])
    parse = pa.csv.ParseOptions(
        delimiter=dialect.separator or unused,
        quote_char=dialect.quote or False,
        double_quote=bool(dialect.quote),
        escape_char="\\" if dialect.escapes else False,
        newlines_in_values=bool(dialect.quote) and text.find(dialect.quote.encode(), layout.start) >= 0,
    )
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    block = max(_BLOCK, min(len(text) // _PIECES, _LARGER_BLOCK))
    block = max(block, min(_ROWS_A_BLOCK * layout.longest_row, _LARGEST_BLOCK))
    while True:
        read = pa.csv.ReadOptions(column_names=names, block_size=block)
        source = pa.BufferReader(pa.py_buffer(text).slice(layout.start))
        try:
            return pa.csv.read_csv(source, read, parse, convert)
        except pa.ArrowInvalid as error:
            if "straddling" in str(error) and block <= len(text):
                block *= 8  # no row may be longer than a block
            elif "Expected" in str(error) and parse.invalid_row_handler is None:
                _check_utf8(text, where)  # Arrow would print what is wrong with a row that it hands over
                parse.invalid_row_handler = _skip_blank
            else:
                raise _mistake(layout, str(error), where) from None


def _skip_blank(row: pa.csv.InvalidRow) -> str:
    return "error" if row.text.strip(" \t") else "skip"


def _check_utf8(text: bytes, where: str) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise not_utf8(text, where) from None


def _mistake(layout: Layout, message: str, where: str) -> NnkitError:
    """Return what to raise for an error of Arrow's."""
    if "Empty CSV" in message:
        return _no_rows(where)
    _check_utf8(layout.text, where)
    text = layout.text[layout.start :].decode()
    found = first_mistake(text, layout.dialect, layout.header.width)
    if found is None:
        message = " ".join(message.split())
        return DataError(f"{where}: not readable as delimited text: {shown(message)}: {_HELP}")
    before, _ = line_and_byte(layout.text, layout.start)
    line, words = found
    separator = layout.dialect.separator
    quotes = f" (a cell that holds {separator!r} stands in quotes)" if separator else ""
    return DataError(
        f"{where}: line {before + line} {words}: correct it{quotes}, or say how the table is written: {_HELP}"
    )


def _no_rows(where: str) -> DataError:
    return DataError(f"{where}: there is a header but not a single row of data")


def _blank_at_the_end(table: pa.Table, header: Header) -> int:
    """Return how many of the last columns have neither names nor values: rows end with a separator."""
    if header.names is None and table.num_rows < _FEWEST_TRAILING:
        return 0
    number = table.num_columns
    while number > 1 and not (header.names and header.names[number - 1]) and _is_blank(table[number - 1]):
        number -= 1
    return table.num_columns - number


def _is_blank(column: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.equal(pc.utf8_trim_whitespace(column), "")).as_py())


def _is_index(table: pa.Table, header: Header) -> bool:
    """Tell whether the first column only numbers or names the rows."""
    if header.names is None or table.num_columns == 1:
        return False
    unnamed = header.row_names or not header.names[0] or _PANDAS_INDEX.fullmatch(header.names[0])
    return bool(unnamed) and are_row_names(table[0])
