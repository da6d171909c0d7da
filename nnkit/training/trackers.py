"""Callbacks that record a training in TensorBoard, MLflow or Weights & Biases; each package is an extra.

Order: the base class, the three, making them from names. All write to this machine unless the packages'
environment variables (MLFLOW_TRACKING_URI, WANDB_MODE=online) say otherwise.
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
from nnkit.training.callbacks import Callback, TrainingStatus

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "WeightsAndBiases", "trackers_from"]

logger = logging.getLogger("nnkit")

_PROJECT = "nnkit"
_FILES = count()  # tells apart event files that this process begins in the same second
_LONGEST_PARAMETER = 6000  # MLflow's limit
_LONGEST_ERROR = 200
_REST = 20  # the wait after a failure, as a multiple of the time the failure took
# Without these limits, MLflow tries an unreachable server for minutes and W&B for 90 s while the training
# waits. The user's environment takes precedence.
_SECONDS_TO_BEGIN = 30
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_FAILURES = ("failed", "interrupted")  # values of `Trainer.outcome`


class Tracker(Callback):
    """Base class of the trackers, which record each training as a run of their package.

    A run contains the config and the losses and metrics of each epoch. It ends as failed after an error or
    Ctrl-C. Between trainings a tracker holds no open resource, so it can be copied and pickled as a parameter
    of an estimator.

    An error of the package, such as an unreachable server or a full disk, does not end the training: it is
    logged once, in one line. If the run could not begin, the training is not recorded; otherwise later epochs
    are tried after a pause, so that waiting for a slow server takes at most a twentieth of the time.

    Parameters
    ----------
    folder : path-like
        The folder of the run.
    config : mapping, optional
        The config to record, possibly nested; by default the trainer's settings.
    """

    package: str = ""
    """The package's name in messages."""
    variables: Mapping[str, str | None] = {}
    """Environment variables to set during a call into the package, unless the user has set them; None for
    those that the package sets itself. They are removed after the call."""

    def __init__(self, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self._config = config
        self._begun = False
        self._kept_open = False
        self._has_model = False
        self._failed = False
        self._resting_until = 0.0

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        """Begin the package's run, with the config."""
        if self._begun:
            raise ConfigError(
                f"this {self.package} tracker is recording another training; use a separate one for each"
            )
        config = _flat(_settings(trainer) if self._config is None else self._config)
        self._failed, self._resting_until = False, 0.0
        try:
            self._begun = self._attempt(lambda: self._begin(config, resumed=status.step > 0))
        finally:
            if not self._begun:
                with suppress(Exception), self._environment():  # the first error has been logged
                    self._end(failed=True)

    def on_epoch_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Record the epoch's losses and metrics that are finite."""
        values = {
            "loss": status.loss,
            "learning_rate": status.learning_rate,
            "samples_per_second": status.samples_per_second,
            **status.metrics,
        }
        if self._begun and time.monotonic() >= self._resting_until:
            self._attempt(lambda: self._log(_finite(values), status.epoch))

    def on_train_end(self, trainer: Any, status: TrainingStatus) -> None:
        """End the package's run; as failed after an error or Ctrl-C."""
        if not self._kept_open:
            self._close(trainer.outcome in _FAILURES)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep the package's run open after the training, for `add_model`, until the end of this context.

        It ends as failed if no model was added.
        """
        self._kept_open, self._has_model = True, False
        try:
            yield
        finally:
            self._kept_open = False
            self._close(failed=not self._has_model)

    def add_model(self, path: str | os.PathLike[str], metrics: Mapping[str, float]) -> None:
        """Record the model file and its final metrics, in a run that is kept open."""
        if self._begun:
            self._attempt(lambda: self._add_model(Path(path), _finite(metrics)))
        self._has_model = True

    def _close(self, failed: bool) -> None:
        if self._begun:
            try:
                self._attempt(lambda: self._end(failed))
            finally:
                self._begun = False

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Call a function and return whether it succeeded; log the first error."""
        began = time.monotonic()
        try:
            with self._environment():
                action()
        except Exception as error:
            now = time.monotonic()
            self._resting_until = now + _REST * (now - began)
            if not self._failed:
                text = " ".join(str(error).split()) or type(error).__name__
                text = text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"
                without = "" if self._begun else " without it"
                logger.warning(f"{self.package}: {text}; the training continues{without}")
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
        """End the run and release its resources; also called after a `_begin` that failed half-way."""


class TensorBoard(Tracker):
    """Writes event files into ``tensorboard`` in the run's folder: `tensorboard --logdir runs` shows them.

    A second training writes into ``tensorboard-2``, and so on; a resumed one into the last folder. The config
    is recorded as text and as hyperparameters, and the model file by its path, because TensorBoard stores no
    files. Needs neither TensorFlow nor PyTorch.

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
        # TensorBoard's own EventFileWriter prints a traceback in its thread when the disk is full.
        records = _tensorboard("summary.writer.record_writer").RecordWriter
        self._writer = records((folder / name).open("wb"))
        event = _tensorboard("compat.proto.event_pb2").Event
        self._writer.write(event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        plain = {name: _plain(value) for name, value in config.items()}
        hyperparameters = _tensorboard("plugins.hparams.summary_v2").hparams_pb
        self._write(hyperparameters(plain, trial_id=str(folder)), 0)
        self._write_text("config", json.dumps(dict(config), indent=1, default=str), 0)

    def _events_folder(self, resumed: bool) -> Path:
        """Return the last folder of events if resumed, else a new one."""
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
        # The message of the hyperparameters may be of another build of the protocol: copy it as bytes.
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
    """Records an MLflow run, with the config as its parameters and the model file as its artifact.

    The store is MLFLOW_TRACKING_URI or, by default, ``mlflow.db`` and ``mlartifacts`` beside the run's
    folder: ``mlflow ui --backend-store-uri sqlite:///runs/mlflow.db``. The experiment is
    MLFLOW_EXPERIMENT_NAME, by default ``nnkit``. A resumed training continues its MLflow run.

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
        # MLflow fails if two processes create the same store at once.
        with waited_for(beside / ".mlflow.lock") if local else nullcontext():
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            identity = self._experiment(name, (beside / "mlartifacts").as_uri() if local else None)
        if resumed and self._continue_run(identity):
            return
        run = self._client.create_run(
            identity, run_name=self.folder.name, tags={"nnkit.folder": str(self.folder.absolute())}
        )
        self.run_id = run.info.run_id
        entities = mlflow.entities
        parameters = [entities.Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in config.items()]
        for first in range(0, len(parameters), 100):  # MLflow's limit for one call
            self._client.log_batch(self.run_id, params=parameters[first : first + 100])

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """Return the id of the experiment, which is created if missing."""
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return self._client.create_experiment(name, artifact_location=artifacts)
        return experiment.experiment_id

    def _continue_run(self, experiment: str) -> bool:
        """Reopen the last run of this folder; return whether there is one."""
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
        values = [entities.Metric(name, value, now, epoch) for name, value in metrics.items()]
        self._client.log_batch(self.run_id, metrics=values)

    def _add_model(self, path: Path, metrics: Mapping[str, float]) -> None:
        self._client.log_artifact(self.run_id, str(path), artifact_path="model")
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, f"final_{name}", value)

    def _end(self, failed: bool) -> None:
        client, self._client = self._client, None
        if client is not None and self.run_id is not None:
            client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


class WeightsAndBiases(Tracker):
    """Records a Weights & Biases run in ``wandb`` in the run's folder, with the model file as an artifact.

    Nothing leaves the machine unless WANDB_MODE is ``online``; ``wandb sync`` uploads an offline run. The
    project is WANDB_PROJECT, by default ``nnkit``.

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
            # Do not disturb a run of the user in this process.
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
    """Return a trainer's settings, as the config of a training without a run folder."""
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
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif value is not None:
            flat[name] = value
    return flat


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def _tag(name: str) -> str:
    """Return a metric's tag; TensorBoard groups by the part before the slash."""
    bare = name.removeprefix("validation_")
    return f"validation/{bare}" if bare != name else f"training/{name}"
