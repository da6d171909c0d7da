"""A network's loss over all rows at once, with its gradient: what L-BFGS minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nnkit.core.batch import Rows
from nnkit.core.layers import Stage
from nnkit.core.losses import Loss
from nnkit.core.parameters import Arena
from nnkit.core.step import Objective, Penalty, StepFigures

__all__ = ["FullBatch"]


class FullBatch:
    """The mean loss over all rows, without dropout, and its gradient by every parameter.

    Parameters
    ----------
    stages : sequence of Stage
        The network.
    arena : Arena
        Its parameters, read anew at each run.
    loss : Loss
        Averaged over the rows' weights.
    penalty : Penalty
        Added to it.
    rows : Rows
        With targets. Every layer's outputs are kept for all rows at once.

    Attributes
    ----------
    passes : Passes
        Its buffers: each layer's outputs, and the gradient of the parameters that are no tables.
    """

    def __init__(
        self, stages: Sequence[Stage], arena: Arena, loss: Loss, penalty: Penalty, rows: Rows
    ) -> None:
        self._count = rows.count
        self._arena = arena
        without_dropout = [replace(stage, dropout=0.0) for stage in stages]
        tokens = rows.most_tokens(rows.count)
        self._objective = Objective(without_dropout, arena, loss, penalty, rows.count, seed=0, tokens=tokens)
        batch = rows.whole()
        if batch is None:
            passes, counters = self._objective.passes, self._objective.counters
            batch = rows.batch(rows.count, passes.embedded)
            filled = [rows.gather(batch, counters, rows.count), *passes.number(batch, counters)]
            program = arena.backend.program(filled)
            for _ in rows.stretches(0, 1, rows.count):
                program.run()
            rows.close()
        self.passes = self._objective.passes
        self._program = arena.backend.program(self._objective.operations(batch))

    def evaluate(self) -> StepFigures:
        """Return the loss at the arena's values; outputs and gradient stay in the buffers of `passes`."""
        self._arena.backend.write(self._objective.scalars, 0.0)
        self._program.run()
        return self._objective.read()

    def run(self) -> tuple[StepFigures, NDArray[np.float64]]:
        """Return the loss at the arena's values, and its gradient in the arena's layout, shape (size,)."""
        figures = self.evaluate()
        backend, passes = self._arena.backend, self.passes
        gradient = np.zeros(self._arena.size)
        gradient[: self._arena.dense_size] = backend.to_host(passes.gradients)
        for lookup in passes.lookups:
            lookup.scatter(self._arena.view(lookup.name, gradient))
        gradient *= self._count / figures.weight
        return figures, gradient
