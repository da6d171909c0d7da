"""A network's loss with its gradient: what a training step and a full-batch optimizer share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nnkit.backends.operations import Array, Kernel, Operation
from nnkit.checks import Choice, Number
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import LossKernel, Passes
from nnkit.engine.places import Place
from nnkit.engine.precision import HalfPrecision, new_scaling
from nnkit.feed.batch import Batch
from nnkit.kernels.layout import (
    COUNTERS,
    LOSS_SCALE,
    LOSS_SUM,
    LOSS_WEIGHT,
    PENALTY_SUM,
    SCALARS,
    SKIPPED_STEPS,
)

__all__ = ["Objective", "Penalty", "StepFigures"]


@dataclass(frozen=True)
class Penalty:
    """``l1 Σ|w| + ½ l2 Σw²`` over the weights (not the biases), added to the batch's loss.

    Of an embedding's table it counts the rows that the batch looks up.

    Parameters
    ----------
    l1, l2 : float
        At least 0.
    on : {"mean", "sum"}
        Whether it is added to the weighted mean of the batch's losses or to their weighted sum, where it
        counts for less the larger the batch is: scikit-learn's ``alpha``.
    """

    l1: float = 0.0
    l2: float = 0.0
    on: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        Number(0)("l1", self.l1)
        Number(0)("l2", self.l2)
        Choice(("mean", "sum"))("on", self.on)

    def __bool__(self) -> bool:
        return self.l1 > 0 or self.l2 > 0


@dataclass(frozen=True)
class StepFigures:
    """What the steps of an epoch have come to so far.

    Parameters
    ----------
    loss_sum : float
        Σ w·loss.
    penalty_sum : float
        Σ over batches of the penalty, times the batch's Σw where it is added to the mean.
    weight : float
        Σw.
    loss_scale : float or None
        What the loss's gradient is multiplied by now; None where it is not scaled.
    skipped_steps : int
        Updates left out since the training began, because their gradients overflowed.
    """

    loss_sum: float = 0.0
    penalty_sum: float = 0.0
    weight: float = 0.0
    loss_scale: float | None = None
    skipped_steps: int = 0

    @property
    def loss(self) -> float:
        """The weighted mean loss, penalties included; NaN before the first step."""
        return (self.loss_sum + self.penalty_sum) / self.weight if self.weight > 0 else float("nan")

    @property
    def penalty(self) -> float:
        """The penalties' part of it."""
        return self.penalty_sum / self.weight if self.weight > 0 else float("nan")

    def since(self, earlier: StepFigures) -> StepFigures:
        """Return the figures of the steps after an earlier reading."""
        return StepFigures(
            self.loss_sum - earlier.loss_sum,
            self.penalty_sum - earlier.penalty_sum,
            self.weight - earlier.weight,
            self.loss_scale,
            self.skipped_steps,
        )


class Objective:
    """A network's loss with its gradient.

    Parameters
    ----------
    places : sequence of Place
        The network.
    arena : Arena
        Its parameters.
    loss : LossKernel
        Averaged over each batch's sample weights.
    penalty : Penalty
        Added to it.
    batch_size : int
        The nominal batch, by which the backward pass divides.
    seed : int
        The key of the dropout draws, in [0, 2**64).
    by_rows : bool
        Whether a batch's mean loss counts by its rows in the epoch's, and not by their weights.
    most_tokens : sequence of int
        For each of a row's bags, the maximum number of ids in a batch.
    half : HalfPrecision, optional
        What is kept in 16 bits.
    drops : bool
        Whether dropout drops.

    Attributes
    ----------
    scaling : array of shape (SCALING,), float64, or None
        The loss scale's state, where it is scaled.
    """

    def __init__(
        self,
        places: Sequence[Place],
        arena: Arena,
        loss: LossKernel,
        penalty: Penalty,
        batch_size: int,
        seed: int,
        by_rows: bool = False,
        most_tokens: Sequence[int] = (),
        half: HalfPrecision | None = None,
        drops: bool = True,
    ) -> None:
        backend = arena.backend
        self.arena = arena
        self.scaling = new_scaling(backend) if half is not None and half.scales else None
        self.batch_size = batch_size
        self.passes = Passes(places, arena, batch_size, True, drops, most_tokens=most_tokens, half=half)
        self.counters = backend.zeros(COUNTERS, np.int64)
        self.scalars = backend.zeros(SCALARS, np.float64)
        self.segments = backend.from_host(arena.table())
        self.places = tuple(places)
        self.by_rows = by_rows
        self._loss = loss
        self._penalty = penalty
        self._seed = seed

    def operations(self, batch: Batch) -> list[Operation]:
        """Return the loss of a filled batch and its gradient by every parameter, times Σw / batch_size."""
        gradient = self.gradient(self.passes, batch, self.counters, self.scalars, self.by_rows)
        return [*gradient, *self.penalise({})]

    def gradient(
        self, passes: Passes, batch: Batch, counters: Array, scalars: Array, by_rows: bool
    ) -> list[Operation]:
        """Return the loss of a filled batch and its gradient, without penalties, over the given arrays."""
        forward = passes.forward(batch, counters, self._seed)
        loss = passes.loss(self._loss, batch, scalars, self.batch_size, by_rows, self.scaling)
        return [*forward, loss, *passes.backward()]

    def penalise(self, given: Mapping[str, Any]) -> list[Operation]:
        """Return the penalty, if there is one; `given` takes the place of the step's own arrays."""
        if not self._penalty:
            return []
        arguments = {
            "values": self.arena.values,
            "gradients": self.passes.gradients,
            "segments": self.segments,
            "scalars": self.scalars,
            "scaling": self.scaling,
            "batch_size": self.batch_size,
            "l1": float(self._penalty.l1),
            "l2": float(self._penalty.l2),
            **given,
        }
        constants = {"DIVIDED": self._penalty.on == "sum", "BY_ROWS": self.by_rows, **self.rescaled}
        rows = [
            self.kernel("penalise_rows", constants, {**arguments, **gradient.arguments()})
            for gradient in self.passes.row_gradients
            if self.arena.segment(gradient.name).decays
        ]
        return [self.kernel("penalise", constants, arguments), *rows]

    def kernel(self, name: str, constants: Mapping[str, Any], arguments: Mapping[str, Any]) -> Kernel:
        """Return a kernel without formulas, in the arithmetic of the arena."""
        return Kernel(name, self.arena.dtype, {}, constants, arguments)

    @property
    def rescaled(self) -> dict[str, bool]:
        """The flag of the kernels that know of the loss scale."""
        return {"RESCALED": self.scaling is not None}

    def read(self) -> StepFigures:
        """Wait for the device and return the sums so far; reading does not disturb them."""
        scalars = self.arena.backend.to_host(self.scalars)
        loss, penalty, weight = (float(scalars[place]) for place in (LOSS_SUM, PENALTY_SUM, LOSS_WEIGHT))
        if self.scaling is None:
            return StepFigures(loss, penalty, weight)
        scaling = self.arena.backend.to_host(self.scaling)
        return StepFigures(loss, penalty, weight, float(scaling[LOSS_SCALE]), int(scaling[SKIPPED_STEPS]))
