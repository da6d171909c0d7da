"""Trainings that are killed, and trainings that are asked to end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from faults.trainings import Case, Child, Record, Workshop, continuation, draw_case, end_of, unwhole
from nnkit.tensorfile import read_tensors
from nnkit.training.checkpoint import Checkpoint, newest_checkpoint

__all__ = ["kill", "terminate"]


def kill(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """SIGKILL at random moments, once to three times a training; each third while a file is being written.

    One training in ten is started from the shell, the others are forked.
    """
    record = Record()
    for number in range(count):
        case, aimed, from_shell = draw_case(draw, workshop), number % 3 == 0, number % 10 == 5
        times = draw.choices([1, 2, 3], [7, 2, 1])[0]
        doing = f"kill {number}: {case.name}{', aimed' if aimed else ''}{', from the shell' * from_shell}"
        folder = _killed(record, doing, workshop, case, aimed, from_shell, draw)
        for _ in range(times - 1):
            _kill_once(record, doing, case, folder, aimed, from_shell, draw)
        record.count("trainings killed")
        record.count(f"trainings killed: {case.name}")
        record.count("trainings killed from the shell", int(from_shell))
        end_of(record, doing, case, folder, from_shell)
    return record


def _killed(
    record: Record,
    doing: str,
    workshop: Workshop,
    case: Case,
    aimed: bool,
    from_shell: bool,
    draw: random.Random,
) -> Path:
    """Return the folder of a new training that was killed; one that ended before that is done again."""
    while True:
        folder = workshop.new_folder()
        if _kill_once(record, doing, case, folder, aimed, from_shell, draw):
            return folder
        shutil.rmtree(folder)
        record.count("trainings that ended before the kill, done again")


def _kill_once(
    record: Record, doing: str, case: Case, folder: Path, aimed: bool, from_shell: bool, draw: random.Random
) -> bool:
    """Start or go on with a training, kill it, and look at what it left; False if it ended before."""
    child = Child(continuation(case, folder), from_shell)
    if aimed:
        _wait_for_a_write(child, folder / "checkpoints", draw.randint(1, 5))
        time.sleep(draw.uniform(0, case.write_seconds))
    else:
        seconds = case.started_seconds if from_shell else case.seconds
        time.sleep(draw.uniform(0, seconds))
    child.send(signal.SIGKILL)
    code, printed = child.finish()
    if code not in (0, -signal.SIGKILL):
        record.deviate(doing, f"ended with {code} before the kill: {printed[-2000:]}")
    if code != -signal.SIGKILL:
        return False
    record.count("kills")
    half = list((folder / "checkpoints").glob(".step-*"))
    record.count("kills with a checkpoint half written", int(bool(half)))
    record.count("kills before the first checkpoint", int(not list(folder.glob("checkpoints/step-*"))))
    for what in unwhole(folder):
        record.deviate(doing, f"after the kill: {what}")
    return True


def _wait_for_a_write(child: Child, folder: Path, nth: int) -> None:
    """Return as the nth temporary file of a checkpoint appears, or when the training is over."""
    seen: set[str] = set()
    while child.poll() is None and len(seen) < nth:
        try:
            seen.update(name for name in os.listdir(folder) if name.startswith(".step-"))
        except FileNotFoundError:
            time.sleep(0.001)
        time.sleep(0.0001)


def terminate(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """SIGTERM and SIGINT in turns while the training runs, one in five twice at once; then resumed."""
    record = Record()
    for number in range(count):
        case, from_shell, twice = draw_case(draw, workshop), number % 10 in (4, 7), number % 5 == 3
        sent = (signal.SIGTERM, signal.SIGINT)[number % 2]
        doing = f"terminate {number}: {sent.name}{' twice' * twice}, {case.name}"
        while True:
            folder = workshop.new_folder()
            if _end_once(record, doing, case, folder, sent, twice, from_shell, draw):
                break
            shutil.rmtree(folder)
            record.count("trainings over before the signal, done again")
        record.count(f"{sent.name}{' twice' * twice}{', from the shell' * from_shell}")
        end_of(record, doing, case, folder, from_shell)
    return record


def _end_once(
    record: Record,
    doing: str,
    case: Case,
    folder: Path,
    sent: signal.Signals,
    twice: bool,
    from_shell: bool,
    draw: random.Random,
) -> bool:
    child = Child(case.train(folder), from_shell)
    # The record is there as the first epoch begins.
    while child.poll() is None and not (folder / "metrics.jsonl").exists():
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.8 * case.seconds))
    child.send(sent)
    if twice:
        time.sleep(draw.choice([0.0, 0.001, 0.01]))
        child.send(sent)
    code, printed = child.finish()
    for what in unwhole(folder):
        record.deviate(doing, f"after the signal: {what}")
    if "Traceback" in printed:
        record.deviate(doing, f"a traceback: {printed[-3000:]}")
    newest = newest_checkpoint(folder / "checkpoints")
    if code == 0 or (newest is not None and newest.finished):
        return False
    if twice:
        _check_twice(record, doing, code, sent, printed)
    else:
        _check_once(record, doing, folder, code, sent, newest, printed)
    return True


def _check_once(
    record: Record,
    doing: str,
    folder: Path,
    code: int,
    sent: signal.Signals,
    newest: Checkpoint | None,
    printed: str,
) -> None:
    """The exit code is the signal's, the way on is told, and the checkpoint is that of the very step.

    The model was saved after the training had stopped: its weights must be those of the checkpoint, or the
    best ones in it where the training returns to those.
    """
    if code != 128 + sent:
        record.deviate(doing, f"exit code {code}: {printed[-2000:]}")
    if f"nnkit train --resume {folder}" not in printed:
        record.deviate(doing, f"it was not said how to go on: {printed[-2000:]}")
    if newest is None:
        record.deviate(doing, "no checkpoint")
        return
    arrays, _ = read_tensors(folder / "model.safetensors", "nnkit.model", 10**6)
    restored = newest.settings["restore_best"] and newest.state["best_epoch"] > 0
    values = newest.arrays["best_values" if restored else "values"].tobytes()
    if all(array.tobytes() in values for name, array in arrays.items() if name.startswith("layers.")):
        record.count(f"checkpoints that hold the saved model's {'best ' * restored}weights")
    else:
        record.deviate(doing, f"the checkpoint of step {newest.step} is not where the model was saved")


def _check_twice(record: Record, doing: str, code: int, sent: signal.Signals, printed: str) -> None:
    """The first signal's code, where the training ended before the second came, else 130."""
    if code not in (130, 128 + sent):
        record.deviate(doing, f"exit code {code}: {printed[-2000:]}")
    record.count(f"{sent.name} twice: exit code {code}")
