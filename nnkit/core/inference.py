"""The forward pass alone, over any number of rows, in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Operation, Program
from nnkit.core.batch import Batch, Rows
from nnkit.core.features import Features
from nnkit.core.layers import Stage
from nnkit.core.losses import Loss
from nnkit.core.mixed import Half
from nnkit.core.parameters import Arena
from nnkit.core.passes import Passes
from nnkit.errors import AtEnd
from nnkit.kernels.layout import BATCH, COUNTERS, LOSS_SUM, LOSS_WEIGHT, SCALARS
from nnkit.working import Work, working

__all__ = ["Inference", "Predictors"]

# Rows at once: as many as keep a layer's outputs to some megabytes, for each product waits for all threads of
# the BLAS (20-64-64-1, 10,000 rows: 1.9 ms all at once, 3.4 by 4096), and a few thousand fill wide products.
_CHUNK_ELEMENTS = 2**20
_FEWEST_ROWS, _MOST_ROWS = 1024, 16384
# The inputs of 1,000 pictures of 64 × 64 take 49 MB, as much as half of the pixels of 8,000: a few hundred of
# such rows fill a product as well.
_WIDE, _WIDE_ELEMENTS, _FEWEST_WIDE_ROWS = 4096, 2**21, 64
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
    half : Half, optional
        What weights and activations are rounded to; the outputs are in the arena's dtype. Where the loss is
        not finite so, both are computed in that dtype.

    Attributes
    ----------
    rows : Rows
        As given.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        arena: Arena,
        rows: Rows,
        loss: Loss | None = None,
        half: Half | None = None,
    ) -> None:
        backend = arena.backend
        self.rows = rows
        self._arena = arena
        self._count = rows.count
        widest = max(stage.outputs for stage in stages)
        fitting = min(max(_CHUNK_ELEMENTS // widest, _FEWEST_ROWS), _MOST_ROWS)
        if rows.width > _WIDE:
            fitting = min(fitting, max(_WIDE_ELEMENTS // rows.width, _FEWEST_WIDE_ROWS))
        self._chunk = max(1, min(fitting, rows.count))
        self._counters = backend.zeros(COUNTERS, np.int64)
        self._scalars = backend.zeros(SCALARS, np.float64)
        self._passes = Passes(stages, arena, self._chunk, training=False, half=half)
        self._loss = loss
        self._half = half
        self._stages = stages
        self._refresh = None if half is None else backend.program(self._passes.refresh())
        starts = range(0, rows.count, self._chunk)
        whole = rows.whole() if len(starts) <= _MOST_READ_IN_PLACE and half is None else None
        if whole is not None:
            self._programs = [self._program(whole.part(first, self._chunk)) for first in starts]
            return
        batch, programs = rows.batch(self._chunk, self._passes.embedded, half), {}
        for count in {self._chunk if rows.count >= self._chunk else 0, rows.count % self._chunk} - {0}:
            part = batch.first(count)
            programs[count] = self._program(part, rows.gather(part, self._counters, self._chunk))
        self._programs = [programs[min(self._chunk, rows.count - first)] for first in starts]

    def _program(self, batch: Batch, *before: Operation) -> Program:
        operations = [*before, *self._passes.forward(batch, self._counters, seed=0)]
        if self._loss is not None:
            operations.append(self._passes.loss(self._loss, batch, self._scalars, self._chunk))
        return self._arena.backend.program(operations)

    def run(self, work: Work | None = None) -> tuple[NDArray, float]:
        """Return the outputs, (rows, outputs) on the host, and the mean loss, NaN without one.

        Parameters
        ----------
        work : Work, optional
            Counts the rows that are done.
        """
        backend = self._arena.backend
        if self._loss is not None:
            backend.write(self._scalars, 0.0)
        if self._refresh is not None:
            self._refresh.run()
        outputs: NDArray | None = None
        with AtEnd(self.rows.close, "closing the rows"):
            for first, count in self.rows.stretches(0, len(self._programs), self._chunk):
                for number in range(first, first + count):
                    outputs = self._run_chunk(number, outputs)
                    if work is not None:
                        work.advance(self._chunk)
        assert outputs is not None
        if self._loss is None:
            return outputs, float("nan")
        scalars = backend.to_host(self._scalars)
        weight = float(scalars[LOSS_WEIGHT])
        loss = float(scalars[LOSS_SUM]) / weight if weight > 0 else float("nan")
        if self._half is not None and weight > 0 and not isfinite(loss):
            return Inference(self._stages, self._arena, self.rows, self._loss).run()
        return outputs, loss

    def _run_chunk(self, number: int, outputs: NDArray | None) -> NDArray:
        """Run a chunk and return the outputs so far, its own among them."""
        backend, first = self._arena.backend, number * self._chunk
        count = min(self._chunk, self._count - first)
        if len(self._programs) > 1:
            backend.write(self._counters[BATCH : BATCH + 1], number)
        self._programs[number].run()
        part = backend.to_host(self._passes.outputs(count))
        if outputs is None:
            outputs = np.empty((self._count, part.shape[1]), part.dtype)
        outputs[first : first + count] = part
        return outputs


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
        others = (features.codes, features.sparse, features.rows)
        spread = features.bags or any(other is not None for other in others)
        if len(features) > _FEWEST_ROWS or spread:
            with working("predicting", len(features), "rows") as work:
                return Inference(self._stages, arena, Rows(arena.backend, arena.dtype, features)).run(work)[0]
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
