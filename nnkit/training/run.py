"""A training as a config describes it: data, preprocessing, network, trainer, and the folder it leaves."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.config import Config, load_config
from nnkit.core.features import Features, is_mapped
from nnkit.core.layers import Dense, Dropout, Embedding, Layer
from nnkit.core.losses import Loss, loss_for_task, loss_from
from nnkit.core.network import Network
from nnkit.core.optimizers import optimizer_from
from nnkit.data.builtin import BUILT_INS
from nnkit.data.idx import image_pairs
from nnkit.data.limits import memory_limit
from nnkit.data.pictures import Pictures
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources import Dataset, Examples, load_dataset
from nnkit.data.splitting import split_rows
from nnkit.data.targets import TargetEncoder
from nnkit.errors import ConfigError, DataError, DivergenceError, FileError, unknown_name
from nnkit.files import locked, remove_unfinished, write_whole
from nnkit.model import Model
from nnkit.training.callbacks import Callback, Figures
from nnkit.training.checkpoint import Checkpoint, Checkpoints, newest_checkpoint
from nnkit.training.diagnosis import Diagnosis
from nnkit.training.diagnostics import Finding, check_settings, write_findings
from nnkit.training.diagnostics_data import check_data
from nnkit.training.embeddings import plan_embeddings, text_options, with_text_defaults
from nnkit.training.rate_test import RateCurve, find_rate
from nnkit.training.trackers import Tracker, tracking
from nnkit.training.trainer import Trainer

__all__ = ["MeasuredRows", "Outcome", "Run"]

logger = logging.getLogger("nnkit")

# Below this many rows a tenth held out says nothing, and the training would miss it.
_FEWEST_ROWS_TO_SPLIT = 50
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
    """

    metrics: dict[str, float]
    rows: str
    count: int
    model_path: Path


@dataclass(frozen=True, eq=False)
class MeasuredRows:
    """The rows that a run's model is measured on.

    Parameters
    ----------
    kind : str
        ``test``, ``validation`` or ``training``.
    examples : Examples
        They themselves.
    numbers : ndarray of shape (samples,), int64
        Their places in the source they come from, counted from 0.
    """

    kind: str
    examples: Examples
    numbers: NDArray[np.int64]


class Run:
    """A prepared training: everything is read and checked, nothing is written yet.

    Parameters
    ----------
    config : Config
        What to do. Its data may be a built-in's name; none means ``digits``.

    Attributes
    ----------
    trainer : Trainer
        Trains the network.
    model : Model
        Trained in place.
    folder : Path
        The run folder that `train` will write.
    findings : list of Finding
        What `train` saw before the first step and on the way, unless ``run.diagnostics`` is off; kept in the
        folder's ``findings.json``.
    diagnosis : Diagnosis or None
        What watched the training, and how long that took.
    """

    def __init__(self, config: Config, own_process: bool = False, mapped: bool = False) -> None:
        self.config = config
        self._mapped = mapped or config.run.data_placement == "mmap"
        self.own_process = own_process
        self.stopping = False
        self.findings: list[Finding] = []
        self._told: list[Finding] = []
        self.diagnosis: Diagnosis | None = None
        self._training: NDArray[np.int64] | None = None
        data = config.data
        self.dataset = self._load(data.train or "digits", None)
        for note in self.dataset.notes:
            logger.info(note)
        self._check_picture_settings()
        encoder = self._encoder(self._target())
        self._training, self._validation = self._split(encoder)
        for note in encoder.notes:
            logger.info(note)
        if self._training is not None:
            # The task is that of all rows; classes and units are read off the training rows alone.
            encoder = TargetEncoder.fit(self._target(), encoder.task, self.dataset.target_names)
        loss = self._loss(encoder)
        if loss.link == "exp":
            # A rate is learnt in its own units: its logarithm is what is linear.
            encoder = replace(encoder, mean=np.zeros(encoder.outputs), scale=np.ones(encoder.outputs))
        preprocessor = Preprocessor.fit(
            self.dataset.train.features,
            rows=self._training,
            scaling=data.scaling,
            text=text_options(config, self.dataset),
            categories=data.categories,
        )
        notes = list(preprocessor.notes)
        if len(preprocessor.text_columns) == len(preprocessor.operations):
            self.config = with_text_defaults(config, notes)
        embeddings = plan_embeddings(self.config, preprocessor, notes)
        network = Network([*embeddings.layers, *self._layers(encoder.outputs)])
        self.trainer = self._trainer(network, loss, encoder)
        for note in notes:
            logger.info(note)
        preprocessor = replace(preprocessor, dtype=self.trainer.dtype.name)
        self.model = Model(network, preprocessor, encoder, loss)
        self._vectors = embeddings.values
        self._threshold: dict[str, float] = {}
        self.folder = self._folder()
        self._checkpoint: Checkpoint | None = None

    @classmethod
    def resumed(cls, folder: Path, overrides: Iterable[str] = ()) -> Run:
        """Return the run that left this folder, to be gone on with; without a checkpoint it begins anew.

        Parameters
        ----------
        folder : Path
            The run folder.
        overrides : iterable of str
            As `Config.with_overrides` takes them; only epochs, device, checkpoints and where the rows lie may
            change.

        Raises
        ------
        FileError, ModelFileError
            If the folder holds no run, or none of its checkpoints is whole.
        """
        if not (folder / "config.toml").is_file():
            raise FileError(f"{folder}: no config.toml is there; --resume takes the folder of a run")
        config = load_config(folder / "config.toml").with_overrides(overrides)
        own = config.run.model_copy(update={"out": str(folder)})
        checkpoint = newest_checkpoint(folder / "checkpoints")
        # Rows of a file are scaled as a batch is filled, others beforehand: that stays, wherever they lie.
        mapped = checkpoint is not None and checkpoint.settings.get("block_rows") is not None
        run = cls(config.model_copy(update={"run": own}), mapped=mapped)
        run._checkpoint = checkpoint
        if checkpoint is None:
            logger.info(f"{folder} has no checkpoint yet: the training begins anew")
        return run

    def _load(self, source: str, test: str | None) -> Dataset:
        data = self.config.data
        return load_dataset(
            source,
            target=data.target,
            features=_listed(data.features),
            drop=_listed(data.drop),
            test=data.test if test is None else test,
            pictures=data.pictures(),
            mapped=self._mapped,
        )

    def _check_picture_settings(self) -> None:
        """Raise where what is for pictures was set and the data are none."""
        data, shape = self.config.data, self.dataset.image_shape
        pictures = isinstance(self.dataset.train.features, Pictures)
        for key in () if pictures else ("image_size", "image_column", "augment"):
            flat = key == "augment" and shape is not None and len(shape) == 2
            if getattr(data, key) is not None and not flat:
                raise ConfigError(
                    f"data.{key} is for pictures, and {self.dataset.name} has none; leave it out"
                )
        if pictures and data.image_size is None:
            logger.info("data.image_size is not set: pictures are made 64 × 64")

    def _encoded(self, features: Any, rows: NDArray[np.int64] | None) -> Features:
        """Return rows as the network takes them; of flattened images, with their shape."""
        encoded, shape = self.model.preprocessor.transform(features, rows), self.dataset.image_shape
        if encoded.picture is None and shape is not None and len(shape) == 2 and encoded.codes is None:
            return replace(encoded, picture=(1, *shape))
        return encoded

    def _split(self, encoder: TargetEncoder) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """Return the rows to train on and those held out; None and None where no share is."""
        validation, count = self.config.data.validation, len(self.dataset.train)
        if isinstance(validation, str) or validation == 0:
            return None, None
        if count < _FEWEST_ROWS_TO_SPLIT and "validation" not in self.config.data.model_fields_set:
            logger.info(
                f"{count} rows are too few to hold some out: the figures are those of the training rows"
            )
            return None, None
        classes = encoder.codes(self._target()) if encoder.task in ("binary", "multiclass") else None
        return split_rows(count, validation, self.config.run.seed, classes)

    def _target(self) -> NDArray:
        """Return the targets of the rows to train on; before the split, of all."""
        target = self.dataset.train.target
        assert target is not None
        return target if self._training is None else target[self._training]

    def _encoder(self, target: NDArray) -> TargetEncoder:
        task, names = self.config.data.task, self.dataset.target_names
        if task != "classification":
            return TargetEncoder.fit(target, task, names)
        encoder = TargetEncoder.fit(target, "auto", names)
        return TargetEncoder.fit(target, "multiclass", names) if encoder.task == "regression" else encoder

    def _loss(self, encoder: TargetEncoder) -> Loss:
        chosen = self.config.training.loss
        if chosen == "auto":
            return loss_for_task(encoder.task)
        loss = loss_from(chosen)
        if loss.task(encoder.outputs) != encoder.task:
            fitting = loss_for_task(encoder.task).name
            raise ConfigError(
                f"loss {loss.name!r} does not fit a {encoder.task} target; use {fitting!r}, or set data.task"
            )
        return loss

    def _layers(self, outputs: int) -> list[Layer]:
        model = self.config.model
        initializer = None if model.initializer == "auto" else model.initializer
        rates = model.dropout if isinstance(model.dropout, list) else [model.dropout] * len(model.hidden)
        layers: list[Layer] = []
        for units, rate in zip(model.hidden, rates, strict=True):
            layers.append(Dense(units, model.activation, initializer))
            if rate > 0:
                layers.append(Dropout(rate))
        output = "identity" if model.output == "auto" else model.output
        return [*layers, Dense(outputs, output)]

    def _trainer(self, network: Network, loss: Loss, encoder: TargetEncoder) -> Trainer:
        training, run = self.config.training, self.config.run
        explicit = training.model_fields_set
        optimizer = optimizer_from(
            training.optimizer,
            learning_rate=training.learning_rate if "learning_rate" in explicit else None,
            weight_decay=training.weight_decay if "weight_decay" in explicit else None,
        )
        return Trainer(
            network,
            loss,
            optimizer,
            run.device,
            run.precision,
            run.seed,
            schedule=training.schedule_with_warmup(),
            l1=training.l1,
            l2=training.l2,
            clip_norm=training.clip_norm,
            class_weight=_class_weight(training.class_weight, encoder),
            early_stopping=training.early_stopping or None,
            restore_best=training.restore_best,
            metrics=training.metrics or None,
            augment=self.config.data.augment,
            data_placement=run.data_placement,
        )

    def _folder(self) -> Path:
        if self.config.run.out is not None:
            return Path(self.config.run.out)
        stem = Path("runs") / f"{self.dataset.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        path, number = stem, 1
        while path.exists():
            number += 1
            path = stem.with_name(f"{stem.name}-{number}")
        return path

    @property
    def training_rows(self) -> int:
        """How many rows are trained on."""
        return len(self.dataset.train) if self._training is None else len(self._training)

    @property
    def held_out_rows(self) -> int:
        """How many rows of the source are held out for validation."""
        return 0 if self._validation is None else len(self._validation)

    @property
    def hint(self) -> str:
        """One line of advice on the finished training, or nothing."""
        updates = int(self.trainer.history["step"][-1]) if len(self.trainer.history) else 0
        if 0 < updates < _FEW_UPDATES:
            return f"only {updates} updates were made; more epochs or a smaller batch may do better"
        return ""

    def stop(self) -> None:
        """End the run early, its model saved: after the steps under way, or before the first."""
        self.stopping = True
        self.trainer.stop()

    def resolved(self) -> Config:
        """Return the config with what was left open filled in, as the run folder keeps it."""
        optimizer = self.trainer.optimizer
        training = self.config.training.model_copy(
            update={
                "learning_rate": optimizer.learning_rate,
                "weight_decay": optimizer.weight_decay,
                "loss": self.trainer.loss.to_json(),
            }
        )
        held_out = self._validation is not None or isinstance(self.config.data.validation, str)
        given = self.config.data
        sources = {"train": given.train or "digits", "validation": given.validation, "test": given.test}
        found = {key: _found_anywhere(value) for key, value in sources.items() if isinstance(value, str)}
        texts = [column.column for column in self.model.preprocessor.text_columns]
        lengths = {column.char_ngrams for column in self.model.preprocessor.text_columns}
        text = self.config.text
        if len(lengths) == 1:
            text = text.model_copy(update={"char_ngrams": list(lengths.pop() or ())})
        filled: dict[str, Any] = {**found, "task": self.model.task, "text": texts or given.text}
        pictures = self.model.preprocessor.pictures
        if pictures is not None:
            filled["image_size"] = [pictures.height, pictures.width]
        data = given.model_copy(update=filled if held_out else {**filled, "validation": 0.0})
        run = self.config.run.model_copy(update={"out": str(self.folder.absolute())})
        return self.config.model_copy(update={"training": training, "data": data, "text": text, "run": run})

    def train(self, callbacks: Iterable[Callback] = (), trackers: Sequence[Tracker] = ()) -> Outcome:
        """Train, write the run folder, and measure the model.

        Parameters
        ----------
        callbacks : iterable of Callback
            Called on the way.
        trackers : sequence of Tracker
            Called on the way too, given the model file at the end, and closed.

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
        with tracking(trackers):
            outcome = self._train([*callbacks, *trackers])
            for tracker in trackers:
                tracker.add_model(outcome.model_path, outcome.metrics)
        return outcome

    def _train(self, callbacks: Sequence[Callback]) -> Outcome:
        features, targets, held_targets, validation = self._prepared()
        if self.dataset.test is not None:
            self._check(self.dataset.test)
        self.diagnosis = None
        if self.config.run.diagnostics:
            self.findings = self._found(features, targets, validation)
            self._told = [finding for finding in self.findings if finding.severity == "serious"]
            for finding in self._told:
                logger.warning(str(finding))
            self.diagnosis = Diagnosis(features, targets)
        watch = [] if self.diagnosis is None else [self.diagnosis]
        decode = self._units() if self.model.task == "regression" else None
        given = {"validation": validation, "callbacks": [_Record(self), *watch, *callbacks], "decode": decode}
        numerics = self._blas_threads() if self._checkpoint is None else self._checkpoint.numerics
        with locked(self.folder), self.trainer.backend.computing_like(numerics):
            try:
                self._fit(features, targets, given)
            except DivergenceError as error:
                for diagnosis in watch:
                    diagnosis.diverged(error, self.trainer.optimizer.learning_rate)
                self._save({})
                raise
            finally:
                self._keep_findings(watch)
            if self.interrupted:
                return Outcome({}, "training", 0, self._save({}))
            return self._finish(held_targets, validation)

    def _prepared(self) -> tuple[Features, NDArray, NDArray | None, tuple[Features, NDArray] | None]:
        """Return the training rows, encoded; those held out, their targets as they are, and encoded."""
        encoder, dtype = self.model.target, self.trainer.dtype
        features = self._encoded(self.dataset.train.features, self._training)
        targets = encoder.transform(self._target(), dtype)
        source, rows = self.dataset.train, self._validation
        if rows is None:
            held_out = self._held_out()
            if held_out is None:
                return features, targets, None, None
            source = held_out
        if source.target is None:
            raise DataError("the validation rows have no target column")
        encoded = self._encoded(source.features, rows)
        size = encoded.row_bytes * len(encoded)
        if is_mapped(source.features) and encoded.mapped and size <= memory_limit() // 2:
            # All of them are read after each epoch, and lie all over the file.
            encoded = encoded.loaded()
        held_targets = source.target if rows is None else source.target[rows]
        return features, targets, held_targets, (encoded, encoder.transform(held_targets, dtype))

    def check(self) -> list[Finding]:
        """Return what is wrong with data and settings, as far as it shows before training."""
        features, targets, _, validation = self._prepared()
        return self._found(features, targets, validation)

    def tune_rate(self, lowest: float, highest: float, steps: int) -> RateCurve:
        """Find a learning rate for this training; see `nnkit.training.rate_test.find_rate`."""
        features, targets, _, _ = self._prepared()
        self._begin_from_vectors()
        size = self.config.training.batch_size
        return find_rate(
            self.trainer, features, targets, batch_size=size, lowest=lowest, highest=highest, steps=steps
        )

    @property
    def untold(self) -> list[Finding]:
        """The findings that `train` has not said before the first step."""
        return [finding for finding in self.findings if finding not in self._told]

    def _found(
        self, features: Features, targets: NDArray, validation: tuple[Features, NDArray] | None
    ) -> list[Finding]:
        config, encoder = self.config, self.model.target
        weighed = config.training.class_weight is not None or encoder.task not in ("binary", "multiclass")
        labels = None if weighed or encoder.classes is None else encoder.classes.tolist()
        found = check_settings(self.model.network.layers, self.trainer.loss, targets)
        return found + check_data(
            features,
            targets,
            validation,
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
        from nnkit.kernels.specialise import cache_folder

        batch_size = self.config.training.batch_size
        embedded = sum(layer.width for layer in self.model.network.layers if isinstance(layer, Embedding))
        inputs = self.model.preprocessor.width + embedded
        widths = [inputs, *self.config.model.hidden, self.model.network.outputs]
        work = 6.0 * batch_size * sum(fan_in * units for fan_in, units in pairwise(widths))
        if trainer.backend.shards(batch_size, work) > 1:
            return {}  # its products have one thread each, and the shards all there are
        memory = cache_folder() / "blas-threads.json"
        count = fastest_threads(widths, batch_size, trainer.dtype, memory)
        return {} if count is None else {"BLAS threads": str(count)}

    def _fit(self, features: Features, targets: NDArray, given: dict[str, Any]) -> None:
        """Train from the first step, or from the checkpoint."""
        training, run = self.config.training, self.config.run
        folder = self.folder / "checkpoints"
        given = {**given, "checkpoints": Checkpoints(folder, run.checkpoint_every, run.checkpoint_keep)}
        given["epochs"] = training.epochs
        if self._checkpoint is not None:
            self.trainer.resume(self._checkpoint, features, targets, **given)
            return
        self._clear(folder)
        self._begin_from_vectors()
        self.trainer.fit(features, targets, batch_size=training.batch_size, **given)

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

    def _clear(self, folder: Path) -> None:
        """Make way for a new training; an unfinished one is not thrown away."""
        left = newest_checkpoint(folder)
        if left is not None and not left.finished:
            raise ConfigError(
                f"{self.folder} holds a training that is not finished ({left.step:,} steps are done): "
                f"go on with --resume {self.folder}, or choose another --out"
            )
        if left is not None:
            shutil.rmtree(folder)

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped the training before its end, as a signal does."""
        state = self.trainer.state
        return self.stopping and state.epoch < self.config.training.epochs and not state.stopped_early

    def _check(self, test: Examples) -> None:
        """Raise now what measuring on the test rows would raise after the training."""
        if test.target is None:
            raise DataError("the test rows have no target column")
        self.model.preprocessor.transform(test.features)
        self.model.target.transform(test.target)

    def _units(self) -> Callable[[NDArray], NDArray]:
        mean, scale = self.model.target.mean, self.model.target.scale
        assert mean is not None
        assert scale is not None
        return lambda values: values.astype(np.float64) * scale + mean

    def _held_out(self) -> Examples | None:
        if self._validation is not None:
            return self.dataset.train.take(self._validation)
        validation = self.config.data.validation
        return self._load(validation, None).train if isinstance(validation, str) else None

    def measured_rows(self) -> MeasuredRows:
        """Return the test rows where there are any, else those held out, else those trained on."""
        kind, examples = "training", self.dataset.train
        if self.dataset.test is not None:
            kind, examples = "test", self.dataset.test
        else:
            held_out = self._held_out()
            if held_out is not None:
                kind, examples = "validation", held_out
        numbers = np.arange(len(examples))
        if kind == "validation" and self._validation is not None:
            numbers = self._validation
        return MeasuredRows(kind, examples, numbers)

    def _finish(self, held_targets: NDArray | None, validation: tuple[Features, NDArray] | None) -> Outcome:
        """Measure the model on the rows that `measured_rows` returns; those held out are encoded already."""
        model, test, train = self.model, self.dataset.test, self.dataset.train
        held = None if validation is None else model.network.predict(validation[0])
        if test is not None:
            kind, target, outputs = "test", test.target, model.outputs(test.features)
        elif held is not None:
            kind, target, outputs = "validation", held_targets, held
        else:
            kind, target, outputs = "training", train.target, model.outputs(train.features)
        assert target is not None
        metrics = model.measure(outputs, target)
        if model.task == "binary" and held is not None and held_targets is not None:
            self._threshold = model.measured_threshold(held, held_targets)
        return Outcome(metrics, kind, len(target), self._save({kind: metrics}))

    def _save(self, metrics: dict[str, dict[str, float]]) -> Path:
        measured = {**metrics, "best_threshold": self._threshold}
        finite = {rows: {k: v for k, v in m.items() if np.isfinite(v)} for rows, m in measured.items()}
        threshold = finite.pop("best_threshold")
        self.model.details = {
            "data": self.dataset.name,
            "image_shape": None if self.dataset.image_shape is None else list(self.dataset.image_shape),
            "trained_rows": self.training_rows,
            "epochs": len(self.trainer.history),
            "device": self.trainer.backend.name,
            "precision": self.trainer.precision,
            "seed": self.trainer.seed,
            "nnkit": version("nnkit"),
            "numpy": np.__version__,
            "metrics": finite,
            "best_threshold": threshold,
        }
        path = self.folder / "model.safetensors"
        self.model.save(path)
        return path


class _Record(Callback):
    """Writes the run's folder: the config once everything is in place, then a line of figures an epoch."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = run.folder / "metrics.jsonl"
        self._behind = False

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Write the config and the record so far; heed a stop from before, which `fit` has just forgotten."""
        for name in ("config.toml", "metrics.jsonl", "model.safetensors"):
            remove_unfinished(self._run.folder, name)
        self._write_all(trainer)
        if self._run.stopping:
            trainer.stop()

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Add the epoch's line; where the disk does not take it, the next epoch writes them all."""
        try:
            # A folder that was removed is made anew by the next checkpoint: the record must have its head.
            if self._behind or not self._path.exists():
                self._write_all(trainer)
            else:
                trainer.history.append_jsonl(self._path)
            self._behind = False
        except FileError as error:
            if not self._behind:
                logger.warning(f"{error}; the training goes on, and the next epoch tries again")
            self._behind = True

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """Write the lines that no epoch after them could."""
        if self._behind:
            self.on_epoch_end(trainer, figures)

    def _write_all(self, trainer: Any) -> None:
        write_whole(self._run.folder / "config.toml", self._run.resolved().to_toml().encode())
        trainer.history.write_jsonl(self._path)


def _found_anywhere(source: str) -> str:
    """Return a source as a config in another folder finds it: a path whole, a built-in by its name."""
    path = Path(source).expanduser()
    built_in = source in BUILT_INS and not path.is_file() and not (path.is_dir() and image_pairs(path))
    return source if built_in else str(path.absolute())


def _listed(value: Any) -> list[Any] | None:
    return value if value is None or isinstance(value, list) else [value]


def _class_weight(value: str | dict[str, float] | None, encoder: TargetEncoder) -> Any:
    """Return class weights by class index, from labels as a config writes them."""
    if not isinstance(value, dict):
        return value
    labels = [] if encoder.classes is None else [str(label) for label in encoder.classes.tolist()]
    for label in value:
        if label not in labels:
            raise unknown_name("class", label, labels, "in training.class_weight")
    return {labels.index(label): weight for label, weight in value.items()}
