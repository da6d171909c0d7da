"""`nnkit check`, `nnkit tune-rate`, and what `nnkit train` says of a training that goes wrong."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from test_cli import nnkit, succeed

BAD = ("--set", "model.hidden=[8, 8, 8]", "--set", "model.activation=sigmoid")


def test_check_names_what_is_wrong_and_ends_well() -> None:
    out = succeed("check", "iris", *BAD)
    assert "! saturating activation: sigmoid in 3 hidden layers" in out
    assert "Leave out model.activation" in out


def test_check_says_so_where_nothing_is_wrong() -> None:
    out = succeed("check", "iris", "--strict")
    assert "nothing was found that is wrong before training" in out


def test_check_may_be_strict() -> None:
    assert nnkit("check", "iris", *BAD, "--strict").code == 1


def test_check_gives_json_alone() -> None:
    [finding] = json.loads(succeed("check", "iris", *BAD, "--json"))["findings"]
    assert set(finding) == {"name", "severity", "seen", "why", "change"}
    found = json.loads(succeed("check", "iris", "--json"))
    assert found["findings"] == []
    assert [column["kind"] for column in found["columns"]] == ["number"] * 5


def test_check_takes_a_config_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text('[data]\ntrain = "iris"\n[model]\noutput = "sigmoid"\n')
    assert "doubled output" in succeed("check", path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("command", ["check", "tune-rate"])
def test_bad_input_ends_with_2_and_a_line_or_two(command: str, tmp_path: Path) -> None:
    for arguments in (["missing.csv"], ["iris", "--set", "training.loss=mse"], ["iris", "--target", "9"]):
        result = nnkit(command, *arguments)
        assert result.code == 2
        assert 1 <= len(result.err.strip().splitlines()) <= 2


def test_train_says_what_is_serious_once_and_before_the_first_step(tmp_path: Path) -> None:
    out = succeed("train", "iris", *BAD, "--epochs", 2, "--out", tmp_path / "run")
    assert out.count("saturating activation") == 1
    assert out.index("saturating activation") < out.index("epoch")
    off = ("--set", "run.diagnostics=false", "--out", tmp_path / "off")
    assert "saturating" not in succeed("train", "iris", *BAD, "--epochs", 2, *off)


def test_train_says_at_its_end_what_was_seen_on_the_way(tmp_path: Path) -> None:
    out = succeed("train", "digits", "--epochs", 6, "--learning-rate", "1e-7", "--out", tmp_path / "run")
    assert out.count("flat loss") == 1
    assert out.index("flat loss") > out.index("epoch")


def test_tune_rate_prints_a_curve_and_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = succeed("tune-rate", "iris", "--steps", 60)
    assert "training.learning_rate = " in out
    assert "█" in out
    found = json.loads(succeed("tune-rate", "iris", "--steps", 60, "--json"))
    assert f"training.learning_rate = {found['suggested']:g}" in out
    assert out.endswith(f"train with it: nnkit train iris --learning-rate {found['suggested']:g}\n")
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"]) <= 60
    assert list(tmp_path.iterdir()) == []


def test_tune_rate_prints_a_command_that_trains_with_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "my rows.csv"
    path.write_text("x,y z\n" + "".join(f"{x},{x % 7}.5\n" for x in range(60)))
    settings = ("--set", "model.hidden=[4, 4]", "--set", "training.learning_rate=9")
    arguments = (path, "--target", "y z", *settings)
    found = json.loads(succeed("tune-rate", *arguments, "--steps", 20, "--json"))
    command = succeed("tune-rate", *arguments, "--steps", 20).splitlines()[-1].removeprefix("train with it: ")
    rate = f"{found['suggested']:g}"
    expected = ["nnkit", "train", str(path), "--target", "y z", "--learning-rate", rate, "--set"]
    assert shlex.split(command) == [*expected, "model.hidden=[4, 4]"]
    out = succeed(*shlex.split(command)[1:], "--epochs", 1, "--out", tmp_path / "run")
    assert f"adam at {float(rate):g}" in out


def test_tune_rate_draws_its_curve(tmp_path: Path) -> None:
    path = tmp_path / "curve.svg"
    found = json.loads(succeed("tune-rate", "iris", "--steps", 60, "--picture", path, "--json"))
    drawn = path.read_text(encoding="utf-8")
    assert f"suggested: {found['suggested']:.2g}" in drawn
    assert "learning rate (of one step, rising)" in drawn
    assert f"picture  {path}\n" in succeed("tune-rate", "iris", "--steps", 60, "--picture", path)
    result = nnkit("tune-rate", "iris", "--picture", tmp_path / "curve.gif")
    assert result.code == 2
    assert "curve.gif: plots are written as .png or .svg" in result.err
