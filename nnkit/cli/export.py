"""`nnkit export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import load_model, load_rows
from nnkit.cli.options import ModelPath, OnBad, Quiet, option
from nnkit.run_folder import model_file
from nnkit.working import working


class Target(StrEnum):
    """What a model may be written for."""

    onnx = "onnx"


def export(
    model: ModelPath,
    to: Annotated[Target, option("What to write.", "--to", default="onnx")] = Target.onnx,
    out: Annotated[Path | None, option("The file to write.", default="model.onnx beside the model")] = None,
    opset: Annotated[int, option("The version of ONNX's operators, at least 17.")] = 17,
    check: Annotated[
        str | None,
        option("Rows to compare the graph with the model on, beside made-up ones.", metavar="DATA"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a model as one graph that other programs run, from the columns to the answers.

    The graph is compared with the model in two runtimes before it is written.
    """
    with working("loading nnkit"):
        from nnkit.export.onnx import write_onnx

    path = model_file(model)
    rows = None
    if check is not None:
        rows = load_rows(load_model(model, quiet), check, OnBad.error, False, quiet).train.features
    with working("comparing the graph with the model"):
        done = write_onnx(path, out or path.with_suffix(".onnx"), opset=opset, rows=rows)
    if not quiet:
        typer.echo(f"compared {done.proof}")
    for written in done.paths:
        typer.echo(written if quiet else f"export   {written}")
