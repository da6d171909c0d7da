"""Numbers as people write them: with decimal commas, thousands, units, currencies and percent signs.

Order: how one column writes its numbers, what the shape of a cell says, the values of cells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from nnkit.data.tables.arrow import null_of, text_bytes, text_scalar

__all__ = [
    "LONGEST_UNIT",
    "MULTIPLES",
    "PLAIN",
    "PLAIN_NUMBER",
    "READINGS",
    "Numeral",
    "Style",
    "is_plain",
    "numeral_of",
    "parse_numbers",
    "plain_numbers",
    "reads_plain",
]

_SPACES = "\u00a0\u202f\u2009\u2007"
_MINUS = "\u2212\u2013"
_SIGNS_OF_CURRENCIES = "$ € £ ¥ ₹ ₽ ₩ ₺ ₴ ₫ ₪ ฿ us$ a$ c$ r$ nz$ hk$ s$ rs kr kč zł ft lei".split()
_CODES_OF_CURRENCIES = (
    "usd eur gbp jpy cny inr chf cad aud nzd sek nok dkk pln czk huf brl mxn zar rub try".split()
)
_CURRENCIES = frozenset(_SIGNS_OF_CURRENCIES + _CODES_OF_CURRENCIES)
MULTIPLES = ("k", "m", "b")
"""Units that may mean thousands or millions: beside them, a number without a unit does not fit."""
READINGS = (
    *((".", ""), (",", ""), (".", ","), (",", "."), (".", " "), (",", " ")),
    *((".", "'"), (",", "'"), (".", "_")),
)
"""Pairs of a decimal sign and a sign between thousands, the simplest first."""
LONGEST_UNIT = 20
_LONGEST_NUMERAL = 80
_MOST_SHAPES_KEPT = 1 << 14
PLAIN_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_PARTS = ("open", "first", "second", "whole", "part", "exponent", "close")
# A cell of a number, digits replaced by 9 and a first 0 kept: sign, currency, digits, exponent, unit.
_CELL = re.compile(
    r"(?P<open>\()?\s*(?P<sign>[+-]?)\s*(?P<before>[^\d\s()+.,-][^\d()+,-]*?)?\s*(?P<sign2>[+-]?)"
    r"(?P<digits>(?:(?<![^\W\d_])[.,])?[09](?:[09.,' _]*[09])?[.,]?)(?P<exponent>[eE][+-]?[09]+)?"
    r"(?P<blank>\s*)(?P<after>[^\d\s()][^\d()]*?)?\s*(?P<close>\))?"
)


@dataclass(frozen=True)
class Style:
    """How a column writes its numbers."""

    decimal: str = "."
    thousands: str = ""  # between groups of three digits; a space stands for any kind of space
    # The currency, unit or percent sign before or after a number, in small letters. Numbers without it are
    # read too, unless it is one of `MULTIPLES`.
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        signs = ["decimal comma"] if self.decimal == "," else []
        if self.thousands:
            signs.append(f"thousands {'space' if self.thousands == ' ' else repr(self.thousands)}")
        signs += [f"unit {unit}" for unit in (self.before, self.after) if unit]
        return ", ".join(signs)


PLAIN = Style()


@dataclass(frozen=True)
class Numeral:
    """The unit in the shape of a cell, as in `Style`, and the `READINGS` that make its digits a number."""

    before: str
    after: str
    signs: frozenset[tuple[str, str]]


_NORMAL = str.maketrans(dict.fromkeys(_SPACES, " ") | dict.fromkeys(_MINUS, "-"))


def _unit_words(text: str | None) -> str:
    """Return a unit in small letters, without a point at its end or a plural's s: "km" for "KM" and "km."."""
    unit = " ".join((text or "").lower().split())
    unit = unit[:-1] if unit[-1:] == "." and unit[-2:-1].isalpha() else unit
    return unit[:-1] if len(unit) > 3 and unit.endswith("s") and unit.isalpha() else unit


@lru_cache(_MOST_SHAPES_KEPT)
def numeral_of(shape: str) -> Numeral | None:
    """Return what the shape of a cell, as `shapes_of` gives it, says; None if it is not a number."""
    match = _CELL.fullmatch(shape.translate(_NORMAL).strip()) if len(shape) <= _LONGEST_NUMERAL else None
    if match is None or (match["open"] is None) != (match["close"] is None):
        return None
    if match["sign"] and match["sign2"]:
        return None
    before, after = _unit_words(match["before"]), _unit_words(match["after"])
    if before and before not in _CURRENCIES:
        return None
    if not _is_unit(after, match["after"] or "", bool(match["blank"])):
        return None
    signs = frozenset(pair for pair in READINGS if _digits_of(*pair).fullmatch(match["digits"]))
    return Numeral(before, after, signs) if signs else None


def _is_unit(unit: str, written: str, apart: bool) -> bool:
    """Tell whether a number is followed by its unit; one capital letter without a blank is a code: 2A."""
    if set(unit) <= {"x"} and unit:
        return False  # 940xx: digits left out
    if not unit:
        return not written
    if unit in _CURRENCIES or unit == "%":
        return True
    if len(unit) > LONGEST_UNIT or not re.fullmatch(r"[^\W_]?[\w²³°µ‰\"'/·*^. ]*[\w²³°‰\"']", unit):
        return False
    return apart or unit in MULTIPLES or not (len(written) == 1 and written.isupper())


@cache
def _digits_of(decimal: str, thousands: str) -> re.Pattern[str]:
    whole = r"\d+"
    if thousands:
        whole = rf"(?:[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+|\d+)"
    point = re.escape(decimal)
    return re.compile(rf"(?:{whole}(?:{point}\d*)?|{point}\d+)")


def parse_numbers(texts: pa.Array, style: Style = PLAIN) -> pa.Array:
    """Return texts as float64; null where a text is not a number of that style nor one that Arrow reads."""
    texts = pc.utf8_trim_whitespace(texts)
    for sign in _MINUS:
        texts = pc.replace_substring(texts, sign, "-")
    restyled = _restyled(texts, style)
    texts = restyled if style.after in MULTIPLES else pc.coalesce(restyled, texts)
    fits = pc.match_substring_regex(texts, PLAIN_NUMBER)
    # Arrow's parser knows no leading plus sign.
    numbers = pc.utf8_ltrim(pc.if_else(fits, texts, null_of(texts.type)), "+")
    values = pc.cast(numbers, pa.float64())
    return pc.if_else(pc.is_finite(values), values, null_of(pa.float64()))


def _restyled(texts: pa.Array, style: Style) -> pa.Array:
    """Return numbers of a style as Arrow reads them; null for any other text."""
    for space in _SPACES:
        texts = pc.replace_substring(texts, space, " ")
    group, point = re.escape(style.thousands), re.escape(style.decimal)
    whole = rf"[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+|[0-9]+" if group else "[0-9]+"
    sign, unit = "[+-]?", _unit_pattern(style.before)
    before = rf"{unit}\s*(?P<second>{sign})\s*" if unit else "(?P<second>)"
    parts = pc.extract_regex(
        texts,
        rf"^(?P<open>\(?)\s*(?P<first>{sign})\s*{before}(?P<whole>(?:{whole})?)(?P<part>(?:{point}[0-9]*)?)"
        rf"(?P<exponent>(?:[eE][+-]?[0-9]+)?)\s*{_unit_pattern(style.after)}\s*(?P<close>\)?)$",
    )
    part = {name: pc.struct_field(parts, [place]) for place, name in enumerate(_PARTS)}
    nothing = text_scalar("", texts.type)
    signs = pc.binary_join_element_wise(part["open"], part["first"], part["second"], nothing)
    negative = pc.match_substring_regex(signs, "[(-]")
    closed = pc.equal(pc.binary_length(part["open"]), pc.binary_length(part["close"]))
    digits = pc.replace_substring(part["whole"], style.thousands, "") if group else part["whole"]
    fraction = pc.replace_substring(part["part"], style.decimal, ".")
    minus = pc.if_else(negative, text_scalar("-", texts.type), nothing)
    numbers = pc.binary_join_element_wise(minus, digits, fraction, part["exponent"], nothing)
    return pc.if_else(closed, numbers, null_of(numbers.type))


def _unit_pattern(unit: str) -> str:
    """Return a regular expression of a unit as `_unit_words` compares it; "" without a unit."""
    words = r"\s+".join(re.escape(word) for word in unit.split())
    plural = "s?" if len(unit) >= 3 and unit.isalpha() else ""
    # A point is of an abbreviation, as in Rs.50, but not in $.50.
    point = r"\.?" if unit[-1:].isalpha() else ""
    optional = "" if unit in MULTIPLES else "?"
    return rf"(?i:{words}{plural}{point}){optional}" if unit else ""


def reads_plain(style: Style, numbers: pa.ChunkedArray) -> bool:
    """Tell whether a style reads plain numbers as `plain_numbers` does: nearly every style, whole numbers."""
    return style == PLAIN or (pa.types.is_integer(numbers.type) and style.after not in MULTIPLES)


def is_plain(text: str) -> bool:
    """Tell whether a text is a number as Python writes it."""
    return re.match(PLAIN_NUMBER, text) is not None and not text.endswith("\n")


def plain_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return a column of plain numbers as int64 or float64; None where a cell is not a plain number."""
    for type_ in (pa.int64(), pa.float64()):
        try:
            numbers = pc.cast(column, type_)
        except pa.ArrowInvalid:
            continue
        # Arrow reads 0x1F as a whole number, and the words nan and inf.
        if pa.types.is_integer(type_):
            letters = (found.max() for found, _ in text_bytes(column) if len(found))
            return None if any(letter > ord("9") for letter in letters) else numbers
        return numbers if pc.all(pc.is_finite(numbers)).as_py() is not False else None
    return None
