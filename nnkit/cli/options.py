"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nnkit.checks import settings_of
from nnkit.cli.choices import completed, listed
from nnkit.runs.sections import SECTIONS
from nnkit.runs.table_defaults import FOLLOW_TABLE
from nnkit.working import stop_listening

BY_TABLE = "; a table has its own"


def quieten(is_quiet: bool) -> bool:
    """Stop showing the progress of the command."""
    if is_quiet:
        stop_listening()
    return is_quiet


def option(help: str, *flags: str, default: str = "", metavar: str | None = None, panel: str = "") -> Any:
    """Return an option; `default` is shown in place of its real default, `panel` is its part of the help."""
    return typer.Option(
        *flags, help=help, show_default=default or True, metavar=metavar, rich_help_panel=panel or None
    )


def of_key(key: str, panel: str, names: tuple[str, ...] = (), *flags: str, metavar: str | None = None) -> Any:
    """Return the option for a config key such as ``training.epochs``, with the key's help and default.

    `names` are the names that it may be: they are listed in the help, and completed in the shell. `flags` are
    the option's names, if it is not called as the key is.
    """
    section, _, name = key.partition(".")
    known = settings_of(SECTIONS[section])[name]
    shown: str | bool = f"{known.default:g}" if isinstance(known.default, float) else str(known.default)
    if key in FOLLOW_TABLE:
        shown = f"{shown}{BY_TABLE}"
    if known.default is None or known.default is False or known.default == []:
        shown = False
    return typer.Option(
        *flags,
        metavar="NAME" if names else metavar,
        help=f"{known.help} One of {listed(names)}." if names else known.help,
        show_default=shown,
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
    option("The column to predict, by name or number; several with commas.", metavar="COLUMN", panel="Data"),
]
Assignments = Annotated[
    list[str] | None,
    option(
        "Set any key of the config; nnkit init lists them; may be repeated.",
        "--set",
        metavar="SECTION.KEY=VALUE",
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
    option(
        "The column of true values, by name or number.",
        "--target",
        metavar="COLUMN",
        default="as in training",
    ),
]
Threshold = Annotated[float | None, option("The probability above which the answer is yes.", default="0.5")]
OnBadPicture = Annotated[OnBad, option("What to do with a picture or a file of text that cannot be read.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=quieten, help="Print nothing but errors and what the command is for."
    ),
]
AsJson = Annotated[bool, option("Print JSON.", "--json")]
