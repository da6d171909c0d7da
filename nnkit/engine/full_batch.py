"""A network's loss over all rows at once, with its gradient: what L-BFGS minimises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.objective import Objective, Penalty, StepFigures
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import LossKernel
from nnkit.engine.places import Place
from nnkit.feed.source import RowSource

__all__ = ["FullBatch"]


class FullBatch:
    """The mean loss over all rows, without dropout, and its gradient by every parameter.

    Parameters
    ----------
    places : sequence of Place
        The network.
    arena : Arena
        Its parameters, read anew at each run.
    loss : LossKernel
        Averaged over the rows' weights.
    penalty : Penalty
        Added to it.
    rows : RowSource
        With targets. Every layer's outputs are kept for all rows at once.

    Attributes
    ----------
    passes : Passes
        Its buffers: each layer's outputs, and the gradient of the parameters that are no tables.
    """

    def __init__(
        self, places: Sequence[Place], arena: Arena, loss: LossKernel, penalty: Penalty, rows: RowSource
    ) -> None:
        self._count = rows.count
        self._arena = arena
        tokens = rows.most_tokens(rows.count)
        self._objective = Objective(
            places, arena, loss, penalty, rows.count, 0, most_tokens=tokens, drops=False
        )
        batch = rows.whole()
        if batch is None:
            batch = self._objective.passes.batch_of(rows)
            program = arena.backend.compile([rows.gather(batch, self._objective.counters, rows.count)])
            for _ in rows.stretches(0, 1, rows.count):
                program.run()
            rows.close()
        self.passes = self._objective.passes
        self._program = arena.backend.compile(self._objective.operations(batch))

    def evaluate(self) -> StepFigures:
        """Return the loss at the arena's values; outputs and gradient stay in the buffers of `passes`."""
        self._arena.backend.write(self._objective.scalars, 0.0)
        self._program.run()
        return self._objective.read()

    def run(self) -> tuple[StepFigures, NDArray[np.float64]]:
        """Return the loss at the arena's values, and its gradient in the arena's layout, shape (size,).

        It is 0 for parameters that do not train.
        """
        figures = self.evaluate()
        backend, passes = self._arena.backend, self.passes
        gradient = np.zeros(self._arena.size)
        gradient[: self._arena.dense_size] = backend.to_host(passes.gradients)
        for rows in passes.row_gradients:
            rows.scatter(self._arena.view(rows.name, gradient))
        for segment in self._arena.segments:
            if not segment.trains:
                self._arena.view(segment.name, gradient)[...] = 0
        gradient *= self._count / figures.weight
        return figures, gradient
