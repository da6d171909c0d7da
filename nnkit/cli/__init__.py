"""The command line, a file for each command, which parses, calls and prints; `main` puts them together."""

from __future__ import annotations

import sys

import typer

from nnkit.cli import (
    audit,
    bench,
    check,
    evaluate,
    explain,
    info,
    plot,
    predict,
    report,
    runs,
    train,
    tune_rate,
)
from nnkit.cli.work_line import shown_work
from nnkit.errors import NnkitError

__all__ = ["app", "main"]

app = typer.Typer(
    name="nnkit",
    help="Train dense neural networks at hardware speed: NumPy on the CPU, CuPy on a CUDA GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of the help.
for command in (
    train.train,
    evaluate.evaluate,
    predict.predict,
    info.info,
    runs.runs,
    bench.bench,
    report.report,
    plot.plot,
    explain.explain,
    audit.audit,
    check.check,
    tune_rate.tune_rate,
):
    app.command()(command)


def main() -> None:
    """Run the command line; a user's mistake ends with 2 and a line or two, an interrupt with 130."""
    try:
        with shown_work():
            app(standalone_mode=True)
    except NnkitError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (MemoryError, ImportError) as error:
        # A library that finds no room to be loaded is an ImportError, with the words of the dynamic linker.
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        typer.echo("error: there is not enough memory; lower training.batch_size or model.hidden", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
