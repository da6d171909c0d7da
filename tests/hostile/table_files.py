"""Parquet and Arrow files: good ones of every encoding, and ones altered in their metadata or bytes."""

from __future__ import annotations

import datetime
import io
from decimal import Decimal
from functools import cache
from random import Random
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from hostile.mutations import alter_bytes, random_bytes

__all__ = ["arrow_file", "parquet_file"]

_ROWS = 12


@cache
def _tables() -> tuple[pa.Table, ...]:
    rows = range(_ROWS)
    day = datetime.datetime(2024, 1, 1)
    plain = pa.table(
        {
            "a": pa.array([row * 0.5 for row in rows]),
            "b": pa.array([None if row % 5 == 3 else row for row in rows], pa.int32()),
            "colour": pa.array(["red", "blue", "red", None] * 3),
            "target": pa.array([row % 2 for row in rows]),
        }
    )
    times = pa.table(
        {
            "when": pa.array([day + datetime.timedelta(row) for row in rows], pa.timestamp("ns", "UTC")),
            "day": pa.array(rows, pa.date32()),
            "price": pa.array([Decimal(row) / 4 for row in rows], pa.decimal128(9, 2)),
            "kind": pa.array(["x", "y", "z"] * 4).dictionary_encode(),
            "flag": pa.array([row % 3 == 0 for row in rows]),
            "small": pa.array(rows, pa.float16()),
            "target": pa.array(["yes", "no"] * 6, pa.large_string()),
        }
    )
    odd = pa.table(
        {
            "a": pa.array(rows, pa.uint64()),
            "nothing": pa.nulls(_ROWS),
            "view": pa.array(["p", "q"] * 6, pa.string_view()),
            "kind": pa.array([1, 2, 3] * 4, pa.int64()).dictionary_encode(),
            "target": pa.array([row / 7 for row in rows], pa.float32()),
        }
    )
    nested = plain.append_column("list", pa.array([[row] for row in rows]))
    return plain, times, odd, nested


@cache
def _parquet_seeds() -> tuple[bytes, ...]:
    plain, times, odd, nested = _tables()
    numbers = plain.select(["b", "target"])
    variants: tuple[tuple[pa.Table, dict[str, Any]], ...] = (
        (plain, {"compression": "none"}),
        (plain, {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"}),
        (plain, {"compression": "snappy", "row_group_size": 5}),
        (plain, {"compression": "gzip", "data_page_size": 16}),
        (plain, {"compression": "zstd", "write_page_checksum": True, "write_page_index": True}),
        (plain, {"compression": "none", "store_schema": False, "write_statistics": False}),
        (times, {"compression": "none"}),
        (times, {"compression": "snappy", "use_dictionary": False}),
        (odd, {"compression": "none"}),
        (nested, {"compression": "none"}),
        (numbers, {"compression": "none", "use_dictionary": False, "column_encoding": "DELTA_BINARY_PACKED"}),
        (
            plain.select(["colour", "a", "target"]),
            {
                "compression": "none",
                "use_dictionary": False,
                "column_encoding": {
                    "colour": "DELTA_BYTE_ARRAY",
                    "a": "BYTE_STREAM_SPLIT",
                    "target": "PLAIN",
                },
            },
        ),
    )
    seeds = []
    for table, options in variants:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, **options)
        seeds.append(buffer.getvalue())
    return tuple(seeds)


@cache
def _arrow_seeds() -> tuple[bytes, ...]:
    seeds = []
    for table in _tables():
        for compression in ("uncompressed", "lz4", "zstd"):
            buffer = io.BytesIO()
            feather.write_feather(table, buffer, compression=compression)
            seeds.append(buffer.getvalue())
        buffer = io.BytesIO()
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
        seeds.append(buffer.getvalue())
    # Polars leaves out the message of the schema, which the footer repeats.
    for compression in ("uncompressed", "zstd"):
        buffer = io.BytesIO()
        pl.DataFrame(_tables()[0]).write_ipc(buffer, compression=compression)  # type: ignore[arg-type]
        seeds.append(buffer.getvalue())
    return tuple(seeds)


def parquet_file(random: Random) -> bytes:
    """Return a Parquet file, altered in its footer (half of the time) or in its pages."""
    seeds = _parquet_seeds()
    seed = random.choice(seeds)
    action = random.random()
    if action < 0.03:
        return random.choice((b"", b"PAR1")) + random_bytes(random) + random.choice((b"", b"PAR1"))
    length = int.from_bytes(seed[-8:-4], "little")
    pages, footer = seed[4 : -8 - length], seed[-8 - length : -8]
    if action < 0.5:
        footer = alter_bytes(footer, random, seeds if random.random() < 0.1 else ())
    if 0.45 < action < 0.9:
        pages = alter_bytes(pages, random, seeds if random.random() < 0.1 else ())
    claimed = len(footer) if action < 0.95 else random.randrange(2**32)
    data = b"PAR1" + pages + footer + claimed.to_bytes(4, "little") + b"PAR1"
    return data if action < 0.97 else alter_bytes(data, random)


def arrow_file(random: Random) -> bytes:
    """Return an Arrow file or stream, or a Feather file, altered."""
    seeds = _arrow_seeds()
    seed = random.choice(seeds)
    action = random.random()
    if action < 0.03:
        return random.choice((b"", b"ARROW1\0\0", b"FEA1", b"\xff\xff\xff\xff")) + random_bytes(random)
    if action < 0.35:
        # The first message is the schema.
        return seed[:16] + alter_bytes(seed[16:600], random) + seed[600:]
    if action < 0.5:
        return seed[:-400] + alter_bytes(seed[-400:-10], random) + seed[-10:]
    if action < 0.8:
        # Between the schema and the footer, without a change of length.
        start = random.randrange(400, max(401, len(seed) - 400))
        altered = alter_bytes(seed[start : start + 64], random, most=2)
        return seed[:start] + altered[:64].ljust(64, b"\0") + seed[start + 64 :]
    return alter_bytes(seed, random, seeds if random.random() < 0.1 else ())
