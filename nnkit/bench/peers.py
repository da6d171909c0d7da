"""Section `peers`: steps of other libraries from the same weights, over the same batches, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

from nnkit.bench.problem import PIXELS, generate_problem
from nnkit.bench.race import NNKIT, race
from nnkit.bench.records import Aim, Record, measured, once
from nnkit.bench.timing import Case, Plan

__all__ = ["peers"]

_COMPILED = "PyTorch compiled, reduce-overhead"
# Widths, batch, steps, learning rate, and the aims for the libraries' steps on a CPU, over nnkit's. At 1e-3 a
# rounding that turns a unit on or off moves the loss of pixels by a percent within an epoch, at 1e-5 by 1e-4,
# while the loss falls by 15 %.
_PEERS = ("JAX, an epoch a call", "PyTorch eager", "scikit-learn")
_NETWORKS = (
    ((PIXELS, 512, 512, 10), 128, 468, 1e-5, (1.3, 2.5, 4.0)),
    ((PIXELS, 128, 10), 64, 937, 1e-5, (1.2, 4.0, 4.0)),
    ((20, 64, 64, 1), 32, 1000, 1e-3, (1.2, 10.0, 10.0)),
)
_AGREEING = 1e-3  # a loss farther from nnkit's, relatively, was not the same work
_READY = 300.0  # seconds until a library must be ready: compiling takes longest


def peers(plan: Plan) -> Iterator[Case]:
    """Yield a race for each precision and network."""
    networks = plan.pick(_NETWORKS, _NETWORKS[::2], _NETWORKS[2:])
    precisions = [name for name in ("fp32", "tf32") if name in plan.backend().precisions]
    for precision, (widths, batch, steps, rate, bounds) in product(precisions, networks):
        name = "-".join(map(str, widths))
        blank = Record("peers", "race", plan.device, precision, {"network": name, "batch": batch})
        aims = (
            {}
            if plan.on_gpu
            else {peer: Aim(">=", bound) for peer, bound in zip(_PEERS, bounds, strict=True)}
        )
        yield blank, partial(_race, plan, widths, plan.pick(steps, steps // 20, 10), rate, aims)


def _race(
    plan: Plan, widths: tuple[int, ...], steps: int, rate: float, aims: dict[str, Aim], blank: Record
) -> Iterable[Record]:
    batch = int(blank.parameters["batch"])
    # scikit-learn has no GPU; a compiler takes minutes.
    names = [NNKIT, *(_PEERS[:2] if plan.on_gpu else _PEERS), *plan.pick([_COMPILED], [], [])]
    problem, deadline = generate_problem(widths, batch, steps, rate), time.monotonic() + _READY
    outcome = race(names, problem, plan.device, blank.precision, plan.repeats, deadline)
    for name, reason in outcome.failures.items():
        yield replace(blank, name=name, skipped=reason)
    for name, seconds in outcome.seconds.items():
        details: dict[str, bool] = {}
        figures = {
            "step": measured("s", seconds),
            "throughput": measured("samples/s", batch / seconds),
            "first epoch, compiling included": once("s", outcome.first_epoch[name]),
            "loss": once("", outcome.losses[name]),
        }
        if name != NNKIT and NNKIT in outcome.seconds:
            figures["step / nnkit's"] = measured("", seconds / outcome.seconds[NNKIT], aims.get(name))
            apart = abs(outcome.losses[name] / outcome.losses[NNKIT] - 1)
            figures["loss apart from nnkit's"] = once("", apart)
            details["same work"] = apart <= _AGREEING
        yield replace(blank, name=name, figures=figures, details=details)
