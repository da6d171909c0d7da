"""A run: a training as a config describes it, and the folder that it leaves."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.diagnostics.diagnosis import Diagnosis
from nnkit.diagnostics.findings import Finding, write_findings
from nnkit.errors import ConfigError, DivergenceError, FirstError
from nnkit.files import locked
from nnkit.run_folder import CHECKPOINTS, FINDINGS_FILE, MODEL_FILE, claim_folder, find_run, timed_name
from nnkit.runs.config import Config
from nnkit.runs.data import EncodedRows
from nnkit.runs.folder import clear_folder, resumed_config
from nnkit.runs.from_config import resolved
from nnkit.runs.numerics import fastest_numerics
from nnkit.runs.outcome import Outcome, measured, model_details
from nnkit.runs.plan import TrainingPlan
from nnkit.runs.record import RunRecord
from nnkit.training.callbacks import Callback, Figures
from nnkit.training.checkpoint import Checkpoint, Checkpoints, newest_checkpoint
from nnkit.training.trackers import Tracker

__all__ = ["Run"]

logger = logging.getLogger("nnkit")

# Adam moves a weight by about its rate an update: so few leave most weights near where they began.
_FEW_UPDATES = 200


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
        The run folder that `train` will write; where ``run.out`` is not set, the name changes if it is taken
        when `claim_folder` makes it.
    findings : list of Finding
        What `train` found before and during the training, unless ``run.diagnostics`` is off; kept in the
        folder's ``findings.json``.
    diagnosis : Diagnosis or None
        What watched the training, and how long that took.
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
        cls,
        folder: Path,
        overrides: Iterable[str] = (),
        options: Mapping[str, tuple[str, Any]] | None = None,
    ) -> Run:
        """Return the run that left this folder, ready to resume; without a checkpoint it begins anew.

        Parameters
        ----------
        folder : Path
            The run folder, or its name without the time.
        overrides, options
            As `Config.with_overrides` takes them; only epochs, device, checkpoints and data placement may
            change.

        Raises
        ------
        FileError, ModelFileError
            If the folder holds no run, or none of its checkpoints is whole.
        ConfigError
            If another setting is to change, or the run is finished and its checkpoints are gone.
        """
        folder = find_run(folder)
        config = resumed_config(folder, overrides, options)
        own = config.run.changed(out=str(folder))
        checkpoint = newest_checkpoint(folder / CHECKPOINTS)
        if checkpoint is None and (folder / MODEL_FILE).is_file():
            raise ConfigError(
                f"{folder} is finished and its checkpoints are gone: no epochs can be added.\n"
                "Train anew with more `training.epochs`; run.keep_checkpoints = true keeps the checkpoints"
            )
        # Rows of a file are scaled as a batch is filled, others beforehand: that stays, wherever they lie.
        mapped = checkpoint is not None and checkpoint.settings.get("block_rows") is not None
        run = cls(replace(config, run=own), mapped=mapped)
        run._checkpoint = checkpoint
        if checkpoint is None:
            logger.info(f"{folder} has no checkpoint yet: the training begins anew")
        return run

    def claim_folder(self) -> None:
        """Make the run's folder, under a name that no other run has; `train` does it where nobody did."""
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
        """Whether the weights are those of an epoch before the last: more epochs would not have helped."""
        state = self.trainer.state
        return state.restored and state.best_epoch != len(self.trainer.history)

    @property
    def interrupted(self) -> bool:
        """Whether the training was stopped before its end, as by a signal."""
        state = self.trainer.state
        return self.stopping and state.epoch < self.config.training.epochs and not state.stopped_early

    @property
    def untold(self) -> list[Finding]:
        """The findings that `train` has not logged before the first step."""
        return [finding for finding in self.findings if finding not in self._told]

    def resolved(self) -> Config:
        """Return the config with everything it left open filled in, as the run folder keeps it."""
        held_out = self.data.validation is not None or isinstance(self.config.data.validation, str)
        return resolved(self.config, self.trainer, self.model, held_out, self.folder)

    def stop(self) -> None:
        """End the run early, its model saved: after the steps under way, or before the first."""
        self.stopping = True
        self.trainer.stop()

    def train(self, callbacks: Iterable[Callback] = (), trackers: Sequence[Tracker] = ()) -> Outcome:
        """Train, write the run folder, and measure the model.

        Parameters
        ----------
        callbacks : iterable of Callback
            Called during the training.
        trackers : sequence of Tracker
            Called during the training too, given the model file at the end, and closed: as failed where the
            training failed or was interrupted.

        Returns
        -------
        Outcome
            Measured on the test set where there is one, else on the validation or the training rows.

        Raises
        ------
        DivergenceError
            If the loss is no longer finite; the best weights so far are saved first.
        NnkitError
            If the data or a setting do not fit.
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
        """Check data and settings, log the serious findings, and return what watches the training."""
        self.findings = self.check(rows)
        self._told = [finding for finding in self.findings if finding.severity == "serious"]
        for finding in self._told:
            logger.warning(str(finding))
        return Diagnosis(rows.features, rows.targets)

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Hold the run's folder; one made for a training that could not begin is removed."""
        self.claim_folder()
        try:
            with locked(self.folder):
                yield
        except BaseException:
            if self.config.run.out is None:
                with suppress(OSError):
                    self.folder.rmdir()  # fails where anything has been written
            raise

    def _fit_and_keep(self, rows: EncodedRows, callbacks: Sequence[Callback]) -> None:
        """Train, and keep what was found whatever happens, and the model of a training that diverged."""
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
        training, run = self.config.training, self.config.run
        record = RunRecord(self.folder, self.resolved())
        watching = [] if self.diagnosis is None else [self.diagnosis]
        given: dict[str, Any] = {
            "validation": None if rows.validation is None else (*rows.validation, rows.held_weights),
            "sample_weight": rows.weights,
            "callbacks": [record, _EarlierStop(self), *watching, *callbacks],
            "decode": self._units() if self.model.task == "regression" else None,
            "progress": False,
            "checkpoints": Checkpoints(self.folder / CHECKPOINTS, run.checkpoint_every, run.checkpoint_keep),
            "epochs": training.epochs,
        }
        if self._checkpoint is not None:
            self.trainer.resume(self._checkpoint, rows.features, rows.targets, **given)
            return
        self.begin_from_vectors()
        self.trainer.fit(rows.features, rows.targets, batch_size=training.batch_size, **given)

    def _units(self) -> Callable[[NDArray], NDArray]:
        """Return the function from a regression's outputs to values in the target's units."""
        mean, scale = self.model.target.mean, self.model.target.scale
        assert mean is not None
        assert scale is not None
        return lambda values: values.astype(np.float64) * scale + mean

    def _finish(self, rows: EncodedRows) -> Outcome:
        """Measure the model and save it."""
        outcome = measured(self, rows, self._model_path)
        self._save("stopped early" if self.trainer.state.stopped_early else "finished", outcome)
        return outcome

    @property
    def _model_path(self) -> Path:
        return self.folder / MODEL_FILE

    def _save(self, ended: str, outcome: Outcome | None = None) -> None:
        self.model.details = model_details(self, ended, outcome)
        self.model.save(self._model_path)


class _EarlierStop(Callback):
    """Repeats a stop that was asked for before the training began, which `Trainer.fit` forgets."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        if self._run.stopping:
            trainer.stop()
