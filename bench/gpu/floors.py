"""Sections `floors`, the device at its best; `floor`, steps over products; `kernels`, beside copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from gpu.aims import aim
from gpu.common import Part, Settings, found, random_array, tiny_kernel
from nnkit.backends.operations import Copy, Kernel, Product
from nnkit.backends.protocol import Backend
from nnkit.bench.kernels import kernels_of
from nnkit.bench.problem import PIXELS
from nnkit.bench.records import Record, measured
from nnkit.bench.steps import measure_step
from nnkit.engine.objective import Penalty
from nnkit.engine.parameters import Arena
from nnkit.engine.segments import segments_for
from nnkit.engine.step import Step
from nnkit.feed.batch import Rows
from nnkit.feed.features import Bags, Features
from nnkit.nn.layers import Dense, Dropout, Embedding, Layer, place_layers
from nnkit.nn.losses import loss_from
from nnkit.nn.optimizers import optimizer_from

_DTYPES = {"fp32": "float32", "tf32": "float32", "fp64": "float64", "fp16": "float16"}
# Width of the two hidden layers, and rows a step.
_STEPS = ((256, 256), (512, 512), (1024, 1024), (2048, 1024), (2048, 2048), (4096, 1024), (4096, 4096))


def parts(settings: Settings) -> list[Part]:
    """Return copies, products and launches."""
    copies, precisions = {"256 MB": 2**26, "1 GB": 2**28}, settings.supported(*_DTYPES)
    return [
        *(Part(f"copy of {size}", partial(_copy, settings, size, count)) for size, count in copies.items()),
        *(Part(f"product, {name}", partial(_product, settings, name)) for name in precisions),
        *(Part(f"replay of {count} kernels", partial(_replay, settings, count)) for count in (1, 16)),
    ]


@cache
def _copies(settings: Settings, count: int) -> tuple[Callable[[], object], int]:
    """Return copies of so many float32 numbers, and the bytes that they read and write together."""
    backend, copies = settings.backend(), 5
    source = random_array(backend, (settings.choose(count, 2**12),))
    copy = Copy(source, backend.empty(source.shape, np.float32))
    return backend.compile([copy] * copies).run, 2 * source.nbytes * copies


def _copy(settings: Settings, size: str, count: int) -> Iterator[Record]:
    run, moved = _copies(settings, count)
    (seconds,) = settings.time([run])
    yield found("copy", {"rate": measured("B/s", moved / seconds)}, size=size)


def _product(settings: Settings, precision: str) -> Iterator[Record]:
    width, dtype = settings.choose(8192, 32), _DTYPES[precision]
    backend = settings.backend(precision if precision == "tf32" else "fp32")
    a, b = (random_array(backend, (width, width), dtype) for _ in range(2))
    program = backend.compile([Product(a, b, backend.empty((width, width), dtype))])
    (seconds,) = settings.time([program.run], backend)
    yield found("product", {"rate": measured("FLOP/s", 2 * width**3 / seconds)}, precision, width=width)


def _replay(settings: Settings, count: int) -> Iterator[Record]:
    backend, replays = settings.backend(), settings.choose(1000, 20)
    program = backend.compile([tiny_kernel(backend)] * count)
    (seconds,) = settings.time([partial(program.run, replays)])
    yield found("replay of tiny kernels", {"time": measured("s", seconds / replays)}, kernels=count)


def steps(settings: Settings) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return the layers and the batch of each network."""
    sizes = settings.pick(_STEPS, _STEPS, ((8, 16),))
    return tuple(((PIXELS, width, width, 10), batch) for width, batch in sizes)


def step_parts(settings: Settings) -> list[Part]:
    """Return one part for each precision and network: its captured step, and its products captured alone."""
    return [
        Part(f"{layers}, batch {batch}, {name}", partial(_step, settings, name, layers, batch))
        for name in settings.supported("fp32", "tf32")
        for layers, batch in steps(settings)
    ]


def _step(settings: Settings, precision: str, layers: tuple[int, ...], batch: int) -> Iterator[Record]:
    aims = {"step / products": aim("floor")} if layers[1] >= 1024 else {}
    blank = found("784-w-w-10", {}, precision, width=layers[1], batch=batch)
    yield measure_step(settings, blank, layers, batch, aims)


@dataclass(frozen=True)
class Variant:
    """A step whose kernels are measured, with L1, L2 and a clipped gradient's norm if it has a penalty.

    Its rows are uint8 pixels, scaled as they are gathered, or numbers, or bags of ids of a table's vectors.
    """

    kernels: str
    loss: str
    optimizer: str
    activation: str = ""
    dropout: float = 0.0
    pixels: bool = False
    penalty: bool = False
    rows: int = 8192
    width: int = 8192  # with as many outputs and rows, 256 MB of float32 in most arrays
    outputs: int = 8192
    bag: int = 0
    table: int = 0


_SPARSE = "unique_rows embed embed_gradient penalise_rows squared_norm_rows update_rows"
_DENSE = "forward elementwise_loss backward update"
_FIRST = "gather forward softmax_loss backward penalise squared_norm update"
_VARIANTS = (
    Variant(_FIRST, "cross_entropy", "adam", "relu", pixels=True, penalty=True),
    Variant(f"gather {_DENSE}", "mse", "sgd", "gelu"),
    Variant(_DENSE, "binary_cross_entropy", "momentum", "relu", 0.2),
    Variant("softmax_loss", "cross_entropy", "sgd", rows=2**23, width=4, outputs=10),
    # 131,072 ids of 524,288 vectors: the rows seen have 237 MB, and few of them are seen twice.
    Variant(_SPARSE, "cross_entropy", "adam", penalty=True, width=512, outputs=10, bag=16, table=2**19),
)
_LEAST = {"rows": 8, "width": 8, "outputs": 12, "bag": 3, "table": 50}


def variants(settings: Settings) -> list[Variant]:
    """Return the steps whose kernels are measured."""
    most: dict[str, int] = settings.pick({}, {}, _LEAST)
    return [replace(one, **{name: min(getattr(one, name), most[name]) for name in most}) for one in _VARIANTS]


def kernel_parts(settings: Settings) -> list[Part]:
    """Return one part for each kernel."""
    return [
        Part(f"{kernel}, {variant.loss}", partial(_measure, settings, variant, kernel))
        for variant in variants(settings)
        for kernel in variant.kernels.split()
    ]


def step_of(variant: Variant, backend: Backend) -> Step:
    """Return the step, ready to run its first epoch."""
    features, rows, random = _features(variant), variant.rows, np.random.default_rng(3)
    layers: list[Layer] = [Dense(variant.outputs)]
    if variant.bag:
        layers = [Embedding(variant.table, variant.width, "mean"), *layers]
    if variant.activation:
        layers = [Dense(variant.width, variant.activation), Dropout(variant.dropout), *layers]
    places = place_layers(layers, features.width)
    arena = Arena(segments_for(places), backend, np.float32)
    # Scaled for sums of about one: exponentials then meet ordinary arguments.
    block = random.standard_normal(2**20 - 3, dtype=np.float32) * np.float32(variant.width**-0.5)
    backend.write(arena.values, np.resize(block, arena.size))
    targets = random.random((rows, variant.outputs), np.float32)
    if variant.loss == "cross_entropy":
        targets = random.integers(0, variant.outputs, rows).astype(np.int32)
    placed = Rows(backend, np.float32, features, targets, shuffled=True)
    penalty, clip_norm = (Penalty(1e-6, 1e-6), 1.0) if variant.penalty else (Penalty(), None)
    optimizer = optimizer_from(variant.optimizer, learning_rate=1e-6)
    step = Step(places, arena, loss_from(variant.loss), penalty, rows, 0, optimizer, placed, clip_norm)
    step.begin_epoch(0, random.permutation(rows), np.full(1, 1e-6))
    return step


def _features(variant: Variant) -> Features:
    shape, random = (variant.rows, variant.width), np.random.default_rng(2)
    if variant.pixels:
        return Features(random.integers(0, 256, shape, np.uint8), scale=np.full(variant.width, 1 / 255))
    if not variant.bag:
        return Features(random.standard_normal(shape, np.float32))
    ids = random.integers(0, variant.table, variant.rows * variant.bag).astype(np.int32)
    bags = Bags(ids, np.arange(0, len(ids) + 1, variant.bag), variant.table)
    return Features(np.empty((variant.rows, 0), np.float32), bags=(bags,))


@cache
def _recorded(settings: Settings, variant: Variant) -> dict[str, Kernel]:
    return kernels_of(step_of(variant, settings.backend()), variant.rows)


def _measure(settings: Settings, variant: Variant, kernel: str) -> Iterator[Record]:
    backend, runs, (copy, copied_bytes) = settings.backend(), settings.choose(20, 2), _copies(settings, 2**28)
    recorded = _recorded(settings, variant)[kernel]
    if kernel in ("update", "update_rows"):
        # Each run moves on to the next batch, whose rate it reads.
        recorded = recorded.given(rates=backend.from_host(np.full(2000, 1e-6)))
    seconds, copying = settings.time([backend.compile([recorded] * runs).run, copy])
    seen = recorded.arguments.get("seen")
    moved = recorded.moved(0 if seen is None else int(backend.to_host(seen)[0]))
    rate, copied = moved * runs / seconds, copied_bytes / copying
    # Small arrays lie in the cache, a draw is more arithmetic than its bytes are worth, and a sort is many
    # short launches, which take longer than moving its results.
    bounded = moved >= 64e6 and kernel != "unique_rows" and not (kernel == "forward" and variant.dropout)
    figures = {
        "time": measured("s", seconds / runs),
        "rate": measured("B/s", rate),
        "copy": measured("B/s", copied),
        "of a copy's rate": measured("%", rate / copied, aim("kernel") if bounded else None),
    }
    of = {"activation": variant.activation, "loss": variant.loss, "optimizer": variant.optimizer}
    yield found(kernel, figures, **of, bytes=moved)
