"""Spreadsheets: the types of their columns, and what is wrong with bad ones."""

from __future__ import annotations

import datetime
import sys
import zipfile
from pathlib import Path

import pytest

from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables.workbook_cells import sheet_table
from nnkit.data.tables.workbooks import read_workbook
from nnkit.errors import ConfigError, DataError

_NAMES = "http://schemas.openxmlformats.org"
_RELATIONS = f"{_NAMES}/package/2006/relationships"
_DOCUMENT = f"{_NAMES}/officeDocument/2006/relationships"
_MAIN = f"{_NAMES}/spreadsheetml/2006/main"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_NAMES}/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="a" '
    f'Type="{_DOCUMENT}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
}


def write(path: Path, *sheets: dict[str, object]) -> Path:
    """Write a workbook by hand: of each sheet its cells by their places, such as A1."""
    relations, listed = "", ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in _PARTS.items():
            archive.writestr(name, content)
        for number, cells in enumerate(sheets, 1):
            listed += f'<sheet name="sheet {number}" sheetId="{number}" r:id="r{number}"/>'
            relations += (
                f'<Relationship Id="r{number}" Type="{_DOCUMENT}/worksheet" '
                f'Target="worksheets/sheet{number}.xml"/>'
            )
            rows: dict[int, str] = {}
            for place, value in cells.items():
                row = int(place.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
                rows[row] = rows.get(row, "") + _cell(place, value)
            data = "".join(f'<row r="{row}">{text}</row>' for row, text in sorted(rows.items()))
            archive.writestr(
                f"xl/worksheets/sheet{number}.xml",
                f'<worksheet xmlns="{_MAIN}"><sheetData>{data}</sheetData></worksheet>',
            )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{_MAIN}" xmlns:r="{_DOCUMENT}"><sheets>{listed}</sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_RELATIONS}">{relations}</Relationships>'
        )
    return path


def _cell(place: str, value: object) -> str:
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, datetime.date):
        return f'<c r="{place}" t="d"><v>{value.isoformat()}</v></c>'
    if isinstance(value, str):
        kind = "e" if value.startswith("#") else "str"
        return f'<c r="{place}" t="{kind}"><v>{value}</v></c>'
    return f'<c r="{place}"><v>{value}</v></c>'


def sheet(*rows: tuple[object, ...]) -> dict[str, object]:
    return {
        f"{chr(ord('A') + column)}{number}": value
        for number, row in enumerate(rows, 1)
        for column, value in enumerate(row)
        if value is not None
    }


GOOD = sheet(("x", "y", "kind"), (1, 2.5, "a"), (2, None, "b"), (3, "#N/A", "a"))

reads = pytest.mark.extra("python_calamine")


@reads
def test_a_workbook_is_a_table(tmp_path: Path) -> None:
    found = read_workbook(write(tmp_path / "x.xlsx", GOOD))
    assert found.table.to_pydict() == {"x": [1, 2, 3], "y": [2.5, None, None], "kind": ["a", "b", "a"]}
    assert [str(type_) for type_ in found.table.schema.types] == ["int64", "double", "string"]
    assert (found.named, found.index, found.notes) == (True, (), ())
    dataset = load_dataset(tmp_path / "x.xlsx", target="kind")
    assert dataset.train.features.column_names == ["x", "y"]
    assert dataset.train.target.tolist() == ["a", "b", "a"]


@reads
def test_a_workbook_is_found_by_its_content(tmp_path: Path) -> None:
    assert load_dataset(write(tmp_path / "x", GOOD), target="kind").train.features.num_rows == 3


@reads
def test_the_first_of_several_sheets_is_read_with_a_note(tmp_path: Path) -> None:
    found = read_workbook(write(tmp_path / "x.xlsx", GOOD, sheet(("z",), (7,))))
    assert found.table.column_names == ["x", "y", "kind"]
    assert found.notes == ("x.xlsx: read is the sheet 'sheet 1' of 2",)


@reads
def test_the_same_table_as_pandas_writes(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    import pandas as pd

    frame = pd.DataFrame(
        {
            "n": [1, 2, 3],
            "f": [0.5, None, 2.25],
            "t": ["a", "é", None],
            "b": [True, False, True],
            "d": pd.to_datetime(["2020-01-01 05:00", "2020-01-02 00:00", None]),
            "mixed": [1, "x", 2.5],
        }
    )
    wanted = frame.astype(object).where(frame.notna(), None)
    wanted["mixed"] = ["1", "x", "2.5"]
    frame.to_excel(tmp_path / "x.xlsx", index=False)
    assert read_workbook(tmp_path / "x.xlsx").table.to_pylist() == wanted.to_dict("records")
    frame.to_excel(tmp_path / "x.xlsx")
    found = read_workbook(tmp_path / "x.xlsx")
    assert found.index == ("0",)
    assert found.table.drop_columns("0").to_pylist() == wanted.to_dict("records")


def test_the_types_of_columns() -> None:
    day, moment = datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4)
    columns = {
        "whole": [1.0, "", 2.0],
        "number": [1.0, 2.5, 3.0],
        "huge": [1e300, 1.0, 2.0],
        "boolean": [True, "", False],
        "day": [day, day, ""],
        "moment": [day, moment, ""],
        "time": [datetime.time(5), "", ""],
        "span": [datetime.timedelta(hours=30), "", ""],
        "mixed": [1.0, True, moment],
        "blank": ["", "", ""],
    }
    table, about = sheet_table([list(columns), *map(list, zip(*columns.values(), strict=True))])
    types = "int64 double double bool date32[day] timestamp[us] time64[us] duration[us] string null"
    assert [str(type_) for type_ in table.schema.types] == types.split()
    assert about == {"named": True, "index": []}
    assert table["moment"].to_pylist() == [datetime.datetime(2020, 1, 2), moment, None]
    assert table["mixed"].to_pylist() == ["1", "TRUE", "2020-01-02 03:04:00"]
    assert table["whole"].to_pylist() == [1, None, 2]


def test_rows_without_names_and_empty_rows() -> None:
    table, about = sheet_table([["", "", ""], [1.0, 2.0, ""], ["", "", ""], [3.0, 4.0, ""]])
    assert table.to_pydict() == {"0": [1, 3], "1": [2, 4]}
    assert not about["named"]
    assert sheet_table([])[0].num_rows == 0
    table, about = sheet_table([["a", "", "b"], [1.0, 2.0, 3.0]])
    assert (table.column_names, about["index"]) == (["a", "1", "b"], [])


@reads
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + b"0" * 50, "no workbook, or a damaged one"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "no workbook, or a damaged one"),
        (b"", "the file is empty"),
    ],
)
def test_a_broken_workbook_is_one_line(
    content: bytes, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.xlsx").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(tmp_path / "x.xlsx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@reads
def test_a_far_cell_does_not_end_the_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.xlsx", {"A1": "a", "XFD1048576": 1})
    with pytest.raises(DataError, match="makes it too large"):
        read_workbook(path)
    assert capfd.readouterr() == ("", "")


@reads
def test_a_sheet_without_rows_is_named(tmp_path: Path) -> None:
    for cells in ({}, {"A1": "x"}):
        with pytest.raises(DataError, match="not a single row of data in the sheet 'sheet 1'"):
            read_workbook(write(tmp_path / "x.xlsx", cells))
    with pytest.raises(DataError, match="both named 'x'"):
        read_workbook(write(tmp_path / "x.xlsx", sheet(("x", "x"), (1, 2))))


def test_without_its_package_a_workbook_is_an_error_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ConfigError, match="python_calamine is not installed: pip install python-calamine"):
        load_dataset(write(tmp_path / "x.xlsx", GOOD))
