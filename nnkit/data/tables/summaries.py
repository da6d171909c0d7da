"""What a column of text holds, counted over all its rows.

Order: the words for missing values, the summary, how it is made, columns of numbers, columns of other texts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from nnkit.data.tables.arrow import (
    arrow_array,
    null_of,
    numpy_array,
    text_array,
    text_bytes,
    text_scalar,
    without_words,
)
from nnkit.data.tables.dates import date_patterns, parse_dates
from nnkit.data.tables.numerals import PLAIN_NUMBER, is_plain, plain_numbers

__all__ = [
    "MISSING",
    "MISSING_AMONG_NUMBERS",
    "ColumnSummary",
    "missing_words",
    "shapes_of",
    "summarise",
    "trimmed",
]

# pandas's and R's words, a spreadsheet's errors, and the question mark of UCI's files.
_ERRORS = ("#REF!", "#VALUE!", "#DIV/0!", "#NULL!", "#NAME?", "#NUM!")
MISSING = frozenset(
    (*pa.csv.ConvertOptions().null_values, *_ERRORS, "<NA>", "NaT", "nat", "Null", "?", "na", "N.A.", "n.a.")
)
"""Words that mean a missing value in any column; "NA" may also be a name among others like it."""
MISSING_AMONG_NUMBERS = MISSING | frozenset(
    "None none NONE nil - -- --- . .. * N/a n.a n/d nd ND missing Missing MISSING unknown Unknown UNKNOWN "
    "undefined unavailable".split()
)
"""Words that mean a missing value among numbers and dates, where no text can be meant."""
MOST_SHAPES = 2000
MOST_LABELS = 50
_SAMPLED_ROWS = 2000
_ROWS_AT_ONCE = 1 << 16
_GROUPED = r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$"
_CODED = r"^0[0-9]+$"
_LONG = r"^[+-]?0*[1-9][0-9]{3,}$"
_WHOLE = r"^[+-]?[0-9]+([eE][+-]?[0-9]+)?$"


def missing_words(among_numbers: bool, given: Collection[str] | None) -> frozenset[str]:
    """Return the words for missing values: the usual ones and those given; none for an empty list."""
    usual = MISSING_AMONG_NUMBERS if among_numbers else MISSING
    return frozenset() if given is not None and not given else usual.union(given or ())


@dataclass
class ColumnSummary:
    """What a column of text holds: numbers of cells, unless it says otherwise."""

    rows: int = 0
    blank: int = 0
    missing: Counter[str] = field(default_factory=Counter)  # by their word for a missing value
    plain: int = 0  # numbers as Arrow reads them; of these:
    whole: int = 0  # without a point
    coded: int = 0  # whole and with a leading 0, such as 007; counted where all are whole
    grouped: int = 0  # with a point that may separate thousands, such as 1.234; counted where every point may
    long: int = 0  # whole and from 1000, likewise
    shapes: Counter[str] = field(default_factory=Counter)  # all others, by their shape, see `shapes_of`
    examples: dict[str, str] = field(default_factory=dict)  # the first text of each shape
    uncounted: int = 0  # of shapes beyond `MOST_SHAPES`
    dates: Counter[str] = field(default_factory=Counter)  # by each date pattern that fits
    labels: set[str] | None = field(default_factory=set)  # distinct texts; None beyond `MOST_LABELS`
    sample: list[str] = field(default_factory=list)  # texts of up to 2,000 rows, evenly spaced
    first: int | None = None  # the first cell, where every cell is a whole number
    last: int | None = None  # the last, likewise
    rises: bool = True  # whether each whole number is one more than the number before it
    # The distinct whole numbers, ascending, where they were asked for and every cell is one.
    distinct: NDArray[np.int64] | None = None

    @property
    def present(self) -> int:
        """The number of cells that are neither blank nor a word for a missing value."""
        return self.rows - self.blank - sum(self.missing.values())


def summarise(
    column: pa.ChunkedArray, words: frozenset[str] = MISSING_AMONG_NUMBERS, distinct: bool = False
) -> tuple[ColumnSummary, pa.ChunkedArray | None]:
    """Return the summary of a column of text, and its int64 or float64 numbers if all cells are plain ones.

    They are null for what is missing; None where a cell is not a plain number, or its points may separate
    thousands. With `distinct`, the distinct whole numbers are kept, for a column that may identify rows.
    """
    summary = ColumnSummary(rows=len(column))
    texts, present, numbers = _present(summary, column, words)
    summary.sample = _sample(texts)
    summary.labels = _labels(present, {text for text in summary.sample if text not in words})
    if numbers is not None and not _may_be_grouped(summary, present, numbers):
        _count_numbers(summary, present, numbers)
        if distinct and summary.first is not None:
            summary.distinct = np.unique(numpy_array(numbers))
        return summary, numbers if not summary.coded else None
    _count_texts(summary, present)
    return summary, None


def _present(
    summary: ColumnSummary, column: pa.ChunkedArray, words: frozenset[str]
) -> tuple[pa.ChunkedArray, pa.ChunkedArray, pa.ChunkedArray | None]:
    """Count the blank and missing cells.

    Returns the texts, the texts with null for what is missing, and the latter as numbers, if they all are.
    """
    known = text_array(sorted(words), column.type)
    # The fast ways copy no text; a word that is itself a number, such as -999, needs the slow one.
    if not any(map(is_plain, words)):
        if (numbers := _numbers(column)) is not None:
            summary.blank = column.null_count
            return column, column, numbers
        if (fast := without_words(column, known)) is not None:
            present, found = fast
            if (numbers := _numbers(present)) is not None:
                summary.missing = _counted(found)
                summary.blank = summary.missing.pop("", 0)
                return column, present, numbers
    texts = trimmed(column)
    present = pc.if_else(pc.is_in(texts, known), null_of(texts.type), texts)
    summary.blank = texts.null_count
    if present.null_count > texts.null_count:
        summary.missing = _counted(texts.filter(pc.and_(pc.is_valid(texts), pc.is_null(present))))
    return texts, present, _numbers(present)


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts without blanks around them; null for a blank text."""
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(column, text_scalar("", column.type)), null_of(column.type), column)


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    counts = pc.value_counts(column)
    return Counter(dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)))


def _sample(column: pa.ChunkedArray) -> list[str]:
    """Return the texts of every k-th row, where k is a power of two."""
    stride = 1 << max(0, math.ceil(math.log2(max(1, len(column)) / _SAMPLED_ROWS)))
    found: list[str] = []
    begin = 0
    # Chunk by chunk: Arrow would join the chunks to take rows of all of them.
    for chunk in column.chunks:
        rows = np.arange(-begin % stride, len(chunk), stride, dtype=np.int64)
        found += [
            cell for text in chunk.take(arrow_array(rows)).to_pylist() if text and (cell := text.strip())
        ]
        begin += len(chunk)
    return found


def _labels(column: pa.ChunkedArray, sample: set[str]) -> set[str] | None:
    """Return the distinct texts, beginning with a sample's; None where there are more than `MOST_LABELS`."""
    if len(column) > _SAMPLED_ROWS and len(sample) <= MOST_LABELS:
        sample = set(pc.unique(column).slice(0, MOST_LABELS + 2).to_pylist()) - {None}
    return sample if len(sample) <= MOST_LABELS else None


# --- columns of numbers ---


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return None if column.null_count == len(column) else plain_numbers(column)


def _may_be_grouped(summary: ColumnSummary, column: pa.ChunkedArray, numbers: pa.ChunkedArray) -> bool:
    """Tell whether every point may separate thousands."""
    if pa.types.is_integer(numbers.type):
        return False
    pointed = (text for text in summary.sample if "." in text)
    if not all(re.fullmatch(_GROUPED, text) for text in pointed) or _points(column) == 0:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        thousandths = 1000 * numpy_array(numbers.drop_null())
        if np.any(np.abs(thousandths - np.rint(thousandths)) > 1e-6 * np.abs(thousandths)):
            return False
    return pc.all(pc.match_substring_regex(column, rf"{_WHOLE}|{_GROUPED}")).as_py()


def _points(column: pa.ChunkedArray) -> int:
    return sum(int(np.count_nonzero(letters == ord("."))) for letters, _ in text_bytes(column))


def _count_numbers(summary: ColumnSummary, column: pa.ChunkedArray, numbers: pa.ChunkedArray) -> None:
    summary.plain = len(numbers) - numbers.null_count
    if not pa.types.is_integer(numbers.type):
        summary.whole, summary.rises = summary.plain - _points(column), False
        return
    summary.whole, summary.coded = summary.plain, _leading_zeros(column)
    values = numpy_array(numbers.drop_null() if numbers.null_count else numbers)
    summary.long = int(np.count_nonzero((values >= 1000) | (values <= -1000)))
    if summary.plain < summary.rows:
        summary.rises = False
        return
    summary.first, summary.last = int(values[0]), int(values[-1])
    summary.rises = bool(np.all(values[1:] - values[:-1] == 1))


def _leading_zeros(column: pa.ChunkedArray) -> int:
    """Return the number of whole numbers that begin with a 0 and have more digits."""
    count = 0
    for letters, ends in text_bytes(column):
        if len(letters):
            zeros = np.flatnonzero(letters[np.minimum(ends[:-1], len(letters) - 1)] == ord("0"))
            longer = ends[zeros[ends[zeros + 1] - ends[zeros] > 1]]
            count += int(np.count_nonzero(letters[longer + 1] - np.uint8(ord("0")) < 10))
    return count


# --- columns of other texts ---


def _count_texts(summary: ColumnSummary, column: pa.ChunkedArray) -> None:
    summary.rises = False
    for begin in range(0, len(column), _ROWS_AT_ONCE):
        part = column.slice(begin, _ROWS_AT_ONCE).drop_null()
        plain = pc.match_substring_regex(part, PLAIN_NUMBER)
        numbers, others = part.filter(plain), part.filter(pc.invert(plain))
        summary.plain += len(numbers)
        for name, pattern in (("whole", _WHOLE), ("coded", _CODED), ("grouped", _GROUPED), ("long", _LONG)):
            found = pc.sum(pc.match_substring_regex(numbers, pattern)).as_py() or 0
            setattr(summary, name, getattr(summary, name) + found)
        if len(summary.shapes) >= MOST_SHAPES and summary.uncounted:
            summary.uncounted += len(others)
        elif len(others):
            _count_shapes(summary, others)


def _count_shapes(summary: ColumnSummary, others: pa.ChunkedArray) -> None:
    counts = pc.value_counts(others)
    texts, times = counts.field(0), counts.field(1)
    encoded = shapes_of(texts).dictionary_encode()
    places, weights = numpy_array(encoded.indices), numpy_array(times)
    names = encoded.dictionary.to_pylist()
    totals = np.bincount(places, weights, len(names)).astype(np.int64).tolist()
    firsts = np.full(len(names), -1)
    firsts[places[::-1]] = np.arange(len(places))[::-1]
    for name, total, place in zip(names, totals, firsts.tolist(), strict=True):
        if name not in summary.shapes and len(summary.shapes) >= MOST_SHAPES:
            summary.uncounted += total
            continue
        if name not in summary.shapes:
            summary.examples[name] = texts[place].as_py()
        summary.shapes[name] += total
    for pattern in sorted({pattern for name in names for pattern in date_patterns(name)}):
        fits = numpy_array(parse_dates(texts, pattern).is_valid())
        summary.dates[pattern] += int(weights[fits].sum())


def shapes_of(texts: pa.Array) -> pa.Array:
    """Return texts with each digit as 9, except a 0 that comes before all other digits."""
    shapes = pc.replace_substring_regex(texts, "[0-9]", "9")
    zero = pc.match_substring_regex(texts, "^[^0-9]*0")
    return pc.if_else(zero, pc.replace_substring_regex(shapes, "^([^9]*)9", r"\10"), shapes)
