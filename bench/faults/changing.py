"""Data files that change, or vanish, while they are read."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from faults.surroundings import refused
from faults.trainings import Child, Record, Workshop

__all__ = ["changing"]

_ROWS, _FEATURES = 60_000, 40


def changing(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """Change a CSV, an NPZ, an NPY, a Parquet file and IDX images at random moments of a training's start.

    Either one error, or a training on the old data: never a crash. The file is watched for in the process's
    open files and mappings, and changed up to 0.2 s after it was first seen there.
    """
    record = Record()
    makers = {"csv": _csv, "npz": _npz, "npy": _npy, "parquet": _parquet, "idx": _idx}
    for number in range(count):
        kind = list(makers)[number % len(makers)]
        name, change = list(_CHANGES.items())[number // len(makers) % len(_CHANGES)]
        source, watched = makers[kind](workshop.folder)
        doing = f"{kind} {name} while it is read"
        options = ["--hidden", "8", "--epochs", "1", "--batch-size", "4096", "--device", "cpu"]
        target = [] if kind in ("npz", "idx") else ["--target", "0" if kind == "npy" else "y"]
        arguments = ["train", str(source), *target, *options, "--out", str(workshop.new_folder())]
        child = Child(arguments)
        seen = _wait_until_open(child, watched)
        time.sleep(draw.choice([0.0, draw.uniform(0, 0.02), draw.uniform(0, 0.2)]))
        change(watched)
        code, printed = child.finish()
        record.count("changed after it was seen open", int(seen))
        if code == 0:
            record.count(f"{doing}: trained")
        else:
            # What was read of a mixture may be told as what it is: a number that is none, by its row.
            refused(record, doing, code, printed, "error: ")
    return record


def _wait_until_open(child: Child, path: Path) -> bool:
    while child.poll() is None:
        try:
            names = {os.readlink(entry) for entry in Path(f"/proc/{child.pid}/fd").iterdir()}
            if str(path) in names or str(path) in Path(f"/proc/{child.pid}/maps").read_text():
                return True
        except OSError:
            pass
        time.sleep(0.0005)
    return False


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def _append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"1,2,3\n" * 1000)


def _overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 10_000)


_CHANGES: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "appended to": _append,
    "deleted": Path.unlink,
    "emptied": lambda path: os.truncate(path, 0),
    "overwritten": _overwrite,
}


def _arrays() -> tuple[np.ndarray, np.ndarray]:
    random_numbers = np.random.default_rng(3)
    X = random_numbers.normal(size=(_ROWS, _FEATURES)).astype(np.float32)
    return X, random_numbers.integers(0, 3, _ROWS)


def _csv(folder: Path) -> tuple[Path, Path]:
    path, kept = folder / "changing.csv", folder / "changing.csv.kept"
    if not kept.exists():
        X, y = _arrays()
        header = ",".join([*(f"x{i}" for i in range(_FEATURES)), "y"])
        np.savetxt(kept, np.column_stack([X, y]), "%.6g", ",", header=header, comments="")
    path.write_bytes(kept.read_bytes())
    return path, path


def _npz(folder: Path) -> tuple[Path, Path]:
    X, y = _arrays()
    path = folder / "changing.npz"
    np.savez(path, X=X, y=y)
    return path, path


def _npy(folder: Path) -> tuple[Path, Path]:
    X, y = _arrays()
    path = folder / "changing.npy"
    np.save(path, np.column_stack([y, X]).astype(np.float32))
    return path, path


def _parquet(folder: Path) -> tuple[Path, Path]:
    import pyarrow as pa
    from pyarrow import parquet

    X, y = _arrays()
    path = folder / "changing.parquet"
    table = pa.table({**{f"x{i}": X[:, i] for i in range(_FEATURES)}, "y": y.astype(str)})
    parquet.write_table(table, path)
    return path, path


def _idx(folder: Path) -> tuple[Path, Path]:
    images = folder / "changing"
    images.mkdir(exist_ok=True)
    random_numbers = np.random.default_rng(4)
    pixels = random_numbers.integers(0, 256, (_ROWS, 28, 28), dtype=np.uint8)
    labels = random_numbers.integers(0, 10, _ROWS).astype(np.uint8)
    for name, array in (("train-images-idx3-ubyte", pixels), ("train-labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (images / name).write_bytes(head + array.tobytes())
    return images, images / "train-images-idx3-ubyte"
