"""JSON: lines, documents of every shape, and keys whose values are of several types."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.json
import pytest

from nnkit.data.examples import RawTable
from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables.json_tables import read_json
from nnkit.errors import DataError

FRAME = pd.DataFrame({"x": [1.5, 2.0, None], "n": [1, 2, 3], "y": ["a", "b", "é"], "d": ["2020-01-01"] * 3})
ROWS = json.loads(FRAME.to_json(orient="records"))


def read(folder: Path, text: str, name: str = "x.json") -> RawTable:
    (folder / name).write_text(text, encoding="utf-8")
    return read_json(folder / name)


@pytest.fixture
def lines(tmp_path: Path) -> RawTable:
    return read(tmp_path, FRAME.to_json(orient="records", lines=True), "lines.jsonl")


def test_lines_are_a_table(lines: RawTable) -> None:
    day = datetime.datetime(2020, 1, 1)
    assert lines.table.to_pylist() == [{**row, "d": day} for row in ROWS]
    assert (lines.named, lines.index, lines.separator) == (True, (), "")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1),
        "\ufeff \n" + json.dumps(ROWS, ensure_ascii=False),
        *(FRAME.to_json(orient=orient) for orient in ("records", "columns", "index", "split")),
        FRAME.set_axis(["p", "q", "r"]).to_json(),
        json.dumps({"data": ROWS}),
        json.dumps({"count": 3, "meta": {"page": 1}, "results": ROWS}, indent=2),
        json.dumps(FRAME.astype(object).where(FRAME.notna(), None).to_dict("list")),
    ],
)
def test_documents_are_the_same_table_as_lines(text: str, tmp_path: Path, lines: RawTable) -> None:
    found = read(tmp_path, text)
    assert found.table.equals(lines.table)
    assert found.named
    assert found.index == ()


def test_the_index_of_a_table_document_is_told(tmp_path: Path, lines: RawTable) -> None:
    found = read(tmp_path, FRAME.to_json(orient="table"))
    assert found.index == ("index",)
    assert found.table.drop_columns("index").equals(lines.table)


def test_lists_of_values_have_no_names(tmp_path: Path) -> None:
    found = read(tmp_path, '[[1, "a"], [2, null]]')
    assert not found.named
    assert found.table.to_pydict() == {"0": [1, 2], "1": ["a", None]}


def test_one_object_is_one_row(tmp_path: Path) -> None:
    assert read(tmp_path, '{"a": 1, "b": "x"}').table.to_pylist() == [{"a": 1, "b": "x"}]


def test_pretty_objects_one_after_another_are_rows(tmp_path: Path) -> None:
    assert read(tmp_path, '{\n "a": 1\n}\n{\n "a": 2\n}\n').table.to_pydict() == {"a": [1, 2]}


MIXED = (
    '{"a": 1.50, "b": {"c": 1}, "l": [1], "n": {"k": 1}, "ok": 1}',
    '{"a": "x", "b": 2, "l": ["q"], "n": {"k": 2}, "ok": 2.5}',
    '{"a": null, "b": null, "n": null}',
    '{"a": true, "b": {"c": 7}, "n": {"k": null, "j": [1]}, "ok": null}',
    '{"a": 1e3, "b": "é"}',
)


@pytest.mark.parametrize("text", ["\n".join(MIXED), f"[{','.join(MIXED)}]"])
def test_a_key_of_several_types_becomes_texts(text: str, tmp_path: Path) -> None:
    table = read(tmp_path, text).table
    assert table["a"].to_pylist() == ["1.50", "x", None, "true", "1e3"]
    assert table["b"].to_pylist() == ['{"c": 1}', "2", None, '{"c": 7}', "é"]
    assert table["l"].to_pylist() == ["[1]", '["q"]', None, None, None]
    assert table["ok"].to_pylist() == [1.0, 2.5, None, None, None]
    assert str(table["n"].type) == "struct<k: int64, j: list<item: int64>>"


def test_a_training_reads_a_key_of_several_types(tmp_path: Path) -> None:
    rows = [{"a": i * 7 if i % 3 else str(i * 7), "target": i % 2} for i in range(30)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    features = load_dataset(tmp_path / "x.jsonl").train.features
    assert features["a"].to_pylist() == [i * 7 for i in range(30)]


def test_keys_that_each_row_has_alone_take_no_quadratic_time(tmp_path: Path) -> None:
    text = json.dumps([{"m": {str(i): i}, "x": "a" if i else 0} for i in range(3000)])
    assert read(tmp_path, text).table["x"][1].as_py() == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "not a single row"),
        ("[1, 2]", "item 0 (counting from 0) of the list is a number"),
        ('[{"a": 1}, "x"]', "item 1 (counting from 0) of the list is a text"),
        ('[{"a": 1}, null]', "item 1 (counting from 0) of the list is null"),
        ("[[1, 2], [3]]", "row 1 (counting from 0) has 1 values"),
        ('[{"a": 1}', "not valid JSON: Expecting ',' delimiter: line 1 column 10"),
        ("[1, 2]\n[3, 4]\n", "Extra data: line 2 column 1"),
        ("[" * 5000, "nested too deeply"),
        ('[{"a": ' + "9" * 5000 + "}]", "Exceeds the limit"),
        ('[{"a": "\\ud800"}]', "surrogate"),
        ('{"columns": ["a"], "data": [[1, 2]]}', "row 0 (counting from 0) has 2 values where 1 columns"),
        ('{"columns": ["a", "a"], "data": [[1, 2]]}', "same name"),
        ('{"a": 1}\n{"a": "x"}\n[1]', "line 3 is not an object"),
        ('{"a": 1}\n{"a": "x"}\n{"a"', "line 3 is not valid JSON"),
        ('{"a": 1,}', "write one object a line, for example with jq -c ."),
        ("null", "line 1 is null"),
        (" \n", "the file is empty"),
    ],
)
def test_what_holds_no_table_is_named(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "x.json"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ['{"a": 1}\n', '[{"a": 1}, {"a": "x"}]'])
def test_arrow_reads_from_memory_of_its_own(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads may outlast an error: asking Python for a stream's bytes then aborts the process."""
    parse, seen = pyarrow.json.read_json, []

    def watched(source: Any, **options: Any) -> pa.Table:
        seen.append(type(source))
        return parse(source, **options)

    monkeypatch.setattr(pyarrow.json, "read_json", watched)
    assert read(tmp_path, text).table.num_rows
    assert set(seen) == {pa.BufferReader}


def test_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    values: list[Any] = [0.1, 1 / 3, 2**53 + 1, -5e-324]
    found = read(tmp_path, json.dumps([{"a": value, "i": 2**62 + 1} for value in values]))
    assert found.table["a"].to_pylist() == [float(value) for value in values]
    assert found.table["i"][0].as_py() == 2**62 + 1
