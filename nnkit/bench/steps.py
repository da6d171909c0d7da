"""Sections `step` and `precision`: a training step beside its matrix products alone, timed in turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise, product

import numpy as np

from nnkit.bench.problem import PIXELS, generate_problem, training_step
from nnkit.bench.records import Aim, Record, measured
from nnkit.bench.timing import Case, Plan
from nnkit.training.precision import half_of

__all__ = ["measure_step", "precisions", "steps"]

_PRECISIONS = ("fp64", "fp32", "tf32", "fp16", "bf16")


def steps(plan: Plan) -> Iterator[Case]:
    """Yield a case for each width and batch, and on the CPU the networks with an aim."""
    widths = plan.pick((64, 512, 2048), (64, 512), (4, 8))
    batches = plan.pick((1, 32, 128, 1024), (1, 128), (1, 16))
    for width, batch in product(widths, batches):
        aim = {"step / products": Aim("<=", 1.15)} if (width, batch) == (512, 128) and not plan.on_gpu else {}
        yield _case(plan, "step", "fp32", (PIXELS, width, width, 10), batch, aim)
    yield _case(
        plan, "step", "fp32", (20, 64, 64, 1), 32, {"step": Aim("<=", 25e-6 if plan.on_gpu else 45e-6)}
    )


def precisions(plan: Plan) -> Iterator[Case]:
    """Yield a case for each size and precision."""
    sizes = plan.pick(((512, 128), (2048, 1024)), ((512, 128),), ((8, 16),))
    for (width, batch), precision in product(sizes, _PRECISIONS):
        yield _case(plan, "precision", precision, (PIXELS, width, width, 10), batch, {})


def _case(
    plan: Plan, section: str, precision: str, widths: tuple[int, ...], batch: int, aims: Mapping[str, Aim]
) -> Case:
    has = plan.backend().precisions
    reason = "" if precision in has else f"{plan.device} has {', '.join(has)}"
    name = "-".join(map(str, widths))
    blank = Record(section, name, plan.device, precision, {"batch": batch}, skipped=reason)
    return blank, lambda blank: [measure_step(plan, blank, widths, batch, aims)]


def measure_step(
    plan: Plan, blank: Record, widths: tuple[int, ...], batch: int, aims: Mapping[str, Aim]
) -> Record:
    """Return the record with the time of a step, of its products alone, and their ratio turn by turn."""
    weights = sum(fan_in * units for fan_in, units in pairwise(widths))
    # Six operations a weight and row; each parameter's value, gradient and two moments moved.
    operations, bytes_moved = (3e13, 2e12) if plan.on_gpu else (1e11, 1e10)
    expected = 6 * weights * batch / operations + 28 * weights / bytes_moved + 2e-5
    steps = int(np.clip(plan.pick(0.1, 0.01, 0.0) / expected, 1, max(2**27 // (batch * widths[0]), 1)))
    dtype = np.float64 if blank.precision == "fp64" else np.float32
    backend, half = plan.backend(blank.precision), half_of(blank.precision)
    step = training_step(generate_problem(widths, batch, steps), backend, dtype=dtype, half=half)
    whole, products = plan.time([partial(step.run, 0, steps), partial(step.products().run, steps)], backend)
    figures = {
        "step": measured("s", whole / steps, aims.get("step")),
        "products": measured("s", products / steps),
        "throughput": measured("samples/s", batch * steps / whole),
        "step / products": measured("", whole / products, aims.get("step / products")),
    }
    return replace(blank, figures=figures, details={"steps in a measurement": steps})
