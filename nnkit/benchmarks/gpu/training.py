"""Whole steps against other libraries' whole steps: a network for images, and a small one for tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from nnkit.benchmarks.contest import CONTENDERS, NNKIT, Outcome, hold_contest
from nnkit.benchmarks.figures import Aim, Failure, Figure, Part
from nnkit.benchmarks.gpu.settings import Settings
from nnkit.benchmarks.problem import PIXELS, Problem, generate_problem
from nnkit.benchmarks.timing import Spread, ratio, spread

__all__ = ["images", "small_parts", "step_parts", "table"]

# Max-autotune compiles longest, and is what is left out where time runs short.
_ORDER = (
    NNKIT,
    "PyTorch eager",
    "PyTorch CUDA graph",
    "JAX, a step a call",
    "JAX, an epoch a call",
    "PyTorch compiled, reduce-overhead",
    "PyTorch compiled, max-autotune",
)
_EAGER = "PyTorch eager"
_COMPILED = [name for name in _ORDER if name.startswith(("PyTorch compiled", "JAX"))]
# At 1e-3 a rounding that turns a unit on or off in one row moves the loss by more than a percent within this
# epoch, on one device as between two; at this rate by 1e-4, while the loss itself falls by 15 %.
_SMALL_RATE = 1e-5


def images(settings: Settings) -> tuple[tuple[int, ...], int]:
    """Return the layers of the network for images, and its batch."""
    hidden = settings.size(512, 8)
    return (PIXELS, hidden, hidden, 10), settings.size(128, 16)


def table(settings: Settings) -> tuple[tuple[int, ...], int]:
    """Return those of the network for tables."""
    return (20, 64, 64, 1), 32


def step_parts(settings: Settings) -> list[Part]:
    """Return a contest over 784-512-512-10, batch 128, in each precision that the device has."""
    problem = partial(generate_problem, *images(settings), settings.size(468, 5), _SMALL_RATE)
    precisions = [name for name in ("fp32", "tf32") if name in settings.backend().precisions]
    parts = []
    for number, precision in enumerate(precisions, 1):
        share = number / len(precisions)
        aims = (Aim(">=", 5.0), Aim(">=", 1.0), None)
        measure = partial(_contest, settings, problem, precision, aims, share)
        parts.append(Part(precision, measure, math.inf))
    return parts


def small_parts(settings: Settings) -> list[Part]:
    """Return a contest over 20-64-64-1, batch 32."""
    problem = partial(generate_problem, *table(settings), settings.size(1000, 5))
    aims = (Aim(">=", 10.0), Aim(">=", 1.0), Aim("<=", 25e-6))
    return [Part("fp32", partial(_contest, settings, problem, "fp32", aims, 1.0), math.inf)]


def _contest(
    settings: Settings,
    problem: partial[Problem],
    precision: str,
    aims: tuple[Aim | None, Aim | None, Aim | None],
    share: float,
) -> Iterator[Figure | Failure]:
    names = [name for name in _ORDER if settings.peers or name == NNKIT]
    if not settings.device.startswith("cuda"):
        names = [name for name in names if name != "PyTorch CUDA graph"]
    assert set(names) <= set(CONTENDERS)
    deadline, finish = settings.contest_times(share)
    outcome = hold_contest(
        names, problem(), settings.device, precision, settings.repeats, deadline, finish=finish
    )
    yield from outcome.failures
    against_eager, against_compiled, absolute = aims
    for name, seconds in outcome.seconds.items():
        aim = absolute if name == NNKIT else None
        details = {**outcome.details[name], "loss of the first epoch's last step": outcome.losses[name]}
        yield Figure(f"{name}, {precision}", "s", spread(seconds), aim, details)
    yield from _comparisons(outcome, precision, against_eager, against_compiled)


def _comparisons(
    outcome: Outcome, precision: str, against_eager: Aim | None, against_compiled: Aim | None
) -> Iterator[Figure]:
    """How often nnkit's step fits into another's, and how far the losses are apart."""
    seconds = outcome.seconds
    if NNKIT not in seconds:
        return
    if _EAGER in seconds:
        name = f"speed against PyTorch eager, {precision}"
        yield Figure(name, "", ratio(seconds[_EAGER], seconds[NNKIT]), against_eager)
    for group, aim in ((_COMPILED, against_compiled), (["PyTorch CUDA graph"], None)):
        present = [name for name in group if name in seconds]
        if present:
            best = min(present, key=lambda name: float(np.median(seconds[name])))
            name = f"speed against the fastest of compiled PyTorch and JAX ({best}), {precision}"
            if group is not _COMPILED:
                name = f"speed against {best}, {precision}"
            yield Figure(name, "", ratio(seconds[best], seconds[NNKIT]), aim)
    others = [loss for name, loss in outcome.losses.items() if name != NNKIT]
    if others and NNKIT in outcome.losses:
        own = outcome.losses[NNKIT]
        apart = max(abs(own - other) / abs(other) for other in others)
        # In tf32 the libraries round differently, each rightly.
        aim = Aim("<=", 1e-3) if precision == "fp32" else None
        name = f"greatest relative difference of the losses, {precision}"
        yield Figure(name, "", Spread(apart, apart, apart, 1), aim, {"losses": outcome.losses})
