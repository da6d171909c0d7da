"""`nnkit plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import load_rows
from nnkit.cli.options import OnBad


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

    drawn = plot_of(what, subject, data, lambda model, source: load_rows(model, source, OnBad.error))
    write_plot(drawn, out, dark)
    typer.echo(f"{drawn.title}: {drawn.description}")
    typer.echo(f"plot     {out}")
