"""Find out how delimited text is laid out: where its rows begin, how they are divided, and the names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnkit.data.tables.decoding import line_and_byte, not_utf8
from nnkit.data.tables.header import Header, find_header
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.rows import MOST_COLUMNS, Dialect, split, squeeze, unpad, without_comments
from nnkit.data.tables.separators import WHITESPACE, Division, Sample, find_division, is_prose, one_column
from nnkit.errors import DataError

__all__ = ["Layout", "find_layout"]

_SAMPLE_BYTES = 1 << 16
_LONGEST_SAMPLE = 1 << 24
_FEWEST_LINES = 3
_MOST_HASHES = 10_000
_NOT_BLANK = re.compile(rb"[^ \t\r\n]")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_SEPARATOR_LINE = re.compile(rb'"?sep=([^\r\n"\x80-\xff])"?[ \t]*(?:\r\n|\n|\r|\Z)', re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How the rows of a text are read."""

    text: bytes
    start: int
    """Where in the text the rows begin, after the header."""
    separator: str
    dialect: Dialect
    header: Header
    longest_row: int
    """In the sample, in characters."""


def find_layout(text: bytes, options: TableOptions, where: str, tabs: bool = False) -> Layout:
    """Find out the layout of a text from its first rows.

    Parameters
    ----------
    text : bytes
        UTF-8.
    options : TableOptions
        What is known of it.
    where : str
        The name of the file, for messages.
    tabs : bool
        Whether tabs are expected between the cells.

    Raises
    ------
    DataError
        Where the text is empty or too wide, or it is not certain what stands above the rows.
    """
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
    hashes: list[str] = []
    if options.header is not None and not isinstance(options.header, bool):
        for _ in range(options.header):
            start = _after_blank_lines(text, _after_line(text, start))
    elif options.comment is None:
        start, hashes = _after_hashes(text, start)
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
    return Layout(text, start, division.separator, division.dialect, header, longest)


def _after_line(text: bytes, start: int) -> int:
    return _LINE.match(text, start).end()  # type: ignore[union-attr]


def _after_blank_lines(text: bytes, start: int) -> int:
    found = _NOT_BLANK.search(text, start)
    place = found.start() if found else len(text)
    return max(start, text.rfind(b"\n", start, place) + 1, text.rfind(b"\r", start, place) + 1)


def _after_hashes(text: bytes, start: int) -> tuple[int, list[str]]:
    """Return where the lines at the beginning end that begin with "#", and these.

    If others begin with it too, these may be rows.
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
    """Return the beginning of the table: a header and a row at least, where they are not too long."""
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
        raise not_utf8(text, where) from None


def _rewritten(text: bytes, start: int, division: Division) -> bytes | None:
    """Return the text as Arrow reads it; None where it does as it stands."""
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
