"""Faults injected into trainings: a few of each kind that `bench/faults.py` injects by the hundred."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit import Callback, Dense, Dropout, Network, Trainer
from nnkit.errors import DivergenceError, FileError
from nnkit.files import locked
from nnkit.model import load
from nnkit.training.checkpoint import Checkpoint, Checkpoints, CheckpointWriter, newest_checkpoint
from nnkit.training.loop import Loop

RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(200, 6)).astype(np.float32)
Y = RANDOM.integers(0, 3, 200)
FIT: dict[str, Any] = {"epochs": 6, "batch_size": 32, "validation": 0.2}
TIMED = ("seconds", "samples_per_second")


def trainer() -> Trainer:
    network = Network([Dense(16, "relu"), Dropout(0.3), Dense(3)])
    return Trainer(network, "cross_entropy", device="cpu", schedule="cosine")


@pytest.fixture(scope="module")
def whole() -> Trainer:
    """Return the training that nothing disturbed."""
    undisturbed = trainer()
    undisturbed.fit(X, Y, **FIT)
    return undisturbed


def assert_resumes_to(whole: Trainer, folder: Path) -> None:
    resumed = trainer()
    resumed.resume(folder, X, Y, validation=FIT["validation"])
    for name, value in whole.network.parameters().items():
        np.testing.assert_array_equal(value, resumed.network.parameters()[name])
    rows, others = (
        [{key: value for key, value in row.items() if key not in TIMED} for row in one.history]
        for one in (whole, resumed)
    )
    assert rows == others


@pytest.fixture
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training wait for each checkpoint, so that what is on the disk does not depend on the machine."""
    consider = CheckpointWriter.consider

    def consider_and_wait(writer: CheckpointWriter, *moment: Any, **more: Any) -> None:
        consider(writer, *moment, **more)
        writer.wait()

    monkeypatch.setattr(CheckpointWriter, "consider", consider_and_wait)


class AtStep(Callback):
    """Does something after a step."""

    every = "1 steps"

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_step_end(self, trainer: Trainer, figures: Any) -> None:
        if figures.step == self.step:
            self.action(trainer)


def fit_with(action: Any, folder: Path, step: int = 13, every: str = "5 steps") -> Trainer:
    disturbed = trainer()
    checkpoints = Checkpoints(folder, every)
    disturbed.fit(X, Y, **FIT, callbacks=[AtStep(step, action)], checkpoints=checkpoints)
    return disturbed


# ---------------------------------------------------------------------------------------------------------
# Killed while a checkpoint is written.
# ---------------------------------------------------------------------------------------------------------


def killed_at_write(folder: Path, call: str, number: int) -> None:
    """Train in a forked process that kills itself as it calls a function of `os` for the nth time."""
    pid = os.fork()
    if pid == 0:
        try:
            original, calls = getattr(os, call), [0]

            def fatal(*arguments: Any) -> Any:
                calls[0] += 1
                if calls[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments)

            setattr(os, call, fatal)
            fit_with(lambda trainer: None, folder)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


# A write flushes the file, renames it, flushes the folder; the best one is linked and renamed.
@pytest.mark.parametrize(("call", "number"), [("fsync", 3), ("fsync", 4), ("replace", 2), ("replace", 3)])
@pytest.mark.usefixtures("written_at_once")
def test_a_process_killed_within_a_write_leaves_whole_files_and_resumes_bit_exact(
    call: str, number: int, whole: Trainer, tmp_path: Path
) -> None:
    killed_at_write(tmp_path, call, number)
    left = list(tmp_path.glob("step-*"))
    assert left
    for path in [*left, *tmp_path.glob("best.*")]:
        Checkpoint.load(path)
    assert_resumes_to(whole, tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("written_at_once")
def test_a_process_killed_before_its_first_checkpoint_has_a_name_leaves_none(tmp_path: Path) -> None:
    killed_at_write(tmp_path, "replace", 1)
    assert newest_checkpoint(tmp_path) is None
    assert len(list(tmp_path.glob(".step-*"))) == 1
    trainer().fit(X, Y, **FIT, checkpoints=tmp_path)
    assert not list(tmp_path.glob(".*"))


# ---------------------------------------------------------------------------------------------------------
# The command line: asked to end, in use, the folder's figures.
# ---------------------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from nnkit.cli import main; main()", "train"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "table.npz"
    np.savez(path, X=X, y=Y)
    return path


def started(table: Path, folder: Path, epochs: int) -> subprocess.Popen[str]:
    """Start a training that is too long to end by itself, and wait for its second epoch."""
    options = ["--hidden", "16", "--dropout", "0.3", "--batch-size", "32", "--device", "cpu"]
    options += ["--epochs", str(epochs), "--schedule", "constant", "--set", "training.restore_best=false"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*COMMAND, str(table), *options, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    while process.poll() is None and epochs_in(folder) < 2:
        time.sleep(0.01)
    return process


def epochs_in(folder: Path) -> int:
    """Return how many epochs a run has recorded so far."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_its_code_and_a_checkpoint_of_the_very_step(
    sent: signal.Signals, table: Path, tmp_path: Path
) -> None:
    process = started(table, tmp_path / "run", 1_000_000)
    process.send_signal(sent)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + sent
    assert f"nnkit train --resume {tmp_path / 'run'}" in printed
    checkpoint = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    saved = load(tmp_path / "run" / "model.safetensors").network.parameters()
    kept = checkpoint.arrays["values"].tobytes()
    assert all(value.tobytes() in kept for value in saved.values())


def test_a_run_in_use_is_refused_undisturbed_and_free_when_its_process_was_killed(
    table: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = started(table, folder, 1_000_000)
    before = epochs_in(folder)
    with (
        pytest.raises(FileError, match=f"^{folder}: in use by another training .process {process.pid}."),
        locked(folder),
    ):
        pass
    deadline = time.monotonic() + 30
    while epochs_in(folder) <= before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert epochs_in(folder) > before
    process.kill()
    process.communicate(timeout=60)
    with locked(folder):
        pass


# ---------------------------------------------------------------------------------------------------------
# Full disks, damaged and removed files, too little memory, weights that explode.
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("written_at_once")
def test_a_disk_that_is_full_for_a_while_costs_a_warning_and_nothing_else(
    whole: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING, "nnkit"):
        done = fit_with(lambda trainer: monkeypatch.setattr("nnkit.files.os.fsync", full), tmp_path)
    assert "No space left on device" in caplog.text
    np.testing.assert_array_equal(
        done.network.parameters()["layers.0.weight"], whole.network.parameters()["layers.0.weight"]
    )
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 10
    assert_resumes_to(whole, tmp_path)


@pytest.mark.parametrize("place", [9, 300, -1])
@pytest.mark.usefixtures("written_at_once")
def test_an_altered_byte_anywhere_is_noticed(
    place: int, whole: Trainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit_with(Trainer.stop, tmp_path)
    older, newest = sorted(tmp_path.glob("step-*"))[-2:]
    data = bytearray(newest.read_bytes())
    data[place] ^= 4
    newest.write_bytes(data)
    with caplog.at_level(logging.WARNING, "nnkit"):
        assert_resumes_to(whole, tmp_path)
    assert [newest.name in line and older.name in line for line in caplog.messages] == [True]


@pytest.mark.usefixtures("written_at_once")
def test_a_checkpoint_folder_removed_while_training_is_made_anew(whole: Trainer, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    fit_with(lambda trainer: shutil.rmtree(folder), folder)
    assert_resumes_to(whole, folder)


def explode(trainer: Trainer) -> None:
    """Do to a weight what an update that overflows does."""
    trainer.network.arena.values[0] = np.inf


# At step 12 the next to look at the weights is the checkpoint that is due; at step 13 the loss of step 14.
@pytest.mark.parametrize(("step", "newest"), [(12, 8), (13, 12)])
@pytest.mark.usefixtures("written_at_once")
def test_weights_that_are_not_finite_are_in_no_checkpoint(
    step: int, newest: int, whole: Trainer, tmp_path: Path
) -> None:
    with pytest.raises(DivergenceError):
        fit_with(explode, tmp_path, step, "4 steps")
    kept = sorted(tmp_path.glob("step-*"))
    assert kept[-1].name == f"step-{newest:09d}.safetensors"
    for path in kept:
        assert np.isfinite(Checkpoint.load(path).arrays["values"]).all()
    assert_resumes_to(whole, tmp_path)


def test_a_divergence_waits_for_the_checkpoint_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.fsync

    def slow(handle: int) -> None:
        time.sleep(0.2)
        original(handle)

    monkeypatch.setattr("nnkit.files.os.fsync", slow)

    with pytest.raises(DivergenceError):
        fit_with(explode, tmp_path, step=6)
    assert [path.name for path in tmp_path.glob("*step*")] == ["step-000000005.safetensors"]


def test_too_little_memory_for_a_copy_costs_that_checkpoint_only(
    whole: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original, calls = Loop._snapshot, []

    def exhausted_at_first(loop: Loop) -> Checkpoint:
        calls.append(loop)
        if len(calls) == 1:
            raise MemoryError
        return original(loop)

    monkeypatch.setattr(Loop, "_snapshot", exhausted_at_first)
    with caplog.at_level(logging.WARNING, "nnkit"):
        trainer().fit(X, Y, **FIT, checkpoints=Checkpoints(tmp_path, "5 steps"))
    assert caplog.text.count("not enough memory for a copy") == 1
    assert len(calls) > 1
    assert_resumes_to(whole, tmp_path)
