"""Delimited text that once raised something else than an NnkitError, was misread, or took too long."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hostile.checks import endure
from nnkit.data import limits
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import DataError, FileError


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_what_ends_a_line_for_python_alone_ends_none(sign: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"a,b{sign}c,target\n1,2,0\n3,4,1\n", encoding="utf-8", newline="")
    assert load_dataset(path).train.features.column_names == ["a", f"b{sign}c"]


def test_damage_behind_the_sample_is_told(tmp_path: Path) -> None:
    text = b"".join(b"%d\t%d\t%d\n" % (row, row * row, row % 2) for row in range(60_000))
    whole = gzip.compress(text)
    for damaged in (whole[:-20], whole[:-2000] + bytes(1000) + whole[-1000:]):
        for name in ("x.tsv.gz", "x.csv.gz"):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(FileError, match="gzip file is"):
                load_dataset(tmp_path / name)


def test_a_header_longer_than_the_sample_is_read_whole(tmp_path: Path) -> None:
    names = [f"column_number_{place}" for place in range(8000)]
    path = tmp_path / "x.csv"
    rows = [",".join([str(row)] * len(names)) for row in range(3)]
    path.write_text("\n".join([",".join(names), *rows]) + "\n")
    assert load_dataset(path, target=-1).train.features.column_names == names[:-1]


def test_a_cell_longer_than_a_block_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,target\n" + "x" * (3 << 20) + ",1\n")
    assert len(load_dataset(path).train.features["a"][0].as_py()) == 3 << 20


def test_more_columns_than_are_read_are_refused() -> None:
    assert "more columns than the 100000 that are read from text" in str(
        endure("csv", (b"1," * 100_000 + b"1\n") * 2)
    )


def test_text_that_unpacks_to_more_than_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_limit", lambda: 1 << 20)
    data = gzip.compress(b"a,target\n" + b"1,0\n" * 1_000_000)
    assert len(data) < 10_000
    assert "room for" in str(endure("csv", data))


@pytest.mark.parametrize(
    "text",
    [
        "a,b,target\n" + "x" * 5000 + ",1,0\n",
        "a,b," + "y" * 5000 + "\n1,2,0\n3,4,1\n",
        "\n".join(["a,target", *(f"1,{label * 400}" for label in "abc")]),
        "a,target\n1e999,0\n2,1\n",
        "a,target\n1.7e308,0\n-1.7e308,1\n" * 30,
        'a,target\n"1,0\n2,1\n',
        "a\rb,target\r1,0\r",
        ",,,\n,,,\n",
        " \n \n1",
    ],
)
def test_odd_text_gives_a_result_or_a_short_error(text: str) -> None:
    for name in ("csv", "tsv"):
        endure(name, text.encode())
        endure(name, text.replace(",", "\t").encode())


def test_values_that_overflow_in_scaling_are_told_without_a_warning() -> None:
    """`numpy` warned of the overflow on the way to the error."""
    rows = "".join(f"{row % 5},{row},red,{row % 2}\n" for row in range(30))
    text = "a,b,colour,target\n" + rows + "1,1e308,red,0\n1,-1e308,red,1\n"
    assert isinstance(endure("csv", text.encode()), DataError)


@pytest.mark.parametrize("value", ["inf", "?"])
def test_long_names_of_columns_are_told_in_short(value: str) -> None:
    """The name stood whole in the message on a value that cannot be used."""
    error = endure("csv", f"a,{'b' * 140_000}\n1,{value}\n2,1\n".encode())
    assert "the name of column 2" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b'null\n{"a": 1, "target": 2}\n',
        b"null\n",
        b'  null\n{"a": 1}',
        b'\xef\xbb\xbfnull\n{"a": 1}\n',
        b'null{"a": 1}\n',
        b'{"a": 1}\n' * 3 + b"null\n",
        # Arrow begins a block behind either sign, and this one is longer than a block.
        b'{"a": 1}\r' * 200_000 + b"null\r" + b'{"a": 1}\n',
        b'{"a": 1}\n' * 200_000 + b'null\n{"a": 1}\n',
    ],
)
def test_a_line_that_is_null_is_refused_before_arrow_sees_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"line \d+ is null"):
        load_dataset(path, target="target")


def test_null_within_a_line_is_a_value(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"a": null, "target": 3}\n{"a": 2, "target": 4}\n')
    features = load_dataset(path, target="target").train.features
    assert features["a"].to_pylist() == [None, 2]
