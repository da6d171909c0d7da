"""Measure an epoch's batches alone, gathered from each place where rows may lie: `python bench/loading.py`.

An epoch of gathers of 128 shuffled rows of 784 bytes, as float32, in turns with copies of the batches.
`ahead`: a thread reads the next batches meanwhile; `mapped`: the rows lie in a memory-mapped file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from program import parser, save

from nnkit.backends.operations import Copy
from nnkit.bench.problem import PIXELS
from nnkit.bench.records import Record, measured
from nnkit.bench.timing import Plan
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.feed.order import epoch_order
from nnkit.kernels.layout import BATCH, COUNTERS

SIZE = 128


def measure(plan: Plan, source: NDArray, name: str) -> Record:
    """Time an epoch of gathers in turns with copies of as many bytes as the batches have."""
    backend, count = plan.backend(), len(source) // SIZE
    features = Features(source, scale=np.full(PIXELS, 1 / 255))
    labels = np.zeros(len(source), np.int32)
    placement = "pinned" if name.endswith("ahead") else "device"
    rows = Rows(backend, np.float32, features, labels, shuffled=True, placement=placement)
    batch = rows.batch(SIZE)
    gathers = []
    for number in range(count):
        counters = backend.zeros(COUNTERS, np.int64)
        backend.write(counters[BATCH : BATCH + 1], number)
        gathers.append(backend.compile([rows.gather(batch, counters, SIZE)]).run)
    rows.begin(epoch_order(len(source), 0, 0))

    def load() -> None:
        for first, several in rows.stretches(0, count, SIZE):
            for gather in gathers[first : first + several]:
                gather()

    target = backend.zeros(batch.inputs.shape, np.float32)
    copies = [backend.compile([Copy(batch.inputs, target)]).run] * count
    loading, copying = plan.time([load, lambda: [copy() for copy in copies]])
    rows.close()
    figures = {
        "a batch": measured("s", loading / count),
        "throughput": measured("samples/s", len(source) / loading),
        "copy of a batch": measured("s", copying / count),
        "gather / copy": measured("", loading / copying),
    }
    parameters: dict[str, int | float | str] = {"batch": SIZE, "rows": len(source)}
    return Record("loading", name, plan.device, "fp32", parameters, figures)


def records(plan: Plan) -> Iterator[Record]:
    """Measure each place."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (plan.pick(468, 100, 4) * SIZE, PIXELS), dtype=np.uint8
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.npy"
        np.save(path, pixels)
        mapped = np.load(path, mmap_mode="r")
        for name in ("on the device", "ahead", "mapped", "mapped, ahead"):
            yield measure(plan, mapped if name.startswith("mapped") else pixels, name)


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    save(options, "Loading batches", __doc__, records(Plan("cpu", "tiny" if options.tiny else "full")))
