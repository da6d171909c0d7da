"""Section `peers`: steps against other libraries', from the same weights, over the same batches, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from nnkit.benchmarks.contest import NNKIT, Outcome, hold_contest
from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.problem import PIXELS, generate_problem
from nnkit.benchmarks.records import Record, measured, once, per_second, plain_ratio

__all__ = ["AGREEING", "cases"]

AGREEING = 1e-3
"""So far, relatively, may a loss lie from nnkit's: further, and it was not the same work."""
_SCIKIT_LEARN, _EAGER, _COMPILED = "scikit-learn", "PyTorch eager", "PyTorch compiled, reduce-overhead"
_GRAPH, _STEP, _EPOCH = "PyTorch CUDA graph", "JAX, a step a call", "JAX, an epoch a call"
# Pixels at 1e-3: a rounding that turns a unit on or off in one row moves the loss by more than a percent
# within the epoch, on one device as between two; at this rate by 1e-4, while the loss itself falls by 15 %.
_NETWORKS = (
    ((PIXELS, 512, 512, 10), 128, 468, 1e-5),
    ((PIXELS, 128, 10), 64, 937, 1e-5),
    ((20, 64, 64, 1), 32, 1000, 1e-3),
)
_LIMIT = 300.0  # seconds until whoever is not ready is left out: compiling takes longest


def cases(plan: Plan) -> list[Case]:
    """Return a contest for each network and precision."""
    precisions = [name for name in ("fp32", "tf32") if name in plan.backend().precisions]
    found = []
    for precision in precisions:
        for widths, batch, steps, rate in plan.pick(_NETWORKS, _NETWORKS[::2], _NETWORKS[2:]):
            sizes = (widths, batch, plan.pick(steps, steps // 20, 10), rate)
            blank = Record(
                "peers",
                "contest",
                plan.device,
                precision,
                {"network": "-".join(map(str, widths)), "batch": batch},
            )
            found.append(Case(blank, partial(_contest, plan, *sizes), limit=2 * _LIMIT))
    return found


def _contenders(plan: Plan, precision: str) -> list[str]:
    if plan.on_gpu:
        return [NNKIT, _EAGER, _GRAPH, _STEP, _EPOCH, *plan.pick([_COMPILED], [], [])]
    # A quick look does not wait for PyTorch's compiler.
    return [NNKIT, _SCIKIT_LEARN, _EAGER, _EPOCH, *plan.pick([_COMPILED], [], [])]


def _contest(
    plan: Plan, widths: tuple[int, ...], batch: int, steps: int, rate: float, blank: Record
) -> Iterable[Record]:
    problem = generate_problem(widths, batch, steps, rate)
    names = _contenders(plan, blank.precision)
    deadline = time.monotonic() + _LIMIT
    outcome = hold_contest(names, problem, plan.device, blank.precision, plan.repeats, deadline)
    for failure in outcome.failures:
        reason = failure.error.strip().splitlines()[-1][:200] if failure.error.strip() else "no reason given"
        yield replace(blank, name=failure.name, skipped=reason)
    if plan.size != "full":
        yield replace(blank, name=_COMPILED, skipped="compiles for longer than a quick run may take")
    yield from (_record(outcome, name, batch, blank) for name in outcome.seconds)


def _record(outcome: Outcome, name: str, batch: int, blank: Record) -> Record:
    seconds, details = outcome.seconds[name], dict(outcome.details[name])
    first_epoch = details.pop("first epoch, seconds")
    figures = {
        "step": measured("s", seconds),
        "throughput": per_second("samples/s", batch, seconds),
        "first epoch, compiling included": once("s", first_epoch),
        "loss": once("", outcome.losses[name]),
    }
    ratios = {}
    if name != NNKIT and NNKIT in outcome.seconds:
        ratios["step / nnkit's"] = plain_ratio(seconds, outcome.seconds[NNKIT])
        apart = abs(outcome.losses[name] / outcome.losses[NNKIT] - 1)
        ratios["loss apart from nnkit's"] = once("", apart)
        details["same work"] = bool(apart <= AGREEING)
    return replace(blank, name=name, figures=figures, ratios=ratios, details=details)
