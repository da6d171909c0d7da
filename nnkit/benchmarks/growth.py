"""Section `growth`: what twice the samples, the width or the depth costs, beside the growth in arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.problem import PIXELS, generate_problem, training_step
from nnkit.benchmarks.records import Record, measured, once, plain_ratio

__all__ = ["arithmetic", "cases"]


@dataclass(frozen=True)
class _Training:
    """An epoch of so many batches."""

    widths: tuple[int, ...]
    batch: int
    steps: int


def cases(plan: Plan) -> list[Case]:
    """Return a case for each thing that is doubled."""
    width, batch, steps = plan.pick((1024, 512, 16), (256, 128, 8), (8, 4, 3))
    small = _Training((PIXELS, width, width, 10), batch, steps)
    grown = {
        "samples doubled": replace(small, steps=2 * steps),
        "width doubled": replace(small, widths=(PIXELS, 2 * width, 2 * width, 10)),
        "depth doubled": replace(small, widths=(PIXELS, *[width] * 4, 10)),
    }
    shown = "-".join(map(str, small.widths))
    return [
        Case(
            Record("growth", name, plan.device, "fp32", {"from": shown, "batch": batch, "steps": steps}),
            partial(_measure, plan, small, large),
            limit=300.0,
        )
        for name, large in grown.items()
    ]


def arithmetic(widths: tuple[int, ...], batch: int, steps: int) -> int:
    """Return the multiplications and additions of the products of so many steps.

    Three products a layer, forward, by the weights and by the inputs, of which the first layer has no third.
    """
    products = [fan_in * units for fan_in, units in pairwise(widths)]
    return 2 * batch * steps * (3 * sum(products) - products[0])


def _measure(plan: Plan, small: _Training, large: _Training, blank: Record) -> Iterable[Record]:
    runs = []
    for training in (small, large):
        problem = generate_problem(training.widths, training.batch, training.steps)
        step = training_step(problem, plan.backend())
        runs.append(partial(step.run, 0, training.steps))
    before, after = plan.time(runs)
    grown = arithmetic(**vars(large)) / arithmetic(**vars(small))
    figures = {
        "before": measured("s", before),
        "after": measured("s", after),
        "growth in arithmetic": once("", grown),
    }
    ratios = {
        "growth in time": plain_ratio(after, before),
        "growth in time / in arithmetic": plain_ratio(after / grown, before),
    }
    yield replace(blank, figures=figures, ratios=ratios, details={"large": list(large.widths)})
