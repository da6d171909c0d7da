"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nnkit.checks import settings_of
from nnkit.cli.choices import completed, listed
from nnkit.runs.sections import SECTIONS
from nnkit.working import stop_listening


def quieten(is_quiet: bool) -> bool:
    """Keep what the command is doing from being shown."""
    if is_quiet:
        stop_listening()
    return is_quiet


def of_key(key: str, panel: str, names: tuple[str, ...] = ()) -> Any:
    """Return the option for a key of a config, with the key's help and default.

    Parameters
    ----------
    key : str
        Such as ``training.epochs``.
    panel : str
        The part of the help that it stands in.
    names : tuple of str
        The names it may be, where they are many: they are listed in the help, and completed.
    """
    section, _, name = key.partition(".")
    known = settings_of(SECTIONS[section])[name]
    default = known.default
    return typer.Option(
        metavar="NAME" if names else None,
        help=f"{known.help} One of {listed(names)}." if names else known.help,
        show_default=f"{default:g}" if isinstance(default, float) else str(default),
        rich_help_panel=panel,
        autocompletion=completed(names) if names else None,
    )


class OnBad(StrEnum):
    """What to do with a picture or a file of text that cannot be read."""

    error = "error"
    skip = "skip"


Source = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE...",
        help="What to train on: a data file or folder, the name of a built-in, the parts of one table, - for "
        "standard input, or a .toml config.",
        show_default="digits",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column to predict, by name or number; several with commas.",
        rich_help_panel="Data",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Set any key of the config; nnkit init lists them; may be repeated.",
    ),
]
ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model file, or the run folder that holds it.")
]
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A data file or folder, or the name of a built-in.")
]
TrueValues = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="COLUMN",
        help="The column of true values, by name or number.",
        show_default="as in training",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="The probability above which the answer is yes.", show_default="0.5"),
]
OnBadPicture = Annotated[
    OnBad, typer.Option(help="What to do with a picture or a file of text that cannot be read.")
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=quieten, help="Print nothing but errors and what the command is for."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
