"""What the device can do at best: copies, matrix products, launches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.operations import Copy, Product
from nnkit.backends.protocol import Backend
from nnkit.benchmarks.clocks import on_stream
from nnkit.benchmarks.figures import Figure, Part
from nnkit.benchmarks.gpu.settings import Settings, random_array, timed_in_turns, tiny_kernel
from nnkit.benchmarks.timing import spread

__all__ = ["parts"]

_DTYPES = {"fp32": "float32", "tf32": "float32", "fp64": "float64", "fp16": "float16"}


def parts(settings: Settings) -> list[Part]:
    """Return copy, products and launches."""
    has = settings.backend().precisions
    products = [precision for precision in _DTYPES if precision in has]
    launches = [Part(f"replay, {count} tiny kernels", partial(_replay, settings, count)) for count in (1, 16)]
    if settings.device.startswith("cuda"):
        launches.append(Part("replay, empty CUDA graph", partial(_empty_graph, settings)))
    return [
        Part("copy of 256 MB", partial(_copy, settings, settings.size(2**26, 2**12), "copy of 256 MB")),
        Part("copy of 1 GB", partial(_copy, settings, settings.size(2**28, 2**12), "copy of 1 GB")),
        *(Part(f"product, {name}", partial(_product, settings, name)) for name in products),
        *launches,
    ]


def _copy(settings: Settings, elements: int, name: str) -> Iterator[Figure]:
    backend = settings.backend()
    source = random_array(backend, (elements,))
    target = backend.empty(elements, np.float32)
    copies = 20
    program = backend.compile([Copy(source, target)] * copies)
    seconds = timed_in_turns(backend, [program.run], settings.repeats)[0]
    moved = 2 * source.nbytes
    yield Figure(name, "B/s", spread(moved * copies / seconds), details={"bytes": moved})


def _product(settings: Settings, precision: str) -> Iterator[Figure]:
    width, dtype = settings.size(8192, 32), _DTYPES[precision]
    backend = settings.backend(precision if precision == "tf32" else "fp32")
    a, b = (random_array(backend, (width, width), dtype) for _ in range(2))
    out = backend.empty((width, width), dtype)
    program = backend.compile([Product(a, b, out)])
    seconds = timed_in_turns(backend, [program.run], settings.repeats)[0]
    work = 2 * width**3
    yield Figure(f"product {width}³, {precision}", "FLOP/s", spread(work / seconds), details={"flop": work})


def _replay(settings: Settings, count: int) -> Iterator[Figure]:
    backend = settings.backend()
    kernel = tiny_kernel(random_array(backend, (1, 32)))
    program = backend.compile([kernel] * count)
    name = (
        "replay of a program of one tiny kernel" if count == 1 else f"replay of one of {count} tiny kernels"
    )
    yield _per_replay(settings, backend, program.run, name)


def _empty_graph(settings: Settings) -> Iterator[Figure]:
    """Captured by CuPy itself, for a program without operations does not reach the device at all."""
    import cupy

    backend = settings.backend()

    def capture() -> Any:
        stream = cupy.cuda.get_current_stream()
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
        return stream.end_capture()

    graph = on_stream(backend, capture)

    def launch(count: int) -> None:
        for _ in range(count):
            graph.launch()

    def run(count: int) -> None:
        on_stream(backend, partial(launch, count))

    yield _per_replay(settings, backend, run, "replay of an empty CUDA graph")


def _per_replay(settings: Settings, backend: Backend, run: Callable[[int], object], name: str) -> Figure:
    replays = settings.size(1000, 20)
    seconds = timed_in_turns(backend, [partial(run, replays)], settings.repeats)[0]
    return Figure(name, "s", spread(seconds / replays), details={"replays": replays})
