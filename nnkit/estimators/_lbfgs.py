"""L-BFGS: SciPy's minimiser over all parameters as one vector, with the device's losses and gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.full_batch import FullBatch
from nnkit.engine.objective import Penalty, StepSums
from nnkit.feed.batch import Rows
from nnkit.nn.losses import Loss
from nnkit.nn.network import Network

__all__ = ["Minimum", "minimise"]


@dataclass(frozen=True)
class Minimum:
    """The result of a minimisation."""

    figures: StepSums  # with the loss
    iterations: int
    converged: bool  # a small gradient or little progress ended it, not a limit
    message: str  # SciPy's, on what ended it


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

    It ignores dropout. It ends where no element of the gradient is larger than the tolerance, or after the
    maximum number of iterations or evaluations.
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
        # The minimum need not be the point that was evaluated last.
        arena.backend.write(arena.values, found.x.astype(arena.dtype))
        figures, _ = objective.run()
    return Minimum(figures, int(found.nit), found.status == 0, str(found.message))
