"""Split delimited text into rows of cells, and rewrite what Arrow's parser has no option for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

__all__ = [
    "MOST_COLUMNS",
    "NUMBER",
    "STRONG",
    "Dialect",
    "Row",
    "first_mistake",
    "is_number",
    "split",
    "squeeze",
    "unpad",
    "without_comments",
]

# Arrow takes 8 KiB a column before it has read a row.
MOST_COLUMNS = 100_000
STRONG = "\t,;|"
"""The separators that seldom stand in texts."""
NUMBER = r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*"
"""A pattern of numbers, with a decimal point or comma."""
_NUMBER = re.compile(NUMBER)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Dialect:
    """How cells are told apart; a `separator` of "" for lines that are one cell each."""

    separator: str
    quote: str = '"'
    """The character around cells that hold a separator; "" for none."""
    escapes: bool = False
    """Whether a backslash stands before a quote in a quoted cell."""


@dataclass(frozen=True)
class Row:
    """A row's cells, and where in the text it begins and the next one may begin."""

    cells: list[str]
    start: int
    end: int
    unclean: int
    """The unquoted cells that hold another separator, other than a decimal comma."""
    broken: int
    """The cells that begin with a quote, but are not quoted as a whole."""
    quoted: bool
    """Whether a cell is quoted."""
    padded: bool
    """Whether one is quoted that begins with blanks."""


def is_number(cell: str) -> bool:
    """Tell whether it is a number, with a decimal point or comma."""
    return _NUMBER.fullmatch(cell) is not None


@cache
def _cell_pattern(dialect: Dialect) -> re.Pattern[str]:
    """Return what matches a cell: blanks, the quoted part, the rest, and the separator or line end."""
    separator = re.escape(dialect.separator or "\0")
    rest = rf"([^{separator}\r\n]*)({separator}|\r\n|\n|\r|\Z)"
    if not dialect.quote:
        return re.compile(rf"()(?:(\0))?{rest}")
    blank = " " if dialect.separator == "\t" else "\t" if dialect.separator == " " else "[ \t]"
    quote = re.escape(dialect.quote)
    inside = rf"(?:[^{quote}\\]++|{quote}{quote}|{_backslash(dialect)})*+"
    # After blanks a quote counts only if the whole cell is quoted.
    padded = rf"({blank}+)(?={quote}{inside}{quote}{blank}*(?:{separator}|[\r\n]|\Z))"
    return re.compile(rf"(?:(?:{padded})?{quote}({inside}){quote})?+{rest}", re.DOTALL)


def _backslash(dialect: Dialect) -> str:
    return r"\\." if dialect.escapes else r"\\"


def split(text: str, dialect: Dialect, most: int = 1000, is_cut: bool = False) -> list[Row]:
    """Return the first rows of a text; lines of nothing but blanks are none.

    Of a text that is cut short, a row with a quote that is not closed, and what follows, is left out.
    """
    separator, quote = dialect.separator, dialect.quote
    others = re.compile("[" + STRONG.replace(separator or "\0", "") + "]")
    rows: list[Row] = []
    cells: list[str] = []
    start = unclean = broken = 0
    any_quoted = padded = False
    for match in _cell_pattern(dialect).finditer(text):
        blanks, quoted, other, end = match.groups()
        if quoted is not None:
            any_quoted, padded = True, padded or bool(blanks)
            broken += bool(other.strip())
            cells.append(_unquoted(quoted, dialect) + ("" if blanks else other))
        else:
            if quote and other.startswith(quote):
                if is_cut and rows:
                    break
                broken += 1
            unclean += others.search(other) is not None and not is_number(other)
            cells.append(other)
        if end != separator or not end or len(cells) > MOST_COLUMNS:
            if len(cells) > 1 or (cells[0].strip() if separator else cells[0]):
                rows.append(Row(cells, start, match.end(), unclean, broken, any_quoted, padded))
            if not end or len(rows) == most or len(cells) > MOST_COLUMNS:
                break
            cells, start, unclean, broken = [], match.end(), 0, 0
            any_quoted = padded = False
    return rows


def _unquoted(cell: str, dialect: Dialect) -> str:
    if dialect.escapes:
        cell = re.sub(r"\\(.)", r"\1", cell, flags=re.DOTALL)
    return cell.replace(dialect.quote * 2, dialect.quote)


def squeeze(text: bytes, quote: str) -> bytes:
    """Make one space of each run of spaces and tabs, and of those at the ends of a line none."""
    if quote and quote.encode() in text:
        sign = re.escape(quote.encode())
        pattern = re.compile(rb"((?<![^ \t\r\n])%b[^%b]*%b)|[ \t]+" % (sign, sign, sign))
        text = pattern.sub(lambda match: match[1] or b" ", text)
    else:
        text = text.replace(b"\t", b" ")
        while b"  " in text:
            text = text.replace(b"  ", b" ")
    for end in (b"\n", b"\r"):
        text = text.replace(end + b" ", end).replace(b" " + end, end)
    return text.strip(b" ")


def unpad(text: bytes, dialect: Dialect) -> bytes:
    """Remove the blanks around quoted cells, which would make their quotes ordinary characters."""
    separator, quote = re.escape(dialect.separator), re.escape(dialect.quote)
    blanks = " *" if dialect.separator == "\t" else "[ \t]*"
    inside = rf"{quote}(?:[^{quote}\\]++|{quote}{quote}|{_backslash(dialect)})*+{quote}"
    pattern = rf"(^|{separator}){blanks}({inside}){blanks}(?={separator}|[\r\n]|\Z)"
    return re.sub(pattern.encode(), rb"\1\2", text, flags=re.MULTILINE | re.DOTALL)


def without_comments(text: bytes, comment: str, quote: str) -> bytes:
    """Empty the lines that begin with a sign, except inside quoted cells; the lines keep their numbers."""
    line = rf"(?<![^\r\n]){re.escape(comment)}[^\r\n]*".encode()
    if not quote or quote.encode() not in text:
        return re.sub(line, b"", text)
    mark = re.escape(quote)
    # A quote behind a letter or digit, as in 5" or it's, opens no cell.
    quoted = rf"(?<!\w){mark}[^{mark}]*{mark}".encode()
    return re.sub(line + rb"|(" + quoted + rb")", lambda match: match[1] or b"", text)


def first_mistake(text: str, dialect: Dialect, width: int) -> tuple[int, str] | None:
    """Return the line, counted from 0, of the first row without `width` cells, and what is wrong with it."""
    quote, separator = dialect.quote, dialect.separator
    line = place = 0
    while place < len(text):
        begun, start = line, place
        end = _LINE.match(text, place).end()  # type: ignore[union-attr]
        if quote and text.find(quote, place, end) >= 0:
            matches = _row_at(text, place, dialect)
            cells, end = len(matches), matches[-1].end()
            for match in matches:
                if match[2] is None and match[3].startswith(quote):
                    return line, f"has a cell that begins with {quote} and is nowhere closed"
                line += len(_LINE_END.findall(match[2] or ""))
        else:
            cells = 1 + (text.count(separator, place, end) if separator else 0)
        if cells != width and text[start:end].strip():
            found = "1 cell" if cells == 1 else f"{cells} cells"
            return begun, f"has {found} where {width} {'is' if width == 1 else 'are'} expected"
        line, place = line + 1, end
    return None


def _row_at(text: str, place: int, dialect: Dialect) -> list[re.Match[str]]:
    matches = []
    for match in _cell_pattern(dialect).finditer(text, place):
        matches.append(match)
        if not match[4] or match[4] != dialect.separator:
            break
    return matches
