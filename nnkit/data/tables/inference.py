"""Infer the schema of a table from summaries of its columns, with notes on what is doubtful.

Order: a table, its columns of text, how their numbers and dates are written, columns that identify rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from nnkit.data.examples import RawTable
from nnkit.data.tables.arrow import numpy_array
from nnkit.data.tables.columns import each_column, type_kind
from nnkit.data.tables.dates import AMBIGUOUS, ISO, TIME, date_patterns, is_pattern
from nnkit.data.tables.numerals import MULTIPLES, READINGS, Numeral, Style, is_plain, numeral_of, reads_plain
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.schema import LEARNT, Column, Schema, toml_text
from nnkit.data.tables.summaries import MISSING, ColumnSummary, missing_words, summarise
from nnkit.data.text.encoding import is_free_text
from nnkit.errors import ConfigError, DataError

__all__ = ["FITTING_SHARE", "Inference", "infer"]

FITTING_SHARE = 0.9
"""A column of text holds numbers or dates if at least this share of its present cells are."""
# A column of few distinct texts holds labels if this share is not numbers: "0" to "9" and "X".
_FEW_LABELS = 20
_OTHER_LABELS_SHARE = 0.05
_DOUBTFUL_SHARE = 0.5
_FEW_WORDS = 5
_FEWEST_ROWS_OF_IDENTIFIERS = 10
_YEARS = (1500, 2200)
_IDENTIFIER = re.compile(
    r"(?i)(?:.*[_\s.\-])?(?:id|idx|index|row_?(?:id|number|num|nr|no|names?)?|uuid|guid|unnamed: ?\d+)"
    r"|id[_\s.\-].*"
)
_CAPITAL_ID = re.compile(r".*[a-z]I[dD]")
_TIME = re.compile(
    r"(?i).*(?:year|date|time|month|week|day|hour|minute|second|step|period|epoch|stamp|age|tick).*|t"
)


@dataclass(frozen=True, eq=False)
class Inference:
    """A schema, and the columns of plain numbers, which were read to infer it."""

    schema: Schema
    read: dict[str, pa.ChunkedArray] = field(default_factory=dict)


@dataclass
class _Separators:
    """The separator of a table's cells, and the numbers of columns with certain decimal points and commas."""

    separator: str = ""
    points: int = 0
    commas: int = 0


_Found = tuple[ColumnSummary, pa.ChunkedArray | None]


def infer(
    raw: RawTable,
    options: TableOptions,
    *,
    targets: Collection[str] = (),
    named: Collection[str] = (),
    dropped: Collection[str] = (),
    strict: bool = True,
) -> Inference:
    """Infer how each column of a table is read.

    The columns `dropped` are skipped; identifiers among those `named`, which the user chose to learn
    from, are kept. With `strict`, a doubtful column is a DataError that names its words and the options that
    settle it; else it holds categories.
    """
    table, names = raw.table, raw.table.column_names
    for name in options.types:
        if name not in names:
            raise ConfigError(f"`types` names a column {name!r}, which is not there")
    words = missing_words(True, options.missing)
    looked_at = [name for name in names if name not in dropped]

    def look(name: str) -> _Found | None:
        column = table[name]
        return summarise(column, words, identifies(name)) if type_kind(column.type) == "text" else None

    summaries = dict(zip(looked_at, each_column(look, looked_at, len(table)), strict=True))
    signs = _Separators(raw.separator)
    for found in summaries.values():
        if found is not None:
            _count_signs(signs, found[0], options)
    columns = []
    for name in names:
        if name not in summaries:
            columns.append(Column(name, "dropped"))
            continue
        found = summaries[name]
        column = _entry(name, table[name], found, signs, options, name in targets, strict)
        if name not in targets and name not in named and name not in options.types:
            if name in raw.index or name == options.index:
                column = replace(column, kind="identifier", note="it only numbers the rows")
            elif column.kind == "number":
                column = _identifier(column, found[0] if found else _typed_summary(table[name], name))
        columns.append(column)
    schema = Schema(_rising_as_numbers(columns, targets), raw.named, options)
    return Inference(schema, _already_read(schema, summaries))


def _entry(
    name: str,
    column: pa.ChunkedArray,
    found: _Found | None,
    signs: _Separators,
    options: TableOptions,
    target: bool,
    strict: bool,
) -> Column:
    if found is None:
        return _typed(name, column, options)
    # A later table may have the signs that the user gave, though this column of plain numbers needs none.
    signs_given = options.decimal == "," or bool(options.thousands)
    if found[1] is not None and name not in options.types and not signs_given:
        return Column(name, "number", note=_missing_words(found[0]))
    return _decide(name, found[0], signs, options, target, strict)


def _already_read(schema: Schema, summaries: Mapping[str, _Found | None]) -> dict[str, pa.ChunkedArray]:
    """Return the columns of plain numbers by name."""
    if any(map(is_plain, schema.options.missing or ())):
        return {}  # numbers that mean a missing value are found by their values, when the column is read
    read = {}
    for column in schema.columns:
        numbers = (summaries.get(column.name) or (None, None))[1]
        if column.kind == "number" and numbers is not None and reads_plain(column.style, numbers):
            read[column.name] = numbers
    return read


def _typed(name: str, column: pa.ChunkedArray, options: TableOptions) -> Column:
    """Return the entry of a column that has a type in its source."""
    given = options.types.get(name)
    if given is not None:
        return _given(name, given, None, _Separators(), options)
    kind = type_kind(column.type)
    if kind == "nested":
        return Column(name, "dropped", note=f"it holds {str(column.type)[:80]}")
    if kind == "date":
        of_day = pa.types.is_time(column.type)
        zone = pa.types.is_timestamp(column.type) and column.type.tz is not None
        pattern = "duration" if pa.types.is_duration(column.type) else TIME if of_day else ISO
        return Column(name, "date", pattern=pattern + "%z" * zone)
    return Column(name, kind)


def _decide(
    name: str, summary: ColumnSummary, signs: _Separators, options: TableOptions, target: bool, strict: bool
) -> Column:
    """Return the entry of a column of text."""
    given = options.types.get(name)
    if given is not None:
        return _given(name, given, summary, signs, options)
    present, labels = summary.present, summary.labels
    if present == 0:
        return Column(name, "empty")
    few, note = labels is not None and len(labels) <= _FEW_LABELS, ""
    for column, fits in (_number(name, summary, signs, options), _date(name, summary)):
        others = present - fits
        is_labels = few and others >= _OTHER_LABELS_SHARE * present
        if fits and (others == 0 or (fits >= FITTING_SHARE * present and not is_labels)):
            if column.kind == "number" and summary.coded and summary.whole == summary.plain:
                return _texts(name, summary, options, "numbers that begin with 0 are kept as text")
            return replace(column, note=_joined(column.note, _missing_words(summary)))
        if labels is None and fits >= _DOUBTFUL_SHARE * present:
            if strict:
                _check_doubtful(name, summary, column, fits, target, options)
            note = _mostly(column.kind, summary, fits)
    note = _why_not_numbers(summary, signs) or note
    if strict and target and note and not few:
        classes = f'`types` = {{{toml_text(name)} = "category"}} makes a class of each value'
        raise DataError(f"target {name!r}: {note}; {classes}")
    return _texts(name, summary, options, note)


def _given(
    name: str, given: str, summary: ColumnSummary | None, signs: _Separators, options: TableOptions
) -> Column:
    """Return the entry of a column with a kind given by the user."""
    summary = summary or ColumnSummary()
    kind, _, pattern = given.partition(":")
    column = Column(name, kind)  # type: ignore[arg-type]
    if kind == "number":
        column = _number(name, summary, signs, options, given=True)[0]
    elif kind == "date":
        if pattern and not is_pattern(pattern):
            raise ConfigError(f"`types` has a pattern for {name!r} that is not understood: {pattern!r}")
        column = replace(column, pattern=pattern or _date(name, summary)[0].pattern or ISO)
    return column


def _texts(name: str, summary: ColumnSummary, options: TableOptions, note: str) -> Column:
    """Return the entry of a column that is neither numbers nor dates."""
    words, missing = _words(summary, options)
    values = {word.lower() for word in (*summary.shapes, *summary.missing) if word not in MISSING}
    if values and values <= {"true", "false"} and not summary.plain and not words:
        return Column(name, "boolean")
    if is_free_text(summary.sample):
        return Column(name, "text")
    return Column(name, "category", missing=words, note=_joined(note, missing, _case_note(summary)))


def _case_note(summary: ColumnSummary) -> str:
    """Return a note on categories that differ in capitals only."""
    spellings: dict[str, set[str]] = {}
    for label in summary.labels or ():
        spellings.setdefault(label.lower(), set()).add(label)
    found = [repr(word) for words in spellings.values() if len(words) > 1 for word in sorted(words)]
    listed = ", ".join(found[:6])
    return f"values that differ in capitals only are separate categories: {listed}" if found else ""


def _words(summary: ColumnSummary, options: TableOptions) -> tuple[tuple[str, ...] | None, str]:
    """Return a category column's words for missing values, None for the usual ones, and a note.

    "NA" is a name where all other texts are as short and in capitals: EU, AS.
    """
    given = options.missing or ()
    others = [word for word in (*summary.shapes, *summary.missing) if word not in MISSING]
    if (
        "NA" in summary.missing
        and "NA" not in given
        and len(others) > 1
        and all(len(word) <= 3 and word.isupper() for word in others)
    ):
        words = MISSING.union(given) - {"NA"}
        return tuple(sorted(words)), 'NA is taken as a name; `missing` = ["NA"] makes it missing'
    return None, _missing_words(summary, MISSING.union(given) - {"NA", "NaN", "nan", "null", "NULL"})


def _missing_words(summary: ColumnSummary, words: Collection[str] = ()) -> str:
    """Return a note on the words that are taken as missing values."""
    found = {word: count for word, count in summary.missing.items() if not words or word in words}
    if not found:
        return ""
    listed = ", ".join(f"{word!r} ({count:,})" for word, count in Counter(found).most_common(3))
    return f"taken as missing: {listed}"


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _mostly(kind: str, summary: ColumnSummary, fits: int) -> str:
    """Return a note on a column of text where most cells are numbers or dates."""
    texts = summary.examples.items()
    words = [text for shape, text in texts if numeral_of(shape) is None and not date_patterns(shape)]
    such = f" such as {words[0][:40]!r}" if words else ""
    return (
        f"{fits:,} of {summary.present:,} values are {kind}s; the others{such} make it text: correct them, "
        "or list them in `missing`"
    )


def _check_doubtful(
    name: str, summary: ColumnSummary, column: Column, fits: int, target: bool, options: TableOptions
) -> None:
    """Raise where most cells are numbers or dates and the others a few words, which may be missing values."""
    others = {
        shape: count for shape, count in summary.shapes.items() if not any(sign.isdigit() for sign in shape)
    }
    if len(others) > _FEW_WORDS or sum(others.values()) + summary.uncounted < summary.present - fits:
        return
    words = ", ".join(repr(word[:40]) for word in others)
    array = ", ".join(toml_text(word) for word in (*(options.missing or ()), *others))
    what = "target" if target else "column"
    raise DataError(
        f"{what} {name!r} holds {column.kind}s in {fits:,} of {summary.present:,} rows and {words} in the "
        f"others: if these are missing values, set `missing` = [{array}]; else `types` = "
        f'{{{toml_text(name)} = "category"}}'
    )


# --- how numbers and dates are written ---


_Pair = tuple[str, str]


def _numerals(summary: ColumnSummary) -> list[tuple[Numeral, int]]:
    found = ((numeral_of(shape), count) for shape, count in summary.shapes.items())
    return [(numeral, count) for numeral, count in found if numeral is not None]


def _unit(numerals: Sequence[tuple[Numeral, int]]) -> _Pair:
    """Return the most frequent unit, ("", "") where there is none."""
    units: Counter[_Pair] = Counter()
    for numeral, count in numerals:
        units[numeral.before, numeral.after] += count
    del units["", ""]
    return units.most_common(1)[0][0] if units else ("", "")


def _fits(summary: ColumnSummary, options: TableOptions) -> tuple[Counter[_Pair], _Pair]:
    """Return how many cells are numbers under each pair of decimal and thousands sign, and their unit."""
    numerals = _numerals(summary)
    unit = _unit(numerals)
    pointed = summary.plain - summary.whole - summary.grouped
    bare = unit[1] not in MULTIPLES
    fits: Counter[_Pair] = Counter()
    for pair in READINGS:
        decimal, thousands = pair
        if options.decimal not in (None, decimal) or options.thousands not in (None, thousands):
            continue
        fits[pair] = 0
        if bare:
            fits[pair] += summary.whole
            fits[pair] += pointed if decimal == "." else 0
            fits[pair] += summary.grouped if decimal == "." or thousands == "." else 0
        fits[pair] += sum(
            count
            for numeral, count in numerals
            if pair in numeral.signs
            and ((numeral.before, numeral.after) == unit or (bare and not numeral.before + numeral.after))
        )
    if options.thousands and max(fits.values(), default=0) < FITTING_SHARE * summary.present:
        # It is for the whole table, and this column has other signs.
        return _fits(summary, replace(options, thousands=None))
    return fits, unit


def _count_signs(signs: _Separators, summary: ColumnSummary, options: TableOptions) -> None:
    """Count a column whose decimal points or commas are certain."""
    if summary.plain > summary.whole + summary.grouped:
        signs.points += 1
        return
    fits, _ = _fits(summary, options)
    point = max((count for pair, count in fits.items() if pair[0] == "."), default=0)
    comma = max((count for pair, count in fits.items() if pair[0] == ","), default=0)
    if max(point, comma) < FITTING_SHARE * summary.present or not summary.shapes:
        return
    signs.points += point > comma and any("." in shape for shape in summary.shapes)
    signs.commas += comma > point


def _number(
    name: str, summary: ColumnSummary, signs: _Separators, options: TableOptions, given: bool = False
) -> tuple[Column, int]:
    """Return the entry of a column as numbers, and how many of its cells are numbers."""
    fits, unit = _fits(summary, options)
    # The options are for the whole table: a column that they do not fit may still be of plain numbers.
    if max(fits.values(), default=0) < summary.plain:
        return Column(name, "number"), summary.plain
    if not fits:
        return Column(name, "number"), 0
    most = max(fits.values())
    best = [pair for pair in READINGS if fits.get(pair, -1) == most]
    pair, note = best[0], ""
    if (".", "") in best:
        if (",", ".") in best and summary.grouped:
            pair, note = _points(summary, signs)
    elif (",", "") in best and (".", ",") in best:
        pair, note = _commas(summary, signs)
    # Where other columns have decimal points, commas stand in lists: 1,5.
    lists = pair[0] == "," and pair != (",", ".") and 0 < signs.points >= signs.commas
    if lists and options.decimal is None and not given:
        return Column(name, "number"), summary.plain
    return Column(name, "number", Style(*pair, *unit), note=note), most


def _points(summary: ColumnSummary, signs: _Separators) -> tuple[tuple[str, str], str]:
    """Return the signs of a column where every point stands before three digits: 1.234."""
    if signs.commas:
        return (",", "."), ""
    if signs.points:
        return (".", ""), ""
    short = summary.whole > 0 and summary.long == 0
    if signs.separator == ";" and short:
        return (",", "."), 'points taken as thousands: 1.234 is 1234; `thousands` = "" reads it as 1.234'
    if signs.separator == ";" or short:
        return (".", ""), 'points taken as decimal: `thousands` = "." reads 1.234 as 1234'
    return (".", ""), ""


def _commas(summary: ColumnSummary, signs: _Separators) -> tuple[tuple[str, str], str]:
    """Return the signs of a column where every comma stands before three digits: 1,234."""
    decimal = 'commas taken as decimal: `thousands` = "," reads 1,234 as 1234'
    if signs.commas > signs.points:
        return (",", ""), decimal
    if signs.points or signs.separator != ";":
        return (".", ","), ""
    if summary.long == 0 and summary.whole:
        return (".", ","), 'commas taken as thousands: 1,234 is 1234; `decimal` = "," reads it as 1.234'
    return (",", ""), decimal


def _why_not_numbers(summary: ColumnSummary, signs: _Separators) -> str:
    """Return why a column that looks like numbers is read as text; "" for any other column."""
    numerals = _numerals(summary)
    count = sum(times for _, times in numerals) + summary.plain
    if not numerals or count < FITTING_SHARE * summary.present:
        return ""
    found = {numeral.before + numeral.after for numeral, _ in numerals} | ({""} if summary.plain else set())
    units = sorted(found - {""})
    if "" in found and any(numeral.after in MULTIPLES for numeral, _ in numerals):
        units.append("none")
    if len(units) > 1:
        return f"it looks like numbers with different units ({', '.join(units[:4])}): convert them to one"
    if signs.points and any("," in shape for shape in summary.shapes):
        return (
            'it is taken as text, for other columns have decimal points; `decimal` = "," reads it as numbers'
        )
    return "it looks like numbers, written in different ways: say `decimal` and `thousands`"


def _date(name: str, summary: ColumnSummary) -> tuple[Column, int]:
    """Return the entry of a column as dates, and how many of its cells are dates."""
    if not summary.dates:
        return Column(name, "date"), 0
    most = max(summary.dates.values())
    best = [pattern for pattern, count in summary.dates.items() if count == most]
    usual = [pattern for pattern in best if pattern.startswith(tuple(AMBIGUOUS))]
    pattern = min(usual or best)
    note = ""
    for begin, other in AMBIGUOUS.items():
        otherwise = other + pattern.removeprefix(begin)
        if pattern.startswith(begin) and otherwise in best:
            first = "month" if begin.startswith("%m") else "day"
            said = f'`types` = {{{toml_text(name)} = "date:{otherwise}"}}'
            note = f"the {first} taken as first; {said} reads it otherwise"
    return Column(name, "date", pattern=pattern, note=note), most


# --- columns that identify rows ---


def identifies(name: str) -> bool:
    """Tell whether a column's name says that it identifies rows."""
    return _IDENTIFIER.fullmatch(name.strip()) is not None or _CAPITAL_ID.fullmatch(name.strip()) is not None


def _typed_summary(column: pa.ChunkedArray, name: str) -> ColumnSummary:
    """Return the parts of a summary that `_identifier` reads, for a column with a numeric type."""
    summary = ColumnSummary(rows=len(column), rises=False)
    if pa.types.is_integer(column.type) and not column.null_count and len(column):
        values = numpy_array(column)
        summary.first, summary.last = int(values[0]), int(values[-1])
        # Unsigned and narrow types wrap around.
        summary.rises = bool(np.all(values[1:] > values[:-1]) and np.all(values[1:] - values[:-1] == 1))
        summary.distinct = np.unique(values).astype(np.int64) if identifies(name) else None
    return summary


def _identifier(column: Column, summary: ColumnSummary) -> Column:
    """Return a number column as an identifier if it numbers the rows, or its name and values say so."""
    if summary.rows < _FEWEST_ROWS_OF_IDENTIFIERS or summary.first is None or summary.last is None:
        return column
    a_time = _TIME.fullmatch(column.name.strip()) or _YEARS[0] <= summary.first <= summary.last <= _YEARS[1]
    if summary.rises and not a_time:
        return replace(column, kind="identifier", note="it rises by one from row to row")
    if summary.distinct is not None and len(summary.distinct) == summary.rows:
        return replace(column, kind="identifier", note="it identifies the rows")
    return column


def _rising_as_numbers(columns: list[Column], targets: Collection[str]) -> tuple[Column, ...]:
    """Return the columns; without any other feature, columns that rise by one are numbers."""
    if any(column.kind in LEARNT and column.name not in targets for column in columns):
        return tuple(columns)
    return tuple(
        replace(column, kind="number", note="") if column.note.startswith("it rises") else column
        for column in columns
    )
