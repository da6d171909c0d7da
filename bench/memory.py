"""Measure the memory of a training step at its peak, by width and batch: `python bench/memory.py`.

A step with Adam in a process of its own. `its arrays` are the arrays that it cannot do without.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
from program import parser, save

from nnkit.backends import select
from nnkit.bench.problem import PIXELS, Problem, training_step
from nnkit.bench.records import Record, measured, once

SIZES = (
    *((width, 128) for width in (64, 512, 2048, 4096, 8192)),
    *((512, batch) for batch in (1, 1024, 8192)),
)


def needed_bytes(widths: tuple[int, ...], batch: int) -> int:
    """Return the bytes of the arrays that a float32 step with Adam cannot do without.

    Value, gradient and two moments of each parameter; the batch, each layer's outputs, and two gradients of
    the widest layer's outputs; the rows, uint8.
    """
    parameters = sum((fan_in + 1) * units for fan_in, units in pairwise(widths))
    return 16 * parameters + 4 * batch * (sum(widths) + 2 * max(widths[1:])) + batch * widths[0]


def status(name: str) -> int:
    """Return a figure of this process in bytes: VmRSS is what is in memory now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure_here(width: int, batch: int) -> tuple[int, int]:
    """Run a step in this process; return the peak of the process and the bytes taken by the step."""
    kept = [run(8, 2)]  # compiles or loads the kernels
    before = status("VmRSS")
    with suppress(OSError):  # a system that forbids it keeps the libraries' peak
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    kept.append(run(width, batch))
    return status("VmHWM"), status("VmHWM") - before


def run(width: int, batch: int) -> object:
    """Run two steps of a network and return it, so that nothing is freed."""
    pixels, labels = np.ones((batch, PIXELS), np.uint8), np.zeros(batch, np.int32)
    problem = Problem((PIXELS, width, width, 10), batch, 1, pixels, labels, np.arange(batch), {}, 1e-3)
    step = training_step(problem, select("cpu").backend)
    for _ in range(2):
        step.run(0, 1)
    step.read()
    return step


def records(tiny: bool) -> Iterator[Record]:
    """Measure each width and batch."""
    for width, batch in ((8, 4), (8, 16)) if tiny else SIZES:
        runs = []
        for _ in range(1 if tiny else 5):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                runs.append(pool.submit(measure_here, width, batch).result())
        peak, grown = np.array(runs, np.float64).T
        needed = needed_bytes((PIXELS, width, width, 10), batch)
        figures = {
            "peak of the process": measured("B", peak),
            "taken by the step": measured("B", grown),
            "its arrays": once("B", needed),
            "taken / its arrays": measured("", grown / needed),
        }
        yield Record("memory", f"784-{width}-{width}-10", parameters={"batch": batch}, figures=figures)


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    save(options, "Memory", __doc__, records(options.tiny))
