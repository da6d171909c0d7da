"""The trainer: it checks the settings once; `fit` and `resume` prepare data and network for the loop."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.backends import select
from nnkit.checks import Number, Whole
from nnkit.data.limits import memory_limit
from nnkit.data.splitting import split_rows
from nnkit.engine.inference import Inference
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.errors import ConfigError, DataError, shown
from nnkit.feed.augmentation import Augmentation
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features, features_from
from nnkit.feed.order import epoch_order
from nnkit.feed.statistics import RowStatistics
from nnkit.nn.losses import Loss
from nnkit.nn.metrics import default_metrics, get_metric, metrics_for
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Optimizer
from nnkit.nn.schedules import Schedule
from nnkit.nn.targets import loss_targets, loss_weights
from nnkit.training.callbacks import Callbacks, callbacks_from
from nnkit.training.checkpoint import (
    Checkpoint,
    Checkpoints,
    CheckpointWriter,
    check_unused,
    newest_checkpoint,
    remove_checkpoints,
)
from nnkit.training.class_weights import class_weights
from nnkit.training.evaluation import Decode, Evaluation
from nnkit.training.fingerprint import differences, fingerprint
from nnkit.training.history import History
from nnkit.training.loop import Loop, Outcome
from nnkit.training.placement import Placed, place_rows
from nnkit.training.precision import resolve_precision
from nnkit.training.progress import ProgressDisplay
from nnkit.training.settings import TrainingSettings
from nnkit.training.state import OptimizerState, TrainingState
from nnkit.versions import recorded_versions

__all__ = ["Trainer"]

logger = logging.getLogger("nnkit")

Held = tuple[ArrayLike | Features, ArrayLike] | tuple[ArrayLike | Features, ArrayLike, ArrayLike | None]
Validation = float | Held | None
Order = Callable[[int], NDArray[np.int64]]

# Identities of the trainers and networks in a running training.
_in_training: set[int] = set()
_in_training_lock = threading.Lock()


def _forget_trainings() -> None:
    """Clear the record in a forked process, which does not have its parent's threads."""
    global _in_training_lock
    _in_training_lock = threading.Lock()
    _in_training.clear()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget_trainings)


class Trainer:
    """Trains a network on a device.

    Parameters
    ----------
    network : Network
        Trained in place. Training starts from its parameters; a network without any draws them from `seed`.
    loss : str, mapping or Loss
        What is minimized. ``cross_entropy``, ``binary_cross_entropy``, ``mse``, ``mae``, ``huber``,
        ``poisson``, or a registered one; a mapping gives parameters, as in ``{"name": "huber", "delta":
        0.5}``.
    optimizer : str, mapping or Optimizer
        How weights are updated. For example ``Adam(1e-3)``.
    device : str
        Where to train: auto, cpu, cuda, or one GPU such as cuda:1. ``auto`` takes CUDA where it works, else
        the CPU.
    precision : {"fp32", "fp64", "tf32", "fp16", "bf16"}
        The precision to compute in. In fp16 and bf16 the parameters and the optimizer's state stay float32;
        copies of the parameters, activations and their gradients have 16 bits.
    seed : int
        The seed of the weights, the order of the rows and dropout. In [0, 2**64).
    schedule : str, mapping or Schedule
        How the learning rate changes.
    dropout_schedule : str, mapping or Schedule
        How the rates of dropout change; flat_cos ends without dropout. The schedule's factor multiplies the
        rate of each layer in each step.
    weight_decay_schedule : str, mapping or Schedule
        How the weight decay changes, apart from being multiplied by the learning rate. RealMLP takes flat_cos
        for both (Holzmüller et al. 2024, arXiv:2407.04491).
    l1 : float
        The factor of the penalty on the weights' absolute values. ``l1 Σ|w| + ½ l2 Σw²`` over the weights,
        without the biases, is added to the loss.
    l2 : float
        The factor of the penalty on half of the weights' squares.
    penalty_on : {"mean", "sum"}
        Whether penalties are added to a batch's mean loss or to its sum. scikit-learn's ``alpha`` does the
        latter.
    average : {"weights", "rows"}
        Whether the epoch's mean loss weighs a batch by its sample weights or by its number of rows.
        scikit-learn does the latter. The trained weights do not depend on it.
    clip_norm : float, optional
        The maximum norm of the gradient; by default it is not clipped.
    groups : mapping of str to mapping, optional
        Settings for some parameters: rate, a factor of the learning rate; decays; trains. The keys are names
        of parameters or layers, as in ``{"layers.0": {"rate": 0.1}, "layers.1.weight": {"trains": False}}``;
        the longest name that fits counts. ``head`` is the last layer with parameters, ``rest`` is all others.
        `decays` tells whether weight decay and penalties apply; parameters with `trains` False are frozen:
        they keep their values and count neither in penalties nor in norms.
    class_weight : "balanced" or mapping of int to float, optional
        The weight of each class: "balanced", or a mapping of classes to weights. Classes are given by their
        index; sample weights are multiplied by the weight of their class.
    early_stopping : int, optional
        The number of epochs without improvement after which to stop. The validation loss has to improve or,
        without validation, the training loss.
    cooldown : float
        After early stopping: how long training goes on from the best weights while the learning rate falls to
        0, as a share of the epochs that led to them. In [0, 1]; with 0 the training ends at once.
    monitor : str, optional
        The metric on the validation rows that tells which epoch is best; by default the validation loss. Of
        equally good epochs the last counts.
    restore_best : bool, optional
        Whether to end with the parameters of the best epoch instead of the last. By default if
        `early_stopping` is set. Without validation the last parameters stay.
    metrics : sequence of str, optional
        The metrics to evaluate; by default those of the task. They are evaluated on the validation rows after
        each epoch.
    augment : mapping or Augmentation, optional
        How training pictures are varied, by shift, flip and erase. For example ``{"shift": 0.1, "flip": True,
        "erase": 0.2}``; see `Augmentation`. The rows are then `Features` with a ``picture``.
    data_placement : {"auto", "device", "pinned", "mmap"}
        Where the training rows are kept: on the device, in the host's memory, or mapped from a file. A file
        is mapped by ``np.load(path, mmap_mode="r")``; from the host's memory, a GPU receives batches in
        advance through pinned buffers. ``auto`` keeps a file mapped if its rows would take more than half of
        the memory, and uses the device if they fill at most half of its free memory. Results do not depend on
        it, except that rows of a file that stays mapped are shuffled in blocks (see `nnkit.feed.order`).

    Attributes
    ----------
    settings : TrainingSettings
        Every setting, checked; defaults that depend on the network or the device are resolved.
    state : TrainingState
        The progress of the training.
    history : History
        One row for each epoch.
    optimizer_state : OptimizerState or None
        The optimizer's state, for ``fit(continued=True)``.
    step : Step or None
        The training step, for callbacks to inspect; None outside of a training.
    outcome : {"finished", "stopped", "interrupted", "failed"} or None
        How the last training ended: by its last epoch or early stopping, by `stop`, by Ctrl-C, or by an
        error. Set when `on_train_end` is called; None before and during the first training.

    Examples
    --------
    >>> import numpy as np
    >>> from nnkit import Adam, Dense, Network, Trainer
    >>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    >>> net = Network([Dense(8, "tanh"), Dense(1)])
    >>> trainer = Trainer(net, loss="binary_cross_entropy", optimizer=Adam(0.05), device="cpu")
    >>> history = trainer.fit(X, [0, 1, 1, 0], epochs=300, batch_size=4)
    >>> (net.outputs(X) > 0).ravel().astype(int).tolist()
    [0, 1, 1, 0]
    """

    # Long: it lists every setting once, for the signature, and once for the record.
    def __init__(
        self,
        network: Network,
        loss: str | Mapping[str, Any] | Loss,
        optimizer: str | Mapping[str, Any] | Optimizer = "adam",
        *,
        device: str = "auto",
        precision: str = "fp32",
        seed: int = 0,
        schedule: str | Mapping[str, Any] | Schedule = "constant",
        dropout_schedule: str | Mapping[str, Any] | Schedule = "constant",
        weight_decay_schedule: str | Mapping[str, Any] | Schedule = "constant",
        l1: float = 0.0,
        l2: float = 0.0,
        penalty_on: Literal["mean", "sum"] = "mean",
        average: Literal["weights", "rows"] = "weights",
        clip_norm: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        class_weight: str | Mapping[int, float] | None = None,
        early_stopping: int | None = None,
        cooldown: float = 0.0,
        monitor: str | None = None,
        restore_best: bool | None = None,
        metrics: Sequence[str] | None = None,
        augment: Mapping[str, Any] | Augmentation | None = None,
        data_placement: str = "auto",
    ) -> None:
        settings = TrainingSettings.of(
            loss=loss,
            optimizer=optimizer,
            device=device,
            precision=precision,
            seed=seed,
            schedule=schedule,
            dropout_schedule=dropout_schedule,
            weight_decay_schedule=weight_decay_schedule,
            l1=l1,
            l2=l2,
            penalty_on=penalty_on,
            average=average,
            clip_norm=clip_norm,
            groups=groups,
            class_weight=class_weight,
            early_stopping=early_stopping,
            cooldown=cooldown,
            monitor=monitor,
            restore_best=early_stopping is not None if restore_best is None else restore_best,
            metrics=metrics,
            augment=augment,
            data_placement=data_placement,
        )
        self.network = network
        network.layers[-1].check_link(settings.loss.link)
        self.loss, self.optimizer, self.seed = settings.loss, settings.optimizer, settings.seed
        self.penalty = Penalty(settings.l1, settings.l2, settings.penalty_on)
        metrics = self._known_metrics(settings.metrics)
        if settings.monitor is not None:
            metrics = tuple(dict.fromkeys([*metrics, *self._known_metrics((settings.monitor,))]))
        self._automatic = device == "auto"
        selection = select(device)
        resolved = resolve_precision(precision, selection.backend, self._automatic)
        self.backend = selection.backend.with_precision(resolved.name)
        self.precision, self.dtype, self.half = resolved.name, resolved.dtype, resolved.half
        self.settings = settings.changed(metrics=metrics, precision=resolved.name)
        logger.info(selection.reason)
        if resolved.note:
            logger.warning(resolved.note)
        self.state = TrainingState()
        self.history = History()
        self.optimizer_state: OptimizerState | None = None
        self.step: Step | None = None
        self.outcome: Outcome | None = None
        self.stopping = False

    def _known_metrics(self, metrics: tuple[str, ...] | None) -> tuple[str, ...]:
        task = self.loss.task(self.network.output_width)
        if metrics is None:
            return default_metrics(task)
        for name in metrics:
            if task not in get_metric(name).tasks:
                these = ", ".join(metrics_for(task))
                raise ConfigError(f"the metric {name!r} does not apply to a {task} task; these do: {these}")
        return metrics

    def stop(self) -> None:
        """End a running `fit` after the current steps; for callbacks and signal handlers."""
        self.stopping = True

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the schedule's rates by a factor from the next epoch on; for callbacks."""
        self.state.rate_factor = Number(above=0)("factor", factor)

    # Long for its parameters and their description.
    def fit(
        self,
        X: ArrayLike | Features,
        y: ArrayLike,
        *,
        epochs: int = 20,
        batch_size: int = 128,
        validation: Validation = None,
        sample_weight: ArrayLike | None = None,
        shuffle: bool | Order = True,
        callbacks: Callbacks = None,
        decode: Decode | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        continued: bool = False,
        schedule_epochs: int | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train the network, starting from its current weights.

        Without `continued`, a second call uses the same random orders and dropout masks as the first.

        Ctrl-C stops the training after the current step, a second Ctrl-C at once. KeyboardInterrupt is raised
        after the last checkpoint is written and, with `restore_best`, the best weights are restored.

        Parameters
        ----------
        X : array_like, SciPy sparse matrix or data frame of shape (samples, features), or Features
            An array of dtype uint8, dense or sparse, holds pixels and is divided by 255; other numbers are
            used as they are.
        y : array_like
            Class indices of shape (samples,), or targets of shape (samples,) or (samples, outputs).
        epochs : int
            The number of passes over the training rows.
        batch_size : int
            The number of rows in each step. The last batch of an epoch may be smaller; the mean of its loss
            is over its own rows.
        validation : float, (X, y) or (X, y, sample_weight), optional
            The fraction of the rows to hold out, stratified by class, or separate validation rows.
        sample_weight : array_like of shape (samples,), optional
            Weights of the mean loss.
        shuffle : bool, or function
            Whether the rows are shuffled in each epoch. Or a function that takes the epoch, counted from
            0, and returns the order of the rows as int64.
        callbacks : callback, or iterable of callbacks, optional
            Objects with any of the methods of `Callback`.
        decode : function, optional
            Converts a regression's outputs and targets to their original units for the metrics.
        checkpoints : Checkpoints or path-like, optional
            Where to keep checkpoints for `resume`; a path means ``Checkpoints(path)``. Checkpoints of another
            training are replaced only with ``Checkpoints(path, overwrite=True)``.
        continued : bool
            Whether to continue the previous call: with its optimizer state, step count and place in the
            schedule, and with new orders and dropout masks.
        schedule_epochs : int, optional
            The length of the schedule in epochs; by default that of the training. It counts from the first of
            the calls that continue one another. After its end, a schedule keeps its last learning rate,
            unless it does not depend on its length.
        progress : bool, optional
            Whether to show a `ProgressDisplay` on standard output; by default if that is a terminal.

        Returns
        -------
        History
            One row for each epoch.

        Raises
        ------
        DataError
            If the data do not fit the network or the loss.
        ConfigError
            If a setting is out of range, the trainer or its network is already in training, or the folder of
            `checkpoints` holds those of another training.
        DivergenceError
            If the loss becomes infinite or NaN; the network then holds the best weights so far.
        """
        settings = self.settings.changed(
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            schedule_epochs=schedule_epochs,
        )
        if callable(shuffle) and checkpoints is not None:
            raise ConfigError("a training shuffled by a function cannot be resumed: give shuffle as a bool")
        kept = None if checkpoints is None else _checkpoints(checkpoints)
        if kept is not None:
            check_unused(kept)
        called = _with_progress(callbacks_from(callbacks), progress)
        with self._training_alone():
            loop, data = self._loop(
                X, y, settings, validation, sample_weight, called, decode, continued=continued
            )
            if kept is not None:
                remove_checkpoints(kept.folder)
                loop.writer = CheckpointWriter(kept, loop.step.steps_per_epoch, data)
            loop.run()
        return self.history

    # Long for its parameters and their description.
    def resume(
        self,
        source: Checkpoint | str | os.PathLike[str],
        X: ArrayLike | Features,
        y: ArrayLike,
        *,
        epochs: int | None = None,
        validation: Validation = None,
        sample_weight: ArrayLike | None = None,
        callbacks: Callbacks = None,
        decode: Decode | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> History:
        """Resume a training at the step of a checkpoint, even in the middle of an epoch.

        Weights, history and metrics become those of an uninterrupted training, bit for bit on the same
        machine and device. Where that is impossible (another device, BLAS or number of BLAS threads), a
        warning says what differs.

        Parameters
        ----------
        source : path-like or Checkpoint
            A folder of checkpoints, of which the newest complete one is used; or a checkpoint, or its file.
        X, y, validation, sample_weight, decode
            As they were passed to `fit`.
        epochs : int, optional
            A larger number than before trains longer, with the learning rates of the longer schedule.
        callbacks, progress
            As in `fit`.
        checkpoints : Checkpoints or path-like, optional
            As in `fit`; by default `source`, if it is a folder.

        Returns
        -------
        History
            One row for each epoch, including those before the checkpoint.

        Raises
        ------
        ConfigError
            If the trainer's settings differ from those of the checkpoint, or there is no checkpoint.
        DataError
            If the data differ from those of the checkpoint.
        FileError, ModelFileError
            If no checkpoint can be read.
        """
        checkpoint = source if isinstance(source, Checkpoint) else _load_checkpoint(Path(source))
        if checkpoints is None and not isinstance(source, Checkpoint) and Path(source).is_dir():
            checkpoints = Checkpoints(source)
        epochs = checkpoint.epochs if epochs is None else Whole(1)("epochs", epochs)
        if epochs < checkpoint.epochs:
            raise ConfigError(
                f"epochs = {epochs} is less than the training's {checkpoint.epochs}; it can only be raised"
            )
        batch_size: Any = checkpoint.settings.get("batch_size")
        settings = self.settings.changed(
            epochs=epochs,
            batch_size=batch_size,
            shuffle=bool(checkpoint.settings.get("shuffle")),
        )
        # The order of the rows must not change with where they are kept now.
        block_rows = checkpoint.settings.get("block_rows")
        block_rows = None if block_rows is None else Whole(1, 2**53)("block_rows", block_rows)
        called = _with_progress(callbacks_from(callbacks), progress)
        # The step is compiled for the number of BLAS threads that it runs with.
        with self._training_alone(), self.backend.matching_numerics(checkpoint.numerics):
            loop, data = self._loop(
                X, y, settings, validation, sample_weight, called, decode, block_rows=block_rows
            )
            self._check_resumable(checkpoint, loop, data())
            if checkpoints is not None:
                loop.writer = CheckpointWriter(_checkpoints(checkpoints), loop.step.steps_per_epoch, data)
            self._warn_of_rounding(checkpoint)
            loop.run(checkpoint)
        return self.history

    @contextmanager
    def _training_alone(self) -> Iterator[None]:
        """Reserve the trainer and its network; raise `ConfigError` if one of them is in training."""
        taken = {id(self), id(self.network)}
        with _in_training_lock:
            if taken & _in_training:
                what = "trainer" if id(self) in _in_training else "network"
                raise ConfigError(
                    f"the {what} is already being trained, by another thread or by the caller of this "
                    f"callback: wait until that training ends, or use another {what}"
                )
            _in_training.update(taken)
        try:
            yield
        finally:
            with _in_training_lock:
                _in_training.difference_update(taken)

    def _warn_of_rounding(self, checkpoint: Checkpoint) -> None:
        """Warn if the results cannot be bit-identical to those of an uninterrupted training."""
        then, now = checkpoint.numerics, self.backend.numerics()
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if changed:
            changes = ", ".join(f"{key} {then.get(key)} then, {now.get(key)} now" for key in changed)
            logger.warning(f"the resumed training is equal up to rounding, not bit for bit: {changes}")

    def _check_resumable(self, checkpoint: Checkpoint, loop: Loop, data: Mapping[str, Any]) -> None:
        """Raise unless settings and data equal those of the checkpoint."""
        then = checkpoint.settings
        now = json.loads(json.dumps(loop.to_match()))
        differing = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if differing:
            # Names and values come from a file: their length in a message is limited.
            names = ", ".join(key[:40] for key in differing[:20])
            place, was, now_is = _first_difference(differing[0][:40], then, now)
            raise ConfigError(
                f"{names}: differs from the training to resume, where {place} was {shown(was)} and not "
                f"{shown(now_is)}; only epochs, device and data_placement may change"
            )
        changed = differences(checkpoint.data, data)
        if changed:
            raise DataError(
                "the data differ from those of the training to resume: " + "; ".join(changed[:8]) + ".\n"
                "Restore the data, or start a new training"
            )
        loop.check(checkpoint)

    def _loop(
        self,
        X: ArrayLike | Features,
        y: ArrayLike,
        settings: TrainingSettings,
        validation: Validation,
        sample_weight: ArrayLike | None,
        callbacks: tuple[Any, ...],
        decode: Decode | None,
        continued: bool = False,
        block_rows: int | Literal["auto"] | None = "auto",
    ) -> tuple[Loop, Callable[[], dict[str, Any]]]:
        """Return the loop over these data, and a function that computes their fingerprint."""
        features = self._features(X)
        targets = loss_targets(y, self.loss, self.network.output_width, len(features), self.dtype)
        weights = loss_weights(sample_weight, len(features), self.dtype)
        if isinstance(validation, int | float | np.number):
            kept, held_out = self._split(targets, float(validation))
            held_out_weights = None if weights is None else weights[held_out]
            validation = (features.take(held_out), targets[held_out], held_out_weights)
            features, targets = features.take(kept), targets[kept]
            with _prefixed("the rows that are not held out"):
                weights = None if weights is None else loss_weights(weights[kept], len(kept), self.dtype)
        self._prepare_network(features)
        weights = self._with_class_weights(targets, weights)
        placed = self._placed(features, targets, weights, block_rows)
        rows = Rows(
            self.backend,
            self.dtype,
            placed.features,
            targets,
            weights,
            True,
            settings.augment,
            settings.seed,
            placed.placement,
        )
        held = None if validation is None else self._held(validation)
        evaluation = None if held is None else self._evaluation(held, decode, placed.device_bytes)
        carried = self.optimizer_state if continued else None
        settings = settings.changed(batch_size=min(settings.batch_size, rows.count))
        loop = Loop(self, settings, rows, evaluation, callbacks, carried, placed.block_rows)

        def data() -> dict[str, Any]:
            seen = fingerprint(features, targets, weights, "training")
            return seen if held is None else {**seen, **fingerprint(*held, "validation")}

        return loop, cache(data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network as a model file for `nnkit.load`; see `Network.save`.

        Raises
        ------
        ConfigError
            If the network has no parameters yet.
        FileError
            If the file cannot be written.
        """
        self.network.save(path, self.loss, self.details)

    @property
    def details(self) -> dict[str, Any]:
        """What a model file records about its training: epochs, device, precision, seed and versions."""
        return {
            "epochs": len(self.history),
            "device": self.backend.name,
            "precision": self.precision,
            "seed": self.seed,
            **recorded_versions(),
        }

    def prepared_step(
        self, X: ArrayLike | Features, y: ArrayLike, batch_size: int, sample_weight: ArrayLike | None = None
    ) -> tuple[Step, Callable[[int], NDArray[np.int64]]]:
        """Return the step that `fit` would run and a function from the epoch to the order of the rows.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        batch_size : int
            The number of rows in a step.
        """
        settings = self.settings.changed(epochs=1, batch_size=batch_size)
        loop, _ = self._loop(X, y, settings, None, sample_weight, (), None)
        rows, block_rows = loop.rows.count, loop.block_rows
        return loop.step, lambda epoch: epoch_order(rows, self.seed, epoch, True, block_rows)

    def _features(self, X: ArrayLike | Features) -> Features:
        """Return the rows; a mapped file stays mapped if so requested or larger than the memory limit."""
        size = X.size * max(self.dtype.itemsize, X.itemsize) if isinstance(X, np.ndarray) else 0
        return features_from(X, self.dtype, self.settings.data_placement == "mmap" or size > memory_limit())

    def _placed(
        self,
        features: Features,
        targets: NDArray,
        weights: NDArray | None,
        block_rows: int | Literal["auto"] | None,
    ) -> Placed:
        """Return the placement of the training rows, with a checkpoint's size of blocks if given."""
        placed = place_rows(
            self.settings.data_placement,
            self.backend,
            self._automatic,
            features,
            targets,
            weights,
            shuffled=True,
        )
        if placed.note:
            logger.log(logging.WARNING if placed.amended else logging.INFO, placed.note)
        return placed if block_rows == "auto" else replace(placed, block_rows=block_rows)

    def _split(self, targets: NDArray, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        task = self.loss.task(self.network.output_width)
        single = task in ("binary", "multiclass") and targets.size == len(targets)
        # Targets that are probabilities have no classes to stratify by.
        classes = targets.reshape(-1).astype(np.int64) if single else None
        hard = classes is not None and np.array_equal(classes, targets.reshape(-1))
        return split_rows(len(targets), share, self.seed, classes if hard else None)

    def _prepare_network(self, features: Features) -> None:
        if self.network.inputs is None:
            self.network.prepare(RowStatistics(features))
            self.network.initialize(features.width, self.seed, self.dtype, self.backend)
        self.network.check_width(features)
        self.network.place(self.backend, self.dtype)

    def _with_class_weights(self, targets: NDArray, weights: NDArray | None) -> NDArray | None:
        given = self.settings.class_weight
        if given is None:
            return weights
        by_class = class_weights(given, targets, self.network.output_width).astype(self.dtype)
        return loss_weights(by_class if weights is None else weights * by_class, len(targets), self.dtype)

    def _held(self, validation: Held) -> tuple[Features, NDArray, NDArray | None]:
        """Return the validation rows, converted and checked."""
        if len(validation) not in (2, 3):
            raise DataError("validation must be a fraction, (X, y) or (X, y, sample_weight)")
        given = validation[2] if len(validation) == 3 else None
        with _prefixed("validation"):
            features = self._features(validation[0])
            self.network.check_width(features)
            outputs = self.network.output_width
            targets = loss_targets(validation[1], self.loss, outputs, len(features), self.dtype)
            weights = loss_weights(given, len(features), self.dtype)
        return features, targets, weights

    def _evaluation(
        self, held: tuple[Features, NDArray, NDArray | None], decode: Decode | None, placed_bytes: int
    ) -> Evaluation:
        features, targets, weights = held
        task = self.loss.task(self.network.output_width)
        # The note on the placement of the training rows holds for these, too.
        wanted = self.settings.data_placement
        wanted = "auto" if wanted == "mmap" and not features.mapped else wanted
        placed = place_rows(
            wanted, self.backend, self._automatic, features, targets, weights, placed_bytes=placed_bytes
        )
        rows = Rows(self.backend, self.dtype, placed.features, targets, weights, placement=placed.placement)
        inference = Inference(self.network.places, self.network.arena, rows, self.loss, self.half)
        metrics, monitor = self.settings.metrics or (), self.settings.monitor
        return Evaluation(inference, self.loss, task, metrics, targets, weights, decode, monitor)


@contextmanager
def _prefixed(rows: str) -> Iterator[None]:
    """Put the name of the rows before the message of a `DataError`."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{rows}: {error}") from None


def _with_progress(callbacks: tuple[Any, ...], progress: bool | None) -> tuple[Any, ...]:
    """Return the callbacks, with a progress display first if wanted and none is among them."""
    if progress is None:
        terminal = hasattr(sys.stdout, "isatty") and sys.stdout.isatty()
        progress = terminal and threading.current_thread() is threading.main_thread()
    displayed = any(isinstance(callback, ProgressDisplay) for callback in callbacks)
    return (ProgressDisplay(), *callbacks) if progress and not displayed else callbacks


def _checkpoints(given: Checkpoints | str | os.PathLike[str]) -> Checkpoints:
    return given if isinstance(given, Checkpoints) else Checkpoints(given)


def _first_difference(name: str, then: Any, now: Any) -> tuple[str, Any, Any]:
    """Return the innermost setting that differs, such as ``network.layers.0.units``, and its two values."""
    place, then, now = name, then.get(name), now.get(name)
    while True:
        if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
            keys: Iterable[Any] = then
        elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
            keys = range(len(then))
        else:
            return place, then, now
        key = next(key for key in keys if then[key] != now[key])
        place, then, now = f"{place}.{str(key)[:40]}", then[key], now[key]


def _load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file, or the newest complete one in a folder."""
    checkpoint = newest_checkpoint(path) if path.is_dir() or not path.exists() else Checkpoint.load(path)
    if checkpoint is None:
        raise ConfigError(
            f"{path}: no checkpoint to resume from; train with `checkpoints` set to this folder"
        )
    return checkpoint
