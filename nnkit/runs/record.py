"""What a run writes into its folder while it trains: its config, and a line of metrics per epoch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nnkit.errors import FileError
from nnkit.files import remove_unfinished, write_whole
from nnkit.run_folder import HISTORY_FILE, MODEL_FILE, RUN_FILE
from nnkit.runs.config import Config
from nnkit.training.callbacks import Callback, Figures

__all__ = ["RunRecord"]

logger = logging.getLogger("nnkit")


class RunRecord(Callback):
    """Writes the config when the training begins, then a line of metrics per epoch.

    Parameters
    ----------
    folder : Path
        The run's.
    config : Config
        With nothing left open, as a resume reads it.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self._folder = folder
        self._config = config
        self._behind = False

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Write the config and the history so far."""
        for name in (RUN_FILE, HISTORY_FILE, MODEL_FILE):
            remove_unfinished(self._folder, name)
        self._write_all(trainer)

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Add the epoch's line; where the disk does not take it, the next epoch writes them all."""
        path = self._folder / HISTORY_FILE
        try:
            # A folder that was removed is made anew by the next checkpoint: the file must have its head.
            if self._behind or not path.exists():
                self._write_all(trainer)
            else:
                trainer.history.append_jsonl(path)
            self._behind = False
        except FileError as error:
            if not self._behind:
                logger.warning(f"{error}; the training goes on, and the next epoch tries again")
            self._behind = True

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """Write the lines that could not be written before."""
        if self._behind:
            self.on_epoch_end(trainer, figures)

    def _write_all(self, trainer: Any) -> None:
        write_whole(self._folder / RUN_FILE, self._config.to_toml().encode())
        trainer.history.write_jsonl(self._folder / HISTORY_FILE)
