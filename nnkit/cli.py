"""The command line: parse, call, print. Order: the commands, what they print, `main` and its exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnkit.errors import NnkitError

if TYPE_CHECKING:
    from nnkit.config import Config
    from nnkit.data.examples import Dataset
    from nnkit.model import Model
    from nnkit.training.diagnostics import Finding
    from nnkit.training.run import Outcome, Run

__all__ = ["app", "main"]

app = typer.Typer(
    name="nnkit",
    help="Train dense neural networks at hardware speed: NumPy on the CPU, CuPy on a CUDA GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Precision(StrEnum):
    """What a device computes in."""

    fp32 = "fp32"
    fp64 = "fp64"
    tf32 = "tf32"
    fp16 = "fp16"
    bf16 = "bf16"


class OnBad(StrEnum):
    """What to do with a picture that cannot be read."""

    error = "error"
    skip = "skip"


class ExplainMethod(StrEnum):
    """How contributions of columns are found."""

    permutation = "permutation"
    gradients = "gradients"
    shap = "shap"
    lime = "lime"


class BaselineName(StrEnum):
    """Where the path of integrated gradients begins."""

    mean = "mean"
    zero = "zero"


@app.command()
def train(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A .toml config, a data file or folder, or a built-in's name.", show_default="digits"
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict, by name or number.")] = None,
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
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any key of the config.")
    ] = None,
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
    _take_the_processors_blas()
    with _notes():
        from nnkit.training.interrupts import stopped_by_signals
        from nnkit.training.progress import ProgressDisplay
        from nnkit.training.run import Run
        from nnkit.training.trackers import trackers_from

        if resume is not None:
            run = Run.resumed(resume, overrides)
        else:
            run = Run(_config(source).with_overrides(overrides), own_process=True)
        tracked = run.resolved().model_dump(mode="json") if track else None
        trackers = trackers_from(track, run.folder, tracked) if track else []
        _print_run(run)
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


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model file, or the run folder that holds it.")],
    data: Annotated[str, typer.Argument(help="A data file or folder, or a built-in's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which the answer is yes.", show_default="0.5")
    ] = None,
    on_bad: Annotated[OnBad, typer.Option(help="What to do with a picture that cannot be read.")] = (
        OnBad.error
    ),
) -> None:
    """Measure a model on labelled rows (a source with a test set of its own: on that)."""
    from nnkit.errors import DataError

    loaded = _load(model)
    decision = _decision(loaded, threshold)
    dataset = _dataset(loaded, data, on_bad)
    examples = dataset.train if dataset.test is None else dataset.test
    if examples.target is None:
        raise DataError(f"{data}: there is no target column {', '.join(loaded.target.names)} to compare with")
    metrics = loaded.evaluate(examples.features, examples.target, threshold=decision)
    if as_json:
        _print_json({"metrics": metrics, "rows": len(examples), **_decided(loaded, decision)})
    else:
        _print_metrics(metrics, f"{len(examples):,} rows of {dataset.name}")
        _print_decision(loaded, decision)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model file, or the run folder that holds it.")],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA...",
            help="A data file or folder, or a built-in's name; pictures, one or several.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="A text in place of DATA; may come several times.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .parquet or .npy file; else printed as CSV.")
    ] = None,
    proba: Annotated[bool, typer.Option(help="Probabilities of the classes instead of labels.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which the answer is yes.", show_default="0.5")
    ] = None,
    on_bad: Annotated[OnBad, typer.Option(help="What to do with a picture that cannot be read.")] = (
        OnBad.error
    ),
) -> None:
    """Predict labels or values, one row each; of a --text the label and its probability."""
    from nnkit.data.pictures import Pictures
    from nnkit.data.predictions import prediction_lines, write_predictions
    from nnkit.errors import ConfigError

    if bool(data) == bool(texts):
        raise ConfigError("give either DATA, a file or a folder, or texts with --text")
    loaded = _load(model)
    decision = _decision(loaded, threshold)
    if proba and threshold is not None:
        raise ConfigError("--proba gives probabilities, which no --threshold changes: leave one of them out")
    if not data:
        features = loaded.preprocessor.table_of_texts(texts or [])
    else:
        dataset = _dataset(loaded, data[0] if len(data) == 1 else data, on_bad, require_target=False)
        features = (dataset.train if dataset.test is None else dataset.test).features
    values = loaded.predict_proba(features) if proba else loaded.predict(features, decision)
    if not data and out is None and not proba:
        probabilities = None if loaded.task == "regression" else loaded.predict_proba(features)
        typer.echo("\n".join(prediction_lines(values, probabilities, loaded.target)))
        return
    paths = features.names if isinstance(features, Pictures) else None
    count = write_predictions(values, loaded.target, proba, out, paths)
    if out is not None:
        typer.echo(f"{count:,} predictions written to {out}")


@app.command()
def info(
    model: Annotated[
        Path | None, typer.Argument(help="A model file, or the run folder that holds it.")
    ] = None,
) -> None:
    """Show the devices, the BLAS and the versions; or a model's summary."""
    if model is not None:
        typer.echo(_load(model).summary())
        return
    from nnkit.machine import describe_machine

    _print_table(describe_machine())


@app.command()
def bench(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SECTION]...",
            help="kernels, step, epoch, precision, loading, start, memory, growth, predict, peers.",
            show_default="all",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, within a minute.")] = False,
    device: Annotated[str, typer.Option(help="auto (all that work here), cpu or cuda.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write.", show_default="runs/bench-TIME")
    ] = None,
    earlier: Annotated[
        Path | None, typer.Option("--compare", metavar="FILE", help="Compare with an earlier bench.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure nnkit on this machine; leave bench.json and a page with plots, bench.html."""
    from nnkit.benchmarks.command import bench as measure

    if not measure(sections or [], quick, device, out, earlier, as_json):
        typer.echo("some of it ended in an error and was not measured; see above", err=True)
        raise typer.Exit(1)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The folder that a training left.")],
    out: Annotated[Path | None, typer.Option(help="The page.", show_default="RUN/report.html")] = None,
) -> None:
    """Write one HTML page about a run: curves, figures, mistakes, examples, settings; it needs no network."""
    from nnkit.insight.report import write_report

    path = write_report(run, out)
    typer.echo(f"report   {path} ({path.stat().st_size / 1e6:.1f} MB)")


@app.command()
def plot(
    what: Annotated[
        str,
        typer.Argument(
            help="learning, confusion, roc, precision-recall, calibration, predicted, residuals, mistakes, "
            "importance, boundary, loss-surface, weights or activations."
        ),
    ],
    subject: Annotated[
        Path | None, typer.Argument(metavar="[RUN|MODEL]", help="A run folder, or a model file.")
    ] = None,
    data: Annotated[
        str | None, typer.Argument(help="Rows to measure on.", show_default="the run's own")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="A .png, or a .svg that is light or dark as its reader is.")],
    dark: Annotated[bool, typer.Option("--dark", help="A PNG for a dark surface.")] = False,
) -> None:
    """Draw one picture of a run, of a model on data, or of the activation functions."""
    from nnkit.insight.drawing import write_plot
    from nnkit.insight.gallery import plot_of

    drawn = plot_of(what, subject, data, lambda model, source: _dataset(model, source, OnBad.error))
    write_plot(drawn, out, dark)
    typer.echo(f"{drawn.title}: {drawn.description}")
    typer.echo(f"plot     {out}")


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(help="A model file, or the run folder that holds it.")],
    data: Annotated[str, typer.Argument(help="A data file or folder, or a built-in's name.")],
    row: Annotated[int | None, typer.Option(help="Explain this row, counted from 1.")] = None,
    method: Annotated[
        ExplainMethod | None,
        typer.Option(help="How.", show_default="gradients for a row, else permutation"),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--class", help="The class, or target column, explained.", show_default="predicted"),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What permutation worsens.", show_default="accuracy or r2")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Permutations of each column.")] = 5,
    rows: Annotated[int | None, typer.Option(help="Rows at most.", show_default="by the method")] = None,
    baseline: Annotated[BaselineName, typer.Option(help="Where gradients begin.")] = BaselineName.mean,
    seed: Annotated[int, typer.Option(help="Of permutations and of drawn rows.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A waterfall of the row: .png, .svg or .pdf.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which columns a model's answers come from: of all rows, or of one."""
    from nnkit.insight.command import Settings, explain_data

    chosen: Any = None if method is None else method.value
    begin: Any = baseline.value
    settings = Settings(chosen, row, label, metric, repeats, rows, begin, seed, out)
    settings.check()
    loaded = _load(model)
    dataset = _dataset(loaded, data, OnBad.error, require_target=settings.chosen == "permutation")
    explain_data(loaded, dataset, settings, as_json)


@app.command()
def audit(
    model: Annotated[Path, typer.Argument(help="A model file, or the run folder that holds it.")],
    data: Annotated[str, typer.Argument(help="A data file or folder, or a built-in's name.")],
    by: Annotated[str, typer.Option(help="The column whose values part the rows, by name or number.")],
    positive: Annotated[
        str | None, typer.Option(help="The class that is a yes.", show_default="a binary model's second")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which the answer is yes.", show_default="0.5")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model group by group: figures, rates of yes, and how far apart the groups are."""
    from nnkit.insight.command import audit_data

    loaded = _load(model)
    decision = _decision(loaded, threshold)
    dataset = _dataset(loaded, data, OnBad.error)
    audit_data(loaded, dataset, by, positive, decision, as_json)


@app.command()
def check(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A .toml config, a data file or folder, or a built-in's name.", show_default="digits"
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict, by name or number.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any key of the config.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is found.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with data and settings, as far as it shows before training."""
    run = _untrained(source, target, assignments, quiet=as_json)
    findings = run.check()
    if as_json:
        import json

        typer.echo(json.dumps({"findings": [finding.to_json() for finding in findings]}))
    else:
        _print_run(run)
        _print_findings(findings)
        if not findings:
            typer.echo("nothing was found that is wrong before training")
    if findings and strict:
        raise typer.Exit(1)


@app.command()
def tune_rate(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A .toml config, a data file or folder, or a built-in's name.", show_default="digits"
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column to predict, by name or number.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any key of the config.")
    ] = None,
    lowest: Annotated[float, typer.Option(help="The first rate.")] = 1e-6,
    highest: Annotated[float, typer.Option(help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Steps from the first to the last.")] = 200,
    picture: Annotated[Path | None, typer.Option(help="Draw the curve, as .png or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find a learning rate: take some steps at rates that rise, and see where the loss falls (Smith 2015)."""
    if picture is not None:
        from nnkit.insight.drawing import check_picture

        check_picture(picture)
    run = _untrained(source, target, assignments, quiet=as_json)
    found = run.tune_rate(lowest, highest, steps)
    if picture is not None:
        from nnkit.insight.drawing import write_plot
        from nnkit.insight.rate_plot import rate_plot

        write_plot(rate_plot(found), picture)
    if as_json:
        import json

        typer.echo(json.dumps(found.to_json()))
    else:
        _print_run(run)
        typer.echo("\n".join(found.lines()))


def _untrained(source: str | None, target: str | None, assignments: list[str] | None, quiet: bool) -> Run:
    """Prepare a training that is only looked at; what the library logs goes to standard error, or nowhere."""
    from nnkit.training.run import Run

    named = [] if target is None else [f"data.target={target}"]
    config = _config(source).with_overrides([*named, *(assignments or [])])
    if quiet:
        return Run(config)
    with _notes():
        return Run(config)


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(("! " if finding.severity == "serious" else "  ") + str(finding))


def _check_resume(source: str | None, out: Path | None, resume: Path | None) -> None:
    given = "a SOURCE" if source is not None else "--out" if out is not None else ""
    if resume is not None and given:
        from nnkit.errors import ConfigError

        raise ConfigError(f"--resume {resume} takes its data and folder from the run: leave out {given}")


def _config(source: str | None) -> Config:
    from nnkit.config import Config, DataConfig, load_config

    if source is not None and source.endswith(".toml"):
        return load_config(source)
    return Config(data=DataConfig(train="digits" if source is None else source))


def _load(path: Path) -> Model:
    from nnkit.model import load

    return load(path)


def _dataset(model: Model, data: str | list[str], on_bad: OnBad, require_target: bool = True) -> Dataset:
    """Load what a model is to be measured on, or to predict."""
    from nnkit.data.pictures import PictureOptions
    from nnkit.data.sources import load_dataset
    from nnkit.errors import DataError

    settings = model.preprocessor.pictures
    if isinstance(data, list) and settings is None:
        raise DataError(f"several sources are for pictures, which this model was not trained on: {data[1]}")
    names = list(model.target.names) or None
    if settings is None:
        return load_dataset(data, target=names, require_target=require_target)
    # A folder's subfolders name the classes, whatever the column was called in training.
    folder = isinstance(data, str) and Path(data).expanduser().is_dir()
    options = PictureOptions(settings, on_bad.value)
    target = None if folder or names == ["class"] else names
    dataset = load_dataset(data, target=target, require_target=require_target, pictures=options)
    for note in dataset.notes:
        typer.echo(note, err=True)
    return dataset


@contextmanager
def _notes() -> Iterator[None]:
    """Print what the library logs, a line each."""
    handler = logging.StreamHandler(sys.stdout)
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


def _print_run(run: Run) -> None:
    from nnkit.core.layer_words import layers_in_words
    from nnkit.data.pictures import Pictures

    model, trainer = run.model, run.trainer
    kind = model.task if model.classes is None else f"{model.task}, {len(model.classes)} classes"
    if model.task == "multilabel":
        kind = f"multilabel, {model.target.outputs} labels"
    held_out = f", {run.held_out_rows:,} held out" if run.held_out_rows else ""
    test = "" if run.dataset.test is None else f", {len(run.dataset.test):,} to test on"
    features = run.dataset.train.features
    rows, made = "rows", ""
    if isinstance(features, Pictures):
        rows, made = "pictures", f"; {features.settings}; {features.origin}"
    counts = f"{run.training_rows:,} {rows} to train on{held_out}{test}"
    typer.echo(f"data     {run.dataset.name}: {counts} ({kind}{made})")
    typer.echo(f"network  {layers_in_words(model.network.layers, model.preprocessor.width)}")
    typer.echo(
        f"training {trainer.loss.name}, {trainer.optimizer.name} at {trainer.optimizer.learning_rate:g}, "
        f"batches of {run.config.training.batch_size}, {trainer.precision}"
    )


def _print_outcome(run: Run, outcome: Outcome) -> None:
    history = run.trainer.history
    if not len(history):
        typer.echo("no epoch was finished")
    elif run.trainer.state.restored and run.trainer.state.best_epoch != len(history):
        typer.echo(
            f"the weights are those of epoch {run.trainer.state.best_epoch}, the best of {len(history)}"
        )
    if outcome.metrics:
        _print_metrics(outcome.metrics, f"{outcome.count:,} {outcome.rows} rows")
    if run.hint:
        typer.echo(run.hint)
    _print_findings(run.untold)
    typer.echo(f"model    {outcome.model_path}")


def _print_metrics(metrics: dict[str, float], what: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"on {what}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name.replace("_", " "), f"{value:,.4f}")
    Console(soft_wrap=True).print(table)


def _decision(model: Model, threshold: float | None) -> float:
    """Return the threshold of the answers, as the user gave it or the default."""
    if threshold is not None:
        model.target.check_threshold(threshold)
    return 0.5 if threshold is None else threshold


def _decided(model: Model, decision: float) -> dict[str, Any]:
    """Return which class a binary model's figures are of, and the threshold that was best in validation."""
    if model.task != "binary":
        return {}
    found = {"positive": model.target.positive, "threshold": decision}
    best = model.details.get("best_threshold") or {}
    return {**found, "best_threshold": best} if {"threshold", "f1"} <= best.keys() else found


def _print_decision(model: Model, decision: float) -> None:
    decided = _decided(model, decision)
    if decided:
        typer.echo(f"f1, precision and recall are of {decided['positive']!r}, said above {decision:g}")
    if "best_threshold" in decided:
        threshold, f1 = (decided["best_threshold"][name] for name in ("threshold", "f1"))
        typer.echo(f"on the validation rows f1 was greatest, {f1:.4f}, with --threshold {threshold:.4g}")


def _print_table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


def _print_json(value: dict[str, Any]) -> None:
    import json
    import math

    metrics = {name: number if math.isfinite(number) else None for name, number in value["metrics"].items()}
    typer.echo(json.dumps({**value, "metrics": metrics}))


def _take_the_processors_blas() -> None:
    """Begin anew where OpenBLAS took kernels for a lesser processor than this one."""
    if "OPENBLAS_CORETYPE" not in os.environ:
        from nnkit.backends.blas import describe_blas
        from nnkit.backends.tuning import begin_anew_with, better_core_type, processor_flags

        better = better_core_type(describe_blas().get("BLAS core type", ""), processor_flags())
        if better is not None:
            begin_anew_with(better)


def main() -> None:
    """Run the command line; a user's mistake ends with 2 and a line or two, an interrupt with 130."""
    try:
        app(standalone_mode=True)
    except NnkitError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (MemoryError, ImportError) as error:
        # A library that finds no room to be loaded is an ImportError, with the words of the dynamic linker.
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        typer.echo("error: there is not enough memory; lower training.batch_size or model.hidden", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
