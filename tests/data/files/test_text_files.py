"""Compressed text: each compression is found by its bytes, read as it is, and named where it is damaged."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from nnkit.data import limits
from nnkit.data.files.text import compression, open_text, plain_name, read_text
from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables.decoding import check_utf8
from nnkit.errors import DataError, FileError

CSV = "a,b,target\n" + "".join(f"{i * 7 % 400},{i * 2.5},{i % 2}\n" for i in range(400))
ROWS = "".join(f'{{"a": {i}, "target": {i % 2}}}\n' for i in range(40))


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "zstd": zstd}


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ""])
def test_compressed_text_is_read_whatever_its_suffix(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(PACK[name](CSV.encode()))
    assert compression(path) == name
    features = load_dataset(path).train.features
    assert features.column_names == ["a", "b"]
    assert features["b"].to_pylist() == [i * 2.5 for i in range(400)]


@pytest.mark.parametrize("name", PACK)
def test_compressed_json_lines_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.packed"
    path.write_bytes(PACK[name](ROWS.encode()))
    assert load_dataset(path).train.features["a"].to_pylist() == list(range(40))


@pytest.mark.parametrize("name", PACK)
def test_several_streams_one_after_another_are_one_text(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(PACK[name](b"a,b\n") + PACK[name](b"1,2\n"))
    assert read_text(path, 1) == b"a,b\n1,2\n"


@pytest.mark.parametrize("name", PACK)
def test_a_compressed_file_that_is_cut_short_or_damaged_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    packed = PACK[name](CSV.encode())
    path.write_bytes(packed[:-5])
    with pytest.raises(FileError, match=f"the {name} file is cut short"):
        read_text(path, 1)
    path.write_bytes(packed[:20] + bytes(byte ^ 0xFF for byte in packed[20:60]) + packed[60:])
    with pytest.raises(FileError, match=f"the {name} file is (damaged|cut short)"):
        read_text(path, 1)


@pytest.mark.parametrize("name", PACK)
def test_a_bomb_is_refused_before_it_is_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "memory_limit", lambda: 1 << 22)
    path = tmp_path / "x.csv"
    path.write_bytes(PACK[name](b"1,2\n" * (1 << 22)))
    with pytest.raises(DataError, match="room for"):
        load_dataset(path)


def test_a_text_that_begins_like_a_compressed_file_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("BZh9,target\n1,0\n2,1\n")
    assert compression(path) == ""
    assert load_dataset(path).train.features.column_names == ["BZh9"]


def test_the_line_that_is_not_utf8_is_named_in_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(zstd(b"a\nb\n\xff\n"))
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        check_utf8(read_text(path, 1), str(path))
    with open_text(path) as stream:
        assert stream.readline() == b"a\n"


def test_a_name_without_the_suffix_of_its_compression() -> None:
    names = ["x.csv.gz", "x.CSV.BZ2", "x.tsv.zst", "x.csv", "gz"]
    assert [plain_name(Path(name)) for name in names] == ["x.csv", "x.CSV", "x.tsv", "x.csv", "gz"]
