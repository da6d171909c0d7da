"""Summaries of columns: every row counts, in any order."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.data.tables.inference import _decide, _Separators
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.summaries import MOST_SHAPES, summarise

_profile = settings(max_examples=120, deadline=None, derandomize=True, database=None)
_CELLS = [
    *["1", "2", "12345", "007", "-5", "+3", "1.5", "1.234", "12.345.678", "1e5", "9" * 30, "0.5", ".5", "5."],
    *[
        "1,5",
        "1,234",
        "1 234",
        "5%",
        "€ 3",
        "2A",
        "yes",
        "No",
        "red",
        "a longer text",
        "2024-01-31",
        "01/02/2024",
    ],
    *["31.12.2024", "10:30", "", " ", " 7 ", "NA", "unknown", "n/d", "?", None, "0x1F", "nan", "inf", "true"],
]
_columns = st.one_of(
    st.lists(st.sampled_from(_CELLS), min_size=1, max_size=40),
    st.lists(
        st.sampled_from(["1", "2", "950", "1.234", "2.345.678", "12345", None]), min_size=1, max_size=40
    ),
    st.lists(st.integers(-3, 2000).map(str), min_size=1, max_size=60),
    st.integers(0, 50).map(lambda first: [str(first + row) for row in range(30)]),
)


def _column(cells) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(cells, pa.string())])


@_profile
@given(_columns, st.randoms(use_true_random=False))
def test_what_is_decided_depends_on_no_order_of_the_rows(cells, random) -> None:
    shuffled = random.sample(cells, len(cells))
    entries = [
        _decide("a", summarise(_column(rows))[0], _Separators(","), TableOptions(), False, False)
        for rows in (cells, shuffled)
    ]
    assert entries[0] == entries[1]


def test_thousands_that_come_after_many_whole_numbers_are_counted() -> None:
    cells = ["950"] * 5000 + ["1.234"]
    assert summarise(_column(cells))[0].grouped == 1
    assert summarise(_column([*cells, "1.5"]))[0].grouped == 0


def test_a_word_that_is_a_number_is_missing() -> None:
    summary, numbers = summarise(_column(["1", "-999", "3"]), words=frozenset(["-999"]))
    assert (summary.plain, dict(summary.missing)) == (2, {"-999": 1})
    assert numbers.to_pylist() == [1, None, 3]


def test_numbers_among_nulls_with_bytes_of_their_own() -> None:
    """Arrow lets a null have a text beneath it."""
    beneath = pa.array(["1", "x.0", "007", "2"])
    masked = pa.Array.from_buffers(
        pa.string(), 4, [pa.py_buffer(bytes([0b1001])), *beneath.buffers()[1:]], null_count=2
    )
    summary, numbers = summarise(pa.chunked_array([masked]))
    assert (summary.plain, summary.whole, summary.coded, summary.blank) == (2, 2, 0, 2)
    assert numbers.to_pylist() == [1, None, None, 2]


@pytest.mark.parametrize("last", ["1,5", "maybe", "2A", "2024-02-30", "0x1F"])
def test_the_last_of_many_rows_counts(last: str) -> None:
    summary = summarise(_column(["1"] * 200_000 + [last]))[0]
    assert summary.plain == 200_000
    assert sum(summary.shapes.values()) == 1
    assert list(summary.examples.values()) == [last]


def test_more_shapes_than_are_kept_are_counted() -> None:
    cells = [f"{chr(97 + row % 26)}{chr(97 + row // 26 % 26)}{chr(97 + row // 676)}" for row in range(5000)]
    summary = summarise(_column(cells))[0]
    assert len(summary.shapes) == MOST_SHAPES
    assert sum(summary.shapes.values()) + summary.uncounted == 5000


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
@pytest.mark.parametrize(
    "cells", [[], [None], ["1"], ["x"], [""], ["\0"], ["x" * 1_000_000], ["9" * 400], ["1e999"]]
)
def test_odd_columns_are_summarised(cells, type_) -> None:
    column = pa.chunked_array([pa.array(cells, type_)])
    summary, _ = summarise(column, distinct=True)
    assert summary.rows == len(cells)
    assert summary.present == sum(bool(cell) for cell in cells)
    assert summarise(pa.chunked_array([], type_))[0].rows == 0
