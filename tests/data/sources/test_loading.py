"""Tables, arrays and names as sources: what is recognised, and what each bad input says."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables.frames import as_table
from nnkit.errors import DataError, FileError

ROWS = "".join(f"{i * 7 % 40},{i * 2.5},{i % 2}\n" for i in range(40))
CSV = "a,b,target\n" + ROWS


def write(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_equals_pandas(tmp_path: Path) -> None:
    path = write(tmp_path, CSV)
    dataset = load_dataset(path)
    expected = pd.read_csv(path)
    assert dataset.train.features.column_names == ["a", "b"]
    np.testing.assert_array_equal(dataset.train.features["b"].to_numpy(), expected["b"])
    np.testing.assert_array_equal(dataset.train.target, expected["target"])
    assert (dataset.name, dataset.target_names, dataset.test) == ("data", ("target",), None)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
def test_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    dataset = load_dataset(write(tmp_path, CSV.replace(",", delimiter), "data.txt"))
    assert dataset.train.features.column_names == ["a", "b"]
    assert dataset.train.features["b"][39].as_py() == 97.5


def test_decimal_comma_is_found(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "a;b;target\n1,5;2;0\n2,5;3;1\n"))
    assert dataset.train.features["a"].to_pylist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2,0\n3,4,1\n", ["0", "1", "2"]),
        ("x,1\ny,2\nx,3\n", ["0", "1"]),
        ("colour,shape\nred,round\nblue,flat\n", ["colour", "shape"]),
        ("\n\na,b\n1,2\n", ["a", "b"]),
        (",b\n0,1.5\n1,2.5\n", ["b"]),
        ("a,b,\n1,2,\n3,4,\n", ["a", "b"]),
        ("0,1,2\n1.5,2,x\n", ["0", "1", "2"]),
        ("\ufeffa,b\r\n1,2\r\n", ["a", "b"]),
    ],
)
def test_header_is_found(tmp_path: Path, text: str, names: list[str]) -> None:
    dataset = load_dataset(write(tmp_path, text), require_target=False)
    assert dataset.train.features.column_names == names


@pytest.mark.parametrize(("target", "name"), [(0, "0"), ("0", "0"), (-1, "2"), ("-1", "2")])
def test_target_by_number(tmp_path: Path, target: int | str, name: str) -> None:
    assert load_dataset(write(tmp_path, ROWS), target=target).target_names == (name,)


def test_lone_quotes_between_tabs_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, 'ham\t"oh\nspam\tbuy\nham\t5" wide\n', "data.tsv")
    dataset = load_dataset(path, target=0)
    assert dataset.train.features["1"].to_pylist() == ['"oh', "buy", '5" wide']


def test_quoted_cell_may_hold_delimiter_and_newline(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, 'a,b,target\n1,"x\ny",0\n3,"u,v",1\n'))
    assert dataset.train.features["b"].to_pylist() == ["x\ny", "u,v"]


def test_type_of_a_column_is_that_of_all_rows(tmp_path: Path) -> None:
    """The first megabyte holds whole numbers only."""
    dataset = load_dataset(write(tmp_path, "a,target\n" + "1,0\n" * 600_000 + "2.5,1\n"))
    assert dataset.train.features["a"][600_000].as_py() == 2.5


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".csv.gz", ".arrows"])
def test_other_formats_equal_csv(tmp_path: Path, suffix: str) -> None:
    table = load_dataset(write(tmp_path, CSV), require_target=False).train.features
    path = tmp_path / f"other{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".csv.gz":
        path.write_bytes(gzip.compress(CSV.encode()))
    elif suffix == ".arrows":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    else:
        feather.write_feather(table, path)
    dataset = load_dataset(path)
    assert dataset.name == "other"
    assert dataset.train.features.equals(table.select(["a", "b"]))


def test_choice_of_columns(tmp_path: Path) -> None:
    path = write(tmp_path, CSV)
    assert load_dataset(path, features=["b"]).train.features.column_names == ["b"]
    assert load_dataset(path, drop=[0]).train.features.column_names == ["b"]
    assert load_dataset(path, target=["a", "target"]).train.target.shape == (40, 2)


def test_absent_target_is_no_mistake_in_prediction(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, CSV), target=("price",), require_target=False)
    assert dataset.train.target is None
    assert len(dataset.train.features.column_names) == 3
    empty = write(tmp_path, "a,price\n1,\n2,\n")
    dataset = load_dataset(empty, target=("price",), require_target=False)
    assert dataset.train.target is None
    assert dataset.train.features.column_names == ["a"]


def test_second_source_is_the_test_set(tmp_path: Path) -> None:
    path = write(tmp_path, CSV)
    second = write(tmp_path, "target,b,a\n1,2,3\n", "second.csv")
    dataset = load_dataset(path, test=second)
    assert dataset.test is not None
    assert dataset.test.target.tolist() == [1]


def test_take_selects_rows(tmp_path: Path) -> None:
    part = load_dataset(write(tmp_path, CSV)).train.take(np.array([3, 5]))
    assert len(part) == 2
    assert part.features["a"].to_pylist() == [21, 35]
    assert part.target.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("a,b,target\n", "not a single row"),
        ("a,b,c\n" + ROWS, "Name it with `target`; the columns are a, b, c"),
        (CSV.replace("target", "y") + "1,2,oops\n", "target 'y' holds 'oops' in row 40 (counting from 0)"),
        (CSV + "1,2,\n", "target 'target' is missing in row 40 (counting from 0)"),
        (CSV.replace("target", "y") + "1,2,nan\n", "target 'y' is missing in row 40 (counting from 0)"),
        (CSV + "1,2\n", "line 42 has 2 cells where 3 are expected"),
        ("a,b,target\n1,2,0\n1,2,3,4\n", "line 3 has 4 cells where 3 are expected"),
        ("a,a,target\n" + ROWS, "columns 1 and 2 are both named 'a'"),
        ("a,b,target\nx,é,1\n".encode("latin-1"), "line 2 is not UTF-8"),
        (
            ("a,b,target\n" + "x,y,1\n" * 20_000 + "x,é,1\n").encode("latin-1"),
            "line 20002 is not UTF-8 text (its byte 3",
        ),
        ('a,b,target\n1,"2,0\n3,4,1\n', 'line 2 has a cell that begins with "'),
    ],
)
def test_bad_text_is_named(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "targte"}, "did you mean 'target'"),
        ({"target": "zzzz"}, "the columns are a, b, target"),
        ({"target": 7}, "the columns are 0 to 2"),
        ({"drop": ["bb"]}, "no column 'bb'"),
        ({"drop": ["a", "b"]}, "no feature column is left"),
    ],
)
def test_wrong_column_is_named(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_dataset(write(tmp_path, CSV), **options)


def test_infinity_in_a_dropped_column_does_no_harm(tmp_path: Path) -> None:
    assert len(load_dataset(write(tmp_path, CSV + "1,inf,1\n"), drop=["b"]).train) == 41


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-12], "cut short"),
        ("x.csv", b"\x01\x00\x02\x00" * 50, "neither text"),
        ("x.pkl", b"\x80\x04junk junk", "not read"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words):
        load_dataset(write(tmp_path, content, name))


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather", "x.npz", "x.npy"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    magic = {"x.parquet": b"PAR1", "x.npy": b"\x93NUMPY", "x.npz": b"PK\x03\x04"}.get(name, b"ARROW1")
    with pytest.raises(DataError, match="damaged"):
        load_dataset(write(tmp_path, magic + b"junk" * 20, name))


def test_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="did you mean iris") as caught:
        load_dataset("irsi")
    assert "fashion_mnist" in str(caught.value)
    write(tmp_path, CSV, "houses.csv")
    with pytest.raises(FileError, match=r"houses\.csv"):
        load_dataset(tmp_path / "house.csv")


def test_folder_with_nothing_usable_is_named(tmp_path: Path) -> None:
    write(tmp_path, CSV, "_data.csv")
    write(tmp_path, CSV, "data.exe")
    with pytest.raises(FileError, match=r"neither tables, .* holds _data\.csv, data\.exe"):
        load_dataset(tmp_path)


def test_npz_with_a_test_set_and_images(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x_train=pixels, y_train=[1, 0, 1, 1], x_test=pixels[:2], y_test=[0, 1])
    dataset = load_dataset(path)
    assert dataset.image_shape == (2, 3)
    np.testing.assert_array_equal(dataset.train.features, pixels.reshape(4, 6))
    assert dataset.train.features.dtype == np.uint8
    assert dataset.test.target.tolist() == [0, 1]


def test_npz_keeps_fortran_order_and_text_labels(tmp_path: Path) -> None:
    features = np.asfortranarray(np.arange(8.0).reshape(4, 2))
    np.savez(tmp_path / "x.npz", X=features, y=["a", "b", "a", "b"])
    dataset = load_dataset(tmp_path / "x.npz")
    np.testing.assert_array_equal(dataset.train.features, features)
    assert dataset.train.target.tolist() == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"foo": np.ones(3)}, "holds foo"),
        ({"X": np.array([[1, None]], dtype=object)}, "Python objects"),
        ({"X": np.array([[1.0, 2.0], [3.0, np.nan]]), "y": [0, 1]}, "nan in row 1, column 1"),
        ({"X": np.array([[1.0, -np.inf]]), "y": [0]}, "-inf in row 0, column 1"),
        ({"X": np.ones((4, 2)), "y": [1, 0, 1]}, "X has 4 rows and y 3"),
        ({"X": np.ones((2, 2)), "y": [1, np.nan]}, "row 1"),
        ({"X": np.ones((2, 2))}, "no target"),
        ({"X": np.ones(2), "y": [1, 0]}, "shape"),
        ({"X": np.array([["a", "b"]]), "y": [1]}, "as a table"),
    ],
)
def test_bad_npz_is_named(tmp_path: Path, arrays: dict, words: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_dataset(tmp_path / "x.npz")


def test_npz_that_claims_too_much_is_not_allocated(tmp_path: Path) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**50, 4)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("X.npy", header.getvalue() + b"1234")
    with pytest.raises(DataError, match="only 4 bytes follow"):
        load_dataset(tmp_path / "x.npz", require_target=False)


def test_npy_column_is_the_target(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    values = np.arange(12.0).reshape(4, 3)
    np.save(path, values)
    dataset = load_dataset(path, target=1)
    np.testing.assert_array_equal(dataset.train.features, values[:, [0, 2]])
    np.testing.assert_array_equal(dataset.train.target, values[:, 1])
    assert load_dataset(path, require_target=False).train.features.shape == (4, 3)
    with pytest.raises(DataError, match="no column 7"):
        load_dataset(path, target=7)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="damaged or cut short"):
        load_dataset(path, target=1)
    np.save(path, np.array([[1, None]]), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        load_dataset(path, target=1)


def test_frames_of_other_libraries_become_the_same_table() -> None:
    columns = {"a": [1.5, None, 3.0], "s": ["x", "y", None]}
    expected = pa.table(columns)
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns), expected, expected.to_batches()[0]):
        table = as_table(frame)
        assert table.column_names == ["a", "s"]
        assert table.to_pydict() == columns


def test_bad_frames_are_named() -> None:
    with pytest.raises(DataError, match="both named 'a'"):
        as_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(DataError, match="column a"):
        as_table(pd.DataFrame({"a": [1, "x"]}))
    with pytest.raises(DataError, match="list is not a table"):
        as_table([1, 2])


def test_california_housing(shared_data: Path) -> None:
    dataset = load_dataset(shared_data / "california_housing.csv", target="median_house_value")
    expected = pd.read_csv(shared_data / "california_housing.csv")
    assert len(dataset.train) == 20640
    np.testing.assert_array_equal(dataset.train.target, expected["median_house_value"])
    assert dataset.train.features["total_bedrooms"].null_count == expected["total_bedrooms"].isna().sum()


def test_headerless_tsv_of_messages(shared_data: Path) -> None:
    path = shared_data / "sms_spam.tsv"
    dataset = load_dataset(path, target=0)
    lines = path.read_text().splitlines()
    assert dataset.train.features["1"].to_pylist() == [line.split("\t")[1] for line in lines]
    assert set(dataset.train.target) == {"ham", "spam"}


@pytest.mark.parametrize("source", ["", []])
def test_no_source_is_named(source: str | list[str]) -> None:
    with pytest.raises(DataError, match="there is nothing to read: give a file"):
        load_dataset(source)
