"""Section `kernels`: each fused kernel of a step beside NumPy's (CuPy's) expression and a copy as large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np

from nnkit.backends.operations import Array, Copy, Kernel
from nnkit.bench.problem import generate_problem, training_step
from nnkit.bench.records import Record, measured
from nnkit.bench.timing import Case, Plan, clock_for, in_turns
from nnkit.engine.step import Step
from nnkit.kernels.layout import BATCH, STEP

__all__ = ["EXPRESSIONS", "Expression", "kernels", "kernels_of", "measure_kernel"]

_RUNS = 20  # in a measurement: with more a pass in place works on ever smaller numbers
_CACHED = 2**18  # elements up to which a kernel takes microseconds on a processor


def kernels(plan: Plan) -> Iterator[Case]:
    """Yield a case for each kernel at a step's own size, which stays in the cache, and at a large one."""
    sizes = plan.pick(((128, 512), (8192, 4096) if plan.on_gpu else (4096, 2048)), ((128, 512),), ((8, 12),))
    for (rows, columns), name in product(sizes, EXPRESSIONS):
        blank = Record("kernels", name, plan.device, "fp32", {"rows": rows, "columns": columns})
        yield blank, partial(_measure, plan)


def _measure(plan: Plan, blank: Record) -> Iterable[Record]:
    rows, columns = (int(blank.parameters[name]) for name in ("rows", "columns"))
    kernel = _kernels(plan, rows, columns)[blank.name]
    yield measure_kernel(plan, kernel, EXPRESSIONS[blank.name], blank)


@cache
def _kernels(plan: Plan, rows: int, columns: int) -> dict[str, Kernel]:
    problem = generate_problem((columns, columns, columns), rows, 1)
    return kernels_of(training_step(problem, plan.backend()), rows)


def kernels_of(step: Step, rows: int) -> dict[str, Kernel]:
    """Return a step's kernels by name, the last of each, after a run that fills every array."""
    operations, backend = step.operations_of(rows), step.arena.backend
    backend.compile(operations).run()
    # The update has counted the batch: a gather of the next one would find no rows.
    backend.write(step.counters[BATCH : BATCH + 1], 0)
    backend.synchronize()
    return {one.name: one for one in operations if isinstance(one, Kernel)}


def measure_kernel(plan: Plan, kernel: Kernel, expression: Expression, blank: Record) -> Record:
    """Return the record with the times of a kernel and its expression, and its rate over a copy's."""
    backend, elements = plan.backend(), int(blank.parameters["rows"]) * int(blank.parameters["columns"])
    small = plan.on_gpu or elements <= _CACHED
    runs, repeats = (_RUNS, 3 * plan.repeats) if small else (2, plan.repeats)
    if kernel.name == "update":
        kernel = kernel.given(rates=backend.from_host(np.full(runs, 1e-6)))
    changed = [*kernel.writes(), *map(kernel.arguments.get, ("counters", "scalars"))]
    arrays = {id(array): array for array in changed if array is not None}.values()
    kept = [backend.empty(array.shape, array.dtype) for array in arrays]
    backend.compile([Copy(*pair) for pair in zip(arrays, kept, strict=True)]).run()
    # A derivative applied again and again becomes so small that the processor is slow with it.
    restore = backend.compile([Copy(*pair) for pair in zip(kept, arrays, strict=True)]).run
    source = backend.from_host(
        np.resize(np.random.default_rng(0).random(997, np.float32), kernel.moved() // 8)
    )
    copy = Copy(source, backend.zeros(source.shape, np.float32))
    clock, plain = (
        clock_for(backend),
        partial(expression, kernel, import_module("cupy" if plan.on_gpu else "numpy")),
    )

    def clock_from_the_start(function: Callable[[], object]) -> float:
        restore()
        return clock(function)

    def unfused_runs() -> None:
        with backend.active():
            for _ in range(runs):
                plain()

    functions: list[Callable[[], object]] = [
        backend.compile([kernel] * runs).run,
        unfused_runs,
        backend.compile([copy] * runs).run,
    ]
    fused, unfused, copying = in_turns(functions, repeats, 3 if small else 1, clock_from_the_start)
    rate, copied = kernel.moved() * runs / fused, 2 * source.nbytes * runs / copying
    figures = {
        "fused": measured("s", fused / runs),
        "unfused": measured("s", unfused / runs),
        "moved": measured("B/s", rate),
        "unfused / fused": measured("", unfused / fused),
        "rate / copy's rate": measured("", rate / copied),
    }
    return replace(blank, figures=figures, details={"bytes": kernel.moved()})


Expression = Callable[[Kernel, Any], Mapping[str, Array]]
"""Of a kernel and NumPy or CuPy: the values of the arguments that the kernel fills, and ``loss``."""


def _gather(kernel: Kernel, xp: Any) -> Mapping[str, Array]:
    a = kernel.arguments
    rows = a["order"][: a["batch_size"]]
    x = a["source"][rows].astype(a["inputs"].dtype)
    if kernel.constants["SCALED"]:
        x = (x - a["shift"]) * a["scale"]
    return {"inputs": x, "labels": a["targets"][rows]}


def _forward(kernel: Kernel, xp: Any) -> Mapping[str, Array]:
    return {"z": xp.maximum(kernel.arguments["z"] + kernel.arguments["bias"], 0)}


def _softmax_loss(kernel: Kernel, xp: Any) -> Mapping[str, Array]:
    a = kernel.arguments
    labels, rows = a["labels"], xp.arange(len(a["labels"]))
    z = a["outputs"] + a["bias"]
    z = z - z.max(axis=1, keepdims=True)
    e = xp.exp(z)
    total = e.sum(axis=1, keepdims=True)
    loss = (xp.log(total[:, 0]) - z[rows, labels]).sum()
    gradient = e / total
    gradient[rows, labels] -= 1
    gradient /= a["batch_size"]
    return {"loss": loss, "gradient": gradient, "bias_gradient": gradient.sum(axis=0)}


def _backward(kernel: Kernel, xp: Any) -> Mapping[str, Array]:
    delta = kernel.arguments["delta"] * (kernel.arguments["a"] > 0)
    return {"delta": delta, "bias_gradient": delta.sum(axis=0)}


def _adam(kernel: Kernel, xp: Any) -> Mapping[str, Array]:
    """Update in place, as a training loop would."""
    a = kernel.arguments
    g, m, v, step = a["gradients"], a["state0"], a["state1"], a["counters"][STEP] + 1
    first, second = ((1 - beta**step).astype(g.dtype) for beta in (0.9, 0.999))
    m *= 0.9
    m += (1 - 0.9) * g
    v *= 0.999
    v += (1 - 0.999) * g * g
    w = a["values"]
    w -= 1e-6 * (m / first) / (xp.sqrt(v / second) + 1e-8)
    return {"values": w, "state0": m, "state1": v}


EXPRESSIONS: Mapping[str, Expression] = {
    "gather": _gather,
    "forward": _forward,
    "softmax_loss": _softmax_loss,
    "backward": _backward,
    "update": _adam,
}
"""By a kernel's name, one pass over memory for each operation."""
