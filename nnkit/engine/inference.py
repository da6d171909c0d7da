"""The forward pass alone, over any number of rows, in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Kernel, Operation, Product
from nnkit.backends.protocol import Program
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import LossKernel, Passes
from nnkit.engine.places import Place, leaves, width_of
from nnkit.engine.precision import HalfPrecision
from nnkit.errors import AtEnd, ConfigError
from nnkit.feed.batch import Batch, Rows
from nnkit.feed.features import Features
from nnkit.feed.source import RowSource
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
    places : sequence of Place
        The network.
    arena : Arena
        Its parameters, read anew at each call.
    rows : RowSource
        The data, in the order they lie.
    loss : LossKernel or None
        What `run` averages over the rows' weights; the rows then need targets.
    half : HalfPrecision, optional
        What weights and activations are rounded to; the outputs are in the arena's dtype. Where the loss is
        not finite so, both are computed in that dtype.
    reproducible : bool
        Whether a row's outputs have the same bits in any number of rows and at any place of them: the
        products then add in a fixed order, on one core, where a BLAS's order varies with the number of rows.

    Attributes
    ----------
    rows : RowSource
        As given.

    Raises
    ------
    ConfigError
        If `reproducible` is asked of another device than the CPU.
    """

    def __init__(
        self,
        places: Sequence[Place],
        arena: Arena,
        rows: RowSource,
        loss: LossKernel | None = None,
        half: HalfPrecision | None = None,
        reproducible: bool = False,
    ) -> None:
        backend = arena.backend
        if reproducible and not backend.shares_host_memory:
            raise ConfigError(
                f"reproducible = True is for a network on the CPU, and this one is on {backend.name!r}; "
                "read its model file with nnkit.load, which places it there"
            )
        self._reproducible = reproducible
        self.rows = rows
        self._arena = arena
        self._count = rows.count
        widest = max(width_of(place.outputs) for place in leaves(places))
        fitting = min(max(_CHUNK_ELEMENTS // widest, _FEWEST_ROWS), _MOST_ROWS)
        if rows.width > _WIDE:
            fitting = min(fitting, max(_WIDE_ELEMENTS // rows.width, _FEWEST_WIDE_ROWS))
        self._chunk = max(1, min(fitting, rows.count))
        self._counters = backend.zeros(COUNTERS, np.int64)
        self._scalars = backend.zeros(SCALARS, np.float64)
        self._passes = Passes(places, arena, self._chunk, training=False, half=half)
        self._loss = loss
        self._half = half
        self._places = places
        self._refresh = None if half is None else backend.compile(self._passes.refresh())
        starts = range(0, rows.count, self._chunk)
        whole = rows.whole() if len(starts) <= _MOST_READ_IN_PLACE and half is None else None
        if whole is not None:
            self._programs = [self._program(whole.part(first, self._chunk)) for first in starts]
            return
        batch, programs = self._passes.batch_of(rows), {}
        for count in {self._chunk if rows.count >= self._chunk else 0, rows.count % self._chunk} - {0}:
            part = batch.first(count)
            programs[count] = self._program(part, rows.gather(part, self._counters, self._chunk))
        self._programs = [programs[min(self._chunk, rows.count - first)] for first in starts]

    def _program(self, batch: Batch, *before: Operation) -> Program:
        operations = [*before, *self._passes.forward(batch, self._counters, seed=0)]
        if self._loss is not None:
            operations.append(self._passes.loss(self._loss, batch, self._scalars, self._chunk))
        if self._reproducible:
            operations = [_in_fixed_order(one) if isinstance(one, Product) else one for one in operations]
        return self._arena.backend.compile(operations)

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
            return Inference(self._places, self._arena, self.rows, self._loss).run()
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


def _in_fixed_order(product: Product) -> Kernel:
    arguments = {"a": product.a, "b": product.b, "out": product.out}
    return Kernel("multiply", product.out.dtype, arguments=arguments)


class Predictors:
    """Inferences of few rows that are kept for the next call: preparing one takes 0.5 ms, running it 20 µs.

    Safe to use from several threads: who runs one has taken it out.

    Parameters
    ----------
    places : sequence of Place
        The network.
    arena : Arena
        Its parameters.
    """

    def __init__(self, places: Sequence[Place], arena: Arena) -> None:
        self._places = places
        self._arena = arena
        self._kept: dict[tuple[object, ...], tuple[Inference, Rows]] = {}

    def run(self, features: Features, reproducible: bool = False) -> NDArray:
        """Return the outputs for rows, (rows, outputs) on the host; `reproducible` as for `Inference`."""
        others = (features.codes, features.sparse, features.rows)
        spread = features.bags or any(other is not None for other in others)
        if len(features) > _FEWEST_ROWS or spread:
            with working("predicting", len(features), "rows") as work:
                return self._inference(self._rows(features), reproducible).run(work)[0]
        scaled = (features.shift is None, features.scale is None)
        key = (len(features), features.dense.dtype, *scaled, reproducible)
        inference, rows = self._kept.pop(key, (None, None))
        if inference is None or rows is None:
            rows = self._rows(replace(features, dense=features.dense.copy()))
            inference = self._inference(rows, reproducible)
        else:
            rows.refill(features)
        outputs, _ = inference.run()
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[key] = (inference, rows)
        return outputs

    def _rows(self, features: Features) -> Rows:
        return Rows(self._arena.backend, self._arena.dtype, features)

    def _inference(self, rows: Rows, reproducible: bool) -> Inference:
        return Inference(self._places, self._arena, rows, reproducible=reproducible)
