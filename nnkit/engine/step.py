"""A training step: gather, forward, loss, backward, penalties, update; compiled once, then only run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Kernel, Operation, Product
from nnkit.backends.protocol import Program
from nnkit.engine.objective import Objective, Penalty
from nnkit.engine.parameters import Arena
from nnkit.engine.passes import LossKernel, Passes
from nnkit.engine.places import Place
from nnkit.engine.precision import HalfPrecision
from nnkit.engine.reducer import Reducer, Threads
from nnkit.engine.segments import segment_table
from nnkit.feed.batch import Batch, Rows
from nnkit.kernels import layout

__all__ = ["Scheduled", "Step", "UpdateRule"]

Scheduled = Literal["dropout", "weight_decay"]


class UpdateRule(Protocol):
    """The part of an optimizer's interface that the engine needs; see `nnkit.nn.optimizers.Optimizer`."""

    @property
    def weight_decay(self) -> float: ...

    @property
    def state(self) -> tuple[str, ...]: ...

    @property
    def formulas(self) -> Mapping[str, Callable]: ...

    @property
    def formulas_of_rows(self) -> Mapping[str, Callable]: ...

    @property
    def constants(self) -> Mapping[str, bool | float]: ...


@dataclass(frozen=True)
class _Worker:
    """A worker that runs part of a batch's rows: its number, its first row, and its arrays."""

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
    places, arena, loss, penalty, batch_size, seed, average_rows, half
        As for `Objective`.
    optimizer : UpdateRule
        The rule and its weight decay; the learning rates come with each epoch.
    rows : Rows
        The training data.
    clip_norm : float or None
        The maximum norm of a batch's gradient over all parameters, penalties included; a longer one is
        scaled down (Pascanu et al. 2013, arXiv:1211.5063).
    state : mapping of str to array of shape (size,), optional
        The optimizer's state to resume with, used in place; zeros if not given.
    scheduled : collection of {"dropout", "weight_decay"}
        What has a factor of its own in each step, which comes with each epoch as the learning rates do.

    Attributes
    ----------
    state : dict of str to array of shape (size,)
        The optimizer's state, in the arena's layout. With ``decay_unseen`` also ``last_seen``, (rows of all
        tables,) int64: the number of updates after which each row was last seen. With a scaled loss also
        ``loss_scaling``, (SCALING,) float64.
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
        rows: Rows,
        clip_norm: float | None = None,
        state: Mapping[str, Array] | None = None,
        average_rows: bool = False,
        half: HalfPrecision | None = None,
        scheduled: Collection[Scheduled] = (),
    ) -> None:
        tokens = rows.most_tokens(batch_size)
        super().__init__(places, arena, loss, penalty, batch_size, seed, average_rows, tokens, half)
        backend = arena.backend
        self.steps_per_epoch = -(-rows.count // batch_size)
        self.rates = backend.zeros(self.steps_per_epoch, np.float64)
        self.factors = {name: backend.zeros(self.steps_per_epoch, np.float64) for name in scheduled}
        self.rows = rows
        self.rate_factors = backend.from_host(arena.rate_factors())
        self._norm_scalars = backend.zeros(layout.SCALARS, np.float64)
        self._optimizer = optimizer
        self._clip_norm = clip_norm
        self._half_parameters = None if half is None else arena.in_half(half)
        self._refresh = backend.compile(self.passes.refresh())
        self._full = rows.count // batch_size
        batch = self.passes.batch_of(rows)
        self._alone = _Worker(0, 0, self.passes, batch, self.counters, self.scalars, Reducer())
        self._team = self._workers()
        self._last = 0  # rows of the last batch that was run
        self._full_seen = False
        self.state = dict(state or {name: arena.like_values() for name in optimizer.state})
        tables = self.passes.row_gradients
        if not state and tables and "decay_unseen" in optimizer.formulas_of_rows:
            self.state["last_seen"] = backend.zeros(sum(table.size for table in tables), np.int64)
        if self.scaling is not None:
            self.scaling = self.state.setdefault("loss_scaling", self.scaling)
        counts = {batch_size if self._full else 0, rows.count % batch_size} - {0}
        self._programs = {count: self._program(count) for count in counts}

    def _workers(self) -> list[_Worker]:
        """Return the workers that share a batch's rows; none where one worker is faster."""
        arena, backend = self.arena, self.arena.backend
        work = 6.0 * self.batch_size * arena.size  # two operations, three products a weight
        # Two workers may look up the same row of a table, whose gradient only one of them can hold.
        apart = self.passes.row_gradients or self._half_parameters is not None
        count = 1 if apart else backend.shards(self.batch_size, work)
        if count == 1:
            return []
        plain = not self._penalty and self._clip_norm is None
        reducer = Threads(arena, count, self.scalars, self.average_rows, plain)
        capacity = -(-self.batch_size // count)
        team = []
        for number in range(count):
            offset, gradients = number * capacity, reducer.gradient(number)
            passes = Passes(self.places, arena, capacity, True, gradients=gradients, row_offset=offset)
            counters = self.counters if number == 0 else backend.zeros(layout.COUNTERS, np.int64)
            batch, scalars = self.rows.batch(capacity), reducer.scalars(number)
            team.append(_Worker(number, offset, passes, batch, counters, scalars, reducer))
        return team

    def _sharing(self, rows: int) -> list[_Worker]:
        """Return the workers for a batch of `rows` rows: all, or one if another would have no row."""
        return self._team if self._team and rows > self._team[-1].offset else [self._alone]

    def _program(self, rows: int) -> Program:
        workers = [self._operations(worker, rows) for worker in self._sharing(rows)]
        backend = self.arena.backend
        return backend.compile(workers[0]) if len(workers) == 1 else backend.compile_parallel(workers)

    def operations_of(self, rows: int) -> list[Operation]:
        """Return the operations of a single worker for a batch of `rows` rows."""
        return self._operations(self._alone, rows)

    def _operations(self, worker: _Worker, rows: int) -> list[Operation]:
        number, reducer, shard = worker.number, worker.reducer, worker.passes.row_offset
        batch = worker.batch.first(min(worker.batch.capacity, rows - worker.offset))
        average_rows = self.average_rows and not reducer.counts_rows
        return [
            *reducer.begin(number),
            self.rows.gather(batch, worker.counters, self.batch_size, shard),
            *self.gradient(worker.passes, batch, worker.counters, worker.scalars, average_rows),
            *reducer.reduce(number, rows),
            *self.penalise(reducer.share(number)),
            *self._norm(reducer.share(number)),
            *reducer.reduce_norms(number),
            *self._update_tables(),
            self._update({"counters": worker.counters, **reducer.updated(number)}),  # it counts the step
        ]

    def _norm(self, given: Mapping[str, Any]) -> list[Operation]:
        # With a scaled loss, the norm shows an overflow.
        if self._clip_norm is None and self.scaling is None:
            return []
        arguments = {**self._update_arguments(), **given}
        rows = [
            self.kernel("squared_norm_rows", self.rescaled, {**arguments, **gradient.arguments()})
            for gradient in self.passes.row_gradients
        ]
        return [self.kernel("squared_norm", self.rescaled, arguments), *rows]

    def _update(self, given: Mapping[str, Any]) -> Kernel:
        """Return the optimizer's update; arrays in `given` replace the step's own.

        A gradient named `last` in `given` is added to the others.
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
            "DECAY_VARIES": "weight_decay" in self.factors,
            "PREPARED": "prepare" in self._optimizer.formulas,
            **self.rescaled,
            **self._optimizer.constants,
        }

    def _update_tables(self) -> list[Operation]:
        """Return the update of each table's rows that the batch saw."""
        operations: list[Operation] = []
        first = 0
        for gradient in self.passes.row_gradients:
            segment = self.arena.segment(gradient.name)
            arguments = {**self._update_arguments(), **gradient.arguments(), "rate_factor": segment.rate}
            if not segment.decays:
                arguments["weight_decay"] = 0.0
            for slot, name in enumerate(self._optimizer.state):
                arguments[f"state{slot}"] = self.arena.view(gradient.name, self.state[name])
            decays_unseen = "last_seen" in self.state
            if decays_unseen:
                arguments["last_seen"] = self.state["last_seen"][first : first + gradient.size]
            constants = {
                **self._update_constants(),
                "DECAYS_UNSEEN": decays_unseen,
                "GROUPED": segment.rate != 1,
            }
            formulas = self._optimizer.formulas_of_rows
            operations.append(Kernel("update_rows", self.arena.dtype, formulas, constants, arguments))
            operations += [self.kernel("mark_rows", self.rescaled, arguments)] if decays_unseen else []
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
            "decay_factors": self.factors.get("weight_decay"),
            "batch_size": self.batch_size,
            "clip_norm": np.float64(self._clip_norm or 0.0),
            "weight_decay": float(self._optimizer.weight_decay),
            **{f"state{slot}": self.state[name] for slot, name in enumerate(self._optimizer.state)},
        }

    def begin_epoch(
        self,
        epoch: int,
        order: NDArray[np.int64],
        rates: NDArray[np.float64],
        factors: Mapping[Any, NDArray[np.float64]] | None = None,
    ) -> None:
        """Copy an epoch's order, learning rates and factors to the device, and reset its sums.

        Parameters
        ----------
        epoch : int
            From 0; the dropout draws are a function of it.
        order : ndarray of shape (samples,)
            A permutation of the rows.
        rates : ndarray of shape (steps_per_epoch,)
            The learning rate of each batch.
        factors : mapping of {"dropout", "weight_decay"} to ndarray of shape (steps_per_epoch,), optional
            The factors in [0, 1] of what is scheduled beside it; 1 if not given.
        """
        backend = self.arena.backend
        self.rows.begin(order)
        backend.write(self.rates, rates)
        for name, array in self.factors.items():
            backend.write(array, (factors or {}).get(name, 1.0))
        backend.write(self.counters[layout.EPOCH : layout.EPOCH + 1], epoch)
        backend.write(self.scalars, 0.0)

    def begin_counting_skips(self) -> None:
        """Reset the count of skipped updates."""
        if self.scaling is not None:
            self.arena.backend.write(self.scaling[layout.SKIPPED_STEPS : layout.SKIPPED_STEPS + 1], 0.0)

    def run(self, first: int, count: int) -> None:
        """Train on the batches ``first .. first + count - 1`` of the epoch; the last one may be smaller."""
        self.arena.backend.write(self.counters[layout.BATCH : layout.BATCH + 1], first)
        if self._half_parameters is not None:
            self._refresh.run()
        for batch, several in self.rows.stretches(first, count, self.batch_size):
            full = max(0, min(batch + several, self._full) - batch)
            if full:
                self._run_program(self.batch_size, full)
                self._full_seen = True
            if several > full:
                self._run_program(self.rows.count % self.batch_size, 1)

    def _run_program(self, rows: int, count: int) -> None:
        for worker in self._team[1:]:
            self.arena.backend.write(worker.counters, self.counters)
        self._programs[rows].run(count)
        self._last = rows

    def outputs(self, place: Place, most: int) -> tuple[NDArray, NDArray | None] | None:
        """Return a layer's outputs in the last full batch, copied to the host.

        Parameters
        ----------
        place : Place
            Any layer but the last, whose outputs the loss overwrites.
        most : int
            The maximum number of rows.

        Returns
        -------
        outputs : ndarray of shape (rows, units)
            After dropout.
        kept : ndarray of shape (rows, units), uint8, or None
            1 for each output that dropout kept; None without dropout.

        None in place of both if no full batch was run yet.
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
        """Return rows, (rows, units), of the last step's gradient of the mean loss, before clipping.

        The gradient of a scaled loss is divided by the scale after the step. That is twice the step's own in
        the one step of 2000 that doubles it; after an overflow, the gradient is not finite anyway.

        Parameters
        ----------
        name : str
            The parameter's full name.
        rows : array of shape (rows,), int64
            On the device.
        """
        parts = self._sharing(self._last)[0].reducer.gradients() or [self.passes.gradients]
        host = self.arena.backend.to_host
        total = sum(host(self.arena.view(name, part), rows).astype(np.float64) for part in parts)
        weight = float(host(self.scalars)[layout.WEIGHT_SUM])
        scale = weight if self.scaling is None else weight * float(host(self.scaling)[layout.LOSS_SCALE])
        return np.asarray(total) * (self.batch_size / scale if scale > 0 else 0.0)

    def arrays(self) -> dict[str, Array]:
        """Return the device arrays of a checkpoint by name: everything that further steps depend on.

        The epoch's order, rates and factors are not among them; `begin_epoch` sets them.
        """
        return {
            "values": self.arena.values,
            **{f"state.{name}": array for name, array in self.state.items()},
            "counters": self.counters,
            "scalars": self.scalars,
        }

    def updates(self) -> int:
        """The number of updates done; waits for the device."""
        return int(self.arena.backend.to_host(self.counters)[layout.STEP])

    def products(self) -> Program:
        """Return a program of a full batch's matrix products only, over the same buffers."""
        operations = self.operations_of(self.batch_size)
        return self.arena.backend.compile([one for one in operations if isinstance(one, Product)])

    @cached_property
    def _weight_norm(self) -> Program:
        # The kernel for the gradient's norm, applied to the values.
        segments = self.arena.backend.from_host(segment_table(self.arena.segments))
        arguments = {"gradients": self.arena.values, "segments": segments, "scalars": self._norm_scalars}
        return self.arena.backend.compile([self.kernel("squared_norm", {}, arguments)])

    def weight_norm(self) -> float:
        """The Euclidean norm of the parameters, not finite if one of them is not; waits for the device."""
        self._weight_norm.run()
        return float(self.arena.backend.to_host(self._norm_scalars)[layout.SQUARED_NORM]) ** 0.5

    def gradient_norm(self) -> float:
        """The norm of the last batch's gradient before clipping; waits for the device; needs `clip_norm`."""
        scalars = self.arena.backend.to_host(self.scalars)
        return float(scalars[layout.SQUARED_NORM] ** 0.5 * self.batch_size / scalars[layout.WEIGHT_SUM])
