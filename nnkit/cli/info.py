"""`nnkit info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import load_model
from nnkit.cli.printing import print_pairs


def info(
    model: Annotated[
        Path | None, typer.Argument(help="A model file, or the run folder that holds it.")
    ] = None,
) -> None:
    """Show the devices, the BLAS and the versions; or a model's summary."""
    if model is not None:
        typer.echo(load_model(model).summary())
        return
    from nnkit.machine import describe_machine

    print_pairs(describe_machine())
