"""A network's loss over all rows at once, with its gradient: what L-BFGS minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array
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
    """

    def __init__(
        self, stages: Sequence[Stage], arena: Arena, loss: Loss, penalty: Penalty, rows: Rows
    ) -> None:
        self._count = rows.count
        self._arena = arena
        without_dropout = [replace(stage, dropout=0.0) for stage in stages]
        self._objective = Objective(without_dropout, arena, loss, penalty, rows.count, seed=0)
        batch = rows.whole()
        if batch is None:
            batch = rows.batch(rows.count)
            arena.backend.program([rows.gather(batch, self._objective.counters, rows.count)]).run()
        self._program = arena.backend.program(self._objective.operations(batch))

    def run(self) -> tuple[StepFigures, NDArray[np.float64]]:
        """Return the loss at the arena's values, and its gradient in the arena's layout, shape (size,)."""
        backend = self._arena.backend
        backend.write(self._objective.scalars, 0.0)
        self._program.run()
        figures = self._objective.read()
        gradient: Array = backend.to_host(self._objective.passes.gradients)
        return figures, gradient.astype(np.float64) * (self._count / figures.weight)
