"""The loop of a training: epochs over a compiled step, and what happens between its stretches."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array, Program
from nnkit.core.batch import Rows
from nnkit.core.order import epoch_order
from nnkit.core.schedules import PlateauState, ReduceOnPlateau
from nnkit.core.step import Step, StepFigures
from nnkit.errors import DivergenceError
from nnkit.training.callbacks import Callback, Figures
from nnkit.training.calls import Calls, Moment
from nnkit.training.evaluation import Evaluation
from nnkit.training.history import History

if TYPE_CHECKING:
    from nnkit.training.trainer import Trainer

__all__ = ["Loop", "TrainingState"]


@dataclass
class TrainingState:
    """Where a training stands, apart from what the step keeps on the device.

    Attributes
    ----------
    epoch : int
        The current epoch, from 0.
    batch : int
        The next batch of it.
    best : float
        The best monitored value so far; infinity before the first.
    best_epoch : int
        Its epoch, from 1; 0 stands for the initial weights.
    waited : int
        Epochs since.
    plateau : PlateauState
        The state of a reduce-on-plateau schedule.
    restored : bool
        Whether the training is over and the weights are those of `best_epoch`.
    """

    epoch: int = 0
    batch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    waited: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)
    restored: bool = False


class Loop:
    """One call of `Trainer.fit`.

    Parameters
    ----------
    trainer : Trainer
        Whose network, state and history it changes.
    rows : Rows
        The training rows.
    evaluation : Evaluation or None
        The validation rows.
    epochs, batch_size : int
        As `Trainer.fit` takes them.
    shuffle : bool
        Whether each epoch has an order of its own.
    callbacks : sequence of Callback
        Called on the way.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Rows,
        evaluation: Evaluation | None,
        epochs: int,
        batch_size: int,
        shuffle: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        network = trainer.network
        self.trainer = trainer
        self.rows = rows
        self.evaluation = evaluation
        self.epochs = epochs
        self.shuffle = shuffle
        self.step = Step(
            network.stages,
            network.arena,
            trainer.loss,
            trainer.penalty,
            batch_size,
            trainer.seed,
            trainer.optimizer,
            rows,
            trainer.clip_norm,
        )
        self.calls = Calls(trainer, callbacks, self.step.steps_per_epoch)
        self.best_values: Array = network.arena.like_values()
        # An epoch's training loss is that of the weights it began with, not of those it leaves.
        self.first_values = network.arena.values if evaluation else network.arena.like_values()
        self._keep_first = self._copy(network.arena.values, self.first_values)
        self._keep_best = self._copy(self.first_values, self.best_values)
        self._return_to_best = self._copy(self.best_values, network.arena.values)
        self._began = 0.0
        self._rates: NDArray[np.float64] = np.zeros(0)

    def _copy(self, source: Array, target: Array) -> Program:
        backend = self.trainer.backend
        return backend.program([] if source is target else [backend.copy(source, target)])

    def run(self) -> None:
        """Train from the first epoch to the last, or until somebody stops it."""
        trainer = self.trainer
        trainer.state, trainer.history, trainer.stopping = TrainingState(), History(), False
        self._began = time.perf_counter()
        self._keep_first.run()
        self._keep_best.run()
        last = StepFigures()
        try:
            self.calls.train_begin(self._figures(last))
            while trainer.state.epoch < self.epochs and not trainer.stopping:
                last = self._epoch()
            if trainer.restore_best and self.evaluation and trainer.state.best_epoch:
                self._return_to_best.run()
                trainer.state.restored = True
            trainer.backend.synchronize()
        finally:
            self.calls.train_end(self._figures(last))

    def _epoch(self) -> StepFigures:
        state, steps = self.trainer.state, self.step.steps_per_epoch
        self._rates = self._learning_rates()
        order = epoch_order(self.rows.count, self.trainer.seed, state.epoch, self.shuffle)
        self.step.begin_epoch(state.epoch, order, self._rates)
        self._keep_first.run()
        began = self._seconds()
        self.calls.epoch_begin(Moment(self._step_number(), began, StepFigures()))
        while state.batch < steps and not self.trainer.stopping:
            started = time.perf_counter()
            count = self.calls.stretch(self._step_number(), steps - state.batch)
            self.step.run(state.batch, count)
            state.batch += count
            sums = self.step.read()
            self.calls.measured(count, time.perf_counter() - started)
            self._check_finite(sums)
            self.calls.step_end(Moment(self._step_number(), self._seconds(), sums), self._report)
        sums = self.step.read()
        if state.batch == steps:
            self._end_epoch(sums, self._seconds() - began)
        return sums

    def _learning_rates(self) -> NDArray[np.float64]:
        """Return the epoch's learning rate for each batch."""
        trainer, steps = self.trainer, self.step.steps_per_epoch
        first = trainer.state.epoch * steps
        factors = trainer.schedule.factors(first, steps, self.epochs * steps, steps)
        return trainer.optimizer.learning_rate * trainer.state.plateau.factor * factors

    def _end_epoch(self, sums: StepFigures, seconds: float) -> None:
        trainer, state = self.trainer, self.trainer.state
        epoch = state.epoch + 1
        training_rate = self.rows.count / max(seconds, 1e-9)
        self._check_weights()
        measured: dict[str, float] = {}
        if self.evaluation is None:
            self._judge(epoch, sums.loss)
        else:
            outputs, loss = self.evaluation.run()
            self._judge(epoch, loss)
            last = epoch == self.epochs or trainer.stopping
            measured = {"validation_loss": loss, **self.evaluation.measure(outputs, last)}
        row = {
            "epoch": epoch,
            "step": epoch * self.step.steps_per_epoch,
            "loss": sums.loss,
            "learning_rate": float(self._rates[-1]),
            "seconds": self._seconds(),
            "samples_per_second": training_rate,
            **measured,
        }
        trainer.history.append(row)
        figures = self._figures(sums, training_rate, measured)
        state.epoch, state.batch = epoch, 0
        self.calls.epoch_end(figures)

    def _judge(self, epoch: int, value: float) -> None:
        """Keep the weights if they are the best so far; stop early; let the schedule see the value."""
        trainer, state, schedule = self.trainer, self.trainer.state, self.trainer.schedule
        if value < state.best:
            state.best, state.best_epoch, state.waited = value, epoch, 0
            self._keep_best.run()
        else:
            state.waited += 1
        if trainer.early_stopping is not None and state.waited >= trainer.early_stopping:
            trainer.stop()
        if isinstance(schedule, ReduceOnPlateau):
            state.plateau = schedule.observe(state.plateau, value)

    def _check_finite(self, sums: StepFigures) -> None:
        if not math.isfinite(sums.loss) and sums.weight != 0:
            self._diverge(f"the loss became {sums.loss}")

    def _check_weights(self) -> None:
        """Look at what the epoch's last update left, which no loss has seen yet."""
        if not math.isfinite(self.step.weight_norm()):
            self._diverge("weights became infinite or NaN")

    def _diverge(self, what: str) -> NoReturn:
        """Return to the best weights and say what happened."""
        trainer, state = self.trainer, self.trainer.state
        self._return_to_best.run()
        begun = "" if self.evaluation else "the beginning of "
        kept = f"those of {begun}epoch {state.best_epoch}" if state.best_epoch else "the initial ones"
        rate = self._learning_rate()
        clip = "" if trainer.clip_norm is not None else ", or clip_norm = 1.0"
        raise DivergenceError(
            f"{what} in epoch {state.epoch + 1} at learning rate {rate:g}; "
            f"the weights kept are {kept}.\nTry learning_rate = {trainer.optimizer.learning_rate / 10:g}"
            f"{clip}, and look for features of large scale."
        )

    def _report(self, now: Moment, last: Moment) -> Figures:
        """Return the figures of the steps between two moments of an epoch."""
        samples = (now.step - last.step) * self.step.batch_size
        rate = samples / max(now.seconds - last.seconds, 1e-9)
        return self._figures(now.sums.since(last.sums), rate)

    def _figures(
        self, sums: StepFigures, samples_per_second: float = 0.0, metrics: Mapping[str, float] | None = None
    ) -> Figures:
        steps, step = self.step.steps_per_epoch, self._step_number()
        full, batch = divmod(step, steps)
        return Figures(
            epoch=-(-step // steps),
            epochs=self.epochs,
            step=step,
            steps_per_epoch=steps,
            total_steps=self.epochs * steps,
            samples=full * self.rows.count + batch * self.step.batch_size,
            seconds=self._seconds(),
            samples_per_second=samples_per_second,
            learning_rate=self._learning_rate(),
            loss=sums.loss,
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
