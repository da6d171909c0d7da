"""Later tables that another program wrote: what is read all the same, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pandas as pd
import pytest

from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset, read_table
from nnkit.data.tables.options import TableOptions

R = Random(0)
DATES = [f"{R.randint(1, 28):02d}.{R.randint(1, 12):02d}.2023" for _ in range(60)]


def write(path: Path, header: str, rows: list[str], encoding: str = "utf-8") -> Path:
    path.write_bytes(("\n".join([header, *rows]) + "\n").encode(encoding))
    return path


def test_a_number_for_a_missing_value_is_found_by_its_value(tmp_path: Path) -> None:
    rows = [
        f"{'-999' if i % 7 == 0 else i * 5 % 31},{'-999.0' if i % 9 == 0 else i / 3},{i % 2}"
        for i in range(60)
    ]
    table = read_table(write(tmp_path / "t.csv", "a,b,target", rows), missing=["-999"])
    for name, every in (("a", 7), ("b", 9)):
        assert [place for place, value in enumerate(table[name].to_pylist()) if value is None] == list(
            range(0, 60, every)
        )


def test_a_date_as_programs_write_it_is_read_whatever_the_trainings_pattern(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "day,target", [f"{day},{i % 2}" for i, day in enumerate(DATES)])
    first = load_dataset(source)
    assert first.schema is not None
    assert first.schema.by_name["day"].pattern == "%d.%m.%Y"
    parsed = pd.to_datetime(pd.Series(DATES), format="%d.%m.%Y")
    rows = [f"{day:%Y-%m-%d},{i % 2}" for i, day in enumerate(parsed)]
    later = load_dataset(write(tmp_path / "iso.csv", "day,target", rows), schema=first.schema)
    assert later.train.features["day"].equals(first.train.features["day"])


def test_numbers_without_the_unit_of_the_training_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{i * 7 % 60} %,{i % 2}" for i in range(60)]
    first = load_dataset(write(tmp_path / "t.csv", "rate,target", rows))
    bare = [row.replace(" %", "") for row in rows]
    later = load_dataset(write(tmp_path / "bare.csv", "rate,target", bare), schema=first.schema, strict=False)
    assert later.train.features["rate"].to_pylist() == first.train.features["rate"].to_pylist()
    assert "column 'rate' has the unit % in the training and none here" in caplog.text


def test_a_column_that_is_missing_throughout_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{i * 7 % 60},{i / 3},{i % 2}" for i in range(60)]
    first = load_dataset(write(tmp_path / "t.csv", "a,b,target", rows))
    empty = [f",{i / 3},{i % 2}" for i in range(20)]
    load_dataset(write(tmp_path / "empty.csv", "a,b,target", empty), schema=first.schema, strict=False)
    assert "column 'a': every value is missing here, and was not in the training" in caplog.text


@pytest.mark.parametrize(
    ("options", "encoding", "separator"),
    [
        ({"encoding": "latin-1"}, "utf-8", ","),
        ({"separator": ";"}, "utf-8", ","),
        ({"skip_rows": 1}, "utf-8", ","),
    ],
)
def test_another_layout_than_the_trainings_is_found_out(
    options: dict, encoding: str, separator: str, tmp_path: Path
) -> None:
    given = TableOptions(**options)
    rows = [f"{i * 7 % 60};{i / 3:.2f};{'jä' if i % 2 else 'né'}" for i in range(60)]
    header = "größe;wert;ziel"
    if "separator" not in options:
        rows, header = [row.replace(";", separator) for row in rows], header.replace(";", separator)
    above = ["exported"] if "skip_rows" in options else []
    lines = [*above, header]
    first = load_dataset(
        write(tmp_path / "t.csv", "\n".join(lines), rows, options.get("encoding", "utf-8")),
        target="ziel",
        table=given,
    )
    plain = [row.replace(";", ",") for row in rows]
    later = load_dataset(
        write(tmp_path / "new.csv", header.replace(";", ","), plain, encoding),
        target="ziel",
        schema=first.schema,
    )
    assert later.train.features.equals(first.train.features)
    assert any("layout differs from that of the training" in note for note in later.notes)


def test_a_key_that_no_object_has_is_missing(tmp_path: Path) -> None:
    rows = [{"a": i * 7 % 60, "b": i / 3, "c": "xy"[i % 2], "target": i % 2} for i in range(60)]
    source = tmp_path / "t.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    first = load_dataset(source)
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"b": 2.5, "c": "x"}))
    later = load_dataset(one, target="target", require_target=False, schema=first.schema)
    assert later.train.features.select(["a", "b", "c"]).to_pylist() == [{"a": None, "b": 2.5, "c": "x"}]
    fitted = Preprocessor.fit(first.train.features)
    assert len(fitted.transform(later.train.features)) == 1


def test_doubtful_values_are_noted(tmp_path: Path) -> None:
    words = ["yes", "Yes", "no"]
    rows = [
        f"{words[i % 3]},10.0.{i % 7}.{i},{-999 if i % 20 == 3 else i * 7 % 60},{i % 2}" for i in range(60)
    ]
    dataset = load_dataset(write(tmp_path / "t.csv", "word,address,level,target", rows))
    assert (
        "column 'word': values that differ in capitals only are separate categories: 'Yes', 'yes'"
        in dataset.notes
    )
    assert dataset.schema is not None
    assert dataset.schema.by_name["address"].kind == "category"
    notes = "\n".join(Preprocessor.fit(dataset.train.features).notes)
    assert "column 'level': -999 stands in 3 rows, far from all other values" in notes
    assert "dropped column 'address'" in notes
