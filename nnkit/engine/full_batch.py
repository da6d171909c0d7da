"""A network's mean loss over all rows at once, with its gradient: what L-BFGS minimises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.objective import Objective, Penalty, StepSums
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import LossKernel
from nnkit.engine.places import Place
from nnkit.feed.batch import Rows

__all__ = ["FullBatch"]


class FullBatch:
    """The mean loss over all rows, without dropout, and its gradient with respect to every parameter.

    Parameters
    ----------
    places, arena
        The network and its parameters, which are read at each run.
    loss : LossKernel
        Averaged over the rows' weights.
    penalty : Penalty
        Added to the loss.
    rows : Rows
        With targets. Every layer's outputs are kept for all rows at once.

    Attributes
    ----------
    passes : Passes
        The buffers: each layer's outputs, and the gradient of all parameters outside embedding tables.
    """

    def __init__(
        self, places: Sequence[Place], arena: Arena, loss: LossKernel, penalty: Penalty, rows: Rows
    ) -> None:
        self._count = rows.count
        self._arena = arena
        tokens = rows.most_tokens(rows.count)
        self._objective = Objective(
            places, arena, loss, penalty, rows.count, 0, most_tokens=tokens, drops=False
        )
        self.passes = self._objective.passes
        batch = rows.whole()
        if batch is None:
            batch = self.passes.batch_of(rows)
            program = arena.backend.compile([rows.gather(batch, self._objective.counters, rows.count)])
            for _ in rows.stretches(0, 1, rows.count):
                program.run()
            rows.close()
        self._program = arena.backend.compile(self._objective.operations(batch))

    def evaluate(self) -> StepSums:
        """Return the loss at the arena's values; outputs and gradient stay in the buffers of `passes`."""
        self._arena.backend.write(self._objective.scalars, 0.0)
        self._program.run()
        return self._objective.read()

    def run(self) -> tuple[StepSums, NDArray[np.float64]]:
        """Return the loss at the arena's values, and its gradient in the arena's layout, shape (size,).

        The gradient of a frozen parameter is 0.
        """
        figures = self.evaluate()
        gradient = np.zeros(self._arena.size)
        gradient[: self._arena.dense_size] = self._arena.backend.to_host(self.passes.gradients)
        for rows in self.passes.row_gradients:
            rows.scatter(self._arena.view(rows.name, gradient))
        for segment in self._arena.segments:
            if not segment.trains:
                self._arena.view(segment.name, gradient)[...] = 0
        gradient *= self._count / figures.weight
        return figures, gradient
