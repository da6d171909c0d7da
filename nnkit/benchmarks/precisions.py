"""Section `precision`: the same step in every precision that the device computes in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from nnkit.benchmarks.plan import LEAST_REPEATS, Case, Plan
from nnkit.benchmarks.problem import PIXELS
from nnkit.benchmarks.records import Record
from nnkit.benchmarks.sweep import measure_step_in, step_cost

__all__ = ["PRECISIONS", "cases"]

PRECISIONS = ("fp64", "fp32", "tf32", "fp16", "bf16")


def cases(plan: Plan) -> list[Case]:
    """Return one case for each precision and size; those that the device has not are left out with words."""
    sizes = plan.pick(((512, 128), (2048, 1024)), ((512, 128),), ((8, 16),))
    return [_case(plan, precision, *size) for size in sizes for precision in PRECISIONS]


def _case(plan: Plan, precision: str, width: int, batch: int) -> Case:
    blank = Record("precision", "784-w-w-10", plan.device, precision, {"width": width, "batch": batch})
    has = plan.backend().precisions
    if precision not in has:
        reason = f"this version of nnkit has {', '.join(has)} on {plan.device}"
        return Case(blank, skipped=reason)
    widths = (PIXELS, width, width, 10)
    seconds, memory = step_cost(plan, widths, batch, 8 if precision == "fp64" else 4)
    measure = partial(_measure, plan, widths, batch)
    return Case(blank, measure, seconds * (2 * (LEAST_REPEATS + 1) + 3), memory)


def _measure(plan: Plan, widths: tuple[int, ...], batch: int, blank: Record) -> Iterable[Record]:
    yield measure_step_in(plan, blank, widths, batch, blank.precision)
