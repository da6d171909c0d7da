"""Read any table by a schema: how a cell is read never depends on the table's other cells.

Order: misfits, a table, one column, each kind of column.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nnkit.data.messages import shortened
from nnkit.data.tables.arrow import arrow_array, null_of, numpy_array, text_array, without_words
from nnkit.data.tables.columns import column_kind, each_column, type_kind
from nnkit.data.tables.dates import ISO, is_time_of_day, parse_dates
from nnkit.data.tables.numerals import is_plain, parse_numbers, plain_numbers, reads_plain
from nnkit.data.tables.schema import LEARNT, METADATA, Column, Schema, toml_text
from nnkit.data.tables.summaries import missing_words, trimmed
from nnkit.errors import DataError

__all__ = ["MISFIT_SHARE", "Misfits", "read_columns", "report_misfits", "was_read"]

logger = logging.getLogger("nnkit")

MISFIT_SHARE = 0.1
"""Where more than this share of a column's cells does not fit, something is wrong with the whole column."""
TRUE = ("true", "t", "yes", "y", "1", "1.0")
FALSE = ("false", "f", "no", "n", "0", "0.0")
_LONGEST_SHOWN = 40
_FEWEST_ROWS = 10  # for which it is remarkable that all values are missing


@dataclass(frozen=True)
class Misfits:
    """The cells of a column that do not fit its schema, or hold categories that the training data lack."""

    column: Column
    count: int
    rows: int  # the number of all rows
    row: int  # of the first of these cells, counted from 0
    text: str  # of the first
    unseen: bool = False  # whether they are categories that the training data lack
    alike: str = ""  # a category of the training that differs from `text` in capitals only
    missing: tuple[str, ...] = ()  # the words that the user gave for missing values

    @property
    def many(self) -> bool:
        """Whether they are more than a tenth of the rows."""
        return self.count > MISFIT_SHARE * self.rows

    def __str__(self) -> str:
        text = shortened(self.text, _LONGEST_SHOWN)
        unfit = f"do not fit ({self.column}) and are taken as missing"
        what = "were not in the training" if self.unseen else unfit
        alike = f", where the training had {self.alike!r}" if self.alike else ""
        return (
            f"{self.count:,} of {self.rows:,} values of column {self.column.name!r} {what}: the first is "
            f"{text!r} in row {self.row} (counting from 0){alike}"
        )

    @property
    def advice(self) -> str:
        """The options to set where there are many misfits."""
        name = toml_text(self.column.name)
        if self.unseen:
            return f"write the values alike in both, or leave the column out: `drop` = [{name}]"
        words = ", ".join(map(toml_text, (*self.missing, self.text)))
        return (
            f'if such are missing values, set `missing` = [{words}]; `types` = {{{name} = "category"}} reads '
            f"the column as text, `drop` = [{name}] leaves it out"
        )


def report_misfits(misfits: Iterable[Misfits], strict: bool) -> None:
    """Log misfits; with `strict`, more than a tenth of a column is a DataError."""
    for found in misfits:
        if found.many and strict:
            raise DataError(f"{found}\n{found.advice}")
        logger.log(logging.WARNING if found.many else logging.INFO, str(found))


def was_read(table: pa.Table, schema: Schema) -> bool:
    """Tell whether a table, or the table that it was taken from, was read by this schema."""
    return (table.schema.metadata or {}).get(METADATA) == schema.metadata


def read_columns(
    table: pa.Table, schema: Schema, names: Iterable[str], read: Mapping[str, pa.ChunkedArray] | None = None
) -> tuple[pa.Table, list[Misfits]]:
    """Read columns of a table by a schema; `read` holds columns that were read already.

    The table's columns are texts as they stand in a file, or have types. Returned are numbers, booleans,
    timestamps and texts, null for what is missing or does not fit, and the misfits.
    """
    names = list(names)
    read = read or {}

    def one(name: str) -> tuple[pa.ChunkedArray, Misfits | None]:
        if name in read:
            return read[name], None
        return _read_column(table[name], schema.by_name[name], schema.options.missing)

    found = each_column(one, names, len(table))
    columns = [column for column, _ in found]
    result = pa.table(columns, names=names, metadata={METADATA: schema.metadata})
    return result, [misfits for _, misfits in found if misfits is not None]


def _read_column(
    column: pa.ChunkedArray, entry: Column, given: tuple[str, ...] | None
) -> tuple[pa.ChunkedArray, Misfits | None]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = type_kind(column.type)
    if kind == "nested":
        column_kind(entry.name, column.type)  # raises
    words = missing_words(entry.kind in ("number", "date"), given)
    if entry.missing is not None:
        words = frozenset(entry.missing)
    numeric = [float(word) for word in words if is_plain(word)]
    if kind == "text":
        if entry.kind == "number" and not numeric:
            numbers = _plain_or_words(column, words)
            if (
                numbers is not None
                and numbers.null_count < len(numbers)
                and reads_plain(entry.style, numbers)
            ):
                _log_change(column, "number", numbers, entry)
                return numbers, None
        present = _without(column, words)
        if numeric and entry.kind == "number":
            # -999.0 is missing where -999 is.
            numbers = _as_numbers(present, kind, entry)
            present = pc.if_else(_is_among(numbers, numeric), null_of(column.type), present)
        if entry.kind == "text":
            # A document keeps the blanks around it.
            present = pc.if_else(pc.is_valid(present), column, null_of(column.type))
        column = present
    elif kind == "number":
        column = _without_numbers(column, numeric)
    values = _READERS.get(entry.kind, _as_texts)(column, kind, entry)
    _log_change(column, kind, values, entry)
    misfits = pc.and_(pc.is_valid(column), pc.is_null(values))
    count = pc.sum(misfits).as_py() or 0
    if not count:
        return values, None
    row = int(np.argmax(numpy_array(misfits)))
    return values, Misfits(entry, count, len(column), row, _shown(column[row]), missing=given or ())


def _plain_or_words(column: pa.ChunkedArray, words: frozenset[str]) -> pa.ChunkedArray | None:
    """Return a column of plain numbers and words for missing values as numbers; None for any other."""
    numbers = plain_numbers(column)
    if numbers is None and (fast := without_words(column, text_array(sorted(words), column.type))):
        numbers = plain_numbers(fast[0])
    return numbers


def _log_change(column: pa.ChunkedArray, kind: str, values: pa.ChunkedArray, entry: Column) -> None:
    """Log what no single cell shows: that all are missing, or none has the unit of the training."""
    rows, unit = len(values), entry.style.before or entry.style.after
    if rows >= _FEWEST_ROWS and column.null_count == rows and entry.kind in LEARNT:
        logger.warning(f"column {entry.name!r}: every value is missing here, and was not in the training")
    elif unit and rows > column.null_count and (kind == "number" or plain_numbers(column) is not None):
        logger.warning(
            f"column {entry.name!r} has the unit {unit} in the training and none here: its numbers are taken "
            "as they stand"
        )


def _shown(cell: pa.Scalar) -> str:
    try:
        return str(cell.as_py())
    except (pa.ArrowException, ValueError, OverflowError):
        return str(cell.type)[:_LONGEST_SHOWN]  # a time out of Python's range, or of an unknown zone


def _without(column: pa.ChunkedArray, words: frozenset[str]) -> pa.ChunkedArray:
    """Return trimmed texts, null where one is blank or a word of a missing value."""
    texts = trimmed(column)
    if not words:
        return texts
    missing = pc.is_in(texts, text_array(sorted(words), texts.type))
    return pc.if_else(missing, null_of(texts.type), texts)


def _without_numbers(column: pa.ChunkedArray, words: Sequence[float]) -> pa.ChunkedArray:
    """Return a column with a numeric type, null where a number is NaN or means a missing value."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), null_of(column.type), column)
    return pc.if_else(_is_among(column, words), null_of(column.type), column) if words else column


def _is_among(numbers: pa.ChunkedArray, words: Sequence[float]) -> pa.ChunkedArray:
    return pc.is_in(numbers.cast(pa.float64(), safe=False), arrow_array(np.array(words)))


def _all_null(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(len(column), type_)])


def _as_numbers(column: pa.ChunkedArray, kind: str, entry: Column) -> pa.ChunkedArray:
    if kind == "boolean":
        return column.cast(pa.int64())
    if kind == "number":
        if not pa.types.is_floating(column.type):
            return column
        return pc.if_else(pc.is_finite(column), column, null_of(column.type))
    if kind != "text":
        return _all_null(column, pa.float64())
    plain = plain_numbers(column)
    if plain is not None and reads_plain(entry.style, plain):
        return plain
    numbers = parse_numbers(column, entry.style)
    if numbers.null_count > column.null_count:
        # A column of 0 and 1 may be true and false in another file.
        numbers = pc.coalesce(numbers, _as_booleans(column, kind, entry).cast(pa.float64()))
    return numbers


def _as_booleans(column: pa.ChunkedArray, kind: str, entry: Column) -> pa.ChunkedArray:
    if kind == "boolean":
        return column
    if kind == "number":
        column = column.cast(pa.float64(), safe=False)
        no, yes = (pc.equal(column, number) for number in arrow_array(np.arange(2.0)))
        return pc.if_else(pc.or_(yes, no), yes, null_of(pa.bool_()))
    if kind != "text":
        return _all_null(column, pa.bool_())
    lower = pc.utf8_lower(column)
    words = (TRUE, FALSE) if entry.kind == "boolean" else (("true",), ("false",))
    yes, no = (pc.is_in(lower, text_array(known, lower.type)) for known in words)
    return pc.if_else(pc.or_(yes, no), yes, null_of(pa.bool_()))


def _as_dates(column: pa.ChunkedArray, kind: str, entry: Column) -> pa.ChunkedArray:
    types, lasting = pa.types, entry.pattern == "duration"
    of_day = not lasting and is_time_of_day(entry.pattern)
    if kind == "text" and not lasting:
        dates = parse_dates(column, entry.pattern)
        if dates.null_count > column.null_count and not of_day:
            # pandas, JSON and most programs write dates as ISO 8601.
            dates = pc.coalesce(dates, parse_dates(column, ISO + "%z" * entry.pattern.endswith("%z")))
        return pa.chunked_array([dates])
    if kind == "date" and (types.is_time(column.type), types.is_duration(column.type)) == (of_day, lasting):
        return column
    wanted = pa.duration("us") if lasting else pa.time64("us") if of_day else pa.timestamp("us")
    return _all_null(column, wanted)


def _as_texts(column: pa.ChunkedArray, kind: str, entry: Column) -> pa.ChunkedArray:
    """Return values as texts; timestamps at midnight become dates."""
    if kind == "text":
        return column
    if kind == "empty":
        return _all_null(column, pa.string())
    try:
        if pa.types.is_timestamp(column.type):
            days = column.cast(pa.date32(), safe=False)
            midnight = pc.equal(column, days.cast(column.type))
            return pc.if_else(midnight, days.cast(pa.string()), column.cast(pa.string()))
        return column.cast(pa.string())
    except pa.ArrowException as error:  # such as an unknown zone
        raise DataError(f"column {entry.name!r} cannot be read as text: {str(error)[:160]}") from None


def _as_identifiers(column: pa.ChunkedArray, kind: str, entry: Column) -> pa.ChunkedArray:
    """Return whole numbers as such, and anything else as texts."""
    numbers = plain_numbers(column) if kind == "text" else column if kind == "number" else None
    if numbers is None or (kind == "text" and not pa.types.is_integer(numbers.type)):
        return _as_texts(column, kind, entry)
    return numbers


_READERS: dict[str, Callable[[pa.ChunkedArray, str, Column], pa.ChunkedArray]] = {
    "number": _as_numbers,
    "boolean": _as_booleans,
    "date": _as_dates,
    "identifier": _as_identifiers,
}
