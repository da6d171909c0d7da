"""Section `epoch`: from a file on the disk to a network that was trained on it once, reading it included."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnkit.benchmarks.clocks import clock_for
from nnkit.benchmarks.generated import write_images, write_table
from nnkit.benchmarks.gpu.settings import data_folder
from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.problem import generate_problem, training_step
from nnkit.benchmarks.records import Record, measured, per_second, plain_ratio
from nnkit.benchmarks.timing import REST
from nnkit.engine.places import width_of
from nnkit.runs.config import Config, DataConfig, ModelConfig, RunConfig, TrainingConfig
from nnkit.runs.run import Run

__all__ = ["cases"]

_NO_MNIST = "there is no MNIST: set NNKIT_BENCH_DATA to a folder that holds mnist/"


@dataclass(frozen=True)
class _Source:
    """A data set: how its file comes to be, its target, and the network that is trained on it."""

    name: str
    write: Callable[[Path], Path]
    target: str | None
    hidden: tuple[int, ...]
    batch: int


def cases(plan: Plan) -> list[Case]:
    """Return MNIST, or generated images where a quick run may not take as long, and a generated table."""
    rows = plan.pick(200_000, 20_000, 300)
    table = _Source(f"table of {rows:,} rows", partial(_table, rows), "price", (64, 64), 256)
    if plan.size != "full":
        count = plan.pick(0, 2000, 300)
        side = plan.pick(0, 28, 4)
        hidden = plan.pick((512, 512), (512, 512), (8, 8))
        images = _Source(f"generated images, {count:,}", partial(_images, count, side), None, hidden, 128)
        return [_case(plan, images), _case(plan, table)]
    folder = data_folder()
    if folder is None or not (folder / "mnist").is_dir():
        return [Case(Record("epoch", "MNIST", plan.device), skipped=_NO_MNIST), _case(plan, table)]
    mnist = _Source("MNIST", partial(_found, folder / "mnist"), None, (512, 512), 128)
    return [_case(plan, mnist), _case(plan, table)]


def _found(path: Path, scratch: Path) -> Path:
    return path


def _images(rows: int, side: int, scratch: Path) -> Path:
    return write_images(scratch / "images", rows, max(rows // 6, 10), side)


def _table(rows: int, scratch: Path) -> Path:
    return write_table(scratch / "houses.csv", rows, 20)


def _case(plan: Plan, source: _Source) -> Case:
    hidden = "-".join(map(str, source.hidden))
    blank = Record("epoch", source.name, plan.device, "fp32", {"hidden": hidden, "batch": source.batch})
    return Case(blank, partial(_measure, plan, source), limit=600.0)


def _measure(plan: Plan, source: _Source, blank: Record) -> Iterable[Record]:
    seconds, rows, floor = [], 0, None
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        path = source.write(scratch)
        # The first one compiles or loads the kernels, and fills the system's file cache.
        for turn in range(-1, plan.pick(7, 5, 5)):
            passed, run = _train(plan, source, path, scratch / f"run{turn}")
            rows = run.training_rows
            floor = floor or _Floor(plan, run, source.batch)
            # In turns with the epoch, so that a machine that is slow for a while is slow for both.
            products = floor.measure()
            if turn >= 0:
                seconds.append((*passed, products))
    loading, epoch, whole, products = np.array(seconds).T
    figures = {
        "whole": measured("s", whole),
        "reading": measured("s", loading),
        "epoch": measured("s", epoch),
        "floor of the epoch": measured("s", products),
        "throughput": per_second("samples/s", rows, epoch),
    }
    ratios = {"epoch / floor": plain_ratio(epoch, products), "whole / epoch": plain_ratio(whole, epoch)}
    yield replace(blank, figures=figures, ratios=ratios, details={"rows": rows})


def _train(plan: Plan, source: _Source, path: Path, out: Path) -> tuple[tuple[float, float, float], Run]:
    """Return the seconds of reading, of the epoch's steps, and of everything, the metrics at the end too."""
    config = Config(
        data=DataConfig(train=str(path), target=source.target, validation=0.0),
        model=ModelConfig(hidden=list(source.hidden)),
        training=TrainingConfig(epochs=1, batch_size=source.batch),
        run=RunConfig(device=plan.device, out=str(out)),
    )
    began = time.perf_counter()
    run = Run(config)
    read = time.perf_counter() - began
    run.train()
    whole = time.perf_counter() - began
    rate = float(run.trainer.history["samples_per_second"][0])
    return (read, run.training_rows / rate, whole), run


class _Floor:
    """The matrix products of an epoch alone."""

    def __init__(self, plan: Plan, run: Run, batch: int) -> None:
        places = [place for place in run.trainer.network.places if place.parameters]
        widths = (width_of(places[0].inputs), *(width_of(place.outputs) for place in places))
        backend = plan.backend()
        self._clock = clock_for(backend)
        self._products = training_step(generate_problem(widths, batch, 4), backend).products()
        self._steps = run.training_rows / batch
        self.measure()

    def measure(self) -> float:
        """Return the seconds of as many steps' products as the epoch has."""
        count = max(round(self._steps), 1)
        time.sleep(REST)  # until no thread of the epoch's spins
        return self._clock(partial(self._products.run, count)) * (self._steps / count)
