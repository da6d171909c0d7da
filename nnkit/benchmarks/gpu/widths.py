"""Speed by precision and width: whole steps, and products of their shape alone, in turns."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np

from nnkit.backends.operations import Product
from nnkit.benchmarks.figures import Aim, Failure, Figure, Part
from nnkit.benchmarks.gpu.settings import WARMUP, Settings, random_array, timed_in_turns
from nnkit.benchmarks.problem import PIXELS, Problem, generate_problem, training_step
from nnkit.benchmarks.timing import ratio, spread
from nnkit.training.precision import half_of

__all__ = ["HALVES", "hidden_widths", "narrower_parts", "title", "wide_problem", "widest_parts"]

HALVES = ("fp16", "bf16")
# In this order: the 16-bit ones have the aims.
_PRECISIONS = (*HALVES, "tf32", "fp32")
_BATCH = 8192
_WIDTHS = (8192, 4096, 2048, 1024, 512)
_QUICK_BATCH, _QUICK_WIDTHS = 16, (16, 8)
# At 1e-3 each step would move every output of a layer of 8192 by more than its size, and float16 overflow.
_RATE = 1e-6
_REPEATS = 9  # a turn at width 8192 is 0.6 s of float32


def widest_parts(settings: Settings) -> list[Part]:
    """Return a part for each precision of the widest network, on which the aims are set."""
    return _parts(settings, hidden_widths(settings)[:1])


def narrower_parts(settings: Settings) -> list[Part]:
    """Return a part for each other width and precision, the widest first."""
    return _parts(settings, hidden_widths(settings)[1:])


def title(settings: Settings, width: int | None = None) -> str:
    """Return what the record calls the network of that width, or the widest."""
    width = hidden_widths(settings)[0] if width is None else width
    return f"four hidden layers of {width}, batch {_batch(settings)}"


def wide_problem(settings: Settings, width: int | None = None) -> Problem:
    """Return the problem of the network of that width, or of the widest."""
    width = hidden_widths(settings)[0] if width is None else width
    return _problem(width, _batch(settings), settings.size(3, 2))


def hidden_widths(settings: Settings) -> tuple[int, ...]:
    """Return the widths of the networks, the widest first."""
    return _QUICK_WIDTHS if settings.quick else _WIDTHS


def _batch(settings: Settings) -> int:
    return settings.size(_BATCH, _QUICK_BATCH)


# One at a time: the widest one's first weights are 830 MB.
@lru_cache(maxsize=1)
def _problem(width: int, batch: int, steps: int) -> Problem:
    return generate_problem((PIXELS, *[width] * 4, 10), batch, steps, _RATE)


def _parts(settings: Settings, widths: tuple[int, ...]) -> list[Part]:
    has = settings.backend().precisions
    return [
        Part(f"{title(settings, width)}, {precision}", partial(_measure, settings, width, precision))
        for width in widths
        for precision in _PRECISIONS
        if precision in has
    ]


def _work(problem: Problem) -> float:
    """The operations of a step's products: forward, by the weights, and by all inputs but the first."""
    sizes = [inputs * outputs for inputs, outputs in pairwise(problem.widths)]
    return 2.0 * problem.batch_size * (3 * sum(sizes) - sizes[0])


def _products(settings: Settings, width: int, precision: str, count: int) -> Callable[[], object]:
    """Return what multiplies a batch by a hidden layer's weights, so many times."""
    backend, half, batch = settings.backend(precision), half_of(precision), _batch(settings)
    dtype = np.dtype(np.float32) if half is None else half.dtype
    a, b = (random_array(backend, (rows, width), dtype) for rows in (batch, width))
    return backend.compile([Product(a, b, backend.empty((batch, width), dtype))] * count).run


def _measure(settings: Settings, width: int, precision: str) -> Iterator[Figure | Failure]:
    """Forward, backward and Adam, products of a hidden layer's shape, and float32 beside them, in turns."""
    # What the part before held goes back to the pool, which three libraries share with it later.
    gc.collect()
    problem = wide_problem(settings, width)
    names = list(dict.fromkeys((precision, "fp32")))
    steps = [training_step(problem, settings.backend(name), half=half_of(name)) for name in names]
    # As much work at each width, so that it takes longer than a launch.
    count = (hidden_widths(settings)[0] // width) ** 2
    functions: list[Callable[[], object]] = [partial(step.run, 0, problem.steps) for step in steps]
    functions.append(_products(settings, width, precision, count))
    *taken, multiplying = timed_in_turns(settings.backend(), functions, settings.size(_REPEATS, 3))
    own, name = taken[0] / problem.steps, f"{title(settings, width)}, {precision}"
    rate = 2.0 * problem.batch_size * width**2 * count / multiplying
    details = {
        "width": width,
        "batch": problem.batch_size,
        "precision": precision,
        "flop": _work(problem),
        "skipped updates": (skipped := steps[0].read().skipped_steps),
        "samples/s": spread(problem.batch_size / own).to_json(),
        "products alone, FLOP/s": spread(rate).to_json(),
    }
    yield Figure(name, "s", spread(own), details=details)
    if skipped > WARMUP * problem.steps:
        yield Failure(name, f"{skipped} updates were skipped for an overflow: timed steps are too short")
    widest = width == hidden_widths(settings)[0]
    aim = Aim(">=", 0.7) if widest and precision == "fp16" else None
    share = _work(problem) / own / rate
    yield Figure(f"{name}: share of its products' rate", "%", spread(share), aim)
    if precision != "fp32":
        aim = Aim(">=", 6.0) if widest and precision in HALVES else None
        yield Figure(f"{title(settings, width)}: {precision} over fp32", "", ratio(taken[1], taken[0]), aim)
