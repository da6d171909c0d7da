"""`nnkit train`."""

from __future__ import annotations

import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnkit.cli.loading import config_from, printed_notes
from nnkit.cli.options import Assignments, Source, Target
from nnkit.cli.printing import print_findings, print_metrics, print_run
from nnkit.cli.processor import take_the_processors_blas

if TYPE_CHECKING:
    from nnkit.training.run import Outcome, Run


class Precision(StrEnum):
    """What a device computes in."""

    fp32 = "fp32"
    fp64 = "fp64"
    tf32 = "tf32"
    fp16 = "fp16"
    bf16 = "bf16"


def train(
    source: Source = None,
    target: Target = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths of the hidden layers.", show_default="256,128")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="Of the hidden layers.", show_default="relu")] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Share of hidden units dropped.", show_default="0")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="auto follows from the target.", show_default="auto")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="How weights are updated.", show_default="adam")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Base rate.", show_default="1e-3")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the rate.", show_default="cosine")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decoupled decay.", show_default="0")] = None,
    l1: Annotated[float | None, typer.Option(help="Penalty on |w|.", show_default="0")] = None,
    l2: Annotated[float | None, typer.Option(help="Penalty on ½w².", show_default="0")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="20")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.", show_default="128")] = None,
    validation: Annotated[
        str | None, typer.Option(help="Share of rows held out, 0 for none, or a file.", show_default="0.1")
    ] = None,
    early_stopping: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a gain.", show_default="never")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...", show_default="auto")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(show_default="fp32")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and dropout.", show_default="0")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/NAME-TIME")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with the training in this run folder.")
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="tensorboard, mlflow, wandb; several with commas."),
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Train a network and leave a run folder: config.toml, metrics.jsonl, checkpoints, model.safetensors."""
    given = {
        "data.target": target,
        "model.hidden": None if hidden is None else f"[{hidden}]",
        "model.activation": activation,
        "model.dropout": dropout,
        "training.loss": loss,
        "training.optimizer": optimizer,
        "training.learning_rate": learning_rate,
        "training.schedule": schedule,
        "training.weight_decay": weight_decay,
        "training.l1": l1,
        "training.l2": l2,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "data.validation": validation,
        "training.early_stopping": early_stopping,
        "run.device": device,
        "run.precision": None if precision is None else precision.value,
        "run.seed": seed,
        "run.out": None if out is None else str(out),
    }
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    overrides += assignments or []
    _check_resume(source, out, resume)
    take_the_processors_blas()
    with printed_notes():
        from nnkit.training.interrupts import stopped_by_signals
        from nnkit.training.progress import ProgressDisplay
        from nnkit.training.run import Run
        from nnkit.training.trackers import trackers_from

        if resume is not None:
            run = Run.resumed(resume, overrides)
        else:
            run = Run(config_from(source).with_overrides(overrides), own_process=True)
        tracked = run.resolved().model_dump(mode="json") if track else None
        trackers = trackers_from(track, run.folder, tracked) if track else []
        print_run(run)
        display = ProgressDisplay()
        try:
            with stopped_by_signals(run.stop, signal.SIGINT, signal.SIGTERM) as ended:
                outcome = run.train([display], trackers)
        finally:
            display.close()
    _print_outcome(run, outcome)
    if ended:
        name = signal.Signals(ended[0]).name
        how = f"; go on with: nnkit train --resume {run.folder}" if run.interrupted else ""
        typer.echo(f"stopped by {name}; the model so far is saved{how}", err=True)
        raise typer.Exit(128 + ended[0])


def _check_resume(source: str | None, out: Path | None, resume: Path | None) -> None:
    given = "a SOURCE" if source is not None else "--out" if out is not None else ""
    if resume is not None and given:
        from nnkit.errors import ConfigError

        raise ConfigError(f"--resume {resume} takes its data and folder from the run: leave out {given}")


def _print_outcome(run: Run, outcome: Outcome) -> None:
    history = run.trainer.history
    if not len(history):
        typer.echo("no epoch was finished")
    elif run.trainer.state.restored and run.trainer.state.best_epoch != len(history):
        typer.echo(
            f"the weights are those of epoch {run.trainer.state.best_epoch}, the best of {len(history)}"
        )
    if outcome.metrics:
        print_metrics(outcome.metrics, f"{outcome.count:,} {outcome.rows} rows")
    if run.hint:
        typer.echo(run.hint)
    print_findings(run.untold)
    typer.echo(f"model    {outcome.model_path}")
