"""`nnkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.options import Quiet
from nnkit.working import working


def report(
    run: Annotated[Path, typer.Argument(help="The folder that a training left.")],
    out: Annotated[Path | None, typer.Option(help="The page.", show_default="RUN/report.html")] = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page about a run: curves, figures, mistakes, examples, settings; it needs no network."""
    with working("loading nnkit"):
        from nnkit.insight.report import write_report

    path = write_report(run, out)
    if not quiet:
        typer.echo(f"report   {path} ({path.stat().st_size / 1e6:.1f} MB)")
