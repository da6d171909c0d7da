"""A run: what a config comes to, what is left open, and what the run folder holds."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit import BatchEnsemble, Dense, Dropout, Ensemble, PiecewiseLinear, load
from nnkit.errors import ConfigError, DataError, DivergenceError, FileError
from nnkit.nn.schedules import schedule_from
from nnkit.runs.config import Config, DataConfig, load_config
from nnkit.runs.run import Run, fastest_numerics
from nnkit.training.callbacks import Callback, TrainingStatus


def run_of(source: object, *settings: str) -> Run:
    return Run(Config().with_overrides([f"data.train={source}", *settings]))


def write(path: Path, rows: int, label: Any = lambda i: "ab"[i % 2], first: int = 0) -> Path:
    """Write a table of two numbers and a target."""
    lines = [f"{i}.0,{(i * 7) % 11 / 3},{label(i)}" for i in range(first, first + rows)]
    path.write_text("\n".join(["x,z,target", *lines]) + "\n")
    return path


# --- what a config comes to ---


def test_hidden_layers_are_those_of_the_config() -> None:
    model = ["model.hidden=[8, 6]", "model.activation=tanh", "model.initializer=he_normal"]
    run = run_of("iris", *model, "model.dropout=0.25")
    assert run.model.network.layers == (
        PiecewiseLinear(16),
        Dense(8, "tanh", "he_normal"),
        Dropout(0.25),
        Dense(6, "tanh", "he_normal"),
        Dropout(0.25),
        Dense(3),
    )


def test_each_hidden_layer_may_have_its_dropout() -> None:
    run = run_of("iris", "model.hidden=[8, 6, 4]", "model.dropout=[0.5, 0, 0.1]")
    assert run.model.network.layers == (
        PiecewiseLinear(16),
        Dense(8, "silu"),
        Dropout(0.5),
        Dense(6, "silu"),
        Dense(4, "silu"),
        Dropout(0.1),
        Dense(3),
    )


def test_an_ensemble_is_one_network() -> None:
    model = ["model.hidden=[8, 6]", "model.dropout=[0.25, 0]", "model.ensemble=3"]
    seeds = run_of("iris", *model)
    numbers, hidden = PiecewiseLinear(16), [Dense(8, "silu"), Dropout(0.25), Dense(6, "silu")]
    assert seeds.model.network.layers == (Ensemble(numbers, hidden, Dense(3), members=3, link="softmax"),)
    tabm = run_of("iris", *model, "model.ensemble_kind=tabm")
    assert tabm.model.network.layers == (
        numbers,
        BatchEnsemble(8, "silu", members=3),
        Dropout(0.25),
        BatchEnsemble(6, "silu", members=3),
        Ensemble(Dense(3, "identity", "fan_in_uniform"), members=3, link="softmax"),
    )


def test_no_hidden_layer_is_a_linear_model() -> None:
    assert run_of("iris", "model.hidden=[]", "model.dropout=0.5").model.network.layers == (Dense(3),)


def test_a_binary_target_has_one_output_and_its_loss() -> None:
    run = run_of("breast_cancer")
    assert run.model.network.output_width == 1
    assert run.trainer.loss.name == "binary_cross_entropy"
    assert run_of("iris").trainer.loss.name == "cross_entropy"
    assert run_of("diabetes").trainer.loss.name == "mse"


def test_an_optimizers_table_reaches_the_trainer() -> None:
    optimizer = run_of("iris", "training.optimizer={name='adam', beta1=0.5}").trainer.optimizer
    assert (optimizer.name, optimizer.learning_rate) == ("adam", 1e-3)
    assert "0.5" in repr(optimizer)


def test_the_learning_rate_is_the_optimizers_own_unless_given() -> None:
    from nnkit import SGD, Adam

    assert SGD().learning_rate != Adam().learning_rate
    assert run_of("iris", "training.optimizer=sgd").trainer.optimizer.learning_rate == SGD().learning_rate
    given = run_of("iris", "training.optimizer=sgd", "training.learning_rate=0.001").trainer.optimizer
    assert given.learning_rate == 0.001
    resolved = run_of("iris", "training.optimizer=sgd").resolved()
    assert resolved.training.learning_rate == SGD().learning_rate


def test_settings_of_the_training_reach_the_trainer() -> None:
    trainer = run_of(
        "iris",
        "training.schedule={name='step', every=3}",
        "training.warmup=5",
        "training.l1=0.1",
        "training.l2=0.2",
        "training.clip_norm=0.5",
        "training.weight_decay=0.01",
        "training.early_stopping=4",
        "training.restore_best=false",
        "training.metrics=['f1']",
        "run.seed=9",
        "run.device=cpu",
        "run.precision=fp64",
    ).trainer
    assert trainer.settings.schedule == schedule_from({"name": "step", "every": 3, "warmup": 5})
    assert (trainer.penalty.l1, trainer.penalty.l2, trainer.settings.clip_norm) == (0.1, 0.2, 0.5)
    assert (trainer.settings.early_stopping, trainer.settings.restore_best, trainer.settings.metrics) == (
        4,
        False,
        ("f1",),
    )
    assert (trainer.seed, trainer.precision, trainer.dtype) == (9, "fp64", np.float64)
    assert trainer.optimizer.weight_decay == 0.01


def test_early_stopping_of_nought_is_never() -> None:
    assert run_of("iris").trainer.settings.early_stopping == 100  # steps, of which an epoch has one
    settings = run_of("iris", "training.early_stopping=0").trainer.settings
    assert settings.early_stopping is None
    assert settings.restore_best


def test_class_weights_are_given_by_the_labels_text(tmp_path: Path) -> None:
    names = ["cat", "ant", "bee"]
    path = write(tmp_path / "t.csv", 60, lambda i: names[i % 3])
    weights = run_of(path, "training.class_weight={cat=3, ant=0.5}").trainer.settings.class_weight
    assert weights == {2: 3.0, 0: 0.5}
    assert run_of("iris", "training.class_weight={2=3}").trainer.settings.class_weight == {2: 3.0}
    assert run_of("iris", "training.class_weight=balanced").trainer.settings.class_weight == "balanced"
    with pytest.raises(ConfigError, match=r"unknown class 'car' .*did you mean cat"):
        run_of(path, "training.class_weight={car=3}")


def test_a_class_weight_moves_the_answers(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = write(tmp_path / "t.csv", 200, lambda i: "ab"[generator.integers(2)])
    shares = []
    for weight in (0.1, 10):
        settings = [
            "training.epochs=20",
            "training.learning_rate=0.05",
            "training.weight_decay=0",
            "training.batch_size=32",
            "model.hidden=[]",
            "data.validation=0",
        ]
        out = tmp_path / f"run {weight}"
        run = run_of(path, *settings, f"training.class_weight={{a={weight}}}", f"run.out={out}")
        run.train()
        shares.append(float(np.mean(run.model.predict(run.dataset.train.features) == "a")))
    assert shares == [0.0, 1.0]


# --- the task and the loss ---


def test_whole_numbers_of_many_values_are_classes_where_it_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 120, lambda i: 10 * (i % 30))
    assert run_of(path).model.task == "regression"
    run = run_of(path, "data.task=classification")
    assert (run.model.task, run.model.network.output_width) == ("multiclass", 30)
    assert run.model.classes is not None
    assert run.model.classes.tolist() == list(range(0, 300, 10))
    assert run_of("breast_cancer", "data.task=classification").model.task == "binary"


def test_the_task_is_that_of_all_rows(tmp_path: Path) -> None:
    # 50 numbered classes are 5 % of 1000 rows, and more of those trained on.
    run = run_of(write(tmp_path / "t.csv", 1000, lambda i: i % 50))
    assert run.training_rows == 900
    assert (run.model.task, run.model.network.output_width) == ("multiclass", 50)


def test_whole_numbers_of_few_values_are_a_regression_where_it_is_said() -> None:
    run = run_of("iris", "data.task=regression")
    assert (run.model.task, run.model.network.output_width, run.trainer.loss.name) == ("regression", 1, "mse")
    with pytest.raises(DataError, match="a binary target has two classes, this one 3"):
        run_of("iris", "data.task=binary")


@pytest.mark.parametrize(
    ("source", "loss", "fitting"),
    [
        ("iris", "mse", "cross_entropy"),
        ("iris", "binary_cross_entropy", "cross_entropy"),
        ("diabetes", "cross_entropy", "mse"),
        ("breast_cancer", "cross_entropy", "binary_cross_entropy"),
        ("breast_cancer", "poisson", "binary_cross_entropy"),
    ],
)
def test_a_loss_that_does_not_fit_the_task_is_a_config_error(source: str, loss: str, fitting: str) -> None:
    with pytest.raises(ConfigError, match=f"'{loss}' does not fit .* use '{fitting}', or set data.task"):
        run_of(source, f"training.loss={loss}")


def test_a_rate_is_learnt_in_its_own_units_and_else_a_target_is_standardised() -> None:
    rate = run_of("diabetes", "training.loss=poisson").model.target
    plain = run_of("diabetes").model.target
    assert rate.mean is not None
    assert plain.mean is not None
    assert (rate.mean.tolist(), plain.mean > 100) == ([0.0], True)


# --- which rows ---


def test_the_rows_held_out_are_of_every_class(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 200, lambda i: "a" if i < 20 else "b")
    run = run_of(path, "data.validation=0.25")
    assert (run.training_rows, run.held_out_rows) == (150, 50)
    target = run.dataset.train.target
    assert target is not None
    assert run.data.training is not None
    assert run.data.validation is not None
    assert Counter(target[run.data.validation].tolist()) == {"a": 5, "b": 45}
    assert sorted([*run.data.training, *run.data.validation]) == list(range(200))
    other = run_of(path, "data.validation=0.25", "run.seed=1").data.validation
    assert other is not None
    assert not np.array_equal(other, run.data.validation)


def test_the_held_out_rows_say_nothing_of_the_preprocessing(tmp_path: Path) -> None:
    run = run_of(write(tmp_path / "t.csv", 200), "data.validation=0.5")
    assert run.data.training is not None
    x = run.data.training.astype(float)
    [scale] = [item for item in run.model.preprocessor.to_json()["operations"] if item["column"] == "x"]
    assert scale["shift"] == pytest.approx(x.mean())
    assert 1 / scale["scale"] == pytest.approx(x.std())


def test_few_rows_are_all_trained_on_unless_a_share_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "t.csv", 49)
    with caplog.at_level(logging.INFO, "nnkit"):
        assert run_of(path).held_out_rows == 0
    assert "49 rows are too few to hold some out" in caplog.text
    assert "not what can be learnt" not in caplog.text
    with caplog.at_level(logging.INFO, "nnkit"):
        run_of(write(tmp_path / "two.csv", 2))
    assert "and say nothing about other rows" in caplog.text
    assert run_of(path, "data.validation=0.2").held_out_rows == 10
    assert run_of(write(tmp_path / "u.csv", 50)).held_out_rows == 5


def test_validation_and_test_may_be_files(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", 80)
    held = write(tmp_path / "held.csv", 30, first=10)
    test = write(tmp_path / "test.csv", 20, first=30)
    settings = ["training.epochs=2", "model.hidden=[4]", f"run.out={tmp_path / 'run'}"]
    run = run_of(train, *settings, f"data.validation={held}", f"data.test={test}")
    assert (run.training_rows, run.held_out_rows) == (80, 0)
    outcome = run.train()
    assert (outcome.rows, outcome.count) == ("test", 20)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    final = run_of(held).dataset.train
    assert final.target is not None
    best = min(rows, key=lambda row: row["validation_loss"])
    measured = run.model.evaluate(final.features, final.target, ["accuracy", "log_loss"])
    assert best["validation_accuracy"] == pytest.approx(measured["accuracy"])
    assert best["validation_loss"] == pytest.approx(measured["log_loss"], rel=1e-5)
    alone = run_of(train, *settings, f"data.validation={held}", f"run.out={tmp_path / 'alone'}").train()
    assert (alone.rows, alone.count) == ("validation", 30)


@pytest.mark.parametrize("key", ["data.test", "data.validation"])
@pytest.mark.parametrize("fault", ["label", "column"])
def test_other_rows_that_do_not_fit_are_found_before_anything_is_written(
    key: str, fault: str, tmp_path: Path
) -> None:
    other = write(tmp_path / "other.csv", 30, lambda i: "c" if fault == "label" else "a")
    if fault == "column":
        other.write_text(other.read_text().replace("x,z", "x,w"))
    run = run_of(write(tmp_path / "t.csv", 60), f"{key}={other}", f"run.out={tmp_path / 'run'}")
    with pytest.raises(DataError, match="'c'" if fault == "label" else "'z'"):
        run.train()
    assert not run.folder.exists()


# --- the run folder ---


def test_preparing_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_of("iris")
    assert re.fullmatch(r"runs/iris-\d{8}-\d{6}", str(run.folder))
    assert list(tmp_path.iterdir()) == []


def test_a_taken_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nnkit.runs.run.timed_name", lambda name: f"{name}-NOW")
    for name in ("runs/iris-NOW", "runs/iris-NOW-2", "runs/iris-NOW-3"):
        run = run_of("iris", "training.epochs=1", "model.hidden=[4]")
        run.train()
        assert str(run.folder) == name
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 3
    for folder in folders:  # each holds its own training, and nothing of the next
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
        assert load_config(folder / "config.toml").run.out == str(folder)


def test_the_resolved_config_fills_in_what_was_left_open(tmp_path: Path) -> None:
    given = Config().with_overrides(
        ["training.loss={name='huber', delta=0.5}", f"run.out={tmp_path / 'run'}"]
    )
    run = Run(given.with_overrides(["data.train=diabetes", "training.epochs=1", "model.hidden=[4]"]))
    run.train()
    written = load_config(run.folder / "config.toml")
    assert written.training.loss == {"name": "huber", "delta": 0.5}
    assert written.training.learning_rate == 2e-3
    assert written.data.validation == 0.1
    assert written.run.out == str(tmp_path / "run")
    assert written == run.resolved()
    assert run_of("iris").resolved().training.loss == {"name": "cross_entropy", "label_smoothing": 0.0}


def test_data_without_validation_are_resolved_to_none() -> None:
    assert run_of("xor").resolved().data.validation == 0
    assert run_of("iris").resolved().data.validation == 0.1


def test_sources_are_resolved_to_whole_paths_and_built_ins_to_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnkit.runs.config import DataConfig

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", 60)
    (tmp_path / "iris").mkdir()  # hides no built-in
    data = Run(Config(data=DataConfig(train="t.csv", validation="t.csv", test="t.csv"))).resolved().data
    assert {data.train, data.validation, data.test} == {str(tmp_path / "t.csv")}
    assert Run(Config(data=DataConfig(train="iris"))).resolved().data.train == "iris"
    assert Run(Config()).resolved().data.train == "digits"


def test_few_updates_are_remarked_on(tmp_path: Path) -> None:
    run = run_of("iris", "training.epochs=3", "model.hidden=[4]", f"run.out={tmp_path / 'run'}")
    assert run.hint == ""
    run.train()
    assert run.hint.startswith("only 3 updates were made")  # 135 rows in batches of 256
    run = run_of("iris", "training.batch_size=32", "model.hidden=[4]", f"run.out={tmp_path / 'longer'}")
    run.train()
    assert run.hint == ""


class _Stop(Callback):
    def on_epoch_end(self, trainer: Any, figures: TrainingStatus) -> None:
        if figures.epoch == 2:
            trainer.stop()


def test_a_stopped_run_saves_its_model(tmp_path: Path) -> None:
    run = run_of("iris", "training.epochs=50", "model.hidden=[4]", f"run.out={tmp_path / 'run'}")
    outcome = run.train([_Stop()])
    assert load(outcome.model_path).details["epochs"] == 2
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_stop_before_the_first_step_is_heeded(tmp_path: Path) -> None:
    run = run_of("iris", "training.epochs=50", "model.hidden=[4]", f"run.out={tmp_path / 'run'}")
    run.stop()
    outcome = run.train()
    assert load(outcome.model_path).details["epochs"] == 0
    assert (run.folder / "metrics.jsonl").read_text() == ""


def test_the_model_says_where_it_comes_from(tmp_path: Path) -> None:
    run = run_of(
        "digits", "training.epochs=1", "model.hidden=[4]", f"run.out={tmp_path / 'run'}", "run.seed=3"
    )
    outcome = run.train()
    details = load(outcome.model_path).details
    expected = {"data": "digits", "image_shape": [8, 8], "trained_rows": 1617, "epochs": 1, "seed": 3}
    assert details | expected == details
    assert details["metrics"] == {"validation": outcome.metrics}


def test_the_task_is_that_of_all_rows_whatever_share_is_held_out(tmp_path: Path) -> None:
    """Fifty classes are 5 % of 1000 rows, and would look like a regression to the 900 that are trained on."""
    path = tmp_path / "fifty.csv"
    generator = np.random.default_rng(0)
    rows = [f"{value:.3f},{i % 50}" for i, value in enumerate(generator.normal(size=1000))]
    path.write_text("\n".join(["x,y", *rows]) + "\n")
    for share in ("0.1", "0"):
        overrides = [f"data.validation={share}", "data.target=y", f"run.out={tmp_path / 'run'}"]
        run = Run(Config(data=DataConfig(train=str(path))).with_overrides(overrides))
        assert run.model.task == "multiclass"
        assert run.resolved().data.task == "multiclass"


def test_threads_are_left_alone_where_the_step_goes_in_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnkit.backends import tuning
    from nnkit.backends.numpy import NumpyBackend

    monkeypatch.setattr(tuning, "fastest_threads", lambda *arguments: 1)
    run = Run(Config().with_overrides(["data.train=digits", f"run.out={tmp_path / 'run'}"]), own_process=True)
    for shards, told in ((1, {"BLAS threads": "1"}), (2, {})):
        monkeypatch.setattr(NumpyBackend, "shards", lambda self, rows, work, shards=shards: shards)
        assert fastest_numerics(run) == told


# --- errors that follow another ---


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_error_of_the_training_is_not_hidden_by_a_folder_that_cannot_be_written(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: BaseException = KeyboardInterrupt() if interrupted else DivergenceError("the loss became nan")

    def fail(run: Run, *given: Any) -> None:
        raise error

    def full(*given: Any, **others: Any) -> None:
        raise FileError("no space left")

    monkeypatch.setattr(Run, "_fit", fail)
    monkeypatch.setattr(Run, "_save", full)
    monkeypatch.setattr("nnkit.runs.run.write_findings", full)
    with pytest.raises(type(error)) as raised:
        run_of("iris", f"run.out={tmp_path / 'run'}").train()
    assert raised.value is error
    both = ["saving the model", "keeping the findings"]
    told = [f"Then {action} failed too: FileError: no space left" for action in both[interrupted:]]
    assert error.__notes__ == told


def test_a_diagnosis_that_fails_hides_no_divergence_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = DivergenceError("the loss became nan")

    def diverge(run: Run, *given: Any) -> None:
        run.model.network.initialize(run.model.preprocessor.width, 0)
        raise error

    def fail(*given: Any) -> None:
        raise ValueError("no figures")

    monkeypatch.setattr(Run, "_fit", diverge)
    monkeypatch.setattr("nnkit.diagnostics.diagnosis.Diagnosis.diverged", fail)
    with pytest.raises(DivergenceError) as raised:
        run_of("iris", f"run.out={tmp_path / 'run'}").train()
    assert raised.value is error
    assert error.__notes__ == ["Then the diagnosis failed too: ValueError: no figures"]
    assert load(tmp_path / "run" / "model.safetensors").details["ended"] == "diverged"
    assert (tmp_path / "run" / "findings.json").is_file()
