"""Every kind of column, written in every way, is encoded as the same rows of the training file were.

Order: the columns, the ways of writing them later, the tests.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nnkit import Dense, Embedding, Model, Network, load
from nnkit.cli import app
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset, read_table
from nnkit.data.tables.options import TableOptions
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.data.text.options import TextOptions
from nnkit.errors import DataError
from nnkit.feed.features import Features
from nnkit.nn.losses import loss_from
from nnkit.runs.config import Config
from nnkit.runs.run import Run

_ROWS = 60
_PLAIN = TableOptions()


@dataclass(frozen=True)
class _Case:
    """A column as a file holds it, and its values as a table with types holds them."""

    kind: str
    cells: Sequence[str]
    values: Sequence[Any]
    options: TableOptions = _PLAIN


def _cycled(*cells: str) -> list[str]:
    return [cells[row % len(cells)] for row in range(_ROWS)]


def _numbers(
    write: Callable[[Decimal], str], step: str = "7.25", missing: str = "", options: TableOptions = _PLAIN
) -> _Case:
    """A column of numbers, every fifteenth missing if there is a word for it."""
    values = [Decimal(step) * (row * row % 47 - 11) for row in range(_ROWS)]
    gone = [bool(missing) and row % 15 == 4 for row in range(_ROWS)]
    return _Case(
        "number",
        [missing if out else write(value) for value, out in zip(values, gone, strict=True)],
        [None if out else float(value) for value, out in zip(values, gone, strict=True)],
        options,
    )


def _thousands(value: Decimal, group: str, point: str) -> str:
    text = f"{value * 1000:,.2f}"
    return text.replace(",", "\0").replace(".", point).replace("\0", group)


def _grouped(group: str, point: str) -> _Case:
    case = _numbers(lambda value: _thousands(value, group, point))
    return _Case(case.kind, case.cells, [1000 * value for value in case.values])


def _dates(pattern: str, write: Callable[[dt.datetime], str] | None = None, zone: bool = False) -> _Case:
    start = dt.datetime(2019, 12, 30, 1, 15, tzinfo=dt.UTC if zone else None)
    timed = "%H" in pattern or "%I" in pattern
    values = [start + dt.timedelta(days=37 * row, minutes=61 * row) for row in range(_ROWS)]
    if not timed:
        values = [value.replace(hour=0, minute=0) for value in values]
    cells = [write(value) if write else value.strftime(pattern) for value in values]
    return _Case("date", cells, values)


def _categories(
    *cells: str, values: Sequence[Any] | None = None, kind: str = "category", **options: Any
) -> _Case:
    return _Case(kind, _cycled(*cells), _cycled(*(values or cells)), TableOptions(**options))


_SENTENCES = [
    f"The {word} house number {row} stands by the {row % 7} rivers"
    for row, word in enumerate(["old", "new", "red", "tall"] * (_ROWS // 4))
]

CASES = {
    "whole": _numbers(str, "3"),
    "point": _numbers(str),
    "exponent": _numbers(lambda value: f"{value:.6e}"),
    "plus": _numbers(lambda value: f"{value:+}"),
    "minus sign": _numbers(lambda value: str(value).replace("-", "\u2212")),
    "parentheses": _numbers(lambda value: f"({-value})" if value < 0 else str(value)),
    "decimal comma": _numbers(lambda value: str(value).replace(".", ",")),
    "1,234.50": _grouped(",", "."),
    "1.234,50": _grouped(".", ","),
    "1 234,50": _grouped(" ", ","),
    "1'234.50": _grouped("'", "."),
    "1_234.50": _grouped("_", "."),
    "no-break space": _grouped("\u00a0", ","),
    "$": _numbers(lambda value: f"${value}" if value >= 0 else f"-${-value}"),
    "euro after": _numbers(lambda value: f"{value} €".replace(".", ",")),
    "unit": _numbers(lambda value: f"{value} kg"),
    "percent": _numbers(lambda value: f"{value}%"),
    **{
        f"missing {word}": _numbers(str, missing=word)
        for word in ("NA", "unknown", "-", "?", "#VALUE!", "nan")
    },
    "missing word below a tenth": _numbers(str, missing="hurried off"),
    "missing option": _numbers(str, missing="never came", options=TableOptions(missing=("never came",))),
    "missing number": _numbers(str, "3", missing="-999", options=TableOptions(missing=("-999",))),
    "few numbers": _Case("number", _cycled("1", "2", "3"), _cycled(1, 2, 3)),  # type: ignore[arg-type]
    "True": _categories("True", "False", "True", values=[True, False, True], kind="boolean"),
    "true": _categories("true", "false", "", values=[True, False, None], kind="boolean"),
    "TRUE": _categories("TRUE", "FALSE", "NA", values=[True, False, None], kind="boolean"),
    "yes as boolean": _categories("yes", "no", values=[True, False], kind="boolean", types={"a": "boolean"}),
    "T as boolean": _categories("T", "F", values=[True, False], kind="boolean", types={"a": "boolean"}),
    "0 and 1": _categories("0", "1", values=[0, 1], kind="number"),
    "yes": _categories("yes", "no"),
    "True, False, unknown": _categories("True", "False", "unknown", values=[True, False, "unknown"]),
    "words": _categories("red", "green", "blue", "never"),
    "words with blanks": _categories(" red", "green ", "red", "", values=["red", "green", "red", None]),
    "01, 02, 2A": _categories("01", "02", "2A"),
    "01, 02": _categories("01", "02", "10", values=["01", "02", "10"]),
    "1.0, 2.0, A": _categories("1.0", "2.0", "A", values=[1.0, 2.0, "A"]),
    "0 to 9 and X": _categories(*"0123456789X"),
    "NA as a name": _categories("EU", "AS", "NA"),
    "numbers as category": _categories("1", "2", "10", values=[1, 2, 10], types={"a": "category"}),
    "text": _Case("text", _SENTENCES, _SENTENCES),
    "ISO": _dates("%Y-%m-%d"),
    "ISO time": _dates("%Y-%m-%dT%H:%M:%S"),
    "ISO minutes": _dates("%Y-%m-%d %H:%M"),
    "ISO zone": _dates("%H", lambda value: value.isoformat(), zone=True),
    "ISO Z": _dates("%H", lambda value: value.strftime("%Y-%m-%dT%H:%M:%SZ"), zone=True),
    **{
        pattern: _dates(pattern)
        for pattern in (
            *(
                "%d.%m.%Y",
                "%m/%d/%Y",
                "%d/%m/%Y",
                "%Y/%m/%d",
                "%d-%b-%Y",
                "%b %d, %Y",
                "%d %B %Y",
                "%d.%m.%y",
            ),
            *("%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%a, %d %b %Y %H:%M:%S", "%Y-%b-%d"),
        )
    },
}


# --- the ways of writing rows later ---


def _csv(separator: str, quoting: Any = csv.QUOTE_MINIMAL) -> Callable[[Path, Sequence[str]], str]:
    def write(folder: Path, cells: Sequence[str]) -> str:
        path = folder / "later.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter=separator, quoting=quoting)
            writer.writerows([["n", "a"], *([row % 5, cell] for row, cell in enumerate(cells))])
        return str(path)

    return write


def _json(folder: Path, cells: Sequence[Any]) -> str:
    path = folder / "later.jsonl"
    rows = [{"n": row % 5, "a": cell} for row, cell in enumerate(cells)]
    path.write_text("".join(json.dumps(row, default=lambda value: value.isoformat()) + "\n" for row in rows))
    return str(path)


def _ns(count: int) -> list[int]:
    return [row % 5 for row in range(count)]


def _arrow(type_: pa.DataType | None = None) -> Callable[[Path, Sequence[Any]], Any]:
    return lambda folder, cells: pa.table({"n": _ns(len(cells)), "a": pa.array(cells, type_)})


def _parquet(type_: pa.DataType | None = None) -> Callable[[Path, Sequence[Any]], str]:
    def write(folder: Path, cells: Sequence[Any]) -> str:
        path = folder / "later.parquet"
        pq.write_table(_arrow(type_)(folder, cells), path)
        return str(path)

    return write


def _pandas(dtype: Any) -> Callable[[Path, Sequence[Any]], Any]:
    return lambda folder, cells: pd.DataFrame(
        {"n": _ns(len(cells)), "a": pd.Series(list(cells), dtype=dtype)}
    )


def _polars(folder: Path, cells: Sequence[Any]) -> Any:
    return pl.DataFrame({"n": _ns(len(cells)), "a": pl.Series(list(cells))})


_TEXT_WAYS: dict[str, Callable[[Path, Sequence[Any]], Any]] = {
    "csv": _csv(","),
    "semicolons": _csv(";"),
    "tabs, quoted": _csv("\t", csv.QUOTE_ALL),
    "json": _json,
    "parquet": _parquet(pa.string()),
    "parquet dictionary": _parquet(pa.dictionary(pa.int32(), pa.string())),
    "large strings": _arrow(pa.large_string()),
    "pandas str": _pandas("str"),
    "pandas object": _pandas(object),
    "pandas category": _pandas("category"),
    "polars": _polars,
}
_FLOAT_WAYS = {
    "json": _json,
    "parquet float": _parquet(pa.float64()),
    "pandas float": _pandas("float64"),
    "pandas Float64": _pandas("Float64"),
    "pandas object": _pandas(object),
    "polars": _polars,
}
_DATE_WAYS = {
    "json": _json,
    **{f"arrow {unit}": _parquet(pa.timestamp(unit)) for unit in ("ms", "us", "ns")},
    "pandas datetime": _pandas("datetime64[ns]"),
    "pandas object": _pandas(object),
    "polars": _polars,
}
_ZONED_DATE_WAYS = {
    "arrow": _parquet(pa.timestamp("us", "UTC")),
    "arrow Paris": _parquet(pa.timestamp("us", "Europe/Paris")),
    "pandas": _pandas("datetime64[ns, UTC]"),
    "polars": _polars,
}
_DAY_WAYS = {"date32": _parquet(pa.date32()), "date64": _parquet(pa.date64())}
_BOOLEAN_WAYS = {
    "json": _json,
    "parquet": _parquet(pa.bool_()),
    "pandas boolean": _pandas("boolean"),
    "pandas object": _pandas(object),
    "polars": _polars,
}
_INTEGER_WAYS = {
    "parquet int8": _parquet(pa.int8()),
    "pandas int": _pandas("int64"),
    "pandas Int64": _pandas("Int64"),
    "parquet float": _parquet(pa.float32()),
    "decimal": lambda folder, cells: _arrow(pa.decimal128(10, 2))(folder, [Decimal(cell) for cell in cells]),
    "polars": _polars,
    "pandas category": _pandas("category"),
}


@cache
def _trained(name: str, folder: Path) -> tuple[Preprocessor, Features, _Case]:
    case = CASES[name]
    path = folder / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["n", "a", "y"])
        writer.writerows([row % 5, cell, "uv"[row % 2]] for row, cell in enumerate(case.cells))
    dataset = load_dataset(path, target="y", table=case.options)
    text = TextOptions() if case.kind == "text" else None
    preprocessor = Preprocessor.fit(dataset.train.features, text=text, dtype=np.float64)
    assert preprocessor.schema is not None
    assert preprocessor.schema.by_name["a"].kind == case.kind
    assert set(preprocessor.input_names or ()) == {"n", "a"}
    # As a saved model has it.
    kept = Preprocessor.from_json(json.loads(json.dumps(preprocessor.to_json())))
    return kept, preprocessor.transform(dataset.train.features), case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


def _same(found: Features, expected: Features, rows: np.ndarray) -> None:
    wanted = expected.take(rows)
    np.testing.assert_array_equal(found.dense[:, 1:], wanted.dense[:, 1:])
    if wanted.codes is not None:
        np.testing.assert_array_equal(found.codes, wanted.codes)
    for ours, theirs in zip(found.bags, wanted.bags, strict=True):
        np.testing.assert_array_equal(ours.ids, theirs.ids)


def _later(
    name: str, folder: Path, tmp_path: Path, write: Callable[..., Any], cells: Sequence[Any], rows: Any
) -> None:
    preprocessor, expected, _ = _trained(name, folder)
    later = write(tmp_path, [cells[row] for row in rows])
    if isinstance(later, str):
        read = load_dataset(later, target="y", require_target=False, schema=preprocessor.schema, strict=False)
        later = read.train.features
    _same(preprocessor.transform(later, strict=True), expected, np.asarray(rows))


def _subsets(case: _Case) -> dict[str, list[int]]:
    """All rows; those of the values that stand first; the last row."""
    everything = list(range(_ROWS))
    first = [row for row in everything if case.cells[row] in case.cells[:2]]
    return {"all": everything, "some": first, "last": [_ROWS - 1]}


@pytest.mark.parametrize("way", _TEXT_WAYS)
@pytest.mark.parametrize("name", CASES)
def test_texts_are_read_as_in_training(name: str, way: str, folder: Path, tmp_path: Path) -> None:
    case = CASES[name]
    for rows in _subsets(case).values():
        _later(name, folder, tmp_path, _TEXT_WAYS[way], case.cells, rows)


def _native() -> list[Any]:
    found = []
    for name, case in CASES.items():
        ways = dict(_FLOAT_WAYS) if case.kind == "number" else {}
        if case.kind == "date":
            ways = _ZONED_DATE_WAYS if case.values[0].tzinfo else dict(_DATE_WAYS)
            if all(value.hour == value.minute == 0 for value in case.values):
                ways |= _DAY_WAYS
        elif case.kind == "boolean":
            ways = _BOOLEAN_WAYS
        elif case.kind in ("category", "text"):
            ways = {"json": _json}
        found += [pytest.param(name, write, id=f"{name}-{way}") for way, write in ways.items()]
    return found


@pytest.mark.parametrize(("name", "write"), _native())
def test_values_with_types_are_read_as_the_texts_were(
    name: str, write: Any, folder: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    for rows in _subsets(case).values():
        _later(name, folder, tmp_path, write, case.values, rows)


@pytest.mark.parametrize("way", _INTEGER_WAYS)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("01, 02, 2A", {"01": 1, "02": 2}),
        ("01, 02", {"01": 1, "02": 2, "10": 10}),
        ("1.0, 2.0, A", {"1.0": 1, "2.0": 2}),
        ("0 to 9 and X", {str(digit): digit for digit in range(10)}),
        ("numbers as category", {"1": 1, "2": 2, "10": 10}),
        ("few numbers", {"1": 1, "2": 2, "3": 3}),
        ("0 and 1", {"0": 0, "1": 1}),
        ("True", {"False": 0, "True": 1}),
        ("yes as boolean", {"no": 0, "yes": 1}),
        ("whole", None),
    ],
)
def test_numbers_mean_the_codes_of_the_training(
    name: str, values: dict[str, int] | None, way: str, folder: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    known = {cell: int(cell) for cell in case.cells if -100 < int(cell) < 100} if values is None else values
    rows = [row for row in range(_ROWS) if case.cells[row] in known]
    cells = [known.get(cell) for cell in case.cells]
    _later(name, folder, tmp_path, _INTEGER_WAYS[way], cells, rows)


@pytest.mark.parametrize("way", _BOOLEAN_WAYS)
@pytest.mark.parametrize(
    ("name", "yes", "no"), [("True, False, unknown", "True", "False"), ("0 and 1", "1", "0")]
)
def test_booleans_mean_the_words_of_the_training(
    name: str, yes: str, no: str, way: str, folder: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    rows = [row for row in range(_ROWS) if case.cells[row] in (yes, no)]
    _later(name, folder, tmp_path, _BOOLEAN_WAYS[way], [cell == yes for cell in case.cells], rows)


_TYPED = {
    "float": (pa.float64(), [0.5 * row if row % 9 else None for row in range(_ROWS)]),
    "int": (pa.int32(), [row * row % 31 for row in range(_ROWS)]),
    "decimal": (pa.decimal128(9, 3), [Decimal(row * row % 31) / 8 for row in range(_ROWS)]),
    "bool": (pa.bool_(), [row % 3 == 0 if row % 5 else None for row in range(_ROWS)]),
    "string": (pa.string(), _cycled("a", "b", "c")),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), _cycled("a", "b", "c")),
    "dictionary of ints": (pa.dictionary(pa.int8(), pa.int64()), _cycled(4, 5, 6)),  # type: ignore[arg-type]
    "date32": (pa.date32(), [dt.date(2020, 1, 1) + dt.timedelta(37 * row) for row in range(_ROWS)]),
    "timestamp": (
        pa.timestamp("us"),
        [dt.datetime(2020, 1, 1) + dt.timedelta(0, 98765 * row) for row in range(_ROWS)],
    ),
    "midnights": (
        pa.timestamp("ns"),
        [dt.datetime(2020, 1, 1) + dt.timedelta(row * row) for row in range(_ROWS)],
    ),
    "zoned": (
        pa.timestamp("us", "Europe/Paris"),
        [dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(0, 98765 * row) for row in range(_ROWS)],
    ),
    "time": (pa.time64("us"), [dt.time(row % 24, row % 60, row % 59) for row in range(_ROWS)]),
}


def _pandas_csv(table: pa.Table, path: Path) -> None:
    table.to_pandas().to_csv(path, index=False)


def _polars_csv(table: pa.Table, path: Path) -> None:
    pl.from_arrow(table).write_csv(path)  # type: ignore[union-attr]


def _arrow_csv(table: pa.Table, path: Path) -> None:
    import pyarrow.csv

    pyarrow.csv.write_csv(table, path)


@pytest.mark.parametrize("write", [_pandas_csv, _polars_csv, _arrow_csv])
@pytest.mark.parametrize("name", _TYPED)
def test_a_csv_is_read_as_the_table_with_types_that_was_trained_on(
    name: str, write: Any, tmp_path: Path
) -> None:
    type_, values = _TYPED[name]
    if name == "dictionary of ints" and write is not _pandas_csv:
        pytest.skip("neither writes such a column")
    table = pa.table({"n": _ns(_ROWS), "a": pa.array(values, type_), "y": _cycled("u", "v")})
    pq.write_table(table, tmp_path / "train.parquet")
    dataset = load_dataset(tmp_path / "train.parquet", target="y")
    preprocessor = Preprocessor.fit(dataset.train.features, dtype=np.float64)
    expected = preprocessor.transform(dataset.train.features)
    for rows in (slice(None), slice(7, 9), slice(_ROWS - 1, None)):
        count = len(range(_ROWS)[rows])
        write(table.slice(range(_ROWS)[rows][0], count), tmp_path / "later.csv")
        later = load_dataset(tmp_path / "later.csv", target="y", schema=preprocessor.schema, strict=False)
        _same(preprocessor.transform(later.train.features, strict=True), expected, np.arange(_ROWS)[rows])


def test_missing_words_hold_for_tables_with_types(tmp_path: Path) -> None:
    options = TableOptions(missing=("-1",))
    values = [row % 7 - 1 for row in range(_ROWS)]
    table = pa.table({"a": values, "b": [float(value) for value in values], "y": _cycled("u", "v")})
    pq.write_table(table, tmp_path / "train.parquet")
    dataset = load_dataset(tmp_path / "train.parquet", target="y", table=options)
    expected = pa.array([None if value == -1 else value for value in values])
    for name in "ab":
        assert dataset.train.features[name].cast(pa.int64()).combine_chunks().equals(expected)


def test_a_timestamp_as_category_depends_on_its_own_cell_alone() -> None:
    from nnkit.data.tables.reading import read_columns
    from nnkit.data.tables.schema import Column, Schema

    days = [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 12)]
    for zone in (None, "UTC"):
        for unit in ("s", "ns"):
            table = pa.table({"a": pa.array(days, pa.timestamp(unit)).cast(pa.timestamp(unit, zone))})
            read, _ = read_columns(table, Schema((Column("a", "category"),)), ["a"])
            alone, _ = read_columns(table.slice(0, 1), Schema((Column("a", "category"),)), ["a"])
            assert read["a"][0].as_py() == alone["a"][0].as_py() == "2024-01-01"
            assert read["a"][1].as_py().startswith("2024-01-01 12:00:00")


# --- a model's predictions, a validation and a test file, the command line ---

_SAMPLE = [
    *(
        "decimal comma",
        "1.234,50",
        "percent",
        "missing unknown",
        "True",
        "True, False, unknown",
        "01, 02, 2A",
    ),
    *("1.0, 2.0, A", "NA as a name", "%d.%m.%Y", "ISO zone", "words"),
]


@cache
def _run(name: str, folder: Path) -> tuple[Run, Path, np.ndarray]:
    """Train a model; also return its probabilities for the training rows."""
    case = CASES[name]
    path, out = folder / f"{len(name)}{_SAMPLE.index(name)}.csv", folder / f"run {_SAMPLE.index(name)}"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["n", "a", "y"])
        writer.writerows([row % 5, cell, "uv"[row % 2]] for row, cell in enumerate(case.cells))
    settings = [
        "training.epochs=1",
        "model.hidden=[3]",
        "data.validation=0",
        "data.target=y",
        f"run.out={out}",
    ]
    run = Run(Config().with_overrides([f"data.train={path}", *settings]))
    run.train()
    rows = load_dataset(path, target="y", schema=run.model.preprocessor.schema).train
    return run, path, run.model.predict_proba(rows.features)


def _with_targets(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], separator: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def _with_numbers(frame: Any, numbers: list[int]) -> Any:
    """Return a frame with other numbers, and its columns in another order."""
    if isinstance(frame, pa.Table):
        return pa.table({"more": ["x"] * len(numbers), "a": frame["a"], "n": numbers})
    if isinstance(frame, pd.DataFrame):
        return frame.assign(n=numbers)[["a", "n"]]
    return frame.with_columns(n=pl.Series(numbers)).select("a", "n")


@pytest.mark.parametrize("way", ["pandas object", "pandas category", "polars", "large strings"])
@pytest.mark.parametrize("name", _SAMPLE)
def test_a_saved_model_predicts_frames_as_it_was_trained(
    name: str, way: str, folder: Path, tmp_path: Path
) -> None:
    run, _, expected = _run(name, folder)
    assert run.folder is not None
    model = load(run.folder / "model.safetensors")
    case = CASES[name]
    for rows in _subsets(case).values():
        frame = _TEXT_WAYS[way](tmp_path, [case.cells[row] for row in rows])
        table = _with_numbers(frame, [row % 5 for row in rows])
        np.testing.assert_allclose(model.predict_proba(table), expected[rows], rtol=1e-6)


@pytest.mark.parametrize("key", ["validation", "test"])
@pytest.mark.parametrize("name", _SAMPLE)
def test_a_validation_and_a_test_file_are_read_as_the_training_file(
    name: str, key: str, folder: Path, tmp_path: Path
) -> None:
    _, path, _ = _run(name, folder)
    case = CASES[name]
    rows = _subsets(case)["some"]
    held = _with_targets(
        tmp_path / "held.csv",
        ["y", "a", "n"],
        [["uv"[row % 2], case.cells[row], row % 5] for row in rows],
        ";",
    )
    settings = [f"data.train={path}", f"data.{key}={held}", "data.target=y", "model.hidden=[3]"]
    if key == "test":
        settings.append("data.validation=0")
    run = Run(Config().with_overrides(settings))
    preprocessor = run.model.preprocessor
    expected = preprocessor.transform(run.data.dataset.train.features)
    measured = run.data.measured_rows()
    assert measured.kind == key
    _same(preprocessor.transform(measured.examples.features, strict=True), expected, np.asarray(rows))


@pytest.mark.parametrize("name", _SAMPLE)
def test_the_command_line_predicts_and_evaluates_alike(name: str, folder: Path, tmp_path: Path) -> None:
    run, _path, expected = _run(name, folder)
    case = CASES[name]
    rows = _subsets(case)["some"]
    cells = [[row % 5, case.cells[row], "uv"[row % 2]] for row in rows]
    later = _with_targets(tmp_path / "later.csv", ["n", "a", "y"], cells, "\t")
    result = CliRunner().invoke(
        app, ["predict", str(run.folder), str(later), "--out", str(tmp_path / "p.csv")]
    )
    assert result.exit_code == 0, result.output
    classes = np.array(["u", "v"])[np.argmax(expected[rows], axis=1)]
    written = pd.read_csv(tmp_path / "p.csv")
    assert written[written.columns[0]].tolist() == classes.tolist()
    result = CliRunner().invoke(app, ["evaluate", str(run.folder), str(later), "--json"])
    assert result.exit_code == 0, result.output
    truth = np.array(["uv"[row % 2] for row in rows])
    found = json.loads(result.stdout)
    metrics = found.get("metrics", found)
    assert metrics["accuracy"] == pytest.approx(np.mean(classes == truth))


# --- tables of no rows ---


@pytest.mark.parametrize("way", ["large", "pandas object"])
@pytest.mark.parametrize("name", CASES)
def test_a_frame_without_rows_is_encoded_as_none(name: str, way: str, folder: Path) -> None:
    preprocessor, expected, _ = _trained(name, folder)
    frame: Any = pa.table({"n": pa.array([], pa.int64()), "a": pa.array([], pa.large_string())})
    if way == "pandas object":
        frame = pd.DataFrame({"n": [], "a": pd.Series([], dtype=object)})
    encoded = preprocessor.transform(frame, strict=True)
    assert len(encoded) == 0
    assert encoded.dense.shape[1] == expected.dense.shape[1]


@pytest.mark.parametrize("target", ["classes", "numbers"])
@pytest.mark.parametrize("kind", ["one-hot", "embedded", "text"])
def test_models_predict_nothing_for_a_frame_without_rows(target: str, kind: str) -> None:
    features = pa.table({"n": _ns(_ROWS), "a": _SENTENCES if kind == "text" else _cycled("x", "y", "z")})
    y = np.array(_cycled("u", "v") if target == "classes" else [0.5 * row for row in range(_ROWS)])
    text = TextOptions() if kind == "text" else None
    preprocessor = Preprocessor.fit(
        features, text=text, categories="embed" if kind == "embedded" else "onehot"
    )
    encoder = TargetEncoder.fit(y)
    tables = [Embedding(size, 3) for size in preprocessor.embedding_sizes]
    network = Network([*tables, Dense(encoder.outputs)], inputs=preprocessor.width, seed=0)
    model = Model(
        network, preprocessor, encoder, loss_from("cross_entropy" if target == "classes" else "mse")
    )
    for frame in (
        features.slice(0, 0),
        features.slice(0, 0).to_pandas(),
        pl.from_arrow(features.slice(0, 0)),
    ):
        assert model.predict(frame).shape == (0,)
        if target == "classes":
            assert model.predict_proba(frame).shape == (0, 2)


# --- later tables of another layout ---


def _write_rows(path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = ()) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


def _measures(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features, shape (rows, 3), and a target of their sum."""
    features = np.random.default_rng(0).normal(size=(_ROWS, 3)).round(3)
    return features, features.sum(axis=1).round(3)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_without_names_a_table_may_lack_the_target_wherever_it_stood(place: int, tmp_path: Path) -> None:
    features, target = _measures(tmp_path)
    whole = _write_rows(tmp_path / "t.csv", np.insert(features, place, target, axis=1).tolist())
    dataset = load_dataset(whole, target=place)
    assert dataset.target_names == (str(place),)
    later = load_dataset(
        _write_rows(tmp_path / "new.csv", features.tolist()),
        target=[str(place)],
        require_target=False,
        schema=dataset.schema,
    )
    assert later.train.target is None
    assert later.train.features.equals(dataset.train.features)


def test_names_above_a_later_table_are_no_row_of_a_model_without_names(tmp_path: Path) -> None:
    features, target = _measures(tmp_path)
    rows = np.column_stack([features, target]).tolist()
    dataset = load_dataset(_write_rows(tmp_path / "t.csv", rows), target=3)
    named = _write_rows(tmp_path / "named.csv", rows, ["height", "width", "depth", "sum"])
    later = load_dataset(named, target=["3"], schema=dataset.schema)
    assert later.train.features.equals(dataset.train.features)
    np.testing.assert_array_equal(later.train.target, target)
    assert "The first row holds names" in " ".join(later.notes)


def test_a_single_row_of_texts_is_no_header_for_a_model_without_names(tmp_path: Path) -> None:
    rows = [(color, size, size + color) for color in ("red", "green") for size in ("big", "small")] * 15
    dataset = load_dataset(_write_rows(tmp_path / "t.csv", rows), target=2)
    single = _write_rows(tmp_path / "single.csv", [("red", "small")])
    later = load_dataset(single, target=["2"], require_target=False, schema=dataset.schema)
    assert later.train.features.to_pydict() == {"0": ["red"], "1": ["small"]}


def test_numbers_of_columns_mean_those_of_the_training_table(tmp_path: Path) -> None:
    """The last column of the validation and the test file is another one than the training's target."""
    features, target = _measures(tmp_path)
    codes = np.random.default_rng(1).permutation(_ROWS) + 0.5
    training = np.column_stack([codes, features, target]).tolist()
    later = np.column_stack([features, target, codes]).tolist()
    source = _write_rows(tmp_path / "t.csv", training, ["code", "a", "b", "c", "sum"])
    other = str(_write_rows(tmp_path / "later.csv", later, ["a", "b", "c", "sum", "code"]))
    data = {"train": str(source), "target": -1, "drop": [0], "validation": other, "test": other}
    run = Run(Config.from_tables({"data": data}))
    np.testing.assert_array_equal(run.dataset.test.target, target)
    encoded = run.data.encoded(run.model.preprocessor, run.model.target, np.float64)
    np.testing.assert_array_equal(encoded.held_targets, target)


def test_a_later_table_may_lack_a_column_that_was_dropped(tmp_path: Path) -> None:
    features, target = _measures(tmp_path)
    rows = np.column_stack([features, target])
    source = str(_write_rows(tmp_path / "t.csv", rows.tolist(), ["a", "b", "c", "sum"]))
    other = str(_write_rows(tmp_path / "later.csv", rows[:, 1:].tolist(), ["b", "c", "sum"]))
    data = {"train": source, "target": "sum", "drop": ["a"], "validation": other, "test": other}
    run = Run(Config.from_tables({"data": data}))
    assert run.dataset.test.features.column_names == ["b", "c"]


def test_durations_are_learnt_from() -> None:
    days = np.arange(_ROWS) ** 2
    table = pa.table({"lasted": pa.array(days * 86400, pa.duration("s")), "days": days})
    encoded = np.asarray(Preprocessor.fit(table).transform(table).dense)
    np.testing.assert_allclose(encoded[:, 0], encoded[:, 1], rtol=1e-6)


def test_small_unsigned_numbers_that_wrap_around_identify_no_rows() -> None:
    table = pa.table({"level": (np.arange(300) % 256).astype(np.uint8), "x": np.arange(300) ** 0.5})
    assert Preprocessor.fit(table).input_names == ("level", "x")


def test_a_column_may_be_added_to_a_table_that_was_read(tmp_path: Path) -> None:
    features, target = _measures(tmp_path)
    codes = [f"0{row % 3}" for row in range(_ROWS)]
    rows = [(code, *cells) for code, cells in zip(codes, features.tolist(), strict=True)]
    table = read_table(_write_rows(tmp_path / "t.csv", rows, ["code", "a", "b", "c"]))
    table = table.append_column("sum", pa.array(target.astype(str)))
    preprocessor = Preprocessor.fit(table)
    assert preprocessor.schema is not None
    kinds = {column.name: column.kind for column in preprocessor.schema.columns}
    assert kinds == {"code": "category", "a": "number", "b": "number", "c": "number", "sum": "number"}
    again = preprocessor.transform(table)
    np.testing.assert_allclose(np.asarray(again.dense).std(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(again.codes)[:3, 0], [0, 1, 2])


def test_an_older_model_without_names_reads_texts_without_names(tmp_path: Path) -> None:
    features, target = _measures(tmp_path)
    rows = np.column_stack([features, target]).tolist()
    dataset = load_dataset(_write_rows(tmp_path / "t.csv", rows), target=3)
    data = Preprocessor.fit(dataset.train.features).to_json()
    assert isinstance(data, dict)
    del data["schema"]
    older = Preprocessor.from_json(data)
    for cells in (rows, features.tolist()):
        path = _write_rows(tmp_path / "later.csv", cells)
        later = load_dataset(path, target=["3"], require_target=False, schema=older.schema)
        assert later.train.features.select(["0", "1", "2"]).to_pydict() == dataset.train.features.to_pydict()


def test_long_whole_numbers_are_not_taken_for_categories_near_them(caplog: pytest.LogCaptureFixture) -> None:
    known = [2**53, 2**53 + 2]
    table = pa.table({"account": pa.array(known * 30).cast(pa.string()).dictionary_encode()})
    preprocessor = Preprocessor.fit(table)
    codes = preprocessor.transform(pa.table({"account": [2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3]})).codes
    np.testing.assert_array_equal(codes[:, 0], [0, -1, 1, -1])
    assert "2 of 4 values" in caplog.text
    same = pa.table({"account": [f"{2**53}.0", f"+{2**53 + 2}"]})
    np.testing.assert_array_equal(preprocessor.transform(same).codes[:, 0], [0, 1])


def test_large_whole_numbers_are_no_booleans() -> None:
    preprocessor = Preprocessor.fit(pa.table({"flag": [True, False] * 30}))
    codes = preprocessor.transform(pa.table({"flag": [2**60 + 1, 1, 0]})).codes
    np.testing.assert_array_equal(codes[:, 0], [-1, 1, 0])


def test_times_of_an_unknown_zone_are_an_error_where_texts_are_wanted() -> None:
    preprocessor = Preprocessor.fit(pa.table({"kind": ["x", "y"] * 30}))
    times = pa.table({"kind": pa.array([0, 1], pa.timestamp("us", "Nowhere/Zone"))})
    with pytest.raises(DataError, match=r"column 'kind' cannot be read as text: .*Nowhere/Zone"):
        preprocessor.transform(times)


def test_evaluate_takes_the_target_of_the_model_in_a_folder_of_tables(tmp_path: Path) -> None:
    """A column named label, which a training would take without a word, is not it."""
    features, target = _measures(tmp_path)
    rows = np.column_stack([features, features[:, 0] ** 2, target])
    header = ["a", "b", "c", "label", "sum"]
    source = _write_rows(tmp_path / "t.csv", rows.tolist(), header)
    (tmp_path / "parts").mkdir()
    for number, part in enumerate(np.array_split(rows, 2)):
        _write_rows(tmp_path / "parts" / f"{number}.csv", part.tolist(), header)
    command = ["train", str(source), "--target", "sum", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, [*command, "--set", "data.drop=['label']"]).exit_code == 0
    measured = []
    for data in (source, tmp_path / "parts"):
        result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), str(data), "--json", "--quiet"])
        assert result.exit_code == 0, result.output
        measured.append(json.loads(result.stdout)["metrics"])
    assert measured[0] == pytest.approx(measured[1])


def test_columns_of_other_names_are_listed_where_those_of_the_model_are_missing(tmp_path: Path) -> None:
    features, target = _measures(tmp_path)
    rows = np.column_stack([features, target]).tolist()
    source = _write_rows(tmp_path / "t.csv", rows, ["a", "b", "c", "sum"])
    command = ["train", str(source), "--target", "sum", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, command).exit_code == 0
    later = _write_rows(tmp_path / "later.csv", rows, ["A", "b", "Width", "sum"])
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), str(later)])
    assert isinstance(result.exception, DataError)
    assert "columns 'a', 'c' missing" in str(result.exception)
    assert "there are 'A', 'b', 'Width', 'sum'" in str(result.exception)
