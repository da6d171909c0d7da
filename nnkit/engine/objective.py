"""A network's loss with its gradient: the common part of a training step and of full-batch optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from nnkit.backends.operations import Array, Kernel, Operation
from nnkit.checks import Choice, Number
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import LossKernel, Passes
from nnkit.engine.places import Place
from nnkit.engine.precision import HalfPrecision, new_scaling
from nnkit.feed.batch import Batch
from nnkit.kernels import layout

__all__ = ["Objective", "Penalty", "StepSums"]


@dataclass(frozen=True)
class Penalty:
    """``l1 Σ|w| + ½ l2 Σw²`` over the weights (not the biases), added to the batch's loss.

    For an embedding's table, the sums are over the rows that the batch looks up.

    Parameters
    ----------
    l1, l2 : float
        At least 0.
    on : {"mean", "sum"}
        Whether the penalty is added to the weighted mean of the batch's losses or to their weighted sum; the
        latter is scikit-learn's ``alpha``, which weakens as batches grow.
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
class StepSums:
    """The sums over the steps of an epoch so far.

    Parameters
    ----------
    loss_sum : float
        Σ w·loss.
    penalty_sum : float
        Σ over batches of the penalty, times the batch's Σw where it is added to the mean.
    weight : float
        Σw.
    loss_scale : float or None
        The current factor of the loss's gradient; None if the loss is not scaled.
    skipped_steps : int
        Updates skipped since the training began because their gradients overflowed.
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
        """The penalties' part of `loss`."""
        return self.penalty_sum / self.weight if self.weight > 0 else float("nan")

    def since(self, earlier: StepSums) -> StepSums:
        """Return the sums over the steps after an earlier reading."""
        names = ("loss_sum", "penalty_sum", "weight")
        return replace(self, **{name: getattr(self, name) - getattr(earlier, name) for name in names})


class Objective:
    """A network's loss with its gradient.

    Parameters
    ----------
    places, arena
        The network and its parameters.
    loss : LossKernel
        Averaged over each batch's sample weights.
    penalty : Penalty
        Added to the loss.
    batch_size : int
        The nominal batch size, by which the backward pass divides.
    seed : int
        The key of the dropout draws, in [0, 2**64).
    average_rows : bool
        Whether the epoch's loss weights a batch's mean loss by its number of rows, not by their weights.
    most_tokens, half, drops
        As for `Passes`.

    Attributes
    ----------
    scaling : array of shape (SCALING,), float64, or None
        The state of the loss scale, if the loss is scaled.
    factors : dict of str to array of shape (steps_per_epoch,), float64
        The factors of each step, for what is scheduled beside the learning rate; see `Step`.
    """

    def __init__(
        self,
        places: Sequence[Place],
        arena: Arena,
        loss: LossKernel,
        penalty: Penalty,
        batch_size: int,
        seed: int,
        average_rows: bool = False,
        most_tokens: Sequence[int] = (),
        half: HalfPrecision | None = None,
        drops: bool = True,
    ) -> None:
        backend = arena.backend
        self.arena = arena
        self.scaling = new_scaling(backend) if half is not None and half.scales else None
        self.batch_size = batch_size
        self.passes = Passes(places, arena, batch_size, True, drops, most_tokens=most_tokens, half=half)
        self.counters = backend.zeros(layout.COUNTERS, np.int64)
        self.scalars = backend.zeros(layout.SCALARS, np.float64)
        self.segments = backend.from_host(arena.table())
        self.places = tuple(places)
        self.average_rows = average_rows
        self.factors: dict[str, Array] = {}
        self._loss = loss
        self._penalty = penalty
        self._seed = seed

    def operations(self, batch: Batch) -> list[Operation]:
        """Return the loss of a filled batch and its gradient by every parameter, times Σw / batch_size."""
        gradient = self.gradient(self.passes, batch, self.counters, self.scalars, self.average_rows)
        return [*gradient, *self.penalise({})]

    def gradient(
        self, passes: Passes, batch: Batch, counters: Array, scalars: Array, average_rows: bool
    ) -> list[Operation]:
        """Return the loss of a filled batch and its gradient, without penalties, over the given arrays."""
        forward = passes.forward(batch, counters, self._seed, self.factors.get("dropout"))
        loss = passes.loss(self._loss, batch, scalars, self.batch_size, average_rows, self.scaling)
        return [*forward, loss, *passes.backward()]

    def penalise(self, given: Mapping[str, Any]) -> list[Operation]:
        """Return the penalty's operations, if any; arrays in `given` replace the objective's own."""
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
        constants = {
            "PENALTY_ON_SUM": self._penalty.on == "sum",
            "AVERAGE_ROWS": self.average_rows,
            **self.rescaled,
        }
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
        """The flag of the kernels that take the loss scale into account."""
        return {"RESCALED": self.scaling is not None}

    def read(self) -> StepSums:
        """Wait for the device and return the sums so far."""
        scalars = self.arena.backend.to_host(self.scalars)
        places = (layout.LOSS_SUM, layout.PENALTY_SUM, layout.LOSS_WEIGHT)
        loss, penalty, weight = (float(scalars[place]) for place in places)
        if self.scaling is None:
            return StepSums(loss, penalty, weight)
        scaling = self.arena.backend.to_host(self.scaling)
        scale, skipped = float(scaling[layout.LOSS_SCALE]), int(scaling[layout.SKIPPED_STEPS])
        return StepSums(loss, penalty, weight, scale, skipped)
