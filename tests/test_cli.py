"""The command line as a user meets it: files, printed words and exit codes."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from nnkit import Dense, Network, cli, load, load_dataset

SMALL = ("--hidden", "16", "--epochs", "3")


@dataclass
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str


def nnkit(*arguments: object) -> Result:
    """Run the command line here; a traceback leaves it as the exception that it is."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["nnkit", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return Result(code, out.getvalue(), err.getvalue())


def succeed(*arguments: object) -> str:
    result = nnkit(*arguments)
    assert result.code == 0, result.err
    assert result.err == ""
    return result.out


def without_work(text: str) -> str:
    """Return what another process wrote, without what it says of work that takes long."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.endswith(" ...\n"))


def metrics_of(model: Path, data: object) -> dict[str, float]:
    return json.loads(succeed("evaluate", model, data, "--json"))["metrics"]


def write_csv(path: Path, columns: dict[str, Any], header: bool = True, delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        if header:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read_csv(path: Path) -> dict[str, list[str]]:
    return read_csv_text(path.read_text())


def read_csv_text(text: str) -> dict[str, list[str]]:
    names, *rows = csv.reader(io.StringIO(text))
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def same_weights(a: Path, b: Path) -> bool:
    first, second = load(a).network.parameters(), load(b).network.parameters()
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


def people() -> dict[str, Any]:
    """Return 120 rows whose answer is the sign of the first column, but for a margin."""
    X = np.random.default_rng(0).normal(size=(120, 2))
    X[:, 0] += np.sign(X[:, 0])
    colours = np.array(["red", "green", "blue"])[np.arange(120) % 3]
    return {
        "height": X[:, 0].tolist(),
        "width": X[:, 1].tolist(),
        "colour": colours.tolist(),
        "target": np.where(X[:, 0] > 0, "yes", "no").tolist(),
    }


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of the built-in, with dropout, so that every draw counts."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    succeed("train", "digits", *SMALL, "--dropout", 0.2, "--learning-rate", 0.01, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("people") / "people.csv", people())


@pytest.fixture(scope="module")
def answers(table: Path) -> Path:
    """Return the run folder of a model whose labels are texts."""
    folder = table.parent / "run"
    options = ("--hidden", 16, "--epochs", 40, "--batch-size", 16, "--learning-rate", 0.01)
    succeed("train", table, *options, "--out", folder)
    return folder


# --- train ---


def test_train_leaves_a_run_folder(digits: Path) -> None:
    assert sorted(path.name for path in digits.iterdir()) == [
        "config.toml",
        "findings.json",
        "metrics.jsonl",
        "model.safetensors",
    ]
    rows = [json.loads(line) for line in (digits / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    best = min(rows, key=lambda row: row["validation_loss"])
    details = load(digits / "model.safetensors").details
    assert details["metrics"]["validation"]["accuracy"] == best["validation_accuracy"] > 0.5
    assert details["trained_rows"] == 1797 - 180


def test_train_without_a_source_takes_digits(digits: Path, tmp_path: Path) -> None:
    options = ("--dropout", 0.2, "--learning-rate", 0.01, "--out", tmp_path / "run")
    assert "digits: 1,617 rows to train on, 180 held out" in succeed("train", *SMALL, *options)
    assert same_weights(digits / "model.safetensors", tmp_path / "run/model.safetensors")


def test_the_run_folders_config_retrains_to_the_same_weights(digits: Path, tmp_path: Path) -> None:
    succeed("train", digits / "config.toml", "--out", tmp_path / "again")
    assert same_weights(digits / "model.safetensors", tmp_path / "again/model.safetensors")
    other = ("--seed", 1, "--out", tmp_path / "other")
    succeed("train", digits / "config.toml", *other)
    assert not same_weights(digits / "model.safetensors", tmp_path / "other/model.safetensors")


def test_the_config_of_a_relative_data_file_retrains_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    write_csv(data / "train.csv", people())
    write_csv(data / "held.csv", people())
    monkeypatch.chdir(data)
    files = ("--validation", "held.csv", "--set", "data.test=held.csv")
    succeed("train", "train.csv", *files, *SMALL, "--out", tmp_path / "one")
    monkeypatch.chdir(elsewhere)
    succeed("train", tmp_path / "one/config.toml", "--out", tmp_path / "two")
    assert same_weights(tmp_path / "one/model.safetensors", tmp_path / "two/model.safetensors")


def test_options_and_assignments_reach_the_config(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text(
        '[data]\ntrain = "iris"\n[training]\nepochs = 9\nbatch_size = 7\n[model]\nhidden = [5]\n'
    )
    out = succeed(
        *("train", config, "--epochs", 2, "--activation", "tanh", "--out", tmp_path / "run"),
        *("--set", "training.optimizer={name='sgd'}", "--set", "training.learning_rate=0.25"),
    )
    assert "4 → numbers in 16 bins → 5 tanh → dropout 0.1 → 3" in out
    assert "sgd at 0.25, batches of 7" in out
    assert "epoch 2/2" in out


def test_out_of_a_config_is_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('[data]\ntrain = "iris"\n[run]\nout = "here"\n[training]\nepochs = 1\n')
    succeed("train", tmp_path / "my.toml", "--hidden", 4)
    assert (tmp_path / "here/model.safetensors").is_file()


def test_no_validation_says_so_and_measures_the_training_rows(tmp_path: Path) -> None:
    out = succeed("train", "iris", *SMALL, "--validation", 0, "--out", tmp_path / "run")
    assert "150 rows to train on (" in out
    assert "held out" not in out
    assert "on 150 training rows" in out
    assert "validation" not in (tmp_path / "run/metrics.jsonl").read_text()


@pytest.mark.parametrize(("name", "rows"), [("xor", 4), ("exam", 6)])
def test_tiny_data_are_learnt_without_validation(name: str, rows: int, tmp_path: Path) -> None:
    options = ("--epochs", 300, "--learning-rate", 0.02, "--hidden", 16)
    out = succeed("train", name, *options, "--set", f"training.batch_size={rows}", "--out", tmp_path / "run")
    assert f"{rows} rows are too few to hold some out" in out
    assert metrics_of(tmp_path / "run", name)["accuracy"] == 1.0


def test_half_precision_on_a_cpu_trains_in_fp32_and_says_so(tmp_path: Path) -> None:
    from nnkit.backends import select

    if select("auto").backend.name != "cpu":
        pytest.skip("there is a GPU")
    out = succeed("train", "iris", *SMALL, "--precision", "fp16", "--out", tmp_path / "run")
    assert "has no fp16: training in fp32" in out
    assert load(tmp_path / "run/model.safetensors").details["precision"] == "fp32"


def test_a_headerless_tsv_takes_its_target_by_number(tmp_path: Path) -> None:
    columns = people()
    ordered = {"target": columns.pop("target"), **columns}
    path = write_csv(tmp_path / "rows.tsv", ordered, header=False, delimiter="\t")
    options = ("--hidden", 16, "--epochs", 40, "--batch-size", 16, "--learning-rate", 0.01)
    succeed("train", path, "--target", 0, *options, "--out", tmp_path / "run")
    assert metrics_of(tmp_path / "run", path)["accuracy"] > 0.95
    succeed("predict", tmp_path / "run", path, "--out", tmp_path / "p.csv")
    [predicted] = read_csv(tmp_path / "p.csv").values()
    assert np.mean(np.array(predicted) == np.array(ordered["target"])) > 0.95


# --- evaluate, predict, info ---


def test_evaluate_agrees_with_the_predictions(answers: Path, table: Path, tmp_path: Path) -> None:
    succeed("predict", answers, table, "--out", tmp_path / "p.csv")
    predicted = read_csv(tmp_path / "p.csv")
    assert list(predicted) == ["target"]
    right = np.mean(np.array(predicted["target"]) == np.array(people()["target"]))
    measured = json.loads(succeed("evaluate", answers, table, "--json"))
    assert measured["rows"] == 120
    assert measured["metrics"]["accuracy"] == right > 0.95
    shown = succeed("evaluate", answers, table)
    assert f"{right:.4f}" in shown
    assert "120 rows of people" in shown


def test_labels_come_back_in_their_own_type(tmp_path: Path) -> None:
    values = np.arange(60)
    for name, low, high in (("texts", "no", "yes"), ("flags", "false", "true"), ("numbers", "3", "7")):
        path = write_csv(
            tmp_path / f"{name}.csv",
            {"x": values.tolist(), "target": np.where(values < 30, low, high).tolist()},
        )
        options = ("--hidden", "none", "--epochs", 30, "--learning-rate", 0.1, "--batch-size", 20)
        succeed("train", path, *options, "--out", tmp_path / name)
        succeed("predict", tmp_path / name, path, "--out", tmp_path / "p.csv")
        predicted = read_csv(tmp_path / "p.csv")["target"]
        assert predicted == [low] * predicted.count(low) + [high] * predicted.count(high)
        assert 25 <= predicted.count(low) <= 35


def test_predictions_are_the_same_in_every_format(answers: Path, table: Path, tmp_path: Path) -> None:
    printed = succeed("predict", answers, table)
    for suffix in ("csv", "parquet", "npy"):
        out = succeed("predict", answers, table, "--out", tmp_path / f"p.{suffix}")
        assert out == f"120 predictions written to {tmp_path}/p.{suffix}\n"
    assert (tmp_path / "p.csv").read_text() == printed
    labels = read_csv(tmp_path / "p.csv")["target"]
    assert set(labels) == {"yes", "no"}
    assert pq.read_table(tmp_path / "p.parquet").to_pydict() == {"target": labels}
    assert np.load(tmp_path / "p.npy", allow_pickle=False).tolist() == labels


def test_standard_input_and_several_files_are_predicted(answers: Path, table: Path, tmp_path: Path) -> None:
    printed = succeed("predict", answers, table)
    lines = table.read_text().splitlines(keepends=True)
    parts = [tmp_path / f"part-{number}.csv" for number in (0, 1)]
    parts[0].write_text("".join(lines[:50]))
    parts[1].write_text(lines[0] + "".join(lines[50:]))
    assert succeed("predict", answers, *parts) == printed
    assert succeed("predict", answers, tmp_path / "part-*.csv") == printed
    program = "from nnkit.cli import main; main()"
    command = [sys.executable, "-c", program, "predict", str(answers), "-", "--quiet"]
    with table.open("rb") as file:
        streamed = subprocess.run(command, stdin=file, capture_output=True, check=True)
    assert streamed.stdout.decode() == printed


def test_a_run_on_a_pattern_has_a_plain_name(
    table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(table.read_text())
    succeed("train", "*.csv", "--epochs", 1, "--hidden", 2)
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"data-\d+-\d+", run.name)


def test_probabilities_belong_to_the_labels(answers: Path, table: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "parquet", "npy"):
        succeed("predict", answers, table, "--proba", "--out", tmp_path / f"p.{suffix}")
    written = read_csv(tmp_path / "p.csv")
    assert list(written) == ["probability_no", "probability_yes"]
    values = np.array([[float(value) for value in column] for column in written.values()]).T
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), values)
    np.testing.assert_array_equal(
        np.column_stack(list(pq.read_table(tmp_path / "p.parquet").to_pydict().values())), values
    )
    succeed("predict", answers, table, "--out", tmp_path / "labels.csv")
    labels = read_csv(tmp_path / "labels.csv")["target"]
    assert labels == np.array(["no", "yes"])[values.argmax(axis=1)].tolist()


def test_columns_are_kept_beside_predictions(answers: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", {"id": [f"a{row}" for row in range(120)], **people()})
    labels = read_csv_text(succeed("predict", answers, data))["target"]
    kept = read_csv_text(succeed("predict", answers, data, "--keep", "id", "--keep", "target"))
    assert kept["id"] == [f"a{row}" for row in range(120)]
    assert kept["target"] == people()["target"]
    assert kept["predicted_target"] == labels
    succeed(
        "predict", answers, data, "--keep", "colour", "--keep", 1, "--proba", "--out", tmp_path / "p.parquet"
    )
    written = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert list(written) == ["colour", "height", "probability_no", "probability_yes"]
    assert written["height"] == people()["height"]
    for arguments, words in (
        ((data, "--keep", "colur"), "there is no column 'colur': did you mean 'colour'?"),
        ((data, "--keep", "id", "--out", tmp_path / "p.npy"), "a .npy file holds predictions alone"),
        (("digits", "--keep", "0"), "--keep takes columns of a table"),
    ):
        result = nnkit("predict", answers, *arguments)
        assert (result.code, result.out) == (2, "")
        assert words in result.err


def test_columns_are_matched_by_name(answers: Path, table: Path, tmp_path: Path) -> None:
    columns = people()
    shuffled = {
        "id": list(range(120)),
        **{name: columns[name] for name in reversed(columns)},
        "note": ["?"] * 120,
    }
    other = write_csv(tmp_path / "other.csv", shuffled)
    assert metrics_of(answers, other) == metrics_of(answers, table)
    assert succeed("predict", answers, other) == succeed("predict", answers, table)
    unlabelled = {name: values for name, values in shuffled.items() if name != "target"}
    assert succeed("predict", answers, write_csv(tmp_path / "new.csv", unlabelled)) == succeed(
        "predict", answers, table
    )


def test_digits_are_predicted_as_the_model_does(digits: Path) -> None:
    dataset = load_dataset("digits")
    expected = load(digits / "model.safetensors").predict(dataset.train.features)
    header, *lines = succeed("predict", digits, "digits").splitlines()
    assert header.strip('"') == "target"
    assert [int(line) for line in lines] == expected.tolist()
    right = float(np.mean(expected == dataset.train.target))
    assert metrics_of(digits / "model.safetensors", "digits")["accuracy"] == pytest.approx(right, abs=1e-12)


def test_regression_predicts_in_its_own_units(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 200)
    price = 1e5 + 3e4 * x
    path = write_csv(tmp_path / "prices.csv", {"x": x.tolist(), "price": price.tolist()})
    options = ("--hidden", 16, "--epochs", 40, "--batch-size", 20, "--learning-rate", 0.01)
    succeed("train", path, "--target", "price", *options, "--out", tmp_path / "run")
    succeed("predict", tmp_path / "run", path, "--out", tmp_path / "p.csv")
    predicted = np.array(read_csv(tmp_path / "p.csv")["price"], dtype=np.float64)
    np.testing.assert_allclose(predicted, price, atol=6e3)
    _agree(metrics_of(tmp_path / "run", path), price, predicted)
    _agree_with_history(tmp_path / "run")


def test_poisson_predicts_counts_in_their_own_units(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    x = generator.uniform(-1, 1, 400)
    rate = np.exp(2.5 + 0.8 * x)
    count = generator.poisson(rate)
    path = write_csv(tmp_path / "visits.csv", {"x": x.tolist(), "visits": count.tolist()})
    options = ("--hidden", 16, "--epochs", 60, "--batch-size", 40, "--learning-rate", 0.02)
    loss = ("--loss", "poisson", "--set", "data.task=regression")
    succeed("train", path, "--target", "visits", *options, *loss, "--out", tmp_path / "run")
    succeed("predict", tmp_path / "run", path, "--out", tmp_path / "p.csv")
    predicted = np.array(read_csv(tmp_path / "p.csv")["visits"], dtype=np.float64)
    assert predicted.min() > 0
    np.testing.assert_allclose(predicted, rate, rtol=0.25)
    _agree(metrics_of(tmp_path / "run", path), count, predicted)
    _agree_with_history(tmp_path / "run")


def _agree(metrics: dict[str, float], truth: NDArray, predicted: NDArray) -> None:
    assert metrics["r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-6)
    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted), rel=1e-6)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(truth, predicted), rel=1e-6)


def _agree_with_history(run: Path) -> None:
    """Check that the figures on the way are in the units of those at the end."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["validation_loss"])
    final = load(run / "model.safetensors").details["metrics"]["validation"]
    for name in ("r2", "rmse", "mae"):
        assert best[f"validation_{name}"] == pytest.approx(final[name], rel=1e-3)


def test_info_describes_the_machine() -> None:
    from importlib.metadata import version

    out = succeed("info")
    assert re.search(rf"^numpy +{re.escape(np.__version__)}$", out, re.MULTILINE)
    assert re.search(rf"^nnkit-train +{re.escape(version('nnkit-train'))}$", out, re.MULTILINE)
    assert re.search(r"^device cpu +precisions fp32, fp64$", out, re.MULTILINE)
    assert "BLAS" in out


def test_info_describes_a_model(answers: Path, digits: Path) -> None:
    out = succeed("info", answers)
    assert re.search(r"^task +binary$", out, re.MULTILINE)
    assert re.search(r"^classes +no, yes$", out, re.MULTILINE)
    assert re.search(r"^columns +height, width, colour$", out, re.MULTILINE)
    # Two numbers with their bins, and the one-hot places of three colours.
    edges = load(answers / "model.safetensors").network.layers[0].edges
    inputs = 5 + sum(len(column) - 1 for column in edges)
    assert re.search(rf"^parameters +{inputs * 16 + 16 + 16 + 1:,} float32$", out, re.MULTILINE)
    assert re.search(r"^layers +16 relu → dropout 0.2 → 10$", succeed("info", digits), re.MULTILINE)


def test_output_without_a_terminal_has_no_escape_codes(answers: Path, table: Path) -> None:
    for arguments in (("evaluate", answers, table), ("info", answers), ("--help",), ("train", "-h")):
        assert "\x1b" not in succeed(*arguments)


# --- what goes wrong ---


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, answers: Path) -> Path:
    """Return a folder of inputs, each bad in a way of its own."""
    folder = tmp_path_factory.mktemp("bad")
    good = people()

    def spoilt(name: str, column: str, value: str) -> None:
        columns = {key: list(values) for key, values in good.items()}
        columns[column][5] = value
        write_csv(folder / f"{name}.csv", columns)

    write_csv(folder / "good.csv", good)
    spoilt("text", "height", "tall")
    spoilt("no_target", "target", "")
    write_csv(folder / "one_class.csv", {**good, "target": ["yes"] * 120})
    numbers = np.arange(120.0) / 7
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        spoiled = np.column_stack([numbers, numbers**2])
        spoiled[7, 0] = value
        np.save(folder / f"target_{name}.npy", spoiled)
        np.save(folder / f"feature_{name}.npy", spoiled[:, ::-1])
    write_csv(folder / "other_columns.csv", {"a": [1, 2], "target": ["yes", "no"]})
    write_csv(folder / "other_label.csv", {**good, "target": ["perhaps"] * 120})
    (folder / "empty.csv").write_bytes(b"")
    (folder / "file").write_text("x")
    (folder / "unknown_key.toml").write_text("[training]\n\nepoch = 3\n")
    (folder / "syntax.toml").write_text("[training]\nepochs = = 3\n")
    images = folder / "images"
    images.mkdir()
    content = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (50, 8, 8))
    content += np.random.default_rng(0).integers(0, 256, 3200, dtype=np.uint8).tobytes()
    labels = bytes([0, 0, 8, 1]) + (50).to_bytes(4, "big") + bytes(range(50))
    (images / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content)[:-900])
    (images / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    model = (answers / "model.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(model[:-40])
    (folder / "altered.safetensors").write_bytes(model[:-40] + bytes([model[-40] ^ 1]) + model[-39:])
    (folder / "pickle.safetensors").write_bytes(pickle.dumps({"weights": [1.0]}))
    (folder / "good.safetensors").write_bytes(model)
    return folder


TRAINING_MISTAKES = {
    "train {}/missing.csv": "missing.csv: no such file",
    "train {}/empty.csv": "the file is empty",
    "train {}/images": "train-images-idx3-ubyte.gz: the gzip file is cut short",
    "train {}/good.csv --target colours": "there is no column 'colours'",
    "train {}/one_class.csv": "one class only, 'yes'",
    "train {}/no_target.csv": "target 'target' is missing in row 5 (counting from 0)",
    "train {}/feature_nan.npy --target 0": "nan in row 7",
    "train {}/feature_inf.npy --target 0": "inf in row 7",
    "train {}/target_nan.npy --target 0": "row 7",
    "train {}/target_inf.npy --target 0": "row 7",
    "train {}/good.csv --validation {}/other_columns.csv": "height",
    "train {}/good.csv --set data.test={}/other_columns.csv": "height",
    "train {}/good.csv --set data.test={}/other_label.csv": "'perhaps' is not among the classes",
    "train {}/good.csv --validation {}/other_label.csv": "'perhaps' is not among the classes",
    "train iris --batch-size 0": "--batch-size must be a whole number of at least 1 and at most",
    "train iris --learning-rate 0": "--learning-rate must be a finite number greater than 0",
    "train iris --learning-rate 101": "--learning-rate must be a finite number greater than 0 and at most",
    "train iris --learning-rate nan": "--learning-rate must be a finite number",
    "train iris --dropout 1": "--dropout must be from 0 up to 1",
    "train iris --dropout -0.1": "--dropout must be from 0 up to 1",
    "train iris --hidden 0": "each element of --hidden must be a whole number of at least 1",
    "train iris --hidden wide": "--hidden takes whole numbers with commas, such as 256,128, or none, not",
    "train iris --hidden 12,-3": "each element of --hidden must be a whole number of at least 1",
    "train iris --hidden 3.5": "--hidden takes whole numbers",
    "train iris --hidden 5,,5": "--hidden takes whole numbers",
    "train iris --hidden=": "--hidden takes whole numbers",
    "train iris --epochs 0": "--epochs must be a whole number of at least 1, not 0",
    "train iris --seed -1": "--seed must be a whole number of at least 0, not -1",
    "train iris --l2 -0.1": "--l2 must be a finite number of at least 0, not -0.1",
    "train iris --early-stopping -1": "--early-stopping must be a whole number of at least 0, not -1",
    "train iris --validation 1.5": "--validation must be a share of the samples from 0 up to 1",
    "train iris --schedule {name": "--schedule {name: the value is not valid TOML",
    "train iris --epochs 3 --set training.epochs=0": "--set training.epochs=0: training.epochs must",
    "train iris --activation rel": "--activation: unknown activation 'rel'; did you mean relu?",
    "train iris --optimizer adm": "--optimizer: unknown optimizer 'adm'; did you mean adam?",
    "train iris --loss mse": "use 'cross_entropy'",
    "train iris --set epochs=3": "write training.epochs=",
    "train {}/unknown_key.toml": "line 3: unknown key 'epoch' in [training]; did you mean epochs?",
    "train {}/syntax.toml": "line 2: not valid TOML",
    "train {}/missing.toml": "missing.toml: cannot be read",
    "train iris --device tpu": "'tpu': there is no such device; choose one of auto, cpu",
    "train iris --device cpu --precision fp16": "device cpu has no precision 'fp16'; it has fp32, fp64",
    "train iris --out {}/file": "this is a file, and the run needs a folder: give another --out",
    "train iris --out {}/file/run": "this is a file, and the run needs a folder: give another --out",
    "train irish": "did you mean iris?",
}

USING_MISTAKES = {
    "evaluate {}/missing {}/good.csv": "missing: there is no such file or run; there are no runs in",
    "evaluate {} {}/good.csv": "there is no model.safetensors, as it is not a run's folder",
    "evaluate {}/truncated.safetensors {}/good.csv": "truncated or altered",
    "evaluate {}/altered.safetensors {}/good.csv": "truncated or altered",
    "predict {}/pickle.safetensors {}/good.csv": "not a file of the kind nnkit.model",
    "info {}/good.csv": "not a file of the kind nnkit.model",
    "info {}/empty.csv": "not a file of the kind nnkit.model",
    "evaluate {}/good.safetensors {}/missing.csv": "no such file",
    "evaluate {}/good.safetensors {}/other_columns.csv": "height",
    "evaluate {}/good.safetensors {}/other_label.csv": "'perhaps' is not among the classes",
    "evaluate {}/good.safetensors digits": "named columns ('height', 'width', 'colour')",
    "predict {}/good.safetensors {}/other_columns.csv": "height",
    "predict {}/good.safetensors {}/good.csv --out p.xls": ".csv, .parquet, .npy",
    "predict {}/good.safetensors {}/good.csv --out {}/file/p.csv": "cannot be written",
}


@pytest.mark.parametrize("command", [*TRAINING_MISTAKES, *USING_MISTAKES])
def test_a_mistake_ends_with_two_and_a_line_or_two(
    command: str, bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(bad.rglob("*"))
    result = nnkit(*(word.replace("{}", str(bad)) for word in command.split()))
    assert result.code == 2
    assert {**TRAINING_MISTAKES, **USING_MISTAKES}[command] in result.err
    assert result.err.startswith("error: ")
    assert 1 <= len(result.err.splitlines()) <= 2
    assert "epoch 1" not in result.out
    assert list(tmp_path.iterdir()) == []
    assert sorted(bad.rglob("*")) == before


def test_cuda_that_is_not_there_says_what_to_do() -> None:
    from nnkit.errors import DeviceError

    try:
        from nnkit.backends import select

        select("cuda")
    except DeviceError:
        result = nnkit("train", "iris", "--device", "cuda")
        assert result.code == 2
        assert "'cuda'" in result.err
        assert re.search("choose|install", result.err)
    else:
        pytest.skip("there is a GPU")


def test_divergence_keeps_the_best_weights_and_says_what_to_try(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ("--optimizer", "sgd", "--learning-rate", 100, "--schedule", "constant", "--epochs", 3)
    result = nnkit("train", "digits", *options, "--out", folder)
    assert result.code == 2
    assert re.search(r"in epoch \d at learning rate 100;", result.err)
    assert "Try learning_rate = 10, or clip_norm = 1.0" in result.err
    assert "the weights kept are the initial ones" in result.err
    assert len(result.err.splitlines()) == 2
    kept = load(folder / "model.safetensors").network.parameters()
    initial = Network([Dense(256, "relu"), Dense(128, "relu"), Dense(10)], inputs=64, seed=0).parameters()
    assert all(np.array_equal(kept[name], initial[name]) for name in initial)


# --- signals ---


@contextlib.contextmanager
def training(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a training without end in another process, and wait for its first epochs."""
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", "train", "moons", *options]
    command += ["--epochs", "10000000", "--hidden", "16", "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _wait(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size > 0)
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_model_and_ends(number: signal.Signals, code: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with training(folder) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    told = (
        f"stopped by {number.name}; the model so far is saved; resume with: nnkit train --resume {folder}\n"
    )
    assert without_work(err) == told
    assert f"model    {folder}/model.safetensors" in out
    assert "\x1b" not in out
    epochs = load(folder / "model.safetensors").details["epochs"]
    assert epochs == len((folder / "metrics.jsonl").read_text().splitlines()) > 0
    assert metrics_of(folder, "moons")["accuracy"] > 0.5


def test_a_signal_while_a_finished_training_is_measured_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnkit.runs.run import Run

    finish = Run._finish

    def interrupted(run: Run, *rows: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return finish(run, *rows)

    monkeypatch.setattr(Run, "_finish", interrupted)
    result = nnkit("train", "moons", "--hidden", 4, "--epochs", 2, "--out", tmp_path / "run")
    assert result.code == 0
    assert "stopped" not in result.err
    assert "accuracy" in result.out


def test_a_stopped_training_is_gone_on_with_to_the_same_weights(tmp_path: Path) -> None:
    options = ("train", "moons", "--hidden", 16, "--epochs", 400, "--batch-size", 16, "--early-stopping", 0)
    options += ("--set", "run.keep_checkpoints=true")
    succeed(*options, "--out", tmp_path / "whole")
    folder = tmp_path / "parts"
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", *map(str, options)]
    process = subprocess.Popen(
        [*command, "--out", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _wait(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size > 0)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    again = nnkit(*options, "--out", folder)
    assert again.code == 2
    assert f"--resume {folder}" in again.err
    assert "accuracy" in succeed("train", "--resume", folder)
    assert same_weights(tmp_path / "whole/model.safetensors", folder / "model.safetensors")
    figures = [
        [{key: row[key] for key in ("epoch", "step", "loss", "validation_loss")} for row in rows_of(place)]
        for place in (tmp_path / "whole", folder)
    ]
    assert figures[0] == figures[1]
    assert len(figures[0]) == 400
    longer = succeed("train", "--resume", folder, "--epochs", 401)
    assert "accuracy" in longer
    assert len(rows_of(folder)) == 401


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume", "{run}", "digits"), "leave out SOURCE"),
        (("--resume", "{run}", "--out", "elsewhere"), "leave out --out"),
        (("--resume", "{run}", "--overwrite"), "leave out --overwrite"),
        (
            ("--resume", "{run}", "--hidden", "5"),
            "--hidden cannot change when a training is resumed: it is [5] here and [16] in the run",
        ),
        (("--resume", "{run}", "--learning-rate", "0.5"), "it is 0.5 here and 0.01 in the run"),
        (("--resume", "{run}", "--set", "training.l1=1"), "it is 1.0 here and 0.0 in the run"),
        (("--resume", "nowhere"), "nowhere: there is no such file or run"),
    ],
)
def test_what_cannot_be_resumed_is_said(digits: Path, arguments: tuple[str, ...], message: str) -> None:
    result = nnkit("train", *(argument.format(run=digits) for argument in arguments))
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert message in result.err


def test_a_second_signal_ends_at_once() -> None:
    from nnkit.training.interrupts import stopped_by_signals

    stops: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    with stopped_by_signals(lambda: stops.append(1), signal.SIGINT, signal.SIGTERM) as ended:
        os.kill(os.getpid(), signal.SIGINT)
        assert (ended, stops) == ([signal.SIGINT], [1])
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
    assert stops == [1]


def test_an_interrupt_that_nothing_waits_for_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("nnkit.machine.describe_machine", interrupted)
    assert nnkit("info").code == 130


def test_too_little_memory_is_a_mistake_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> dict[str, str]:
        raise MemoryError

    monkeypatch.setattr("nnkit.machine.describe_machine", exhausted)
    result = nnkit("info")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "not enough memory" in result.err
