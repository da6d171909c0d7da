"""A training step: gather, forward, loss, backward, penalties, update; compiled once, then only run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Kernel, Operation, Product
from nnkit.backends.protocol import Program
from nnkit.engine.objective import Objective, Penalty
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import LossKernel, Passes
from nnkit.engine.places import Place
from nnkit.engine.precision import HalfPrecision
from nnkit.engine.reducer import OneWorker, Reducer, Threads
from nnkit.engine.segments import segment_table
from nnkit.feed.batch import Batch
from nnkit.feed.source import RowSource
from nnkit.kernels.layout import (
    BATCH,
    COUNTERS,
    EPOCH,
    LOSS_SCALE,
    SCALARS,
    SKIPPED_STEPS,
    SQUARED_NORM,
    STEP,
    WEIGHT_SUM,
)

__all__ = ["Step", "UpdateRule"]


class UpdateRule(Protocol):
    """What the engine asks of an optimizer."""

    @property
    def weight_decay(self) -> float:
        """The share that weights shrink by at each step, times the rate."""

    @property
    def state(self) -> tuple[str, ...]:
        """The names of what it keeps for each parameter."""

    @property
    def formulas(self) -> Mapping[str, Callable]:
        """What the update kernel inlines: ``rule`` and, where it needs figures once a step, ``prepare``."""

    @property
    def formulas_of_rows(self) -> Mapping[str, Callable]:
        """The same for rows of a table; ``linger``, where a state shrinks while its row is not seen."""

    @property
    def constants(self) -> Mapping[str, bool | float]:
        """The rule's hyperparameters and switches."""


@dataclass(frozen=True)
class _Worker:
    """Who runs some of a batch's rows: its number, the first row, and its arrays."""

    number: int
    offset: int
    passes: Passes
    batch: Batch
    counters: Array
    scalars: Array
    reducer: Reducer


class Step(Objective):
    """A network, a loss, an optimizer and a batch size on a device, with every array in place.

    Parameters
    ----------
    places, arena, loss, penalty, batch_size, seed, by_rows, half
        As for `Objective`.
    optimizer : UpdateRule
        Its rule and its decay; the rates come with each epoch.
    rows : RowSource
        The training data.
    clip_norm : float or None
        The greatest norm of a batch's gradient over all parameters, penalties included; a longer one is
        scaled down (Pascanu et al. 2013, arXiv:1211.5063).
    state : mapping of str to array of shape (size,), optional
        The optimizer's state to resume with, in place; zeros if not given.

    Attributes
    ----------
    state : dict of str to array of shape (size,)
        The optimizer's state, in the arena's layout; and ``last_seen``, (rows of all tables,) int64, where a
        state shrinks at each step that does not see its row: after how many updates each was seen last; and
        ``loss_scaling``, (SCALING,) float64, where the loss is scaled.
    """

    def __init__(
        self,
        places: Sequence[Place],
        arena: Arena,
        loss: LossKernel,
        penalty: Penalty,
        batch_size: int,
        seed: int,
        optimizer: UpdateRule,
        rows: RowSource,
        clip_norm: float | None = None,
        state: Mapping[str, Array] | None = None,
        by_rows: bool = False,
        half: HalfPrecision | None = None,
    ) -> None:
        tokens = rows.most_tokens(batch_size)
        super().__init__(places, arena, loss, penalty, batch_size, seed, by_rows, tokens, half)
        backend = arena.backend
        self.steps_per_epoch = -(-rows.count // batch_size)
        self.rates = backend.zeros(self.steps_per_epoch, np.float64)
        self.rows = rows
        self._norm_scalars = backend.zeros(SCALARS, np.float64)
        self._weight_norm: Program | None = None
        self.rate_factors = backend.from_host(arena.rate_factors())
        self._optimizer = optimizer
        self._clip_norm = clip_norm
        self._half_parameters = None if half is None else arena.in_half(half)
        self._refresh = backend.compile(self.passes.refresh())
        self._full = rows.count // batch_size
        batch = self.passes.batch_of(rows)
        self._alone = _Worker(0, 0, self.passes, batch, self.counters, self.scalars, OneWorker())
        self._team = self._workers()
        self._programs: dict[int, Program] = {}
        self._last = 0  # rows of the last batch that was run
        self._full_seen = False
        self.state = dict(state or self._no_state())
        if self.scaling is not None:
            self.scaling = self.state.setdefault("loss_scaling", self.scaling)
        for count in {batch_size if self._full else 0, rows.count % batch_size} - {0}:
            self._programs[count] = self._program(count)

    def _workers(self) -> list[_Worker]:
        """Return who shares the rows of a batch, where that is worth it; none where one has all of them."""
        arena, backend = self.arena, self.arena.backend
        work = 6.0 * self.batch_size * arena.size  # two operations, three products a weight
        # The rows of a table that two workers see are not two workers' rows.
        apart = self.passes.row_gradients or self._half_parameters is not None
        count = 1 if apart else backend.shards(self.batch_size, work)
        if count == 1:
            return []
        reducer: Reducer = Threads(arena, count, self.scalars, self.by_rows, self._is_plain)
        capacity = -(-self.batch_size // count)
        return [
            _Worker(
                number,
                number * capacity,
                Passes(
                    self.places, arena, capacity, True,
                    gradients=reducer.gradient(number), row_offset=number * capacity,
                ),
                self.rows.batch(capacity),
                self.counters if number == 0 else backend.zeros(COUNTERS, np.int64),
                reducer.scalars(number),
                reducer,
            )
            for number in range(count)
        ]  # fmt: skip

    def _sharing(self, rows: int) -> list[_Worker]:
        """Return who runs batches of so many rows: all workers, or one where another would have no row."""
        return self._team if self._team and rows > self._team[-1].offset else [self._alone]

    def _no_state(self) -> dict[str, Array]:
        state = {name: self.arena.like_values() for name in self._optimizer.state}
        if "linger" in self._optimizer.formulas_of_rows and self.passes.row_gradients:
            rows = sum(gradient.size for gradient in self.passes.row_gradients)
            state["last_seen"] = self.arena.backend.zeros(rows, np.int64)
        return state

    def _program(self, rows: int) -> Program:
        workers = [self._operations(worker, rows) for worker in self._sharing(rows)]
        backend = self.arena.backend
        return backend.compile(workers[0]) if len(workers) == 1 else backend.compile_parallel(workers)

    def operations_of(self, rows: int) -> list[Operation]:
        """Return what one worker does for a batch of so many rows, in its order."""
        return self._operations(self._alone, rows)

    def _operations(self, worker: _Worker, rows: int) -> list[Operation]:
        """Return what a worker does for a batch of so many rows."""
        number, reducer, shard = worker.number, worker.reducer, worker.passes.row_offset
        batch = worker.batch.first(min(worker.batch.capacity, rows - worker.offset))
        by_rows = self.by_rows and not reducer.counts_rows
        return [
            *reducer.begin(number),
            self.rows.gather(batch, worker.counters, self.batch_size, shard),
            *self.gradient(worker.passes, batch, worker.counters, worker.scalars, by_rows),
            *reducer.reduce(number, rows),
            *self.penalise(reducer.share(number)),
            *self._norm(reducer.share(number)),
            *reducer.reduce_norms(number),
            *self._update_tables(),
            self._update({"counters": worker.counters, **reducer.updated(number)}),  # it counts the step
        ]

    def _norm(self, given: Mapping[str, Any]) -> list[Operation]:
        # An overflow shows in the norm.
        if self._clip_norm is None and self.scaling is None:
            return []
        arguments = {**self._update_arguments(), **given}
        rows = [
            self.kernel("squared_norm_rows", self.rescaled, {**arguments, **gradient.arguments()})
            for gradient in self.passes.row_gradients
        ]
        return [self.kernel("squared_norm", self.rescaled, arguments), *rows]

    @property
    def _is_plain(self) -> bool:
        """Whether nothing is done to a batch's gradient before the update."""
        return not self._penalty and self._clip_norm is None

    def _update(self, given: Mapping[str, Any]) -> Kernel:
        """Return the optimizer's update; `given` takes the place of the step's own arrays.

        With a `last` gradient among it, that is added to the others'.
        """
        arguments = {**self._update_arguments(), **given}
        constants = {
            **self._update_constants(),
            "FOLDED": "last" in given,
            "COPIED": self._half_parameters is not None,
            "GROUPED": bool((self.arena.rate_factors() != 1).any()),
        }
        if self._half_parameters is not None:
            arguments |= self._half_parameters.arguments(self.arena.trained)
        return Kernel("update", self.arena.dtype, self._optimizer.formulas, constants, arguments)

    def _update_constants(self) -> dict[str, bool | int | float]:
        return {
            "SLOTS": len(self._optimizer.state),
            "CLIP": self._clip_norm is not None,
            "PREPARED": "prepare" in self._optimizer.formulas,
            **self.rescaled,
            **self._optimizer.constants,
        }

    def _update_tables(self) -> list[Operation]:
        """Return the update of the rows of each table that the batch saw."""
        operations: list[Operation] = []
        first = 0
        for gradient in self.passes.row_gradients:
            segment = self.arena.segment(gradient.name)
            arguments = {**self._update_arguments(), **gradient.arguments(), "rate_factor": segment.rate}
            if not segment.decays:
                arguments["weight_decay"] = 0.0
            for slot, name in enumerate(self._optimizer.state):
                arguments[f"state{slot}"] = self.arena.view(gradient.name, self.state[name])
            lingers = "last_seen" in self.state
            if lingers:
                arguments["last_seen"] = self.state["last_seen"][first : first + gradient.size]
            constants = {**self._update_constants(), "LINGERS": lingers, "GROUPED": segment.rate != 1}
            formulas = self._optimizer.formulas_of_rows
            operations.append(Kernel("update_rows", self.arena.dtype, formulas, constants, arguments))
            operations += [self.kernel("mark_rows", self.rescaled, arguments)] if lingers else []
            first += gradient.size
        return operations

    def _update_arguments(self) -> dict[str, Any]:
        return {
            "values": self.arena.values,
            "gradients": self.passes.gradients,
            "segments": self.segments,
            "rate_factors": self.rate_factors,
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
        if self._half_parameters is not None:
            self._refresh.run()
        for batch, several in self.rows.stretches(first, count, self.batch_size):
            self._run_placed(batch, several)

    def _run_placed(self, first: int, count: int) -> None:
        full = max(0, min(first + count, self._full) - first)
        if full:
            self._run_program(self.batch_size, full)
            self._full_seen = True
        if count > full:
            self._run_program(self.rows.count % self.batch_size, 1)

    def _run_program(self, rows: int, count: int) -> None:
        for worker in self._team[1:]:
            self.arena.backend.write(worker.counters, self.counters)
        self._programs[rows].run(count)
        self._last = rows

    def outputs(self, place: Place, most: int) -> tuple[NDArray, NDArray | None] | None:
        """Return what the last full batch's step left of a layer's outputs, copied to the host.

        Parameters
        ----------
        place : Place
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
        workers = self._sharing(self.batch_size)
        wanted = -(-most // len(workers))
        parts = []
        for worker in workers:
            held = min(worker.batch.capacity, self.batch_size - worker.offset)
            parts.append(worker.passes.layer_outputs(place, min(held, wanted)))
        host = self.arena.backend.to_host
        kept = [host(mask) for _, mask in parts if mask is not None]
        outputs = [host(array) for array, _ in parts if array is not None]
        if not outputs:
            return None
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
        parts = self._sharing(self._last)[0].reducer.gradients() or [self.passes.gradients]
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
        operations = self.operations(self._alone.batch.first(self.batch_size))
        return self.arena.backend.compile([one for one in operations if isinstance(one, Product)])

    def weight_norm(self) -> float:
        """The Euclidean norm of the parameters, not finite if one of them is not; waits for the device."""
        if self._weight_norm is None:
            self._weight_norm = self._norm_program()
        self._weight_norm.run()
        return float(self.arena.backend.to_host(self._norm_scalars)[SQUARED_NORM]) ** 0.5

    def _norm_program(self) -> Program:
        # The sum of squares does not care what it sums.
        segments = self.arena.backend.from_host(segment_table(self.arena.segments))
        arguments = {"gradients": self.arena.values, "segments": segments, "scalars": self._norm_scalars}
        return self.arena.backend.compile([self.kernel("squared_norm", {}, arguments)])

    def gradient_norm(self) -> float:
        """The norm of the last batch's gradient before clipping; waits for the device; needs `clip_norm`."""
        scalars = self.arena.backend.to_host(self.scalars)
        return float(scalars[SQUARED_NORM] ** 0.5 * self.batch_size / scalars[WEIGHT_SUM])
