"""Section `step`: a training step against the floor of its own matrix products, over widths and batches."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import numpy as np

from nnkit.backends.operations import Copy, Product
from nnkit.benchmarks.plan import LEAST_REPEATS, Case, Plan
from nnkit.benchmarks.problem import PIXELS, generate_problem, training_step
from nnkit.benchmarks.records import Quantity, Record, measured, per_second, plain_ratio
from nnkit.benchmarks.steps import StepTimes, measure_in_processes
from nnkit.training.precision import half_of

__all__ = ["REFERENCES", "cases", "measure_step_in", "step_cost"]

_WIDTHS = (64, 256, 512, 1024, 2048, 4096, 8192)
_BATCHES = (1, 8, 32, 128, 512, 2048, 8192)
# The networks whose ratio has an aim: pixels, and a table's row.
REFERENCES = (((784, 512, 512, 10), 128, 20), ((20, 64, 64, 1), 32, 2000))


def cases(plan: Plan) -> list[Case]:
    """Return a case for each width and batch, and on the CPU one for each reference network."""
    widths = plan.pick(_WIDTHS, (64, 512), (4, 8))
    batches = plan.pick(_BATCHES, (1, 128, 1024), (1, 16))
    sweep = [_case(plan, width, batch) for width in widths for batch in batches]
    return sweep if plan.on_gpu else [*sweep, *_references(plan)]


def _case(plan: Plan, width: int, batch: int) -> Case:
    widths = (PIXELS, width, width, 10)
    blank = Record("step", "784-w-w-10", plan.device, "fp32", {"width": width, "batch": batch})
    seconds, memory = step_cost(plan, widths, batch)
    # Five turns and one before them, of the step and of its floor; three such steps for making the network.
    return Case(
        blank, partial(_measure, plan, widths, batch), seconds * (2 * (LEAST_REPEATS + 1) + 3), memory
    )


def step_cost(plan: Plan, widths: tuple[int, ...], batch: int, itemsize: int = 4) -> tuple[float, float]:
    """Return the seconds and the bytes that one step is expected to take.

    Six operations a weight and row, and each parameter's value, gradient and two moments moved once.
    """
    weights = sum(fan_in * units for fan_in, units in pairwise(widths))
    product, moved = _rates(plan)
    seconds = 6 * weights * batch / product + 7 * itemsize * weights / moved + 2e-5
    activations = itemsize * batch * (sum(widths) + 2 * max(widths))
    return seconds, 4 * itemsize * weights + 2 * activations


@cache
def _rates(plan: Plan) -> tuple[float, float]:
    """Return operations and bytes a second, roughly, to tell beforehand what would take too long."""
    backend, size = plan.backend(), plan.pick(1024, 512, 64)
    a, b, out = (backend.zeros((size, size), np.float32) for _ in range(3))
    source, target = (backend.zeros(size * size * 4, np.float32) for _ in range(2))
    product, copy = (
        backend.compile([Product(a, b, out)]),
        backend.compile([Copy(source, target)]),
    )
    multiplying, copying = plan.time([product.run, copy.run], repeats=3)
    return 2 * size**3 / float(np.median(multiplying)), 2 * source.nbytes / float(np.median(copying))


def _measure(plan: Plan, widths: tuple[int, ...], batch: int, blank: Record) -> Iterable[Record]:
    yield measure_step_in(plan, blank, widths, batch, "fp32")


def measure_step_in(plan: Plan, blank: Record, widths: tuple[int, ...], batch: int, precision: str) -> Record:
    """Measure a step, its floor and their ratio in a precision.

    Parameters
    ----------
    plan : Plan
        Device and repeats.
    blank : Record
        What to fill.
    widths : tuple of int
        Inputs, hidden units, outputs.
    batch : int
        Rows a step.
    precision : str
        As `nnkit.Trainer` takes it.
    """
    expected = step_cost(plan, widths, batch)[0]
    steps = min(plan.count_for(expected), max(2**27 // (batch * widths[0]), 1))
    problem = generate_problem(widths, batch, steps)
    dtype = np.float64 if precision == "fp64" else np.float32
    backend = plan.backend(precision)
    step = training_step(problem, backend, dtype=dtype, half=half_of(precision))
    products = step.products()
    fitting = int(plan.seconds / (2 * expected * steps))
    repeats = min(max(fitting - 3, LEAST_REPEATS), plan.repeats)
    whole, floor = plan.time(
        [partial(step.run, 0, steps), partial(products.run, steps)],
        repeats,
        warmup=3 if fitting > repeats + 3 else 1,
        backend=backend,
    )
    figures = {
        "step": measured("s", whole / steps),
        "floor": measured("s", floor / steps),
        "throughput": per_second("samples/s", batch * steps, whole),
    }
    details = {"steps a measurement": steps}
    return replace(
        blank, figures=figures, ratios={"step / floor": plain_ratio(whole, floor)}, details=details
    )


def _references(plan: Plan) -> list[Case]:
    """The reference networks in several processes each: their spread is wider than within one."""
    found = []
    for widths, batch, steps in plan.pick(REFERENCES, REFERENCES, REFERENCES[1:]):
        name = f"{'-'.join(map(str, widths))} in processes of their own"
        blank = Record("step", name, plan.device, "fp32", {"batch": batch})
        steps = plan.pick(steps, max(steps // 4, 1), 1)
        found.append(Case(blank, partial(_in_processes, plan, widths, batch, steps)))
    return found


def _in_processes(
    plan: Plan, widths: tuple[int, ...], batch: int, steps: int, blank: Record
) -> Iterable[Record]:
    runs = measure_in_processes(widths, batch, steps, plan.pick(7, 2, 1))
    figures = {"step": _over_processes("s", [run.step.median for run in runs])}
    figures["floor"] = _over_processes("s", [run.floor.median for run in runs])
    ratios = {"step / floor": _over_processes("", [run.step_over_floor.median for run in runs])}
    yield replace(blank, figures=figures, ratios=ratios, details={"processes": _details(runs)})


def _over_processes(unit: str, medians: list[float]) -> Quantity:
    """Return the median of the processes' medians, and the least and the greatest process."""
    return Quantity(unit, statistics.median(medians), min(medians), max(medians), len(medians))


def _details(runs: list[StepTimes]) -> list[dict[str, float]]:
    return [
        {"step": run.step.median, "floor": run.floor.median, "ratio": run.step_over_floor.median}
        for run in runs
    ]
