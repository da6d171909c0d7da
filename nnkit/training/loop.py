"""The training loop: epochs of a compiled step; callbacks, checkpoints and validation between steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Copy
from nnkit.backends.protocol import Backend, Program
from nnkit.engine.objective import Penalty, StepSums
from nnkit.engine.places import named_groups
from nnkit.engine.precision import HalfPrecision, is_scaling
from nnkit.engine.step import Step
from nnkit.errors import AtEnd, DivergenceError, FirstError, ModelFileError
from nnkit.feed.batch import Rows
from nnkit.feed.order import epoch_order
from nnkit.kernels.formulas import LEAST_LOSS_SCALE
from nnkit.kernels.layout import STEP
from nnkit.nn.metrics import get_metric
from nnkit.nn.network import Network
from nnkit.nn.schedules import ReduceOnPlateau, Schedule
from nnkit.training.callbacks import TrainingStatus
from nnkit.training.calls import Calls, Moment
from nnkit.training.checkpoint import Checkpoint, CheckpointWriter
from nnkit.training.evaluation import Evaluation
from nnkit.training.history import History
from nnkit.training.interrupts import pythons_own_interrupt, stopped_by_signals
from nnkit.training.settings import TrainingSettings
from nnkit.training.state import OptimizerState, TrainingState

__all__ = ["Loop", "Outcome", "Training"]

Outcome = Literal["finished", "stopped", "interrupted", "failed"]


class Training(Protocol):
    """The attributes of a trainer that the loop reads and changes."""

    network: Network
    backend: Backend
    half: HalfPrecision | None
    penalty: Penalty
    state: TrainingState
    history: History
    optimizer_state: OptimizerState | None
    step: Step | None
    outcome: Outcome | None
    stopping: bool

    def stop(self) -> None:
        """End the training after the current steps."""


class Loop:
    """One call of `Trainer.fit` or `Trainer.resume`.

    Parameters
    ----------
    trainer : Training
        The trainer whose network, state and history are changed.
    settings : TrainingSettings
        The settings; the batch size is at most the number of rows.
    rows : Rows
        The training rows.
    evaluation : Evaluation or None
        The validation rows.
    callbacks : sequence of callbacks
        In the order of their calls.
    carried : OptimizerState or None
        The state of the optimizer to continue from; its arrays are changed in place.
    block_rows : int or None
        As in `nnkit.feed.order.epoch_order`.

    Attributes
    ----------
    writer : CheckpointWriter or None
        Writes checkpoints, if set.
    """

    def __init__(
        self,
        trainer: Training,
        settings: TrainingSettings,
        rows: Rows,
        evaluation: Evaluation | None,
        callbacks: Sequence[Any],
        carried: OptimizerState | None = None,
        block_rows: int | None = None,
    ) -> None:
        network = trainer.network
        self.trainer = trainer
        self.settings = settings
        self.rows = rows
        self.evaluation = evaluation
        self.block_rows = block_rows
        self.step = Step(
            network.places,
            network.arena.grouped(named_groups(settings.groups or {}, network.places)),
            settings.loss,
            trainer.penalty,
            settings.batch_size,
            settings.seed,
            settings.optimizer,
            rows,
            settings.clip_norm,
            None if carried is None else carried.slots,
            settings.average == "rows",
            trainer.half,
            tuple(settings.scheduled),
        )
        self._carried = carried or OptimizerState(0, 0, self.step.state)
        self.calls = Calls(trainer, callbacks, self.step.steps_per_epoch)
        self.best_values: Array = network.arena.like_values()
        # Without validation, an epoch's loss belongs to the weights at its beginning rather than at its end.
        self.first_values = network.arena.values if evaluation else network.arena.like_values()
        self._keep_first = self._copy(network.arena.values, self.first_values)
        self._keep_best = self._copy(self.first_values, self.best_values)
        self._return_to_best = self._copy(self.best_values, network.arena.values)
        self._began = 0.0
        self._rates: NDArray[np.float64] = np.zeros(0)
        self._resumed: Checkpoint | None = None
        self._last = StepSums()
        self._prepared = False  # until then the trainer's state belongs to an earlier training
        self._consistent = True  # whether all parts of a checkpoint would be of the same step
        self.writer: CheckpointWriter | None = None

    def _copy(self, source: Array, target: Array) -> Program:
        backend = self.trainer.backend
        return backend.compile([] if source is target else [Copy(source, target)])

    def run(self, resumed: Checkpoint | None = None) -> None:
        """Train from the first epoch, or from a checkpoint, until the last epoch or a stop.

        Ctrl-C stops the training between two steps, and KeyboardInterrupt is raised at the very end.
        `on_train_end` is called even after an error; of several errors the first is raised.
        """
        trainer, errors = self.trainer, FirstError()
        trainer.stopping = False
        trainer.outcome = None
        with stopped_by_signals(trainer.stop, *pythons_own_interrupt()) as signals:
            with errors.kept("the training"):
                with self._changing():
                    self._prepare(resumed)
                self._prepared = True
                self._train()
            if signals:
                errors.keep(KeyboardInterrupt(), "the training")
            self._conclude(errors)
            with errors.kept("closing the rows"):
                self.rows.close()
            with errors.kept("keeping the optimizer's state"):
                if self._prepared:
                    trainer.optimizer_state = self._optimizer_state()
            for name, end in self.calls.train_ends(self._status(self._last)):
                trainer.outcome = self._outcome(errors.error)
                with errors.kept(name):
                    end()
        if signals and errors.error is None:  # Ctrl-C during the end of the training
            errors.keep(KeyboardInterrupt(), "the training")
        trainer.outcome = self._outcome(errors.error)
        trainer.step = None
        errors.raise_first()

    def _prepare(self, resumed: Checkpoint | None) -> None:
        """Initialize the state of a new training, or restore that of a checkpoint."""
        trainer = self.trainer
        trainer.step = self.step
        self._resumed = resumed
        if resumed is not None:
            self._restore(resumed)
            return
        trainer.state = TrainingState(
            epochs_before=self._carried.epochs,
            schedule_epochs=self.settings.schedule_epochs or 0,
            plateau=self._carried.plateau,
        )
        monitor = self.settings.monitor
        trainer.history = (
            History()
            if monitor is None or self.evaluation is None
            else History(f"validation_{monitor}", get_metric(monitor).greater_is_better)
        )
        trainer.backend.write(self.step.counters[STEP : STEP + 1], self._carried.steps)
        self.step.begin_counting_skips()
        self._began = time.perf_counter()
        self._keep_first.run()
        self._keep_best.run()

    def _train(self) -> None:
        self.calls.train_begin(self._status(self._last))
        if self.writer is not None:
            self.writer.begin(self._seconds())
        while not self._finished() and not self.trainer.stopping:
            self._epoch()

    def _conclude(self, errors: FirstError) -> None:
        """Write the last checkpoint and restore the best weights, unless an error ended the training."""
        trainer, failed = self.trainer, isinstance(errors.error, Exception)
        with errors.kept("writing the last checkpoint"):
            if self.writer is not None and self._consistent and not failed:
                self.writer.finish(self._snapshot, self._seconds())
            elif self.writer is not None:
                self.writer.wait()  # the current write is of an intact state, and may be the only one
        if failed or not self._prepared:
            return
        with errors.kept("restoring the best weights"):
            if self.settings.restore_best and self.evaluation and trainer.state.best_epoch:
                self._return_to_best.run()
                trainer.state.restored = True
            trainer.backend.synchronize()

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is not None:
            return "failed" if isinstance(error, Exception) else "interrupted"
        return "finished" if self._finished() else "stopped"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the state of a checkpoint; after an error on the way, no checkpoint is written."""
        self._consistent = False
        yield
        self._consistent = True

    def _optimizer_state(self) -> OptimizerState:
        state = self.trainer.state
        steps = int(self.trainer.backend.to_host(self.step.counters)[STEP])
        epochs = state.epochs_before + state.epoch + (state.batch > 0)
        return OptimizerState(steps, epochs, self.step.state, state.plateau)

    def _finished(self) -> bool:
        return self.trainer.state.epoch >= self.settings.epochs or self.trainer.state.stopped_early

    def _arrays(self) -> dict[str, Array]:
        """Return all arrays of the training on the device, by name."""
        first = {} if self.evaluation else {"first_values": self.first_values}
        return {**self.step.arrays(), "best_values": self.best_values, **first}

    def to_match(self) -> dict[str, Any]:
        """Return the settings that a resume must match, as a JSON object."""
        network = self.trainer.network.to_json()
        return {"network": network, **self.settings.to_json(), "block_rows": self.block_rows}

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise `ModelFileError` unless the checkpoint has the arrays and the state of this training."""
        state = TrainingState.from_json(checkpoint.state)
        if state.batch > self.step.steps_per_epoch:
            raise ModelFileError(
                f"the checkpoint's batch {state.batch} does not exist: an epoch has "
                f"{self.step.steps_per_epoch}; use another checkpoint"
            )
        History.from_json(checkpoint.history)
        for name, array in self._arrays().items():
            kept = checkpoint.arrays.get(name)
            if kept is None or kept.shape != array.shape or kept.dtype != array.dtype:
                raise ModelFileError(
                    f"the checkpoint's array {name!r} is missing or of another shape; use another checkpoint"
                )
        scaling = checkpoint.arrays.get("state.loss_scaling")
        if self.step.scaling is not None and scaling is not None and not is_scaling(scaling):
            raise ModelFileError(
                f"the checkpoint's loss scale {scaling.tolist()} is not valid; use another checkpoint"
            )

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state, the history and the device's arrays."""
        trainer = self.trainer
        trainer.state = TrainingState.from_json(checkpoint.state)
        trainer.history = History.from_json(checkpoint.history)
        for name, array in self._arrays().items():
            trainer.backend.write(array, checkpoint.arrays[name])
        self._began = time.perf_counter() - checkpoint.seconds

    def _snapshot(self) -> Checkpoint:
        """Return a copy of everything needed to resume from here."""
        trainer, state = self.trainer, self.trainer.state
        self._check_weights()
        return Checkpoint(
            step=self._step_number(),
            seconds=self._seconds(),
            finished=self._finished(),
            best_so_far=state.batch == 0 and 0 < state.epoch == state.best_epoch,
            epochs=self.settings.epochs,
            state=state.to_json(),
            history=trainer.history.to_json(),
            settings=self.to_match(),
            numerics=trainer.backend.numerics(),
            arrays={name: trainer.backend.to_host(array) for name, array in self._arrays().items()},
        )

    def _begin_epoch(self) -> None:
        """Begin an epoch of the step; a resumed one continues with its sums so far."""
        state, resumed = self.trainer.state, self._resumed
        self._rates = self._learning_rates()
        epoch = state.epochs_before + state.epoch
        seed, shuffle = self.settings.seed, self.settings.shuffle
        if callable(shuffle):
            order = shuffle(epoch)
        else:
            order = epoch_order(self.rows.count, seed, epoch, shuffle, self.block_rows)
        factors = {name: self._factors(one) for name, one in self.settings.scheduled.items()}
        self.step.begin_epoch(epoch, order, self._rates, factors)
        if resumed is not None and state.batch:
            self.trainer.backend.write(self.step.scalars, resumed.arrays["scalars"])
        else:
            self._keep_first.run()
        self._resumed = None

    def _epoch(self) -> None:
        state, steps = self.trainer.state, self.step.steps_per_epoch
        with self._changing():
            self._begin_epoch()
        began, first = self._seconds(), state.batch
        self.calls.epoch_begin(Moment(self._step_number(), began, self.step.read()))
        while state.batch < steps and not self.trainer.stopping:
            started = time.perf_counter()
            count = self.calls.stretch(self._step_number(), self._steps_left())
            with self._changing():
                self.step.run(state.batch, count)
                state.batch += count
                self._last = sums = self.step.read()
            self.calls.measured(count, time.perf_counter() - started)
            self._check_finite(sums)
            self.calls.step_end(Moment(self._step_number(), self._seconds(), sums), self._report)
            if state.batch < steps:
                self._consider_checkpoint(epoch_ended=False)
        self._last = self.step.read()
        if state.batch == steps:
            trained = max(self.rows.count - first * self.step.batch_size, 0)
            with self._changing():
                status = self._end_epoch(self._last, trained / max(self._seconds() - began, 1e-9))
            self.calls.epoch_end(status)
            self._consider_checkpoint(epoch_ended=True)

    def _steps_left(self) -> int:
        """Return how many steps may run before the epoch ends or a checkpoint is due."""
        left = self.step.steps_per_epoch - self.trainer.state.batch
        due = None if self.writer is None else self.writer.left(self._step_number())
        return left if due is None else min(left, due)

    def _consider_checkpoint(self, epoch_ended: bool) -> None:
        # The last checkpoint is written by `_conclude`.
        if self.writer is not None and not self.trainer.stopping and not self._finished():
            self.writer.consider(self._step_number(), self._seconds(), epoch_ended, self._snapshot)

    def _learning_rates(self) -> NDArray[np.float64]:
        """Return the epoch's learning rate for each batch."""
        state = self.trainer.state
        if state.cooldown_epochs:
            steps = self.step.steps_per_epoch
            first = (state.epoch - state.cooldown_from) * steps
            return state.cooldown_rate * (
                1 - np.arange(first, first + steps) / (state.cooldown_epochs * steps)
            )
        rate = self.settings.optimizer.learning_rate * state.plateau.factor * state.rate_factor
        return rate * self._factors(self.settings.schedule)

    def _factors(self, schedule: Schedule) -> NDArray[np.float64]:
        """Return a schedule's factor for each batch of the epoch."""
        state, steps = self.trainer.state, self.step.steps_per_epoch
        first = state.epochs_before + state.epoch
        total = state.schedule_epochs or state.epochs_before + self.settings.epochs
        return schedule.factors(first * steps, steps, total * steps, steps)

    def _end_epoch(self, sums: StepSums, training_rate: float) -> TrainingStatus:
        trainer, state = self.trainer, self.trainer.state
        epoch = state.epoch + 1
        self._check_weights()
        followed = self._followed_a_batch(sums)
        measured: dict[str, float] = {}
        if self.evaluation is None:
            self._judge(epoch, sums.loss, followed)
        else:
            outputs, loss = self.evaluation.run()
            measured = {"validation_loss": loss, **self.evaluation.measure(outputs)}
            self._judge(epoch, self._monitored(measured), followed)
            if epoch == self.settings.epochs or state.stopped_early:
                measured |= self.evaluation.measure_rest(outputs)
        row = {
            "epoch": epoch,
            "step": epoch * self.step.steps_per_epoch,
            "loss": sums.loss,
            "learning_rate": float(self._rates[-1]),
            "seconds": self._seconds(),
            "samples_per_second": training_rate,
            **self._scaling(sums),
            **measured,
        }
        trainer.history.append(row)
        status = self._status(sums, training_rate, measured)
        state.epoch, state.batch = epoch, 0
        return status

    def _monitored(self, measured: Mapping[str, float]) -> float:
        """Return the value that tells which epoch is best; lower is better."""
        name = self.settings.monitor
        if name is None:
            return measured["validation_loss"]
        return measured[f"validation_{name}"] * (-1.0 if get_metric(name).greater_is_better else 1.0)

    def _judge(self, epoch: int, value: float, followed: bool) -> None:
        """Keep the weights if they are the best so far, stop early, and show the value to the schedule.

        An epoch without any update (`followed` is False), because the loss scale was too great, does not
        count.
        """
        state, settings, schedule = self.trainer.state, self.settings, self.settings.schedule
        if not followed:
            return
        state.waited = 0 if value < state.best else state.waited + 1
        if value <= state.best:
            state.best, state.best_epoch = value, epoch
            self._keep_best.run()
        if state.cooldown_epochs:
            ended = epoch >= state.cooldown_from + state.cooldown_epochs
        else:
            ended = settings.early_stopping is not None and state.waited >= settings.early_stopping
        if ended and not self._begin_cooldown(epoch):
            state.stopped_early = True
            self.trainer.stop()
        if isinstance(schedule, ReduceOnPlateau):
            state.plateau = schedule.observe(state.plateau, value)

    def _begin_cooldown(self, epoch: int) -> bool:
        """Return to the best weights, to train them on with a falling rate; False if it cannot be done."""
        state, settings = self.trainer.state, self.settings
        share = settings.cooldown * (state.best_epoch or epoch)
        epochs = min(math.ceil(share), settings.epochs - epoch)
        if state.cooldown_epochs or epochs < 1 or not state.best_epoch:
            return False
        self._return_to_best.run()
        state.cooldown_from, state.cooldown_epochs = epoch, epochs
        best = state.best_epoch - 1
        rows = self.trainer.history.rows
        state.cooldown_rate = float(rows[best]["learning_rate"] if best < len(rows) else self._rates[-1])
        return True

    def _check_finite(self, sums: StepSums) -> None:
        if not math.isfinite(sums.loss) and sums.weight != 0:
            self._diverge(f"the loss became {sums.loss}")

    def _check_weights(self) -> None:
        """Check the weights after the epoch's last update, whose loss is not yet known."""
        if not math.isfinite(self.step.weight_norm()):
            self._diverge("weights became infinite or NaN")

    def _scaling(self, sums: StepSums) -> dict[str, float]:
        """Return the history's columns of the loss scale, if there is one."""
        if sums.loss_scale is None:
            return {}
        return {"loss_scale": sums.loss_scale, "skipped_steps": sums.skipped_steps}

    def _followed_a_batch(self, sums: StepSums) -> bool:
        """Tell whether the epoch made an update; raise if even the smallest loss scale overflows."""
        history = self.trainer.history
        before = int(history.rows[-1].get("skipped_steps", 0)) if len(history) else 0
        if sums.skipped_steps - before < self.step.steps_per_epoch:
            return True
        if sums.loss_scale == LEAST_LOSS_SCALE:
            self._diverge(
                f"every batch overflowed {self.settings.precision} (bf16 and fp32 have a larger range)"
            )
        return False

    def _diverge(self, what: str) -> NoReturn:
        """Restore the best weights and raise `DivergenceError`."""
        state, settings = self.trainer.state, self.settings
        begun = "" if self.evaluation else "the beginning of "
        kept = f"those of {begun}epoch {state.best_epoch}" if state.best_epoch else "the initial ones"
        rate = self._learning_rate()
        clip = "" if settings.clip_norm is not None else ", or clip_norm = 1.0"
        with AtEnd(self._return_to_best.run, "restoring the best weights"):
            raise DivergenceError(
                f"{what} in epoch {state.epoch + 1} at learning rate {rate:g}; "
                f"the weights kept are {kept}.\nTry learning_rate = {settings.optimizer.learning_rate / 10:g}"
                f"{clip}, and look for features of large scale."
            )

    def _report(self, now: Moment, last: Moment) -> TrainingStatus:
        """Return the status over the steps between two moments of an epoch."""
        samples = (now.step - last.step) * self.step.batch_size
        rate = samples / max(now.seconds - last.seconds, 1e-9)
        return self._status(now.sums.since(last.sums), rate)

    def _status(
        self, sums: StepSums, samples_per_second: float = 0.0, metrics: Mapping[str, float] | None = None
    ) -> TrainingStatus:
        steps, step = self.step.steps_per_epoch, self._step_number()
        full, batch = divmod(step, steps)
        return TrainingStatus(
            epoch=-(-step // steps),
            epochs=self.settings.epochs,
            step=step,
            steps_per_epoch=steps,
            total_steps=self.settings.epochs * steps,
            samples=full * self.rows.count + batch * self.step.batch_size,
            seconds=self._seconds(),
            samples_per_second=samples_per_second,
            learning_rate=self._learning_rate(),
            loss=sums.loss,
            penalty=sums.penalty,
            metrics=metrics or {},
        )

    def _learning_rate(self) -> float:
        """The rate of the last step; 0 before the first."""
        batch = self.trainer.state.batch or len(self._rates)
        return float(self._rates[batch - 1]) if len(self._rates) else 0.0

    def _step_number(self) -> int:
        return self.trainer.state.epoch * self.step.steps_per_epoch + self.trainer.state.batch

    def _seconds(self) -> float:
        return time.perf_counter() - self._began
