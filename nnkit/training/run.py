"""A training as a config describes it: data, preprocessing, network, trainer, and the folder it leaves."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.cache import cache_folder
from nnkit.config import Config, load_config, toml_value
from nnkit.core.layers import Embedding
from nnkit.core.network import Network
from nnkit.data.preprocessing import Preprocessor
from nnkit.errors import ConfigError, DivergenceError, FileError, FirstError
from nnkit.files import holder_of, in_use, locked
from nnkit.model import Model
from nnkit.run_folder import MODEL_FILE, RUN_FILE, claim_folder, find_run, timed_name
from nnkit.training.callbacks import Callback
from nnkit.training.checkpoint import Checkpoint, Checkpoints, newest_checkpoint
from nnkit.training.diagnosis import Diagnosis
from nnkit.training.diagnostics import Finding, check_settings, write_findings
from nnkit.training.diagnostics_data import check_data
from nnkit.training.embeddings import plan_embeddings, text_options, with_text_defaults
from nnkit.training.from_config import layers_of, loss_of, resolved, trainer_of
from nnkit.training.rate_test import RateCurve, find_rate
from nnkit.training.run_data import EncodedRows, MeasuredRows, RunData
from nnkit.training.run_record import RunRecord
from nnkit.training.trackers import Tracker

__all__ = ["MeasuredRows", "Outcome", "Run", "check_free", "resumed_config"]

logger = logging.getLogger("nnkit")

_CHECKPOINTS = "checkpoints"
# What else a run leaves in its folder.
_WRITTEN = (RUN_FILE, "metrics.jsonl", "findings.json", MODEL_FILE, "report.html")
# What a resumed training may be told otherwise.
_CHANGEABLE = (
    *("training.epochs", "run.device", "run.data_placement", "run.diagnostics", "run.out"),
    *("run.checkpoint_every", "run.checkpoint_keep", "run.keep_checkpoints"),
)
# Adam moves a weight by about its rate an update: so few leave most weights near where they began.
_FEW_UPDATES = 200


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Parameters
    ----------
    metrics : dict of str to float
        All that apply to the task.
    rows : str
        Which rows they were measured on: ``test``, ``validation`` or ``training``.
    count : int
        How many those are.
    model_path : Path
        The model file.
    undefined : dict of str to str
        Why a metric is NaN, or 0 by convention, on these rows.
    """

    metrics: dict[str, float]
    rows: str
    count: int
    model_path: Path
    undefined: dict[str, str] = field(default_factory=dict)


class Run:
    """A prepared training: everything is read and checked, nothing is written yet.

    Parameters
    ----------
    config : Config
        What to do. Its data may be a built-in's name; none means ``digits``.
    own_process : bool
        Whether the number of BLAS threads is the run's to set.
    mapped : bool
        Whether a file of numbers stays mapped.
    overwrite : bool
        Whether `train` may put an end to the run that is in the folder.

    Attributes
    ----------
    data : RunData
        What it is trained and measured on; `dataset` is all of it as read.
    trainer : Trainer
        Trains the network.
    model : Model
        Trained in place.
    folder : Path
        The run folder that `train` will write; where ``run.out`` is not set, the name changes if it is taken
        when `claim_folder` makes it.
    findings : list of Finding
        What `train` saw before the first step and on the way, unless ``run.diagnostics`` is off; kept in the
        folder's ``findings.json``.
    diagnosis : Diagnosis or None
        What watched the training, and how long that took.
    """

    def __init__(
        self, config: Config, own_process: bool = False, mapped: bool = False, overwrite: bool = False
    ) -> None:
        self.config = config
        self.own_process = own_process
        self.overwrite = overwrite
        self.stopping = False
        self.findings: list[Finding] = []
        self._told: list[Finding] = []
        self.diagnosis: Diagnosis | None = None
        self.data = RunData(config, mapped or config.run.data_placement == "mmap")
        self.dataset = self.data.dataset
        encoder = self.data.encoder
        loss = loss_of(config, encoder)
        if loss.link == "exp":
            # A rate is learnt in its own units: its logarithm is what is linear.
            encoder = replace(encoder, mean=np.zeros(encoder.outputs), scale=np.ones(encoder.outputs))
        preprocessor = Preprocessor.fit(
            self.dataset.train.features,
            rows=self.data.training,
            scaling=config.data.scaling,
            text=text_options(config, self.dataset),
            categories=config.data.categories,
        )
        notes = list(preprocessor.notes)
        if len(preprocessor.text_columns) == len(preprocessor.operations):
            self.config = with_text_defaults(config, notes)
        embeddings = plan_embeddings(self.config, preprocessor, notes)
        network = Network([*embeddings.layers, *layers_of(self.config, encoder.outputs)])
        self.trainer = trainer_of(self.config, network, loss, encoder)
        for note in notes:
            logger.info(note)
        preprocessor = replace(preprocessor, dtype=self.trainer.dtype.name)
        self.model = Model(network, preprocessor, encoder, loss)
        self._vectors = embeddings.values
        self._threshold: dict[str, float] = {}
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
        """Return the run that left this folder, ready to go on; without a checkpoint it begins anew.

        Parameters
        ----------
        folder : Path
            The run folder, or its name without the time.
        overrides, options
            As `Config.with_overrides` takes them; only epochs, device, checkpoints and where the rows lie may
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
        own = config.run.model_copy(update={"out": str(folder)})
        checkpoint = newest_checkpoint(folder / _CHECKPOINTS)
        if checkpoint is None and (folder / MODEL_FILE).is_file():
            raise ConfigError(
                f"{folder} is finished and its checkpoints are gone: no epochs can be added.\n"
                "Train anew with more `training.epochs`; run.keep_checkpoints = true keeps the checkpoints"
            )
        # Rows of a file are scaled as a batch is filled, others beforehand: that stays, wherever they lie.
        mapped = checkpoint is not None and checkpoint.settings.get("block_rows") is not None
        run = cls(config.model_copy(update={"run": own}), mapped=mapped)
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
    def training_rows(self) -> int:
        """How many rows are trained on."""
        return len(self.dataset.train) if self.data.training is None else len(self.data.training)

    @property
    def held_out_rows(self) -> int:
        """How many rows of the source are held out for validation."""
        return 0 if self.data.validation is None else len(self.data.validation)

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

    def resolved(self) -> Config:
        """Return the config with what was left open filled in, as the run folder keeps it."""
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
            Called on the way.
        trackers : sequence of Tracker
            Called on the way too, given the model file at the end, and closed: as failed where the training
            failed or was interrupted.

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
        rows = self._encoded()
        self.data.check_test(self.model.preprocessor, self.model.target)
        self.diagnosis = None
        if self.config.run.diagnostics:
            self.findings = self._found(rows)
            self._told = [finding for finding in self.findings if finding.severity == "serious"]
            for finding in self._told:
                logger.warning(str(finding))
            self.diagnosis = Diagnosis(rows.features, rows.targets)
        watch = [] if self.diagnosis is None else [self.diagnosis]
        decode = self._units() if self.model.task == "regression" else None
        watching = [RunRecord(self), *watch, *callbacks]
        held = rows.validation if rows.validation is None else (*rows.validation, rows.held_weights)
        given = {
            "validation": held,
            "sample_weight": rows.weights,
            "callbacks": watching,
            "decode": decode,
            "progress": False,
        }
        numerics = self._blas_threads() if self._checkpoint is None else self._checkpoint.numerics
        with self._own_folder(), self.trainer.backend.computing_like(numerics):
            if self._checkpoint is None:
                self._clear_folder()
            self._fit_and_keep(rows, given, watch)
            if self.interrupted:
                return Outcome({}, "training", 0, self._save("interrupted"))
            outcome = self._finish(rows)
            if not self.config.run.keep_checkpoints:
                shutil.rmtree(self.folder / _CHECKPOINTS, ignore_errors=True)
            return outcome

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Hold the run's folder; one that was made for a training that could not begin is taken away."""
        self.claim_folder()
        try:
            with locked(self.folder):
                yield
        except BaseException:
            if self.config.run.out is None:
                with suppress(OSError):
                    self.folder.rmdir()  # fails where anything has been written
            raise

    def _encoded(self) -> EncodedRows:
        return self.data.encoded(self.model.preprocessor, self.model.target, self.trainer.dtype)

    def check(self) -> list[Finding]:
        """Return what is wrong with data and settings, as far as it shows before training."""
        return self._found(self._encoded())

    def tune_rate(self, lowest: float, highest: float, steps: int) -> RateCurve:
        """Find a learning rate for this training; see `nnkit.training.rate_test.find_rate`."""
        rows, size = self._encoded(), self.config.training.batch_size
        self._begin_from_vectors()
        return find_rate(
            self.trainer,
            rows.features,
            rows.targets,
            batch_size=size,
            lowest=lowest,
            highest=highest,
            steps=steps,
            sample_weight=rows.weights,
        )

    @property
    def untold(self) -> list[Finding]:
        """The findings that `train` has not said before the first step."""
        return [finding for finding in self.findings if finding not in self._told]

    def _found(self, rows: EncodedRows) -> list[Finding]:
        config, encoder = self.config, self.model.target
        weighed = config.training.class_weight is not None or encoder.task not in ("binary", "multiclass")
        labels = None if weighed or encoder.classes is None else encoder.classes.tolist()
        found = check_settings(self.model.network.layers, self.trainer.loss, rows.targets)
        return found + check_data(
            rows.features,
            rows.targets,
            rows.validation,
            self.model.preprocessor.column_names,
            config.data.scaling != "none",
            None if labels is None else [str(label) for label in labels],
            self.model.preprocessor.constant,
        )

    def _keep_findings(self, watch: list[Diagnosis]) -> None:
        """Write what was found before and while training into the run's folder."""
        for diagnosis in watch:
            self.findings = [*self.findings, *diagnosis.findings]
            figures = [look.to_json() for look in diagnosis.figures]
            write_findings(self.folder / "findings.json", self.findings, figures)

    def _blas_threads(self) -> dict[str, str]:
        """Return the number of BLAS threads that suits the network, where the process is ours to set it."""
        trainer = self.trainer
        if not self.own_process or trainer.backend.name != "cpu":
            return {}
        from nnkit.backends.tuning import fastest_threads

        batch_size = self.config.training.batch_size
        embedded = sum(layer.width for layer in self.model.network.layers if isinstance(layer, Embedding))
        inputs = self.model.preprocessor.width + embedded
        widths = [inputs, *self.config.model.hidden, self.model.network.output_width]
        work = 6.0 * batch_size * sum(fan_in * units for fan_in, units in pairwise(widths))
        if trainer.backend.shards(batch_size, work) > 1:
            return {}  # its products have one thread each, and the shards all there are
        try:
            memory = cache_folder() / "blas-threads.json"
        except FileError:
            memory = None
        count = fastest_threads(widths, batch_size, trainer.dtype, memory)
        return {} if count is None else {"BLAS threads": str(count)}

    def _fit_and_keep(self, rows: EncodedRows, given: dict[str, Any], watch: list[Diagnosis]) -> None:
        """Train, and keep what was found whatever happens, and the model of a training that diverged."""
        errors = FirstError()
        with errors.kept("the training"):
            self._fit(rows, given)
        if isinstance(errors.error, DivergenceError):
            for diagnosis in watch:
                with errors.kept("the diagnosis"):
                    diagnosis.diverged(errors.error, self.trainer.optimizer.learning_rate)
            with errors.kept("saving the model"):
                self._save("diverged")
        with errors.kept("keeping the findings"):
            self._keep_findings(watch)
        errors.raise_first()

    def _fit(self, rows: EncodedRows, given: dict[str, Any]) -> None:
        """Train from the first step, or from the checkpoint."""
        training, run = self.config.training, self.config.run
        folder = self.folder / _CHECKPOINTS
        given = {**given, "checkpoints": Checkpoints(folder, run.checkpoint_every, run.checkpoint_keep)}
        given["epochs"] = training.epochs
        if self._checkpoint is not None:
            self.trainer.resume(self._checkpoint, rows.features, rows.targets, **given)
            return
        self._begin_from_vectors()
        self.trainer.fit(rows.features, rows.targets, batch_size=training.batch_size, **given)

    def _clear_folder(self) -> None:
        """Remove what a run before this one left in the folder, where that is allowed."""
        check_free(self.folder, self.overwrite)
        # The checkpoints first: a folder that cannot be removed leaves the rest of the run as it was.
        for name in (_CHECKPOINTS, *_WRITTEN):
            path = self.folder / name
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            except OSError as error:
                raise FileError(
                    f"{error.filename or path}: cannot be removed: {error.strerror or error}"
                ) from error

    def _begin_from_vectors(self) -> None:
        """Draw the parameters, as the trainer would, and put the word vectors over them, where there are."""
        if not self._vectors:
            return
        network, trainer = self.model.network, self.trainer
        network.initialize(self.model.preprocessor.width, trainer.seed, trainer.dtype, trainer.backend)
        for name, found in self._vectors.items():
            table = network.parameters()[name]
            table[found.places] = found.vectors
            network.set_parameters({name: table})

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped the training before its end, as a signal does."""
        state = self.trainer.state
        return self.stopping and state.epoch < self.config.training.epochs and not state.stopped_early

    def _units(self) -> Callable[[NDArray], NDArray]:
        mean, scale = self.model.target.mean, self.model.target.scale
        assert mean is not None
        assert scale is not None
        return lambda values: values.astype(np.float64) * scale + mean

    def measured_rows(self) -> MeasuredRows:
        """Return the test rows where there are any, else those held out, else those trained on."""
        return self.data.measured_rows()

    def _finish(self, rows: EncodedRows) -> Outcome:
        """Measure the model on the rows that `measured_rows` returns; those held out are encoded already."""
        model, test, train = self.model, self.dataset.test, self.dataset.train
        held_targets = rows.held_targets
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
        if model.task == "binary" and held is not None and held_targets is not None:
            self._threshold = model.measured_threshold(held, held_targets, rows.held_weights)
        ended = "stopped early" if self.trainer.state.stopped_early else "finished"
        path = self._save(ended, {kind: metrics})
        return Outcome(metrics, kind, len(target), path, model.undefined_metrics(metrics, target))

    def _save(self, ended: str, metrics: Mapping[str, dict[str, float]] | None = None) -> Path:
        measured = {**(metrics or {}), "best_threshold": self._threshold}
        finite = {rows: {k: v for k, v in m.items() if np.isfinite(v)} for rows, m in measured.items()}
        threshold = finite.pop("best_threshold")
        self.model.details = {
            "data": self.dataset.name,
            "image_shape": None if self.dataset.image_shape is None else list(self.dataset.image_shape),
            "trained_rows": self.training_rows,
            "ended": ended,
            **self.trainer.details,
            "metrics": finite,
            "best_threshold": threshold,
        }
        path = self.folder / MODEL_FILE
        self.model.save(path)
        return path


def check_free(folder: Path, overwrite: bool = False) -> None:
    """Raise unless a new training may write to a folder.

    Parameters
    ----------
    folder : Path
        The run folder.
    overwrite : bool
        Whether it may put an end to a run that is there.

    Raises
    ------
    FileError
        If a training is under way there, or a file is in the place of the folder or of one above it.
    ConfigError
        If a run is there that is finished, or that can be resumed, unless `overwrite`.
    """
    for path in (folder, *folder.parents):
        if os.path.exists(path) and not path.is_dir():
            raise FileError(f"{path}: this is a file, and the run needs a folder: give another `run.out`")
    holder = holder_of(folder)
    if holder not in (None, str(os.getpid())):
        raise in_use(folder, holder or "")
    if overwrite:
        return
    try:
        left = newest_checkpoint(folder / _CHECKPOINTS)
    except FileError:
        left = None  # a folder that cannot be listed cannot be removed either, which `Run.train` reports
    if left is not None and not left.finished:
        raise ConfigError(
            f"{folder} holds a training that is not finished ({left.step:,} steps are done): go on with "
            f"`resume` {folder}, give another `run.out`, or give `overwrite`"
        )
    if left is not None or (folder / MODEL_FILE).exists():
        raise ConfigError(
            f"{folder} holds a finished run: give another `run.out`, or give `overwrite` to replace it"
        )


def resumed_config(
    folder: Path, overrides: Iterable[str] = (), options: Mapping[str, tuple[str, Any]] | None = None
) -> Config:
    """Return the config that a run is resumed with; arguments as for `Run.resumed`.

    Raises
    ------
    FileError
        If the folder holds no run.
    ConfigError
        If a setting is to change that cannot.
    """
    if not (folder / RUN_FILE).is_file():
        raise FileError(f"{folder}: no {RUN_FILE} is there; to resume, give the folder of a run")
    before = load_config(folder / RUN_FILE)
    config = before.with_overrides(overrides, options)
    then, given = before.model_dump(), config.model_dump()
    for section, settings in given.items():
        for key, value in settings.items():
            # Data that have been moved are known by their content.
            changeable = section == "data" or f"{section}.{key}" in _CHANGEABLE
            if value != then[section][key] and not changeable:
                pair = (value, then[section][key])
                said, was = ("not set" if item is None else toml_value(item, strict=False) for item in pair)
                raise ConfigError(
                    f"`{section}.{key}` cannot change when a training is resumed: it is {said} here "
                    f"and {was} in the run"
                )
    epochs, begun_for = config.training.epochs, before.training.epochs
    if epochs < begun_for:
        raise ConfigError(
            f"`training.epochs` can be raised when a training is resumed, not lowered: it is {epochs} here "
            f"and {begun_for} in the run"
        )
    return config
