"""Compile the kernels of later sections, in many processes, into the cache from which they are loaded."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nnkit.backends import select
from nnkit.backends.blas import usable_cores
from nnkit.backends.cuda_device import CudaDevice
from nnkit.benchmarks.clocks import on_stream
from nnkit.benchmarks.figures import Failure, Figure, Part
from nnkit.benchmarks.gpu import agreement, kernels, loading, mixed, products, training, widths
from nnkit.benchmarks.gpu.settings import Settings, random_array, tiny_kernel
from nnkit.benchmarks.problem import PIXELS, generate_problem, training_step
from nnkit.benchmarks.timing import Spread
from nnkit.kernels.modules import load_source
from nnkit.training.precision import half_of

__all__ = ["compile_kernels", "parts", "train_on_cpu"]

_PROCESSES = 14


def parts(settings: Settings) -> list[Part]:
    """Return one part."""
    prepare, on_cpu = partial(_prepare, settings), [partial(train_on_cpu, kind) for kind in agreement.KINDS]
    compile_all = partial(compile_kernels, "the benchmarks' kernels", prepare, on_cpu)
    return [Part("kernels", compile_all, math.inf)]


def compile_kernels(
    what: str, prepare: Callable[[], object], on_cpu: Sequence[Callable[[], object]] = ()
) -> Iterator[Figure | Failure]:
    """Compile what a function prepares for launches on a GPU, each kernel once, in other processes.

    Parameters
    ----------
    what : str
        The kernels' name in the record.
    prepare : function
        Prepares them; nothing that it launches runs.
    on_cpu : sequence of function
        Compile the CPU's kernels by using them; each is called in one of the processes too.
    """
    began, compiling = time.monotonic(), dict[tuple[str, Any], Future[None]]()
    processes = max(1, min(_PROCESSES, usable_cores() - 2))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        # They begin first because each compiles several kernels.
        trainings: list[tuple[str, Future[Any]]]
        trainings = [("the CPU's kernels", pool.submit(function)) for function in on_cpu]

        def launcher(
            device: CudaDevice, entry: Any, grid: object, block: object, values: Sequence[Any]
        ) -> Callable[[], None]:
            source = Path(entry.py_func.__code__.co_filename)
            types = tuple(entry.typeof_pyval(value) for value in values)
            if (source.stem, types) not in compiling:
                task = pool.submit(_compile, device.name, source, entry.py_func.__name__, types)
                compiling[source.stem, types] = task
            return lambda: None

        with patch.object(CudaDevice, "launcher", launcher):
            prepare()
        for name, task in [*trainings, *((name, task) for (name, _), task in compiling.items())]:
            if (error := task.exception()) is not None:
                yield Failure(name, f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - began
    details = {"kernels": len(compiling), "processes": processes}
    yield Figure(f"compiling {what}", "s", Spread(seconds, seconds, seconds, 1), details=details)


def _compile(device: str, source: Path, name: str, types: tuple[Any, ...]) -> None:
    """Compile a kernel for an open device, or load it; a function of the module, for processes to import."""
    entry = getattr(load_source(source.stem, source.read_text(encoding="utf-8")), name)
    on_stream(select(device).backend, partial(entry.compile, types))


def train_on_cpu(kind: agreement.Kind) -> None:
    """Train two steps on the CPU, for its kernels; a function of the module, for processes to import."""
    agreement.train(generate_problem((PIXELS, 96, 64, 10), 64, 2), select("cpu").backend, kind)


def _prepare(settings: Settings) -> None:
    """Prepare each section's kernels and steps in their sizes, with few training rows; none is run."""
    backend = settings.backend()
    tiny_kernel(random_array(backend, (1, 32)))
    for variant in kernels.variants(settings):
        # Alone, for a product may include the kernel that follows it.
        operations = kernels.step_of(variant, backend).operations_of(variant.rows)
        backend.compile(list(kernels.kernels_in(operations).values()))
    for layers, batch, options in _networks(settings):
        training_step(generate_problem(layers, batch, 2), backend, **options).rows.close()
    for precision in (name for name in widths.HALVES if name in backend.precisions):
        problems = [widths.wide_problem(settings, width) for width in widths.hidden_widths(settings)]
        for problem in [generate_problem(*mixed.small_network(settings), 2), *problems]:
            training_step(problem, settings.backend(precision), half=half_of(precision))


def _networks(settings: Settings) -> Iterator[tuple[tuple[int, ...], int, dict[str, Any]]]:
    """Return layers, batch size and further arguments of `training_step` for the sections' networks."""
    for layers, batch in (training.images(settings), training.table(settings), mixed.small_network(settings)):
        yield layers, batch, {}
    for kind in agreement.KINDS:
        options = {"dropout": agreement.DROPOUT, "activation": kind.activation, "dtype": kind.dtype}
        yield *training.images(settings), options
    for width, batch, _ in products.cases(settings):
        yield (PIXELS, width, width, 10), batch, {}
    for layers, batch, _ in loading.shapes(settings).values():
        for placement in ("device", "pinned", "pageable"):
            yield layers, batch, {"placement": placement}
