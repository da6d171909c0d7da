"""Training on rows that come from the host: whole steps, against the copies alone and the computing alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from nnkit.benchmarks.figures import Aim, Figure, Part
from nnkit.benchmarks.gpu.settings import Settings, timed_in_turns
from nnkit.benchmarks.problem import PIXELS, Problem, generate_problem, training_step
from nnkit.benchmarks.timing import ratio, spread
from nnkit.engine.step import Step
from nnkit.feed.batch import Placement
from nnkit.feed.ring import SLOT_BYTES

__all__ = ["parts", "shapes"]


def shapes(settings: Settings) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Return the layers, the batch and the steps of each network, by its name.

    Two compute for longer than their pixels take to arrive, one does not.
    """
    size = settings.size
    hidden = size(512, 8)
    return {
        "784-512-512-10, batch 1024": ((PIXELS, hidden, hidden, 10), size(1024, 16), size(800, 9)),
        "784-512-512-10, batch 128": ((PIXELS, hidden, hidden, 10), size(128, 16), size(6400, 9)),
        "12288-64-10, batch 1024": ((size(12_288, PIXELS), size(64, 8), 10), size(1024, 16), size(128, 9)),
    }


def parts(settings: Settings) -> list[Part]:
    """Return a part for each network."""
    return [Part(name, partial(_measure, settings, name, *shape)) for name, shape in shapes(settings).items()]


def _measure(
    settings: Settings, name: str, widths: tuple[int, ...], batch_size: int, steps: int
) -> Iterator[Figure]:
    """Time an epoch from each place in turns, with the copies alone, slot by slot, from pinned memory."""
    problem, backend = generate_problem(widths, batch_size, steps), settings.backend()
    on_device = training_step(problem, backend)
    kinds: tuple[Placement, ...] = ("pinned", "pageable")
    streamed = {kind: training_step(problem, backend, placement=kind) for kind in kinds}
    functions: list[Callable[[], object]] = [_copies(settings, problem)]
    functions += map(_epoch, [on_device, *streamed.values()])
    seconds = timed_in_turns(backend, functions, settings.repeats)
    for step in streamed.values():
        step.rows.close()
    copying, computing, pinned, pageable = seconds
    details = {"rows": len(problem.labels), "bytes": int(problem.inputs.nbytes), "readers": backend.readers()}
    times = {"copies alone": copying, "rows on the device": computing, "pinned": pinned, "pageable": pageable}
    for what, values in times.items():
        yield Figure(f"{name}: {what}, a step", "s", spread(values / steps), details=details)
    yield Figure(f"{name}: copies alone", "B/s", spread(problem.inputs.nbytes / copying))
    slower = np.maximum(copying, computing)
    for kind, values, aim in (("pinned", pinned, Aim("<=", 1.1)), ("pageable", pageable, None)):
        yield Figure(f"{name}: {kind} over the slower of both", "", ratio(values, slower), aim)
        # What a step takes longer than one whose rows lie on the device; of noise alone it can be below zero.
        share = ratio(values - computing, values)
        told = {"network": name, "placement": kind}
        yield Figure(f"{name}: share of the step that is loading, {kind}", "%", share, details=told)


def _epoch(step: Step) -> Callable[[], None]:
    return lambda: step.run(0, step.steps_per_epoch)


def _copies(settings: Settings, problem: Problem) -> Callable[[], None]:
    """Return what copies an epoch's bytes from pinned memory, the steps' stream waiting for each slot."""
    backend, slots = settings.backend(), 3
    row_bytes = problem.inputs[0].nbytes
    rows = max(1, min(SLOT_BYTES // row_bytes, len(problem.inputs)))
    uploads = backend.uploads(slots, "pinned")
    pairs = [uploads.buffer((rows, row_bytes), np.uint8) for _ in range(slots)]

    def run() -> None:
        for number in range(-(-len(problem.inputs) // rows)):
            slot = number % slots
            uploads.prepare(slot)
            uploads.send(slot, [pairs[slot]])
            uploads.receive(slot)
            uploads.done(slot)

    return run
