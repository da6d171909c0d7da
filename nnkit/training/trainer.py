"""The training loop: epochs over a compiled step, validation, the best weights, early stopping, callbacks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.backends import select
from nnkit.backends.protocol import Array
from nnkit.core.batch import Rows
from nnkit.core.features import Features, features_from
from nnkit.core.inference import Inference
from nnkit.core.links import predicted
from nnkit.core.losses import Loss, loss_from
from nnkit.core.metrics import default_metrics, evaluate_metrics, get_metric, metrics_for
from nnkit.core.network import Network
from nnkit.core.optimizers import Optimizer, optimizer_from
from nnkit.core.order import epoch_order
from nnkit.core.schedules import PlateauState, ReduceOnPlateau, Schedule, schedule_from
from nnkit.core.step import Penalty, Step, StepFigures
from nnkit.core.targets import loss_targets, loss_weights
from nnkit.data.splitting import split_rows
from nnkit.errors import ConfigError, DivergenceError
from nnkit.training.callbacks import Callback, Figures
from nnkit.training.calls import Calls
from nnkit.training.class_weights import class_weights
from nnkit.training.history import History
from nnkit.training.precision import resolve_precision

__all__ = ["Trainer", "TrainingState"]

logger = logging.getLogger("nnkit")

Validation = float | tuple[ArrayLike | Features, ArrayLike] | None


@dataclass
class TrainingState:
    """Where a training stands, apart from the arrays: all that decides what the next step does.

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
    """

    epoch: int = 0
    batch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    waited: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)


class Trainer:
    """Trains a network on a device.

    Parameters
    ----------
    network : Network
        Trained in place. Parameters that it has are gone on from; else they are drawn from `seed`.
    loss : str, mapping or Loss
        ``cross_entropy``, ``binary_cross_entropy``, ``mse``, ``mae``, ``huber``, ``poisson``, or a registered
        one; a mapping gives parameters, as in ``{"name": "huber", "delta": 0.5}``.
    optimizer : str, mapping or Optimizer
        Such as ``Adam(1e-3)``.
    device : str
        ``auto`` takes CUDA if it works and else the CPU; ``cpu``, ``cuda``, ``cuda:1``.
    precision : {"fp32", "fp64", "tf32", "fp16", "bf16"}
        What the device computes in.
    seed : int
        In [0, 2**64). Weights, order and dropout are functions of it.
    schedule : str, mapping or Schedule
        Of the learning rate.
    l1, l2 : float
        ``l1 Σ|w| + ½ l2 Σw²`` over the weights (not the biases) is added to the loss.
    clip_norm : float, optional
        The greatest norm of a batch's gradient.
    class_weight : "balanced" or mapping of int to float, optional
        Weights by class index, times the sample weights.
    early_stopping : int, optional
        Stop after so many epochs without a better validation loss (training loss, where there is no
        validation).
    restore_best : bool, optional
        Return to the weights of the best epoch at the end; by default where `early_stopping` is set.
    metrics : sequence of str, optional
        Evaluated on the validation rows after each epoch; by default those of the task.

    Attributes
    ----------
    state : TrainingState
        Where the training stands.
    history : History
        A row an epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from nnkit import Adam, Dense, Network, Trainer
    >>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    >>> net = Network([Dense(8, "tanh"), Dense(1)])
    >>> trainer = Trainer(net, loss="binary_cross_entropy", optimizer=Adam(0.05), device="cpu")
    >>> history = trainer.fit(X, [0, 1, 1, 0], epochs=300, batch_size=4)
    >>> (net.predict(X) > 0).ravel().astype(int).tolist()
    [0, 1, 1, 0]
    """

    def __init__(
        self,
        network: Network,
        loss: str | Mapping[str, Any] | Loss,
        optimizer: str | Mapping[str, Any] | Optimizer = "adam",
        device: str = "auto",
        precision: str = "fp32",
        seed: int = 0,
        *,
        schedule: str | Mapping[str, Any] | Schedule = "constant",
        l1: float = 0.0,
        l2: float = 0.0,
        clip_norm: float | None = None,
        class_weight: str | Mapping[int, float] | None = None,
        early_stopping: int | None = None,
        restore_best: bool | None = None,
        metrics: Sequence[str] | None = None,
    ) -> None:
        self.network = network
        self.loss = loss_from(loss)
        self.optimizer = optimizer_from(optimizer)
        self.schedule = schedule_from(schedule)
        self.seed = _whole("seed", seed, 0, 2**64 - 1)
        self.penalty = Penalty(_at_least_zero("l1", l1), _at_least_zero("l2", l2))
        self.clip_norm = None if clip_norm is None else _above_zero("clip_norm", clip_norm)
        self.class_weight = class_weight
        self.early_stopping = None if early_stopping is None else _whole("early_stopping", early_stopping, 1)
        self.restore_best = early_stopping is not None if restore_best is None else restore_best
        self.metrics = self._known_metrics(metrics)
        selection = select(device)
        self.backend = selection.backend
        resolved = resolve_precision(precision, self.backend, device == "auto")
        self.precision, self.dtype = resolved.name, resolved.dtype
        logger.info(selection.reason)
        if resolved.note:
            logger.info(resolved.note)
        self.state = TrainingState()
        self.history = History()
        self._stopping = False

    def _known_metrics(self, metrics: Sequence[str] | None) -> tuple[str, ...]:
        task = self.loss.task(self.network.outputs)
        if metrics is None:
            return default_metrics(task)
        if isinstance(metrics, str):
            raise ConfigError(f"metrics = {metrics!r} must be a list of names, such as [{metrics!r}]")
        for name in metrics:
            if task not in get_metric(name).tasks:
                these = ", ".join(metrics_for(task))
                raise ConfigError(f"the metric {name!r} does not apply to a {task} task; these do: {these}")
        return tuple(metrics)

    def stop(self) -> None:
        """Ask a running `fit` to end after the steps under way: for callbacks and signal handlers."""
        self._stopping = True

    def fit(
        self,
        X: ArrayLike | Features,
        y: ArrayLike,
        *,
        epochs: int = 20,
        batch_size: int = 128,
        validation: Validation = None,
        sample_weight: ArrayLike | None = None,
        shuffle: bool = True,
        callbacks: Iterable[Callback] = (),
        decode: Callable[[NDArray], NDArray] | None = None,
    ) -> History:
        """Train.

        Parameters
        ----------
        X : array_like of shape (samples, features), or Features
            uint8 values are pixels and are divided by 255; other numbers are taken as they are.
        y : array_like
            Class indices of shape (samples,), or targets of shape (samples,) or (samples, outputs).
        epochs : int
            How often every row is seen.
        batch_size : int
            Rows a step; the last batch of an epoch may be smaller, and its gradient is that of its own mean.
        validation : float or (X, y), optional
            A share of the rows, stratified by class, or rows of their own.
        sample_weight : array_like of shape (samples,), optional
            Weights of the mean loss.
        shuffle : bool
            Whether each epoch takes the rows in an order of its own.
        callbacks : iterable of Callback
            Called on the way.
        decode : function, optional
            Turns a regression's outputs and targets into their own units for the metrics.

        Returns
        -------
        History
            A row an epoch.

        Raises
        ------
        DataError
            If the data do not fit the network or the loss.
        ConfigError
            If a setting is out of its range.
        DivergenceError
            If the loss is no longer finite; the best weights so far are kept.
        """
        epochs = _whole("epochs", epochs, 1)
        batch_size = _whole("batch_size", batch_size, 1, 2**24)
        features = features_from(X, self.dtype)
        targets = loss_targets(y, self.loss, self.network.outputs, len(features), self.dtype)
        weights = loss_weights(sample_weight, len(features), self.dtype)
        if isinstance(validation, int | float | np.number):
            kept, held_out = self._split(targets, float(validation))
            validation = (features.take(held_out), targets[held_out])
            features, targets = features.take(kept), targets[kept]
            weights = None if weights is None else weights[kept]
        self._prepare_network(features)
        weights = self._with_class_weights(targets, weights)
        rows = Rows(self.backend, self.dtype, features, targets, weights, shuffled=True)
        evaluation = None if validation is None else self._evaluation(validation, decode)
        loop = _Loop(self, rows, evaluation, epochs, min(batch_size, rows.count), shuffle, tuple(callbacks))
        loop.run()
        return self.history

    def _split(self, targets: NDArray, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        task = self.loss.task(self.network.outputs)
        classes = (
            targets.reshape(-1) if task in ("binary", "multiclass") and targets.size == len(targets) else None
        )
        whole = classes is not None and np.array_equal(classes, np.round(classes))
        return split_rows(
            len(targets),
            share,
            self.seed,
            classes.astype(np.int64) if whole and classes is not None else None,
        )

    def _prepare_network(self, features: Features) -> None:
        if self.network.inputs is None:
            self.network.initialize(features.width, self.seed, self.dtype, self.backend)
        self.network.check_width(features)
        self.network.place(self.backend, self.dtype)

    def _with_class_weights(self, targets: NDArray, weights: NDArray | None) -> NDArray | None:
        if self.class_weight is None:
            return weights
        by_class = class_weights(self.class_weight, targets, self.network.outputs).astype(self.dtype)
        return by_class if weights is None else weights * by_class

    def _evaluation(self, validation: tuple[ArrayLike | Features, ArrayLike], decode: Any) -> _Evaluation:
        features = features_from(validation[0], self.dtype)
        self.network.check_width(features)
        targets = loss_targets(validation[1], self.loss, self.network.outputs, len(features), self.dtype)
        task = self.loss.task(self.network.outputs)
        rows = Rows(self.backend, self.dtype, features, targets)
        inference = Inference(self.network.stages, self.network.arena, rows, self.loss)
        return _Evaluation(inference, self.loss, task, self.metrics, targets, decode)


class _Evaluation:
    """The validation rows, and what is measured on them."""

    def __init__(
        self,
        inference: Inference,
        loss: Loss,
        task: Any,
        metrics: Sequence[str],
        targets: NDArray,
        decode: Callable[[NDArray], NDArray] | None,
    ) -> None:
        self._inference = inference
        self._loss = loss
        self._task = task
        self._decode = decode
        self._cheap = [name for name in metrics if get_metric(name).cheap]
        self._final = [name for name in metrics if not get_metric(name).cheap]
        hard = task == "regression" or targets.ndim == 1 or np.array_equal(targets, np.round(targets))
        truth = targets if hard else np.round(targets)
        if task == "multiclass" and truth.ndim == 2:
            truth = targets.argmax(axis=1)
        self._truth = truth if task == "regression" else truth.astype(np.int64)
        if decode is not None:
            self._truth = decode(targets)

    def run(self) -> tuple[NDArray, float]:
        """Return the outputs on the validation rows, and their loss."""
        return self._inference.run()

    def measure(self, outputs: NDArray, last: bool) -> dict[str, float]:
        """Return the metrics of the outputs; those that are not cheap only after the last epoch."""
        values = predicted(outputs, self._loss.link)
        if self._decode is not None:
            values = self._decode(values)
        names = [*self._cheap, *(self._final if last else [])]
        measured = evaluate_metrics(names, self._task, self._truth, values)
        return {f"validation_{name}": value for name, value in measured.items()}


class _Loop:
    """One call of `Trainer.fit`."""

    def __init__(
        self,
        trainer: Trainer,
        rows: Rows,
        evaluation: _Evaluation | None,
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
        self._keep_best = trainer.backend.program(
            [trainer.backend.copy(network.arena.values, self.best_values)]
        )
        self._return_to_best = trainer.backend.program(
            [trainer.backend.copy(self.best_values, network.arena.values)]
        )
        self._began = 0.0
        self._rates: NDArray[np.float64] = np.zeros(0)
        self._reported = (0, 0.0, StepFigures())  # step, seconds and sums at the last report

    def run(self) -> None:
        """Train, from where `trainer.state` stands to the last epoch."""
        trainer = self.trainer
        trainer.state, trainer.history, trainer._stopping = TrainingState(), History(), False
        self._began = time.perf_counter()
        self._keep_best.run()
        self.calls.train_begin(self._figures(StepFigures()))
        last = StepFigures()
        try:
            while trainer.state.epoch < self.epochs and not trainer._stopping:
                last = self._epoch()
        finally:
            self.calls.train_end(self._figures(last))
        if trainer.restore_best and trainer.history.rows and trainer.state.best_epoch:
            self._return_to_best.run()
        trainer.backend.synchronize()

    def _epoch(self) -> StepFigures:
        state, steps = self.trainer.state, self.step.steps_per_epoch
        self._rates = self._learning_rates()
        order = epoch_order(self.rows.count, self.trainer.seed, state.epoch, self.shuffle)
        self.step.begin_epoch(state.epoch, order, self._rates)
        began = self._seconds()
        self._reported = (self._step_number(), began, StepFigures())
        while state.batch < steps and not self.trainer._stopping:
            started = time.perf_counter()
            count = self.calls.stretch(self._step_number(), steps - state.batch)
            self.step.run(state.batch, count)
            state.batch += count
            sums = self.step.read()
            self.calls.measured(count, time.perf_counter() - started)
            self._check_finite(sums)
            self.calls.step_end(self._step_number(), self._seconds(), partial(self._report, sums))
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
            last = epoch == self.epochs or trainer._stopping
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
        network = self.trainer.network
        if not np.isfinite(self.trainer.backend.to_host(network.arena.values)).all():
            self._diverge("weights became infinite or NaN")

    def _diverge(self, what: str) -> NoReturn:
        """Return to the best weights and say what happened."""
        trainer, state = self.trainer, self.trainer.state
        self._return_to_best.run()
        kept = f"those of epoch {state.best_epoch}" if state.best_epoch else "the initial ones"
        rate = float(self._rates[min(state.batch, len(self._rates)) - 1])
        clip = "" if trainer.clip_norm is not None else ", or clip_norm = 1.0"
        raise DivergenceError(
            f"{what} in epoch {state.epoch + 1} at learning rate {rate:g}; "
            f"the weights kept are {kept}.\nTry learning_rate = {trainer.optimizer.learning_rate / 10:g}"
            f"{clip}, and look for features of large scale."
        )

    def _report(self, sums: StepFigures) -> Figures:
        """Return the figures since the last report."""
        step, seconds = self._step_number(), self._seconds()
        last_step, last_seconds, last_sums = self._reported
        self._reported = (step, seconds, sums)
        samples = (step - last_step) * self.step.batch_size
        return self._figures(sums.since(last_sums), samples / max(seconds - last_seconds, 1e-9))

    def _figures(
        self, sums: StepFigures, samples_per_second: float = 0.0, metrics: Mapping[str, float] | None = None
    ) -> Figures:
        state, steps = self.trainer.state, self.step.steps_per_epoch
        step = self._step_number()
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
            learning_rate=float(self._rates[min(state.batch, len(self._rates)) - 1])
            if len(self._rates)
            else 0.0,
            loss=sums.loss,
            metrics=metrics or {},
        )

    def _step_number(self) -> int:
        return self.trainer.state.epoch * self.step.steps_per_epoch + self.trainer.state.batch

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def _whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or value < least
        or (most and value > most)
    ):
        upper = f" and at most {most}" if most else ""
        raise ConfigError(f"{name} = {value!r} must be a whole number of at least {least}{upper}")
    return int(value)


def _at_least_zero(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(f"{name} = {value!r} must be a finite number of at least 0")
    return float(value)


def _above_zero(name: str, value: float) -> float:
    if _at_least_zero(name, value) == 0:
        raise ConfigError(f"{name} = {value!r} must be greater than 0")
    return float(value)
