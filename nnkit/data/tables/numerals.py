"""Numbers as people write them: with decimal commas, thousands, units, currencies and percent signs.

Order: how one column writes its numbers, what the shapes of its cells say of it, the values of its cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    "Numeral",
    "Style",
    "is_plain",
    "numeral_of",
    "parse_numbers",
    "plain_numbers",
    "reads_plain",
    "unit_words",
]

_SPACES = "\u00a0\u202f\u2009\u2007"
_MINUS = "\u2212\u2013"
_SIGNS_OF_CURRENCIES = "$ € £ ¥ ₹ ₽ ₩ ₺ ₴ ₫ ₪ ฿ us$ a$ c$ r$ nz$ hk$ s$ rs kr kč zł ft lei".split()
_CODES_OF_CURRENCIES = (
    "usd eur gbp jpy cny inr chf cad aud nzd sek nok dkk pln czk huf brl mxn zar rub try".split()
)
_CURRENCIES = frozenset(_SIGNS_OF_CURRENCIES + _CODES_OF_CURRENCIES)
MULTIPLES = ("k", "m", "b")
"""Units that may mean thousands and millions: 5 is not 5k, so that a number without one does not fit."""
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
    """How a column writes its numbers.

    Parameters
    ----------
    decimal : {".", ","}
    thousands : str
        The sign between groups of three digits; a space stands for any kind of space, "" for none.
    before, after : str
        What stands before or after a number, in small letters: a currency, a unit, a percent sign. Where it
        is set, numbers without it are read too, but for one of `MULTIPLES`.
    """

    decimal: str = "."
    thousands: str = ""
    before: str = ""
    after: str = ""

    @property
    def plain(self) -> bool:
        """Whether Arrow and Python read such numbers as they stand."""
        return self == PLAIN

    def __str__(self) -> str:
        signs = ["decimal comma"] if self.decimal == "," else []
        if self.thousands:
            signs.append(f"thousands {'space' if self.thousands == ' ' else repr(self.thousands)}")
        signs += [f"unit {unit}" for unit in (self.before, self.after) if unit]
        return ", ".join(signs)


PLAIN = Style()


@dataclass(frozen=True)
class Numeral:
    """What the shape of a cell says: the unit it has, and the signs with which its digits are a number.

    Parameters
    ----------
    before, after : str
        As in `Style`.
    signs : frozenset of (decimal, thousands)
        Under which the digits are a number.
    grouped : bool
        Whether its one kind of sign may stand between thousands or before decimals: 1.234.
    bare : int
        The number of digits where there is no sign between them, else 0.
    """

    before: str
    after: str
    signs: frozenset[tuple[str, str]]
    grouped: bool
    bare: int


def normal(text: str) -> str:
    """Return a cell's text with plain spaces and minus signs."""
    for sign in _SPACES:
        text = text.replace(sign, " ")
    for sign in _MINUS:
        text = text.replace(sign, "-")
    return text.strip()


def unit_words(text: str | None) -> str:
    """Return a unit so that different spellings of one are equal: km, KM, km."""
    unit = " ".join((text or "").lower().split())
    unit = unit[:-1] if unit[-1:] == "." and unit[-2:-1].isalpha() else unit
    return unit[:-1] if len(unit) > 3 and unit.endswith("s") and unit.isalpha() else unit


@lru_cache(_MOST_SHAPES_KEPT)
def numeral_of(shape: str) -> Numeral | None:
    """Return what a cell's shape says if it is a number's: None for any other text.

    Parameters
    ----------
    shape : str
        The text with each digit as 9, but for a 0 that comes first.
    """
    match = _CELL.fullmatch(normal(shape)) if len(shape) <= _LONGEST_NUMERAL else None
    if match is None or (match["open"] is None) != (match["close"] is None):
        return None
    if match["sign"] and match["sign2"]:
        return None
    before, after = unit_words(match["before"]), unit_words(match["after"])
    if before and before not in _CURRENCIES:
        return None
    if not _is_unit(after, match["after"] or "", bool(match["blank"])):
        return None
    digits = match["digits"]
    signs = frozenset(pair for pair in _readings() if _digits_of(*pair).fullmatch(digits))
    if not signs:
        return None
    grouped = {(".", ","), (",", "")} <= signs or {(",", "."), (".", "")} <= signs
    has_sign = any(sign in digits for sign in ".,' _")
    return Numeral(before, after, signs, grouped and has_sign, 0 if has_sign else len(digits))


def _is_unit(unit: str, written: str, apart: bool) -> bool:
    """Tell whether what follows a number is its unit; one capital letter that touches it makes a code: 2A."""
    if set(unit) <= {"x"} and unit:
        return False  # 940xx: digits left out
    if not unit:
        return not written
    if unit in _CURRENCIES or unit == "%":
        return True
    if len(unit) > LONGEST_UNIT or not re.fullmatch(r"[^\W_]?[\w²³°µ‰\"'/·*^. ]*[\w²³°‰\"']", unit):
        return False
    return apart or unit in MULTIPLES or not (len(written) == 1 and written.isupper())


def _readings() -> Iterator[tuple[str, str]]:
    """Yield each decimal sign with each sign between thousands, the most usual first."""
    yield from ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "))
    yield from ((".", "'"), (",", "'"), (".", "_"))


@cache
def _digits_of(decimal: str, thousands: str) -> re.Pattern[str]:
    whole = r"\d+"
    if thousands:
        whole = rf"(?:[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+|\d+)"
    point = re.escape(decimal)
    return re.compile(rf"(?:{whole}(?:{point}\d*)?|{point}\d+)")


def parse_numbers(texts: pa.Array, style: Style = PLAIN) -> pa.Array:
    """Return texts as float64; null where one is not a number of that style, and none that Arrow reads.

    Parameters
    ----------
    texts : pyarrow.Array of string
    style : Style
    """
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
    """Return numbers of a style as Arrow reads them; null where a text is none."""
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
    """Return what matches a unit as `unit_words` compares it, or nothing."""
    words = r"\s+".join(re.escape(word) for word in unit.split())
    plural = "s?" if len(unit) >= 3 and unit.isalpha() else ""
    # A point is of an abbreviation, as in Rs.50, but not in $.50.
    point = r"\.?" if unit[-1:].isalpha() else ""
    optional = "" if unit in MULTIPLES else "?"
    return rf"(?i:{words}{plural}{point}){optional}" if unit else ""


def reads_plain(style: Style, numbers: pa.ChunkedArray) -> bool:
    """Tell whether a style reads plain numbers as `plain_numbers` does: whole ones in nearly every style."""
    return style.plain or (pa.types.is_integer(numbers.type) and style.after not in MULTIPLES)


def is_plain(text: str) -> bool:
    """Tell whether a text is a number as Python writes it."""
    return re.match(PLAIN_NUMBER, text) is not None and not text.endswith("\n")


def plain_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return a whole column of plain numbers at once, as int64 or float64; None where a cell is none."""
    for type_ in (pa.int64(), pa.float64()):
        try:
            numbers = pc.cast(column, type_)
        except pa.ArrowInvalid:
            continue
        # Arrow reads 0x1F as a whole number, and the words nan and inf.
        if pa.types.is_integer(type_):
            return None if _has_letters(column) else numbers
        return numbers if pc.all(pc.is_finite(numbers)).as_py() is not False else None
    return None


def _has_letters(column: pa.ChunkedArray) -> bool:
    """Tell whether a cell of a column that Arrow reads as whole numbers has a letter."""
    return any(len(letters) and letters.max() > ord("9") for letters, _ in text_bytes(column))
