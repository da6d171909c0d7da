"""Several files as the parts of one table: folders, patterns, lists and partitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pytest

from nnkit.data import limits
from nnkit.data.examples import LoadRequest, RawTable
from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables import files
from nnkit.data.tables.files import read_parts, table_parts
from nnkit.errors import DataError, FileError

FRAME = pd.DataFrame(
    {"x": [float(i) for i in range(12)], "colour": list("abcabcabcabc"), "target": [i % 2 for i in range(12)]}
)
WRITE: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv.gz": lambda frame, path: frame.to_csv(path, index=False, sep="\t", compression="gzip"),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".json": lambda frame, path: frame.to_json(path),
    ".arrow": lambda frame, path: pl.from_pandas(frame).write_ipc(path),
    ".feather": lambda frame, path: feather.write_feather(pa.Table.from_pandas(frame), str(path)),
}


def write_parts(folder: Path, suffix: str = ".csv") -> Path:
    """Write the rows 0 to 3, 4 to 7 and 8 to 11, and what other programs leave beside them."""
    folder.mkdir(exist_ok=True)
    for number in (2, 0, 1):
        part = FRAME[4 * number : 4 * number + 4].reset_index(drop=True)
        WRITE[suffix](part, folder / f"part-{number}{suffix}")
    for litter in ("_SUCCESS", "_metadata", ".part-0.crc", "_delta_log"):
        (folder / litter).write_bytes(b"\0\1")
    return folder


def rows(source: object) -> list[dict]:
    return load_dataset(source, require_target=False).train.features.to_pylist()  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", WRITE)
def test_the_parts_in_a_folder_are_one_table_in_the_order_of_their_names(suffix: str, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "parts", suffix)
    request = FRAME.to_dict("records")
    assert rows(folder) == request
    assert rows(folder / f"part-*{suffix}") == request
    assert rows([str(folder / f"part-{number}{suffix}") for number in (0, 1, 2)]) == request
    assert load_dataset(folder).train.target.tolist() == FRAME["target"].tolist()


def test_a_list_keeps_its_order_and_may_be_of_one(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "parts")
    found = rows([folder / "part-2.csv", folder / "part-0.csv"])
    assert found == FRAME.iloc[[8, 9, 10, 11, 0, 1, 2, 3]].to_dict("records")
    assert rows([folder / "part-1.csv"]) == FRAME[4:8].to_dict("records")


def test_the_keys_of_partitions_become_columns(tmp_path: Path) -> None:
    frame = FRAME.assign(year=[2020 + i // 6 for i in range(12)], place=["a b/c", None, "é"] * 4)
    frame.to_parquet(tmp_path / "hive", partition_cols=["year", "place"], index=False)
    frame = frame.assign(place=frame["place"].astype(object))
    request = frame.astype(object).where(frame.notna(), None).to_dict("records")
    found = sorted(rows(tmp_path / "hive"), key=lambda row: row["x"])
    assert found == request
    assert table_parts(tmp_path / "hive")[0].parent.parent.name == "year=2020"
    (tmp_path / "twice" / "x=1").mkdir(parents=True)
    FRAME.to_csv(tmp_path / "twice/x=1/a.csv", index=False)
    with pytest.raises(DataError, match="'x' is also the name of a folder"):
        rows(tmp_path / "twice")


def test_columns_may_come_in_another_order_and_in_wider_types(tmp_path: Path) -> None:
    pa_first = pa.table({"a": pa.array([1, 2], pa.int32()), "b": ["x", "y"], "c": pa.nulls(2)})
    pa_second = pa.table({"b": pa.array(["z"]).dictionary_encode(), "c": [True], "a": [2.5]})
    feather.write_feather(pa_first, str(tmp_path / "1.arrow"))
    feather.write_feather(pa_second, str(tmp_path / "2.arrow"))
    assert rows(tmp_path) == [
        {"a": 1.0, "b": "x", "c": None},
        {"a": 2.0, "b": "y", "c": None},
        {"a": 2.5, "b": "z", "c": True},
    ]


def test_json_parts_of_several_types_become_texts_as_one_file_does(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "2.jsonl").write_text('{"a": "x"}\n')
    assert rows(tmp_path) == [{"a": "1"}, {"a": "x"}]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("a,c\n1,2\n", r"2\.csv: there is no column 'b', which .*1\.csv has"),
        ("a,b,c\n1,2,3\n", r"2\.csv: the column 'c' is not in .*1\.csv"),
        ("", r"2\.csv: the file is empty"),
    ],
)
def test_parts_of_other_columns_are_named(second: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text(second)
    with pytest.raises(DataError, match=words):
        rows(tmp_path)


def test_parts_of_other_types_are_named(tmp_path: Path) -> None:
    feather.write_feather(pa.table({"a": [1]}), str(tmp_path / "1.arrow"))
    feather.write_feather(pa.table({"a": ["x"]}), str(tmp_path / "2.arrow"))
    with pytest.raises(DataError, match=r"2\.arrow: the column 'a' is string, and int64 in .*1\.arrow"):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl", b'{"x": 1}\n', r"there are delimited text \(part-0\.csv\) and JSON \(x\.jsonl\)"),
        ("README.md", b"# Data\n", r"README\.md is no part of a table"),
        ("x.npy", b"\x93NUMPY", r"x\.npy is no part of a table"),
        ("x.csv.xz", b"\xfd7zXZ\0", r"x\.csv\.xz is no part of a table"),
    ],
)
def test_other_kinds_among_the_parts_are_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "parts")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        rows(folder)
    assert len(rows(folder / "*.csv")) == 12


def test_a_folder_among_the_parts_is_named(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "parts")
    (folder / "older").mkdir()
    with pytest.raises(DataError, match="older is a folder"):
        rows(folder)
    with pytest.raises(DataError, match="parts is a folder"):
        rows([folder, folder])


def test_a_training_and_a_test_set_are_not_joined(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        FRAME.to_csv(tmp_path / name, index=False)
    with pytest.raises(DataError, match=r"train\.csv and test\.csv are not one table: train on .*train\.csv"):
        rows(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"x\.csv: no such file"):
        rows([tmp_path / "x.csv"])
    with pytest.raises(FileError, match=r"\*\.csv: no such file"):
        rows(tmp_path / "*.csv")
    (tmp_path / "[1].csv").write_text("a,b\n1,2\n")
    assert rows(tmp_path / "[1].csv") == [{"a": 1, "b": 2}]


def test_parts_that_together_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parts(tmp_path / "parts", ".arrow")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert len(rows(folder)) == 12
    monkeypatch.setattr(limits, "memory_limit", lambda: size // 12)
    with pytest.raises(DataError, match=r"parts: .*room for"):
        rows(folder)


def test_texts_as_they_stand_are_joined_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reader of delimited text returns them before a schema is found."""
    folder = write_parts(tmp_path / "parts")

    def read(path: Path, kind: str, request: object) -> RawTable:
        return RawTable(pa.table({"a": [path.name, "?"]}), separator=";", notes=("a note",))

    monkeypatch.setattr(files, "read_table", read)
    found = read_parts(table_parts(folder), "parts", folder)
    assert found.table["a"].to_pylist() == ["part-0.csv", "?", "part-1.csv", "?", "part-2.csv", "?"]
    assert (found.named, found.separator, found.notes) == (True, ";", ("a note",))


def test_a_part_without_names_among_others_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_parts(tmp_path / "parts")

    def read(path: Path, kind: str, request: object) -> RawTable:
        return RawTable(pa.table({"0": ["1"]}), named=path.name != "part-1.csv")

    monkeypatch.setattr(files, "read_table", read)
    words = r"part-1\.csv: the columns have no names, and those of .*part-0\.csv have"
    with pytest.raises(DataError, match=words):
        rows(folder)


def test_the_stored_index_of_the_parts_is_told(tmp_path: Path) -> None:
    FRAME[:6].set_index("colour").to_parquet(tmp_path / "1.parquet")
    FRAME[6:].set_index("colour").to_parquet(tmp_path / "2.parquet")
    assert read_parts(table_parts(tmp_path), "parts").index == ("colour",)


def test_a_part_that_changes_while_it_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = FRAME.assign(year=2020)
    frame.to_parquet(tmp_path / "hive", partition_cols=["year"], index=False)
    (path,) = table_parts(tmp_path / "hive")
    read = files.read_table

    def slowly(path: Path, kind: files.FileFormat, request: LoadRequest) -> RawTable:
        table = read(path, kind, request)
        with path.open("ab") as file:
            file.write(b"x")
        return table

    monkeypatch.setattr(files, "read_table", slowly)
    with pytest.raises(DataError, match="changed while it was read"):
        rows(tmp_path / "hive")
    assert path.exists()
