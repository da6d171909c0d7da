"""What `nnkit` makes of weights, the positive class, lists of labels and other targets, from file to file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score
from test_cli import nnkit

from nnkit import load

SMALL = ("--hidden", "4", "--epochs", "2", "--quiet")


def succeed(*arguments: object) -> str:
    result = nnkit(*arguments)
    assert result.code == 0, result.err
    return result.out


def fail(*arguments: object) -> str:
    result = nnkit(*arguments)
    assert result.code == 2, result.err
    return result.err


def write(path: Path, header: str, row: Callable[[int, np.random.Generator], str], rows: int = 80) -> Path:
    rng = np.random.default_rng(0)
    path.write_text("\n".join([header, *(row(i, rng) for i in range(rows))]) + "\n")
    return path


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def weighed(i: int, rng: np.random.Generator) -> str:
    x = rng.normal()
    return f"{x:.3f},{rng.normal():.3f},{i % 4 * 0.5},{'no' if x + rng.normal() > 0 else 'yes'}"


def parameters(model: Path) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in load(model).network.parameters().items()}


# --- weights ---


def test_figures_are_weighted_by_the_column(tmp_path: Path) -> None:
    data, run = write(tmp_path / "d.csv", "x,z,w,y", weighed), tmp_path / "run"
    succeed("train", data, *SMALL, "--set", "data.weight=w", "--out", run)
    found = json.loads(succeed("evaluate", run, data, "--json"))
    rows = read(data.read_text())
    truth, weights = [row["y"] for row in rows], [float(row["w"]) for row in rows]
    said = [row["y"] for row in read(succeed("predict", run, data))]
    shares = [float(row["probability_yes"]) for row in read(succeed("predict", run, data, "--proba"))]
    metrics = found["metrics"]
    assert found["weight"] == "w"
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, said, sample_weight=weights))
    expected = log_loss(truth, shares, labels=["no", "yes"], sample_weight=weights)
    assert metrics["log_loss"] == pytest.approx(expected, rel=1e-6)
    assert "weighted by w" in succeed("evaluate", run, data)
    # Without the column it counts every row alike.
    bare = write(
        tmp_path / "bare.csv", "x,z,y", lambda i, rng: "{0},{1},{3}".format(*weighed(i, rng).split(","))
    )
    found = json.loads(succeed("evaluate", run, bare, "--json"))
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert "weight" not in found
    # What the run says of the rows that it held out is weighted too.
    held = load(run).details["metrics"]["validation"]
    report = succeed("report", run)
    assert "the data have changed since" not in report
    assert held.keys() == metrics.keys()


def test_rows_without_weight_are_not_learnt_from(tmp_path: Path) -> None:
    def other(i: int, rng: np.random.Generator) -> str:
        x, z, weight, label = weighed(i, rng).split(",")
        return f"{x},{z},{weight},{('yes' if label == 'no' else 'no') if weight == '0.0' else label}"

    settings = (*SMALL, "--validation", "0", "--set", "data.weight=w")
    succeed("train", write(tmp_path / "a.csv", "x,z,w,y", weighed), *settings, "--out", tmp_path / "a")
    succeed("train", write(tmp_path / "b.csv", "x,z,w,y", other), *settings, "--out", tmp_path / "b")
    assert parameters(tmp_path / "a") == parameters(tmp_path / "b")


def test_class_weights_multiply_the_column(tmp_path: Path) -> None:
    def doubled(i: int, rng: np.random.Generator) -> str:
        x, z, weight, label = weighed(i, rng).split(",")
        return f"{x},{z},{float(weight) * (2 if label == 'yes' else 1)},{label}"

    data, twice = (write(tmp_path / f"{kind.__name__}.csv", "x,z,w,y", kind) for kind in (weighed, doubled))
    settings = (*SMALL, "--validation", "0", "--set", "data.weight=w")
    by_class = ("--set", "training.class_weight={yes = 2.0}")
    succeed("train", data, *settings, *by_class, "--out", tmp_path / "a")
    succeed("train", twice, *settings, "--out", tmp_path / "b")
    assert parameters(tmp_path / "a") == parameters(tmp_path / "b")


def test_a_weighted_training_resumes_exactly(tmp_path: Path) -> None:
    data = write(tmp_path / "d.csv", "n;x;z;w;y", lambda i, rng: f"{i};" + weighed(i, rng).replace(",", ";"))
    settings = [("weight", "w"), ("index", "n"), ("separator", ";"), ("positive", "no"), ("header", "yes")]
    given = [part for key, value in settings for part in ("--set", f"data.{key}={value}")]
    given += ["--set", "training.schedule=constant", "--set", "run.keep_checkpoints=true"]
    succeed("train", data, *SMALL, *given, "--epochs", "4", "--out", tmp_path / "whole")
    succeed("train", data, *SMALL, *given, "--out", tmp_path / "begun")
    succeed("train", "--resume", tmp_path / "begun", "--epochs", "4", "--quiet")
    assert parameters(tmp_path / "begun") == parameters(tmp_path / "whole")
    assert load(tmp_path / "begun").preprocessor.input_names == ("x", "z")
    data.write_text(data.read_text().replace(";0.5;", ";0.75;"))
    assert "training weights: other values" in fail(
        "train", "--resume", tmp_path / "begun", "--epochs", "6", "--quiet"
    )


# --- the positive class ---


def test_precision_is_that_of_the_positive_class(tmp_path: Path) -> None:
    data, run = write(tmp_path / "d.csv", "x,z,w,y", weighed), tmp_path / "run"
    succeed("train", data, *SMALL, "--set", "data.positive=no", "--out", run)
    found = json.loads(succeed("evaluate", run, data, "--json"))
    truth = [row["y"] for row in read(data.read_text())]
    said = [row["y"] for row in read(succeed("predict", run, data))]
    assert found["positive"] == "no"
    for name, score in {"precision": precision_score, "f1": f1_score}.items():
        assert found["metrics"][name] == pytest.approx(score(truth, said, pos_label="no"))
    assert json.loads(succeed("info", run, "--json"))["positive_class"] == "no"
    shares = read(succeed("predict", run, data, "--proba"))
    assert [float(row["probability_no"]) > 0.5 for row in shares] == [label == "no" for label in said]
    sure = [row["y"] for row in read(succeed("predict", run, data, "--threshold", "0.99"))]
    assert set(sure) == {"yes"}
    message = fail("train", data, *SMALL, "--set", "data.positive=maybe", "--out", tmp_path / "b")
    assert "'maybe'" in message
    assert "'no', 'yes'" in message


# --- several labels, several targets ---


def labelled(i: int, rng: np.random.Generator) -> str:
    x, z = rng.normal(size=2)
    labels = [label for label, yes in (("a", x > 0), ("c", z > 0), ("b", x < 1)) if yes]
    return f"{x:.3f},{z:.3f},{';'.join(labels)}"


def test_lists_of_labels_are_learnt_and_written_as_such(tmp_path: Path) -> None:
    data = write(tmp_path / "d.csv", "x,z,tags", labelled)
    labelled_rows = [line for line in data.read_text().split("\n") if not line.endswith(",")]
    data.write_text("\n".join(labelled_rows))
    run = tmp_path / "run"
    result = nnkit(
        "train", data, "--target", "tags", "--hidden", "4", "--epochs", "1", "--out", tmp_path / "n"
    )
    assert 'data.task = "multilabel"' in result.out
    given = ("--target", "tags", "--set", "data.task=multilabel", "--epochs", "60", "--out", run)
    succeed("train", data, "--hidden", "16", "--set", "training.learning_rate=0.02", "--quiet", *given)
    said = [row["tags"] for row in read(succeed("predict", run, data))]
    truth = [row["tags"] for row in read(data.read_text())]
    right = np.mean([set(a.split(";")) == set(b.split(";")) for a, b in zip(said, truth, strict=True)])
    assert right > 0.8
    shares = read(succeed("predict", run, data, "--proba"))
    assert list(shares[0]) == ["probability_a", "probability_b", "probability_c"]
    yes = {"".join(name[-1] for name, share in row.items() if float(share) > 0.5) for row in shares[:1]}
    assert yes == {said[0].replace(";", "")}
    found = json.loads(succeed("evaluate", run, data, "--json"))["metrics"]
    assert found["accuracy"] == pytest.approx(right)
    assert "labels" in succeed("info", run)
    assert "a, b, c" in succeed("info", run)
    other = tmp_path / "other.csv"
    other.write_text("x,z,tags\n1.5,0.5,a;b\n0.5,1.5,b;new\n")
    message = fail("evaluate", run, other)
    assert "'new'" in message
    assert "row 1" in message
    succeed("report", run)


@pytest.mark.parametrize("given", [("--target", "y1,y2"), ("--set", "data.target=y1,y2")])
def test_two_targets_are_named_with_a_comma(tmp_path: Path, given: tuple[str, ...]) -> None:
    data = write(
        tmp_path / "d.csv", "x,y1,y2", lambda i, rng: ",".join(f"{v:.3f}" for v in rng.normal(size=3))
    )
    succeed("train", data, *given, *SMALL, "--out", tmp_path / "run")
    assert load(tmp_path / "run").target.names == ("y1", "y2")
    assert list(read(succeed("predict", tmp_path / "run", data))[0]) == ["y1", "y2"]


def test_an_unknown_label_names_its_row(tmp_path: Path) -> None:
    data, run = write(tmp_path / "d.csv", "x,z,w,y", weighed), tmp_path / "run"
    succeed("train", data, *SMALL, "--out", run)
    other = tmp_path / "other.csv"
    other.write_text("x,z,w,y,again\n1,2,1,no,yes\n2,1,1,maybe,no\n")
    message = fail("evaluate", run, other)
    assert "'maybe'" in message
    assert "row 1" in message
    assert "2 rows" in succeed("evaluate", run, other, "--target", "again")


def test_later_files_are_read_as_the_config_said(tmp_path: Path) -> None:
    def row(i: int, rng: np.random.Generator) -> str:
        cells = [f"{i % 7},5", "99" if i % 5 == 0 else f"{rng.integers(2, 9)}.250,5", "ab"[i % 2]]
        return "~".join(cells)

    data = write(tmp_path / "d.csv", "exported", row)
    settings = {
        "separator": "~",
        "header": "no",
        "skip_rows": 1,
        "decimal": ",",
        "thousands": ".",
        "missing": 99,
        "missing_flags": "false",
    }
    given = [part for key, value in settings.items() for part in ("--set", f"data.{key}={value}")]
    run = tmp_path / "run"
    succeed("train", data, "--target", 2, *SMALL, *given, "--out", run)
    later = tmp_path / "later.csv"
    later.write_text("exported\n3,5~99\n")
    shares = succeed("predict", run, later, "--proba")
    model = load(run)
    [numbers] = [op for op in model.preprocessor.operations if getattr(op, "column", "") == "1"]
    # 99 is missing, so that the second column is its median, as a number with both signs.
    later.write_text(f"exported\n3,5~{f'{numbers.fill:.1f}'.replace('.', ',')}\n")
    assert read(succeed("predict", run, later, "--proba")) == read(shares)
    assert 2250 <= numbers.fill <= 8250.5


def test_init_writes_every_key_of_tables(tmp_path: Path) -> None:
    succeed("init", tmp_path / "c.toml", "--set", "data.header=no", "--set", "data.types.zip=category")
    text = (tmp_path / "c.toml").read_text()
    assert 'header = "no"\n' in text
    assert 'types = { zip = "category" }\n' in text
    keys = "weight index missing separator skip_rows comment quote encoding decimal thousands positive"
    assert all(f"\n# {key} = " in text for key in keys.split())
