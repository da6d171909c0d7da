"""What kind a file is of, and what is said of those that are not read, whose commands are run here."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.orc as orc
import pytest
import scipy.io

from nnkit.data.files.formats import file_format, remote_source
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import DataError, FileError

FRAME = pd.DataFrame({"x": [0.5, 1.5, 2.5, 3.5], "colour": ["red", "blue", "red", "blue"], "y": [0, 1, 0, 1]})
CSV = FRAME.to_csv(index=False)
ARFF = """% a comment
@RELATION cars

@attribute x numeric
@ATTRIBUTE colour {red, blue}
@attribute y numeric
@DATA
% another
0.5,red,0
1.5,blue,1
2.5,red,0
3.5,blue,1
"""
SPARSE = "+1 1:0.5 3:0.2\n-1 2:1\n+1 1:0.25 2:2 3:4 # note\n-1 3:1\n"


COMMANDS = ("python", "awk", "sed", "sqlite3", "unzip", "xz", "gzip", "bzip2", "tar")


def convert(path: Path) -> None:
    """Run the command that the message names."""
    with pytest.raises(FileError) as caught:
        load_dataset(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    start = min(text.find(f": {word} ") for word in COMMANDS if f": {word} " in text) + 2
    command = text[start:].replace("python -c", f"{sys.executable} -c").replace("TABLE", "t")
    subprocess.run(command, shell=True, check=True, cwd=path.parent, executable="/bin/bash")


def as_table(path: Path) -> list[dict]:
    return load_dataset(path, require_target=False).train.features.to_pylist()


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("table.csv", CSV)


def tarred(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        found = tarfile.TarInfo("table.csv")
        found.size = len(CSV)
        archive.addfile(found, io.BytesIO(CSV.encode()))


def parquet() -> bytes:
    buffer = io.BytesIO()
    FRAME.to_parquet(buffer, index=False)
    return buffer.getvalue()


PACKED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "packed.zip": ("unzip", zipped),
    "packed.tar.gz": ("tar", tarred),
    "table.csv.xz": ("xz", lambda path: path.write_bytes(lzma.compress(CSV.encode()))),
    "table.parquet.gz": ("gzip", lambda path: path.write_bytes(gzip.compress(parquet()))),
    "table.parquet.bz2": ("bzip2", lambda path: path.write_bytes(bz2.compress(parquet()))),
}


@pytest.mark.parametrize("name", PACKED)
def test_commands_that_unpack_are_right(name: str, tmp_path: Path) -> None:
    program, write = PACKED[name]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    write(folder / name)
    convert(folder / name)
    (unpacked,) = (path for path in folder.iterdir() if path.name in ("table.csv", "table.parquet"))
    assert as_table(unpacked) == FRAME.to_dict("records")


def sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    FRAME.to_sql("t", connection, index=False)
    connection.close()


TABLES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a.sqlite": (".csv", sqlite),
    "b.pkl": (".csv", FRAME.to_pickle),
    "c.arff": (".csv", lambda path: path.write_text(ARFF)),
    "d.dta": (".csv", lambda path: FRAME.to_stata(path, write_index=False)),
    "e.orc": (".parquet", lambda path: orc.write_table(pa.Table.from_pandas(FRAME), path)),
    "f.avro": (".parquet", lambda path: pl.from_pandas(FRAME).write_avro(path)),
}


@pytest.mark.parametrize("name", TABLES)
def test_commands_that_convert_tables_are_right(name: str, tmp_path: Path) -> None:
    if name == "a.sqlite" and shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    suffix, write = TABLES[name]
    write(folder / name)
    convert(folder / name)
    assert as_table((folder / name).with_suffix(suffix)) == FRAME.to_dict("records")


X, Y = np.array([[0.5, 0, 0.2], [0, 1, 0], [0.25, 2, 4], [0, 0, 1]]), np.array([1, -1, 1, -1])


def check_arrays(path: Path) -> None:
    convert(path)
    dataset = load_dataset(path.with_suffix(".npz"))
    np.testing.assert_array_equal(dataset.train.features, X)
    np.testing.assert_array_equal(dataset.train.target, Y)


def test_the_command_for_matlab_is_right(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"X": X, "y": Y})
    check_arrays(tmp_path / "a.mat")


def test_the_command_for_sparse_text_is_right(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SPARSE)
    check_arrays(tmp_path / "a.txt")


def test_the_commands_for_hdf5_are_right(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"], file["y"] = X, Y
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:  # MATLAB keeps columns first
        file["X"], file["y"] = X.T, Y[None]
    with (tmp_path / "b.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    check_arrays(tmp_path / "a.h5")
    check_arrays(tmp_path / "b.mat")


def test_the_command_for_labelled_text_is_right(tmp_path: Path) -> None:
    path = tmp_path / "mails.txt"
    path.write_text("__label__spam buy now, cheap\n__label__ham see you\n" * 4)
    convert(path)
    dataset = load_dataset(tmp_path / "mails.tsv", target=0)
    assert dataset.train.target.tolist()[:2] == ["spam", "ham"]
    assert dataset.train.features["1"].to_pylist()[:2] == ["buy now, cheap", "see you"]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n<body>Please sign in</body></html>\n"
MAGICS: dict[str, tuple[bytes, str]] = {
    "x.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive is not read: unpack it first: 7z x "),
    "x.rar": (b"Rar!\x1a\x07\1\0", "a RAR archive"),
    "x.lz4": (b"\x04\x22M\x18" + bytes(9), "compressed by LZ4"),
    "x.duckdb": (bytes(8) + b"DUCK" + bytes(9), "a DuckDB database"),
    "x.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "x.pkl": (pickle.dumps({"a": [1]}), "a pickle"),
    "x.rds": (gzip.compress(b"X\n\0\0\0\3"), "an R object is not read: convert it: Rscript -e "),
    "x.RData": (gzip.compress(b"RDX3\nX\n\0\0\0\3"), "a file of R objects"),
    "x.sas7bdat": (bytes(12) + b"\xc2\xea\x81\x60\xb3\x14\x11\xcf\xbd\x92\x08\0" + bytes(9), "a SAS table"),
    "x.dta": (b"<stata_dta><header><release>118", "a Stata table"),
    "x.sav": (b"$FL2@(#) SPSS DATA FILE", "an SPSS table"),
    "x.pdf": (b"%PDF-1.7\n%\xe2\xe3", "a PDF file"),
    "x.bin": (b"\x89PNG\r\n\x1a\n" + bytes(20), "a picture"),
    "x.docx": (b"PK\x03\x04" + bytes(40), "a text document"),
    "x.pt": (b"PK\x03\x04" + bytes(40), "a PyTorch file"),
    "x.xml": (b'<?xml version="1.0"?><a/>', "an XML file"),
    "lfs.csv": (
        LFS,
        "a Git LFS pointer, and not the file it stands for, is not read: fetch the file: git lfs pull",
    ),
    "html.csv": (HTML, "a web page"),
}


@pytest.mark.parametrize("name", MAGICS)
@pytest.mark.parametrize("renamed", ["", "other"])
def test_kinds_that_are_not_read_are_named(name: str, renamed: str, tmp_path: Path) -> None:
    content, words = MAGICS[name]
    if renamed and name in ("x.docx", "x.pt"):
        words = "a zip archive"
    path = tmp_path / (renamed or name)
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        load_dataset(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["x.parquet", "x.arrow", "x.npy", "x.npz", "x.jsonl", "x.xlsx", "x.csv.gz", "x", "x.h5"]
)
@pytest.mark.parametrize(("content", "words"), [(LFS, "Git LFS pointer"), (HTML, "a web page")])
def test_what_stands_in_the_place_of_a_file_is_named(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=words):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("x.tab", b"a\tb\n1\t2\n", "delimited"),
        ("x.psv", b"a|b\n1|2\n", "delimited"),
        ("x.CSV", b"a,b\n1,2\n", "delimited"),
        ("x.csv.1", b"a,b\n1,2\n", "delimited"),
        ("x.xls", b"a\tb\n1\t2\n", "delimited"),
        ("x", "\ufeffa,b\n1,2\n".encode("utf-16-le"), "delimited"),
        ("ORC.csv", b"ORC,b\n1,2\n", "delimited"),
        ("PAR1.csv", b"PAR1,b\n1,2\n", "delimited"),
        ("times.txt", b"1 10:20 12:30\n0 11:00 13:05\n", "delimited"),
        ("ratios.txt", b"1 2:0.5 1:0.5\n0 2:0.5 1:0.5\n", "delimited"),
        ("x.csv", b'{"a": 1}\n{"a": 2}\n', "json"),
        ("x", b' [\n {"a": 1}]', "json"),
        ("x.json", b"5", "json"),
        ("x", b"PAR1" + bytes(30), "parquet"),
        ("x.csv", b"ARROW1\0\0" + bytes(30), "arrow"),
        ("x", b"\x93NUMPY\1\0v\0{", "npy"),
        ("x", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(30), "workbook"),
    ],
)
def test_a_kind_is_found_by_content_before_its_suffix(
    name: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert file_format(tmp_path / name) == kind


def test_arrays_and_arrow_streams_are_found_without_a_suffix(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        np.savez(file, X=np.zeros(3))
    assert file_format(path) == "npz"
    for stream in (pl.from_pandas(FRAME).write_ipc_stream,):
        stream(path)
        assert file_format(path) == "arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, pa.schema([("a", pa.int8())])):
        pass
    assert file_format(path) == "arrow"


def test_what_is_neither_text_nor_a_known_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\1\0\2\0" * 50)
    with pytest.raises(FileError, match="neither text nor a format that nnkit reads: give CSV"):
        file_format(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        file_format(path)


@pytest.mark.parametrize("lines", [1, 1000])
def test_sparse_text_is_found_in_long_lines_too(lines: int, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    row = "1 " + " ".join(f"{k}:0.125" for k in range(1, 1200))
    path.write_text("\n".join([row] * lines))
    with pytest.raises(FileError, match="sparse text"):
        file_format(path)


def test_many_empty_lines_are_looked_at_quickly(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\n \t" * 5000 + "%")
    assert file_format(path) == "delimited"


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("https://example.org/a b.csv", "curl -LO 'https://example.org/a b.csv'"),
        ("S3://bucket/x.parquet", "aws s3 cp S3://bucket/x.parquet ."),
        ("gs://bucket/x.csv", "gcloud storage cp gs://bucket/x.csv ."),
    ],
)
def test_an_address_is_refused_with_the_command_that_downloads_it(source: str, command: str) -> None:
    with pytest.raises(FileError) as caught:
        load_dataset(source)
    assert str(caught.value).endswith(f"download it first: {command}")
    assert "download it first" in str(remote_source("hdfs://x/y"))
    assert remote_source("data/x.csv") is None
