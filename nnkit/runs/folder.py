"""A run's folder: whether a training may write to it, its config and history, and how the run ended.

Order: before a training, while it is under way, afterwards.
"""

from __future__ import annotations

import logging
import os
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from nnkit.checks import settings_of
from nnkit.errors import ConfigError, FileError, NnkitError
from nnkit.files import holder_of, in_use, remove_unfinished, write_whole
from nnkit.model import MODEL_KIND
from nnkit.nn.losses import Task
from nnkit.nn.metrics import default_metrics
from nnkit.run_folder import (
    CHECKPOINTS,
    FINDINGS_FILE,
    HISTORY_FILE,
    MODEL_FILE,
    REPORT_FILE,
    RUN_FILE,
    began,
)
from nnkit.runs.config import Config, load_config
from nnkit.runs.sections import SECTIONS
from nnkit.runs.toml import shown_value
from nnkit.tensorfile import read_metadata
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.checkpoint import newest_checkpoint
from nnkit.training.history import History

__all__ = [
    "RunRecord",
    "RunSummary",
    "check_free",
    "clear_folder",
    "config_of_run",
    "resumed_config",
    "summary_of",
]

logger = logging.getLogger("nnkit")


def check_free(folder: Path, overwrite: bool = False) -> None:
    """Raise unless a new training may write to a folder.

    Raises
    ------
    FileError
        If a training is under way there, or the path or a part of it is a file.
    ConfigError
        If it holds a run that is finished or can be resumed, unless `overwrite`.
    """
    for path in (folder, *folder.parents):
        if os.path.exists(path) and not path.is_dir():
            raise FileError(f"{path}: this is a file, and the run needs a folder: give another `run.out`")
    holder = holder_of(folder)
    if holder not in (None, str(os.getpid())):
        raise in_use(folder, holder or "")
    if overwrite:
        return
    try:
        left = newest_checkpoint(folder / CHECKPOINTS)
    except FileError:
        left = None  # a folder that cannot be listed cannot be removed either, which `clear_folder` reports
    if left is not None and not left.finished:
        raise ConfigError(
            f"{folder} holds a training that is not finished ({left.step:,} steps are done): "
            f"continue it with `resume` {folder}, give another `run.out`, or give `overwrite`"
        )
    if left is not None or (folder / MODEL_FILE).exists():
        raise ConfigError(
            f"{folder} holds a finished run: give another `run.out`, or give `overwrite` to replace it"
        )


def clear_folder(folder: Path, overwrite: bool) -> None:
    """Remove what an earlier run left in a folder; arguments and errors as for `check_free`."""
    check_free(folder, overwrite)
    # The checkpoints first: if they cannot be removed, the rest of the run stays as it was.
    for name in (CHECKPOINTS, RUN_FILE, HISTORY_FILE, FINDINGS_FILE, MODEL_FILE, REPORT_FILE):
        path = folder / name
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(
                f"{error.filename or path}: cannot be removed: {error.strerror or error}"
            ) from error


def config_of_run(folder: Path) -> Config:
    """Return the config that a run's folder keeps; `FileError` if it holds no run."""
    if not (folder / RUN_FILE).is_file():
        raise FileError(f"{folder}: no {RUN_FILE} is there; give the folder of a run")
    return load_config(folder / RUN_FILE)


def resumed_config(
    folder: Path, overrides: Iterable[str] = (), options: Mapping[str, tuple[str, Any]] | None = None
) -> Config:
    """Return the config to resume a run with; arguments as for `Run.resumed`.

    Raises
    ------
    FileError
        If the folder holds no run.
    ConfigError
        If a setting differs that must match.
    """
    before = config_of_run(folder)
    config = before.with_overrides(overrides, options)
    then, given = before.tables(), config.tables()
    for section, kind in SECTIONS.items():
        for key, known in settings_of(kind).items():
            pair = given[section][key], then[section][key]
            if known.must_match and pair[0] != pair[1]:
                said, was = ("not set" if item is None else shown_value(item) for item in pair)
                raise ConfigError(
                    f"`{section}.{key}` cannot change when a training is resumed: it is {said} here "
                    f"and {was} in the run"
                )
    epochs, begun_for = config.training.epochs, before.training.epochs
    if epochs < begun_for:
        raise ConfigError(
            f"`training.epochs` can be raised when a training is resumed, not lowered: it is {epochs} here "
            f"and {begun_for} in the run"
        )
    return config


class RunRecord(Callback):
    """Writes the resolved config when the training begins, then a line of metrics per epoch."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._folder = folder
        self._config = config
        self._behind = False

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        """Write the config and the history so far."""
        for name in (RUN_FILE, HISTORY_FILE, MODEL_FILE):
            remove_unfinished(self._folder, name)
        self._write_all(trainer)

    def on_epoch_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Append the epoch's line; if that fails, the next epoch writes all of them."""
        path = self._folder / HISTORY_FILE
        try:
            # If the folder was removed, the next checkpoint makes it again: then write all lines.
            if self._behind or not path.exists():
                self._write_all(trainer)
            else:
                trainer.history.append_jsonl(path)
            self._behind = False
        except FileError as error:
            if not self._behind:
                logger.warning(f"{error}; the training continues, and the next epoch tries again")
            self._behind = True

    def on_train_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Write the lines that could not be written before."""
        if self._behind:
            self.on_epoch_end(trainer, status)

    def _write_all(self, trainer: Any) -> None:
        write_whole(self._folder / RUN_FILE, self._config.to_toml().encode())
        trainer.history.write_jsonl(self._folder / HISTORY_FILE)


@dataclass(frozen=True)
class RunSummary:
    """What a run's folder tells without its model or data being loaded.

    Parameters
    ----------
    folder : Path
    began : datetime
        By the time in its name, else the folder's time of change.
    data, task : str
        The data's name, and the task; empty where the config does not say.
    state : {"finished", "stopped early", "interrupted", "diverged", "running", "no model"}
        How its training ended. "no model" is a training that was killed.
    epoch, epochs : int
        The epochs done, and the number that was set.
    rows : str
        The rows that the metrics were measured on; empty where there are none.
    metrics : dict of str to float
        At the end of the training.
    """

    folder: Path
    began: datetime
    data: str
    task: str
    state: str
    epoch: int
    epochs: int
    rows: str = ""
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.state in ("finished", "stopped early")

    @property
    def main_metric(self) -> str:
        """The name of the metric to show in a list of runs; empty where there is none."""
        usual = default_metrics(self.task) if self.task in get_args(Task) else ()  # type: ignore[arg-type]
        return next((name for name in (*usual, *self.metrics) if name in self.metrics), "")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "folder": str(self.folder), "began": self.began.isoformat()}


def summary_of(folder: Path) -> RunSummary:
    """Summarise the run in a folder; damaged files count as missing."""
    config: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        config = tomllib.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    data, training = (_table(config, name) for name in ("data", "training"))
    history = History()
    with suppress(NnkitError):
        history = History.from_jsonl(folder / HISTORY_FILE)
    details: dict[str, Any] = {}
    with suppress(NnkitError):
        details = _table(read_metadata(folder / MODEL_FILE, MODEL_KIND), "details")
    measured = [
        (rows, found) for rows, found in _table(details, "metrics").items() if isinstance(found, dict)
    ]
    rows, metrics = measured[0] if measured else ("", {})
    epochs = training.get("epochs", 0)
    return RunSummary(
        folder,
        began(folder),
        str(details.get("data") or Path(str(data.get("train", ""))).name),
        str(data.get("task", "")),
        _state(folder, details),
        int(history.rows[-1]["epoch"]) if len(history) else 0,
        epochs if isinstance(epochs, int) else 0,
        rows,
        {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)},
    )


def _state(folder: Path, details: dict[str, Any]) -> str:
    if holder_of(folder) is not None:
        return "running"
    if not details:
        return "no model"
    # Models of earlier versions do not say; a finished run's checkpoints may be there or not.
    return str(details.get("ended", "finished"))


def _table(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}
