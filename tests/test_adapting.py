"""Training that starts from a trained model: what is kept, what is added, what is frozen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nnkit
from nnkit import DataError, Dense, Network, Trainer, cli
from nnkit.backends.operations import Product
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError
from nnkit.insight.report import write_report
from nnkit.nn.losses import loss_from
from nnkit.runs.config import Config, load_config
from nnkit.runs.run import Run

COLOURS, ROWS = ["red", "green", "blue", "grey"], 400


def table(rows: int = ROWS, colours: int = 2, classes: int = 3, seed: int = 0) -> pd.DataFrame:
    """Return a table whose class follows from a number and a colour."""
    draw = np.random.default_rng(seed)
    colour = draw.integers(0, colours, rows)
    x, other = draw.normal(size=(2, rows))
    kind = (
        (np.clip((x + colour) // 1, -1, 1) + 1).astype(int) if classes > 2 else (x + colour > 0.5).astype(int)
    )
    kind = np.where(draw.random(rows) < 0.1, draw.integers(0, classes, rows), kind)
    names = np.array(["b", "d", "f", "c"])
    return pd.DataFrame(
        {"x": x, "colour": np.array(COLOURS)[colour], "other": other, "kind": names[kind], "size": 10 + 3 * x}
    )


def run(folder: Path, name: str, rows: pd.DataFrame, *settings: str, target: str = "kind") -> Run:
    """Train on rows, in a folder of that name."""
    rows.to_csv(folder / f"{name}.csv", index=False)
    given = [f"data.train={folder / name}.csv", f"run.out={folder / name}", "training.epochs=3"]
    drop = "size" if target == "kind" else "kind"
    made = Run(Config().with_overrides([*given, f"data.target={target}", f'data.drop=["{drop}"]', *settings]))
    made.train()
    return made


NETWORKS = {
    "ensemble": [],
    "one": ["model.ensemble=1", "model.hidden=[8]"],
    "linear": ["model.hidden=[]"],
    "periodic": ["model.ensemble=1", "model.numbers=periodic", "model.hidden=[8]"],
    "embedded": ["data.categories=embed", "model.hidden=[8]"],
    "tabm": ["model.ensemble=3", "model.ensemble_kind=tabm", "model.hidden=[8, 8]"],
}


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_beside_new_categories_a_model_predicts_what_it_did(settings: list[str], tmp_path: Path) -> None:
    before = run(tmp_path, "old", table(), *settings).model
    known, more = table(50, seed=1), table(200, colours=4, seed=2)
    after = nnkit.adapt(before, more, more["kind"])
    assert after.network.places != before.network.places
    np.testing.assert_allclose(after.predict_proba(known), before.predict_proba(known), atol=1e-6)
    # Until it is learnt, a new category counts for nothing, as an unseen one does.
    grey = known.assign(colour="grey")
    np.testing.assert_allclose(after.predict_proba(grey), before.predict_proba(grey), atol=1e-6)


@pytest.mark.parametrize("name", ["one", "linear", "periodic", "embedded"])
def test_a_new_class_takes_its_share_from_all_others_alike(name: str, tmp_path: Path) -> None:
    before = run(tmp_path, "old", table(), *NETWORKS[name]).model
    known, more = table(50, seed=1), table(200, classes=4, seed=2)
    after = nnkit.adapt(before, more, more["kind"])
    assert (before.classes.tolist(), after.classes.tolist()) == (["b", "d", "f"], ["b", "c", "d", "f"])
    others = after.predict_proba(known)[:, [0, 2, 3]]
    others /= others.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(others, before.predict_proba(known), atol=1e-6)


def test_a_run_that_started_from_a_model_is_reported_and_trained_again(tmp_path: Path) -> None:
    run(tmp_path, "old", table())
    table(classes=4, colours=4, seed=2).to_csv(tmp_path / "new.csv", index=False)
    given = [f"data.train={tmp_path / 'new.csv'}", f"run.out={tmp_path / 'new'}", "training.epochs=2"]
    first = Run(Config().with_overrides([*given, f"model.pretrained={tmp_path / 'old'}"]))
    first.train()  # the target's name is the old model's
    assert write_report(tmp_path / "new").stat().st_size > 10_000
    again = Run(
        load_config(tmp_path / "new" / "config.toml").with_overrides([f"run.out={tmp_path / 'again'}"])
    )
    again.train()
    for name, values in first.model.network.parameters().items():
        assert np.array_equal(values, again.model.network.parameters()[name]), name


def test_a_column_that_the_model_reads_is_no_target(tmp_path: Path) -> None:
    run(tmp_path, "old", table())
    start = [f"model.pretrained={tmp_path / 'old'}", "model.replace_head=true", "data.target=colour"]
    with pytest.raises(DataError, match="column 'colour' missing: the model was trained on them"):
        Run(Config().with_overrides([f"data.train={tmp_path / 'old.csv'}", *start]))


def test_labels_of_lists_are_added_to_those_of_a_multilabel_model(tmp_path: Path) -> None:
    old = table(300).assign(kind=lambda rows: np.where(rows["x"] > 0, "p", "p;s"))
    settings = ['data.task="multilabel"', "model.hidden=[4]"]
    before = run(tmp_path, "old", old, *settings).model
    more = old.assign(kind=np.where(old["other"] > 0, old["kind"], "q"))
    after = nnkit.adapt(before, more, more["kind"])
    assert after.target.labels == ("p", "q", "s")
    found, known = after.predict_proba(old), before.predict_proba(old)
    np.testing.assert_allclose(found[:, [0, 2]], known, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], 0.5)


def test_labels_of_other_types_are_added_in_the_models_own() -> None:
    network = Network([Dense(3)], inputs=2)
    rows = np.random.default_rng(0).normal(size=(30, 2))
    numbers = TargetEncoder.fit(np.arange(30) % 3)
    model = nnkit.Model(network, Preprocessor.fit(rows), numbers, loss_from("cross_entropy"))
    assert nnkit.adapt(model, rows, np.array(["0", "7"] * 15)).classes.tolist() == [0, 1, 2, 7]
    for wrong in (np.array(["0", "x"] * 15), np.array([0.5, 1.0] * 15)):
        with pytest.raises(DataError, match=r"the model's classes are 0, 1, 2, and the new rows have"):
            nnkit.adapt(model, rows, wrong)


def test_training_from_a_model_learns_what_is_new_and_starts_from_what_it_knew(tmp_path: Path) -> None:
    run(tmp_path, "old", table(2000), "training.epochs=30")
    few, asked = table(150, seed=3), table(1000, seed=4)
    start = [f"model.pretrained={tmp_path / 'old'}", "training.epochs=10"]
    tuned = run(tmp_path, "tuned", few, *start).model.evaluate(asked, asked["kind"])
    scratch = run(tmp_path, "scratch", few, "training.epochs=10").model.evaluate(asked, asked["kind"])
    assert tuned["log_loss"] < 0.8 * scratch["log_loss"]
    more = table(2000, colours=4, classes=4, seed=5)
    new = run(tmp_path, "new", more, *start, "training.learning_rate=2e-3").model
    grey = table(1000, colours=4, classes=4, seed=6).query("colour == 'grey'")
    assert new.evaluate(grey, grey["kind"])["accuracy"] > 0.8
    assert nnkit.load(tmp_path / "new").details["pretrained"] == str(tmp_path / "old")


def test_a_head_is_replaced_for_another_target(tmp_path: Path) -> None:
    old = run(tmp_path, "old", table()).model
    settings = [f"model.pretrained={tmp_path / 'old'}", "model.replace_head=true", "training.epochs=40"]
    new = run(tmp_path, "new", table(), *settings, "training.learning_rate=5e-3", target="size")
    assert (new.model.task, new.model.network.output_width) == ("regression", 1)
    scale = np.std(table()["size"])
    assert new.model.evaluate(table(seed=5), table(seed=5)["size"])["rmse"] < 0.5 * scale
    binary = nnkit.adapt(old, table(), table()["x"] > 0, replace_head=True)
    assert (binary.task, binary.loss.name) == ("binary", "binary_cross_entropy")
    with pytest.raises(ConfigError, match=r"tells False, True apart, and .* 'c' too: set `replace_head`"):
        nnkit.adapt(binary, table(), np.where(table()["x"] > 0, "True", "c"))


@pytest.mark.parametrize("name", ["ensemble", "one"])
def test_frozen_layers_stay_as_they_are_and_rates_differ_by_group(name: str, tmp_path: Path) -> None:
    old = run(tmp_path, "old", table(), *NETWORKS[name]).model.network.parameters()
    start = [f"model.pretrained={tmp_path / 'old'}", 'training.optimizer="sgd"', "training.schedule=constant"]
    frozen = run(tmp_path, "frozen", table(), *start, 'training.freeze=["rest"]').model.network.parameters()
    members = 4 if name == "ensemble" else 1
    layers = len(old) // 2 // members
    heads = {f"layers.{layers * (member + 1) - 1}" for member in range(members)}
    for parameter, values in old.items():
        same = np.array_equal(values, frozen[parameter])
        assert same == (parameter.rpartition(".")[0] not in heads), parameter
    # One step of gradient descent moves by rate · gradient.
    one = [
        "training.epochs=1",
        "training.batch_size=1000",
        "training.restore_best=false",
        "model.pretrained=",
    ]
    one[-1] += str(tmp_path / "old")
    rates = ["training.learning_rate={head=1e-2,rest=1e-3}", "training.learning_rate=1e-2"]
    moved = []
    for number, rate in enumerate(rates):
        after = run(tmp_path, f"step{number}", table(), *start, *one, rate).model.network.parameters()
        moved.append({key: after[key] - old[key] for key in old})
    for key in old:
        factor = 1.0 if key.rpartition(".")[0] in heads else 0.1
        np.testing.assert_allclose(moved[0][key], factor * moved[1][key], atol=1e-6)


def test_frozen_layers_cost_no_gradient() -> None:
    def products(groups: Any) -> int:
        network = Network([Dense(16, "relu"), Dense(16, "relu"), Dense(3)])
        trainer = Trainer(network, "cross_entropy", device="cpu", groups=groups)
        rows = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
        step, _ = trainer.prepared_step(rows, np.arange(64) % 3, 32)
        return sum(isinstance(one, Product) for one in step.operations_of(32))

    assert products(None) == 3 + 3 + 2  # forward, the gradients of weights, the derivatives by inputs
    assert products({"rest": {"trains": False}}) == 3 + 1
    assert products({"layers.0": {"trains": False}}) == 3 + 2 + 1


def test_scaling_is_kept_unless_asked(tmp_path: Path) -> None:
    old = run(tmp_path, "old", table()).model.preprocessor.operations[0]
    wide = table().assign(x=lambda rows: 100 * rows["x"] + 7)
    start = f"model.pretrained={tmp_path / 'old'}"
    kept, refitted = (
        run(tmp_path, name, wide, start, f"model.refit_scaling={name}").model.preprocessor.operations[0]
        for name in ("false", "true")
    )
    assert kept == old
    assert refitted.scale == pytest.approx(old.scale / 100, rel=0.1)


def test_a_training_from_a_model_resumes_bit_for_bit(tmp_path: Path) -> None:
    run(tmp_path, "old", table())
    more = table(1000, colours=4, classes=4)
    start = [f"model.pretrained={tmp_path / 'old'}", "training.epochs=6", "training.freeze=['layers.0']"]
    whole = run(tmp_path, "whole", more, *start).model.network.parameters()
    config = Config().with_overrides(
        [f"data.train={tmp_path / 'whole.csv'}", "data.target=kind", 'data.drop=["size"]', *start]
    )
    half = Run(config.with_overrides([f"run.out={tmp_path / 'half'}"]))

    class Stop(nnkit.Callback):
        def on_epoch_end(self, trainer: Any, status: nnkit.TrainingStatus) -> None:
            if status.epoch == 3:
                half.stop()

    half.train([Stop()])
    resumed = Run.resumed(tmp_path / "half")
    resumed.train()
    for name, values in resumed.model.network.parameters().items():
        assert np.array_equal(values, whole[name]), name


def test_pictures_and_texts_start_from_a_model_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (120, 16)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=images, y=np.arange(120) % 3)
    np.savez(tmp_path / "b.npz", x=images, y=np.arange(120) % 4)
    settings = ["training.epochs=2", "model.hidden=[8]"]
    old = Run(
        Config().with_overrides([f"data.train={tmp_path / 'a.npz'}", f"run.out={tmp_path / 'a'}", *settings])
    )
    old.train()
    start = [f"model.pretrained={tmp_path / 'a'}", "training.epochs=2"]
    new = Run(
        Config().with_overrides([f"data.train={tmp_path / 'b.npz'}", f"run.out={tmp_path / 'b'}", *start])
    )
    assert new.trainer.optimizer.learning_rate == pytest.approx(1e-4)
    new.train()
    assert new.model.classes.tolist() == [0, 1, 2, 3]
    texts = pd.DataFrame(
        {"text": [f"word{n % 5} other words {n % 7}" for n in range(200)], "kind": ["p", "q"] * 100}
    )
    texts.to_csv(tmp_path / "texts.csv", index=False)
    given = [
        f"data.train={tmp_path / 'texts.csv'}",
        "data.target=kind",
        "data.text=text",
        "training.epochs=2",
    ]
    Run(Config().with_overrides([*given, f"run.out={tmp_path / 'c'}"])).train()
    given.remove("data.text=text")
    again = Run(
        Config().with_overrides([*given, f"run.out={tmp_path / 'd'}", f"model.pretrained={tmp_path / 'c'}"])
    )
    again.train()
    assert again.model.preprocessor.text_columns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--hidden", "8"], "--hidden: follows from the model to start from: leave it out"),
        (["--set", "data.task=regression"], "data.task is for a new target"),
        (["--freeze", "layers.99"], "unknown parameter or layer 'layers.99' in groups"),
        (["--freeze", "head,rest"], "leave no parameter to train"),
        (["--learning-rate", "{head = 0}"], "must be a finite number greater than 0"),
        (["--set", "data.drop=['x']"], "column 'x' missing: the model was trained on them"),
    ],
)
def test_what_does_not_suit_the_model_ends_with_a_line(
    settings: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(tmp_path, "old", table())
    command = [
        "train",
        tmp_path / "old.csv",
        "--from",
        tmp_path / "old",
        *settings,
        "--out",
        tmp_path / "new",
    ]
    monkeypatch.setattr(sys, "argv", ["nnkit", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_no_model_to_start_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"replace_head.*is for a model to start from"):
        Config().with_overrides(["model.replace_head=true"])
    with pytest.raises(nnkit.FileError, match="there is no such file or run"):
        Run(Config().with_overrides([f"model.pretrained={tmp_path / 'none'}"]))
