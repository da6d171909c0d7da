"""Runs as the command line knows them: by a name without its time, listed, never overwritten unasked."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from test_cli import nnkit, rows_of, same_weights, succeed, write_csv

from nnkit import load
from nnkit.errors import DataError, FileError
from nnkit.files import locked
from nnkit.run_folder import claim_folder, find_run, model_file, run_folders

QUICK = ("--hidden", 4, "--epochs", 2)


def make_runs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.toml").touch()


# --- by name ---


def test_a_name_without_its_time_is_the_newest_run_of_that_name(tmp_path: Path) -> None:
    make_runs(
        tmp_path,
        *("mnist-20261123-082514", "mnist-20261124-000000", "mnist-20261124-000000-2"),
        *("mnist-20250101-235959", "mnist-wide-20270101-000000", "mnist-20280101", "own"),
    )
    (tmp_path / "mnist-20290101-000000").mkdir()  # no run
    assert find_run(tmp_path / "mnist").name == "mnist-20261124-000000-2"
    assert find_run(tmp_path / "mnist-wide").name == "mnist-wide-20270101-000000"
    for there in ("own", "mnist-20261123-082514", "mnist-20290101-000000"):
        assert find_run(tmp_path / there) == tmp_path / there


def test_a_name_that_matches_nothing_says_what_runs_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=f"mnist: there is no such file or run; there are no runs in {tmp_path}"
    ):
        find_run(tmp_path / "mnist")
    make_runs(tmp_path, "mnist-20261123-082514", "houses-20261123-082514", "houses-20261124-082514")
    with pytest.raises(FileError, match=r"did you mean \S*/houses-20261124-082514\?$"):
        find_run(tmp_path / "house")
    with pytest.raises(
        FileError, match="the runs there are houses-20261124-082514, mnist-20261123-082514, hou"
    ):
        find_run(tmp_path / "zzz")
    make_runs(tmp_path / "elsewhere" / "runs", "wine-20261123-082514")
    with pytest.raises(FileError, match=r"did you mean \S*/elsewhere/runs/wine-20261123-082514\?$"):
        find_run(tmp_path / "elsewhere" / "wine")  # the folder was left out


def test_the_model_of_a_run_is_found_by_folder_name_and_file(tmp_path: Path) -> None:
    make_runs(tmp_path, "iris-20261123-082514")
    with pytest.raises(FileError, match=r"there is no model\.safetensors, as its training has not ended"):
        model_file(tmp_path / "iris")
    file = tmp_path / "iris-20261123-082514" / "model.safetensors"
    file.touch()
    for path in (file, file.parent, tmp_path / "iris", tmp_path / "iris/model.safetensors"):
        assert model_file(path) == file


def test_commands_and_python_take_a_run_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    succeed("train", "iris", *QUICK)
    [folder] = (tmp_path / "runs").iterdir()
    file = f"runs/{folder.name}/model.safetensors"
    for command in (
        ("evaluate", "runs/iris", "iris"),
        ("predict", "runs/iris", "iris"),
        ("info", "runs/iris"),
        ("plot", "learning", "runs/iris", "--out", "learning.svg"),
        ("plot", "confusion", "runs/iris", "--out", "confusion.svg"),
        ("explain", "runs/iris", "iris"),
        ("report", "runs/iris"),
        ("train", "--resume", "runs/iris"),
    ):
        result = nnkit(*command)
        assert (result.code, result.err.replace(f"model    {file}\n", "")) == (0, "")
    assert (folder / "report.html").is_file()
    assert load("runs/iris").details["data"] == load("runs/iris/model.safetensors").details["data"] == "iris"
    assert load(folder).details["ended"] == "finished"


# --- names of new runs ---


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(claim_folder, [tmp_path / "runs" / "x-20261123-082514"] * 24))
    assert len(set(made)) == 24
    assert all(folder.is_dir() for folder in made)


def test_processes_that_begin_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    program = (
        "import time; from pathlib import Path; from nnkit.run_folder import claim_folder\n"
        "for _ in range(50): print(claim_folder(Path('runs/x-20261123-082514')))"
    )
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = [line for process in both for line in process.communicate()[0].split()]
    assert len(set(names)) == len(names) == 100


def test_a_training_that_cannot_begin_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nnkit("train", "iris", *QUICK, "--set", "data.test=diabetes").code == 2
    assert not any((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("names", "words"), [("foo", "unknown tracker 'foo'"), ("wandb", "wandb is not installed")]
)
def test_a_tracker_that_cannot_be_used_is_refused_before_a_folder_is_made(
    names: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    for source in ("iris", "missing.csv"):
        result = nnkit("train", source, *QUICK, "--track", names)
        assert result.code == 2
        assert words in result.err
    assert not (tmp_path / "runs").exists()


def test_a_new_run_needs_a_folder_to_be_in(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(FileError, match="runs: cannot be made: File exists"):
        claim_folder(tmp_path / "runs" / "x")


@pytest.mark.parametrize("under", [(), ("deep", "run")])
def test_a_file_in_the_place_of_the_folder_is_refused_before_data_are_read(
    tmp_path: Path, under: tuple[str, ...]
) -> None:
    file = tmp_path / "out"
    file.write_text("mine")
    for more in ((), ("--overwrite",)):
        result = nnkit("train", tmp_path / "missing.csv", "--out", file.joinpath(*under), *more)
        assert (result.code, result.err) == (
            2,
            f"error: {file}: this is a file, and the run needs a folder: give another --out\n",
        )
    assert file.read_text() == "mine"


# --- overwriting ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    succeed("train", "iris", *QUICK, "--out", folder)
    return folder


def test_a_finished_run_is_not_overwritten_unasked(finished: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    for again in (("iris", *QUICK, "--out", finished), (finished / "config.toml",)):
        result = nnkit("train", *again)
        assert result.code == 2
        assert result.err == (
            f"error: {finished} holds a finished run: give another --out, or give --overwrite to replace it\n"
        )
    assert (finished / "model.safetensors").read_bytes() == before


def copied(folder: Path, to: Path) -> tuple[Path, dict[str, bytes]]:
    """Return a copy of a run, and its files' contents by name."""
    shutil.copytree(folder, to)
    return to, {path.name: path.read_bytes() for path in to.iterdir()}


def test_a_finished_run_whose_checkpoints_cannot_be_listed_is_not_overwritten_unasked(
    finished: Path, tmp_path: Path
) -> None:
    run, before = copied(finished, tmp_path / "run")
    (run / "checkpoints").write_text("no folder")
    result = nnkit("train", "iris", *QUICK, "--out", run)
    assert result.code == 2
    assert f"{run} holds a finished run" in result.err
    assert all((run / name).read_bytes() == content for name, content in before.items())


def test_checkpoints_that_cannot_be_removed_leave_the_run_as_it_was(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, before = copied(finished, tmp_path / "run")
    (run / "checkpoints").mkdir()

    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    result = nnkit("train", "iris", *QUICK, "--out", run, "--overwrite")
    assert (result.code, result.err) == (
        2,
        f"error: {run / 'checkpoints'}: cannot be removed: Permission denied\n",
    )
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_the_config_of_a_run_trains_it_again_in_its_place(finished: Path) -> None:
    before = load(finished).network.parameters()
    (finished / "report.html").write_text("of the run before")
    succeed("train", finished / "config.toml", "--overwrite")
    after = load(finished).network.parameters()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert len(rows_of(finished)) == 2
    assert not (finished / "report.html").exists()


def test_a_run_under_way_is_not_overwritten_even_if_asked(finished: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from nnkit.files import locked\n"
        f"with locked(Path({str(finished)!r})): print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        result = nnkit("train", "iris", *QUICK, "--out", finished, "--overwrite")
        listed = succeed("runs", finished.parent)
        holder.communicate("")
    assert result.code == 2
    assert f"in use by another training (process {holder.pid})" in result.err
    assert "running, epoch 2 of 2" in listed


# --- resuming what is finished ---


def test_resuming_a_finished_run_says_that_nothing_is_left(finished: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    assert succeed("train", "--resume", finished) == (
        f"{finished} is finished after 2 of 2 epochs: nothing is left to do\n"
        f"To train longer, start again: nnkit train {finished}/config.toml --epochs 4 --overwrite\n"
    )
    assert (finished / "model.safetensors").read_bytes() == before
    result = nnkit("train", "--resume", finished, "--epochs", 3)
    assert result.code == 2
    assert result.err == (
        f"error: {finished} is finished and its checkpoints are gone: no epochs can be added.\n"
        "Train again with more --epochs; run.keep_checkpoints = true keeps the checkpoints\n"
    )


def test_epochs_cannot_be_lowered(tmp_path: Path) -> None:
    kept = ("--set", "run.keep_checkpoints=true")
    succeed("train", "iris", *QUICK, *kept, "--out", tmp_path / "run")
    before = (tmp_path / "run/config.toml").read_bytes()
    result = nnkit("train", "--resume", tmp_path / "run", "--epochs", 1)
    assert result.code == 2
    assert result.err == (
        "error: --epochs can be raised when a training is resumed, not lowered: "
        "it is 1 here and 2 in the run\n"
    )
    assert (tmp_path / "run/config.toml").read_bytes() == before
    assert list((tmp_path / "run/checkpoints").glob("step-*"))


def test_kept_checkpoints_let_a_finished_run_train_on_as_a_longer_one(tmp_path: Path) -> None:
    kept = ("--set", "run.keep_checkpoints=true", "--set", "training.schedule=constant")
    succeed("train", "iris", *QUICK, *kept, "--out", tmp_path / "run")
    assert list((tmp_path / "run/checkpoints").glob("step-*"))
    told = succeed("train", "--resume", tmp_path / "run")
    assert told.endswith(f"To train on: nnkit train --resume {tmp_path / 'run'} --epochs 4\n")
    succeed("train", "--resume", tmp_path / "run", "--epochs", 4)
    succeed("train", "iris", "--hidden", 4, "--epochs", 4, *kept, "--out", tmp_path / "whole")
    assert same_weights(tmp_path / "run/model.safetensors", tmp_path / "whole/model.safetensors")


# --- nnkit runs ---


def test_runs_are_listed_the_newest_first_with_what_came_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    succeed("train", "iris", *QUICK, "--out", "runs/iris-20260102-030405")
    succeed("train", "diabetes", *QUICK, "--out", "runs/diabetes-20260203-040506")
    killed = tmp_path / "runs/killed-20260304-050607"
    killed.mkdir()
    (killed / "config.toml").write_text('[data]\ntrain = "moons"\ntask = "binary"\n[training]\nepochs = 9\n')
    (killed / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.4}\n')
    (tmp_path / "runs/other").mkdir()
    lines = succeed("runs").splitlines()
    accuracy, r2 = (load(f"runs/{name}").details["metrics"]["validation"] for name in ("iris", "diabetes"))
    assert [re.split(r" {2,}", line) for line in lines] == [
        ["killed-20260304-050607", "moons, binary", "no model, epoch 2 of 9"],
        ["diabetes-20260203-040506", "regression", "finished", f"r2 {r2['r2']:.4f}"],
        ["iris-20260102-030405", "multiclass", "finished", f"accuracy {accuracy['accuracy']:.4f}"],
    ]
    assert max(map(len, lines)) <= 80
    listed = json.loads(succeed("runs", "--json"))["runs"]
    assert [run["state"] for run in listed] == ["no model", "finished", "finished"]
    assert listed[1]["metrics"] == r2
    assert datetime.fromisoformat(listed[2]["began"]) == datetime(2026, 1, 2, 3, 4, 5)
    assert run_folders(tmp_path / "nowhere") == []
    assert nnkit("runs", "nowhere").code == 2
    (tmp_path / "empty").mkdir()
    assert succeed("runs", "empty") == "there are no runs in empty\n"


def test_an_interrupted_run_is_listed_as_such(tmp_path: Path) -> None:
    program = (
        "from nnkit.runs.config import Config; from nnkit.training.callbacks import Callback; "
        "from nnkit.runs.run import Run\n"
        f"run = Run(Config().with_overrides(['data.train=iris', 'run.out={tmp_path / 'run'}']))\n"
        "class Stop(Callback):\n"
        "    def on_epoch_end(self, trainer, figures):\n"
        "        run.stop() if figures.epoch == 3 else None\n"
        "run.train([Stop()])"
    )
    exec(program, {})
    shown = re.split(r" {2,}", succeed("runs", tmp_path).rstrip())
    assert shown[0] == "run"
    assert datetime.strptime(shown[1], "%Y-%m-%d %H:%M").date() == datetime.now().date()
    assert shown[2:] == ["iris, multiclass", "interrupted, epoch 3 of 400"]
    with locked(tmp_path / "run"):
        assert "running, epoch 3 of 400" in succeed("runs", tmp_path)


# --- quiet ---


def test_quiet_commands_print_their_result_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(r"runs/iris-\d{8}-\d{6}/model\.safetensors\n", succeed("train", "iris", *QUICK, "-q"))
    table = succeed("evaluate", "runs/iris", "iris", "--quiet")
    assert "accuracy" in table
    assert len(succeed("predict", "runs/iris", "iris", "-q").splitlines()) == 151
    assert succeed("predict", "runs/iris", "iris", "-q", "--out", "p.csv") == ""
    assert succeed("report", "runs/iris", "-q") == ""
    result = nnkit("train", "irish", "-q")
    assert (result.code, result.out) == (2, "")
    assert "did you mean iris?" in result.err


# --- metrics without a meaning ---


def test_metrics_that_these_rows_do_not_define_say_why(tmp_path: Path) -> None:
    rows = {"x": [i / 10 for i in range(60)], "target": ["no"] * 30 + ["yes"] * 30}
    data = write_csv(tmp_path / "rows.csv", rows)
    ones = write_csv(tmp_path / "ones.csv", {"x": [0.1, 0.2], "target": ["no", "no"]})
    succeed("train", data, *QUICK, "--out", tmp_path / "run")
    table = succeed("evaluate", tmp_path / "run", ones)
    assert re.search(r"roc auc +│ +undefined", table)
    assert "f1, precision, recall, roc auc: no row here is of class 'yes'\n" in table
    told = json.loads(succeed("evaluate", tmp_path / "run", ones, "--json"))
    assert told["metrics"]["roc_auc"] is None
    assert set(told["undefined"]) == {"f1", "precision", "recall", "roc_auc"}
    assert "undefined" not in json.loads(succeed("evaluate", tmp_path / "run", data, "--json"))


def test_advice_does_not_contradict_the_best_epoch(tmp_path: Path) -> None:
    options = ("iris", "--hidden", "8", "--epochs", 15)
    out = succeed("train", *options, "--out", tmp_path / "rising")
    assert "updates were made; more epochs or a smaller batch may do better" in out
    assert "the weights are those of epoch" not in out
    wild = ("--learning-rate", 1, "--set", "training.schedule=constant", "--dropout", 0.5)
    out = succeed("train", *options, *wild, "--out", tmp_path / "wild")
    assert "the weights are those of epoch" in out
    assert "may do better" not in out


def test_a_display_that_cannot_be_closed_does_not_hide_why_the_training_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise DataError("the rows are gone")

    def broken(display: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("nnkit.runs.run.Run.train", fail)
    monkeypatch.setattr("nnkit.training.progress.ProgressDisplay.close", broken)
    result = nnkit("train", "iris", *QUICK, "--out", tmp_path / "run")
    assert result.code == 2
    assert result.err.strip().endswith("the rows are gone")
