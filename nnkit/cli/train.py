"""`nnkit train`."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnkit.cli.choices import ACTIVATIONS, LOSSES, OPTIMIZERS, SCHEDULES
from nnkit.cli.loading import config_from
from nnkit.cli.options import BY_TABLE, Assignments, Quiet, Source, Target, of_key, option
from nnkit.cli.printing import print_findings, print_metrics, print_plan
from nnkit.cli.processor import take_the_processors_blas
from nnkit.cli.words import printed_notes
from nnkit.errors import AtEnd
from nnkit.run_folder import CHECKPOINTS, find_run
from nnkit.working import working

if TYPE_CHECKING:
    from nnkit.runs.folder import RunSummary
    from nnkit.runs.run import Outcome, Run


Precision = StrEnum("Precision", ["fp32", "fp64", "tf32", "fp16", "bf16"])


# The keys of the config that have an option, which is called as the key is.
_KEYS = (
    *(
        "data.target",
        "data.validation",
        "model.pretrained",
        "model.replace_head",
        "model.hidden",
        "model.activation",
        "model.dropout",
    ),
    *(
        "training.preset",
        "training.epochs",
        "training.batch_size",
        "training.optimizer",
        "training.learning_rate",
    ),
    *(
        "training.freeze",
        "training.schedule",
        "training.loss",
        "training.weight_decay",
        "training.l1",
        "training.l2",
    ),
    *("training.early_stopping", "run.device", "run.precision", "run.seed", "run.out"),
)


def train(
    # Most of the lines are declarations of options; the values of `_KEYS` are read from the context.
    context: typer.Context,
    source: Source = None,
    target: Target = None,
    validation: Annotated[str | None, of_key("data.validation", "Data")] = None,
    pretrained: Annotated[
        Path | None, of_key("model.pretrained", "Network", (), "--from", metavar="MODEL")
    ] = None,
    replace_head: Annotated[
        bool | None, of_key("model.replace_head", "Network", (), "--replace-head")
    ] = None,
    hidden: Annotated[
        str | None,
        option(
            "The widths of the hidden layers, with commas, or none.",
            default="256,128" + BY_TABLE,
            panel="Network",
        ),
    ] = None,
    activation: Annotated[str | None, of_key("model.activation", "Network", ACTIVATIONS)] = None,
    dropout: Annotated[
        float | None,
        option("The share of hidden units to drop in each step.", default="0" + BY_TABLE, panel="Network"),
    ] = None,
    preset: Annotated[str | None, of_key("training.preset", "Training", ("fast", "default", "best"))] = None,
    epochs: Annotated[int | None, of_key("training.epochs", "Training")] = None,
    batch_size: Annotated[int | None, of_key("training.batch_size", "Training")] = None,
    optimizer: Annotated[str | None, of_key("training.optimizer", "Training", OPTIMIZERS)] = None,
    learning_rate: Annotated[str | None, of_key("training.learning_rate", "Training", metavar="RATE")] = None,
    freeze: Annotated[str | None, of_key("training.freeze", "Training", metavar="LAYERS")] = None,
    schedule: Annotated[str | None, of_key("training.schedule", "Training", SCHEDULES)] = None,
    loss: Annotated[str | None, of_key("training.loss", "Training", ("auto", *LOSSES))] = None,
    weight_decay: Annotated[float | None, of_key("training.weight_decay", "Training")] = None,
    l1: Annotated[float | None, of_key("training.l1", "Training")] = None,
    l2: Annotated[float | None, of_key("training.l2", "Training")] = None,
    early_stopping: Annotated[int | None, of_key("training.early_stopping", "Training")] = None,
    device: Annotated[str | None, of_key("run.device", "Run")] = None,
    precision: Annotated[Precision | None, of_key("run.precision", "Run")] = None,
    seed: Annotated[int | None, of_key("run.seed", "Run")] = None,
    out: Annotated[Path | None, option("The run's folder.", default="runs/NAME-TIME", panel="Run")] = None,
    resume: Annotated[
        Path | None, option("Resume the training in this run folder.", metavar="RUN", panel="Run")
    ] = None,
    track: Annotated[
        str | None,
        option(
            "Record the training with tensorboard, mlflow or wandb; several with commas.",
            metavar="NAMES",
            panel="Run",
        ),
    ] = None,
    assignments: Assignments = None,
    overwrite: Annotated[
        bool, option("Replace the run that is in the folder.", "--overwrite", panel="Run")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a network and leave a run folder with its model.

    The folder holds config.toml, metrics.jsonl and model.safetensors.
    """
    named = {key: context.params[key.partition(".")[2]] for key in _KEYS}
    given = {key: value for key, value in named.items() if value is not None}
    _check_resume(source, out, resume, overwrite)
    take_the_processors_blas()
    with printed_notes(quiet):
        if track:
            _check_trackers(track)
        run = _prepared(source, resume, given, assignments or [], overwrite)
        if run is None:
            return
        from nnkit.training.interrupts import stopped_by_signals
        from nnkit.training.progress import ProgressDisplay
        from nnkit.training.trackers import trackers_from

        if track:
            run.claim_folder()
        tracked = run.resolved().tables() if track else None
        trackers = trackers_from(track, run.folder, tracked) if track else []
        if not quiet:
            print_plan(run)
        display = ProgressDisplay()
        stopped = stopped_by_signals(run.stop, signal.SIGINT, signal.SIGTERM)
        with AtEnd(display.close, "closing the display"), stopped as ended:
            outcome = run.train([] if quiet else [display], trackers)
    if quiet:
        typer.echo(outcome.model_path)
    else:
        _print_outcome(run, outcome)
    if ended and run.interrupted:  # a signal after the last step interrupts nothing
        name = signal.Signals(ended[0]).name
        how = f"resume with: nnkit train --resume {run.folder}"
        typer.echo(f"stopped by {name}; the model so far is saved; {how}", err=True)
        raise typer.Exit(128 + ended[0])


def _check_resume(source: list[str] | None, out: Path | None, resume: Path | None, overwrite: bool) -> None:
    given = {"SOURCE": bool(source), "--out": out is not None, "--overwrite": overwrite}
    wrong = next((name for name, is_given in given.items() if is_given), "")
    if resume is not None and wrong:
        from nnkit.errors import ConfigError

        raise ConfigError(f"--resume {resume} takes its data and folder from the run: leave out {wrong}")


def _check_trackers(names: str) -> None:
    """Raise if a tracker is unknown or its package is missing."""
    with working("loading nnkit"):
        from nnkit.training.trackers import trackers_from

        trackers_from(names, "")  # records nothing yet


def _prepared(
    source: list[str] | None,
    resume: Path | None,
    given: Mapping[str, Any],
    assignments: list[str],
    overwrite: bool,
) -> Run | None:
    """Return the training that the options describe; None, after a line, if it is finished."""
    with working("loading nnkit"):
        from nnkit.runs.folder import check_free, resumed_config, summary_of
        from nnkit.runs.run import Run

    options = {key: (_option_of(key), _value(key, value)) for key, value in given.items()}
    if resume is None:
        config = config_from(source).with_overrides(assignments, options)
        if config.run.out is not None:
            check_free(Path(config.run.out), overwrite)
        return Run(config, own_process=True, overwrite=overwrite)
    folder = find_run(resume)
    resumed_config(folder, assignments, options)
    summary = summary_of(folder)
    if summary.finished and given.get("training.epochs", 0) <= summary.epochs:
        typer.echo(_nothing_to_resume(summary))
        return None
    return Run.resumed(folder, assignments, options)


def _option_of(key: str) -> str:
    """Return the option for a setting: ``--batch-size`` for ``training.batch_size``."""
    return "--from" if key == "model.pretrained" else "--" + key.partition(".")[2].replace("_", "-")


def _value(key: str, value: Any) -> Any:
    """Return the value of an option as a config has it."""
    if key == "model.hidden":
        return _widths(value)
    if key == "training.freeze":
        return [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, Path | StrEnum):
        return str(value)
    parsed = ("data.target", "data.validation", "training.learning_rate")
    if key not in (*parsed, "training.loss", "training.optimizer", "training.schedule"):
        return value
    from nnkit.runs.toml import value_from

    return value_from(value, f"{_option_of(key)} {value}")


def _widths(text: str) -> list[int]:
    if text.strip() == "none":
        return []
    parts = text.split(",")
    for part in parts:
        try:
            int(part)
        except ValueError:
            from nnkit.errors import ConfigError

            raise ConfigError(
                f"--hidden takes whole numbers with commas, such as 256,128, or none, not {text!r}"
            ) from None
    return [int(part) for part in parts]


def _nothing_to_resume(summary: RunSummary) -> str:
    folder, longer = summary.folder, 2 * max(summary.epochs, 1)
    done = (
        f"{folder} is {summary.state} after {summary.epoch} of {summary.epochs} epochs: nothing is left to do"
    )
    if (folder / CHECKPOINTS).is_dir():
        return f"{done}\nTo train on: nnkit train --resume {folder} --epochs {longer}"
    again = f"nnkit train {folder}/config.toml --epochs {longer} --overwrite"
    return f"{done}\nTo train longer, start again: {again}"


def _print_outcome(run: Run, outcome: Outcome) -> None:
    history = run.trainer.history
    if not len(history):
        typer.echo("no epoch was finished")
    elif run.past_its_best:
        best = run.trainer.state.best_epoch
        typer.echo(f"the weights are those of epoch {best}, the best of {len(history)}")
    if outcome.metrics:
        print_metrics(outcome.metrics, f"{outcome.count:,} {outcome.rows} rows", outcome.undefined)
    if run.hint:
        typer.echo(run.hint)
    print_findings(run.untold)
    typer.echo(f"model    {outcome.model_path}")
