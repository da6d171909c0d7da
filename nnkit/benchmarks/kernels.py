"""Section `kernels`: each fused kernel against the unfused expression, and a copy of as many bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial

import numpy as np

from nnkit.backends.operations import Copy, Kernel
from nnkit.backends.protocol import Backend
from nnkit.benchmarks.clocks import clock_for, on_stream
from nnkit.benchmarks.gpu.kernels import Variant, record
from nnkit.benchmarks.gpu.settings import random_array
from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.records import Record, measured, per_second, plain_ratio
from nnkit.benchmarks.timing import in_turns
from nnkit.benchmarks.unfused import unfused

__all__ = ["NETWORKS", "cases"]

# Steps in which each kernel and each kind of it occurs once.
NETWORKS = (
    Variant(
        True,
        "relu",
        "cross_entropy",
        "adam",
        ("gather", "forward", "softmax_loss", "backward", "penalise", "squared_norm", "update"),
        penalty=True,
    ),
    Variant(False, "gelu", "mse", "sgd", ("gather", "forward", "elementwise_loss", "backward", "update")),
    Variant(
        False,
        "relu",
        "binary_cross_entropy",
        "momentum",
        ("forward", "elementwise_loss", "backward", "update"),
        dropout=0.2,
    ),
)
# Rows and columns: a step's own size, whose arrays stay in a cache, and one that no cache holds.
_SIZES = ((128, 512), (4096, 2048))
_RUNS = 20  # in a measurement: repeated more often, a pass that works in place meets other numbers
_CACHED = 2**18  # elements of an array up to which a run takes microseconds on a processor


def cases(plan: Plan) -> list[Case]:
    """Return a case for each kernel and size."""
    large = (8192, 8192) if plan.on_gpu else _SIZES[1]
    sizes = plan.pick((_SIZES[0], large), (_SIZES[0],), ((8, 12),))
    return [
        _case(plan, replace(network, rows=rows, width=columns, outputs=columns), kernel)
        for rows, columns in sizes
        for network in NETWORKS
        for kernel in network.kernels
    ]


def _case(plan: Plan, network: Variant, kernel: str) -> Case:
    parameters: dict[str, int | float | str] = {"rows": network.rows, "columns": network.width}
    blank = Record("kernels", network.name_of(kernel), plan.device, "fp32", parameters)
    # Four arrays of the weights, a handful of the batch, and the expression's own.
    memory = 4 * (8 * 2 * network.width**2 + 12 * network.rows * network.width)
    return Case(blank, partial(_measure, plan, network, kernel), memory=memory)


@cache
def _recorded(plan: Plan, network: Variant) -> dict[str, Kernel]:
    return record(network, plan.backend())


def _measure(plan: Plan, network: Variant, kernel: str, blank: Record) -> Iterable[Record]:
    backend, recorded = plan.backend(), _recorded(plan, network)[kernel]
    small = network.rows * network.width <= _CACHED
    runs, repeats = (_RUNS, 3 * plan.repeats) if small or plan.on_gpu else (2, plan.repeats)
    if kernel == "update":
        recorded = recorded.given(rates=backend.from_host(np.full(runs, 1e-6)))
    restore = _restoring(backend, recorded)
    fused = backend.compile([recorded] * runs).run
    expression = unfused(recorded, network.activation, network.loss, network.optimizer)
    moved = recorded.moved()
    copy, copied = _copy(backend, moved, runs)
    clock = clock_for(backend)

    def clock_from_the_start(function: Callable[[], object]) -> float:
        restore()
        return clock(function)

    plain_runs = partial(on_stream, backend, partial(_repeat, expression, runs))
    functions: list[Callable[[], object]] = [fused, plain_runs, copy]
    seconds = in_turns(functions, repeats, 3 if small or plan.on_gpu else 1, clock_from_the_start)
    own, plain, copying = (each / runs for each in seconds)
    figures = {
        "fused": measured("s", own),
        "unfused": measured("s", plain),
        "moved": per_second("B/s", moved, own),
        "copy": per_second("B/s", copied, copying),
    }
    ratios = {
        "unfused / fused": plain_ratio(plain, own),
        "rate / copy's rate": plain_ratio(moved / own, copied / copying),
    }
    flags = recorded.constants
    details = {
        "bytes": moved,
        "read once": [one.name for one in recorded.declaration.reads(flags)],
        "written once": [one.name for one in recorded.declaration.writes(flags)],
    }
    yield replace(blank, figures=figures, ratios=ratios, details=details)


def _repeat(expression: Callable[[], object], runs: int) -> None:
    for _ in range(runs):
        expression()


def _copy(backend: Backend, moved: int, runs: int) -> tuple[Callable[[], object], int]:
    """Return copies that read and write as many bytes together as a kernel moves, and those bytes."""
    source = random_array(backend, (max(moved // 8, 1),))
    target = backend.zeros(source.shape, np.float32)
    return backend.compile([Copy(source, target)] * runs).run, 2 * source.nbytes


def _restoring(backend: Backend, kernel: Kernel) -> Callable[[], object]:
    """Return what gives every array that the kernel changes its first values again.

    A derivative applied time and again makes its numbers so small that the processor is slow with them.
    """
    figures = (kernel.arguments.get(name) for name in ("counters", "scalars"))
    # The same array may go by two names.
    arrays = {id(array): array for array in (*kernel.writes(), *figures) if array is not None}
    copies = []
    for array in arrays.values():
        kept = backend.empty(array.shape, array.dtype)
        backend.compile([Copy(array, kept)]).run()
        copies.append(Copy(kept, array))
    return backend.compile(copies).run
