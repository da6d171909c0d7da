"""A captured step over its own matrix products captured alone, in turns: what is not arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cache, partial

from nnkit.benchmarks.figures import Aim, Figure, Part
from nnkit.benchmarks.gpu.settings import Settings, timed_in_turns
from nnkit.benchmarks.problem import PIXELS, generate_problem, training_step
from nnkit.benchmarks.timing import ratio, spread

__all__ = ["cases", "parts"]

# Width of the two hidden layers, rows a step, steps of an epoch (about 100 MB of pixels at most).
_CASES = (
    (256, 256, 400),
    (512, 512, 250),
    (1024, 1024, 120),
    (2048, 1024, 100),
    (2048, 2048, 50),
    (4096, 1024, 50),
    (4096, 4096, 20),
)
_QUICK = ((8, 16, 3),)
# The precisions take the same ones.
_generated = cache(generate_problem)


def cases(settings: Settings) -> tuple[tuple[int, int, int], ...]:
    """Return the width of the hidden layers, the batch and the steps of each network."""
    return _QUICK if settings.quick else _CASES


def parts(settings: Settings) -> list[Part]:
    """Return one part for each width, batch and precision."""
    has = settings.backend().precisions
    return [
        Part(f"{width}-{width}, batch {batch}, {precision}", partial(_case, settings, precision, *case))
        for precision in ("fp32", "tf32")
        if precision in has
        for case in cases(settings)
        for width, batch, _ in (case,)
    ]


def _case(settings: Settings, precision: str, width: int, batch: int, steps: int) -> Iterator[Figure]:
    backend = settings.backend(precision)
    problem = _generated((PIXELS, width, width, 10), batch, steps)
    step = training_step(problem, backend)
    products = step.products()
    whole, floor = timed_in_turns(
        backend, [partial(step.run, 0, steps), partial(products.run, steps)], settings.repeats
    )
    aim = Aim("<=", 1.25) if width >= 1024 or settings.quick else None
    details = {"step": asdict(spread(whole / steps)), "products": asdict(spread(floor / steps))}
    name = f"step / its products, hidden {width}-{width}, batch {batch}, {precision}"
    yield Figure(name, "", ratio(whole, floor), aim, details)
