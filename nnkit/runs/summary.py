"""What a run has come to, read from its folder without loading its model or data."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from nnkit.errors import NnkitError
from nnkit.files import holder_of
from nnkit.model import MODEL_KIND
from nnkit.nn.losses import Task
from nnkit.nn.metrics import default_metrics
from nnkit.run_folder import HISTORY_FILE, MODEL_FILE, RUN_FILE, began
from nnkit.tensorfile import read_metadata
from nnkit.training.history import History

__all__ = ["RunSummary", "summary_of"]


@dataclass(frozen=True)
class RunSummary:
    """A run.

    Parameters
    ----------
    folder : Path
    began : datetime
        By the time in its name, else by that of its folder's change.
    data, task : str
        What it was trained on, and what was learnt; empty where its config does not say.
    state : {"finished", "stopped early", "interrupted", "diverged", "running", "no model"}
        How its training ended. "no model" is a training that was killed.
    epoch, epochs : int
        The epochs done, and those asked for.
    rows : str
        What the metrics were measured on; empty where there are none.
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
        """The metric that sums the run up; empty where it has none."""
        usual = default_metrics(self.task) if self.task in get_args(Task) else ()  # type: ignore[arg-type]
        return next((name for name in (*usual, *self.metrics) if name in self.metrics), "")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "folder": str(self.folder), "began": self.began.isoformat()}


def summary_of(folder: Path) -> RunSummary:
    """Read what a run's folder tells; what is damaged there counts as missing.

    Parameters
    ----------
    folder : Path
        With the run's config.
    """
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
