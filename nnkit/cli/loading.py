"""Loading for the commands: a config, a model, rows, the plan of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nnkit.cli.options import OnBad
from nnkit.cli.words import printed_notes
from nnkit.run_folder import model_file
from nnkit.working import working

if TYPE_CHECKING:
    from nnkit.data.examples import Dataset
    from nnkit.errors import DataError
    from nnkit.model import Model
    from nnkit.runs.config import Config
    from nnkit.runs.plan import TrainingPlan


def config_from(sources: list[str] | None) -> Config:
    from nnkit.runs.config import Config, DataConfig, load_config

    if not sources:
        return Config(data=DataConfig(train="digits"))
    if len(sources) > 1:
        return Config(data=DataConfig(train=sources))
    return (
        load_config(sources[0]) if sources[0].endswith(".toml") else Config(data=DataConfig(train=sources[0]))
    )


def load_model(path: Path, quiet: bool = False) -> Model:
    """Load the model of a file or a run; print its path unless `path` is the file or its folder."""
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
    """Load rows for a model's predictions or evaluation; `target` replaces the model's target column."""
    from nnkit.data.pictures.columns import PictureOptions, PictureSettings
    from nnkit.data.sources.loading import load_dataset

    settings = model.preprocessor.pictures
    names = [target] if target is not None else list(model.target.names) or None
    # In a folder the subfolders are the classes, whatever the target column was called in training.
    folder = isinstance(data, str) and _is_folder_of_examples(Path(data).expanduser())
    options = PictureOptions(settings or PictureSettings(), on_bad.value, expected=settings is not None)
    # A model of pictures that was trained on a folder has a target "class", which is no column of other data.
    classes_named = folder or (settings is not None and names == ["class"])
    wanted = None if classes_named else names
    dataset = load_dataset(
        data,
        target=wanted,
        require_target=require_target,
        pictures=options,
        schema=model.preprocessor.schema,
        strict=False,
        multilabel=bool(model.target.labels),
        target_like=model.target.names,
    )
    if dataset.schema is not None and dataset.columns:
        from nnkit.data.tables.encoding import check_present

        # `dataset.columns` are all columns of the file, so that the error can list them.
        check_present(dataset.columns, model.preprocessor.input_names or ())
    for note in () if quiet else dataset.notes:
        typer.echo(note, err=True)
    return dataset


def _is_folder_of_examples(path: Path) -> bool:
    """Tell whether a path is a folder of pictures or texts, not of a table's parts."""
    if not path.is_dir():
        return False
    from nnkit.data.tables.files import table_parts

    return not table_parts(path)


def no_target(model: Model, data: str) -> DataError:
    """Return the error for rows without a target column."""
    from nnkit.errors import DataError

    wanted = f"target column {', '.join(model.target.names)}" if model.target.names else "target column"
    return DataError(f"{data}: there is no {wanted} to compare with; name it with --target")


def decision_threshold(model: Model, threshold: float | None) -> float:
    """Return the decision threshold: the given one, checked, or 0.5."""
    if threshold is not None:
        model.target.check_threshold(threshold)
    return 0.5 if threshold is None else threshold


def training_plan(
    source: list[str] | None, target: str | None, assignments: list[str] | None, quiet: bool
) -> TrainingPlan:
    """Prepare a training; print the library's notes unless `quiet`."""
    from nnkit.runs.plan import TrainingPlan

    named = [] if target is None else [f"data.target={target}"]
    config = config_from(source).with_overrides([*named, *(assignments or [])])
    if quiet:
        return TrainingPlan(config)
    with printed_notes():
        return TrainingPlan(config)
