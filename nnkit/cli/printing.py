"""Printing for the commands: a training, metrics, findings, tables, JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from nnkit.cli.words import DATA_KEYS, with_option_names
from nnkit.terminal import number

if TYPE_CHECKING:
    from rich.table import Table

    from nnkit.data.tables.schema import Schema
    from nnkit.diagnostics.findings import Finding
    from nnkit.model import Model
    from nnkit.runs.plan import TrainingPlan


def print_plan(plan: TrainingPlan) -> None:
    from nnkit.data.pictures.columns import Pictures
    from nnkit.nn.layers import layers_in_words

    model, trainer = plan.model, plan.trainer
    kind = model.task if model.classes is None else f"{model.task}, {len(model.classes)} classes"
    if model.task == "multilabel":
        kind = f"multilabel, {model.target.outputs} labels"
    held_out = f", {plan.held_out_rows:,} held out" if plan.held_out_rows else ""
    test = "" if plan.dataset.test is None else f", {len(plan.dataset.test):,} to test on"
    features = plan.dataset.train.features
    rows, made = "rows", ""
    if isinstance(features, Pictures):
        rows, made = "pictures", f"; {features.settings}; {features.origin}"
    counts = f"{plan.training_rows:,} {rows} to train on{held_out}{test}"
    typer.echo(f"data     {plan.dataset.name}: {counts} ({kind}{made})")
    typer.echo(f"network  {layers_in_words(model.network.layers, model.preprocessor.width)}")
    typer.echo(
        f"training {trainer.loss.name}, {trainer.optimizer.name} at {trainer.optimizer.learning_rate:g}, "
        f"batches of {plan.config.training.batch_size}, {trainer.precision}"
    )


def print_columns(schema: Schema | None, names: Sequence[str] | None = None) -> None:
    """Print how each column of a table is read, a line each; all columns, or those in `names`."""
    for place, line in enumerate([] if schema is None else schema.lines(names)):
        typer.echo(("columns  " if place == 0 else "         ") + with_option_names(line, DATA_KEYS))


def print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(("! " if finding.severity == "serious" else "  ") + str(finding))


def print_metrics(metrics: dict[str, float], what: str, undefined: Mapping[str, str]) -> None:
    """Print metrics as a table, and below it why some are undefined."""
    table = made_table(f"on {what}", "metric", "value")
    for name, value in metrics.items():
        table.add_row(name.replace("_", " "), number(value).strip() if math.isfinite(value) else "undefined")
    print_table(table)
    for reason in dict.fromkeys(undefined.values()):
        names = ", ".join(name.replace("_", " ") for name, why in undefined.items() if why == reason)
        typer.echo(f"{names}: {reason}")


def made_table(title: str, *columns: str) -> Table:
    """Return a table with a first column of text and further columns of numbers."""
    from rich.table import Table

    table = Table(title=plain(title), title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


def print_table(table: Table) -> None:
    from rich.console import Console

    Console(soft_wrap=True).print(table)


def plain(words: str) -> str:
    """Return text that Rich prints as it is: [brackets] would be markup."""
    return words.replace("[", r"\[")


def to_terminal() -> bool:
    """Tell whether standard output is a terminal with colours."""
    from rich.console import Console

    return Console().is_terminal and Console().color_system is not None


def decision_json(model: Model, decision: float) -> dict[str, Any]:
    """Return a binary model's positive class, its threshold, and the best threshold in validation."""
    if model.task != "binary":
        return {}
    found = {"positive": model.target.positive, "threshold": decision}
    best = model.details.get("best_threshold") or {}
    return {**found, "best_threshold": best} if {"threshold", "f1"} <= best.keys() else found


def print_decision(model: Model, decision: float) -> None:
    decided = decision_json(model, decision)
    if decided:
        typer.echo(f"f1, precision and recall are of {decided['positive']!r}, predicted above {decision:g}")
    if "best_threshold" in decided:
        threshold, f1 = (decided["best_threshold"][name] for name in ("threshold", "f1"))
        typer.echo(f"on the validation rows f1 was greatest, {f1:.4f}, with --threshold {threshold:.4g}")


def print_pairs(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


def print_json(value: dict[str, Any]) -> None:
    """Print JSON with `metrics` in it; those that are not finite become null."""
    metrics = {name: number if math.isfinite(number) else None for name, number in value["metrics"].items()}
    print_object({**value, "metrics": metrics})


def print_object(value: dict[str, Any]) -> None:
    """Print JSON on one line; NaN and infinity raise ValueError."""
    import json

    typer.echo(json.dumps(value, allow_nan=False))
