"""The forward pass alone, over any number of rows, in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Operation, Program
from nnkit.core.batch import Batch, Rows
from nnkit.core.features import Features
from nnkit.core.layers import Stage
from nnkit.core.losses import Loss
from nnkit.core.parameters import Arena
from nnkit.core.passes import Passes
from nnkit.kernels.layout import BATCH, COUNTERS, LOSS_SUM, LOSS_WEIGHT, SCALARS

__all__ = ["Inference", "Predictors"]

# Rows at once: a layer's outputs stay in the cache, and narrow products are few enough that waiting for each
# other's threads does not count (20-64-64-1, 10,000 rows, two threads on busy cores: 14 ms with 4096 rows at
# once, 151 with 1024; on one thread 3.8 and 3.1).
_CHUNK_ELEMENTS = 2**18
_FEWEST_ROWS, _MOST_ROWS = 1024, 8192
# Rows that need no cast are read where they lie, each stretch by a program of its own (0.2 ms to prepare).
_MOST_READ_IN_PLACE = 64
_MOST_KEPT = 8


class Inference:
    """A network's outputs, and its loss, on rows that are there.

    Parameters
    ----------
    stages : sequence of Stage
        The network.
    arena : Arena
        Its parameters, read anew at each call.
    rows : Rows
        The data, in the order they lie.
    loss : Loss or None
        What `run` averages over the rows' weights; the rows then need targets.

    Attributes
    ----------
    rows : Rows
        As given.
    """

    def __init__(self, stages: Sequence[Stage], arena: Arena, rows: Rows, loss: Loss | None = None) -> None:
        self.rows = rows
        self._arena = arena
        self._outputs = stages[-1].outputs
        lanes = arena.backend.shards(rows.count, 2.0 * rows.count * arena.size)
        widest = max(stage.outputs for stage in stages)
        fitting = min(max(_CHUNK_ELEMENTS // widest, _FEWEST_ROWS), _MOST_ROWS)
        self._chunk = max(1, min(fitting, -(-rows.count // lanes)))
        numbers = range(-(-rows.count // self._chunk))
        self._lanes = [
            _Lane(stages, arena, rows, loss, self._chunk, numbers[lane::lanes]) for lane in range(lanes)
        ]

    def run(self) -> tuple[NDArray, float]:
        """Return the outputs, (rows, outputs) on the host, and the mean loss, NaN without one."""
        outputs = np.empty((self.rows.count, self._outputs), self._arena.dtype)
        self._arena.backend.together([partial(lane.run, outputs) for lane in self._lanes])
        figures = np.sum([self._arena.backend.to_host(lane.scalars) for lane in self._lanes], axis=0)
        weight = float(figures[LOSS_WEIGHT])
        return outputs, float(figures[LOSS_SUM]) / weight if weight > 0 else float("nan")


class _Lane:
    """One core's stretches of the rows: its buffers, and a program for each stretch."""

    def __init__(
        self,
        stages: Sequence[Stage],
        arena: Arena,
        rows: Rows,
        loss: Loss | None,
        chunk: int,
        numbers: Sequence[int],
    ) -> None:
        backend = arena.backend
        self.scalars = backend.zeros(SCALARS, np.float64)
        self._backend = backend
        self._counters = backend.zeros(COUNTERS, np.int64)
        self._passes = Passes(stages, arena, chunk, training=False)
        self._loss = loss
        self._chunk = chunk
        self._counts = {number: min(chunk, rows.count - number * chunk) for number in numbers}
        whole = rows.whole() if len(numbers) <= _MOST_READ_IN_PLACE else None
        if whole is not None:
            self.programs = {number: self._program(whole.part(number * chunk, chunk)) for number in numbers}
            return
        batch, programs = rows.batch(chunk), {}
        for count in dict.fromkeys(self._counts.values()):
            part = batch.first(count)
            programs[count] = self._program(part, rows.gather(part, self._counters, chunk))
        self.programs = {number: programs[count] for number, count in self._counts.items()}

    def _program(self, batch: Batch, *before: Operation) -> Program:
        operations = [*before, *self._passes.forward(batch, self._counters, seed=0)]
        if self._loss is not None:
            operations.append(self._passes.loss(self._loss, batch, self.scalars, self._chunk))
        return self._backend.program(operations)

    def run(self, outputs: NDArray) -> None:
        """Write this lane's rows of the outputs, and what they add to the loss."""
        self._backend.write(self.scalars, 0.0)
        for number, program in self.programs.items():
            first, count = number * self._chunk, self._counts[number]
            self._backend.write(self._counters[BATCH : BATCH + 1], number)
            program.run()
            outputs[first : first + count] = self._backend.to_host(self._passes.outputs(count))


class Predictors:
    """Inferences of few rows that are kept for the next call: preparing one takes 0.5 ms, running it 20 µs.

    Safe to use from several threads: who runs one has taken it out.

    Parameters
    ----------
    stages : sequence of Stage
        The network.
    arena : Arena
        Its parameters.
    """

    def __init__(self, stages: Sequence[Stage], arena: Arena) -> None:
        self._stages = stages
        self._arena = arena
        self._kept: dict[tuple[object, ...], Inference] = {}

    def run(self, features: Features) -> NDArray:
        """Return the outputs for rows, (rows, outputs) on the host."""
        arena = self._arena
        if len(features) > _FEWEST_ROWS or features.codes is not None or features.sparse is not None:
            return Inference(self._stages, arena, Rows(arena.backend, arena.dtype, features)).run()[0]
        key = (len(features), features.dense.dtype, features.shift is None, features.scale is None)
        inference = self._kept.pop(key, None)
        if inference is None:
            copied = replace(features, dense=features.dense.copy())
            inference = Inference(self._stages, arena, Rows(arena.backend, arena.dtype, copied))
        else:
            inference.rows.refill(features)
        outputs, _ = inference.run()
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[key] = inference
        return outputs
