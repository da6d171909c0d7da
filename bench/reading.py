"""Time reading a CSV into encoded rows beside `pyarrow.csv.read_csv` alone: `python bench/reading.py`.

From a cached file to rows encoded as float32; Arrow only reads. A quarter of the columns hold whole
numbers, the others six decimals. Then whole commands on the table of many columns, once each.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from program import in_turns, parser, run_nnkit, save

from nnkit.bench.records import Aim, Record, measured, once

TURNS = 5


def numbers(rows: int, columns: int) -> dict[str, pa.Array]:
    """Return columns of numbers and a class."""
    random = np.random.default_rng(0)
    table = {
        f"f{i}": pa.array(random.normal(size=rows).round(6) if i % 4 else random.integers(0, 1000, rows))
        for i in range(columns)
    }
    return table | {"y": pa.array(random.integers(0, 2, rows))}


def with_missing(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Write a word in the place of one value in a hundred of each column."""
    random = np.random.default_rng(1)
    for name in columns.keys() - {"y"}:
        texts = columns[name].cast(pa.string()).to_numpy(False)
        columns[name] = pa.array(np.where(random.random(len(texts)) < 0.01, "NA", texts), pa.string())
    return columns


def read(path: Path) -> None:
    """Read with Arrow's own types, in blocks longer than a row of 20,000 columns."""
    arrow_csv.read_csv(path, arrow_csv.ReadOptions(block_size=1 << 22))


def encode(path: Path) -> None:
    """Read, decide the schema, and encode features as float32 and the target as the loss takes it."""
    from nnkit.data.preprocessing import Preprocessor
    from nnkit.data.sources.loading import load_dataset
    from nnkit.data.targets.encoding import TargetEncoder

    train = load_dataset(path, target="y").train
    Preprocessor.fit(train.features).transform(train.features)
    TargetEncoder.fit(train.target).transform(train.target)


def records(tiny: bool, folder: Path) -> Iterator[Record]:
    """Measure three tables, and the commands on the last."""
    rows, columns, wide = (2000, 8, 200) if tiny else (1_000_000, 28, 20_000)
    tables = {
        "numbers": (numbers(rows, columns), Aim("<=", 2.0)),
        "a missing word in one cell of a hundred": (with_missing(numbers(rows, columns)), Aim("<=", 2.0)),
        "many columns": (numbers(60, wide), None),
    }
    path = folder / "table.csv"
    for name, (table, aim) in tables.items():
        arrow_csv.write_csv(pa.table(table), path, arrow_csv.WriteOptions(quoting_style="none"))
        taken = in_turns({"Arrow": partial(read, path), "nnkit": partial(encode, path)}, TURNS)
        figures = {
            "file": once("B", path.stat().st_size),
            **{who: measured("s", values) for who, values in taken.items()},
            "nnkit / Arrow": measured("", taken["nnkit"] / taken["Arrow"], aim),
        }
        size = {"rows": len(table["y"]), "columns": len(table) - 1}
        yield Record("reading", name, parameters=size, figures=figures)
    run = str(folder / "run")
    calls = {
        "train": [str(path), "--target", "y", "--epochs", "2", "--out", run],
        "predict": [run, str(path), "--out", str(folder / "predicted.csv")],
        "explain": [run, str(path)],
        "report": [run],
    }
    for command, arguments in calls.items():
        ended = run_nnkit([command, *arguments], folder)
        yield Record("commands", f"nnkit {command}", figures={"process": once("s", ended.seconds)})


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NNKIT_CACHE"] = scratch
        save(given, "Reading a CSV", __doc__, records(given.tiny, Path(scratch)))
