"""Sections of whole steps: `step` and `small`, against other libraries'; `mixed`, in 16 bits; `loading`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np

from gpu.aims import aim
from gpu.commands import learnt
from gpu.common import HALVES, Part, Settings, failure, found, random_array
from gpu.smoke import images
from nnkit.backends.operations import Product
from nnkit.bench.problem import PIXELS, Problem, generate_problem, training_step
from nnkit.bench.race import NNKIT, race
from nnkit.bench.records import Aim, Record, measured, once
from nnkit.feed.batch import Placement
from nnkit.feed.ring import SLOT_BYTES
from nnkit.training.precision import half_of

_EAGER = ("PyTorch eager",)
_COMPILED = ("PyTorch compiled, reduce-overhead", "PyTorch compiled, max-autotune")
# Max-autotune compiles longest, and is what is left out where time runs short.
_BEST = ("JAX, an epoch a call", *_COMPILED)
# At 1e-3 a rounding that turns a unit on or off in one row moves the loss by more than a percent within this
# epoch, on one device as between two; at this rate by 1e-4, while the loss itself falls by 15 %.
_SMALL_RATE = 1e-5
TABLE = ((20, 64, 64, 1), 32)  # layers and batch of the network for tables
PLACES: tuple[Placement, ...] = ("device", "pinned", "pageable")
_SLOTS = 3
_WIDTHS = (8192, 4096, 2048, 1024, 512)
# At 1e-3 each step would move every output of a layer of 8192 by more than its size, and float16 overflow.
_WIDE_RATE = 1e-6


def _images(settings: Settings, batch: int, full: int, tiny: int) -> Callable[[], Problem]:
    return partial(generate_problem, *images(settings, batch), settings.choose(full, tiny), _SMALL_RATE)


def step_parts(settings: Settings) -> list[Part]:
    """Return a race over 784-512-512-10, batch 128, in each precision that the device has."""
    problem = _images(settings, 128, 468, 5)
    groups, name = ((_EAGER, aim("eager")), (_BEST, aim("best"))), "784-512-512-10, batch 128"
    races = [
        partial(compete, settings, name, problem, groups, each) for each in settings.supported("fp32", "tf32")
    ]
    return [Part(name, partial(one, number / len(races)), 0.0) for number, one in enumerate(races, 1)]


def small_parts(settings: Settings) -> list[Part]:
    """Return a race over 20-64-64-1, batch 32."""
    problem = partial(generate_problem, *TABLE, settings.choose(1000, 5))
    groups, name = ((_EAGER, aim("small, eager")), (_BEST, aim("small, best"))), "20-64-64-1, batch 32"
    return [Part(name, partial(compete, settings, name, problem, groups, "fp32", own=aim("small")), 0.0)]


def compete(
    settings: Settings,
    network: str,
    problem: Callable[[], Problem],
    groups: Sequence[tuple[Sequence[str], Aim | None]],
    precision: str,
    share: float = 1.0,
    own: Aim | None = None,
) -> Iterator[Record]:
    """Time nnkit's step and the peers' in turns, until this share of the section's time is over.

    A group's aim is for its fastest peer's time over nnkit's, `own` for nnkit's time.
    """
    names = [NNKIT, *(name for peers, _ in groups for name in peers if settings.peers)]
    # Seconds are kept for the processes' ends, and for the turns, between which all rest.
    finish, repeats = settings.deadline(share) - settings.choose(8, 0), settings.choose(15, 3)
    deadline = finish - settings.choose(25, 0)
    outcome = race(names, problem(), settings.device, precision, repeats, deadline, finish=finish)
    for name, reason in outcome.failures.items():
        yield failure(name, reason)
    bounds = {NNKIT: own}
    for peers, bound in groups:
        if present := [name for name in peers if name in outcome.seconds]:
            bounds[min(present, key=lambda name: float(np.median(outcome.seconds[name])))] = bound
    ours = outcome.seconds.get(NNKIT)
    for name, seconds in outcome.seconds.items():
        loss, first = outcome.losses[name], outcome.first_epoch[name]
        figures = {"step": measured("s", seconds, own if name == NNKIT else None)}
        figures |= {"loss": once("", loss), "first epoch": once("s", first)}
        if name != NNKIT and ours is not None:
            figures["step / nnkit's"] = measured("", seconds / ours[: len(seconds)], bounds.get(name))
            # In other precisions the libraries round differently, each rightly.
            bound = Aim("<=", 1e-3) if precision == "fp32" else None
            figures["loss from nnkit's"] = once("", abs(outcome.losses[NNKIT] / loss - 1), bound)
        yield found(name, figures, precision, network=network)


def mixed_parts(settings: Settings) -> list[Part]:
    """Return what has an aim first, and last the races, whose peers compile until their time is over."""
    halves, (widest, *others) = settings.supported(*HALVES), hidden_widths(settings)
    wide, small = partial(wide_problem, settings, widest), _images(settings, 1024, 58, 3)
    name, narrow = f"four hidden layers of {widest}", "784-512-512-10, batch 1024"
    races = (
        (narrow, small, ((_EAGER, aim("AMP")), (_COMPILED, None)), "fp16", 0.65),
        (name, wide, ((_EAGER, aim("wide AMP")), (_COMPILED, aim("best AMP"))), "fp16", 0.85),
        (name, wide, ((_EAGER, None), (_COMPILED, None)), "bf16", 1.0),
    )
    return [
        *_wide_parts(settings, widest),
        Part("memory of activations", partial(_memory, settings)),
        Part("mnist", partial(learnt, settings, "mnist", "accuracy", aim("mnist")), 120.0),
        Part("housing", partial(learnt, settings, "california_housing.csv", "r2", aim("housing")), 120.0),
        *(part for width in others for part in _wide_parts(settings, width)),
        *(Part("AMP", partial(compete, settings, *one), 0.0) for one in races if one[3] in halves),
    ]


def hidden_widths(settings: Settings) -> tuple[int, ...]:
    """Return the widths of the networks, the widest first."""
    return settings.pick(_WIDTHS, _WIDTHS, (16, 8))


# One at a time: the widest one's first weights are 830 MB.
@lru_cache(maxsize=1)
def wide_problem(settings: Settings, width: int) -> Problem:
    """Return the problem of the network with four hidden layers of a width."""
    widths = (PIXELS, *[width] * 4, 10)
    return generate_problem(widths, settings.choose(8192, 16), settings.choose(3, 2), _WIDE_RATE)


def _wide_parts(settings: Settings, width: int) -> list[Part]:
    return [
        Part(f"four hidden layers of {width}, {name}", partial(_wide, settings, width, name))
        for name in settings.supported(*HALVES, "tf32", "fp32")
    ]


def _wide(settings: Settings, width: int, precision: str) -> Iterator[Record]:
    """Forward, backward and Adam, products of a hidden layer's shape, and float32 beside them, in turns."""
    # What the part before held goes back to the pool, which three libraries share with it later.
    gc.collect()
    problem, backend = wide_problem(settings, width), settings.backend(precision)
    batch, half, names = problem.batch_size, half_of(precision), dict.fromkeys((precision, "fp32"))
    steps = [training_step(problem, settings.backend(name), half=half_of(name)) for name in names]
    # As much work at each width, so that it takes longer than a launch.
    widest = hidden_widths(settings)[0]
    count = (widest // width) ** 2
    dtype = np.dtype(np.float32) if half is None else half.dtype
    a, b = (random_array(backend, (rows, width), dtype) for rows in (batch, width))
    products = backend.compile([Product(a, b, backend.empty((batch, width), dtype))] * count).run
    runs = [partial(step.run, 0, problem.steps) for step in steps]
    *taken, multiplying = settings.time([*runs, products])
    # Products of a step: forward, by the weights, and by all inputs but the first.
    sizes = [inputs * outputs for inputs, outputs in pairwise(problem.widths)]
    work = 2.0 * batch * (3 * sum(sizes) - sizes[0])
    own, rate = taken[0] / problem.steps, 2.0 * batch * width**2 * count / multiplying
    share, halves = (aim(name) if width == widest else None for name in ("share", "halves"))
    figures = {
        "step": measured("s", own),
        "throughput": measured("samples/s", batch / own),
        "products alone": measured("FLOP/s", rate),
        "of its products' rate": measured("%", work / own / rate, share if precision == "fp16" else None),
    }
    if precision != "fp32":
        figures["fp32 / this"] = measured("", taken[1] / taken[0], halves if precision in HALVES else None)
    details = {"flop": work, "skipped updates": (skipped := steps[0].read().skipped_steps)}
    yield found("four hidden layers", figures, precision, details, width=width, batch=batch)
    if skipped > 3 * problem.steps:  # those of the turns that are not counted
        error = f"{skipped} updates were skipped for an overflow: timed steps are too short"
        yield failure(f"four hidden layers of {width}, {precision}", error)


def _memory(settings: Settings) -> Iterator[Record]:
    """What the forward pass leaves for the backward pass, in bytes of the buffers that are allocated."""
    problem, held = _images(settings, 1024, 58, 3)(), dict[str, int]()
    for name in ("fp32", *settings.supported(*HALVES)):
        step = training_step(problem, settings.backend(name), half=half_of(name))
        held[name] = step.passes.activation_bytes
        bound = aim("memory") if name in HALVES else None
        figures = {"memory": once("B", held[name]), "of fp32's": once("%", held[name] / held["fp32"], bound)}
        yield found("activations of 784-512-512-10", figures, name)


def shapes(settings: Settings) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Return layers, batch and steps by name: two networks compute for longer than their pixels take."""
    size, hidden = settings.choose, settings.choose(512, 8)
    return {
        "784-512-512-10, batch 1024": ((PIXELS, hidden, hidden, 10), size(1024, 16), size(800, 9)),
        "784-512-512-10, batch 128": ((PIXELS, hidden, hidden, 10), size(128, 16), size(6400, 9)),
        "12288-64-10, batch 1024": ((size(12_288, PIXELS), size(64, 8), 10), size(1024, 16), size(128, 9)),
    }


def loading_parts(settings: Settings) -> list[Part]:
    """Return a part for each network."""
    return [Part(name, partial(_measure, settings, name, *shape)) for name, shape in shapes(settings).items()]


def _measure(
    settings: Settings, network: str, widths: tuple[int, ...], batch_size: int, count: int
) -> Iterator[Record]:
    """Time an epoch from each place in turns, with the copies alone, slot by slot, from pinned memory."""
    problem, backend = generate_problem(widths, batch_size, count), settings.backend()
    steps = [training_step(problem, backend, placement=place) for place in PLACES]
    epochs = [partial(step.run, 0, count) for step in steps]
    copying, *training = settings.time([_copies(settings, problem), *epochs])
    for step in steps:
        step.rows.close()
    rate = measured("B/s", problem.inputs.nbytes / copying)
    details = {"bytes": problem.inputs.nbytes, "readers": backend.readers()}
    yield found("copies alone", {"step": measured("s", copying / count), "rate": rate}, network=network)
    for place, seconds in zip(PLACES, training, strict=True):
        figures = {"step": measured("s", seconds / count)}
        if place != "device":
            over, bound = seconds / np.maximum(copying, training[0]), aim("streaming")
            figures["over the slower"] = measured("", over, bound if place == "pinned" else None)
            # A step beyond one with rows on the device: of noise alone it can be below zero.
            figures["loading's share"] = measured("%", (seconds - training[0]) / seconds)
        yield found(f"rows in {place} memory", figures, details=details, network=network)


def _copies(settings: Settings, problem: Problem) -> Callable[[], None]:
    """Return what copies an epoch's bytes from pinned memory, the steps' stream waiting for each slot."""
    row_bytes = problem.inputs[0].nbytes
    rows = max(1, min(SLOT_BYTES // row_bytes, len(problem.inputs)))
    uploads = settings.backend().uploads(_SLOTS, "pinned")
    pairs = [uploads.buffer((rows, row_bytes), np.uint8) for _ in range(_SLOTS)]

    def run() -> None:
        for number in range(-(-len(problem.inputs) // rows)):
            slot = number % _SLOTS
            uploads.prepare(slot)
            uploads.send(slot, [pairs[slot]])
            uploads.receive(slot)
            uploads.done(slot)

    return run
