"""`nnkit export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import load_model, load_rows
from nnkit.cli.options import ModelPath, OnBad, Quiet, option
from nnkit.run_folder import model_file
from nnkit.working import working


class Format(StrEnum):
    """The format of an exported model."""

    onnx = "onnx"
    torch = "torch"
    c = "c"


def export(
    model: ModelPath,
    to: Annotated[Format, option("The format.", "--to", default="onnx")] = Format.onnx,
    out: Annotated[Path | None, option("The file to write.", default="beside the model")] = None,
    opset: Annotated[
        int | None, option("For onnx: the version of its operators, at least 17.", default="17")
    ] = None,
    check: Annotated[
        str | None,
        option("For onnx: rows to compare the graph with the model on, beside made-up ones.", metavar="DATA"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs.

    onnx is one graph from the columns to the answers, which is compared with the model first; torch is a
    module for PyTorch: a .safetensors file, and a .py file that builds the module; c is one C99 file without
    dependencies, for small networks on numbers.
    """
    with working("loading nnkit"):
        from nnkit.errors import ConfigError

    if to is not Format.onnx and (opset is not None or check is not None):
        raise ConfigError("--opset and --check are for --to onnx: leave them out")
    path, lines = model_file(model), []
    if to is Format.onnx:
        with working("loading nnkit"):
            from nnkit.export.onnx import DEFAULT_OPSET, write_onnx

        rows = None
        if check is not None:
            rows = load_rows(load_model(path, quiet), check, OnBad.error, False, quiet).train.features
        with working("comparing the graph with the model"):
            done = write_onnx(path, out or path.with_suffix(".onnx"), opset=opset or DEFAULT_OPSET, rows=rows)
        paths, lines = [*done.paths], [f"compared {done.proof}"]
    elif to is Format.torch:
        from nnkit.export.torch import write_torch

        paths = write_torch(load_model(path, quiet), out or path.parent / "torch_model")
    else:
        from nnkit.export.c import write_c

        paths = write_c(load_model(path, quiet), out or path.parent / "model.c")
    for line in paths if quiet else [*lines, *(f"export   {written}" for written in paths)]:
        typer.echo(line)
