"""What every peer's script shares: MNIST from its four files, and the order of an epoch."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN = (512, 512)
EPOCHS, BATCH, RATE = 2, 128, 2e-3


def read(path: Path) -> NDArray[np.uint8]:
    """Return an IDX file's array: pixels as rows of 784, or labels."""
    zipped = path.with_name(f"{path.name}.gz")
    data = bytearray(path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes()))
    count = int.from_bytes(data[4:8], "big")
    if data[3] == 1:
        return np.frombuffer(data, np.uint8, count, 8)
    return np.frombuffer(data, np.uint8, count * 784, 16).reshape(count, 784)


def load(folder: str) -> list[NDArray[np.uint8]]:
    """Return the pixels and labels to train on, and those to test on."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return [read(Path(folder) / f"{name}-ubyte") for name in names]
