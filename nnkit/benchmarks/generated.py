"""Files of generated data in the formats that people have: images as MNIST's, and a table."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

__all__ = ["write_images", "write_table"]


def write_images(folder: Path, rows: int, test_rows: int, side: int) -> Path:
    """Write a training and a test set in MNIST's own format, ten classes in turn; return the folder.

    Parameters
    ----------
    folder : Path
        To be made.
    rows, test_rows : int
        Images to train and to test on.
    side : int
        Pixels in a row and in a column of an image.
    """
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, count in (("train", rows), ("t10k", test_rows)):
        images = generator.integers(0, 256, (count, side, side), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">4I", 0x803, *images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, count) + labels.tobytes()
        )
    return folder


def write_table(path: Path, rows: int, columns: int) -> Path:
    """Write a CSV of numbers, one column of categories, and a target that follows from them; return the path.

    Parameters
    ----------
    path : Path
        The file.
    rows, columns : int
        Of numbers; the category and the target, ``price``, come after them.
    """
    import pyarrow as pa
    from pyarrow import csv

    generator = np.random.default_rng(0)
    numbers = generator.standard_normal((rows, columns), dtype=np.float32)
    kind = generator.integers(0, 4, rows)
    price = numbers @ generator.standard_normal(columns, dtype=np.float32) + kind + numbers[:, 0] ** 2
    table = {f"x{number}": numbers[:, number] for number in range(columns)}
    table |= {"kind": np.array(["flat", "house", "hut", "tower"])[kind], "price": price}
    csv.write_csv(pa.table(table), path)
    return path
