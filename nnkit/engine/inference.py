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
from nnkit.kernels.layout import BATCH, COUNTERS, LOSS_SUM, LOSS_WEIGHT, SCALARS
from nnkit.working import Work, working

__all__ = ["Inference", "Predictors"]

# A chunk keeps a layer's outputs to a few megabytes. Up to that, larger is better: each product waits for
# all BLAS threads (20-64-64-1, 10,000 rows: 1.9 ms in one chunk, 3.4 ms in chunks of 4096).
_CHUNK_ELEMENTS = 2**20
_FEWEST_ROWS, _MOST_ROWS = 1024, 16384
# The inputs of 1,000 pictures of 64 × 64 take 49 MB, a layer's outputs for 32 members of 512 units 67 MB; a
# few hundred such rows fill a product as well.
_WIDE, _WIDE_ELEMENTS, _FEWEST_WIDE_ROWS = 4096, 2**21, 64
# Rows that need no cast are read where they lie, by one program for each chunk (0.2 ms to prepare).
_MOST_READ_IN_PLACE = 64
_MOST_KEPT = 8


class Inference:
    """A network's outputs, and its mean loss, on a data set.

    Parameters
    ----------
    places, arena
        The network and its parameters, which are read at each call.
    rows : Rows
        The data, read in storage order.
    loss : LossKernel or None
        What `run` averages over the rows' weights; the rows then need targets.
    half : HalfPrecision, optional
        The 16-bit type of weights and activations; the outputs are in the arena's dtype. If the loss is not
        finite in 16 bits, everything is computed again in the arena's dtype.
    reproducible : bool
        Whether a row's outputs have the same bits in any batch and at any position in it. Products then add
        in a fixed order, on one core; a BLAS changes its order with the number of rows.

    Raises
    ------
    ConfigError
        If `reproducible` is requested on a device other than the CPU.
    """

    def __init__(
        self,
        places: Sequence[Place],
        arena: Arena,
        rows: Rows,
        loss: LossKernel | None = None,
        half: HalfPrecision | None = None,
        reproducible: bool = False,
    ) -> None:
        backend = arena.backend
        if reproducible and not backend.shares_host_memory:
            raise ConfigError(
                f"reproducible = True needs a network on the CPU, and this one is on {backend.name!r}; "
                "read its model file with nnkit.load, which puts it there"
            )
        self.rows = rows
        self._places, self._arena, self._loss, self._half = places, arena, loss, half
        self._reproducible = reproducible
        widest = max(width_of(place.outputs) for place in leaves(places))
        fitting = min(max(_CHUNK_ELEMENTS // widest, _FEWEST_ROWS), _MOST_ROWS)
        wide = max(rows.width, widest)
        if wide > _WIDE:
            fitting = min(fitting, max(_WIDE_ELEMENTS // wide, _FEWEST_WIDE_ROWS))
        self._chunk = max(1, min(fitting, rows.count))
        self._counters = backend.zeros(COUNTERS, np.int64)
        self._scalars = backend.zeros(SCALARS, np.float64)
        self._passes = Passes(places, arena, self._chunk, training=False, half=half)
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
        """Return the outputs, (rows, outputs) on the host, and the mean loss, NaN without a loss.

        `work` counts the finished rows.
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
        """Run one chunk, copy its outputs into `outputs` (allocated if None), and return that array."""
        backend, first = self._arena.backend, number * self._chunk
        count = min(self._chunk, self.rows.count - first)
        if len(self._programs) > 1:
            backend.write(self._counters[BATCH : BATCH + 1], number)
        self._programs[number].run()
        part = backend.to_host(self._passes.outputs(count))
        if outputs is None:
            outputs = np.empty((self.rows.count, part.shape[1]), part.dtype)
        outputs[first : first + count] = part
        return outputs


def _in_fixed_order(product: Product) -> Kernel:
    arguments = {"a": product.a, "b": product.b, "out": product.out}
    return Kernel("multiply", product.out.dtype, arguments=arguments)


class Predictors:
    """A cache of inferences for small batches: preparing one takes 0.5 ms, running it 20 µs.

    Safe to use from several threads: `run` removes an inference from the cache while it uses it.
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
                return self._prepared(features, reproducible)[0].run(work)[0]
        scaled = (features.shift is None, features.scale is None)
        key = (len(features), features.dense.dtype, *scaled, reproducible)
        found = self._kept.pop(key, None)
        if found is None:
            found = self._prepared(replace(features, dense=features.dense.copy()), reproducible)
        else:
            found[1].refill(features)
        outputs, _ = found[0].run()
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[key] = found
        return outputs

    def _prepared(self, features: Features, reproducible: bool) -> tuple[Inference, Rows]:
        rows = Rows(self._arena.backend, self._arena.dtype, features)
        return Inference(self._places, self._arena, rows, reproducible=reproducible), rows
