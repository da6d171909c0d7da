"""Dates and times in text, against Python's datetime."""

from __future__ import annotations

import datetime as dt
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.data.tables.dates import ISO, TIME, date_patterns, is_pattern, parse_dates
from nnkit.data.tables.summaries import shapes_of

_profile = settings(max_examples=15, deadline=None, derandomize=True, database=None)
_DAYS = [
    *("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y"),
    *("%b %d, %Y", "%b %d %Y", "%d-%b-%Y", "%d %B %Y", "%B %d, %Y", "%a, %d %b %Y", "%a %b %d %Y"),
    *("%Y-%b-%d", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%d-%b-%y"),
]
_TIMES = ["", " %H:%M", " %H:%M:%S", "T%H:%M:%S", " %I:%M %p", " %I:%M:%S %p"]
_ZONES = ["", "%z"]


def _seconds(values: pa.Array) -> list[float | None]:
    whole = values.cast(pa.int64()).to_pylist()
    return [None if value is None else value / 1e6 for value in whole]


def _expected(text: str, pattern: str) -> float | None:
    try:
        value = dt.datetime.strptime(text, pattern)
    except ValueError:
        return None
    zone = value.tzinfo or dt.UTC
    return (value.replace(tzinfo=zone) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).total_seconds()


@pytest.mark.parametrize("zone", _ZONES)
@pytest.mark.parametrize("time", _TIMES)
@_profile
@given(
    days=st.lists(st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2067, 12, 31)), min_size=1, max_size=10),
    day=st.sampled_from(_DAYS),
    minutes=st.integers(-14 * 60, 14 * 60),
)
def test_what_strftime_writes_is_read_as_strptime_reads_it(time, zone, days, day, minutes) -> None:
    if zone and not time:
        return
    pattern = day + time + zone
    offset = dt.timezone(dt.timedelta(minutes=minutes))
    texts = [value.replace(tzinfo=offset).strftime(pattern) for value in days]
    for type_ in (pa.string(), pa.large_string()):
        array = pa.array(texts, type_)
        assert _seconds(parse_dates(array, pattern)) == [_expected(text, pattern) for text in texts]
        for shape in shapes_of(array).to_pylist():
            assert pattern in date_patterns(shape)


@_profile
@given(st.lists(st.tuples(*(st.integers(0, most) for most in (9999, 14, 33))), min_size=1, max_size=20))
def test_impossible_days_are_none(days) -> None:
    for pattern in ("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"):
        texts = []
        for year, month, day in days:
            parts = {"%Y": f"{year:04}", "%m": f"{month:02}", "%d": f"{day:02}"}
            text = pattern
            for code, part in parts.items():
                text = text.replace(code, part)
            texts.append(text)
        read = parse_dates(pa.array(texts), ISO if pattern == "%Y-%m-%d" else pattern)
        assert _seconds(read) == [_expected(text, pattern) for text in texts]


@_profile
@given(st.lists(st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)), min_size=1), st.booleans())
def test_iso_dates_are_read_as_fromisoformat_reads_them(values, by_t) -> None:
    texts = [value.isoformat("T" if by_t else " ") for value in values]
    epoch = dt.datetime(1970, 1, 1)
    microseconds = [
        (dt.datetime.fromisoformat(text) - epoch) // dt.timedelta(microseconds=1) for text in texts
    ]
    assert parse_dates(pa.array(texts), ISO).cast(pa.int64()).to_pylist() == microseconds


@_profile
@given(
    st.lists(st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31)), min_size=1),
    st.integers(-23 * 60, 23 * 60),
)
def test_zones_are_taken_off(values, minutes) -> None:
    zone = dt.timezone(dt.timedelta(minutes=minutes))
    texts = [value.replace(tzinfo=zone).isoformat() for value in values]
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    microseconds = [
        (dt.datetime.fromisoformat(text) - epoch) // dt.timedelta(microseconds=1) for text in texts
    ]
    assert parse_dates(pa.array(texts), ISO + "%z").cast(pa.int64()).to_pylist() == microseconds
    assert parse_dates(pa.array(texts), ISO).null_count == len(texts)


@_profile
@given(st.lists(st.times(), min_size=1))
def test_times_of_day(values) -> None:
    texts = [value.isoformat() for value in values]
    assert parse_dates(pa.array(texts), TIME).to_pylist() == values
    short = [value.strftime("%H:%M") for value in values]
    assert parse_dates(pa.array(short), TIME).to_pylist() == [
        value.replace(second=0, microsecond=0) for value in values
    ]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        *[("2023-02-29", ISO), ("2100-02-29", ISO), ("2024-02-30", ISO), ("2024-00-10", ISO)],
        *[("0000-01-01", ISO), ("2024-01-01 24:00", ISO), ("2024-01-01T10:60", ISO), ("2024-1-1Z", ISO)],
        *[("12:60", TIME), ("24:00", TIME), ("12", TIME), ("01.13.2024", "%d.%m.%Y"), ("", ISO)],
        *[("10 Foo 2024", "%d %b %Y"), ("01/01/2024 13:00 PM", "%m/%d/%Y %I:%M %p")],
        ("01/01/2024 00:30 AM", "%m/%d/%Y %I:%M %p"),
    ],
)
def test_no_date(text: str, pattern: str) -> None:
    assert parse_dates(pa.array([text, None]), pattern).to_pylist() == [None, None]


@pytest.mark.parametrize("year", [1968, 1969, 2000, 2068, 1999])
def test_years_of_two_digits_are_those_of_posix(year: int) -> None:
    text = f"01.02.{year % 100:02}"
    expected = dt.datetime.strptime(text, "%d.%m.%y")
    assert parse_dates(pa.array([text]), "%d.%m.%y").to_pylist() == [expected]


def test_leap_years() -> None:
    years = [1896, 1900, 1996, 2000, 2004, 2023, 2024, 2100, 2400]
    read = parse_dates(pa.array([f"{year}-02-29" for year in years]), ISO)
    assert read.is_valid().to_pylist() == [
        year % 4 == 0 and (year % 100 > 0 or year % 400 == 0) for year in years
    ]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
@pytest.mark.parametrize(
    "pattern", [ISO, ISO + "%z", TIME, "%d.%m.%Y", "%b %d, %Y", "%m/%d/%y %I:%M %p", "%b %Y"]
)
def test_no_rows_and_only_nulls(pattern: str, type_: pa.DataType) -> None:
    for rows in (0, 3):
        assert parse_dates(pa.nulls(rows, type_), pattern).null_count == rows
        assert parse_dates(pa.chunked_array([pa.nulls(rows, type_)] * 2), pattern).null_count == 2 * rows
    assert len(parse_dates(pa.chunked_array([], type_), pattern)) == 0


@pytest.mark.parametrize(
    "pattern",
    [
        *[
            "%Y %Y",
            "%m/%d",
            "%a",
            "%p",
            "%%",
            "%d %H:%M",
            "%Y-%m-%d %H %I",
            "%Y %y",
            "%Q",
            "%Y %b %m",
            "%d.%Y",
        ],
        *["ISO 8601 or so", "%m:%H", "%H" + " " * 1000, "%\n%Y"],
    ],
)
def test_patterns_that_say_no_day_or_time_are_refused(pattern: str) -> None:
    assert not is_pattern(pattern)


def test_every_pattern_that_is_taken_reads_any_text() -> None:
    random = Random(0)
    texts = pa.array(
        [
            "".join(random.choices("0129:-/. TZzAPMapmJanfebMARч\0\n", k=random.randrange(20)))
            for _ in range(2000)
        ]
    )
    tried = 0
    for _ in range(3000):
        parts = random.choices(
            ["%Y", "%y", "%m", "%d", "%b", "%B", "%H", "%I", "%M", "%S", "%p", "%z", "%a"], k=4
        )
        pattern = random.choice(["-", "", "(", "[", "\\", " "]).join(parts)
        if is_pattern(pattern):
            tried += 1
            parse_dates(texts.slice(0, 50), pattern)
    assert tried > 20
    for pattern in (ISO, ISO + "%z", TIME, TIME + "%z", "%d.%m.%Y", "%b %d, %Y %I:%M:%S %p%z"):
        assert len(parse_dates(texts, pattern)) == len(texts)


def test_fractions_of_a_second() -> None:
    read = parse_dates(pa.array(["2024-01-01 00:00:00.5", "2024-01-01 00:00:00,123456789"]), ISO)
    whole = read.cast(pa.int64()).to_pylist()
    start = int(np.datetime64("2024-01-01", "us").astype(np.int64))
    assert whole == [start + 500_000, start + 123_456]
