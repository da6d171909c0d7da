"""What commands load: a config, a model, rows, the plan of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nnkit.cli.notes import printed_notes
from nnkit.cli.options import OnBad
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
    from nnkit.data.pictures.columns import PictureOptions, PictureSettings
    from nnkit.data.sources.loading import load_dataset

    settings = model.preprocessor.pictures
    names = [target] if target is not None else list(model.target.names) or None
    # A folder's subfolders name the classes, whatever the column was called in training.
    folder = isinstance(data, str) and _is_folder_of_examples(Path(data).expanduser())
    options = PictureOptions(settings or PictureSettings(), on_bad.value, expected=settings is not None)
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

        # The data set has only those that the model knows: a message is to list all.
        check_present(dataset.columns, model.preprocessor.input_names or ())
    for note in () if quiet else dataset.notes:
        typer.echo(note, err=True)
    return dataset


def _is_folder_of_examples(path: Path) -> bool:
    """Tell whether a path is that of a folder other than one of a table's parts."""
    if not path.is_dir():
        return False
    from nnkit.data.tables.files import table_parts

    return not table_parts(path)


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


def training_plan(
    source: list[str] | None, target: str | None, assignments: list[str] | None, quiet: bool
) -> TrainingPlan:
    """Prepare a training; what the library logs goes to standard error, or nowhere where `quiet`."""
    from nnkit.runs.plan import TrainingPlan

    named = [] if target is None else [f"data.target={target}"]
    config = config_from(source).with_overrides([*named, *(assignments or [])])
    if quiet:
        return TrainingPlan(config)
    with printed_notes():
        return TrainingPlan(config)
