"""The command line: `main`, and a file for each command, which parses, calls the library and prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nnkit.cli import (
    audit,
    bench,
    check,
    evaluate,
    explain,
    export,
    info,
    init,
    plot,
    predict,
    report,
    runs,
    train,
    tune_rate,
)
from nnkit.cli.commands import Command, CommandGroup, ModelCommand
from nnkit.cli.work_line import shown_work
from nnkit.errors import NnkitError

__all__ = ["COMMANDS", "app", "main"]

app = typer.Typer(
    name="nnkit",
    cls=CommandGroup,
    help="Train dense neural networks at hardware speed: NumPy on the CPU, CuPy on a CUDA GPU.",
    epilog="nnkit train houses.csv --target price\nnnkit predict runs/houses new_houses.csv",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Each command with examples, in the groups and the order of the help.
COMMANDS: dict[str, tuple[tuple[Callable[..., Any], str], ...]] = {
    "Train": (
        (
            train.train,
            "nnkit train houses.csv --target price --epochs 60\n"
            "nnkit train houses.toml --set training.epochs=60\n"
            "nnkit train --resume runs/houses",
        ),
        (init.init, "nnkit init houses.toml\nnnkit init houses.csv --target price"),
        (check.check, "nnkit check houses.csv --target price"),
        (tune_rate.tune_rate, "nnkit tune-rate houses.csv --target price --picture rate.png"),
    ),
    "Use a model": (
        (evaluate.evaluate, "nnkit evaluate runs/houses sold.csv --json"),
        (
            predict.predict,
            "nnkit predict runs/houses new_houses.csv --keep id --out prices.csv\n"
            'nnkit predict runs/sms_spam --text "You have won £1000!"',
        ),
        (
            export.export,
            "nnkit export runs/houses --to onnx --check new.csv\nnnkit export runs/houses --to torch\n"
            "nnkit export runs/houses --to c --out houses.c",
        ),
    ),
    "Look at a model": (
        (runs.runs, "nnkit runs\nnnkit runs experiments --json"),
        (report.report, "nnkit report runs/houses"),
        (
            plot.plot,
            "nnkit plot learning runs/houses\nnnkit plot roc model.safetensors new.csv --out roc.svg",
        ),
        (
            explain.explain,
            "nnkit explain runs/houses houses.csv\n"
            "nnkit explain runs/houses houses.csv --row 17 --out why.png",
        ),
        (audit.audit, "nnkit audit runs/loans loans.csv --by sex"),
    ),
    "Look at the machine": (
        (info.info, "nnkit info\nnnkit info runs/houses --json"),
        (bench.bench, "nnkit bench step peers --quick"),
    ),
}
for group, commands in COMMANDS.items():
    kind = ModelCommand if group in ("Use a model", "Look at a model") else Command
    for function, examples in commands:
        app.command(cls=kind, epilog=examples, rich_help_panel=group)(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        from nnkit.versions import nnkit_version

        typer.echo(f"nnkit {nnkit_version()}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line; a user's mistake ends with exit code 2, an interrupt with 130."""
    try:
        with shown_work():
            app(prog_name="nnkit", standalone_mode=True)
    except NnkitError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (MemoryError, ImportError) as error:
        # If there is no memory to load a library, the dynamic linker's message is in an ImportError.
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        typer.echo("error: there is not enough memory; lower training.batch_size or model.hidden", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
