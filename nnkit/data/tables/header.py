"""Find the lines above the rows of a table: a title, the names of its columns, units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from nnkit.data.tables.rows import NUMBER, WHITESPACE, Division, is_number, split, squeeze
from nnkit.errors import shown

__all__ = ["ROW_NAMES", "Header", "are_row_names", "column_names", "find_header"]

ROW_NAMES = "row_names"
"""The name of a column of row names that has no name itself, as R writes it."""
MISSING = frozenset((*pa.csv.ConvertOptions().null_values, "?", "-", "."))
"""Words that mean a missing value: neither numbers nor names."""
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
# "$5", "-3 %" and "12 kg" are values that are not yet numbers, not units.
_BEGINS_AS_NUMBER = re.compile(r"[^\w\s]?[+-]?[.,]?\d")
_NEARLY_ALL = 0.9
_YEARS = (1000, 3000)
_FEWEST_DIGITS = 3
_FEWEST_FOR_UNITS = 4
_MOST_TITLES = 20


@dataclass(frozen=True)
class Header:
    """The lines above the rows."""

    width: int  # the number of cells in a row
    names: tuple[str, ...] | None  # a name for each cell, or ""; None where the columns have no names
    cells: int  # the number of cells in the header, which may be less than `width`
    rows: int  # the number of rows of the sample that are not data
    row_names: bool = False  # whether the first column names the rows and has no name itself
    notes: tuple[str, ...] = ()


class HeaderEvidence(IntEnum):
    """How far the first row differs from those below it."""

    NONE = 0
    TEXTS = 1
    """Texts that do not come again, above texts."""
    CLEAR = 2
    """A text above numbers, or numbers in sequence."""


def find_header(division: Division, wanted: bool | int | None, hashes: Sequence[str]) -> Header | None:
    """Find the lines above the rows; None if they are ambiguous.

    `wanted` says, if it is known, whether the first row names the columns (a number: that it does). The last
    of the lines above that begin with "#" names them if it has as many cells as a row and the first row does
    not clearly hold names.
    """
    rows = [row.cells for row in division.rows]
    width = division.width if division.is_consistent else len(rows[0])
    if wanted is False:
        return Header(width, None, width, 0, notes=_left_out(hashes))
    titles = _titles(division, width) if wanted is None else 0
    first, body = _trimmed(rows[titles]), rows[titles + 1 :]
    names = _fitted(first, body, width, division.is_quoted)
    if names is None:
        # These are known to be names, or are too many for a title: the rows below are wrong.
        return Header(len(first), first, len(first), 1) if len(first) > 1 or wanted is not None else None
    row_names = bool(names[0]) and names[1:] == first
    evidence = HeaderEvidence.CLEAR if len(first) < width else _evidence(names, body)
    cells, notes = len(first), []
    is_sure = titles or evidence == HeaderEvidence.CLEAR
    if not is_sure and (marked := _marked_names(hashes, division, width)):
        notes.append("The columns' names are in the line that begins with '#'.")
        hashes, names, cells, end = hashes[:-1], marked, width, 0
    elif evidence or wanted is not None:
        end = titles + 1
    else:
        names, cells, end = None, width, titles
    notes[:0] = _left_out(hashes)
    if titles:
        above = " ".join(cell for row in rows[:titles] for cell in _trimmed(row) if cell)
        notes.append(f"Left out above the table: {_counted(titles)}, {shown(above)}.")
    if names is not None and is_units(rows[end:], width):
        units = ", ".join(cell for cell in _trimmed(rows[end]) if cell)
        notes.append(f"Left out below the names: a line of units, {shown(units)}.")
        end += 1
    return Header(width, names, cells, end, row_names, tuple(notes))


def _left_out(hashes: Sequence[str]) -> tuple[str, ...]:
    return (f"Left out at the beginning: {_counted(len(hashes))} with '#'.",) if hashes else ()


def _counted(lines: int) -> str:
    return "1 line" if lines == 1 else f"{lines} lines"


def _trimmed(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in row)


def _titles(division: Division, width: int) -> int:
    """Return the number of first rows outside the table: they are shorter, or have only a first cell."""
    rows, above = [row.cells for row in division.rows], division.above if division.is_consistent else 0
    if above == 0:
        while above < min(_MOST_TITLES, len(rows) - 1) and width > 2 and not any(_trimmed(rows[above][1:])):
            above += 1
        titled = above and rows[0][0].strip() and not is_number(rows[0][0])
        evidence = _evidence(_trimmed(rows[above]), rows[above + 1 :]) if titled else None
        return above if evidence == HeaderEvidence.CLEAR else 0
    if max(map(len, rows[:above])) > width:
        return 0
    is_header = above == 1 and _fitted(_trimmed(rows[0]), rows[1:], width, division.is_quoted)
    if is_header and is_number(rows[1][0]):
        return 0
    if _evidence(_trimmed(rows[above]), rows[above + 1 :]) == HeaderEvidence.CLEAR:
        return above
    return above if division.is_apart and not is_header else 0


def _fitted(
    first: tuple[str, ...], body: Sequence[Sequence[str]], width: int, is_quoted: bool
) -> tuple[str, ...] | None:
    """Return a header with as many cells as the rows have; None where it has too few or too many.

    A cell is missing where rows end with a separator, or begin with their names, as R writes them. That needs
    two columns or quotes, for one column of texts or numbers may hold commas.
    """
    missing, body = width - len(first), [row for row in body if len(row) == width]
    if missing <= 0:
        return None if any(first[width:]) else first[:width]
    if body and not any(cell.strip() for row in body for cell in row[len(first) :]):
        return first + ("",) * missing
    is_r = missing == 1 and (width > 2 or is_quoted)
    if is_r and body and are_row_names(pa.array([row[0] for row in body])):
        return (distinct(ROW_NAMES, set(first)), *first)
    return None


def _marked_names(hashes: Sequence[str], division: Division, width: int) -> tuple[str, ...] | None:
    """Return the names of the columns from a line that begins with "#", if it has a name for each."""
    if not hashes:
        return None
    line = hashes[-1].lstrip("#")
    text = squeeze(line.encode(), "").decode() if division.separator == WHITESPACE else line.strip(" ")
    rows = split(text, division.dialect)
    if not rows or len(rows[0].cells) != width:
        return None
    first, *others = _trimmed(rows[0].cells)
    # The sign belongs to the first name if no blank is between, or is the name itself.
    return (first if first and line.startswith((" ", "\t")) else f"#{first}", *others)


def _evidence(names: tuple[str, ...], body: Sequence[Sequence[str]]) -> HeaderEvidence:
    """Return the evidence for names, without blank ones above the last columns if these are nearly blank."""
    last = len(names)
    while last > 1 and not names[last - 1]:
        filled = sum(bool(row[last - 1].strip()) for row in body if len(row) >= last)
        if filled > (1 - _NEARLY_ALL) * len(body):
            break
        last -= 1
    return header_evidence(names[:last], body)


def header_evidence(first: Sequence[str], body: Sequence[Sequence[str]]) -> HeaderEvidence:
    """Return how much a row of trimmed cells looks like the names of the columns below it."""
    count = [str(number) for number in range(len(first))]
    if len(first) > 1 and (list(first) == count or [*first] == ["", *count[:-1]]):
        return HeaderEvidence.CLEAR
    columns = [[row[place].strip() for row in body if place < len(row)] for place in range(len(first))]
    numeric = [place for place, cell in enumerate(first) if is_number(cell)]
    if _in_sequence([first[place] for place in numeric], [columns[place] for place in numeric]):
        return HeaderEvidence.CLEAR
    if len(numeric) > len(first) / 2:
        return HeaderEvidence.NONE
    for cell, column in zip(first, columns, strict=True):
        if cell and not is_number(cell) and _is_numeric(column):
            return HeaderEvidence.CLEAR
    if numeric:
        return HeaderEvidence.NONE
    for place, (cell, column) in enumerate(zip(first, columns, strict=True)):
        # pandas leaves the name of its index blank; joined tables have its numbers twice.
        if (not cell and place == 0 and len(first) > 1) and (
            all(map(_WHOLE.fullmatch, column)) or are_row_names(pa.array(column, pa.string()))
        ):
            continue
        if cell in column or cell in MISSING:
            return HeaderEvidence.NONE
    return HeaderEvidence.TEXTS


def _is_numeric(column: Sequence[str]) -> bool:
    present = [cell for cell in column if cell not in MISSING]
    return bool(present) and sum(map(is_number, present)) >= _NEARLY_ALL * len(present)


def _in_sequence(first: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Tell whether whole numbers in sequence, such as years, are above cells that look different."""
    if len(first) < 2 or not all(_WHOLE.fullmatch(cell) for cell in first):
        return False
    values = [int(cell) for cell in first]
    steps = {after - before for before, after in pairwise(values)}
    if min(steps) <= 0:
        return False
    # Years need not be evenly spaced, and any two numbers are.
    are_years = _YEARS[0] <= values[0] and values[-1] < _YEARS[1]
    if not are_years and (len(steps) > 1 or len(first) == 2):
        return False
    cells = [cell for column in columns for cell in column if cell not in MISSING]
    whole = [cell for cell in cells if _WHOLE.fullmatch(cell)]
    lengths = set(map(len, first))
    if not cells or sum(len(cell) in lengths for cell in whole) > len(cells) / 2:
        return False
    return len(whole) <= len(cells) / 2 or min(lengths) >= _FEWEST_DIGITS


def are_row_names(column: pa.Array | pa.ChunkedArray) -> bool:
    """Tell whether the cells are all whole numbers or all texts, none blank and none twice."""
    column = pc.utf8_trim_whitespace(column)
    if pc.any(pc.equal(column, "")).as_py() or pc.count_distinct(column).as_py() < len(column):
        return False
    numbers = pc.sum(pc.match_substring_regex(column, rf"^(?:{NUMBER})$")).as_py() or 0
    return numbers == 0 or pc.all(pc.match_substring_regex(column, r"^\d+$")).as_py()


def column_names(first: Sequence[str]) -> tuple[str, ...]:
    """Name the columns without a name by their numbers, made distinct."""
    taken = set(first)
    return tuple(name or distinct(str(place), taken) for place, name in enumerate(first))


def distinct(name: str, taken: set[str]) -> str:
    """Return a name with as many underscores behind it as make it new, and add it to those taken."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def is_units(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Tell whether the first row below the names holds units, such as m/s and kg.

    It does if most numeric columns, and at least two, have a text there that is nowhere else in the column
    and does not begin with a number.
    """
    if len(rows) < _FEWEST_FOR_UNITS or len(rows[0]) != width:
        return False
    numeric = units = 0
    for first, *column in zip(*(_trimmed(row) for row in rows if len(row) == width), strict=True):
        if not _is_numeric(column):
            continue
        numeric += 1
        if is_number(first) and first != "1":
            return False
        units += not (first in MISSING or first in column or _BEGINS_AS_NUMBER.match(first))
    return units >= 2 and units > numeric / 2
