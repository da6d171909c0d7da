"""`nnkit explain`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nnkit.cli.loading import load_model, load_rows
from nnkit.cli.options import AsJson, Data, ModelPath, OnBad


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


def explain(
    model: ModelPath,
    data: Data,
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
    as_json: AsJson = False,
) -> None:
    """Tell which columns a model's answers come from: of all rows, or of one."""
    from nnkit.insight.command import Settings, explain_data

    chosen: Any = None if method is None else method.value
    begin: Any = baseline.value
    settings = Settings(chosen, row, label, metric, repeats, rows, begin, seed, out)
    settings.check()
    loaded = load_model(model)
    dataset = load_rows(loaded, data, OnBad.error, require_target=settings.chosen == "permutation")
    explain_data(loaded, dataset, settings, as_json)
