"""`nnkit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.options import AsJson, Quiet
from nnkit.working import working


def bench(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SECTION...",
            help="What to measure: kernels, step, precision, predict or peers.",
            show_default="all",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure small sizes, in a minute or two.")] = False,
    device: Annotated[
        str, typer.Option(help="The device to measure: cpu, cuda, or auto for all that work.")
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="The folder for bench.json.", show_default="runs/bench-TIME")
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="Compare with an earlier bench.json, or its folder."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure nnkit's speed on this machine.

    It prints tables and writes bench.json. PyTorch and JAX are measured where they are installed.
    """
    with working("loading nnkit"):
        from nnkit.bench.command import bench as measure

    if not measure(sections or [], quick, device, out, earlier, as_json, quiet):
        typer.echo("some of it ended in an error and was not measured; see above", err=True)
        raise typer.Exit(1)
