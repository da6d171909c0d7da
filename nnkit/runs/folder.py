"""A run's folder: whether a new training may write to it, its emptying, and the config it is resumed with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnkit.checks import settings_of
from nnkit.errors import ConfigError, FileError
from nnkit.files import holder_of, in_use
from nnkit.run_folder import CHECKPOINTS, FINDINGS_FILE, HISTORY_FILE, MODEL_FILE, REPORT_FILE, RUN_FILE
from nnkit.runs.config import Config, load_config
from nnkit.runs.sections import SECTIONS
from nnkit.runs.toml import toml_value
from nnkit.training.checkpoint import newest_checkpoint

__all__ = ["check_free", "clear_folder", "config_of_run", "resumed_config"]


def check_free(folder: Path, overwrite: bool = False) -> None:
    """Raise unless a new training may write to a folder.

    Parameters
    ----------
    folder : Path
        The run folder.
    overwrite : bool
        Whether a run that is there may be replaced.

    Raises
    ------
    FileError
        If a training is under way there, or a file is in the place of the folder or of one above it.
    ConfigError
        If a run is there that is finished, or that can be resumed, unless `overwrite`.
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
            f"{folder} holds a training that is not finished ({left.step:,} steps are done): go on with "
            f"`resume` {folder}, give another `run.out`, or give `overwrite`"
        )
    if left is not None or (folder / MODEL_FILE).exists():
        raise ConfigError(
            f"{folder} holds a finished run: give another `run.out`, or give `overwrite` to replace it"
        )


def clear_folder(folder: Path, overwrite: bool) -> None:
    """Remove what an earlier run left in a folder; arguments and errors as for `check_free`."""
    check_free(folder, overwrite)
    # The checkpoints first: a folder that cannot be removed leaves the rest of the run as it was.
    for name in (CHECKPOINTS, RUN_FILE, HISTORY_FILE, FINDINGS_FILE, MODEL_FILE, REPORT_FILE):
        path = folder / name
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(
                f"{error.filename or path}: cannot be removed: {error.strerror or error}"
            ) from error


def config_of_run(folder: Path) -> Config:
    """Return the config that a run's folder keeps.

    Raises
    ------
    FileError
        If the folder holds no run.
    ConfigError
        If the config was altered and is no longer valid.
    """
    if not (folder / RUN_FILE).is_file():
        raise FileError(f"{folder}: no {RUN_FILE} is there; give the folder of a run")
    return load_config(folder / RUN_FILE)


def resumed_config(
    folder: Path, overrides: Iterable[str] = (), options: Mapping[str, tuple[str, Any]] | None = None
) -> Config:
    """Return the config that a run is resumed with; arguments as for `Run.resumed`.

    Raises
    ------
    FileError
        If the folder holds no run.
    ConfigError
        If a setting is to change that cannot.
    """
    before = config_of_run(folder)
    config = before.with_overrides(overrides, options)
    then, given = before.tables(), config.tables()
    for section, kind in SECTIONS.items():
        for key, known in settings_of(kind).items():
            pair = given[section][key], then[section][key]
            if known.must_match and pair[0] != pair[1]:
                said, was = ("not set" if item is None else toml_value(item, strict=False) for item in pair)
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
