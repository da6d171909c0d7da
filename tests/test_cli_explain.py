"""`nnkit explain`, `nnkit audit` and `--track` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import SMALL, nnkit, people, succeed, write_csv

from nnkit.cli.explain import ExplainMethod
from nnkit.insight.explanation import Explanation
from nnkit.insight.waterfall import write_waterfall


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("explained") / "people.csv", people())


@pytest.fixture(scope="module")
def run(table: Path) -> Path:
    """Return the run folder of a model of labels that follow from the height."""
    folder = table.parent / "run"
    succeed("train", table, "--hidden", "16", "--epochs", "40", "--learning-rate", 0.01, "--out", folder)
    return folder


def test_importance_is_a_table_and_json(run: Path, table: Path) -> None:
    printed = succeed("explain", run, table)
    assert "permutation importance on 120 rows: by how much accuracy" in printed
    found = json.loads(succeed("explain", run, table, "--json", "--repeats", 3, "--metric", "log_loss"))
    assert found["metric"] == "log_loss"
    assert {column["column"] for column in found["columns"]} == {"height", "width", "colour"}
    assert found["columns"][0]["column"] == "height"
    assert found["columns"][0]["importance"] > 5 * abs(found["columns"][1]["importance"])
    assert len(found["columns"][0]["drops"]) == 3


def test_of_many_columns_the_most_important_are_shuffled(
    run: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = json.loads(succeed("explain", run, table, "--json"))["columns"]
    monkeypatch.setattr("nnkit.cli.explain._MOST_SHUFFLED", 1)
    result = nnkit("explain", run, table, "--json")
    assert json.loads(result.out)["columns"] == every[:1]
    assert "of 3 columns the 1 that gradients find the most important are shuffled" in result.err


def test_a_row_is_explained_in_the_users_columns(run: Path, table: Path) -> None:
    printed = succeed("explain", run, table, "--row", 4)
    assert "row 4, counting from 0" in printed
    assert "log-odds of 'yes'" in printed
    found = json.loads(succeed("explain", run, table, "--row", 4, "--json"))
    assert found["row"] == 4
    assert found["columns"][0]["column"] == "height"
    assert len(found["columns"]) == 3
    total = sum(column["contribution"] for column in found["columns"])
    assert found["base"] + total + found["gap"] == pytest.approx(found["value"])
    assert abs(found["gap"]) <= 0.01 * abs(found["value"] - found["base"])
    high = people()["height"][4] > 0
    assert (found["columns"][0]["contribution"] > 0) == high


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(
            method.value, marks=pytest.mark.extra(method.value) if method.value in ("shap", "lime") else ()
        )
        for method in ExplainMethod
        if method.value != "permutation"
    ],
)
def test_every_method_finds_the_column_that_decides(run: Path, table: Path, method: str) -> None:
    found = json.loads(succeed("explain", run, table, "--method", method, "--rows", 10, "--json"))
    assert found["rows"] == 10
    assert found["columns"][0]["column"] == "height"
    assert "height" in succeed("explain", run, table, "--method", method, "--row", 0)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_waterfall_is_drawn(run: Path, table: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"row{suffix}"
    assert f"picture  {path}" in succeed("explain", run, table, "--row", 2, "--out", path)
    contributions = np.array([[3.0, -2.0, 0.5]])
    explanation = Explanation(
        "gradients", ("a", "b $", "c"), contributions, np.array([1.0]), np.array([2.5]), ("price",)
    )
    write_waterfall(explanation, 0, path, values={"a": "12", "b $": "red"})
    if suffix == ".svg":
        assert "<svg" in path.read_text()
        return
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 800
    # One bar up and one down at least, in their two colours.
    assert (pixels == (0xD5, 0x5E, 0x00)).all(axis=2).sum() > 100
    assert (pixels == (0x00, 0x72, 0xB2)).all(axis=2).sum() > 100


def test_an_audit_is_a_table_and_json(run: Path, table: Path) -> None:
    printed = succeed("audit", run, table, "--by", "colour")
    assert "demographic parity difference" in printed
    found = json.loads(succeed("audit", run, table, "--by", "colour", "--json"))
    assert [group["group"] for group in found["groups"]] == ["blue", "green", "red"]
    assert [group["rows"] for group in found["groups"]] == [40, 40, 40]
    assert found["positive"] == "yes"
    columns = people()
    colours, answers = np.array(columns["colour"]), np.array(columns["target"])
    rate = found["groups"][2]["rates"]["true_positive_rate"]
    assert rate["rows"] == int(((colours == "red") & (answers == "yes")).sum())
    assert rate["low"] <= rate["value"] <= rate["high"]
    numbers = json.loads(succeed("audit", run, table, "--by", "width", "--json"))
    assert len(numbers["groups"]) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("explain", "--row", -1), "there is no row -1: people has rows 0 to 119"),
        (("explain", "--row", 120), "there is no row 120: people has rows 0 to 119"),
        (
            ("explain", "--method", "permutation", "--row", 1),
            "permutation importance is of all rows: leave out --row, or choose another --method",
        ),
        (("explain", "--out", "x.png", "--method", "gradients"), "say which with --row"),
        (("explain", "--row", 1, "--out", "x.bmp"), "pictures are written as .png, .svg, .pdf"),
        (
            ("explain", "--row", 1, "--class", "no"),
            "those of the other class are the opposite: leave out --class",
        ),
        (("explain", "--row", 1, "--metric", "f1"), "explains outputs, not a metric"),
        (("explain", "--metric", "r2"), "does not apply to a binary task"),
        (("explain", "--metric", "acuracy"), "did you mean accuracy"),
        (("explain", "--repeats", 0), "--repeats = 0 must be a whole number"),
        (("explain", "--rows", 0), "--rows = 0 must be a whole number"),
        (("explain", "--seed", -1), "--seed = -1 must be a whole number"),
        (("audit", "--by", "color"), "there is no column 'color': did you mean 'colour'"),
        (("audit", "--by", "colour", "--positive", "maybe"), "unknown class 'maybe'"),
        (("audit", "--by", "colour", "--threshold", 2), "--threshold must be a probability from 0 to 1"),
    ],
)
def test_a_mistake_ends_with_one_error(
    run: Path, table: Path, arguments: tuple[str, ...], words: str
) -> None:
    command, *others = arguments
    result = nnkit(command, run, table, *others)
    assert result.code == 2
    assert result.out == ""
    assert words in result.err
    assert len(result.err.strip().split("\n")) <= 2


def test_rows_without_a_target_can_be_explained_but_not_judged(run: Path, tmp_path: Path) -> None:
    columns = people()
    del columns["target"]
    path = write_csv(tmp_path / "new.csv", columns)
    assert "height" in succeed("explain", run, path, "--row", 1)
    for command in (("explain", run, path), ("audit", run, path, "--by", "colour")):
        result = nnkit(*command)
        assert result.code == 2
        assert "there is no column 'target'" in result.err


def test_pictures_are_explained_by_pixels_only(tmp_path: Path) -> None:
    from PIL import Image

    for name, level in (("dark", 30), ("light", 220)):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for number in range(8):
            colour = (level + number, level, level)
            Image.new("RGB", (10, 8), colour).save(tmp_path / "shades" / name / f"{number}.png")
    folder = tmp_path / "run"
    small = ("--set", "data.image_size=[4,5]", "--out", folder)
    succeed("train", tmp_path / "shades", *SMALL, *small)
    found = json.loads(succeed("explain", folder, tmp_path / "shades", "--method", "gradients", "--json"))
    assert len(found["columns"]) == 60
    for arguments, words in (
        ((), "explain pictures by gradients"),
        (("--method", "shap"), "choose --method gradients"),
    ):
        result = nnkit("explain", folder, tmp_path / "shades", *arguments)
        assert result.code == 2
        assert words in result.err


@pytest.mark.extra("tensorboard")
def test_training_is_tracked(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    succeed("train", table, *SMALL, "--out", folder, "--track", "tensorboard")
    assert len(list((folder / "tensorboard").glob("events.out.tfevents.*"))) == 1
    result = nnkit("train", table, *SMALL, "--out", tmp_path / "other", "--track", "tensorbord")
    assert result.code == 2
    assert "unknown tracker 'tensorbord'; did you mean tensorboard?" in result.err
    assert not (tmp_path / "other").exists()
