"""Checkpoints and resuming: the training that was interrupted becomes the one that was not, bit for bit."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit import Callback, Dense, Dropout, Network, Trainer
from nnkit.errors import ConfigError, DataError, FileError, ModelFileError, NnkitError
from nnkit.training.checkpoint import Checkpoint, Checkpoints, CheckpointWriter, newest_checkpoint
from nnkit.training.history import History

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(205, 6)).astype(np.float32)
Y = RANDOM.integers(0, 3, 205)
FIT: dict[str, Any] = {"epochs": 4, "batch_size": 32}
STEPS = 7  # an epoch, the last batch of 13 rows

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "penalised and clipped": {"l1": 0.001, "l2": 0.01, "clip_norm": 0.5, "optimizer": "nesterov"},
    "a schedule over the whole": {"schedule": "cosine", "class_weight": "balanced"},
    "a schedule that listens": {
        "schedule": {"name": "reduce_on_plateau", "patience": 1},
        "early_stopping": 2,
    },
    "a cooldown after early stopping": {
        "optimizer": {"name": "adam", "learning_rate": 0.3},
        "early_stopping": 1,
        "cooldown": 1.0,
    },
    "dropout and decay that change": {
        "optimizer": {"name": "adamw", "weight_decay": 0.5},
        "dropout_schedule": "cosine",
        "weight_decay_schedule": {"name": "flat_cos", "warmup": 3},
    },
    "float64": {"precision": "fp64", "optimizer": "rmsprop"},
}


def trainer(**settings: Any) -> Trainer:
    network = Network([Dense(16, "relu"), Dropout(0.3), Dense(3)])
    return Trainer(network, "cross_entropy", device="cpu", **settings)


class StopAt(Callback):
    """Stops a training after a step, as a signal would."""

    every = "1 steps"

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer, figures: Any) -> None:
        if figures.step == self.step:
            trainer.stop()


def interrupted(folder: Path, step: int, settings: dict[str, Any] | None = None, **options: Any) -> Trainer:
    stopped = trainer(**(settings or {}))
    callbacks = [StopAt(step)]
    stopped.fit(X, Y, **{**FIT, **options}, callbacks=callbacks, checkpoints=Checkpoints(folder, "5 steps"))
    return stopped


def figures(history: History) -> dict[str, list[float]]:
    timed = ("seconds", "samples_per_second")
    return {name: history[name].tolist() for name in history.columns if name not in timed}


def assert_same(one: Trainer, other: Trainer) -> None:
    values, others = one.network.parameters(), other.network.parameters()
    for name in values:
        np.testing.assert_array_equal(values[name], others[name])
    assert figures(one.history) == figures(other.history)
    assert one.state == other.state


@pytest.mark.parametrize("validation", [None, 0.2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_resume_in_mid_epoch_and_at_its_end_is_bit_exact(
    variant: str, validation: float | None, tmp_path: Path
) -> None:
    settings = VARIANTS[variant]
    whole = trainer(**settings)
    whole.fit(X, Y, **FIT, validation=validation)
    for step in (1, 6, 9, 14):
        folder = tmp_path / str(step)
        interrupted(folder, step, settings, validation=validation)
        resumed = trainer(**settings)
        resumed.resume(folder, X, Y, validation=validation)
        assert_same(resumed, whole)


def test_a_training_stopped_again_and_again_is_the_same(tmp_path: Path) -> None:
    whole = trainer()
    whole.fit(X, Y, **FIT)
    interrupted(tmp_path, 2)
    for step in (3, 4, 8, 20):
        trainer().resume(tmp_path, X, Y, callbacks=[StopAt(step)])
    resumed = trainer()
    resumed.resume(tmp_path, X, Y)
    assert_same(resumed, whole)
    again = trainer()
    again.resume(tmp_path, X, Y)  # there is nothing left to do
    assert_same(again, whole)


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    plain, kept = trainer(), trainer()
    plain.fit(X, Y, **FIT)
    kept.fit(X, Y, **FIT, checkpoints=Checkpoints(tmp_path, "1 steps"))
    assert_same(kept, plain)


def test_more_epochs_train_on_from_the_last_weights(tmp_path: Path) -> None:
    longer, shorter = trainer(), trainer()
    longer.fit(X, Y, epochs=6, batch_size=32)
    shorter.fit(X, Y, epochs=4, batch_size=32, checkpoints=tmp_path)
    resumed = trainer()
    resumed.resume(tmp_path, X, Y, epochs=6)
    assert_same(resumed, longer)


def test_fewer_epochs_are_refused_and_the_checkpoints_stay(tmp_path: Path) -> None:
    trainer().fit(X, Y, epochs=4, batch_size=32, checkpoints=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="epochs = 3 is less than the training's 4"):
        trainer().resume(tmp_path, X, Y, epochs=3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_training_replaces_the_checkpoints_of_another_only_where_it_is_told_to(tmp_path: Path) -> None:
    trainer().fit(X, Y, **FIT, checkpoints=Checkpoints(tmp_path, "5 steps"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    one = trainer()
    with pytest.raises(ConfigError, match=r"holds checkpoints of another .*Trainer\.resume.*overwrite=True"):
        one.fit(X, Y, epochs=1, batch_size=32, checkpoints=tmp_path)
    assert one.network.inputs is None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    one.fit(X, Y, epochs=1, batch_size=32, checkpoints=Checkpoints(tmp_path, overwrite=True))
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000000007.safetensors"]
    kept = newest_checkpoint(tmp_path)
    assert kept is not None
    assert kept.epochs == 1


def test_a_training_that_cannot_begin_leaves_the_checkpoints_of_another(tmp_path: Path) -> None:
    trainer().fit(X, Y, **FIT, checkpoints=tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError):
        trainer().fit(X, Y[1:], **FIT, checkpoints=Checkpoints(tmp_path, overwrite=True))
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_can_be_resumed_too(tmp_path: Path) -> None:
    whole = trainer()
    whole.fit(X, Y, **FIT)
    interrupted(tmp_path, 10)
    resumed = trainer()
    resumed.resume(tmp_path / "step-000000010.safetensors", X, Y)
    assert_same(resumed, whole)


def test_only_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    slow = trainer()

    class Wait(Callback):
        every = "1 steps"

        def on_step_end(self, trainer: Trainer, figures: Any) -> None:
            # Every checkpoint that is due is written: the one before it is on the disk.
            while list(tmp_path.glob(".step-*")):
                pass

    slow.fit(X, Y, **FIT, callbacks=[Wait()], checkpoints=Checkpoints(tmp_path, "1 epochs", keep=2))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == "best.safetensors"
    assert len(names) == 3
    assert names[-1] == "step-000000028.safetensors"
    best = Checkpoint.load(tmp_path / "best.safetensors")
    assert best.best_so_far
    assert best.state["best_epoch"] == best.state["epoch"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "garbage"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trainer()
    whole.fit(X, Y, **FIT)
    interrupted(tmp_path, 10)
    older, newest = tmp_path / "step-000000010.safetensors", tmp_path / "step-000000012.safetensors"
    trainer().resume(tmp_path, X, Y, callbacks=[StopAt(12)])
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(
        {"flipped": bytes(data), "cut": bytes(data[:-9]), "empty": b"", "garbage": os.urandom(len(data))}[
            damage
        ]
    )
    resumed = trainer()
    with caplog.at_level(logging.WARNING, "nnkit"):
        resumed.resume(tmp_path, X, Y)
    said = [record.getMessage() for record in caplog.records if newest.name in record.getMessage()]
    assert len(said) == 1
    assert older.name in said[0]
    assert_same(resumed, whole)


def test_where_none_is_whole_nothing_is_trained(tmp_path: Path) -> None:
    interrupted(tmp_path, 10)
    for path in tmp_path.glob("step-*"):
        path.write_bytes(b"x" * 100)
    with pytest.raises(ModelFileError, match="no other checkpoint is left"):
        trainer().resume(tmp_path, X, Y)
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        trainer().resume(tmp_path / "elsewhere", X, Y)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"l2": 0.1}, "l2"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"precision": "fp64"}, "precision"),
    ],
)
def test_other_settings_are_refused_by_name(settings: dict, named: str, tmp_path: Path) -> None:
    interrupted(tmp_path, 10)
    with pytest.raises(ConfigError, match=f"{named}.*differs from the training to resume"):
        trainer(**settings).resume(tmp_path, X, Y)


@pytest.mark.parametrize(
    "change",
    [
        {"state": {}},
        {"state": {"epoch": -1}},
        {"state": {"batch": 10**6}},
        {"state": {"batch": 0.5}},
        {"state": {"plateau": None}},
        {"history": {"rows": [1]}},
        {"arrays": {}},
        {"arrays": {"values": np.zeros(3, np.float32)}},
        {"settings": {}},
        {"epochs": -1},
        {"data": {"training features": 5}},
    ],
)
def test_a_checkpoint_with_a_right_digest_and_wrong_content_is_refused(change: dict, tmp_path: Path) -> None:
    interrupted(tmp_path, 10)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    (name, value), *_ = change.items()
    before = getattr(checkpoint, name)
    wrong = {**before, **value} if value and isinstance(value, dict) else value
    replace(checkpoint, **{name: wrong}).save(tmp_path / "wrong")
    resumed = trainer()
    with pytest.raises(NnkitError):
        resumed.resume(tmp_path / "wrong", X, Y)
    assert len(resumed.history) == 0


def test_changed_data_are_refused_with_the_difference(tmp_path: Path) -> None:
    interrupted(tmp_path, 10, validation=(X[:20], Y[:20]))
    changed = X.copy()
    changed[100, 3] += 1e-3
    held = (X[:20], Y[:20])
    with pytest.raises(DataError, match="training features: other values"):
        trainer().resume(tmp_path, changed, Y, validation=held)
    with pytest.raises(DataError, match=r"205 × 6 float32 then, 200 × 6 float32 now"):
        trainer().resume(tmp_path, X[:200], Y[:200], validation=held)
    with pytest.raises(DataError, match="validation targets: other values"):
        trainer().resume(tmp_path, X, Y, validation=(X[:20], (Y[:20] + 1) % 3))
    with pytest.raises(DataError, match="validation features are missing"):
        trainer().resume(tmp_path, X, Y)


def test_the_number_of_blas_threads_is_restored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    seen = []

    class Look(Callback):
        def on_train_begin(self, trainer: Trainer, figures: Any) -> None:
            seen.append(trainer.backend.numerics()["BLAS threads"])

    with threadpool_limits(2, user_api="blas"):
        interrupted(tmp_path, 10)
        before = threadpool_info()
    then = Checkpoint.load(tmp_path / "step-000000010.safetensors").numerics["BLAS threads"]
    with threadpool_limits(1, user_api="blas"):
        trainer().resume(tmp_path, X, Y, callbacks=[Look()])
    assert seen == [then]
    assert before is not None
    assert "to rounding" not in caplog.text


def test_other_numerics_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interrupted(tmp_path, 10)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    other = replace(checkpoint, numerics={**checkpoint.numerics, "BLAS core type": "Zen"})
    with caplog.at_level(logging.WARNING, "nnkit"):
        trainer().resume(other, X, Y)
    assert (
        "the resumed training is equal up to rounding, not bit for bit: BLAS core type Zen then, "
        in caplog.text
    )


# ---------------------------------------------------------------------------------------------------------
# The writer: when one is due, and what happens where it cannot write.
# ---------------------------------------------------------------------------------------------------------


def snapshot(step: int = 1) -> Checkpoint:
    return Checkpoint(step, 0.0, False, False, 1, {}, {}, {}, {}, {}, {"values": np.arange(3.0)})


def steps_written(folder: Path, every: str | None, moments: list[tuple[int, float, bool]]) -> list[int]:
    writer = CheckpointWriter(Checkpoints(folder, every, keep=100), 10, dict)
    for step, seconds, ended in moments:
        writer.consider(step, seconds, ended, lambda step=step: snapshot(step))  # type: ignore[misc]
        writer.wait()
    return sorted(int(path.stem.partition("-")[2]) for path in folder.glob("step-*"))


def test_when_one_is_due(tmp_path: Path) -> None:
    moments = [(1, 0.5, False), (10, 1.5, True), (15, 2.0, False), (20, 2.2, True), (25, 400.0, False)]
    assert steps_written(tmp_path / "default", None, moments) == [10, 25]
    assert steps_written(tmp_path / "steps", "5 steps", moments) == [10, 15, 20, 25]
    assert steps_written(tmp_path / "epochs", "2 epochs", moments) == [20]
    assert steps_written(tmp_path / "time", "2 seconds", moments) == [15, 25]


def test_a_disk_that_is_full_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    writer = CheckpointWriter(Checkpoints(tmp_path, "5 steps"), 10, dict)
    writer.consider(5, 1.0, False, lambda: snapshot(5))
    writer.wait()
    monkeypatch.setattr("nnkit.files.os.fsync", full)
    writer.consider(10, 2.0, False, lambda: snapshot(10))
    writer.wait()
    assert "No space left on device" in caplog.text
    assert "the last one is of step 5" in caplog.text
    monkeypatch.undo()
    writer.consider(11, 3.0, False, lambda: snapshot(11))
    writer.wait()
    assert writer.written == 5  # not yet: it waits a while before it tries again
    writer.consider(12, 13.0, False, lambda: snapshot(12))
    writer.wait()
    assert writer.written == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000005.safetensors",
        "step-000000012.safetensors",
    ]


def test_too_little_memory_for_a_copy_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted() -> Checkpoint:
        raise MemoryError

    writer = CheckpointWriter(Checkpoints(tmp_path, "5 steps"), 10, dict)
    writer.consider(5, 1.0, False, exhausted)
    assert "not enough memory for a copy" in caplog.text


def test_a_folder_that_was_removed_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    writer = CheckpointWriter(Checkpoints(folder, "5 steps"), 10, dict)
    for step in (5, 10):
        writer.consider(step, float(step), False, lambda step=step: snapshot(step))  # type: ignore[misc]
        writer.wait()
        if step == 5:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    assert "was removed during the training" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["step-000000010.safetensors"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-000000005.safetensors.a1b2c3").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    CheckpointWriter(Checkpoints(tmp_path), 10, dict)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    written = snapshot(7)
    written.save(tmp_path / "file")
    read = Checkpoint.load(tmp_path / "file")
    np.testing.assert_array_equal(read.arrays["values"], written.arrays["values"])
    assert (read.step, read.finished, read.epochs) == (7, False, 1)
    with pytest.raises(FileError):
        Checkpoint.load(tmp_path / "no such file")
    (tmp_path / "other").write_bytes(b"{}")
    with pytest.raises(ModelFileError, match=r"nnkit\.checkpoint"):
        Checkpoint.load(tmp_path / "other")


def test_an_unwritable_place_keeps_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    done = trainer()
    done.fit(X, Y, **FIT, checkpoints=Checkpoints(tmp_path / "file", "5 steps"))
    assert len(done.history) == 4
    assert "a checkpoint could not be written" in caplog.text
    assert "there is none yet" in caplog.text
