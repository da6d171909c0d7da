"""Read delimited text (CSV, TSV and the like); every cell is a string.

Order: the file, Arrow's parser, the layout: where the rows begin, how they are divided, their names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from nnkit.data.examples import RawTable
from nnkit.data.files.text import read_text
from nnkit.data.messages import about
from nnkit.data.tables.decoding import check_utf8, line_and_byte, to_utf8
from nnkit.data.tables.frames import check_distinct
from nnkit.data.tables.header import Header, are_row_names, column_names, find_header
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.rows import (
    MOST_COLUMNS,
    WHITESPACE,
    Dialect,
    Division,
    Sample,
    find_division,
    first_mistake,
    is_prose,
    one_column,
    split,
    squeeze,
    unpad,
    without_comments,
)
from nnkit.errors import ConfigError, DataError, NnkitError, shown

__all__ = ["read_delimited"]

# An empty cell and its separator, one byte, become an offset of four, beside the text itself.
_GROWTH = 5
# Arrow's own size for a small file; larger blocks for a large file, for each becomes a chunk of its own.
_BLOCK, _LARGER_BLOCK, _PIECES = 1 << 20, 1 << 23, 8
_ROWS_A_BLOCK = 64
_LARGEST_BLOCK = 1 << 26
# Without a header at least this many rows must end with a separator for it to be the end of a row.
_FEWEST_TRAILING = 10
# pandas writes its index without a name, and reads it under this one.
_PANDAS_INDEX = re.compile(r"Unnamed: 0(\.\d+)?")
_UNUSED = "\x1f\x1e\x1d\x1c\x01\x02\x03\x04\x05\x06\x07"
_LAST = ("the last column, which has no name", "the last {} columns, which have no names")
_DETECT = TableOptions()
_HELP = "`separator`, `quote`, `comment`, `skip_rows` or `header`"
_SAMPLE_BYTES = 1 << 16
_LONGEST_SAMPLE = 1 << 24
_FEWEST_LINES = 3
_MOST_HASHES = 10_000
_NOT_BLANK = re.compile(rb"[^ \t\r\n]")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_SEPARATOR_LINE = re.compile(rb'"?sep=([^\r\n"\x80-\xff])"?[ \t]*(?:\r\n|\n|\r|\Z)', re.IGNORECASE)


@dataclass(frozen=True)
class _Layout:
    """How the rows of a text are read."""

    text: bytes
    start: int  # where in the text the rows begin, after the header
    separator: str
    dialect: Dialect
    header: Header
    longest_row: int  # in the sample, in characters


def read_delimited(path: Path, options: TableOptions = _DETECT) -> RawTable:
    """Read a delimited text file, compressed or not; settings missing in `options` are detected.

    Every column holds strings as they stand in the file, without their quotes.
    """
    where = str(path)
    text, notes = to_utf8(read_text(path, _GROWTH), options.encoding, where)
    layout = _find_layout(text, options, where, ".tsv" in path.name.lower())
    header = layout.header
    with about(where):
        check_distinct(header.names or (), unnamed=True)
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


def _parsed(layout: _Layout, where: str) -> pa.Table:
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
                check_utf8(text, where)  # the handler is given no row that is not: Arrow would print an error
                parse.invalid_row_handler = lambda row: "error" if row.text.strip(" \t") else "skip"
            else:
                raise _mistake(layout, str(error), where) from None


def _mistake(layout: _Layout, message: str, where: str) -> NnkitError:
    """Return the error for a message of Arrow's."""
    if "Empty CSV" in message:
        return _no_rows(where)
    check_utf8(layout.text, where)
    text = layout.text[layout.start :].decode()
    found = first_mistake(text, layout.dialect, layout.header.width)
    if found is None:
        message = " ".join(message.split())
        return DataError(f"{where}: not readable as delimited text: {shown(message)}: {_HELP}")
    before, _ = line_and_byte(layout.text, layout.start)
    line, words = found
    separator = layout.dialect.separator
    quotes = f" (a cell with {separator!r} in it needs quotes)" if separator else ""
    return DataError(
        f"{where}: line {before + line} {words}: correct it{quotes}, or say how the table is written: {_HELP}"
    )


def _no_rows(where: str) -> DataError:
    return DataError(f"{where}: there is a header but not a single row of data")


def _blank_at_the_end(table: pa.Table, header: Header) -> int:
    """Return the number of last columns without names and values: rows end with a separator."""
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


# --- the layout ---


def _find_layout(text: bytes, options: TableOptions, where: str, tabs: bool = False) -> _Layout:
    """Find the layout of a UTF-8 text from its first rows; `tabs` says that tabs are expected between cells.

    Raises
    ------
    DataError
        Where the text is empty or too wide, or the header is ambiguous.
    """
    text, start, separator, hashes = _beginning(text, options)
    sample = _sample(text, start, where)
    if not sample.lines.strip():
        raise DataError(f"{where}: the file is empty" + (" after `skip_rows`" if options.skip_rows else ""))
    division = find_division(sample, separator, options.quote, tabs) or one_column(sample, options.quote)
    header = find_header(division, options.header, hashes)
    if header is None and separator is None and is_prose(sample):
        division = one_column(sample, options.quote)
        header = find_header(division, options.header, hashes)
    if header is None:
        raise _uncertain(division, text, start, where)
    if header.width > MOST_COLUMNS:
        most = f"more columns than the {MOST_COLUMNS} that are read from text"
        raise DataError(f"{where}: {most}: give it as .npy or Parquet")
    rows = division.rows
    if (rewritten := _rewritten(text, start, division)) is not None:
        text = rewritten
        sample = _sample(text, start, where)
        rows = split(sample.lines, division.dialect, is_cut=sample.is_cut)
    longest = max(row.end - row.start for row in rows)
    if header.rows:
        start += len(sample.lines[: rows[: header.rows][-1].end].encode())
    return _Layout(text, start, division.separator, division.dialect, header, longest)


def _beginning(text: bytes, options: TableOptions) -> tuple[bytes, int, str | None, list[str]]:
    """Return a text without comments, where its header begins, its separator and the "#" lines above it."""
    start = 0
    for _ in range(options.skip_rows):
        start = _after_line(text, start)
    separator = options.separator
    if found := _SEPARATOR_LINE.match(text, _after_blank_lines(text, start)):
        start = found.end()
        separator = separator or found[1].decode("latin-1")
    if options.comment is not None:
        quote = '"' if options.quote is None else options.quote
        text = text[:start] + without_comments(text[start:], options.comment, quote)
    start = _after_blank_lines(text, start)
    if options.header is not None and not isinstance(options.header, bool):
        for _ in range(options.header):
            start = _after_blank_lines(text, _after_line(text, start))
    elif options.comment is None:
        start, hashes = _after_hashes(text, start)
        return text, start, separator, hashes
    return text, start, separator, []


def _after_line(text: bytes, start: int) -> int:
    return _LINE.match(text, start).end()  # type: ignore[union-attr]


def _after_blank_lines(text: bytes, start: int) -> int:
    found = _NOT_BLANK.search(text, start)
    place = found.start() if found else len(text)
    return max(start, text.rfind(b"\n", start, place) + 1, text.rfind(b"\r", start, place) + 1)


def _after_hashes(text: bytes, start: int) -> tuple[int, list[str]]:
    """Return where the first lines, which begin with "#", end, and these lines.

    They may be rows, and are then not left out, if later lines begin with "#" too.
    """
    place = start
    lines: list[str] = []
    while text.startswith(b"#", place) and len(lines) <= _MOST_HASHES:
        end = _after_line(text, place)
        lines.append(text[place:end].decode(errors="replace").strip("\r\n"))
        place = _after_blank_lines(text, end)
    rest = text[place : place + _SAMPLE_BYTES]
    if not rest.strip() or rest.startswith(b"#") or b"\n#" in rest:
        return start, []
    return place, lines


def _sample(text: bytes, start: int, where: str) -> Sample:
    """Return the beginning of the table: at least a header and a row, unless they are too long."""
    size = _SAMPLE_BYTES
    while True:
        part = text[start : start + size]
        is_cut = start + size < len(text)
        if not is_cut or size >= _LONGEST_SAMPLE or len(part.splitlines()) > _FEWEST_LINES:
            break
        size *= 2
    if is_cut:
        part = part[: max(part.rfind(b"\n"), part.rfind(b"\r")) + 1] or part
    try:
        return Sample(part.decode(), is_cut, text)
    except UnicodeDecodeError as error:
        if is_cut and error.start >= len(part) - 3:  # the cut is within a character
            return Sample(part[: error.start].decode(), is_cut, text)
        check_utf8(text, where)
        raise


def _rewritten(text: bytes, start: int, division: Division) -> bytes | None:
    """Return the text rewritten so that Arrow can read it; None if Arrow can read it unchanged."""
    dialect = division.dialect
    if division.separator == WHITESPACE:
        return text[:start] + squeeze(text[start:], dialect.quote)
    padded = any(row.padded for row in division.rows)
    if dialect.separator.strip() and dialect.quote and not any(row.quoted for row in division.rows):
        padded = f"{dialect.separator} {dialect.quote}".encode() in text
    return text[:start] + unpad(text[start:], dialect) if padded else None


def _uncertain(division: Division, text: bytes, start: int, where: str) -> DataError:
    first, _ = line_and_byte(text, start)
    place = len(division.lines[: division.rows[division.above].start].encode())
    further, _ = line_and_byte(division.lines.encode(), place)
    line = first + further - 1
    return DataError(
        f"{where}: the rows from line {line} on have {division.width} cells, but line {first} has only one: "
        f"leave out what is above the table with `skip_rows` = {line - 1}, or say `separator` or `header`"
    )
