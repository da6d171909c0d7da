"""Callbacks that hand a training on to TensorBoard, MLflow and Weights & Biases, each package an extra.

Order: what they share, the three, how they are made from names. All write to this machine unless the user's
own settings of these packages (MLFLOW_TRACKING_URI, WANDB_MODE=online) say otherwise.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any

from nnkit.errors import ConfigError, unknown_name
from nnkit.extras import extra_module
from nnkit.files import waited_for
from nnkit.training.callbacks import Callback, Figures

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "WeightsAndBiases", "trackers_from"]

logger = logging.getLogger("nnkit")

_PROJECT = "nnkit"
_FILES = count()  # of this process, so that two begun in one second are two
_LONGEST_PARAMETER = 6000  # MLflow's limit
_LONGEST_ERROR = 200
_REST = 20  # so many times as long as it took to fail, before the next try
# Where a server is out of reach, MLflow would try for minutes and W&B for one and a half, with the training
# waiting. The user's own settings win.
_SECONDS_TO_BEGIN = 30
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_FAILURES = ("failed", "interrupted")  # of `Trainer.outcome`


class Tracker(Callback):
    """Base of the trackers: a run that is opened when a training begins and closed when it ends.

    The run has the config and each epoch's figures. It is closed as failed where an error or Ctrl-C ended the
    training. Another training with the same tracker is another run. Between trainings a tracker holds nothing
    open, so that it can be copied and pickled, as an estimator's parameter is.

    An error of the package's, such as a server out of reach or a full disk, is told in one line, once, and
    does not end the training: without the tracker where it was met at the beginning, and else the next epochs
    are tried again, with rests between so that a server that makes wait costs a twentieth of the time.

    Parameters
    ----------
    folder : path-like
        The run's.
    config : mapping, optional
        What to record as the config, nested as it is; the trainer's own settings if not given.
    """

    package: str = ""
    """What the package is called in messages."""
    variables: Mapping[str, str | None] = {}
    """Variables of the environment that the package works with, unless the user has set them; those that it
    sets itself have the value None. They are removed after each call."""

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self._config = config
        self._begun = False
        self._kept_open = False
        self._has_model = False
        self._failed = False
        self._resting_until = 0.0

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Begin the package's run, with the config."""
        if self._begun:
            raise ConfigError(
                f"this {self.package} tracker records another training; give each a tracker of its own"
            )
        config = _flat(_settings(trainer) if self._config is None else self._config)
        self._failed, self._resting_until = False, 0.0
        try:
            self._begun = self._heeding(lambda: self._begin(config, resumed=figures.step > 0))
        finally:
            if not self._begun:
                with suppress(Exception), self._environment():  # the error has been told
                    self._end(failed=True)

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Record the epoch's figures, those that are numbers."""
        found = {
            "loss": figures.loss,
            "learning_rate": figures.learning_rate,
            "samples_per_second": figures.samples_per_second,
            **figures.metrics,
        }
        finite = {name: float(value) for name, value in found.items() if math.isfinite(value)}
        if self._begun and time.monotonic() >= self._resting_until:
            self._heeding(lambda: self._log(finite, figures.epoch))

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """End the package's run, as failed where an error or Ctrl-C ended the training."""
        if not self._kept_open:
            self._close(trainer.outcome in _FAILURES)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Leave the package's run open when a training ends, for `add_model`.

        It is ended with this context, as failed where no model was added.
        """
        self._kept_open, self._has_model = True, False
        try:
            yield
        finally:
            self._kept_open = False
            self._close(failed=not self._has_model)

    def add_model(self, path: str | os.PathLike[str], metrics: Mapping[str, float]) -> None:
        """Record the model file and the figures that it was measured by, in a run that is kept open."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if self._begun:
            self._heeding(lambda: self._add_model(Path(path), finite))
        self._has_model = True

    def _close(self, failed: bool) -> None:
        if self._begun:
            try:
                self._heeding(lambda: self._end(failed))
            finally:
                self._begun = False

    def _heeding(self, action: Callable[[], None]) -> bool:
        """Act, and return whether that went well; the first error is told."""
        began = time.monotonic()
        try:
            with self._environment():
                action()
        except Exception as error:
            now = time.monotonic()
            self._resting_until = now + _REST * (now - began)
            if not self._failed:
                said = " ".join(str(error).split()) or type(error).__name__
                said = said if len(said) <= _LONGEST_ERROR else said[: _LONGEST_ERROR - 1] + "…"
                without = "" if self._begun else " without it"
                logger.warning(f"{self.package}: {said}; the training goes on{without}")
            self._failed = True
            return False
        return True

    @contextmanager
    def _environment(self) -> Iterator[None]:
        added = [name for name in self.variables if name not in os.environ]
        for name in added:
            if (value := self.variables[name]) is not None:
                os.environ[name] = value
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)

    @abstractmethod
    def _begin(self, config: Mapping[str, Any], resumed: bool) -> None: ...

    @abstractmethod
    def _log(self, metrics: Mapping[str, float], epoch: int) -> None: ...

    @abstractmethod
    def _add_model(self, path: Path, metrics: Mapping[str, float]) -> None: ...

    @abstractmethod
    def _end(self, failed: bool) -> None:
        """End the run and hold nothing of it; also called after a `_begin` that failed half-way."""


class TensorBoard(Tracker):
    """Writes event files into ``tensorboard`` in the run's folder: `tensorboard --logdir runs` shows them.

    A second training writes into ``tensorboard-2``, and so on; one that is resumed goes on in the last one.
    The config is a text and a set of hyperparameters, and so is where the model file lies, for TensorBoard
    keeps no files. Neither TensorFlow nor PyTorch is needed.

    Parameters
    ----------
    folder, config
        As for `Tracker`.
    """

    package = "TensorBoard"

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, config)
        _tensorboard("summary.writer.record_writer")
        self._writer: Any = None

    def _begin(self, config: Mapping[str, Any], resumed: bool) -> None:
        folder = self._events_folder(resumed)
        now = time.time()
        name = f"events.out.tfevents.{now:010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_FILES)}"
        # Not the writer around it, whose thread prints a traceback of its own where the disk is full.
        records = _tensorboard("summary.writer.record_writer").RecordWriter
        self._writer = records((folder / name).open("wb"))
        event = _tensorboard("compat.proto.event_pb2").Event
        self._writer.write(event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        plain = {name: _plain(value) for name, value in config.items()}
        hyperparameters = _tensorboard("plugins.hparams.summary_v2").hparams_pb
        self._write(hyperparameters(plain, trial_id=str(folder)), 0)
        self._write_text("config", json.dumps(dict(config), indent=1, default=str), 0)

    def _events_folder(self, resumed: bool) -> Path:
        """Return the last folder of events for a resumed training, else a new one."""
        for number in count(1):
            folder = self.folder / ("tensorboard" if number == 1 else f"tensorboard-{number}")
            following = self.folder / f"tensorboard-{number + 1}"
            if resumed and folder.is_dir() and not following.exists():
                break
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                if not folder.is_dir():
                    raise
        return folder

    def _log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self._write_scalars({_tag(name): value for name, value in metrics.items()}, epoch)
        self._writer.flush()

    def _add_model(self, path: Path, metrics: Mapping[str, float]) -> None:
        self._write_text("model", str(path.absolute()), 0)
        self._write_scalars({f"final/{name}": value for name, value in metrics.items()}, 0)

    def _end(self, failed: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _write(self, summary: Any, step: int) -> None:
        # The hyperparameters' message may come of another build of the same protocol: by bytes it fits.
        event = _tensorboard("compat.proto.event_pb2").Event(wall_time=time.time(), step=step)
        event.summary.ParseFromString(summary.SerializeToString())
        self._writer.write(event.SerializeToString())

    def _write_scalars(self, values: Mapping[str, float], step: int) -> None:
        summary = _tensorboard("compat.proto.summary_pb2").Summary
        self._write(
            summary(value=[summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]), step
        )

    def _write_text(self, tag: str, text: str, step: int) -> None:
        messages = _tensorboard("compat.proto.summary_pb2")
        metadata = messages.SummaryMetadata(
            plugin_data=messages.SummaryMetadata.PluginData(plugin_name="text")
        )
        string = _tensorboard("compat.proto.types_pb2").DT_STRING
        tensor = _tensorboard("compat.proto.tensor_pb2").TensorProto(dtype=string, string_val=[text.encode()])
        value = messages.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self._write(messages.Summary(value=[value]), step)


def _tensorboard(module: str) -> Any:
    return extra_module(f"tensorboard.{module}")


class MLflow(Tracker):
    """Records a run of MLflow's, the config as its parameters and the model file as its artifact.

    The store is the one of MLFLOW_TRACKING_URI, or else ``mlflow.db`` and ``mlartifacts`` beside the run's
    folder: ``mlflow ui --backend-store-uri sqlite:///runs/mlflow.db``. The experiment is that of
    MLFLOW_EXPERIMENT_NAME, or ``nnkit``. A training that is resumed goes on in the run it began.

    Parameters
    ----------
    folder, config
        As for `Tracker`.
    """

    package = "MLflow"
    variables = _PATIENCE

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, config)
        extra_module("mlflow")
        extra_module("mlflow.store.tracking.sqlalchemy_store")
        self._client: Any = None
        self.run_id: str | None = None

    def _begin(self, config: Mapping[str, Any], resumed: bool) -> None:
        self.run_id = None
        mlflow = extra_module("mlflow")
        beside = self.folder.absolute().parent
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside / 'mlflow.db'}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
        local = uri.startswith("sqlite:")
        if local:
            beside.mkdir(parents=True, exist_ok=True)
        # Two processes that make one store at the same moment fail in MLflow.
        with waited_for(beside / ".mlflow.lock") if local else nullcontext():
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            identity = self._experiment(name, (beside / "mlartifacts").as_uri() if local else None)
        if resumed and self._go_on(identity):
            return
        run = self._client.create_run(
            identity, run_name=self.folder.name, tags={"nnkit.folder": str(self.folder.absolute())}
        )
        self.run_id = run.info.run_id
        entities = mlflow.entities
        parameters = [entities.Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in config.items()]
        for first in range(0, len(parameters), 100):  # as many as one call takes
            self._client.log_batch(self.run_id, params=parameters[first : first + 100])

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """Return the experiment's identity; make it if there is none."""
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return self._client.create_experiment(name, artifact_location=artifacts)
        return experiment.experiment_id

    def _go_on(self, experiment: str) -> bool:
        """Take up the run that the training before its stop left, if there is one."""
        folder = str(self.folder.absolute())
        for run in self._client.search_runs([experiment]):  # the newest first
            if run.data.tags.get("nnkit.folder") == folder:
                self.run_id = run.info.run_id
                self._client.update_run(self.run_id, status="RUNNING")
                return True
        return False

    def _log(self, metrics: Mapping[str, float], epoch: int) -> None:
        now = int(time.time() * 1000)
        entities = extra_module("mlflow.entities")
        found = [entities.Metric(name, value, now, epoch) for name, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=found)

    def _add_model(self, path: Path, metrics: Mapping[str, float]) -> None:
        self._client.log_artifact(self.run_id, str(path), artifact_path="model")
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, f"final_{name}", value)

    def _end(self, failed: bool) -> None:
        client, self._client = self._client, None
        if client is not None and self.run_id is not None:
            client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


class WeightsAndBiases(Tracker):
    """Records a run of Weights & Biases' into ``wandb`` in the run's folder, the model file as an artifact.

    Nothing leaves the machine unless WANDB_MODE says ``online``; ``wandb sync`` hands an offline run in. The
    project is that of WANDB_PROJECT, or ``nnkit``.

    Parameters
    ----------
    folder, config
        As for `Tracker`.
    """

    package = "Weights & Biases"
    variables: Mapping[str, str | None] = {"WANDB_SERVICE": None}

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, config)
        extra_module("wandb")
        self._run: Any = None

    def _begin(self, config: Mapping[str, Any], resumed: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        patience = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": _SECONDS_TO_BEGIN}
        wandb = extra_module("wandb")
        self._run = wandb.init(
            mode=os.environ.get("WANDB_MODE") or "offline",
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            name=self.folder.name,
            dir=str(self.folder),
            config=dict(config),
            # A run of the user's own in this process stays as it is.
            settings=wandb.Settings(console="off", silent=True, reinit="create_new", **patience),
        )

    def _log(self, metrics: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(metrics), step=epoch)

    def _add_model(self, path: Path, metrics: Mapping[str, float]) -> None:
        self._run.summary.update({f"final_{name}": value for name, value in metrics.items()})
        artifact = extra_module("wandb").Artifact("model", type="model")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def _end(self, failed: bool) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=1 if failed else 0)


TRACKERS: Mapping[str, Callable[..., Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def trackers_from(
    names: str | Iterable[str], folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None
) -> list[Tracker]:
    """Return trackers for names such as ``"mlflow,tensorboard"``.

    Raises
    ------
    ConfigError
        If a name is unknown, or its package is not installed.
    """
    given = names.split(",") if isinstance(names, str) else list(names)
    wanted = list(dict.fromkeys(name.strip() for name in given))
    for name in wanted:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
    return [TRACKERS[name](folder, config) for name in wanted]


def _settings(trainer: Any) -> dict[str, Any]:
    """Return what a trainer was told, where there is no config of a run's."""
    optimizer = trainer.optimizer
    return {
        "layers": [layer.to_json() for layer in trainer.network.layers],
        "loss": trainer.loss.to_json(),
        "optimizer": optimizer.name,
        "learning_rate": optimizer.learning_rate,
        "precision": trainer.precision,
        "seed": trainer.seed,
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under names such as ``training.epochs``; lists as they are."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif value is not None:
            found[name] = value
    return found


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def _tag(name: str) -> str:
    """Return a metric's tag, so that TensorBoard draws training and validation in groups."""
    bare = name.removeprefix("validation_")
    return f"validation/{bare}" if bare != name else f"training/{name}"
