"""L-BFGS: SciPy's minimiser over the arena as one vector; losses and gradients come from the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.full_batch import FullBatch
from nnkit.engine.objective import Penalty, StepFigures
from nnkit.feed.batch import Rows
from nnkit.nn.losses import Loss
from nnkit.nn.network import Network

__all__ = ["Minimum", "minimise"]


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Parameters
    ----------
    figures : StepFigures
        The loss there.
    iterations : int
        Of the minimiser.
    converged : bool
        Whether it ended for the gradient or the progress being small, and not for a limit.
    message : str
        SciPy's words for why it ended.
    """

    figures: StepFigures
    iterations: int
    converged: bool
    message: str


def minimise(
    network: Network,
    loss: Loss,
    penalty: Penalty,
    rows: Rows,
    *,
    tolerance: float = 1e-4,
    iterations: int = 200,
    evaluations: int = 15_000,
) -> Minimum:
    """Minimise a network's mean loss over all rows with L-BFGS-B (Byrd et al. 1995), in place.

    Parameters
    ----------
    network : Network
        On its device; its dropout takes no part.
    loss, penalty
        As for a training.
    rows : Rows
        With targets; weights where they are wanted.
    tolerance : float
        The greatest element of the gradient at which it ends.
    iterations, evaluations : int
        The most iterations, and the most evaluations of the loss.
    """
    from scipy.optimize import minimize

    arena = network.arena
    objective = FullBatch(network.places, arena, loss, penalty, rows)

    def value_and_gradient(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        arena.backend.write(arena.values, values.astype(arena.dtype))
        figures, gradient = objective.run()
        return figures.loss, gradient

    start = arena.backend.to_host(arena.values).astype(np.float64)
    limits = {"maxiter": iterations, "maxfun": evaluations, "gtol": tolerance}
    with np.errstate(all="ignore"):
        found = minimize(value_and_gradient, start, method="L-BFGS-B", jac=True, options=limits)
        # What it returns need not be the last place that it looked at.
        arena.backend.write(arena.values, found.x.astype(arena.dtype))
        figures, _ = objective.run()
    return Minimum(figures, int(found.nit), found.status == 0, str(found.message))
