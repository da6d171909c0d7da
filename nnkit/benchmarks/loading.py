"""Section `loading`: an epoch's batches alone, gathered from each place where the rows may lie."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Copy
from nnkit.backends.protocol import Backend
from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.problem import PIXELS
from nnkit.benchmarks.records import Record, measured, per_second, plain_ratio
from nnkit.feed.batch import Placement, Rows
from nnkit.feed.features import Features
from nnkit.feed.order import epoch_order
from nnkit.kernels.layout import BATCH, COUNTERS

__all__ = ["PLACES", "cases"]

PLACES = ("on the device", "ahead", "pinned", "pageable", "mapped", "mapped, ahead")
_BATCH = 128
_AHEAD = ("ahead", "pinned", "pageable", "mapped, ahead")


def cases(plan: Plan) -> list[Case]:
    """Return a case for each place; of those that the device does not load from, why."""
    rows = plan.pick(468, 100, 4) * _BATCH
    found = []
    for place in PLACES:
        blank = Record("loading", place, plan.device, "fp32", {"batch": _BATCH, "rows": rows})
        found.append(Case(blank, partial(_measure, plan, rows, place), skipped=_missing(plan, place)))
    return found


def _missing(plan: Plan, place: str) -> str:
    """Return why rows are not loaded from there, or nothing."""
    if place in ("pinned", "pageable") and not plan.on_gpu:
        return "the processor works in the host's memory: there is no way from it to measure"
    if place in ("ahead", "mapped") and plan.on_gpu:
        return "rows that are not on a GPU always come to it ahead of the step"
    return ""


def _measure(plan: Plan, rows: int, place: str, blank: Record) -> Iterable[Record]:
    pixels = np.random.default_rng(0).integers(0, 256, (rows, PIXELS), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        source: NDArray = pixels
        if place.startswith("mapped"):
            np.save(Path(folder) / "pixels.npy", pixels)
            source = np.load(Path(folder) / "pixels.npy", mmap_mode="r")
        yield _time(plan, source, place, blank)


def _time(plan: Plan, source: NDArray, place: str, blank: Record) -> Record:
    """Time an epoch of gathers in turns with copies of as many bytes as the batches are."""
    backend, count = plan.backend(), len(source) // _BATCH
    features = Features(source, scale=np.full(PIXELS, 1 / 255))
    placement: Placement = "device"
    if place in _AHEAD:
        placement = "pageable" if place == "pageable" else "pinned"
    labels = np.zeros(len(source), np.int32)
    rows = Rows(backend, np.float32, features, labels, shuffled=True, placement=placement)
    batch = rows.batch(_BATCH)
    gathers = [
        backend.compile([rows.gather(batch, _counters(backend, number), _BATCH)]).run
        for number in range(count)
    ]
    rows.begin(epoch_order(len(source), 0, 0))

    def load() -> None:
        for first, several in rows.stretches(0, count, _BATCH):
            for gather in gathers[first : first + several]:
                gather()

    target = backend.zeros(batch.inputs.shape, np.float32)
    copies = [backend.compile([Copy(batch.inputs, target)]).run] * count
    loading, copying = plan.time([load, lambda: [copy() for copy in copies]])
    rows.close()
    figures = {
        "a batch": measured("s", loading / count),
        "throughput": per_second("samples/s", len(source), loading),
        "copy of a batch": measured("s", copying / count),
    }
    details = {"bytes a batch": int(batch.inputs.nbytes), "from": "uint8, shuffled"}
    return replace(
        blank, figures=figures, ratios={"gather / copy": plain_ratio(loading, copying)}, details=details
    )


def _counters(backend: Backend, batch: int) -> object:
    """Return counters that stand at a batch: a gather reads there which it is."""
    counters = backend.zeros(COUNTERS, np.int64)
    backend.write(counters[BATCH : BATCH + 1], batch)
    return counters
