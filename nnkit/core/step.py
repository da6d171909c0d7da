"""A training step: gather, forward, loss, backward, penalties, update; prepared once, then only run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array, Operation, Program
from nnkit.checks import at_least_zero
from nnkit.core.batch import Batch, Rows
from nnkit.core.layers import Stage
from nnkit.core.losses import Loss
from nnkit.core.mixed import Half, new_scaling
from nnkit.core.optimizers import Optimizer
from nnkit.core.parameters import Arena
from nnkit.core.passes import Passes
from nnkit.core.shards import Shards
from nnkit.errors import ConfigError
from nnkit.kernels.layout import (
    BATCH,
    COUNTERS,
    EPOCH,
    LOSS_SCALE,
    LOSS_SUM,
    LOSS_WEIGHT,
    PENALTY_SUM,
    SCALARS,
    SKIPPED_STEPS,
    SQUARED_NORM,
    STEP,
    WEIGHT_SUM,
)

__all__ = ["Objective", "Penalty", "Step", "StepFigures"]


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
        at_least_zero("l1", self.l1)
        at_least_zero("l2", self.l2)
        if self.on not in ("mean", "sum"):
            raise ConfigError(f"a penalty is on the 'mean' or the 'sum' of the losses, not on {self.on!r}")

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
    """A network's loss with its gradient: what a training step and a full-batch optimizer share.

    Parameters
    ----------
    stages : sequence of Stage
        The network.
    arena : Arena
        Its parameters.
    loss : Loss
        Averaged over each batch's sample weights.
    penalty : Penalty
        Added to it.
    batch_size : int
        The nominal batch, by which the backward pass divides.
    seed : int
        The key of the dropout draws, in [0, 2**64).
    by_rows : bool
        Whether a batch's mean loss counts by its rows in the epoch's, and not by their weights.
    tokens : sequence of int
        Of each embedding, the most ids that a batch holds.
    half : Half, optional
        What is kept in 16 bits.

    Attributes
    ----------
    scaling : array of shape (SCALING,), float64, or None
        The loss scale's state, where it is scaled.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        arena: Arena,
        loss: Loss,
        penalty: Penalty,
        batch_size: int,
        seed: int,
        by_rows: bool = False,
        tokens: Sequence[int] = (),
        half: Half | None = None,
    ) -> None:
        backend = arena.backend
        self.arena = arena
        self.scaling = new_scaling(backend) if half is not None and half.scales else None
        self.batch_size = batch_size
        self.passes = Passes(stages, arena, batch_size, training=True, tokens=tokens, half=half)
        self.counters = backend.zeros(COUNTERS, np.int64)
        self.scalars = backend.zeros(SCALARS, np.float64)
        self.segments = backend.from_host(arena.table())
        self.stages = tuple(stages)
        self.by_rows = by_rows
        self._loss = loss
        self._penalty = penalty
        self._seed = seed

    def operations(self, batch: Batch) -> list[Operation]:
        """Prepare the loss of a filled batch and its gradient by every parameter, times Σw / batch_size."""
        operations = self.gradient(self.passes, batch, self.counters, self.scalars, self.by_rows)
        return operations + self._penalise({})

    def gradient(
        self, passes: Passes, batch: Batch, counters: Array, scalars: Array, by_rows: bool = False
    ) -> list[Operation]:
        """Prepare the loss of a filled batch and its gradient, without penalties, over the given buffers."""
        operations = passes.forward(batch, counters, self._seed)
        operations.append(passes.loss(self._loss, batch, scalars, self.batch_size, by_rows, self.scaling))
        return operations + passes.backward(batch, counters)

    def _penalise(self, given: Mapping[str, Any]) -> list[Operation]:
        """Prepare the penalty, if there is one; `given` takes the place of the step's own arrays."""
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
        constants = {"DIVIDED": self._penalty.on == "sum", "BY_ROWS": self.by_rows, **self._rescaled}
        rows = [
            self._kernel("penalise_rows", {}, constants, {**arguments, **lookup.seen_arguments()})
            for lookup in self.passes.lookups
        ]
        return [self._kernel("penalise", {}, constants, arguments), *rows]

    def _kernel(
        self,
        name: str,
        formulas: Mapping[str, Callable],
        constants: Mapping[str, bool | int | float],
        arguments: Mapping[str, Any],
    ) -> Operation:
        return self.arena.backend.kernel(name, self.arena.dtype, formulas, constants, arguments)

    @property
    def _rescaled(self) -> dict[str, bool]:
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


class Step(Objective):
    """A network, a loss, an optimizer and a batch size on a device, with every buffer in place.

    Parameters
    ----------
    stages, arena, loss, penalty, batch_size, seed, by_rows, half
        As for `Objective`.
    optimizer : Optimizer
        Its rule and its decay; the rates come with each epoch.
    rows : Rows
        The training data.
    clip_norm : float or None
        The greatest norm of a batch's gradient over all parameters, penalties included; a longer one is
        scaled down (Pascanu et al. 2013, arXiv:1211.5063).
    state : mapping of str to array of shape (size,), optional
        The optimizer's state to go on with, in place; zeros if not given.

    Attributes
    ----------
    state : dict of str to array of shape (size,)
        The optimizer's state, in the arena's layout; and ``last_seen``, (rows of all tables,) int64, where a
        state shrinks at each step that does not see its row: after how many updates each was seen last; and
        ``loss_scaling``, (SCALING,) float64, where the loss is scaled.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        arena: Arena,
        loss: Loss,
        penalty: Penalty,
        batch_size: int,
        seed: int,
        optimizer: Optimizer,
        rows: Rows,
        clip_norm: float | None = None,
        state: Mapping[str, Array] | None = None,
        by_rows: bool = False,
        half: Half | None = None,
    ) -> None:
        super().__init__(
            stages, arena, loss, penalty, batch_size, seed, by_rows, rows.most_tokens(batch_size), half
        )
        self.steps_per_epoch = -(-rows.count // batch_size)
        self.state = dict(state or self._no_state(optimizer))
        if self.scaling is not None:
            self.scaling = self.state.setdefault("loss_scaling", self.scaling)
        self.rates = arena.backend.zeros(self.steps_per_epoch, np.float64)
        self._norm_scalars = arena.backend.zeros(SCALARS, np.float64)
        self._weight_norm: Program | None = None
        self.rows = rows
        self._optimizer = optimizer
        self._clip_norm = clip_norm
        self._batch = rows.batch(batch_size, self.passes.embedded, half)
        self._copies = None if half is None else arena.copies(half)
        self._refresh = arena.backend.program(self.passes.refresh())
        self._full = rows.count // batch_size
        work = 6.0 * batch_size * arena.size  # two operations, three products a weight
        # The rows of a table that two shards see are not two shards' rows.
        apart = self.passes.lookups or half is not None
        shards = 1 if apart else arena.backend.shards(batch_size, work)
        self._shards = Shards(self, shards) if shards > 1 else None
        self._programs: dict[int, Program] = {}
        self._sharded: set[int] = set()  # the numbers of rows that are parted among shards
        self._last = 0  # rows of the last batch that was run
        self._full_seen = False
        for count in {batch_size if self._full else 0, rows.count % batch_size} - {0}:
            self._programs[count] = self._program(count)

    def _no_state(self, optimizer: Optimizer) -> dict[str, Array]:
        state = {name: self.arena.like_values() for name in optimizer.state}
        if type(optimizer).left is not None and self.passes.lookups:
            rows = sum(lookup.table.size for lookup in self.passes.lookups)
            state["last_seen"] = self.arena.backend.zeros(rows, np.int64)
        return state

    def _program(self, count: int) -> Program:
        sharded = None if self._shards is None else self._shards.program(count)
        if sharded is not None:
            self._sharded.add(count)
            return sharded
        batch = self._batch.first(count)
        gather = self.rows.gather(batch, self.counters, self.batch_size)
        operations = [gather, *self.passes.number(batch, self.counters), *self.operations(batch)]
        updates = [*self._update_tables(), self.update({})]  # the last one counts the step
        return self.arena.backend.program([*operations, *self._norm({}), *updates])

    def regularise(self, given: Mapping[str, Any]) -> list[Operation]:
        """Prepare penalty and norm of a gradient, where they are wanted; `given` as for `update`."""
        return [*self._penalise(given), *self._norm(given)]

    def _norm(self, given: Mapping[str, Any]) -> list[Operation]:
        # An overflow shows in the norm.
        if self._clip_norm is None and self.scaling is None:
            return []
        arguments = {**self._update_arguments(), **given}
        rows = [
            self._kernel("squared_norm_rows", {}, self._rescaled, {**arguments, **lookup.seen_arguments()})
            for lookup in self.passes.lookups
        ]
        return [self._kernel("squared_norm", {}, self._rescaled, arguments), *rows]

    @property
    def plain(self) -> bool:
        """Whether nothing is done to a batch's gradient before the update."""
        return not self._penalty and self._clip_norm is None

    def update(self, given: Mapping[str, Any]) -> Operation:
        """Prepare the optimizer's update; `given` takes the place of the step's own arrays.

        With a `last` gradient among it, that is added to the others'.
        """
        arguments = {**self._update_arguments(), **given}
        constants = {
            **self._update_constants(),
            "FOLDED": "last" in given,
            "COPIED": self._copies is not None,
        }
        if self._copies is not None:
            arguments |= self._copies.trained()
        return self._kernel("update", self._optimizer.formulas, constants, arguments)

    def _update_constants(self) -> dict[str, bool | int | float]:
        return {
            "SLOTS": len(self._optimizer.state),
            "CLIP": self._clip_norm is not None,
            "PREPARED": type(self._optimizer).prepare is not None,
            **self._rescaled,
            **self._optimizer.constants,
        }

    def _update_tables(self) -> list[Operation]:
        """Prepare the update of the rows of each table that the batch saw."""
        operations, first = [], 0
        for lookup in self.passes.lookups:
            arguments = {**self._update_arguments(), **lookup.seen_arguments()}
            for slot, name in enumerate(self._optimizer.state):
                arguments[f"state{slot}"] = self.arena.view(lookup.name, self.state[name])
            lingers = "last_seen" in self.state
            if lingers:
                arguments["last_seen"] = self.state["last_seen"][first : first + lookup.table.size]
            constants = {**self._update_constants(), "LINGERS": lingers}
            formulas = self._optimizer.formulas_of_rows
            operations.append(self._kernel("update_rows", formulas, constants, arguments))
            operations += [self._kernel("mark_rows", {}, self._rescaled, arguments)] if lingers else []
            first += lookup.table.size
        return operations

    def _update_arguments(self) -> dict[str, Any]:
        return {
            "values": self.arena.values,
            "gradients": self.passes.gradients,
            "segments": self.segments,
            "counters": self.counters,
            "scalars": self.scalars,
            "scaling": self.scaling,
            "rates": self.rates,
            "batch_size": self.batch_size,
            "clip_norm": np.float64(self._clip_norm or 0.0),
            "weight_decay": float(self._optimizer.weight_decay),
            **{f"state{slot}": self.state[name] for slot, name in enumerate(self._optimizer.state)},
        }

    def begin_epoch(self, epoch: int, order: NDArray[np.int64], rates: NDArray[np.float64]) -> None:
        """Give the device an epoch's order and learning rates; its sums begin at zero.

        Parameters
        ----------
        epoch : int
            From 0; the dropout draws are a function of it.
        order : ndarray of shape (samples,)
            A permutation of the rows.
        rates : ndarray of shape (steps_per_epoch,)
            The learning rate of each batch.
        """
        backend = self.arena.backend
        self.rows.begin(order)
        backend.write(self.rates, rates)
        backend.write(self.counters[EPOCH : EPOCH + 1], epoch)
        backend.write(self.scalars, 0.0)

    def begin_counting_skips(self) -> None:
        """Count the updates that are left out from here on."""
        if self.scaling is not None:
            self.arena.backend.write(self.scaling[SKIPPED_STEPS : SKIPPED_STEPS + 1], 0.0)

    def run(self, first: int, count: int) -> None:
        """Train on the batches ``first .. first + count - 1`` of the epoch; the last one may be smaller."""
        self.arena.backend.write(self.counters[BATCH : BATCH + 1], first)
        if self._copies is not None:
            self._refresh.run()
        for batch, several in self.rows.stretches(first, count, self.batch_size):
            self._run_placed(batch, several)

    def _run_placed(self, first: int, count: int) -> None:
        if self._shards is not None:
            self._shards.begin()
        full = max(0, min(first + count, self._full) - first)
        if full:
            self._programs[self.batch_size].run(full)
            self._last, self._full_seen = self.batch_size, True
        if count > full:
            if self._shards is not None:
                self._shards.begin()
            self._last = self.rows.count % self.batch_size
            self._programs[self._last].run(1)

    def outputs(self, stage: Stage, most: int) -> tuple[NDArray, NDArray | None] | None:
        """Return what the last full batch's step left of a stage's outputs, copied to the host.

        Parameters
        ----------
        stage : Stage
            Not the last, whose outputs the loss has changed.
        most : int
            How many rows are wanted at most.

        Returns
        -------
        outputs : ndarray of shape (rows, units)
            With dropout, where there is any; None for both where no full batch was run yet.
        kept : ndarray of shape (rows, units), uint8, or None
            Which of them dropout kept, where it dropped any.
        """
        if not self._full_seen:
            return None
        shards = self._shards if self.batch_size in self._sharded else None
        seen = [(self.passes, self.batch_size)] if shards is None else shards.seen()
        wanted = -(-most // len(seen))
        parts = [(passes, min(rows, wanted)) for passes, rows in seen]
        host = self.arena.backend.to_host
        outputs = [host(passes.activations(rows)[stage.index]) for passes, rows in parts]
        masks = [passes.kept(rows)[stage.index] for passes, rows in parts]
        kept = [host(mask) for mask in masks if mask is not None]
        return np.concatenate(outputs), np.concatenate(kept) if kept else None

    def last_gradient(self, name: str, rows: Array) -> NDArray[np.float64]:
        """Return rows of a parameter's gradient in the last step, of the batch's mean loss, not clipped.

        Where the loss is scaled, it is divided by the scale that followed the step: twice the step's at the
        one in 2000 that doubles it, and of no matter after one whose gradient is not finite.

        Parameters
        ----------
        name : str
            Of the parameter.
        rows : array of shape (rows,), int64
            On the device.

        Returns
        -------
        gradient : ndarray of shape (rows, units)
        """
        shards = self._shards if self._last in self._sharded else None
        parts = [self.passes.gradients] if shards is None else shards.gradients()
        host = self.arena.backend.to_host
        total = sum(host(self.arena.view(name, part), rows).astype(np.float64) for part in parts)
        weight = float(host(self.scalars)[WEIGHT_SUM])
        scale = weight if self.scaling is None else weight * float(host(self.scaling)[LOSS_SCALE])
        return np.asarray(total) * (self.batch_size / scale if scale > 0 else 0.0)

    def arrays(self) -> dict[str, Array]:
        """Return everything that a further step depends on, by name: what a checkpoint holds of the device.

        An epoch's order and rates are given by `begin_epoch` and are not among it.
        """
        state = {f"state.{name}": array for name, array in self.state.items()}
        return {
            "values": self.arena.values,
            **state,
            "counters": self.counters,
            "scalars": self.scalars,
        }

    def updates(self) -> int:
        """The number of updates done; waits for the device."""
        return int(self.arena.backend.to_host(self.counters)[STEP])

    def products(self) -> Program:
        """Return a full batch's matrix products alone, over the same buffers, as a program of their own."""
        if self.batch_size not in self.passes.products:  # a step in shards has others
            self.operations(self._batch.first(self.batch_size))
        return self.arena.backend.program(self.passes.products[self.batch_size])

    def weight_norm(self) -> float:
        """The Euclidean norm of the parameters, not finite if one of them is not; waits for the device."""
        if self._weight_norm is None:
            self._weight_norm = self._norm_program()
        self._weight_norm.run()
        return float(self.arena.backend.to_host(self._norm_scalars)[SQUARED_NORM]) ** 0.5

    def _norm_program(self) -> Program:
        # The sum of squares does not care what it sums.
        segments = self.arena.backend.from_host(self.arena.table(of_all=True))
        arguments = {"gradients": self.arena.values, "segments": segments, "scalars": self._norm_scalars}
        kernel = self.arena.backend.kernel("squared_norm", self.arena.dtype, {}, {}, arguments)
        return self.arena.backend.program([kernel])

    def gradient_norm(self) -> float:
        """The norm of the last batch's gradient before clipping; waits for the device; needs `clip_norm`."""
        scalars = self.arena.backend.to_host(self.scalars)
        return float(scalars[SQUARED_NORM] ** 0.5 * self.batch_size / scalars[WEIGHT_SUM])
