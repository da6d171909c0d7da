"""`nnkit init`."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.options import Assignments, Target

_HEADER = """\
# A training with nnkit: nnkit train {file}
#
# Every key is here with its default, or with an example where it has none.
# Remove the # before a key to set it.
# Relative paths are relative to this file.

"""


def init(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DATA",
            help="The .toml file to write; or the data to train on, for which NAME.toml is written.",
        ),
    ] = "config.toml",
    target: Target = None,
    assignments: Assignments = None,
) -> None:
    """Write a config with every key, its default and what it is for.

    An existing file is not overwritten.
    """
    from nnkit.errors import FileError
    from nnkit.files import write_whole
    from nnkit.runs.config import Config

    source = None if file.endswith(".toml") else file
    path = Path(file) if source is None else _config_path(source)
    if path.exists():
        raise FileError(f"{path}: the file exists and is not overwritten; give another name or remove it")
    named = [] if target is None else [f"data.target={target}"]
    config = Config().with_overrides([*named, *(assignments or [])])
    if source is not None:
        # An override would become an absolute path; this stays relative to the file.
        config = replace(config, data=config.data.changed(train=source))
    header = _HEADER.format(file=shlex.quote(path.name))
    write_whole(path, (header + config.to_commented_toml()).encode())
    typer.echo(f"config   {path}")
    typer.echo(f"edit it, then: nnkit train {shlex.quote(str(path))}")


def _config_path(source: str) -> Path:
    """Return the config's path for a source, in the working directory."""
    from nnkit.data.files.text import plain_name
    from nnkit.data.sources.built_in import BUILT_INS
    from nnkit.data.sources.loading import source_not_found

    path = Path(source).expanduser()
    if source not in BUILT_INS and not path.exists():
        raise source_not_found(source)
    name = plain_name(Path(os.path.abspath(path)))
    return Path(f"{name if path.is_dir() else name.partition('.')[0] or name}.toml")
