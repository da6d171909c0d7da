"""Parquet and Arrow files as other libraries write them: string views, compression, stored indices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nnkit.data.examples import RawTable
from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables.arrow import plain_table
from nnkit.data.tables.columnar import read_arrow, read_parquet

POLARS = pl.DataFrame(
    {
        "x": [1.0, None, 3.0],
        "c": ["a", "a long text of more than twelve bytes", None],
        "e": pl.Series(["u", "v", "u"], dtype=pl.Enum(["u", "v"])),
        "k": pl.Series(["m", "n", None], dtype=pl.Categorical),
        "l": [["a"], ["b", "c"], []],
        "s": [{"q": "z"}, {"q": None}, {"q": "y"}],
        "target": [0, 1, 0],
    }
)


@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "lz4"])
@pytest.mark.parametrize("compat", [pl.CompatLevel.newest(), pl.CompatLevel.oldest()])
def test_arrow_files_and_streams_of_polars_are_read(compression: Any, compat: Any, tmp_path: Path) -> None:
    for write in (POLARS.write_ipc, POLARS.write_ipc_stream):
        write(tmp_path / "x.arrow", compression=compression, compat_level=compat)
        assert read_arrow(tmp_path / "x.arrow").table.to_pylist() == POLARS.to_dicts()


def test_numbers_alone_of_polars_are_read(tmp_path: Path) -> None:
    """Polars leaves out the message of the schema between the magic and the first rows."""
    frame = pl.DataFrame({"x": [float(i) for i in range(60)], "y": [i % 2 for i in range(60)]})
    frame.write_ipc(tmp_path / "num.arrow")
    dataset = load_dataset(tmp_path / "num.arrow", target="y")
    assert dataset.train.features["x"].to_pylist() == frame["x"].to_list()


def test_several_batches_and_dictionaries_are_read(tmp_path: Path) -> None:
    table = pa.table({"k": pa.array(["a", "b"] * 50).dictionary_encode(), "x": range(100)})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    assert read_arrow(tmp_path / "x.arrow").table.to_pylist() == table.to_pylist()


def test_no_column_is_left_a_string_view(tmp_path: Path) -> None:
    view = pa.array(["a", "b"], pa.string_view())
    nested = pa.array([["a"], []], pa.list_(pa.string_view()))
    struct = pa.StructArray.from_arrays([view], ["q"])
    table = pa.table({"v": view, "l": nested, "s": struct})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    found = read_arrow(tmp_path / "x.arrow").table
    assert "view" not in str(found.schema)
    assert found.to_pylist() == table.to_pylist()
    pq.write_table(table.select(["v"]), tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "x.parquet").table["v"].type == pa.large_string()


@pytest.mark.parametrize("offset", [0, 1])
def test_what_stands_in_the_place_of_a_missing_text_is_not_followed(offset: int) -> None:
    """Arrow validates no such view, and ends the process where its length is negative."""
    texts = pa.array(["a", "a long text of more than twelve bytes", None, "b"] * 5, pa.string_view())
    validity, views, *data = texts.buffers()
    wild = np.frombuffer(views, np.int32).reshape(-1, 4).copy()
    wild[2::4] = (-(2**31), 0, 0, 0)
    buffers = [validity, pa.py_buffer(wild), *data]
    array = pa.Array.from_buffers(texts.type, len(texts), buffers).slice(offset)
    array.validate(full=True)
    nested = pa.StructArray.from_arrays([array], ["q"])
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 2, 1]), array)
    wanted = texts.slice(offset).to_pylist()
    assert plain_table(pa.table({"a": array}))["a"].to_pylist() == wanted
    assert plain_table(pa.table({"a": nested}))["a"].to_pylist() == [{"q": text} for text in wanted]
    found = plain_table(pa.table({"a": dictionary}))["a"]
    assert found.to_pylist() == [wanted[0], wanted[2], wanted[1]]
    assert found.type.value_type == pa.large_string()


def write_feather(frame: pd.DataFrame, path: Path) -> None:
    """Write an Arrow file with pandas' metadata; `to_feather` refuses a frame with an index of its own."""
    table = pa.Table.from_pandas(frame)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


FORMATS: dict[str, tuple[Callable[[pd.DataFrame, Path], Any], Callable[[Path], RawTable]]] = {
    "parquet": (pd.DataFrame.to_parquet, read_parquet),
    "arrow": (write_feather, read_arrow),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_stored_index_of_pandas_is_told(name: str, tmp_path: Path) -> None:
    write, read = FORMATS[name]
    frame = pd.DataFrame({"x": [1, 2, 3]})
    indices: dict[tuple[str, ...], pd.DataFrame] = {
        (): frame,
        ("__index_level_0__",): frame.set_axis([5, 3, 4]),
        ("id",): frame.set_axis([5, 3, 4]).rename_axis("id"),
        ("a", "b"): frame.assign(a=[1, 1, 2], b=[1, 2, 1]).set_index(["a", "b"]),
    }
    for index, indexed in indices.items():
        write(indexed, tmp_path / "x")
        found = read(tmp_path / "x")
        assert found.index == index
        assert set(found.table.column_names) == {"x", *index}
        assert found.table.schema.metadata is None


@pytest.mark.parametrize(
    "metadata", ["{", "[]", "5", "null", '{"index_columns": 5}', '{"index_columns": ["z", 1]}']
)
def test_damaged_metadata_of_pandas_is_no_mistake(metadata: str, tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2]}).replace_schema_metadata({"pandas": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "x.parquet").index == ()
