"""`nnkit info`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnkit.cli.loading import load_model
from nnkit.cli.options import AsJson
from nnkit.cli.printing import print_columns, print_object, print_pairs

if TYPE_CHECKING:
    from nnkit.model import Model

_LONGEST_LINE = 140


def info(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|MODEL", help="A run folder or a model file; without it, this machine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show this machine's devices and versions, or a model's summary."""
    if model is None:
        from nnkit.machine import describe_machine

        machine = describe_machine()
        if as_json:
            print_object({name.strip(): value for name, value in machine.items()})
        else:
            print_pairs(machine)
        return
    loaded = load_model(model)
    if as_json:
        print_object(_model_json(loaded))
        return
    typer.echo(loaded.summary())
    if loaded.schema is not None:
        typer.echo()
        used = {*(loaded.preprocessor.input_names or ()), *loaded.target.names}
        names = [column.name for column in loaded.schema.columns]
        print_columns(loaded.schema, [name for name in names if name in used])
        if others := [name for name in names if name not in used]:
            typer.echo(textwrap.shorten(f"not used {', '.join(others)}", _LONGEST_LINE, placeholder=" …"))


def _model_json(model: Model) -> dict[str, Any]:
    """Return the content of `Model.summary` as JSON."""
    target, names = model.target, model.preprocessor.input_names
    pictures = model.preprocessor.pictures
    return {
        "task": model.task,
        "target": list(target.names),
        "classes": None if model.classes is None else model.classes.tolist(),
        "labels": list(target.labels),
        "positive_class": target.positive,
        "pictures": None if pictures is None else str(pictures),
        "columns": None if names is None else list(names),
        "schema": None if model.schema is None else model.schema.to_json(),
        "text": [operation.column for operation in model.preprocessor.text_columns],
        "inputs": model.network.inputs,
        "layers": [str(layer) for layer in model.network.layers],
        "parameters": model.parameter_count,
        "dtype": model.network.arena.dtype.name,
        "loss": model.loss.to_json(),
        "estimator": model.estimator,
        "details": model.details,
    }
