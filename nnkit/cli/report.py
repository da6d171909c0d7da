"""`nnkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.options import Quiet, option
from nnkit.working import working


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that a training left.")],
    out: Annotated[Path | None, option("The file to write.", default="RUN/report.html")] = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page about a run.

    It has learning curves, metrics, mistakes, examples and settings, and needs no network to be read.
    """
    with working("loading nnkit"):
        from nnkit.insight.report import write_report

    path = write_report(run, out)
    if not quiet:
        typer.echo(f"report   {path} ({path.stat().st_size / 1e6:.1f} MB)")
