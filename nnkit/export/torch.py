"""A model for PyTorch: weights as safetensors, and beside them a readable file that builds the module."""

from __future__ import annotations

import ast
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.data.operations import ArrayColumns, CategoryColumn, NumberColumn, PictureColumns
from nnkit.errors import ConfigError, FileError, NnkitError
from nnkit.files import write_whole
from nnkit.interop.torch_pieces import Piece, piece_of
from nnkit.model import MODEL_KIND, Model
from nnkit.nn.layers import layers_in_words
from nnkit.tensorfile import read_metadata
from nnkit.versions import nnkit_version

__all__ = ["write_torch"]

_LAYERS = "nnkit.interop.torch_layers"


def write_torch(model: Model, out: str | os.PathLike[str]) -> list[Path]:
    """Write ``out.safetensors`` and ``out.py``, which need torch and safetensors, and no nnkit.

    The tensors have the names and the layout of PyTorch: ``0.weight`` is (outputs, inputs). The `.py` has
    ``build()``, ``load()`` and, but for columns of text, ``predict(...)`` from raw columns.

    Parameters
    ----------
    model : Model
    out : path-like
        The path without its suffix, which is ignored if it is one of the two.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If PyTorch has no counterpart of an activation, or a model file of nnkit would be overwritten.
    FileError
        If a file cannot be written.
    """
    from safetensors.numpy import save

    path = Path(out)
    if path.is_dir():
        raise FileError(f"{path}: it is a folder; give the name of the files in it")
    path = path.with_suffix("") if path.suffix in (".py", ".safetensors") else path
    weights, program = (path.with_name(path.name + suffix) for suffix in (".safetensors", ".py"))
    _check_unused(weights)
    piece = piece_of(model)
    write_whole(weights, save(dict(piece.named_tensors()), {"format": "pt"}))
    write_whole(program, program_of(model, piece, weights.name).encode())
    return [weights, program]


def _check_unused(path: Path) -> None:
    """Raise if a file is a model of nnkit's."""
    try:
        read_metadata(path, MODEL_KIND)
    except NnkitError:
        return
    raise ConfigError(f"{path} is a model of nnkit's, which would be lost: choose another name")


def program_of(model: Model, piece: Piece, weights: str) -> str:
    """Return the source that builds the module; `weights` is the name of the file beside it."""
    constants, predict = _of_rows(model), _predict(model)
    wanted = piece.kinds() | ({"encode"} if "encode(" in predict else set())
    wanted |= {"interpolate"} if "interpolate(" in predict else set()
    wide = model.network.arena.dtype == np.float64
    parts = [
        *constants,
        *_sources(wanted),
        "def build() -> nn.Module:\n"
        '    """Return the network, with weights that are not trained."""\n'
        f"    return {_written(piece, 1)}{'.double()' if wide else ''}",
        "def load() -> nn.Module:\n"
        '    """Return the network with its weights, ready to predict."""\n'
        "    module = build()\n"
        f"    module.load_state_dict(load_file(Path(__file__).with_name({weights!r})))\n"
        "    return module.eval()",
        *([predict] if predict else []),
        'if __name__ == "__main__":\n    print(load())',
    ]
    body = "\n\n\n".join(parts)
    standard = ["import math"] * ("math." in body) + ["from pathlib import Path"]
    standard += ["from typing import Any"] * ("Any" in body)
    others = ["import torch"] * ("torch." in body) + ["from safetensors.torch import load_file"]
    return (
        f'"""{_title(model)}\n\nWritten by nnkit {nnkit_version()}; it needs torch and safetensors.\n"""\n\n'
        "from __future__ import annotations\n\n"
        + "\n".join([*standard, "", *others, "from torch import nn"])
        + f"\n\n{body}\n"
    )


def _title(model: Model) -> str:
    layers = layers_in_words(model.network.layers, model.network.inputs)
    return f"A {model.task} network: {layers}.".replace("\\", "\\\\").replace('"', "'")


def _sources(names: set[str]) -> list[str]:
    """Return the sources of classes and functions of nnkit's, in their order, without importing torch."""
    spec = find_spec(_LAYERS)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    found = [node for node in ast.parse(source).body if getattr(node, "name", None) in names]
    return [ast.get_source_segment(source, node) or "" for node in found]


def _written(piece: Piece, depth: int) -> str:
    """Return the expression that constructs a module."""
    name = piece.kind if piece.own else f"nn.{piece.kind}"
    options = [f"{key}={value!r}" for key, value in piece.options.items()]
    arguments = [*map(repr, piece.arguments), *options]
    if not piece.pieces:
        return f"{name}({', '.join(arguments)})"
    indent = "    " * depth
    lines = [_written(inner, depth + 1) for inner in piece.pieces]
    if len(lines) > 1 and len(set(lines)) == 1:  # the members of an ensemble
        member = _written(piece.pieces[0], depth + 2)
        lines = [f"*[\n{indent}        {member}\n{indent}        for _ in range({len(lines)})\n{indent}    ]"]
    lines += arguments
    return f"{name}(\n" + "".join(f"{indent}    {line},\n" for line in lines) + f"{indent})"


def _of_rows(model: Model) -> list[str]:
    """Return the constants of preprocessing and target, and comments on what they are."""
    lists, names = _columns(model), model.preprocessor.output_names
    constants = ""
    if model.preprocessor.input_names:
        listing = "".join(f"    {name!r},\n" for name in names)
        constants = (
            f"# The network's inputs, in their order, without embedded columns.\nINPUTS = [\n{listing}]\n"
        )
    if lists is not None:
        numbers, categories = ("".join(f"    {row!r},\n" for row in rows) for rows in lists)
        constants += (
            "# Of each column: its name, what stands for a missing value, shift, scale, whether missing\n"
            "# values have a flag, whether large ones are squeezed. Dates are seconds since 1970.\n"
            f"NUMBERS: list[Any] = [\n{numbers}]\n"
            "# Of each column: its name, its values, the code of a missing and of an unknown value\n"
            "# (-1 for none), the number of codes, whether it is embedded.\n"
            f"CATEGORIES: list[Any] = [\n{categories}]\n"
        )
    target = model.target
    if target.classes is not None:
        classes = list(target.output_names) if model.task == "multilabel" else target.classes.tolist()
        constants += f"CLASSES = {classes!r}  # in the order of the probabilities"
    return [constants.rstrip("\n")] if constants else []


def _columns(model: Model) -> tuple[list[Any], list[Any]] | None:
    """Return the columns of numbers and of categories; None for rows that are no table, or have texts."""
    operations = model.preprocessor.operations
    if not all(isinstance(operation, NumberColumn | CategoryColumn) for operation in operations):
        return None
    numbers: list[Any] = []
    categories: list[Any] = []
    for op in operations:
        if isinstance(op, NumberColumn):
            numbers.append((op.column, op.fill, op.shift, op.scale, op.flagged, op.clipped))
        elif isinstance(op, CategoryColumn):
            codes = (op.missing_code, op.unseen_code, op.places)
            categories.append((op.column, list(op.values), *codes, op.embedded))
    return numbers, categories


def _predict(model: Model) -> str:
    """Return the function that predicts from raw columns or rows; nothing for columns of text."""
    if _columns(model) is not None:
        given = "table: dict[str, Any]"
        takes = (
            "a dict of columns by name.\n\n    A column is a sequence of numbers, or of texts as in "
            "CATEGORIES; a missing value is None.\n    "
        )
        wide = model.network.arena.dtype == np.float64
        dtype = "torch.float64" if wide else "torch.float32"
        arguments = f"*encode(table, NUMBERS, CATEGORIES, {dtype})"
    elif model.preprocessor.text_columns or model.network.embeddings:
        return ""
    else:
        given, takes, arguments = "rows: torch.Tensor", "rows, (samples, inputs).", _scaled_rows(model)
    gives = "values, (samples, outputs)," if model.task == "regression" else "probabilities, as CLASSES,"
    return (
        f"def predict({given}) -> torch.Tensor:\n"
        f'    """Return {gives} for {takes}"""\n'
        "    with torch.no_grad():\n"
        f"        z = load()({arguments}).double()\n" + _decoded(model)
    )


def _scaled_rows(model: Model) -> str:
    """Return the expression for a network's inputs from an array's rows or unrolled pictures."""
    first = model.preprocessor.operations[0]
    dtype = ".double()" if model.network.arena.dtype == np.float64 else ".float()"
    if not isinstance(first, ArrayColumns | PictureColumns):
        return f"rows{dtype}"
    expression = "rows.double()"
    for sign, values in (("-", first.shift), ("*", first.scale)):
        array = np.asarray(values)
        if isinstance(first, PictureColumns):
            side = first.settings.height * first.settings.width
            text = f"torch.tensor({array.tolist()}, dtype=torch.float64).repeat_interleave({side})"
        else:
            text = f"torch.tensor({array.tolist()}, dtype=torch.float64)"
        expression = f"({expression} {sign} {text})"
    return f"{expression}{dtype}"


def _decoded(model: Model) -> str:
    """Return the lines that turn outputs z into probabilities or values."""
    target, link = model.target, model.loss.link
    if model.task == "binary":
        return "    return torch.cat([(-z).sigmoid(), z.sigmoid()], dim=1)"
    if model.task != "regression":
        return f"    return z.{'softmax(1)' if link == 'softmax' else 'sigmoid()'}"
    mean, scale = (np.asarray(values).tolist() for values in (target.mean, target.scale))
    lines = ["z = z.exp()"] if link == "exp" else []
    lines.append(f"z = z * torch.tensor({scale}).double() + torch.tensor({mean}).double()")
    lines[-1] = lines[-1].replace("]).double()", "], dtype=torch.float64)")
    if target.warp is not None and target.warp.name == "log":
        lines.append("z = z.exp()")
    elif target.warp is not None:
        pairs = [(scores.tolist(), values.tolist()) for values, scores in target.warp.knots]
        lines.append(f"knots = {pairs!r}")
        lines.append("z = torch.stack([interpolate(z[:, i], *pair) for i, pair in enumerate(knots)], dim=1)")
    if target.bounds is not None:
        low, high = (f"torch.tensor({row}, dtype=torch.float64)" for row in target.bounds.tolist())
        lines.append(f"z = z.clamp({low}, {high})")
    return "".join(f"    {line}\n" for line in [*lines, "return z"]).rstrip("\n")
