"""Schemas that no training wrote, and cells that no one expected."""

from __future__ import annotations

import copy
import json
import re
import time
from random import Random

import numpy as np
import pyarrow as pa
import pytest

from hostile.mutations import alter_tree
from nnkit.data.examples import RawTable
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.tables.dates import ISO, TIME, date_patterns, parse_dates
from nnkit.data.tables.inference import infer
from nnkit.data.tables.numerals import Style, numeral_of, parse_numbers
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.reading import read_columns
from nnkit.data.tables.schema import Schema
from nnkit.data.tables.summaries import shapes_of, summarise
from nnkit.errors import ModelFileError, NnkitError

_TABLE = {
    "n": ["1", "-2.5", "x", "", None],
    "c": ["1,5", "2.000,25", "€ 3", "1e9", "5%"],
    "b": ["true", "False", "yes", "0", "?"],
    "k": ["01", "02", "2A", "NA", "red"],
    "d": ["2024-01-31", "2024-02-30", "10:30", "31.01.2024", "2024-01-31 10:00Z"],
    "t": ["a text", "another", "\0", "x" * 5000, "ä"],
}
_SCHEMA = {
    "columns": [
        {"name": "n", "kind": "number"},
        {"name": "c", "kind": "number", "style": [",", ".", "€", "%"], "missing": ["-", "-1"]},
        {"name": "b", "kind": "boolean"},
        {"name": "k", "kind": "category", "missing": ["?"]},
        {"name": "d", "kind": "date", "pattern": "%d.%m.%Y %H:%M%z"},
        {"name": "t", "kind": "text"},
    ],
    "named": True,
    "options": {
        "decimal": ",",
        "missing": ["x"],
        "types": {"n": "date:%d.%m.%Y"},
        "separator": ";",
        "header": 2,
    },
}
_TYPED = pa.table(
    {
        "n": pa.array([1, 2, None]),
        "c": pa.array([1.5, float("nan"), float("inf")]),
        "b": pa.array([True, False, None]),
        "k": pa.array(["a", None, "b"]).dictionary_encode(),
        "d": pa.array([0, 1, None], pa.timestamp("ns", "UTC")),
        "t": pa.array(["a", None, "\0"], pa.large_string()),
    }
)


@pytest.mark.parametrize("seed", range(8))
def test_an_altered_schema_is_refused_or_reads_tables(seed: int) -> None:
    random, read, refused = Random(seed), 0, 0
    tables = [pa.table({name: pa.array(cells, pa.string()) for name, cells in _TABLE.items()}), _TYPED]
    for _ in range(400):
        data = alter_tree(copy.deepcopy(_SCHEMA), random)
        try:
            schema = Schema.from_json(data)
        except ModelFileError:
            refused += 1
            continue
        again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
        assert again.metadata == schema.metadata
        read += 1
        for table in tables:
            names = [name for name in table.column_names if name in schema.by_name]
            try:
                result, misfits = read_columns(table, schema, names)
            except NnkitError:
                continue
            assert result.num_columns == len(names)
            assert all(str(found) and found.advice for found in misfits)
        assert len(schema.lines()) == len(schema.columns)
    assert read > 5
    assert refused > 20


def test_an_altered_preprocessor_is_refused_or_encodes() -> None:
    random = Random(0)
    table = pa.table(
        {"n": ["1", "2", "3,5"] * 9, "k": ["01", "02", "2A"] * 9, "d": ["31.01.2024", "01.02.2023", "-"] * 9}
    )
    good = Preprocessor.fit(table).to_json()
    for _ in range(1500):
        try:
            preprocessor = Preprocessor.from_json(alter_tree(copy.deepcopy(good), random))
            preprocessor.transform(table)
        except NnkitError:
            pass


_LETTERS = "0123456789.,'’ -+−eE()%$€kKmM_\u00a0\u202f/:TZ\0\t\n\"\\xаAäß١²½∞\U0001f600"
_WORDS = [
    *[
        "1e999",
        "-1e999",
        "9" * 400,
        "nan",
        "-inf",
        "Infinity",
        "0x1F",
        "1_0",
        "NA",
        "#N/A",
        "true",
        "Jan",
        "2024",
    ],
    *["31.12.9999", "0000-00-00", "99:99", "(5)", "5 km/h", "$-5", "1.234.567,89", "\ufeff1", "", " ", "\0"],
]


def _cell(random: Random) -> str | None:
    kind = random.random()
    if kind < 0.05:
        return None
    if kind < 0.4:
        return random.choice(_WORDS)
    return "".join(random.choices(_LETTERS, k=random.choice((1, 2, 3, 5, 8, 13, 40))))


def test_any_cells_are_numbers_dates_or_neither() -> None:
    random = Random(1)
    cells = [_cell(random) for _ in range(10_000)]
    for type_ in (pa.string(), pa.large_string()):
        texts = pa.array(cells, type_)
        for style in (Style(), Style(",", "."), Style(".", " ", "€", "km"), Style(",", "", "", "k")):
            values = parse_numbers(texts, style)
            assert len(values) == len(cells)
            assert np.isfinite(values.drop_null().to_numpy()).all()
        for pattern in (ISO, ISO + "%z", TIME, "%d.%m.%Y", "%b %d, %Y %I:%M %p%z"):
            assert len(parse_dates(texts, pattern)) == len(cells)
        for shape in shapes_of(texts).to_pylist():
            if shape is not None:
                numeral_of(shape), date_patterns(shape)


@pytest.mark.parametrize("seed", range(3))
def test_any_table_has_a_schema_that_reads_it(seed: int) -> None:
    random = Random(seed)
    for _ in range(150):
        rows = random.choice((0, 1, 2, 7, 60, 60))
        # Numbers that are too large are numbers, and do not fit.
        cells = [_cell(random) for _ in range(200)]
        cells = [cell for cell in cells if cell is None or not re.search(r"[eE]\+?\d\d\d|\d{300}", cell)]
        pool = cells[: random.choice((1, 2, 4, 30))]
        columns = {}
        for name in ("a", "it's", "", 'the "id"', "\0\n")[: random.randrange(6)]:
            chosen = [random.choice(pool if random.random() < 0.8 else cells) for _ in range(rows)]
            columns[name] = pa.array(chosen, random.choice((pa.string(), pa.large_string())))
        options = TableOptions(
            decimal=random.choice((None, None, ".", ",")),
            thousands=random.choice((None, None, "", " ", "'")),
            missing=random.choice((None, (), ("1",), ("NA", "x"))),
        )
        found = infer(RawTable(pa.table(columns)), options, strict=False)
        names = [column.name for column in found.schema.columns]
        table, misfits = read_columns(pa.table(columns), found.schema, names, found.read)
        again, _ = read_columns(pa.table(columns), found.schema, names)
        # What is read in deciding is what is read later.
        for name in names:
            assert table[name].equals(again[name])
        assert [str(found) for found in misfits if found.many] == []
        lines = found.schema.lines()
        assert len(lines) == len(names)


@pytest.mark.parametrize(
    "columns", [{}, {"a": []}, {"a": [None]}, {"a": [None] * 20}, {"a": ["1"]}, {"a": [""]}]
)
def test_tables_of_nothing(columns: dict[str, list[str | None]]) -> None:
    table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
    schema = infer(RawTable(table), TableOptions()).schema
    read, misfits = read_columns(table, schema, columns)
    assert (read.num_rows, read.num_columns, misfits) == (table.num_rows, table.num_columns, [])


@pytest.mark.parametrize(
    "cell", ["a" + " " * 200_000, "9" * 200_000, "9 " * 100_000, "€" * 100_000, "(" * 100_000, "a1" * 50_000]
)
def test_a_very_long_cell_takes_no_long_time(cell: str) -> None:
    start = time.perf_counter()
    column = pa.chunked_array([pa.array([cell, "1", cell[:-1] + "!"])])
    summarise(column)
    parse_numbers(column, Style(",", ".", "€", "km"))
    assert time.perf_counter() - start < 5
