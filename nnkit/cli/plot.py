"""`nnkit plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.choices import PLOTS, completed, listed
from nnkit.cli.loading import load_rows
from nnkit.cli.options import OnBad, option
from nnkit.run_folder import find_run
from nnkit.working import working


def plot(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PLOT", help=f"What to draw: {listed(PLOTS)}.", autocompletion=completed(PLOTS)
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model file; activations need none."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA", help="The rows to measure the model on.", show_default="those the run held out"
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        option(
            "The file: a .png, or a .svg that adapts to a light or dark page.",
            default="PLOT.png in the run's folder, or here for a model file",
        ),
    ] = None,
    dark: Annotated[bool, option("Draw a .png for a dark background.", "--dark")] = False,
) -> None:
    """Draw one plot of a run or of a model."""
    with working(f"drawing {what}"):
        from nnkit.insight.drawing import check_picture, write_plot
        from nnkit.insight.gallery import plot_of

        if out is not None:
            check_picture(out)
        drawn = plot_of(what, path, data, lambda model, source: load_rows(model, source, OnBad.error))
        if out is None:
            run = Path() if path is None else find_run(path)
            out = (run if run.is_dir() else Path()) / f"{what}.png"
        write_plot(drawn, out, dark)
    typer.echo(f"{drawn.title}: {drawn.description}")
    typer.echo(f"picture  {out}")
