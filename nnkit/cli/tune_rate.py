"""`nnkit tune-rate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import untrained_run
from nnkit.cli.options import AsJson, Assignments, Source, Target
from nnkit.cli.printing import print_run


def tune_rate(
    source: Source = None,
    target: Target = None,
    assignments: Assignments = None,
    lowest: Annotated[float, typer.Option(help="The first rate.")] = 1e-6,
    highest: Annotated[float, typer.Option(help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Steps from the first to the last.")] = 200,
    picture: Annotated[Path | None, typer.Option(help="Draw the curve, as .png or .svg.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find a learning rate: take some steps at rates that rise, and see where the loss falls (Smith 2015)."""
    if picture is not None:
        from nnkit.insight.drawing import check_picture

        check_picture(picture)
    run = untrained_run(source, target, assignments, quiet=as_json)
    found = run.tune_rate(lowest, highest, steps)
    if picture is not None:
        from nnkit.insight.drawing import write_plot
        from nnkit.insight.rate_plot import rate_plot

        write_plot(rate_plot(found), picture)
    if as_json:
        import json

        typer.echo(json.dumps(found.to_json()))
    else:
        print_run(run)
        typer.echo("\n".join(found.lines()))
