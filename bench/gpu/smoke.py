"""Sections `smoke`, which decides whether to measure the rest; `warm`, compiling; and `agreement`."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from gpu.aims import aim
from gpu.common import HALVES, Part, Settings, failure, found, tiny_kernel
from nnkit.backends import select
from nnkit.backends.blas import usable_cores
from nnkit.backends.cuda_device import CudaDevice
from nnkit.backends.cupy import CupyBackend
from nnkit.backends.operations import Kernel
from nnkit.backends.protocol import Backend
from nnkit.bench.problem import PIXELS, Problem, generate_problem, training_step
from nnkit.bench.records import Aim, Record, once
from nnkit.kernels.modules import load_source
from nnkit.training.precision import half_of

PRODUCTS, CAPTURE = "cuBLASLt multiplies", "a step is captured"
DROPOUT = 0.2
# A rounding can turn a ReLU on in one training and off in another, after which the two part: the smooth
# activation and float64 show whether the devices differ in anything else.
KINDS = (("relu", "fp32"), ("gelu", "fp32"), ("relu", "fp64"))
Make = Callable[[], Problem]
Arrays = dict[str, NDArray]
_problem = partial(generate_problem, (PIXELS, 96, 64, 10), 64, 20)


def compile_kernels(prepare: Callable[[], object]) -> Iterator[Record]:
    """Compile each kernel that a function launches on a GPU once, in other processes; none of them runs."""
    began, compiling = time.monotonic(), dict[tuple[str, Any], Future[None]]()
    processes = max(1, min(14, usable_cores() - 2))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:

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
        for (name, _), task in compiling.items():
            if (error := task.exception()) is not None:
                yield failure(name, f"{type(error).__name__}: {error}")
    details = {"kernels": len(compiling), "processes": processes}
    yield found("compiling kernels", {"time": once("s", time.monotonic() - began)}, details=details)


def _compile(device: str, source: Path, name: str, types: tuple[Any, ...]) -> None:
    """Compile a kernel for an open device, or load it; a function of the module, for processes to import."""
    entry = getattr(load_source(source.stem, source.read_text(encoding="utf-8")), name)
    with select(device).backend.active():
        entry.compile(types)


def dtype_of(precision: str) -> type[np.floating]:
    """Return the dtype of the weights."""
    return np.float64 if precision == "fp64" else np.float32


def train(problem: Problem, backend: Backend, activation: str = "relu", precision: str = "fp32") -> Arrays:
    """Return the loss of every step, and the weights and the optimizer's state after the last one."""
    backend, half = backend.with_precision(precision), half_of(precision)
    step = training_step(problem, backend, DROPOUT, activation, dtype_of(precision), half)
    losses, before = [], step.read()
    for batch in range(problem.steps):
        step.run(batch, 1)
        now = step.read()
        losses.append(now.since(before).loss)
        before = now
    arrays = {"values": step.arena.values, **step.state}
    return {"losses": np.array(losses), **{name: backend.to_host(array) for name, array in arrays.items()}}


def parts(settings: Settings) -> list[Part]:
    """Return the parts; on a GPU, `PRODUCTS` and `CAPTURE`, which every other section needs, come first."""
    backend, precisions = settings.backend(), settings.supported("fp32", "fp64", *HALVES)
    compiling = Part("kernels", partial(compile_kernels, partial(_prepare, settings, precisions)))
    library, captured = Part(PRODUCTS, partial(_library, backend)), Part(CAPTURE, partial(_captured, backend))
    return [
        *([library, compiling, captured] if settings.on_gpu else [compiling]),
        *(Part(name, partial(_across, settings, "relu", name, _problem)) for name in precisions[:2]),
        *(Part(name, partial(_half, settings, name)) for name in precisions[2:]),
    ]


def _prepare(settings: Settings, precisions: list[str]) -> None:
    for name in precisions:
        options = {"dtype": dtype_of(name), "half": half_of(name)}
        training_step(_problem(), settings.backend(name), DROPOUT, **options)


def _library(backend: Backend) -> Iterator[Record]:
    told = backend.describe()
    error = f"products are by {told['products']}; captured steps: {told['captured steps']}"
    right = told["products"].startswith("cuBLASLt")
    yield found(PRODUCTS, {}, details=told) if right else failure(PRODUCTS, error)


def _captured(backend: Backend) -> Iterator[Record]:
    yield from _differing(_problem, aim("captured"), backend, _uncaptured(backend), CAPTURE)
    if (answer := backend.describe()["captured steps"]) != "yes":
        yield failure(CAPTURE, f"captured steps: {answer}")


def _uncaptured(backend: Backend) -> Backend:
    """Return the device with programs that are never captured; on a CPU none of them is."""
    return backend.uncaptured() if isinstance(backend, CupyBackend) else backend


def _differing(problem: Make, bound: Aim, first: Backend, second: Backend, name: str) -> Iterator[Record]:
    """Train on two devices; count the values with different bits: a NaN equals itself, and 0 is not -0."""
    one, other = train(problem(), first), train(problem(), second)
    counts = {key: int(np.sum(one[key].view(np.uint32) != other[key].view(np.uint32))) for key in one}
    yield found(name, {"differing values": once("", sum(counts.values()), bound)}, details=counts)


def _half(settings: Settings, precision: str) -> Iterator[Record]:
    """The last of some steps' losses over the first, in 16 bits: below 1, and no NaN."""
    losses = train(_problem(), settings.backend(), precision=precision)["losses"]
    fallen = once("", np.mean(losses[-5:]) / np.mean(losses[:5]), Aim("<=", 0.99))
    yield found("losses of 20 steps", {"last / first five": fallen}, precision, {"losses": losses.tolist()})


def images(settings: Settings, batch: int = 128) -> tuple[tuple[int, ...], int]:
    """Return the layers of the network for images, and its batch."""
    hidden = settings.choose(512, 8)
    return (PIXELS, hidden, hidden, 10), settings.choose(batch, 16)


def warm_parts(settings: Settings) -> list[Part]:
    """Return one part: compile all later sections' kernels."""
    return [Part("kernels", partial(compile_kernels, partial(_prepare_all, settings)), 0.0)]


def _prepare_all(settings: Settings) -> None:
    """Prepare each section's kernels and steps in their sizes, with few training rows."""
    from gpu import floors, training

    backend, wide = settings.backend(), partial(training.wide_problem, settings)
    backend.compile([tiny_kernel(backend)])
    for variant in floors.variants(settings):
        operations = floors.step_of(variant, backend).operations_of(variant.rows)
        # Alone, for a product may include the kernel that follows it.
        backend.compile([one for one in operations if isinstance(one, Kernel)])
    networks: list[tuple] = [
        images(settings),
        images(settings, 1024),
        training.TABLE,
        *floors.steps(settings),
    ]
    cases = [(*network, {}) for network in networks]
    for activation, precision in KINDS:
        options = {"dropout": DROPOUT, "activation": activation, "dtype": dtype_of(precision)}
        cases.append((*images(settings), options))
    for layers, batch, _ in training.shapes(settings).values():
        cases += [(layers, batch, {"placement": place}) for place in training.PLACES]
    for layers, batch, options in cases:
        training_step(generate_problem(layers, batch, 2), backend, **options).rows.close()
    for half in settings.supported(*HALVES):
        small = generate_problem(*images(settings, 1024), 2)
        for problem in (small, *map(wide, training.hidden_widths(settings))):
            training_step(problem, settings.backend(half), half=half_of(half))


def agreement_parts(settings: Settings) -> list[Part]:
    """Return the CPU against the device, and the device against itself."""
    problem = partial(generate_problem, *images(settings), settings.choose(100, 4))
    backend, differing = settings.backend(), partial(_differing, problem, aim("bits"), settings.backend())
    return [
        *(Part(", ".join(kind), partial(_across, settings, *kind, problem)) for kind in KINDS),
        Part("twice", partial(differing, backend, "two trainings")),
        Part("uncaptured", partial(differing, _uncaptured(backend), "captured against uncaptured")),
    ]


def _across(settings: Settings, activation: str, precision: str, problem: Make) -> Iterator[Record]:
    devices = {"on the device": settings.backend(), "on the CPU": select("cpu").backend}
    losses = {name: train(problem(), one, activation, precision)["losses"] for name, one in devices.items()}
    ours, host = losses.values()
    apart, bound = np.abs(ours - host) / np.abs(host), aim("losses")
    details = {name: one.tolist() for name, one in losses.items()}
    details["steps beyond the aim"] = np.flatnonzero(apart > bound.value).tolist()
    name = f"losses of {len(apart)} steps, CPU against the device, {activation}"
    yield found(name, {"difference": once("", apart.max(), bound)}, precision, details)
