"""What reading a CSV into encoded rows costs over `pyarrow.csv.read_csv` alone, in turns, files cached.

    python bench/reading.py [OUT]

writes ``bench/results/reading.json``, or OUT. The tables: 1,000,000 rows of 28 columns of numbers and a
class; the same with a missing word in each column; 20,000 columns of 60 rows, with whole commands on them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

ROWS, COLUMNS, TURNS = 1_000_000, 28, 5
OUT = Path(__file__).parent / "results" / "reading.json"


def main() -> None:
    """Write the tables, measure, and write what came out."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NNKIT_CACHE"] = folder
        found = {name: measured(write(Path(folder) / f"{name}.csv")) for name, write in TABLES.items()}
        found["wide"]["command_seconds"] = commands(Path(folder))
    out.write_text(json.dumps({"turns": TURNS, "cores": os.cpu_count(), "tables": found}, indent=1) + "\n")
    for name, record in found.items():
        print(
            f"{name:8} Arrow {record['arrow_seconds']:.2f} s, nnkit {record['nnkit_seconds']:.2f} s, "
            f"ratio {record['ratio']:.2f} (of single turns {record['ratios']})"
        )


def numbers(rows: int, columns: int) -> dict[str, pa.Array]:
    """Return columns of numbers, a quarter of them whole, and a class."""
    random = np.random.default_rng(0)
    table = {
        f"f{i}": pa.array(random.normal(size=rows).round(6) if i % 4 else random.integers(0, 1000, rows))
        for i in range(columns)
    }
    return table | {"y": pa.array(random.integers(0, 2, rows))}


def write_plain(path: Path) -> Path:
    arrow_csv.write_csv(pa.table(numbers(ROWS, COLUMNS)), path)
    return path


def write_missing(path: Path) -> Path:
    """Write a word for one value in a hundred of each column."""
    random = np.random.default_rng(1)
    columns = numbers(ROWS, COLUMNS)
    for name in columns.keys() - {"y"}:
        texts = columns[name].cast(pa.string())
        columns[name] = pa.array(
            np.where(random.random(ROWS) < 0.01, "NA", texts.to_numpy(False)), pa.string()
        )
    arrow_csv.write_csv(pa.table(columns), path, arrow_csv.WriteOptions(quoting_style="none"))
    return path


def write_wide(path: Path) -> Path:
    arrow_csv.write_csv(pa.table(numbers(60, 20_000)), path)
    return path


TABLES: dict[str, Callable[[Path], Path]] = {
    "plain": write_plain,
    "missing": write_missing,
    "wide": write_wide,
}


def measured(path: Path) -> dict[str, object]:
    """Return the medians of both in turns, and the ratio of each turn."""
    read_by_arrow(path), encode(path)  # the file is cached, and what is imported is
    arrow, nnkit = [], []
    for _ in range(TURNS):
        arrow.append(seconds(lambda: read_by_arrow(path)))
        nnkit.append(seconds(lambda: encode(path)))
    ratios = [ours / theirs for ours, theirs in zip(nnkit, arrow, strict=True)]
    return {
        "mebibytes": round(path.stat().st_size / 2**20, 1),
        "arrow_seconds": round(statistics.median(arrow), 3),
        "nnkit_seconds": round(statistics.median(nnkit), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in sorted(ratios)],
    }


def commands(folder: Path) -> dict[str, float]:
    """Return the seconds of whole commands, once each, on the table of many columns."""
    table, run = folder / "wide.csv", folder / "run"
    options = ["--target", "y", "--epochs", "2", "--out", str(run)]
    calls = {
        "train": ["train", str(table), *options],
        "predict": ["predict", str(run), str(table), "--out", str(folder / "p.csv")],
        "explain": ["explain", str(run), str(table)],
        "report": ["report", str(run)],
    }
    main = [sys.executable, "-c", "from nnkit.cli import main; main()"]
    return {
        name: round(
            seconds(lambda call=call: subprocess.run([*main, *call], check=True, capture_output=True)), 1
        )
        for name, call in calls.items()
    }


def read_by_arrow(path: Path) -> None:
    """Read with Arrow's own types; 20,000 columns of a row are longer than its usual block."""
    arrow_csv.read_csv(path, arrow_csv.ReadOptions(block_size=1 << 22))


def encode(path: Path) -> None:
    """Read, decide the schema, encode every column as float32 and the target as the loss takes it."""
    from nnkit.data.preprocessing import Preprocessor
    from nnkit.data.sources.loading import load_dataset
    from nnkit.data.targets.encoding import TargetEncoder

    dataset = load_dataset(path, target="y")
    features = dataset.train.features
    Preprocessor.fit(features).transform(features)
    target = dataset.train.target
    TargetEncoder.fit(target).transform(target)


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
