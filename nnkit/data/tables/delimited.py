"""Read delimited text (CSV, TSV and their like): delimiter, header and quoting are found out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.csv

from nnkit.data.limits import check_size
from nnkit.data.text_files import UNREADABLE, not_utf8, open_text, unreadable
from nnkit.errors import DataError, FileError

__all__ = ["Layout", "find_layout", "read_delimited"]

# In this order, for a decimal comma also stands in a file whose cells ';' divides, and spaces stand in texts.
_DELIMITERS = ("\t", ";", "|", ",", " ")
_CONSISTENT = 0.95
_SAMPLE_BYTES = 1 << 16
_SAMPLE_ROWS = 200
_LONGEST_SAMPLE = 1 << 24
# Arrow takes 8 KiB a column before it has read a row.
_MOST_COLUMNS = 100_000
_CHUNK = 1 << 20
_BLOCK = 1 << 20  # Arrow's own
# A digit and a delimiter become a number of eight bytes.
_MOST_GROWTH = 4
_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
# What stands for a missing value: pyarrow's list, and UCI's question mark.
MISSING = (*pa.csv.ConvertOptions().null_values, "?")


@dataclass(frozen=True)
class Layout:
    """How the text is to be read."""

    delimiter: str
    header: tuple[str, ...] | None
    quotes: bool
    decimal_point: str
    block: int = _BLOCK
    """How many bytes are parsed together: no row may be longer."""


def read_delimited(path: Path) -> pa.Table:
    """Read a delimited text file, compressed by gzip or not, as a table.

    Without a header the columns are named "0", "1", and so on. Cells that are empty, NA, NaN, null or ? are
    missing.

    Raises
    ------
    DataError
        Where the text is not UTF-8, a row has too many or too few cells, a name stands twice, or it is empty.
    FileError
        Where the file cannot be read.
    """
    quoted = _survey(path)
    layout = find_layout(path)
    if layout.header is not None:
        _check_header(layout.header, path)
    options = {
        "read_options": pa.csv.ReadOptions(
            autogenerate_column_names=layout.header is None, block_size=layout.block
        ),
        "parse_options": pa.csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if layout.quotes else False,
            double_quote=layout.quotes,
            newlines_in_values=layout.quotes and quoted,
        ),
        "convert_options": pa.csv.ConvertOptions(
            null_values=list(MISSING), strings_can_be_null=True, decimal_point=layout.decimal_point
        ),
    }
    try:
        with open_text(path) as stream:
            table = pa.csv.read_csv(stream, **options)
    except pa.ArrowInvalid as error:
        raise _parse_error(path, layout, str(error)) from None
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    names = layout.header or [str(index) for index in range(table.num_columns)]
    if len(names) != table.num_columns:
        raise DataError(
            f"{path}: the header has {len(names)} cells and the rows have {table.num_columns}: "
            "correct the header"
        )
    table = table.rename_columns(names)
    if table.num_rows == 0:
        raise DataError(f"{path}: there is a header but not a single row of data")
    for field in table.schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            raise not_utf8(path)
    return table


def find_layout(path: Path) -> Layout:
    """Find out the delimiter, the header and the quoting from the first rows."""
    try:
        with open_text(path) as stream:
            sample = _read_sample(stream)
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    text = _decode(sample, path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    # Only these end a line for Arrow; str.splitlines knows many more.
    lines = list(io.StringIO(text, newline=""))
    if len(sample) >= _SAMPLE_BYTES and len(lines) > 1:
        lines.pop()  # cut by the end of the sample
    delimiter = _find_delimiter(lines, path.name.lower().removesuffix(".gz").endswith(".tsv"))
    # Texts between tabs are seldom quoted, and a lone inch sign would swallow the rows after it.
    quotes = not (delimiter == "\t" and _has_lone_quote(path))
    rows = _cells(lines, delimiter, quotes)
    if len(rows[0]) > _MOST_COLUMNS:
        raise DataError(
            f"{path}: {len(rows[0])} columns, and text is read with up to {_MOST_COLUMNS}: "
            "give it as .npy or Parquet"
        )
    body = [cell for row in rows[1:] for cell in row]
    comma = delimiter == ";" and any(_DECIMAL_COMMA.fullmatch(cell) for cell in body)
    return Layout(delimiter, _find_header(rows), quotes, "," if comma else ".", max(_BLOCK, 2 * len(sample)))


def _read_sample(stream: IO[bytes]) -> bytes:
    """Return the beginning of the text: at least a header and a row, where they are not too long."""
    sample = stream.read(_SAMPLE_BYTES)
    while (
        len(sample) < _LONGEST_SAMPLE and len(sample.splitlines()) < 3 and (more := stream.read(len(sample)))
    ):
        sample += more
    return sample


def _survey(path: Path) -> bool:
    """Read the text once, to its end: raise what is wrong with it, and tell whether it holds a quote."""
    size, quoted = 0, False
    try:
        with open_text(path) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                quoted = quoted or b'"' in chunk
                check_size(_MOST_GROWTH * size, str(path))
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    return quoted


def _has_lone_quote(path: Path) -> bool:
    with open_text(path) as stream:
        return any(line.count(b'"') % 2 for line in stream)


def _decode(sample: bytes, path: Path) -> str:
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the text is UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8")
    if b"\0" in sample:
        raise FileError(
            f"{path}: neither text nor a format that nnkit reads: give CSV, TSV, Parquet, Arrow, .npy or .npz"
        )
    try:
        return sample.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A character that the end of the sample cuts in two is no mistake.
        if error.start >= len(sample) - 3 and len(sample) == _SAMPLE_BYTES:
            return sample[: error.start].decode("utf-8-sig")
        raise not_utf8(path) from None


def _quoting(quotes: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE


def _cells(lines: list[str], delimiter: str, quotes: bool) -> list[list[str]]:
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter, quoting=_quoting(quotes)) if row]
    except csv.Error:
        rows = [line.rstrip().split(delimiter) for line in lines if line.strip()]
    return rows[:_SAMPLE_ROWS]


def _find_delimiter(lines: list[str], tabs: bool) -> str:
    if tabs and "\t" in lines[0]:
        return "\t"
    best, best_share = ",", 0.0
    for delimiter in _DELIMITERS:
        rows = _cells(lines, delimiter, quotes=True)
        if not rows or len(rows[0]) < 2:
            continue
        width = len(rows[0])
        share = sum(len(row) == width for row in rows) / len(rows)
        if share >= _CONSISTENT:
            return delimiter
        if share > best_share and delimiter != " ":
            best, best_share = delimiter, share
    return best


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _find_header(rows: list[list[str]]) -> tuple[str, ...] | None:
    """Return the first row if it names the columns.

    It does if its cells are 0, 1, 2, ..., or else if all have a text, at most half are numbers, and

    - some column has a text above numbers; or
    - every column holds texts, and no cell of the first row comes again in its column.
    """
    first = [cell.strip() for cell in rows[0]]
    names = tuple(name or str(index) for index, name in enumerate(first))
    body = rows[1:]
    if first[1:] == [str(index) for index in range(len(first) - 1)] and not first[0]:
        return names
    if len(first) > 1 and first == [str(index) for index in range(len(first))]:
        return names
    numeric = sum(_is_number(cell) for cell in first)
    if numeric > len(first) / 2:
        return None
    columns = [[row[index] for row in body if index < len(row)] for index in range(len(first))]
    for cell, column in zip(first, columns, strict=True):
        present = [value for value in column if value.strip() not in MISSING]
        if cell and not _is_number(cell) and present and sum(map(_is_number, present)) >= 0.9 * len(present):
            return names
    again = any(
        cell in (value.strip() for value in column) for cell, column in zip(first, columns, strict=True)
    )
    return None if numeric or again or any(cell in MISSING for cell in first) else names


def _check_header(header: tuple[str, ...], path: Path) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(header, 1):
        if name in seen:
            raise DataError(
                f"{path}: columns {seen[name]} and {place} are both named {name[:60]!r}: rename one of them"
            )
        seen[name] = place


def _parse_error(path: Path, layout: Layout, message: str) -> DataError:
    message = " ".join(message.split())
    if "Expected" in message and "columns" in message:
        for line, width, wanted in _ragged(path, layout):
            return DataError(
                f"{path}: line {line} has {width} cells where {wanted} are expected: "
                f"correct it (a cell that holds {layout.delimiter!r} stands in quotes)"
            )
    if "UTF8" in message:
        return not_utf8(path)
    if "Empty CSV" in message:
        return DataError(f"{path}: there is a header but not a single row of data")
    shown = message if len(message) <= 160 else message[:160] + "…"
    return DataError(f"{path}: not readable as delimited text: {shown}: check the quotes and the delimiter")


def _ragged(path: Path, layout: Layout) -> Iterator[tuple[int, int, int]]:
    """Yield line, number of cells and wanted number, for each row that has another number."""
    with open_text(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="replace", newline="") as text:
        reader = csv.reader(text, delimiter=layout.delimiter, quoting=_quoting(layout.quotes))
        wanted = len(layout.header) if layout.header is not None else 0
        start = 1
        try:
            for row in reader:
                wanted = wanted or len(row)
                if row and len(row) != wanted:
                    yield start, len(row), wanted
                start = reader.line_num + 1
        except csv.Error:
            return
