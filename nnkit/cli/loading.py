"""What commands load: a config, a model, rows, a training that is only looked at."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nnkit.cli.options import OnBad
from nnkit.run_folder import model_file
from nnkit.working import hide_work, working

if TYPE_CHECKING:
    from nnkit.config import Config
    from nnkit.data.examples import Dataset
    from nnkit.errors import DataError
    from nnkit.model import Model
    from nnkit.training.run import Run


def config_from(source: str | None) -> Config:
    from nnkit.config import Config, DataConfig, load_config

    if source is not None and source.endswith(".toml"):
        return load_config(source)
    return Config(data=DataConfig(train="digits" if source is None else source))


def load_model(path: Path, quiet: bool = False) -> Model:
    """Load the model that a path means, and say which where the path is not that of a file or a folder."""
    file = model_file(path)
    if not quiet and not file.is_relative_to(path):
        typer.echo(f"model    {file}", err=True)
    with working(f"loading {file}"):
        from nnkit.model import load

        return load(file)


def load_rows(
    model: Model,
    data: str | list[str],
    on_bad: OnBad,
    require_target: bool = True,
    quiet: bool = False,
    target: str | None = None,
) -> Dataset:
    """Load rows to measure a model on, or to predict; `target` names a column other than the model's."""
    from nnkit.data.pictures import PictureOptions
    from nnkit.data.sources import load_dataset
    from nnkit.errors import DataError

    settings = model.preprocessor.pictures
    if isinstance(data, list) and settings is None:
        raise DataError(f"several sources are for pictures, which this model was not trained on: {data[1]}")
    names = [target] if target is not None else list(model.target.names) or None
    if settings is None:
        return load_dataset(data, target=names, require_target=require_target)
    # A folder's subfolders name the classes, whatever the column was called in training.
    folder = isinstance(data, str) and Path(data).expanduser().is_dir()
    options = PictureOptions(settings, on_bad.value)
    classes_named = folder or names == ["class"]
    wanted = None if classes_named else names
    dataset = load_dataset(data, target=wanted, require_target=require_target, pictures=options)
    for note in () if quiet else dataset.notes:
        typer.echo(note, err=True)
    return dataset


def no_target(model: Model, data: str) -> DataError:
    """Return the error for rows without the true values that a model is to be compared with."""
    from nnkit.errors import DataError

    wanted = f"target column {', '.join(model.target.names)}" if model.target.names else "target column"
    return DataError(f"{data}: there is no {wanted} to compare with; name it with --target")


def decision_threshold(model: Model, threshold: float | None) -> float:
    """Return the threshold of the answers, as the user gave it or the default."""
    if threshold is not None:
        model.target.check_threshold(threshold)
    return 0.5 if threshold is None else threshold


def untrained_run(source: str | None, target: str | None, assignments: list[str] | None, quiet: bool) -> Run:
    """Prepare a training that is only looked at; what the library logs goes to standard error, or nowhere."""
    from nnkit.training.run import Run

    named = [] if target is None else [f"data.target={target}"]
    config = config_from(source).with_overrides([*named, *(assignments or [])])
    if quiet:
        return Run(config)
    with printed_notes():
        return Run(config)


class _Notes(logging.StreamHandler):
    """Writes below what is shown of the work under way."""

    def emit(self, record: logging.LogRecord) -> None:
        hide_work()
        super().emit(record)


@contextmanager
def printed_notes(quiet: bool = False) -> Iterator[None]:
    """Print what the library logs, a line each; or nothing of it."""
    handler: logging.Handler = logging.NullHandler() if quiet else _Notes(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("nnkit")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
