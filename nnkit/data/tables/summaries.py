"""What a column of text holds, counted over all its rows: mergeable, so that batches add up to the whole.

Order: the words of missing values, the summary and its sum, one batch's summary, its parts.
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
"""The words that are missing values in any column; "NA" may also be a name among others like it."""
MISSING_AMONG_NUMBERS = MISSING | frozenset(
    "None none NONE nil - -- --- . .. * N/a n.a n/d nd ND missing Missing MISSING unknown Unknown UNKNOWN "
    "undefined unavailable".split()
)
"""The words that are missing values among numbers and dates, where no text can be meant."""


def missing_words(among_numbers: bool, given: Collection[str] | None) -> frozenset[str]:
    """Return the words of missing values: the usual ones and those given; none for an empty list."""
    usual = MISSING_AMONG_NUMBERS if among_numbers else MISSING
    return frozenset() if given is not None and not given else usual.union(given or ())


MOST_SHAPES = 2000
MOST_LABELS = 50
_SAMPLED_ROWS = 2000
_ROWS_AT_ONCE = 1 << 16
# Two thousand numbers that might have thousands tell whether to look at all of them.
_GROUPED = r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$"
_CODED = r"^0[0-9]+$"
_LONG = r"^[+-]?0*[1-9][0-9]{3,}$"
_WHOLE = r"^[+-]?[0-9]+([eE][+-]?[0-9]+)?$"


@dataclass
class ColumnSummary:
    """What a column of text holds.

    Parameters
    ----------
    rows, blank : int
        All cells, and those without a text.
    missing : Counter of str
        The cells that are a word of `MISSING_AMONG_NUMBERS`, by word.
    plain : int
        The cells that are numbers as Arrow reads them. Of these:
    whole : int
        those without a point;
    coded : int
        whole numbers that begin with a 0, such as 007; counted where all numbers are whole;
    grouped : int
        numbers with a point that may stand between thousands, such as 1.234; counted where it matters;
    long : int
        whole numbers from 1000, likewise.
    shapes : Counter of str
        All other cells by their shape: digits are 9, but a 0 that comes first; at most `MOST_SHAPES`.
    examples : dict of str to (int, str)
        The first row of each shape, and its text.
    uncounted : int
        Cells of shapes beyond those.
    dates : Counter of str
        How many cells each pattern reads.
    labels : set of str or None
        The different texts, blank and missing ones not among them; None where there are over `MOST_LABELS`.
    sample : dict of int to str
        Texts of up to 2,000 rows, evenly spaced.
    stride : int
        The distance between them.
    first, last : int or None
        The whole numbers at the beginning and the end, where every cell is one.
    rises : bool
        Whether each whole number is one more than that before it.
    distinct : ndarray of int64, or None
        The different whole numbers, ascending, where they were asked for and every cell is one.
    """

    rows: int = 0
    blank: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    plain: int = 0
    whole: int = 0
    coded: int = 0
    grouped: int = 0
    long: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[int, str]] = field(default_factory=dict)
    uncounted: int = 0
    dates: Counter[str] = field(default_factory=Counter)
    labels: set[str] | None = field(default_factory=set)
    sample: dict[int, str] = field(default_factory=dict)
    stride: int = 1
    first: int | None = None
    last: int | None = None
    rises: bool = True
    distinct: NDArray[np.int64] | None = None

    @property
    def present(self) -> int:
        """The cells that have a text which is no word for a missing value."""
        return self.rows - self.blank - sum(self.missing.values())

    def merge(self, after: ColumnSummary) -> ColumnSummary:
        """Return the summary of this batch's rows and then those of another, which was told its first row."""
        if not self.rows or not after.rows:
            return self if self.rows else after
        kept, uncounted = Counter(self.shapes), self.uncounted + after.uncounted
        for shape, count in after.shapes.items():
            if shape in kept or len(kept) < MOST_SHAPES:
                kept[shape] += count
            else:
                uncounted += count
        labels = None if self.labels is None or after.labels is None else self.labels | after.labels
        stride = max(self.stride, after.stride)
        sample = _thinned({**self.sample, **after.sample}, stride)
        follows = self.last is not None and after.first == self.last + 1
        return ColumnSummary(
            self.rows + after.rows,
            self.blank + after.blank,
            self.missing + after.missing,
            self.plain + after.plain,
            self.whole + after.whole,
            self.coded + after.coded,
            self.grouped + after.grouped,
            self.long + after.long,
            kept,
            {shape: found for shape, found in {**after.examples, **self.examples}.items() if shape in kept},
            uncounted,
            self.dates + after.dates,
            labels if labels is not None and len(labels) <= MOST_LABELS else None,
            sample[0],
            sample[1],
            None if self.last is None or after.first is None else self.first,
            None if self.last is None else after.last,
            self.rises and after.rises and follows,
            None
            if self.distinct is None or after.distinct is None
            else np.union1d(self.distinct, after.distinct),
        )


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts without blanks around them; null for a blank one."""
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(column, text_scalar("", column.type)), null_of(column.type), column)


def shapes_of(texts: pa.Array) -> pa.Array:
    """Return texts with each digit as 9, but for a 0 that comes before all others."""
    shapes = pc.replace_substring_regex(texts, "[0-9]", "9")
    zero = pc.match_substring_regex(texts, "^[^0-9]*0")
    return pc.if_else(zero, pc.replace_substring_regex(shapes, "^([^9]*)9", r"\10"), shapes)


def summarise(
    column: pa.ChunkedArray,
    first_row: int = 0,
    words: frozenset[str] = MISSING_AMONG_NUMBERS,
    distinct: bool = False,
) -> tuple[ColumnSummary, pa.ChunkedArray | None]:
    """Return the summary of a batch of a column's rows, and their numbers where all are plain ones.

    Parameters
    ----------
    column : pyarrow.ChunkedArray of string
        Null is missing, as a blank cell is.
    first_row : int
        The place of its first row in the whole.
    words : frozenset of str
        What means a missing value.
    distinct : bool
        Whether to keep the different whole numbers, for a column that may identify rows.

    Returns
    -------
    ColumnSummary
    pyarrow.ChunkedArray of int64 or float64, or None
        Null for what is missing; None where a cell is no plain number, or might be written otherwise.
    """
    # A number may be a word for a missing value: -999.
    by_text = not any(map(is_plain, words))
    numbers = _numbers(column) if by_text else None
    texts, found = column, None
    fast = None
    if numbers is None and by_text:
        fast = without_words(column, text_array(sorted(words), column.type))
    if fast is not None:
        present, found = fast
        numbers = _numbers(present)
    if numbers is None:
        found = None
        texts = trimmed(column)
        present = pc.if_else(
            pc.is_in(texts, text_array(sorted(words), texts.type)), null_of(texts.type), texts
        )
        numbers = _numbers(present)
    elif found is None:
        present = column
    summary = ColumnSummary(rows=len(column), blank=texts.null_count)
    if found is not None:
        counts = _counted(found)
        summary.blank = counts.pop("", 0)
        summary.missing = counts
    elif present is not texts and present.null_count > texts.null_count:
        found = texts.filter(pc.and_(pc.is_valid(texts), pc.is_null(present)))
        summary.missing = _counted(found)
    summary.sample, summary.stride = _sample(texts, first_row)
    summary.labels = _labels(present, {text for text in summary.sample.values() if text not in words})
    if numbers is not None and not _may_be_grouped(summary, present, numbers):
        _count_numbers(summary, present, numbers)
        if distinct and summary.first is not None:
            summary.distinct = np.unique(numpy_array(numbers))
        return summary, numbers if not summary.coded else None
    _count_texts(summary, present, first_row)
    return summary, None


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return None if column.null_count == len(column) else plain_numbers(column)


def _may_be_grouped(summary: ColumnSummary, column: pa.ChunkedArray, numbers: pa.ChunkedArray) -> bool:
    """Tell whether every point may stand between thousands."""
    if pa.types.is_integer(numbers.type):
        return False
    pointed = (text for text in summary.sample.values() if "." in text)
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
    """Count a batch that is of plain numbers only."""
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
    """Return how many whole numbers begin with a 0 that does not stand alone."""
    count = 0
    for letters, ends in text_bytes(column):
        if len(letters):
            zeros = np.flatnonzero(letters[np.minimum(ends[:-1], len(letters) - 1)] == ord("0"))
            longer = ends[zeros[ends[zeros + 1] - ends[zeros] > 1]]
            count += int(np.count_nonzero(letters[longer + 1] - np.uint8(ord("0")) < 10))
    return count


def _count_texts(summary: ColumnSummary, column: pa.ChunkedArray, first_row: int) -> None:
    """Count a batch in which not every cell is a plain number."""
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
            _count_shapes(summary, others, column.slice(begin, _ROWS_AT_ONCE), first_row + begin)


def _count_shapes(
    summary: ColumnSummary, others: pa.ChunkedArray, rows: pa.ChunkedArray, first_row: int
) -> None:
    counts = pc.value_counts(others)
    texts, times = counts.field(0), counts.field(1)
    shapes = shapes_of(texts)
    encoded = shapes.dictionary_encode()
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
            text = texts[place].as_py()
            summary.examples[name] = (first_row + _place(rows, texts[place]), text)
        summary.shapes[name] += total
    for pattern in sorted({pattern for name in names for pattern in date_patterns(name)}):
        fits = numpy_array(parse_dates(texts, pattern).is_valid())
        summary.dates[pattern] += int(weights[fits].sum())


def _place(column: pa.ChunkedArray, text: pa.Scalar) -> int:
    """Return the first row of a text; `pc.index` would import pandas."""
    return int(np.argmax(numpy_array(pc.coalesce(pc.equal(column, text), pc.is_valid(column)))))


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    counts = pc.value_counts(column)
    return Counter(dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)))


def _labels(column: pa.ChunkedArray, sample: set[str]) -> set[str] | None:
    """Return the different texts, some of which are given; None where there are more than `MOST_LABELS`."""
    if len(column) > _SAMPLED_ROWS and len(sample) <= MOST_LABELS:
        sample = {
            text for text in pc.unique(column).slice(0, MOST_LABELS + 2).to_pylist() if text is not None
        }
    return sample if len(sample) <= MOST_LABELS else None


def _sample(column: pa.ChunkedArray, first_row: int) -> tuple[dict[int, str], int]:
    """Return texts by their rows, at every k-th row of the whole, where k is a power of two."""
    stride = 1 << max(0, math.ceil(math.log2(max(1, len(column)) / _SAMPLED_ROWS)))
    found: dict[int, str] = {}
    begin = first_row
    # Arrow would join the chunks to take rows of all of them.
    for chunk in column.chunks:
        rows = np.arange(-begin % stride, len(chunk), stride, dtype=np.int64)
        pairs = zip(rows.tolist(), chunk.take(arrow_array(rows)).to_pylist(), strict=True)
        found |= {begin + row: cell for row, text in pairs if text and (cell := text.strip())}
        begin += len(chunk)
    return _thinned(found, stride)


def _thinned(sample: dict[int, str], stride: int) -> tuple[dict[int, str], int]:
    sample = {row: text for row, text in sample.items() if row % stride == 0}
    while len(sample) > _SAMPLED_ROWS:
        stride *= 2
        sample = {row: text for row, text in sample.items() if row % stride == 0}
    return sample, stride
