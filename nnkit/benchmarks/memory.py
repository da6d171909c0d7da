"""Section `memory`: what a training step takes at its peak, and how that grows with batch and width."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from nnkit.backends import select
from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.problem import PIXELS, Problem, training_step
from nnkit.benchmarks.records import Record, measured, once

__all__ = ["cases", "measure_here", "needed_bytes", "peak", "reset_peak", "resident"]

_CHILD = """
import json, sys
from nnkit.benchmarks.memory import measure_here
measure_here(*json.loads(sys.argv[1]))
"""
_WIDTHS = (64, 512, 2048, 4096, 8192)
_BATCHES = (1, 128, 1024, 8192)


def cases(plan: Plan) -> list[Case]:
    """Return a case for each width at batch 128, and for each batch at width 512."""
    widths, batches = plan.pick(_WIDTHS, (64, 512), (8,)), plan.pick(_BATCHES, (128, 1024), (4, 16))
    middle = plan.pick((512, 128), (512, 128), (8, 4))
    sizes = dict.fromkeys(
        [*((width, middle[1]) for width in widths), *((middle[0], batch) for batch in batches)]
    )
    return [_case(plan, width, batch) for width, batch in sizes]


def _case(plan: Plan, width: int, batch: int) -> Case:
    blank = Record("memory", "784-w-w-10", plan.device, "fp32", {"width": width, "batch": batch})
    needed = needed_bytes((PIXELS, width, width, 10), batch)
    return Case(blank, partial(_measure, plan, width, batch), memory=1.5 * needed, limit=300.0)


def needed_bytes(widths: tuple[int, ...], batch: int) -> int:
    """Return the bytes of the arrays that a float32 step with Adam cannot do without.

    Value, gradient and two moments of each parameter; the batch, each layer's outputs, and two gradients of
    the widest layer's outputs; the rows, uint8.
    """
    parameters = sum((fan_in + 1) * units for fan_in, units in pairwise(widths))
    return 16 * parameters + 4 * batch * (sum(widths) + 2 * max(widths[1:])) + batch * widths[0]


def _measure(plan: Plan, width: int, batch: int, blank: Record) -> Iterable[Record]:
    command = [sys.executable, "-c", _CHILD, json.dumps([width, batch, plan.device])]
    runs = []
    for _ in range(plan.pick(5, 2, 1)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"its process ended with status {done.returncode}: {done.stderr[-1000:]}")
        runs.append(json.loads(done.stdout))
    peak, grown = (np.array([run[key] for run in runs], np.float64) for key in ("peak", "grown"))
    needed = needed_bytes((PIXELS, width, width, 10), batch)
    figures = {
        "peak of the process": measured("B", peak),
        "taken by the step": measured("B", grown),
        "its arrays": once("B", needed),
    }
    yield replace(blank, figures=figures, ratios={"taken / its arrays": measured("", grown / needed)})


def measure_here(width: int, batch: int, device: str) -> None:
    """Make a step and run it in this process; print JSON of the bytes taken. A tiny step goes before.

    On a GPU the bytes are the device's, and the peak of the process is still the host's.
    """
    _run(device, 8, 2)
    before, free = resident(), _free(device)
    reset_peak()
    _run(device, width, batch)
    grown = peak() - before if free is None else free - (_free(device) or 0)
    print(json.dumps({"peak": peak(), "grown": grown}))


_kept: list[object] = []  # what has been made, so that nothing is given back before it is counted


def _run(device: str, width: int, batch: int) -> None:
    pixels, labels = np.ones((batch, PIXELS), np.uint8), np.zeros(batch, np.int32)
    widths = (PIXELS, width, width, 10)
    problem = Problem(widths, batch, 1, pixels, labels, np.arange(batch), {}, 1e-3)
    step = training_step(problem, select(device).backend)
    for _ in range(2):
        step.run(0, 1)
    step.read()
    _kept.append(step)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return _status("VmRSS")


def peak() -> int:
    """Return the most bytes of this process that were in memory at once."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let the peak begin anew, at what is resident; a system that forbids it keeps the libraries' in it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _free(device: str) -> int | None:
    """Return the free bytes of a GPU, None for the CPU."""
    if not device.startswith("cuda"):
        return None
    import cupy

    with cupy.cuda.Device(int(device.partition(":")[2] or 0)):
        return int(cupy.cuda.runtime.memGetInfo()[0])
