"""What does not grow over a million steps, and what a checkpoint costs."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from faults.trainings import Record, Workshop
from nnkit import Callback, Dense, Network, Trainer
from nnkit.training.checkpoint import Checkpoints

__all__ = ["cost", "soak"]

_EVERY = 10_000
_GROWTH = 0.02


class _Look(Callback):
    """Notes resident memory, open files and threads every so often."""

    every = f"{_EVERY} steps"

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_step_end(self, trainer: Any, figures: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        row = {"step": figures.step, "resident_mebibytes": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}
        row |= {"open files": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}
        self.seen.append(row)


def soak(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """Train `count` steps of 20-16-1 with batches of 16, a checkpoint every 20,000."""
    record, look, folder = Record(), _Look(), workshop.new_folder()
    random_numbers = np.random.default_rng(draw.randrange(2**32))
    X = random_numbers.normal(size=(16_000, 20)).astype(np.float32)
    y = (X @ random_numbers.normal(size=20)).astype(np.float32)
    trainer = Trainer(Network([Dense(16, "relu"), Dense(1)]), "mse", device="cpu")
    kept = Checkpoints(folder, "20000 steps")
    epochs = -(-count // 1000)
    trainer.fit(X, y, epochs=epochs, batch_size=16, callbacks=[look], checkpoints=kept)
    first, last = look.seen[0], look.seen[-1]
    growth = last["resident_mebibytes"] / first["resident_mebibytes"] - 1
    record.figures = {
        "first": first,
        "last": last,
        "growth of resident memory": growth,
        "every tenth reading": look.seen[::10],
    }
    record.count("steps", int(trainer.history["step"][-1]))
    if growth > _GROWTH:
        record.deviate("soak", f"resident memory grew by {growth:.1%}")
    for what in ("open files", "threads"):
        # A checkpoint may be under way at any reading: one thread and one file of its own.
        if last[what] > first[what] + 1:
            record.deviate("soak", f"{what}: {first[what]} at first, {last[what]} at last")
    shutil.rmtree(folder)
    return record


class _Time(Callback):
    """Measures the training alone, by the clock and by the processor, without the last checkpoint."""

    def on_train_begin(self, trainer: Any, figures: Any) -> None:
        self.began = (time.perf_counter(), time.process_time())

    def on_epoch_end(self, trainer: Any, figures: Any) -> None:
        self.ended = (time.perf_counter(), time.process_time())

    @property
    def seconds(self) -> tuple[float, float]:
        return self.ended[0] - self.began[0], self.ended[1] - self.began[1]


def cost(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """Train 784-512-512-10 with and without a checkpoint a second, in turns; the share of one a minute."""
    record = Record()
    random_numbers = np.random.default_rng(draw.randrange(2**32))
    X = random_numbers.normal(size=(6400, 784)).astype(np.float32)
    y = random_numbers.integers(0, 10, 6400)
    by_clock, by_processor, written = [], [], []
    _time_training(X, y, None)
    for _ in range(count):
        plain, _ = _time_training(X, y, None)
        kept, number = _time_training(X, y, workshop.new_folder())
        by_clock.append((kept[0] - plain[0]) / number)
        by_processor.append((kept[1] - plain[1]) / number)
        written.append(number)
    record.figures = {
        "checkpoints written in each turn": written,
        "seconds a checkpoint, by the clock": by_clock,
        "seconds a checkpoint, by the processor": by_processor,
        "share of one a minute, by the clock, median": statistics.median(by_clock) / 60,
        "share of one a minute, by the processor, median": statistics.median(by_processor) / 60,
    }
    return record


def _time_training(X: np.ndarray, y: np.ndarray, folder: Path | None) -> tuple[tuple[float, float], int]:
    """Return what 20 epochs took, and how many checkpoints were written meanwhile."""
    trainer, clock = Trainer(_network(), "cross_entropy", device="cpu"), _Time()
    kept = None if folder is None else Checkpoints(folder, "1 seconds", keep=1000)
    trainer.fit(X, y, epochs=20, callbacks=[clock], checkpoints=kept)
    if folder is None:
        return clock.seconds, 0
    number = len(list(folder.glob("step-*"))) - 1  # the last one is written after the last epoch
    shutil.rmtree(folder)
    return clock.seconds, max(number, 1)


def _network() -> Network:
    return Network([Dense(512, "relu"), Dense(512, "relu"), Dense(10)])
