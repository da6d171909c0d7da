"""Find the separator and the quotes of delimited text: those that divide its rows most evenly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from nnkit.data.tables.rows import STRONG, Dialect, Row, is_number, split, squeeze

__all__ = ["WHITESPACE", "Division", "Sample", "find_division", "is_prose", "one_column"]

WHITESPACE = "whitespace"
"""The separator of one or more spaces or tabs."""
_CHOICES = ("\t", ",", ";", "|", " ", WHITESPACE)
_CONSISTENT = 0.95
_MOST_ABOVE = 20  # rows above the table, such as a title
_SCORED_ROWS = 100
_WINDOW = 1 << 16
# Where this share of the separators has a blank behind it, they are punctuation.
_PROSE = 0.9
_PUNCTUATION = re.compile(r"[,;|\t](?= )")


@dataclass(frozen=True)
class Sample:
    """The first lines of a table, and all of the text for what is not seen in them, such as a lone quote."""

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
        """How many rows stand above the first that has `width` cells."""
        width = self.width
        return next((number for number, row in enumerate(self.rows) if len(row.cells) == width), 0)

    @property
    def is_apart(self) -> bool:
        """Whether a blank line stands between the rows above and the others."""
        return self.above > 0 and self.rows[self.above].start > self.rows[self.above - 1].end

    @property
    def is_quoted(self) -> bool:
        """Whether every row has a quoted cell."""
        return all(row.quoted for row in self.rows)

    @cached_property
    def is_consistent(self) -> bool:
        """Whether there is more than one column, and nearly all rows below a title have as many."""
        rows, width = self.rows[self.above :], self.width
        even = sum(len(row.cells) == width for row in rows)
        if width < 2 or even < _CONSISTENT * len(rows) or self.above > _MOST_ABOVE:
            return False
        if self.above == 0 or self.is_apart or self.separator in STRONG:
            return True
        # Words are divided by spaces too: here only names above rows with one cell more are no title.
        return self.above == 1 and 2 <= len(self.rows[0].cells) == width - 1

    def score(self) -> tuple[float, ...]:
        """Return how likely it is the right one: the greatest is."""
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

    Parameters
    ----------
    sample : Sample
    separator, quote : str, optional
        Where they are known.
    tabs : bool
        Whether tabs are expected, as in a file that is named so.
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
    # None of them is right: the one that divides most rows as it does the first one leads to the mistakes.
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
    # Texts between tabs are seldom quoted, and a lone inch sign would swallow the rows after it.
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
    """Tell whether rows are more even if a backslash stands before a quote in a cell, not before its end."""
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
