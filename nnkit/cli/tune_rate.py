"""`nnkit tune-rate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import training_plan
from nnkit.cli.options import AsJson, Assignments, Source, Target, option
from nnkit.cli.printing import print_object, print_plan
from nnkit.working import working


def tune_rate(
    source: Source = None,
    target: Target = None,
    assignments: Assignments = None,
    lowest: Annotated[float, option("The learning rate of the first step.")] = 1e-6,
    highest: Annotated[float, option("The learning rate of the last step.")] = 10.0,
    steps: Annotated[int, option("The number of steps from the lowest to the highest rate.")] = 200,
    picture: Annotated[Path | None, option("Draw the losses by the rate: a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find a learning rate by a short training in which it rises.

    It prints the loss at each rate, which falls and then rises, and the command that trains with the
    suggested rate (Smith 2015, arXiv:1506.01186). The short training writes no files.
    """
    if picture is not None:
        from nnkit.insight.drawing import check_picture

        check_picture(picture)
    plan = training_plan(source, target, assignments, quiet=as_json)
    with working("trying learning rates"):
        found = plan.tune_rate(lowest, highest, steps)
    if picture is not None:
        from nnkit.insight.drawing import write_plot
        from nnkit.insight.learning_plots import rate_plot

        write_plot(rate_plot(found), picture)
    if as_json:
        print_object(found.to_json())
        return
    print_plan(plan)
    typer.echo("\n".join(found.lines()))
    if picture is not None:
        typer.echo(f"picture  {picture}")
    typer.echo(f"train with it: {_training(source, target, assignments or [], found.suggested)}")


def _training(source: list[str] | None, target: str | None, assignments: list[str], rate: float) -> str:
    """Return the command that trains with the same data and settings and this learning rate."""
    words = ["nnkit", "train", *(source or [])]
    words += [] if target is None else ["--target", target]
    words += ["--learning-rate", f"{rate:g}"]
    for assignment in assignments:
        # An assignment would take precedence over the option.
        if assignment.partition("=")[0].strip() != "training.learning_rate":
            words += ["--set", assignment]
    return shlex.join(words)
