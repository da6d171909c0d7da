"""Split delimited text into rows of cells, and find the separator and quotes that divide it most evenly.

Order: rows, text rewritten where Arrow's parser has no option, mistakes, the separator.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

__all__ = [
    *("MOST_COLUMNS", "NUMBER", "STRONG", "WHITESPACE", "Dialect", "Division", "Row", "Sample"),
    *("find_division", "first_mistake", "is_number", "is_prose", "one_column", "split", "squeeze", "unpad"),
    "without_comments",
]

# Arrow takes 8 KiB for each column before it reads a row.
MOST_COLUMNS = 100_000
STRONG = "\t,;|"
"""Separators that are rare in texts."""
NUMBER = r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*"
"""A pattern of numbers, with a decimal point or comma."""
_NUMBER = re.compile(NUMBER)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_LINE_END = re.compile(r"\r\n|\n|\r")
WHITESPACE = "whitespace"
"""The separator of one or more spaces or tabs."""
_CHOICES = ("\t", ",", ";", "|", " ", WHITESPACE)
_CONSISTENT = 0.95
_MOST_ABOVE = 20  # rows above the table, such as a title
_SCORED_ROWS = 100
_WINDOW = 1 << 16
# If this share of the separators is followed by a blank, they are punctuation.
_PROSE = 0.9
_PUNCTUATION = re.compile(r"[,;|\t](?= )")


@dataclass(frozen=True)
class Dialect:
    """How cells are separated; a `separator` of "" is for lines of one cell each."""

    separator: str
    quote: str = '"'  # the character around cells that hold a separator; "" for none
    escapes: bool = False  # whether a backslash stands before a quote in a quoted cell


@dataclass(frozen=True)
class Row:
    """A row's cells, and where in the text it begins and ends."""

    cells: list[str]
    start: int
    end: int
    unclean: int  # the number of unquoted cells with another separator that is no decimal comma
    broken: int  # the number of cells that begin with a quote, but are not quoted as a whole
    quoted: bool  # whether a cell is quoted
    padded: bool  # whether a quoted cell begins with blanks


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number, with a decimal point or comma."""
    return _NUMBER.fullmatch(cell) is not None


@cache
def _cell_pattern(dialect: Dialect) -> re.Pattern[str]:
    """Return a pattern of a cell: blanks, the quoted part, the rest, and the separator or line end."""
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
    """Return the first rows of a text, without blank lines.

    If the text is cut short, it ends before a row with a quote that is not closed.
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
    """Replace each run of spaces and tabs by one space, and remove those at the ends of a line."""
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
    """Empty the lines that begin with a comment sign, except in quoted cells; lines keep their numbers."""
    line = rf"(?<![^\r\n]){re.escape(comment)}[^\r\n]*".encode()
    if not quote or quote.encode() not in text:
        return re.sub(line, b"", text)
    mark = re.escape(quote)
    # A quote after a letter or digit, as in 5" or it's, opens no cell.
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
                    return line, f"has a cell that begins with {quote} and is never closed"
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


# --- the separator ---


@dataclass(frozen=True)
class Sample:
    """The first lines of a table, and the whole text, which is searched for lone quotes and escapes."""

    lines: str
    is_cut: bool
    text: bytes


@dataclass(frozen=True)
class Division:
    """Rows of a sample as a separator and quotes divide it."""

    separator: str
    dialect: Dialect
    lines: str
    rows: Sequence[Row]

    @cached_property
    def width(self) -> int:
        """The number of cells that most rows have."""
        widths = Counter(len(row.cells) for row in self.rows)
        return widths.most_common(1)[0][0] if widths else 0

    @cached_property
    def above(self) -> int:
        """The number of rows above the first that has `width` cells."""
        width = self.width
        return next((number for number, row in enumerate(self.rows) if len(row.cells) == width), 0)

    @property
    def is_apart(self) -> bool:
        """Whether a blank line separates the rows above from the others."""
        return self.above > 0 and self.rows[self.above].start > self.rows[self.above - 1].end

    @property
    def is_quoted(self) -> bool:
        """Whether every row has a quoted cell."""
        return all(row.quoted for row in self.rows)

    @cached_property
    def is_consistent(self) -> bool:
        """Whether there are several columns, and nearly all rows below a title have the same number."""
        rows, width = self.rows[self.above :], self.width
        even = sum(len(row.cells) == width for row in rows)
        if width < 2 or even < _CONSISTENT * len(rows) or self.above > _MOST_ABOVE:
            return False
        if self.above == 0 or self.is_apart or self.separator in STRONG:
            return True
        # Spaces separate words too: only names above rows with one more cell are certainly not a title.
        return self.above == 1 and 2 <= len(self.rows[0].cells) == width - 1

    def score(self) -> tuple[float, ...]:
        """Return a key for the likelihood of this division: the greatest is the likeliest."""
        rows = self.rows[self.above : self.above + _SCORED_ROWS]
        cells = [cell for row in rows[1:] for cell in row.cells]
        numeric = sum(map(is_number, cells)) / max(1, len(cells))
        return (
            self.above == 0,
            self.separator in STRONG or numeric == 1,
            -sum(row.unclean + row.broken for row in rows) / len(rows) / self.width,
            numeric,
            self.width,
            -sum(cell.startswith(" ") for cell in cells),
            -_CHOICES.index(self.separator),
        )


def find_division(sample: Sample, separator: str | None, quote: str | None, tabs: bool) -> Division | None:
    """Divide a sample into cells; None where it is one column.

    Separator and quote are given if they are known; `tabs` says that the file's name promises tabs.
    """
    if separator is not None:
        return _divided(sample, separator, quote)
    lines = sample.lines
    choices = [choice for choice in _CHOICES[:-1] if choice in lines and choice != quote] + [WHITESPACE]
    if tabs and "\t" in lines.partition("\n")[0]:
        choices = ["\t", WHITESPACE]
    found = [_divided(sample, choice, quote) for choice in choices]
    if quote is None and "'" in lines and '"' not in lines and not any(_is_even(each) for each in found):
        # Commas within single quotes make rows uneven.
        found += [each for choice in choices if _is_even(each := _divided(sample, choice, "'"))]
    if consistent := [division for division in found if division.is_consistent]:
        return max(consistent, key=Division.score)
    strong = [division for division in found if division.separator in STRONG]
    # None is right: the one that divides the most rows like the first row shows which rows are wrong.
    if divided := [division for division in strong if len(division.rows[0].cells) > 1]:
        return max(divided, key=_first_width_share)
    return None if not strong or is_prose(sample) else strong[0]


def _is_even(division: Division) -> bool:
    return division.is_consistent and division.above == 0 and not any(row.broken for row in division.rows)


def _first_width_share(division: Division) -> float:
    width = len(division.rows[0].cells)
    return sum(len(row.cells) == width for row in division.rows) / len(division.rows)


def one_column(sample: Sample, quote: str | None) -> Division:
    """Return the lines of a sample as rows of one cell."""
    return _divided(sample, "", quote)


def is_prose(sample: Sample) -> bool:
    """Tell whether the separators in lines are punctuation, or the commas of decimal numbers."""
    lines = sample.lines.splitlines()[1:]
    if all(map(is_number, lines)):
        return True
    separators = sum(sample.lines.count(sign) for sign in STRONG)
    return len(_PUNCTUATION.findall(sample.lines)) >= _PROSE * separators


def _divided(sample: Sample, separator: str, quote: str | None) -> Division:
    dialect = Dialect(" " if separator == WHITESPACE else separator, '"' if quote is None else quote)
    if dialect.quote and "\\" not in (separator, quote):
        dialect = replace(dialect, escapes=_has_escapes(sample.text, dialect))
    quoted = _division(sample, separator, dialect)
    if quote is not None or separator in (",", ";", "|"):
        return quoted
    # Texts between tabs are seldom quoted, and a lone inch sign would begin a cell of many rows.
    plain = _division(sample, separator, replace(dialect, quote=""))
    is_possible = not separator or plain.is_consistent or quoted.is_consistent
    if not is_possible or not _has_lone_quote(sample.text):
        return quoted
    spanning = any("\n" in cell for row in quoted.rows for cell in row.cells)
    is_quoted = spanning and separator in ("\t", "") and not any(row.broken for row in quoted.rows)
    return quoted if is_quoted else plain


def _division(sample: Sample, separator: str, dialect: Dialect) -> Division:
    lines = sample.lines
    if separator == WHITESPACE:
        lines = squeeze(lines.encode(), dialect.quote).decode()
    return Division(separator, dialect, lines, split(lines, dialect, is_cut=sample.is_cut))


def _has_escapes(text: bytes, dialect: Dialect) -> bool:
    """Tell whether rows are more even if a quote after a backslash does not end a cell."""
    escaped = b"\\" + dialect.quote.encode()
    # One byte is found ten times as fast as two.
    if b"\\" not in text or (place := text.find(escaped)) < 0:
        return False
    start = text.rfind(b"\n", 0, place) + 1
    window = text[start : start + _WINDOW].decode(errors="replace")
    even = []
    for escapes in (False, True):
        rows = split(window, replace(dialect, escapes=escapes))
        widths = Counter(len(row.cells) for row in rows if not row.broken)
        even.append(max(widths.values(), default=0))
    return even[1] > even[0]


def _has_lone_quote(text: bytes) -> bool:
    """Tell whether a line has an odd number of quotes."""
    place = text.find(b'"')
    while place >= 0:
        end = text.find(b"\n", place)
        if text.count(b'"', place, end if end >= 0 else len(text)) % 2:
            return True
        place = text.find(b'"', end) if end >= 0 else -1
    return False
