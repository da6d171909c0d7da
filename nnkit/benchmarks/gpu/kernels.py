"""Each fused kernel on 256 MB and more, in turns with the device's copy: how near to the memory's speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Copy, Kernel, Operation
from nnkit.backends.protocol import Backend, Program
from nnkit.benchmarks.figures import Aim, Figure, Part
from nnkit.benchmarks.gpu.settings import Settings, random_array, timed_in_turns
from nnkit.benchmarks.timing import spread
from nnkit.engine.objective import Penalty
from nnkit.engine.parameters import Arena
from nnkit.engine.segments import segments_for
from nnkit.engine.step import Step
from nnkit.feed.batch import Rows
from nnkit.feed.features import Bags, Features
from nnkit.kernels.layout import BATCH
from nnkit.nn.layers import Dense, Dropout, Embedding, Layer, place_layers
from nnkit.nn.losses import loss_from
from nnkit.nn.optimizers import optimizer_from

__all__ = ["Variant", "kernels_in", "parts", "record", "step_of", "variants"]

_RUNS = 20  # of a kernel within one program
_LARGE = 64e6  # bytes a run, from which on a kernel is measured against a copy
_ELEMENTS = 8192  # rows and columns of most arrays: 256 MB of float32


@dataclass(frozen=True)
class Variant:
    """A step whose kernels are measured.

    Parameters
    ----------
    pixels : bool
        Whether the rows are uint8, and scaled as they are gathered.
    activation : str or None
        Of the hidden layer; None for a network without one.
    loss, optimizer : str
        Their names.
    kernels : tuple of str
        What is measured of it.
    rows, width, outputs : int
        Of the batch, of inputs and hidden layer, of the outputs.
    dropout : float
        After the hidden layer.
    penalty : bool
        Whether there are L1, L2 and the clipping of the gradient's norm.
    bag, table : int
        How many ids a row has, and how many vectors of `width` numbers they name; 0 for rows of numbers.
    """

    pixels: bool
    activation: str | None
    loss: str
    optimizer: str
    kernels: tuple[str, ...]
    rows: int = _ELEMENTS
    width: int = _ELEMENTS
    outputs: int = _ELEMENTS
    dropout: float = 0.0
    penalty: bool = False
    bag: int = 0
    table: int = 0

    def name_of(self, kernel: str) -> str:
        """Return what the record calls a kernel of this step."""
        hidden = f"{self.activation}{' and dropout' if self.dropout else ''}"
        return {
            "gather": f"gather from {'uint8' if self.pixels else 'float32'}",
            "forward": f"forward, {hidden}",
            "backward": f"backward, {hidden}",
            "softmax_loss": f"{self.loss}, {self.outputs} classes",
            "elementwise_loss": self.loss,
            "update": f"update, {self.optimizer}",
            "number": f"numbering of {self.rows * self.bag:,} ids",
            "embed": f"lookup of {self.bag} vectors a row",
            "embed_gradient": "gradient of the vectors seen",
            "update_rows": f"update of the vectors seen, {self.optimizer}",
        }.get(kernel, kernel)


_PASSES = ("gather", "forward", "softmax_loss", "elementwise_loss", "backward")
_VARIANTS = (
    Variant(
        True,
        "relu",
        "cross_entropy",
        "adam",
        (*_PASSES, "penalise", "squared_norm", "update"),
        penalty=True,
    ),
    Variant(False, "gelu", "mse", "sgd", (*_PASSES, "update")),
    Variant(
        False,
        "relu",
        "binary_cross_entropy",
        "momentum",
        ("forward", "elementwise_loss", "backward", "update"),
        dropout=0.2,
    ),
    Variant(False, None, "cross_entropy", "sgd", ("softmax_loss",), rows=2**23, width=4, outputs=10),
    # 131,072 ids of 524,288 vectors: the rows seen have 237 MB, and few of them are seen twice.
    Variant(
        False,
        None,
        "cross_entropy",
        "adam",
        ("number", "embed", "embed_gradient", "penalise_rows", "squared_norm_rows", "update_rows"),
        width=512,
        outputs=10,
        penalty=True,
        bag=16,
        table=2**19,
    ),
)
_LEAST = {"rows": 8, "width": 8, "outputs": 12, "bag": 3, "table": 50}
_QUICK = tuple(
    Variant(**{**vars(variant), **{name: min(vars(variant)[name], least) for name, least in _LEAST.items()}})
    for variant in _VARIANTS
)


def variants(settings: Settings) -> tuple[Variant, ...]:
    """Return the steps whose kernels are measured."""
    return _QUICK if settings.quick else _VARIANTS


def parts(settings: Settings) -> list[Part]:
    """Return one part for each kernel."""
    return [
        Part(variant.name_of(kernel), partial(_measure, settings, variant, kernel))
        for variant in variants(settings)
        for kernel in variant.kernels
        if kernel not in _PASSES[2:4] or kernel == loss_from(variant.loss).kernel
    ]


def record(variant: Variant, backend: Backend) -> dict[str, Kernel]:
    """Return a step's kernels by their names, after one run, so that every buffer holds what it would."""
    step = step_of(variant, backend)
    operations = step.operations_of(variant.rows)
    backend.compile(operations).run()
    # The update has counted the batch: from the next one's place a gather finds no rows, and a loss none.
    backend.write(step.counters[BATCH : BATCH + 1], 0)
    backend.synchronize()
    return kernels_in(operations)


def kernels_in(operations: Sequence[Operation]) -> dict[str, Kernel]:
    """Return the last kernel of each name."""
    return {one.name: one for one in operations if isinstance(one, Kernel)}


def step_of(variant: Variant, backend: Backend) -> Step:
    """Return the step, ready to run its first epoch."""
    features = _features(variant)
    layers: list[Layer] = [Dense(variant.outputs)]
    if variant.bag:
        layers = [Embedding(variant.table, variant.width, "mean"), *layers]
    if variant.activation:
        layers = [Dense(variant.width, variant.activation), Dropout(variant.dropout), *layers]
    places = place_layers(layers, features.width)
    arena = Arena(segments_for(places), backend, np.float32)
    # Scaled for sums of about one: exponentials then meet ordinary arguments.
    scale = np.float32(variant.width**-0.5)
    block = np.random.default_rng(0).standard_normal(2**20 - 3, dtype=np.float32) * scale
    backend.write(arena.values, np.resize(block, arena.size))
    rows = Rows(backend, np.float32, features, _targets(variant), shuffled=True)
    penalty, clip_norm = (Penalty(1e-6, 1e-6), 1.0) if variant.penalty else (Penalty(), None)
    optimizer = optimizer_from(variant.optimizer, learning_rate=1e-6)
    loss = loss_from(variant.loss)
    step = Step(places, arena, loss, penalty, variant.rows, 0, optimizer, rows, clip_norm)
    order = np.random.default_rng(1).permutation(variant.rows)
    step.begin_epoch(0, order, np.full(1, 1e-6))
    return step


def _features(variant: Variant) -> Features:
    shape, generator = (variant.rows, variant.width), np.random.default_rng(2)
    if variant.pixels:
        return Features(generator.integers(0, 256, shape, np.uint8), scale=np.full(variant.width, 1 / 255))
    if variant.bag:
        tokens = variant.rows * variant.bag
        ids = generator.integers(0, variant.table, tokens).astype(np.int32)
        bags = Bags(ids, np.arange(0, tokens + 1, variant.bag), variant.table)
        return Features(np.empty((variant.rows, 0), np.float32), bags=(bags,))
    return Features(generator.standard_normal(shape, np.float32))


def _targets(variant: Variant) -> NDArray:
    generator = np.random.default_rng(3)
    if variant.loss == "cross_entropy":
        return generator.integers(0, variant.outputs, variant.rows).astype(np.int32)
    return generator.random((variant.rows, variant.outputs), np.float32)


@cache
def _recorded(settings: Settings, variant: Variant) -> dict[str, Kernel]:
    return record(variant, settings.backend())


@cache
def _copy(settings: Settings) -> tuple[Program, int]:
    """Return a program of copies, and the bytes it reads and writes."""
    backend, copies = settings.backend(), 5
    source = random_array(backend, (settings.size(2**28, 2**10),))
    copy = Copy(source, backend.empty(source.shape, np.float32))
    return backend.compile([copy] * copies), 2 * source.nbytes * copies


def _measure(settings: Settings, variant: Variant, kernel: str) -> Iterator[Figure]:
    backend = settings.backend()
    recorded = _recorded(settings, variant)[kernel]
    if kernel in ("update", "update_rows"):
        # Each run moves on to the next batch, whose rate it reads.
        recorded = recorded.given(rates=backend.from_host(np.full(2000, 1e-6)))
    runs = settings.size(_RUNS, 2)
    own = backend.compile([recorded] * runs)
    copy, copied_bytes = _copy(settings)
    seconds, copying = timed_in_turns(backend, [own.run, copy.run], settings.repeats)
    moved = recorded.moved(_seen(backend, recorded))
    rate, copied = moved * runs / seconds, copied_bytes / copying
    details = {
        "seconds a run": spread(seconds / runs).to_json(),
        "bytes a run": moved,
        "read once": [one.name for one in recorded.declaration.reads(recorded.constants)],
        "written once": [one.name for one in recorded.declaration.writes(recorded.constants)],
        "bytes a second": spread(rate).to_json(),
        "copied bytes a second": spread(copied).to_json(),
    }
    # Small arrays lie in the cache, a draw is more arithmetic than its bytes are worth, and a sort is many
    # short launches, whose time is not that of the bytes of its results.
    copies = moved >= _LARGE and kernel != "number" and not (kernel == "forward" and variant.dropout > 0)
    aim = Aim(">=", 0.8) if copies else None
    yield Figure(f"{variant.name_of(kernel)}, of the copy's rate", "%", spread(rate / copied), aim, details)


def _seen(backend: Backend, kernel: Kernel) -> int:
    """Return how many rows of its table the batch saw; 0 for a kernel of no table."""
    seen = kernel.arguments.get("seen")
    return 0 if seen is None else int(backend.to_host(seen)[0])
