"""`nnkit export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import load_model
from nnkit.cli.options import ModelPath, Quiet, option
from nnkit.run_folder import model_file


class Format(StrEnum):
    """The format of an exported model."""

    torch = "torch"
    c = "c"


def export(
    model: ModelPath,
    to: Annotated[Format, option("The format.", "--to")],
    out: Annotated[Path | None, option("The file to write.", default="beside the model")] = None,
    quiet: Quiet = False,
) -> None:
    """Write a model in the format of another library or language.

    torch is a module for PyTorch: a .safetensors file, and a .py file that builds the module; c is one C99
    file without dependencies, for small networks on numbers.
    """
    loaded = load_model(model, quiet)
    folder = model_file(model).parent
    if to is Format.torch:
        from nnkit.export.torch import write_torch

        paths = write_torch(loaded, out or folder / "torch_model")
    else:
        from nnkit.export.c import write_c

        paths = write_c(loaded, out or folder / "model.c")
    for path in [] if quiet else paths:
        typer.echo(f"{to.value:<8} {path}")
