"""Trackers, each against the real library, which writes here and reads back what it wrote."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnkit import Dense, MLPClassifier, Network, Trainer
from nnkit.errors import ConfigError
from nnkit.extras import extra_module
from nnkit.runs.config import Config
from nnkit.runs.run import Outcome, Run
from nnkit.training import trackers as trackers_module
from nnkit.training.callbacks import Callback
from nnkit.training.checkpoint import Checkpoints
from nnkit.training.trackers import MLflow, TensorBoard, Tracker, WeightsAndBiases, trackers_from

EPOCHS = 3


def tracked(tmp_path: Path, name: str) -> tuple[Run, Outcome, Tracker]:
    settings = [
        "data.train=iris",
        "model.hidden=[8]",
        f"training.epochs={EPOCHS}",
        "run.seed=3",
        "run.keep_checkpoints=true",
    ]
    run = Run(Config().with_overrides([*settings, f"run.out={tmp_path / 'runs' / 'flowers'}"]))
    [tracker] = trackers_from(name, run.folder, run.resolved().tables())
    return run, run.train([], [tracker]), tracker


def expected(run: Run) -> dict[str, list[float]]:
    """Return every column of the run's history that is a figure of an epoch's."""
    history = run.trainer.history
    names = [name for name in history.columns if name not in ("epoch", "step", "seconds")]
    assert {"loss", "learning_rate", "samples_per_second", "validation_accuracy"} <= set(names)
    return {name: [float(value) for value in history[name]] for name in names}


def settings_of(run: Run) -> dict[str, Any]:
    """Return the run's settings by their dotted names, those that are set."""
    found, left = {}, list(run.resolved().tables().items())
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif value is not None:
            found[name] = value
    assert len(found) > 20
    return found


@pytest.mark.extra("tensorboard")
def test_tensorboard_reads_config_metrics_and_model(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, outcome, _ = tracked(tmp_path, "tensorboard")
    read = EventAccumulator(str(run.folder / "tensorboard"))
    read.Reload()
    for name, values in expected(run).items():
        bare = name.removeprefix("validation_")
        events = read.Scalars(f"training/{name}" if bare == name else f"validation/{bare}")
        assert [event.step for event in events] == [1, 2, 3]
        np.testing.assert_allclose([event.value for event in events], values, rtol=1e-6)
    for name, value in outcome.metrics.items():
        [final] = read.Scalars(f"final/{name}")
        assert final.value == pytest.approx(value, rel=1e-6)
    [model] = read.Tensors("model")
    assert model.tensor_proto.string_val[0].decode() == str(outcome.model_path.absolute())
    [config] = read.Tensors("config")
    assert json.loads(config.tensor_proto.string_val[0]) == settings_of(run)
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert started.hparams["training.epochs"].number_value == EPOCHS


@pytest.mark.extra("tensorboard")
def test_tensorboard_needs_neither_tensorflow_nor_torch(tmp_path: Path) -> None:
    tracked(tmp_path, "tensorboard")
    assert "tensorflow" not in sys.modules


@pytest.mark.extra("mlflow")
def test_mlflow_reads_config_metrics_and_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    run, outcome, tracker = tracked(tmp_path, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("nnkit")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == tracker.run_id  # type: ignore[attr-defined]
    assert found.info.run_name == "flowers"
    assert found.info.status == "FINISHED"
    assert found.data.params == {name: str(value) for name, value in settings_of(run).items()}
    for name, values in expected(run).items():
        history = sorted(client.get_metric_history(found.info.run_id, name), key=lambda metric: metric.step)
        assert [metric.step for metric in history] == [1, 2, 3]
        np.testing.assert_allclose([metric.value for metric in history], values, rtol=1e-12)
    for name, value in outcome.metrics.items():
        assert found.data.metrics[f"final_{name}"] == pytest.approx(value)
    copy = client.download_artifacts(found.info.run_id, "model/model.safetensors", str(tmp_path))
    assert digest(Path(copy)) == digest(outcome.model_path)


@pytest.mark.extra("mlflow")
def test_a_resumed_training_goes_on_in_mlflows_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    run, _, first = tracked(tmp_path, "mlflow")
    again = Run.resumed(run.folder, ["training.epochs=5"])
    [second] = trackers_from("mlflow", again.folder)
    again.train([], [second])
    assert second.run_id == first.run_id  # type: ignore[attr-defined]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    history = client.get_metric_history(second.run_id, "loss")  # type: ignore[attr-defined]
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5]
    assert client.get_run(second.run_id).info.status == "FINISHED"  # type: ignore[attr-defined]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def records(path: Path) -> Iterator[bytes]:
    """Yield what a run's file holds: LevelDB's log format, after 7 bytes of its own.

    wandb's reader of it in Python is gone since its core is written in Go; the records are read by wandb's
    own messages.
    """
    content, whole, block = path.read_bytes(), b"", 32768
    assert content[:4] in (b"", b":W&B")
    place = 7
    while place + 7 <= len(content):
        if block - place % block < 7:  # no room for a header: padding
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        part = content[place + 7 : place + 7 + length]
        place += 7 + length
        whole = part if kind in (1, 2) else whole + part  # all of it, or its beginning
        if kind in (1, 4) and place <= len(content):  # all of it, or its end
            yield whole


@pytest.mark.extra("wandb")
def test_weights_and_biases_reads_config_metrics_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.proto import wandb_internal_pb2

    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    run, outcome, _ = tracked(tmp_path, "wandb")
    [path] = (run.folder / "wandb").glob("offline-run-*/run-*.wandb")
    # Another process writes the file, and may still do so after the run has been finished.
    patience = time.monotonic() + 60.0
    while True:
        messages = [wandb_internal_pb2.Record.FromString(data) for data in records(path)]
        if any(message.HasField("exit") for message in messages) or time.monotonic() > patience:
            break
        time.sleep(0.05)
    config, rows, files, summary = {}, [], [], {}
    for record in messages:
        # Settings come with the run, or in a record of their own where the library is slow to begin.
        for item in (*record.run.config.update, *record.config.update):
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("history"):
            items = record.history.item
            rows.append({(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in items})
        request = record.request.log_artifact.artifact if record.HasField("request") else record.artifact
        files += [(entry.path, entry.size, entry.digest) for entry in request.manifest.contents]
        summary |= {(i.key or ".".join(i.nested_key)): i.value_json for i in record.summary.update}
    assert {name: config.get(name) for name in settings_of(run)} == settings_of(run)
    for name, value in outcome.metrics.items():
        assert json.loads(summary[f"final_{name}"]) == pytest.approx(value)
    for name, values in expected(run).items():
        np.testing.assert_allclose([row[name] for row in rows if name in row], values, rtol=1e-12)
    content = outcome.model_path.read_bytes()
    md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    assert ("model.safetensors", len(content), md5) in files


class Watching(Tracker):
    """Notes what becomes of its run, and raises where it is told to."""

    def __init__(self, folder: Path, **errors: BaseException) -> None:
        super().__init__(folder, {})
        self.errors, self.noted = errors, []

    def _note(self, call: str) -> None:
        self.noted.append(call)
        if call in self.errors:
            raise self.errors.pop(call)

    def _begin(self, config: Any, resumed: bool) -> None:
        self._note("begin")

    def _log(self, metrics: Any, epoch: int) -> None: ...

    def _add_model(self, path: Path, metrics: Any) -> None:
        self._note("model")

    def _end(self, failed: bool) -> None:
        self._note("failed" if failed else "finished")


def run_of(folder: Path, *settings: str) -> Run:
    settings = ("data.train=iris", "model.hidden=[8]", f"run.out={folder}", *settings)
    return Run(Config().with_overrides(settings))


def test_an_error_ends_the_trackers_run_as_failed(tmp_path: Path) -> None:
    run, watching = run_of(tmp_path / "run"), Watching(tmp_path / "run")
    with pytest.raises(ArithmeticError):
        run.train([Raising(ArithmeticError())], [watching])
    assert watching.noted == ["begin", "failed"]


def test_a_tracked_run_that_is_interrupted_fails_without_a_model_and_is_gone_on_with(tmp_path: Path) -> None:
    run, watching = run_of(tmp_path / "run", "training.epochs=3"), Watching(tmp_path / "run")

    class Stopping(Callback):
        def on_epoch_end(self, trainer: Any, figures: Any) -> None:
            run.stop()

    run.train([Stopping()], [watching])
    assert watching.noted == ["begin", "failed"]
    Run.resumed(tmp_path / "run").train([], [watching])
    assert watching.noted == ["begin", "failed", "begin", "model", "finished"]


@pytest.mark.parametrize(
    ("call", "noted"),
    [("begin", ["begin", "failed"]), ("finished", ["begin", "finished"])],
)
def test_a_tracker_that_is_interrupted_itself_is_closed_and_may_be_used_again(
    call: str, noted: list[str], tmp_path: Path
) -> None:
    tracker = Watching(tmp_path, **{call: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        fit(tracker)
    assert tracker.noted == noted
    fit(tracker)
    assert tracker.noted == [*noted, "begin", "finished"]


def test_an_error_while_training_is_told_once_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Tracker):
        package = "Broken"

        def _begin(self, config: Any, resumed: bool) -> None: ...

        def _log(self, metrics: Any, epoch: int) -> None:
            raise OSError("no space left")

        def _add_model(self, path: Path, metrics: Any) -> None: ...

        def _end(self, failed: bool) -> None: ...

    X = np.random.default_rng(0).normal(size=(64, 3))
    trainer = Trainer(Network([Dense(4, "relu"), Dense(1)]), loss="mse", seed=0)
    with caplog.at_level(logging.WARNING, "nnkit"):
        trainer.fit(X, X[:, :1], epochs=3, callbacks=[Broken(tmp_path)])
    told = [record.message for record in caplog.records if "Broken" in record.message]
    assert told == ["Broken: no space left; the training continues"]
    assert len(trainer.history) == 3


def closed_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.extra(name)) for name in ("mlflow", "wandb", "tensorboard")]
)
def test_a_tracker_that_cannot_begin_is_told_in_one_line_and_the_training_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server out of reach; for what writes here, a file where a folder should be."""
    server = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "runs" / "flowers"
    folder.mkdir(parents=True)
    for kept in ("wandb", "tensorboard"):
        (folder / kept).write_text("in the way")
    package = {"mlflow": "MLflow", "wandb": "Weights & Biases", "tensorboard": "TensorBoard"}[name]
    with caplog.at_level(logging.WARNING, "nnkit"):
        run, outcome, _ = tracked(tmp_path, name)
    told = [record.message for record in caplog.records if record.message.startswith(package)]
    assert len(told) == 1
    assert told[0].endswith("; the training continues without it")
    assert "\n" not in told[0]
    assert len(run.trainer.history) == EPOCHS
    assert outcome.model_path.is_file()


@pytest.mark.extra("tensorboard")
def test_a_full_disk_is_told_in_one_line_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorBoard's writer, its records on the device that has no space left."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    from tensorboard.summary.writer import record_writer

    monkeypatch.setattr(record_writer.RecordWriter, "write", write_to_a_full_disk)
    with caplog.at_level(logging.WARNING, "nnkit"):
        run, outcome, _ = tracked(tmp_path, "tensorboard")
    [told] = [record.message for record in caplog.records if record.message.startswith("TensorBoard")]
    assert "No space left on device" in told
    assert len(run.trainer.history) == EPOCHS
    assert outcome.model_path.is_file()


def write_to_a_full_disk(writer: Any, content: bytes) -> None:
    with open("/dev/full", "wb") as full:
        full.write(content)


def test_a_server_that_goes_and_comes_is_tried_again_after_a_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, tried = [0.0], []
    monkeypatch.setattr(trackers_module.time, "monotonic", lambda: seconds[0])

    class Slow(Tracker):
        def _begin(self, config: Any, resumed: bool) -> None: ...

        def _log(self, metrics: Any, epoch: int) -> None:
            tried.append(epoch)
            if epoch == 2:
                seconds[0] += 1.0
                raise TimeoutError

        def _add_model(self, path: Path, metrics: Any) -> None: ...

        def _end(self, failed: bool) -> None: ...

    tracker = Slow(tmp_path, {})
    tracker.on_train_begin(None, figures(0))
    for epoch in range(1, 31):
        tracker.on_epoch_end(None, figures(epoch))
        seconds[0] += 1.0
    # The second epoch ends at 1, fails at 2, and after twenty times that second, at 22, the tries go on.
    assert tried == [1, 2, *range(22, 31)]


def figures(epoch: int) -> Any:
    return SimpleNamespace(
        step=epoch, epoch=epoch, loss=1.0, learning_rate=0.1, samples_per_second=1.0, metrics={}
    )


def test_a_training_without_trackers_imports_none_of_their_packages(tmp_path: Path) -> None:
    script = (
        "import sys; from nnkit.cli import main\n"
        f"sys.argv = ['nnkit', 'train', 'iris', '--epochs', '1', '--out', {str(tmp_path / 'run')!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "found = {name.split('.')[0] for name in sys.modules} & {'mlflow', 'wandb', 'tensorboard'}\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_without_a_config_the_trainers_settings_are_recorded(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Recording(Tracker):
        def _begin(self, config: Any, resumed: bool) -> None:
            seen.update(config)

        def _log(self, metrics: Any, epoch: int) -> None:
            assert all(np.isfinite(value) for value in metrics.values())

        def _add_model(self, path: Path, metrics: Any) -> None: ...

        def _end(self, failed: bool) -> None: ...

    X = np.random.default_rng(0).normal(size=(64, 3))
    trainer = Trainer(Network([Dense(4, "relu"), Dense(1)]), loss="mse", seed=5)
    trainer.fit(X, X[:, :1], epochs=1, callbacks=[Recording(tmp_path)])
    assert seen["loss.name"] == "mse"
    assert seen["seed"] == 5
    assert [layer["units"] for layer in seen["layers"]] == [4, 1]


def test_unknown_trackers_and_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'; did you mean tensorboard"):
        trackers_from("mlflow,tensorbord", tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="tensorboard is not installed: pip install tensorboard"):
        TensorBoard(tmp_path)


# --- outside of a run: trainers and estimators ---


class Raising(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_epoch_end(self, trainer: Any, figures: Any) -> None:
        raise self.error


ROWS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0).astype(int)


def fit(*callbacks: Any) -> None:
    trainer = Trainer(Network([Dense(4, "relu"), Dense(1)]), "binary_cross_entropy", device="cpu")
    trainer.fit(ROWS, LABELS, epochs=2, callbacks=callbacks)


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every package write below the test's folder, with its own settings."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


def statuses(folder: Path) -> dict[str, list[str]]:
    """Return the statuses of MLflow's runs by their name, the oldest first; each run has ended."""
    client = extra_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    found: dict[str, list[str]] = {}
    for run in reversed(client.search_runs([client.get_experiment_by_name("nnkit").experiment_id])):
        assert run.info.end_time is not None or run.info.status == "RUNNING"
        found.setdefault(run.info.run_name, []).append(run.info.status)
    return found


@pytest.mark.extra("mlflow")
@pytest.mark.usefixtures("_here")
def test_mlflows_runs_end_as_their_trainings_do(tmp_path: Path) -> None:
    twice = MLflow(tmp_path / "twice")
    environment = dict(os.environ)
    fit(MLflow(tmp_path / "good"))
    for name, error in (("failed", RuntimeError("mine")), ("interrupted", KeyboardInterrupt())):
        with pytest.raises(type(error)):
            fit(MLflow(tmp_path / name), Raising(error))
    fit(twice)
    fit(twice)
    assert statuses(tmp_path) == {
        "good": ["FINISHED"],
        "failed": ["FAILED"],
        "interrupted": ["FAILED"],
        "twice": ["FINISHED", "FINISHED"],
    }
    assert dict(os.environ) == environment


@pytest.mark.extra("mlflow")
@pytest.mark.usefixtures("_here")
def test_where_mlflow_has_a_server_nothing_is_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    fit(MLflow(tmp_path / "runs" / "mine"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.extra("mlflow")
@pytest.mark.usefixtures("_here")
def test_what_the_user_sets_of_mlflows_patience_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    fit(MLflow(tmp_path / "mine"))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"


@pytest.mark.extra("mlflow")
@pytest.mark.usefixtures("_here")
def test_a_run_of_mlflows_that_is_only_half_begun_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = extra_module("mlflow")

    def fail(*arguments: Any, **settings: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", fail)
    fit(MLflow(tmp_path / "half"))
    assert statuses(tmp_path) == {"half": ["FAILED"]}


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.extra(package))
        for kind, package in ((MLflow, "mlflow"), (TensorBoard, "tensorboard"), (WeightsAndBiases, "wandb"))
    ],
)
def test_an_estimator_with_a_tracker_is_copied_and_each_fit_is_a_run(
    kind: type[Tracker], tmp_path: Path
) -> None:
    from sklearn.base import clone

    tracker = kind(tmp_path / "fits")
    environment, mine = dict(os.environ), clone(MLPClassifier((3,), max_iter=2, callbacks=[tracker]))
    for fitted in (mine, clone(mine), copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        fitted.fit(ROWS, LABELS)
        assert fitted.callbacks[0] is not tracker
    pickle.dumps(fitted)
    assert dict(os.environ) == environment
    if kind is MLflow:
        assert statuses(tmp_path) == {"fits": ["FINISHED"] * 4}
    elif kind is TensorBoard:
        folders = sorted((tmp_path / "fits").iterdir())
        assert [folder.name for folder in folders] == [
            "tensorboard",
            *(f"tensorboard-{n}" for n in (2, 3, 4)),
        ]
        assert all(len(list(folder.iterdir())) == 1 for folder in folders)
    else:
        assert len(list((tmp_path / "fits" / "wandb").glob("offline-run-*"))) == 4


@pytest.mark.extra("tensorboard")
@pytest.mark.extra("mlflow")
@pytest.mark.usefixtures("_here")
def test_folds_in_processes_have_a_run_each(tmp_path: Path) -> None:
    """Two processes make the store, the experiment and the folders at the same moment."""
    from sklearn.model_selection import cross_val_score

    trackers = [MLflow(tmp_path / "folds"), TensorBoard(tmp_path / "folds")]
    estimator = MLPClassifier((3,), max_iter=2, callbacks=trackers)
    cross_val_score(estimator, ROWS, LABELS, cv=4, n_jobs=2)
    assert statuses(tmp_path) == {"folds": ["FINISHED"] * 4}
    assert len(list((tmp_path / "folds").glob("tensorboard*"))) == 4


@pytest.mark.extra("tensorboard")
def test_a_resumed_training_goes_on_in_tensorboards_last_folder(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "kept", overwrite=True)
    settings: dict[str, Any] = {"callbacks": TensorBoard(tmp_path / "run"), "checkpoints": kept}
    for epochs, resumed in ((1, False), (2, False), (4, True)):
        trainer = Trainer(Network([Dense(4, "relu"), Dense(1)]), "binary_cross_entropy", device="cpu")
        if resumed:
            trainer.resume(tmp_path / "kept", ROWS, LABELS, epochs=epochs, callbacks=settings["callbacks"])
        else:
            trainer.fit(ROWS, LABELS, epochs=epochs, **settings)
    events = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "run").iterdir()}
    assert events == {"tensorboard": 1, "tensorboard-2": 2}


@pytest.mark.extra("tensorboard")
def test_a_tracker_records_one_training_at_a_time(tmp_path: Path) -> None:
    tracker = TensorBoard(tmp_path / "run")

    class Inner(Callback):
        def on_epoch_end(self, trainer: Any, figures: Any) -> None:
            fit(tracker)

    with pytest.raises(ConfigError, match="is recording another training; use a separate one for each"):
        fit(tracker, Inner())
