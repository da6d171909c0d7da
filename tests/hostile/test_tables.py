"""Parquet and Arrow files that ended the process, stand for more than fits, or hold code."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from hostile.checks import Trap, endure
from nnkit.data import limits
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import DataError


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_limit", lambda: 1 << 22)


def parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def arrow(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(table, buffer, **options)
    return buffer.getvalue()


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(
        buffer, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def repeated(text: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([text]))


TEXTS = pa.table(
    {
        "a": pa.array(["x", "y", None, "x"]),
        "b": pa.array(["p", "q", "r", "p"], pa.large_string()),
        "c": pa.array([1.5, 2.5, 3.5, None]),
        "d.e": pa.array(["u", "v", "u", "v"]),
        "target": pa.array(["no", "yes", "no", "yes"]),
    }
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {
            "use_dictionary": False,
            "column_encoding": {"a": "DELTA_BYTE_ARRAY", "b": "DELTA_LENGTH_BYTE_ARRAY"},
        },
        {"row_group_size": 1, "compression": "zstd", "write_page_checksum": True},
        {"data_page_version": "2.0", "store_schema": False},
    ],
)
def test_texts_come_back_as_they_were_written(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet(TEXTS, **options))
    table = load_dataset(tmp_path / "x.parquet", require_target=False).train.features
    assert table.to_pydict() == TEXTS.to_pydict()
    if options.get("store_schema", True):
        assert table.schema.types == TEXTS.schema.types


def test_a_table_of_texts_alone_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(parquet(TEXTS.select(["a", "target"])))
    assert load_dataset(tmp_path / "x.parquet").train.features.to_pydict() == {"a": ["x", "y", None, "x"]}


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": np.zeros(2_000_000), "target": np.zeros(2_000_000, np.int8)}),
        pa.table({"a": repeated("x" * 10_000, 1000).dictionary_decode(), "target": np.arange(1000) % 2}),
        pa.table({"a": repeated("x" * 10_000, 1000), "target": np.arange(1000) % 2}),
    ],
)
def test_a_small_file_of_more_than_fits_is_refused(table: pa.Table) -> None:
    packed = [("parquet", parquet(table, compression="zstd"))]
    packed += [("arrow", arrow(table, compression="zstd")), ("arrow", stream(table, "lz4"))]
    for name, data in packed:
        assert len(data) < 200_000
        assert "room for" in str(endure(name, data))


@pytest.mark.usefixtures("small_machine")
def test_rows_without_any_bytes_are_counted() -> None:
    rows = 12345
    data = stream(pa.table({"a": pa.nulls(rows), "target": pa.nulls(rows)}))
    claimed = data.replace(rows.to_bytes(8, "little"), (2**40).to_bytes(8, "little"))
    assert claimed != data
    assert "room for" in str(endure("arrow", claimed))


@pytest.mark.usefixtures("small_machine")
def test_what_fits_is_read() -> None:
    rows = 20_000
    table = pa.table({"a": np.arange(rows) / 7, "colour": repeated("x" * 50, rows), "b": np.arange(rows) % 7})
    table = table.append_column("target", pa.array(np.arange(rows) % 2))
    for name, data in (
        ("parquet", parquet(table)),
        ("arrow", arrow(table, compression="zstd")),
        ("arrow", stream(table)),
    ):
        assert "room for" not in str(endure(name, data))


def test_feather_of_the_first_version_is_refused() -> None:
    """Arrow reads it without checking it: of altered ones, one in four ended the process."""
    error = endure("arrow", b"FEA1" + bytes(200) + b"FEA1")
    assert isinstance(error, DataError)
    assert "version 1" in str(error)


@pytest.mark.parametrize("place", ["pages", "dictionary"])
def test_texts_that_are_not_utf8_are_refused(place: str) -> None:
    data = parquet(
        pa.table({"a": ["MARK", "else"] * 10, "target": [0, 1] * 10}),
        compression="none",
        use_dictionary=place == "dictionary",
        write_statistics=False,
    )
    assert isinstance(endure("parquet", data.replace(b"MARK", b"\xff\xfe\xc3\x28")), DataError)
    data = arrow(pa.table({"a": ["MARK", "else"] * 10, "target": [0, 1] * 10}), compression="uncompressed")
    assert isinstance(endure("arrow", data.replace(b"MARK", b"\xff\xfe\xc3\x28")), DataError)


def test_a_page_that_does_not_match_its_checksum_is_refused() -> None:
    data = parquet(
        pa.table({"a": np.arange(50) + 0.5, "target": np.arange(50) % 2}),
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    place = data.index(np.float64(20.5).tobytes())
    altered = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    assert isinstance(endure("parquet", altered), DataError)


def test_extension_types_load_no_pickle(tmp_path: Path) -> None:
    """Arrow once unpickled this type's metadata (CVE-2023-47248)."""
    trap = Trap(tmp_path / "sprung").pickled()
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": trap}
    schema = pa.schema([pa.field("a", pa.float64(), metadata=metadata), pa.field("target", pa.int64())])
    table = pa.table([pa.array([1.0, 2.0] * 30), pa.array([0, 1] * 30)], schema=schema)
    for name, data in (("parquet", parquet(table)), ("arrow", arrow(table)), ("arrow", stream(table))):
        assert trap in data or name == "parquet"  # which keeps the schema as base64
        endure(name, data)
    assert not (tmp_path / "sprung").exists()


def test_the_test_of_pickles_would_notice_one(tmp_path: Path) -> None:
    import pickle

    pickle.loads(Trap(tmp_path / "sprung").pickled())
    assert os.path.exists(tmp_path / "sprung")


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array(["x", "y"]), pa.array(["x", "y"])], names=["a", "a"])
    for name, data in (("parquet", parquet(table)), ("arrow", stream(table))):
        assert "both named 'a'" in str(endure(name, data))


def test_a_damaged_chunk_of_metadata_does_not_end_the_process() -> None:
    """Arrow ended it with an uncaught exception where such a chunk was asked for its encodings."""
    data = parquet(TEXTS, compression="none", write_page_index=True)
    length = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - length
    for place in range(start, len(data) - 8, 7):
        altered = data[:place] + bytes([data[place] ^ 0x1F]) + data[place + 1 :]
        endure("parquet", altered)


def test_a_long_time_zone_is_told_in_short() -> None:
    times = pa.array([0, 1] * 10, pa.timestamp("s", "x" * 5000))
    for names in (["a", "target"], ["target", "a"]):
        table = pa.Table.from_arrays([times, pa.array([0.5, 1.5] * 10)], names=names)
        for name, data in (("parquet", parquet(table)), ("arrow", stream(table))):
            endure(name, data)


def test_a_message_of_arrow_that_is_only_an_end_is_told() -> None:
    data = bytearray(arrow(TEXTS, compression="uncompressed"))
    # The first message follows the magic; 0 as its length ends a stream, and the footer still points to it.
    with pa.ipc.open_file(pa.py_buffer(bytes(data))) as reader:
        assert reader.num_record_batches == 1
    for place in range(8, len(data) - 8, 8):
        if data[place : place + 4] == b"\xff\xff\xff\xff":
            altered = bytearray(data)
            altered[place + 4 : place + 8] = bytes(4)
            assert isinstance(endure("arrow", bytes(altered)), DataError | None)
