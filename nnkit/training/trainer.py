"""The trainer: settings, checked once; `fit` and `resume`, which bring data and network to the loop."""

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

# The trainers and networks that are being trained now, by identity.
_in_training: set[int] = set()
_in_training_lock = threading.Lock()


def _train_anew_in_child() -> None:
    """Forget, in a forked process, the trainings of its parent's threads, which it does not have."""
    global _in_training_lock
    _in_training_lock = threading.Lock()
    _in_training.clear()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_train_anew_in_child)


class Trainer:
    """Trains a network on a device.

    Parameters
    ----------
    network : Network
        Trained in place. Parameters that it has are gone on from; else they are drawn from `seed`.
    loss : str, mapping or Loss
        What is minimized. ``cross_entropy``, ``binary_cross_entropy``, ``mse``, ``mae``, ``huber``,
        ``poisson``, or a registered one; a mapping gives parameters, as in ``{"name": "huber", "delta":
        0.5}``.
    optimizer : str, mapping or Optimizer
        How weights are updated. Such as ``Adam(1e-3)``.
    device : str
        Where to train: auto, cpu, cuda, or one GPU such as cuda:1. ``auto`` takes CUDA if it works and else
        the CPU.
    precision : {"fp32", "fp64", "tf32", "fp16", "bf16"}
        The precision to compute in. In fp16 and bf16 the parameters and the optimizer's state stay float32;
        their copies, activations and gradients of activations have 16 bits.
    seed : int
        The seed of the weights, the order of the rows and dropout. In [0, 2**64).
    schedule : str, mapping or Schedule
        How the learning rate changes.
    l1 : float
        The penalty on the weights' absolute values. ``l1 Σ|w| + ½ l2 Σw²`` over the weights (not the biases)
        is added to the loss.
    l2 : float
        The penalty on half of the weights' squares.
    penalty_on : {"mean", "sum"}
        Whether penalties are added to a batch's mean loss or to its sum. The latter is what scikit-learn's
        ``alpha`` does.
    average : {"weights", "rows"}
        Whether a batch counts in the epoch's mean loss by its rows' weights or by their number. The latter is
        what scikit-learn does; the weights learnt are the same.
    clip_norm : float, optional
        The maximum norm of the gradient; without it, it is not clipped.
    groups : mapping of str to mapping, optional
        What differs for some parameters: rate, a factor of the learning rate; decays; trains. As in
        ``{"layers.0": {"rate": 0.1}, "layers.1.weight": {"trains": False}}``, by the name of a parameter or
        of its layer; a longer name takes precedence. `rate` is a factor of the learning rate; `decays` tells
        whether weight decay and penalties apply; parameters with `trains` False are frozen: they keep their
        values and are no part of penalties and norms.
    class_weight : "balanced" or mapping of int to float, optional
        How much the rows of each class count: "balanced", or a table of classes and weights. Classes are
        given by their index; the sample weights are multiplied by their weights.
    early_stopping : int, optional
        Stop after so many epochs without improvement. That is of the validation loss (of the training loss,
        where there is no validation).
    restore_best : bool, optional
        Whether the result is the parameters of the best epoch rather than the last. By default where
        `early_stopping` is set; the best epoch is the one with the lowest validation loss. Without validation
        the last weights stay.
    metrics : sequence of str, optional
        The metrics to measure; without them, the task's own. They are evaluated on the validation rows after
        each epoch.
    augment : mapping or Augmentation, optional
        How pictures are varied while training, by shift, flip and erase. As in ``{"shift": 0.1, "flip": True,
        "erase": 0.2}``, never the validation rows; see `Augmentation`. The rows are `Features` with their
        ``picture``.
    data_placement : {"auto", "device", "pinned", "mmap"}
        Where the training rows are kept: on the device, in the host's memory, or mapped from a file. From the
        host's memory, a GPU is sent a few batches ahead through pinned buffers; a file is mapped by
        ``np.load(path, mmap_mode="r")``. ``auto`` leaves mapped what would take more than half of the memory,
        and takes the device where the rows fill at most half of what is free there. No result depends on it,
        but that the order of mapped rows that exceed half of the memory, or that ``mmap`` was set for, is in
        blocks (see `nnkit.feed.order`), wherever they lie.

    Attributes
    ----------
    settings : TrainingSettings
        Every setting, checked, with what follows from the network and the device filled in.
    state : TrainingState
        Where the training stands.
    history : History
        A row an epoch.
    optimizer_state : OptimizerState or None
        What the optimizer has gathered, for ``fit(continued=True)``.
    step : Step or None
        What a training under way runs, for callbacks to look at; else None.
    outcome : {"finished", "stopped", "interrupted", "failed"} or None
        How the last training ended: at its last epoch or by early stopping, by `stop`, by Ctrl-C, or by an
        error. Callbacks find it in `on_train_end`; None before the first training ends, and during one.

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
        penalty_on: Literal["mean", "sum"] = "mean",
        average: Literal["weights", "rows"] = "weights",
        clip_norm: float | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        class_weight: str | Mapping[int, float] | None = None,
        early_stopping: int | None = None,
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
            l1=l1,
            l2=l2,
            penalty_on=penalty_on,
            average=average,
            clip_norm=clip_norm,
            groups=groups,
            class_weight=class_weight,
            early_stopping=early_stopping,
            restore_best=early_stopping is not None if restore_best is None else restore_best,
            metrics=metrics,
            augment=augment,
            data_placement=data_placement,
        )
        self.network = network
        self.loss, self.optimizer, self.seed = settings.loss, settings.optimizer, settings.seed
        self.penalty = Penalty(settings.l1, settings.l2, settings.penalty_on)
        metrics = self._known_metrics(settings.metrics)
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
        """Ask a running `fit` to end after the steps under way: for callbacks and signal handlers."""
        self.stopping = True

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the schedule's rates by a factor from the training's next epoch on: for callbacks."""
        self.state.rate_factor = Number(above=0)("factor", factor)

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
        """Train from epoch 1: a second call repeats the first one's orders and draws on the weights it finds.

        Ctrl-C ends the training between two steps, a second one at once. KeyboardInterrupt is then raised,
        after the last checkpoint is written and, with `restore_best`, the best weights are in the network.

        Parameters
        ----------
        X : array_like, SciPy sparse matrix or data frame of shape (samples, features), or Features
            An array of dtype uint8, dense or sparse, holds pixels and is divided by 255; other numbers are
            taken as they are, and so are a data frame's columns.
        y : array_like
            Class indices of shape (samples,), or targets of shape (samples,) or (samples, outputs).
        epochs : int
            The number of passes over the training rows.
        batch_size : int
            The number of rows in each step. The last batch of an epoch may be smaller, and its
            gradient is that of its own mean.
        validation : float, (X, y) or (X, y, sample_weight), optional
            A share of the rows, stratified by class, or rows of their own.
        sample_weight : array_like of shape (samples,), optional
            Weights of the mean loss.
        shuffle : bool, or function
            Whether each epoch has its own order. Or a function of the epoch, from 0, that returns the rows in
            order as int64.
        callbacks : callback, or iterable of callbacks, optional
            Objects with any of the methods of `Callback`.
        decode : function, optional
            Turns a regression's outputs and targets into their own units for the metrics.
        checkpoints : Checkpoints or path-like, optional
            Where to keep checkpoints, from which `resume` goes on; a path stands for ``Checkpoints(path)``.
            Those of another training are replaced only by ``Checkpoints(path, overwrite=True)``.
        continued : bool
            Continue the previous call: with its optimizer's state and count of steps, its place in the
            schedule, and orders and draws that it has not had.
        schedule_epochs : int, optional
            The length of the schedule in epochs; without it, that of the training. It is counted from the
            first of the calls that continue one another. After its end a schedule keeps its last learning
            rate, or goes on if it does not depend on its length.
        progress : bool, optional
            Whether to show the training on standard output, as a `ProgressDisplay` among the callbacks does;
            by default where that is a terminal.

        Returns
        -------
        History
            A row an epoch.

        Raises
        ------
        DataError
            If the data do not fit the network or the loss.
        ConfigError
            If a setting is out of its range, the trainer or its network is being trained already, or
            `checkpoints` names a folder that holds those of another training.
        DivergenceError
            If the loss is no longer finite; the best weights so far are kept.
        """
        settings = self.settings.changed(
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            schedule_epochs=schedule_epochs,
        )
        if callable(shuffle) and checkpoints is not None:
            raise ConfigError("what is ordered by a function cannot be resumed: give shuffle as a bool")
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
        """Go on with a training at the very step where a checkpoint left it, in the middle of an epoch too.

        The weights, the history and the metrics become those of the training that was never interrupted, bit
        for bit on one machine and device; where that cannot be (another device, another BLAS or number of its
        threads), a warning says what differs.

        Parameters
        ----------
        source : path-like or Checkpoint
            The folder that `fit` kept its checkpoints in, of which the newest whole one is taken; or a file.
        X, y, validation, sample_weight, decode
            As `fit` was given them.
        epochs : int, optional
            More than before trains on; the learning rates left are then those of the longer schedule.
        callbacks, progress
            As in `fit`.
        checkpoints : Checkpoints or path-like, optional
            As in `fit`; if not given and `source` is a folder, they are kept on there.

        Returns
        -------
        History
            A row an epoch, those before the checkpoint included.

        Raises
        ------
        ConfigError
            If the trainer has other settings than the one that kept the checkpoint, or there is none.
        DataError
            If the data are not those the checkpoint was trained on.
        FileError, ModelFileError
            If no checkpoint can be read.
        """
        checkpoint = source if isinstance(source, Checkpoint) else _load_checkpoint(Path(source))
        if checkpoints is None and not isinstance(source, Checkpoint) and Path(source).is_dir():
            checkpoints = Checkpoints(source)
        epochs = checkpoint.epochs if epochs is None else Whole(1)("epochs", epochs)
        if epochs < checkpoint.epochs:
            raise ConfigError(
                f"epochs = {epochs} is less than the {checkpoint.epochs} that the training was begun for; "
                "they can be raised, not lowered"
            )
        batch_size: Any = checkpoint.settings.get("batch_size")
        settings = self.settings.changed(
            epochs=epochs,
            batch_size=batch_size,
            shuffle=bool(checkpoint.settings.get("shuffle")),
        )
        # The order goes on as it was begun, wherever the rows lie now.
        block_rows = checkpoint.settings.get("block_rows")
        block_rows = None if block_rows is None else Whole(1, 2**53)("block_rows", block_rows)
        called = _with_progress(callbacks_from(callbacks), progress)
        # The step is prepared for the number of threads that it will run with.
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
        """Keep the trainer and its network for one training; raise `ConfigError` if there is one already."""
        taken = {id(self), id(self.network)}
        with _in_training_lock:
            if taken & _in_training:
                what = "trainer" if id(self) in _in_training else "network"
                raise ConfigError(
                    f"the {what} is being trained already, in another thread or around this callback: wait "
                    f"for that training to end, or use another {what}"
                )
            _in_training.update(taken)
        try:
            yield
        finally:
            with _in_training_lock:
                _in_training.difference_update(taken)

    def _warn_of_rounding(self, checkpoint: Checkpoint) -> None:
        """Say so where results cannot be those of the training that was never interrupted."""
        then, now = checkpoint.numerics, self.backend.numerics()
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if changed:
            told = ", ".join(f"{key} {then.get(key)} then, {now.get(key)} now" for key in changed)
            logger.warning(f"resumed to rounding, not bit for bit: {told}")

    def _check_resumable(self, checkpoint: Checkpoint, loop: Loop, data: Mapping[str, Any]) -> None:
        """Raise unless settings and data are those of the checkpoint."""
        then = checkpoint.settings
        now = json.loads(json.dumps(loop.to_match()))
        differing = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if differing:
            # Names and values come from the file.
            names = ", ".join(key[:40] for key in differing[:20])
            place, was, now_is = _first_difference(differing[0][:40], then, now)
            raise ConfigError(
                f"{names}: not as in the training to be resumed, where {place} was "
                f"{shown(was)} and not {shown(now_is)}; only epochs, device and "
                "data_placement may change"
            )
        changed = differences(checkpoint.data, data)
        if changed:
            raise DataError(
                "the data are not those of the training to be resumed: " + "; ".join(changed[:8]) + ".\n"
                "Bring back the data as they were, or train anew"
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
        """Return the loop over these data, and what computes their fingerprint."""
        features = self._features(X)
        targets = loss_targets(y, self.loss, self.network.output_width, len(features), self.dtype)
        weights = loss_weights(sample_weight, len(features), self.dtype)
        if isinstance(validation, int | float | np.number):
            kept, held_out = self._split(targets, float(validation))
            held_out_weights = None if weights is None else weights[held_out]
            validation = (features.take(held_out), targets[held_out], held_out_weights)
            features, targets = features.take(kept), targets[kept]
            with _named("the rows that are not held out"):
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
        """Write the network as a model file, which `nnkit.load` reads; see `Network.save`.

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
        """What a model file records of the training so far: epochs, device, precision, seed and versions."""
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
        """Return the step that `fit` would train with, and an epoch's order: to run it outside of a training.

        Parameters
        ----------
        X, y, sample_weight
            As `fit` takes them.
        batch_size : int
            Rows a step.
        """
        settings = self.settings.changed(epochs=1, batch_size=batch_size)
        loop, _ = self._loop(X, y, settings, None, sample_weight, (), None)
        rows, block_rows = loop.rows.count, loop.block_rows
        return loop.step, lambda epoch: epoch_order(rows, self.seed, epoch, True, block_rows)

    def _features(self, X: ArrayLike | Features) -> Features:
        """Return the rows; those mapped from a file stay there where it was asked for, or is needed."""
        size = X.size * max(self.dtype.itemsize, X.itemsize) if isinstance(X, np.ndarray) else 0
        return features_from(X, self.dtype, self.settings.data_placement == "mmap" or size > memory_limit())

    def _placed(
        self,
        features: Features,
        targets: NDArray,
        weights: NDArray | None,
        block_rows: int | Literal["auto"] | None,
    ) -> Placed:
        """Return where the training rows lie, with the blocks of a checkpoint's order if these are given."""
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
        # Soft targets of a binary task are probabilities, by which rows cannot be stratified.
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
        """Return the validation rows as the device receives them."""
        if len(validation) not in (2, 3):
            raise DataError("validation is a share, (X, y) or (X, y, sample_weight)")
        given = validation[2] if len(validation) == 3 else None
        with _named("validation"):
            features = self._features(validation[0])
            self.network.check_width(features)
            outputs = self.network.output_width
            targets = loss_targets(validation[1], self.loss, outputs, len(features), self.dtype)
            weights = loss_weights(given, len(features), self.dtype)
        return features, targets, weights

    def _evaluation(
        self, held: tuple[Features, NDArray, NDArray | None], decode: Decode | None, before: int
    ) -> Evaluation:
        features, targets, weights = held
        task = self.loss.task(self.network.output_width)
        # What cannot be had, or was changed, has been said of the training rows.
        wanted = self.settings.data_placement
        wanted = "auto" if wanted == "mmap" and not features.mapped else wanted
        placed = place_rows(wanted, self.backend, self._automatic, features, targets, weights, before=before)
        rows = Rows(self.backend, self.dtype, placed.features, targets, weights, placement=placed.placement)
        inference = Inference(self.network.places, self.network.arena, rows, self.loss, self.half)
        return Evaluation(inference, self.loss, task, self.settings.metrics or (), targets, weights, decode)


@contextmanager
def _named(rows: str) -> Iterator[None]:
    """Say of which rows a `DataError` is."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{rows}: {error}") from None


def _with_progress(callbacks: tuple[Any, ...], progress: bool | None) -> tuple[Any, ...]:
    """Return the callbacks, with a display before them where it is wanted and none is among them."""
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
    """Return the checkpoint in a file, or the newest whole one in a folder."""
    checkpoint = newest_checkpoint(path) if path.is_dir() or not path.exists() else Checkpoint.load(path)
    if checkpoint is None:
        raise ConfigError(f"{path}: there is no checkpoint to resume from; train with checkpoints kept there")
    return checkpoint
