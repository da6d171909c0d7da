"""A run: a training that a config describes, the folder that it leaves, and its outcome."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.cache import cache_folder
from nnkit.diagnostics.diagnosis import Diagnosis
from nnkit.diagnostics.findings import Finding, write_findings
from nnkit.errors import ConfigError, DivergenceError, FileError, FirstError
from nnkit.files import locked
from nnkit.nn.layers import all_layers
from nnkit.run_folder import CHECKPOINTS, FINDINGS_FILE, MODEL_FILE, claim_folder, find_run, timed_name
from nnkit.runs.config import Config
from nnkit.runs.data import EncodedRows
from nnkit.runs.folder import RunRecord, clear_folder, resumed_config
from nnkit.runs.from_config import resolved
from nnkit.runs.plan import TrainingPlan
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.checkpoint import Checkpoint, Checkpoints, newest_checkpoint
from nnkit.training.trackers import Tracker

__all__ = ["Outcome", "Run", "fastest_numerics"]

logger = logging.getLogger("nnkit")

# Adam moves a weight by about the learning rate an update: after fewer, most are near where they began.
_FEW_UPDATES = 200


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Parameters
    ----------
    metrics : dict of str to float
        All metrics of the task.
    rows : {"test", "validation", "training"}
        The rows that they were measured on.
    count : int
        The number of these rows.
    model_path : Path
        The model file.
    undefined : dict of str to str
        Why a metric is NaN, or 0 by convention, on these rows.
    best_threshold : dict of str to float
        For a binary model with validation rows: the ``threshold`` of the greatest ``f1``, and that F1.
    """

    metrics: dict[str, float]
    rows: str
    count: int
    model_path: Path
    undefined: dict[str, str] = field(default_factory=dict)
    best_threshold: dict[str, float] = field(default_factory=dict)


class Run(TrainingPlan):
    """A prepared training and its folder: everything is read and checked, nothing is written yet.

    Parameters
    ----------
    config, mapped
        As `TrainingPlan` takes them.
    own_process : bool
        Whether the run may set the number of BLAS threads.
    overwrite : bool
        Whether `train` may replace the run that is in the folder.

    Attributes
    ----------
    folder : Path
        The run folder that `train` will write. Without ``run.out``, `claim_folder` changes a name that is
        taken.
    findings : list of Finding
        From before and during the training, unless ``run.diagnostics`` is off; also in ``findings.json``.
    diagnosis : Diagnosis or None
        The callback that looked for them.
    """

    def __init__(
        self, config: Config, own_process: bool = False, mapped: bool = False, overwrite: bool = False
    ) -> None:
        super().__init__(config, mapped)
        self.own_process = own_process
        self.overwrite = overwrite
        self.stopping = False
        self.findings: list[Finding] = []
        self._told: list[Finding] = []
        self.diagnosis: Diagnosis | None = None
        out = config.run.out
        self.folder = Path("runs") / timed_name(self.dataset.name) if out is None else Path(out)
        self._claimed = out is not None
        self._checkpoint: Checkpoint | None = None

    @classmethod
    def resumed(
        cls, folder: Path, overrides: Iterable[str] = (), options: Mapping[str, tuple[str, Any]] | None = None
    ) -> Run:
        """Return the run that left this folder, ready to resume; without a checkpoint it starts again.

        Parameters
        ----------
        folder : Path
            The run folder, or its name without the time.
        overrides, options
            As for `Config.with_overrides`; only epochs, device, checkpoints and data placement may change.

        Raises
        ------
        FileError, ModelFileError
            If the folder holds no run, or none of its checkpoints is whole.
        ConfigError
            If another setting changes, or the run is finished and its checkpoints are gone.
        """
        folder = find_run(folder)
        config = resumed_config(folder, overrides, options)
        own = config.run.changed(out=str(folder))
        checkpoint = newest_checkpoint(folder / CHECKPOINTS)
        if checkpoint is None and (folder / MODEL_FILE).is_file():
            raise ConfigError(
                f"{folder} is finished and its checkpoints are gone: no epochs can be added.\n"
                "Train again with more `training.epochs`; run.keep_checkpoints = true keeps the checkpoints"
            )
        # Mapped rows are scaled in float32 as a batch is filled, others beforehand: a resume does the same.
        mapped = checkpoint is not None and checkpoint.settings.get("block_rows") is not None
        run = cls(replace(config, run=own), mapped=mapped)
        run._checkpoint = checkpoint
        if checkpoint is None:
            logger.info(f"{folder} has no checkpoint yet: the training starts from the beginning")
        return run

    def claim_folder(self) -> None:
        """Make the run's folder, under a name that no other run has, unless it was made already."""
        if not self._claimed:
            self.folder = claim_folder(self.folder)
            self._claimed = True

    @property
    def hint(self) -> str:
        """One line of advice on the finished training, or nothing."""
        updates = int(self.trainer.history["step"][-1]) if len(self.trainer.history) else 0
        if 0 < updates < _FEW_UPDATES and not self.past_its_best:
            return f"only {updates} updates were made; more epochs or a smaller batch may do better"
        return ""

    @property
    def past_its_best(self) -> bool:
        """Whether the best epoch, which the weights are from, came before the last."""
        state = self.trainer.state
        return state.restored and state.best_epoch != len(self.trainer.history)

    @property
    def interrupted(self) -> bool:
        """Whether the training was stopped before its end, for example by a signal."""
        state = self.trainer.state
        return self.stopping and state.epoch < self.config.training.epochs and not state.stopped_early

    @property
    def untold(self) -> list[Finding]:
        """The findings that `train` did not log before the first step."""
        return [finding for finding in self.findings if finding not in self._told]

    def resolved(self) -> Config:
        """Return the config with all defaults filled in that depend on the data."""
        return resolved(self.config, self.trainer, self.model, self.data.holds_out, self.folder)

    def stop(self) -> None:
        """End the run early and save its model: after the current steps, or before the first."""
        self.stopping = True
        self.trainer.stop()

    def train(self, callbacks: Iterable[Callback] = (), trackers: Sequence[Tracker] = ()) -> Outcome:
        """Train, write the run folder, and measure the model.

        Parameters
        ----------
        callbacks : iterable of Callback
            Called during the training.
        trackers : sequence of Tracker
            Called during the training too, given the model file at the end, and closed: as failed if the
            training failed or was interrupted.

        Returns
        -------
        Outcome
            Measured on the test set if there is one, else on the validation or the training rows.

        Raises
        ------
        DivergenceError
            If the loss is no longer finite; the best weights so far are saved first.
        NnkitError
            If the data or a setting are wrong.
        """
        with ExitStack() as stack:
            for tracker in trackers:
                stack.enter_context(tracker.kept_open())
            outcome = self._train([*callbacks, *trackers])
            if not self.interrupted:
                for tracker in trackers:
                    tracker.add_model(outcome.model_path, outcome.metrics)
        return outcome

    def _train(self, callbacks: Sequence[Callback]) -> Outcome:
        rows = self.encoded()
        self.data.check_test(self.model.preprocessor, self.model.target)
        self.diagnosis = self._begun_diagnosis(rows) if self.config.run.diagnostics else None
        if self._checkpoint is not None:
            numerics = self._checkpoint.numerics
        else:
            numerics = fastest_numerics(self) if self.own_process else {}
        with self._own_folder(), self.trainer.backend.matching_numerics(numerics):
            if self._checkpoint is None:
                clear_folder(self.folder, self.overwrite)
            self._fit_and_keep(rows, callbacks)
            if self.interrupted:
                self._save("interrupted")
                return Outcome({}, "training", 0, self._model_path)
            outcome = self._finish(rows)
            if not self.config.run.keep_checkpoints:
                shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
            return outcome

    def _begun_diagnosis(self, rows: EncodedRows) -> Diagnosis:
        """Check data and settings, log the serious findings, and return the callback for the rest."""
        self.findings = self.check(rows)
        self._told = [finding for finding in self.findings if finding.severity == "serious"]
        for finding in self._told:
            logger.warning(str(finding))
        return Diagnosis(rows.features, rows.targets)

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Lock the run's folder; remove a new one if the training could not begin."""
        self.claim_folder()
        try:
            with locked(self.folder):
                yield
        except BaseException:
            if self.config.run.out is None:
                with suppress(OSError):
                    self.folder.rmdir()  # fails if anything has been written
            raise

    def _fit_and_keep(self, rows: EncodedRows, callbacks: Sequence[Callback]) -> None:
        """Train; keep the findings whatever happens, and the model of a training that diverged."""
        errors = FirstError()
        with errors.kept("the training"):
            self._fit(rows, callbacks)
        if isinstance(errors.error, DivergenceError):
            if self.diagnosis is not None:
                with errors.kept("the diagnosis"):
                    self.diagnosis.diverged(errors.error, self.trainer.optimizer.learning_rate)
            with errors.kept("saving the model"):
                self._save("diverged")
        if self.diagnosis is not None:
            with errors.kept("keeping the findings"):
                self.findings = [*self.findings, *self.diagnosis.findings]
                looks = [look.to_json() for look in self.diagnosis.figures]
                write_findings(self.folder / FINDINGS_FILE, self.findings, looks)
        errors.raise_first()

    def _fit(self, rows: EncodedRows, callbacks: Sequence[Callback]) -> None:
        """Train from the first step, or from the checkpoint."""
        run = self.config.run
        record = RunRecord(self.folder, self.resolved())
        watching = [] if self.diagnosis is None else [self.diagnosis]
        given: dict[str, Any] = {
            "callbacks": [record, _EarlierStop(self), *watching, *callbacks],
            "progress": False,
            "checkpoints": Checkpoints(self.folder / CHECKPOINTS, run.checkpoint_every, run.checkpoint_keep),
        }
        if self._checkpoint is not None:
            given |= self.fit_options(rows)
            self.trainer.resume(self._checkpoint, rows.features, rows.targets, **given)
        else:
            self.fit(rows, **given)

    def _finish(self, rows: EncodedRows) -> Outcome:
        """Measure the model and save it."""
        outcome = self._measured(rows)
        self._save("stopped early" if self.trainer.state.stopped_early else "finished", outcome)
        return outcome

    def _measured(self, rows: EncodedRows) -> Outcome:
        """Measure the model on the rows of `RunData.measured_rows`; the held-out rows are encoded already."""
        model, test, train, held_targets = (
            self.model,
            self.dataset.test,
            self.dataset.train,
            rows.held_targets,
        )
        held = None if rows.validation is None else model.network.outputs(rows.validation[0])
        if test is not None:
            kind, target, weights, outputs = "test", test.target, test.weight, model.outputs(test.features)
        elif held is not None:
            kind, target, weights, outputs = "validation", held_targets, rows.held_weights, held
        else:
            kind, target, weights = "training", train.target, train.weight
            outputs = model.outputs(train.features)
        assert target is not None
        metrics = model.measure(outputs, target, sample_weight=weights)
        threshold: dict[str, float] = {}
        if model.task == "binary" and held is not None and held_targets is not None:
            threshold = model.measured_threshold(held, held_targets, rows.held_weights)
        undefined = model.undefined_metrics(metrics, target, weights)
        return Outcome(metrics, kind, len(target), self._model_path, undefined, threshold)

    @property
    def _model_path(self) -> Path:
        return self.folder / MODEL_FILE

    def _save(self, ended: str, outcome: Outcome | None = None) -> None:
        """Save the model; its details tell how the training ended, and what was measured."""
        shape = self.dataset.image_shape
        self.model.details = {
            "data": self.dataset.name,
            "image_shape": None if shape is None else list(shape),
            "trained_rows": self.training_rows,
            "ended": ended,
            **({} if self.config.model.pretrained is None else {"pretrained": self.config.model.pretrained}),
            **self.trainer.details,
            "metrics": {} if outcome is None else {outcome.rows: _finite(outcome.metrics)},
            "best_threshold": {} if outcome is None else _finite(outcome.best_threshold),
        }
        self.model.save(self._model_path)


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}


def fastest_numerics(plan: TrainingPlan) -> dict[str, str]:
    """Return the fastest number of BLAS threads for the network, for `Backend.matching_numerics`.

    Empty on a GPU, and where a step runs in shards with one thread each.
    """
    trainer = plan.trainer
    if not trainer.backend.shares_host_memory:
        return {}
    from nnkit.backends.tuning import fastest_threads

    batch_size, network = plan.config.training.batch_size, plan.model.network
    embedded = sum(layer.width for layer in network.embeddings)
    inputs = plan.model.preprocessor.width + embedded
    hidden = plan.config.model.hidden
    if plan.config.model.pretrained is not None:
        hidden = [layer.units for layer in all_layers(network.layers) if hasattr(layer, "units")][:-1]
    widths = [inputs, *hidden, network.output_width]
    work = 6.0 * batch_size * sum(fan_in * units for fan_in, units in pairwise(widths))
    if trainer.backend.shards(batch_size, work) > 1:
        return {}
    try:
        memory = cache_folder() / "blas-threads.json"
    except FileError:
        memory = None
    count = fastest_threads(widths, batch_size, trainer.dtype, memory)
    return {} if count is None else {"BLAS threads": str(count)}


class _EarlierStop(Callback):
    """Repeats a stop from before the training began, which `Trainer.fit` does not remember."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        if self._run.stopping:
            trainer.stop()
