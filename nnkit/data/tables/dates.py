"""Dates and times in text: the patterns that may fit a text, and a column read by one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nnkit.data.tables.arrow import arrow_array, nulled, numpy_array, text_scalar

__all__ = ["AMBIGUOUS", "ISO", "TIME", "date_patterns", "is_pattern", "is_time_of_day", "parse_dates"]

ISO = "ISO 8601"
"""A date as 2024-01-31, with or without a time: 2024-01-31T12:30:00.5, 2024-01-31 12:30."""
TIME = "%H:%M:%S"
"""A time of day; the seconds may be missing."""
_ISO = "%Y-%m-%d"
AMBIGUOUS = {"%m/%d/": "%d/%m/", "%m-%d-": "%d-%m-", "%d.%m.": "%m.%d."}
"""Beginnings of patterns, each with the same one with day and month exchanged: 03/04/ fits both."""

_MONTHS = "january february march april may june july august september october november december".split()
# The supported strftime codes, each with a regular expression of the texts that it stands for.
_CODES = {
    "Y": r"(?P<Y>[0-9]{4})",
    "y": r"(?P<y>[0-9]{2})",
    "m": r"(?P<m>[0-9]{1,2})",
    "d": r"(?P<d>[0-9]{1,2})",
    "b": r"(?P<b>[A-Za-z]{3})\.?",
    "B": r"(?P<B>[A-Za-z]{3,9})",
    "H": r"(?P<H>[0-9]{1,2})",
    "I": r"(?P<I>[0-9]{1,2})",
    "M": r"(?P<M>[0-9]{2})",
    "S": r"(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?",
    "p": r"(?P<p>[AaPp])\.?[Mm]\.?",
    "z": r" ?(?P<z>Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})",
    "a": r"[A-Za-z]{3},?",
    "%": "%",
}
_DATES = (
    *("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%m.%d.%Y"),
    *("%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d-%b-%y"),
    *("%d %B %Y", "%B %d, %Y", "%B %d %Y", "%a, %d %b %Y", "%a %b %d %Y", "%Y-%b-%d"),
    *("%b %Y", "%b-%Y", "%Y-%m"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_ISO_TIME = rf"(?:[T ]{_CODES['H']}:{_CODES['M']}(?::{_CODES['S']})?)?"
_MICROSECONDS = {"H": 3_600_000_000, "M": 60_000_000, "S": 1_000_000}
_LONGEST = 80
_MOST_SHAPES_KEPT = 1 << 14
# The maximum value of each code.
_MAXIMA = {"m": 12, "d": 31, "H": 23, "I": 12, "M": 59, "S": 59}


@cache
def _pattern(pattern: str) -> str:
    """Return the regular expression of a pattern."""
    if pattern in (TIME, TIME + "%z"):
        body = f"{_CODES['H']}:{_CODES['M']}(?::{_CODES['S']})?"
        return body + (_CODES["z"] if pattern.endswith("%z") else "")
    if pattern.startswith(ISO):
        body = _pattern(_ISO) + _ISO_TIME
        return body + (_CODES["z"] if pattern.endswith("%z") else "")
    parts = re.split(r"%(.)", pattern)
    return "".join(_CODES[part] if place % 2 else re.escape(part) for place, part in enumerate(parts))


def is_pattern(pattern: str) -> bool:
    """Tell whether a pattern has supported codes, each at most once, that make a date or a time of day."""
    if pattern in (ISO, ISO + "%z", TIME, TIME + "%z"):
        return True
    codes = re.findall("%(.)", pattern, re.DOTALL)
    named = [code for code in codes if code not in "a%"]
    if len(pattern) > _LONGEST or not _CODES.keys() >= set(codes) or len(set(named)) < len(named):
        return False
    year, month = {"Y", "y"} & set(named), {"m", "b", "B"} & set(named)
    day, hour = {"d"} & set(named), {"H", "I"} & set(named)
    if max(len(year), len(month), len(hour)) > 1 or (day and not month) or (month and not year):
        return False
    return bool(year) or (bool(hour) and not month)


def is_time_of_day(pattern: str) -> bool:
    """Tell whether a pattern has no year."""
    return not pattern.startswith(ISO) and re.search("%[Yy]", pattern) is None


@cache
def _candidates() -> tuple[tuple[str, re.Pattern[str]], ...]:
    patterns = [ISO, TIME, *(date + time for date in _DATES for time in _TIMES)]
    both = [pattern + zone for pattern in patterns for zone in ("", "%z")]
    return tuple((pattern, re.compile(_pattern(pattern))) for pattern in both)


@lru_cache(_MOST_SHAPES_KEPT)
def date_patterns(shape: str) -> tuple[str, ...]:
    """Return the patterns that may fit texts of a shape: a text whose digits `shapes_of` has replaced."""
    if len(shape) > _LONGEST:
        return ()
    return tuple(pattern for pattern, regex in _candidates() if regex.fullmatch(shape))


def parse_dates(texts: pa.Array, pattern: str) -> pa.Array:
    """Return texts as timestamps in microseconds (in UTC where they have a zone), or as times of day.

    A pattern has codes of strftime, or is `ISO` or `TIME`, and may end with %z. The result is null where
    a text does not fit, or the date does not exist, such as the 30th of February.
    """
    parts = pc.extract_regex(pc.utf8_trim_whitespace(texts), f"^{_pattern(pattern)}$")
    if isinstance(parts, pa.ChunkedArray):
        parts = parts.combine_chunks()
    text = dict(zip((field.name for field in parts.type), parts.flatten(), strict=True))
    fits = numpy_array(pc.is_valid(parts))
    number = {code: _whole(text[code]) for code in ("Y", "y", "m", "d", "H", "I", "M", "S") if code in text}
    for code, maximum in _MAXIMA.items():
        if code in number:
            fits &= (number[code] <= maximum) & (number[code] >= (1 if code in "mdI" else 0))
    for code in ("b", "B"):
        if code in text:
            number["m"] = _months(text[code])
            fits &= number["m"] > 0
    if "I" in number:
        number["H"] = number["I"] % 12
        if "p" in text:
            number["H"] += 12 * numpy_array(
                pc.match_substring_regex(pc.coalesce(text["p"], text_scalar("a", text["p"].type)), "[pP]")
            )
    value = np.zeros(len(fits), np.int64)
    for code in _MICROSECONDS.keys() & number.keys():
        value += number[code] * _MICROSECONDS[code]
    if "f" in text:
        digits = pc.utf8_slice_codeunits(pc.utf8_rpad(text["f"], 6, "0"), 0, 6)
        value = value + _whole(digits)
    if "z" in text:
        value = value - _mapped(text["z"], "Z", _offset)
    if "Y" not in number and "y" not in number:
        day = _MICROSECONDS["H"] * 24
        return nulled(arrow_array(value % day), fits).cast(pa.time64("us"))
    year = number["Y"] if "Y" in number else number["y"] + np.where(number["y"] < 69, 2000, 1900)
    month = (year - 1970).astype("M8[Y]").astype("M8[M]") + (number.get("m", np.ones_like(year)) - 1)
    days = month.astype("M8[D]") + (number.get("d", np.ones_like(year)) - 1)
    fits &= (days.astype("M8[M]") == month) & (year > 0)
    value = value + days.astype(np.int64) * 24 * _MICROSECONDS["H"]
    return nulled(arrow_array(value), fits).cast(pa.timestamp("us"))


def _whole(texts: pa.Array) -> NDArray[np.int64]:
    """Return digits as whole numbers; 0 where there are none."""
    zero = text_scalar("0", texts.type)
    texts = pc.coalesce(texts, zero)
    blank = pc.equal(texts, text_scalar("", texts.type))
    return numpy_array(pc.if_else(blank, zero, texts).cast(pa.int64()))


def _months(names: pa.Array) -> NDArray[np.int64]:
    """Return the number of each month, by its name or the first three letters; 0 for another word."""
    known = {name: number for number, name in enumerate(_MONTHS, 1)}
    known |= {name[:3]: number for name, number in known.items()}
    return _mapped(names, "", lambda name: known.get(name.lower(), 0))


def _mapped(texts: pa.Array, missing: str, number: Callable[[str], int]) -> NDArray[np.int64]:
    """Apply a function to each distinct text; `missing` stands for null."""
    encoded = pc.coalesce(texts, text_scalar(missing, texts.type)).dictionary_encode()
    numbers = np.array([number(text) for text in encoded.dictionary.to_pylist()], np.int64)
    return numbers[numpy_array(encoded.indices)] if len(numbers) else np.zeros(len(texts), np.int64)


def _offset(zone: str) -> int:
    """Return the offset of a time zone from UTC, in microseconds."""
    if not zone or zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    minutes = 60 * int(digits[:2]) + int(digits[2:])
    return (-1 if zone[0] == "-" else 1) * minutes * _MICROSECONDS["M"]
