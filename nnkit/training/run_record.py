"""What a run writes into its folder while it trains: its config, and a line of figures an epoch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from nnkit.errors import FileError
from nnkit.files import remove_unfinished, write_whole
from nnkit.training.callbacks import Callback, Figures

if TYPE_CHECKING:
    from nnkit.training.run import Run

__all__ = ["RunRecord"]

logger = logging.getLogger("nnkit")


class RunRecord(Callback):
    """Writes the run's folder: the config once everything is in place, then a line of figures an epoch.

    Parameters
    ----------
    run : Run
        Whose it is.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = run.folder / "metrics.jsonl"
        self._behind = False

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Write the config and the record so far; heed a stop from before, which `fit` has just forgotten."""
        for name in ("config.toml", "metrics.jsonl", "model.safetensors"):
            remove_unfinished(self._run.folder, name)
        self._write_all(trainer)
        if self._run.stopping:
            trainer.stop()

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Add the epoch's line; where the disk does not take it, the next epoch writes them all."""
        try:
            # A folder that was removed is made anew by the next checkpoint: the record must have its head.
            if self._behind or not self._path.exists():
                self._write_all(trainer)
            else:
                trainer.history.append_jsonl(self._path)
            self._behind = False
        except FileError as error:
            if not self._behind:
                logger.warning(f"{error}; the training goes on, and the next epoch tries again")
            self._behind = True

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """Write the lines that no epoch after them could."""
        if self._behind:
            self.on_epoch_end(trainer, figures)

    def _write_all(self, trainer: Any) -> None:
        write_whole(self._run.folder / "config.toml", self._run.resolved().to_toml().encode())
        trainer.history.write_jsonl(self._path)
