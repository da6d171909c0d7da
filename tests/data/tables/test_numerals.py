"""Numbers as people write them, against Python's Decimal and a small formatter."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.data.tables.numerals import PLAIN_NUMBER, Style, numeral_of, parse_numbers, plain_numbers
from nnkit.data.tables.summaries import shapes_of

_PAIRS = [
    *[(".", ""), (",", ""), (".", ","), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'")],
    (".", "_"),
]
_UNITS = ["", "€", "$", "US$", "EUR", "Rs.", "%", "kg", "km/h", "m²", "items"]
_profile = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def _grouped(digits: str, sign: str) -> str:
    first = len(digits) % 3 or 3
    return sign.join([digits[:first], *(digits[at : at + 3] for at in range(first, len(digits), 3))])


def _format(
    value: Decimal, pair: tuple[str, str], grouped: bool, negative: str, before: str, after: str
) -> str:
    """Write a number; apart from what nnkit reads it with."""
    whole, _, part = format(abs(value), "f").partition(".")
    digits = _grouped(whole, pair[1]) if grouped and pair[1] else whole
    text = before + digits + (pair[0] + part if part else "") + after
    if value >= 0:
        return text
    return f"({text})" if negative == "()" else negative + text


_values = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=4)


def _whole_or_not(value: Decimal, places: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-places))


@_profile
@given(
    st.lists(
        st.tuples(_values, st.integers(0, 4), st.booleans(), st.sampled_from(["-", "−", "–", "()"])),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(_PAIRS),
    st.sampled_from(_UNITS),
    st.sampled_from(["before", "after", "after a space", "after a no-break space"]),
)
def test_formatted_numbers_are_read_as_decimal_says(numbers, pair, unit, place) -> None:
    currency = unit in ("€", "$", "US$", "EUR", "Rs.")
    before = unit if place == "before" and currency else ""
    apart = {"after a space": " ", "after a no-break space": "\u00a0"}.get(place, "")
    after = "" if before or not unit else apart + unit
    values = [_whole_or_not(value, places) for value, places, _, _ in numbers]
    texts = [
        _format(value, pair, grouped, negative, before, after)
        for value, (_, _, grouped, negative) in zip(values, numbers, strict=True)
    ]
    shapes = [numeral_of(shape) for shape in shapes_of(pa.array(texts)).to_pylist()]
    assert None not in shapes
    for text, shape in zip(texts, shapes, strict=True):
        assert pair in shape.signs, text
    units = {(shape.before, shape.after) for shape in shapes}
    assert len(units) == 1
    read = parse_numbers(pa.array(texts), Style(*pair, *units.pop())).to_pylist()
    assert read == [float(value) for value in values]


@_profile
@given(st.text("0123456789.,' -+eE()%$€ kKmM_\u00a0−°/x²Rs", min_size=1, max_size=12))
def test_the_shape_of_a_cell_says_a_number_where_the_parser_reads_one(text) -> None:
    text = text.strip()
    if not text or re.match(PLAIN_NUMBER, text.replace("−", "-")) or re.search(r"[eE]\+?\d\d\d", text):
        return
    numeral = numeral_of(shapes_of(pa.array([text]))[0].as_py())
    for pair in _PAIRS:
        style = Style(*pair, numeral.before, numeral.after) if numeral else Style(*pair)
        read = parse_numbers(pa.array([text]), style)[0].as_py()
        assert (read is not None) == (numeral is not None and pair in numeral.signs)


@_profile
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_that_python_writes_are_read_bit_for_bit(values) -> None:
    texts = pa.array([repr(value) for value in values])
    assert parse_numbers(texts).to_pylist() == values
    assert plain_numbers(pa.chunked_array([texts])).to_pylist() == values


@pytest.mark.parametrize(
    "text", ["0x1F", "0X1f", "nan", "inf", "-inf", "infinity", "1e999", "1_0", "1d", "", " "]
)
@pytest.mark.parametrize("others", [[], ["1"], ["1.5"]])
def test_what_is_no_finite_number_is_none_whatever_stands_beside_it(text, others) -> None:
    texts = pa.array([*others, text])
    assert parse_numbers(texts)[len(others)].as_py() is None
    assert plain_numbers(pa.chunked_array([texts])) is None


@pytest.mark.parametrize(
    ("text", "style", "value"),
    [
        ("$.50", Style(before="$"), 0.5),
        ("Rs.50", Style(before="rs"), 50.0),
        ("Rs.1,234.50", Style(thousands=",", before="rs"), 1234.5),
        ("-$5", Style(before="$"), -5.0),
        ("$-5", Style(before="$"), -5.0),
        ("($5)", Style(before="$"), -5.0),
        ("(90)", Style(), -90.0),
        ("+1,5e−3", Style(","), 0.0015),
        ("1\u202f234,5\u00a0€", Style(",", " ", after="€"), 1234.5),
        ("5 %", Style(after="%"), 5.0),
    ],
)
def test_examples(text: str, style: Style, value: float) -> None:
    assert parse_numbers(pa.array([text]), style).to_pylist() == [value]
    assert parse_numbers(pa.array([text], pa.large_string()), style).to_pylist() == [value]


@pytest.mark.parametrize(
    "text", ["1,23,4", "1.2.3", "(5", "5)", "--5", "- -5", "2A", "12,34.5", "1 23", "5 $ €"]
)
def test_what_is_no_number_under_any_signs(text: str) -> None:
    for pair in _PAIRS:
        assert parse_numbers(pa.array([text]), Style(*pair)).to_pylist() == [None]


def test_numbers_of_400_digits_are_read_or_missing() -> None:
    assert parse_numbers(pa.array(["9" * 300, "9" * 400, "0." + "0" * 400 + "1"])).to_pylist() == [
        float("9" * 300),
        None,
        0.0,
    ]


def test_a_long_cell_of_blanks_and_letters_is_no_number_at_once() -> None:
    # A regular expression that goes back over its groups would take minutes.
    assert numeral_of("a" + " " * 100_000) is None
    assert numeral_of("9" * 50_000 + "!") is None
    assert math.isclose(parse_numbers(pa.array(["9" * 100]), Style(","))[0].as_py(), 1e100)
