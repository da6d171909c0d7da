"""Checkpoints: everything needed to resume a training at its last step, in files written whole or not at all.

Order: the checkpoint, the settings, the files of a folder, the writer in the background.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nnkit.checks import Whole
from nnkit.errors import ConfigError, FileError, ModelFileError, NnkitError
from nnkit.files import remove_unfinished
from nnkit.tensorfile import read_tensors, write_tensors
from nnkit.training.periods import Period, parse_period

__all__ = [
    "Checkpoint",
    "CheckpointWriter",
    "Checkpoints",
    "check_unused",
    "newest_checkpoint",
    "remove_checkpoints",
]

logger = logging.getLogger("nnkit")

KIND = "nnkit.checkpoint"
VERSION = 1

_NAME = re.compile(r"step-([0-9]{9,18})\.safetensors")
_BEST = "best.safetensors"
_MOST = 1e18  # limit of steps, seconds and epochs in a file: fits an int64, and no training reaches it
# Defaults: at the end of an epoch, if the last checkpoint is older than this; and within long epochs.
_SHORTEST_SECONDS = 1.0
_DEFAULT_SECONDS = 300.0
# The wait after a failed write.
_RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps.

    Parameters
    ----------
    step : int
        Steps done.
    seconds : float
        Time trained.
    finished : bool
        Whether the training is complete.
    best_so_far : bool
        Whether it was taken at the end of the best epoch so far.
    epochs : int
        The number of epochs to train.
    state, history : dict
        `TrainingState` and `History` as JSON.
    settings : dict
        The settings that a resume must match, as JSON.
    numerics : dict of str to str
        What the bits of the results depend on, see `Backend.numerics`.
    data : dict
        The fingerprint of the data.
    arrays : dict of str to ndarray
        The arrays of the device: parameters, optimizer state, counters, sums, the best parameters.
    """

    step: int
    seconds: float
    finished: bool
    best_so_far: bool
    epochs: int
    state: Mapping[str, Any]
    history: Mapping[str, Any]
    settings: Mapping[str, Any]
    numerics: Mapping[str, str]
    data: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all, with a SHA-256 over every byte; raise `FileError`."""
        metadata = {name: getattr(self, name) for name in _KINDS}
        write_tensors(path, KIND, VERSION, self.arrays, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If the file cannot be read.
        ModelFileError
            If it is truncated, altered, not a checkpoint, or of a later version.
        """
        arrays, metadata = read_tensors(path, KIND, VERSION)
        for name, kinds in _KINDS.items():
            if not isinstance(metadata.get(name), kinds):
                raise ModelFileError(f"{path}: not a checkpoint: {name!r} is missing or of the wrong type")
        for name in ("step", "seconds", "epochs"):
            if not 0 <= metadata[name] < _MOST:
                raise ModelFileError(f"{path}: not a checkpoint: {name!r} is out of range")
        if not all(isinstance(value, str) and len(value) < 200 for value in metadata["numerics"].values()):
            raise ModelFileError(f"{path}: not a checkpoint: 'numerics' must hold short texts")
        return cls(**{name: metadata[name] for name in _KINDS}, arrays=arrays)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "seconds": (int, float),
    "finished": bool,
    "best_so_far": bool,
    "epochs": int,
    "state": dict,
    "history": dict,
    "settings": dict,
    "numerics": dict,
    "data": dict,
}


@dataclass(frozen=True)
class Checkpoints:
    """Where a training writes checkpoints, how often, and how many it keeps.

    Parameters
    ----------
    folder : path-like
        Created if missing. Holds ``step-000001200.safetensors``, ..., and ``best.safetensors``, the last
        checkpoint at the end of an epoch that was the best so far.
    every : str or Period, optional
        Such as ``"500 steps"``, ``"2 epochs"`` or ``"10 minutes"``. By default after each epoch, if the last
        checkpoint is at least a second old, and every 5 minutes. The end of a training always writes one.
    keep : int
        The number of newest checkpoints to keep.
    overwrite : bool
        Whether a new training may replace the checkpoints of another one in the folder.
    """

    folder: str | os.PathLike[str]
    every: str | Period | None = None
    keep: int = 3
    overwrite: bool = False

    def __post_init__(self) -> None:
        Whole(1)("keep", self.keep)
        if self.every is not None:
            object.__setattr__(self, "every", parse_period(self.every))


def check_unused(checkpoints: Checkpoints) -> None:
    """Raise `ConfigError` if a new training would replace checkpoints without permission."""
    folder = Path(checkpoints.folder)
    try:
        left = _files(folder)
    except FileError:
        return  # the write will fail, too, and report it
    if left and not checkpoints.overwrite:
        raise ConfigError(
            f"{folder} holds checkpoints of another training ({left[-1].name}): resume it with "
            f"Trainer.resume, choose another folder, or replace them with Checkpoints(folder, overwrite=True)"
        )


def remove_checkpoints(folder: str | os.PathLike[str]) -> None:
    """Remove the checkpoints of another training in a folder, as far as possible."""
    with suppress(OSError, FileError):
        for path in [*_files(Path(folder)), Path(folder) / _BEST]:
            path.unlink(missing_ok=True)


def newest_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint | None:
    """Return the newest undamaged checkpoint, or None for a folder without checkpoints.

    A warning names each damaged one.

    Raises
    ------
    ModelFileError
        If all are damaged.
    """
    last: NnkitError | None = None
    for path in reversed(_files(Path(folder))):
        if last is not None:
            logger.warning(f"{last}; using the previous checkpoint, {path.name}")
        try:
            return Checkpoint.load(path)
        except (ModelFileError, FileError) as error:
            last = error
    if last is not None:
        raise ModelFileError(f"{last}; no other checkpoint is left: remove the folder to start again")
    return None


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints by step, the newest last."""
    try:
        names = [entry.name for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileError(f"{folder}: cannot be read: {error.strerror or error}") from error
    return [folder / name for name in sorted(names, key=_step_of)]


def _step_of(name: str) -> int:
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


class CheckpointWriter:
    """Decides when a checkpoint is due, and writes it in a thread while training continues.

    Parameters
    ----------
    checkpoints : Checkpoints
        Where and how often.
    steps_per_epoch : int
        Converts a period in epochs to steps.
    fingerprint : function
        Returns the data's fingerprint; called once, in the thread.

    Attributes
    ----------
    written : int or None
        The step of the last checkpoint written.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        steps_per_epoch: int,
        fingerprint: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.written: int | None = None
        self._folder = Path(checkpoints.folder)
        self._keep = checkpoints.keep
        period = None if checkpoints.every is None else parse_period(checkpoints.every)
        self._steps = None if period is None else period.steps(steps_per_epoch)
        self._seconds = _DEFAULT_SECONDS if period is None else period.seconds
        self._each_epoch = period is None
        self._fingerprint = fingerprint
        self._data: Mapping[str, Any] | None = None
        self._last = self._not_before = 0.0  # seconds of training
        self._owed = self._failed = self._made = self._ending = False
        self._thread: threading.Thread | None = None
        remove_unfinished(self._folder, "*.safetensors")

    def begin(self, seconds: float) -> None:
        """Count time from here."""
        self._last = seconds

    def left(self, step: int) -> int | None:
        """Return the number of steps until one is due, or None if the period is not in steps."""
        return None if self._steps is None else self._steps - step % self._steps

    def consider(
        self, step: int, seconds: float, epoch_ended: bool, snapshot: Callable[[], Checkpoint]
    ) -> None:
        """Write a checkpoint if one is due and no write is in progress; otherwise remember that it is due."""
        due = self._steps is not None and step % self._steps == 0
        due |= self._seconds is not None and seconds - self._last >= self._seconds
        due |= self._each_epoch and epoch_ended and seconds - self._last >= _SHORTEST_SECONDS
        self._owed |= due or self._failed
        if self._owed and seconds >= self._not_before and not self._busy():
            self._last = seconds
            self._begin(snapshot, seconds)

    def finish(self, snapshot: Callable[[], Checkpoint], seconds: float) -> None:
        """Write the last checkpoint and wait for it."""
        self.wait()
        self._ending = True
        self._begin(snapshot, seconds)
        self.wait()

    def wait(self) -> None:
        """Wait for the current write."""
        # After an interrupt between its creation and its start, the thread cannot be joined.
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()

    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _begin(self, snapshot: Callable[[], Checkpoint], seconds: float) -> None:
        self._owed = self._failed = False
        try:
            checkpoint = snapshot()
        except MemoryError:
            self._fail("not enough memory for a copy of the parameters", seconds)
            return
        # A daemon, so that an interrupt need not wait: the file gets its name only when it is complete.
        self._thread = threading.Thread(target=self._write, args=(checkpoint, seconds), daemon=True)
        self._thread.start()

    def _write(self, checkpoint: Checkpoint, seconds: float) -> None:
        try:
            if self._data is None:
                self._data = self._fingerprint()
            if self._made and not self._folder.is_dir():
                logger.warning(f"{self._folder} was removed during the training; creating it again")
            path = self._folder / f"step-{checkpoint.step:09d}.safetensors"
            replace(checkpoint, data=self._data).save(path)
            self.written, self._made = checkpoint.step, True
            if checkpoint.best_so_far:
                self._link(path)
            self._prune(checkpoint.step)
        except (OSError, MemoryError) as error:
            self._fail(str(error) or "not enough memory", seconds)

    def _fail(self, why: str, seconds: float) -> None:
        last = "there is none yet" if self.written is None else f"the last one is of step {self.written:,}"
        further = "" if self._ending else "; trying again soon"
        logger.warning(f"a checkpoint could not be written ({why}); {last}{further}")
        self._failed, self._not_before = True, seconds + _RETRY_SECONDS

    def _link(self, path: Path) -> None:
        """Make this file the best checkpoint, too, by a hard link where the file system has them."""
        temporary = self._folder / f".{_BEST}.new"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        os.replace(temporary, self._folder / _BEST)

    def _prune(self, step: int) -> None:
        """Remove all but the newest, and those beyond this step, which an earlier end of training left."""
        files = _files(self._folder)
        before = [path for path in files if _step_of(path.name) <= step]
        for path in set(files) - set(before[-self._keep :]):
            path.unlink(missing_ok=True)
