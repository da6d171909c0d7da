"""Export a whole model to ONNX: from a user's columns to labels, probabilities or values in their units."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnkit.checks import Whole
from nnkit.data.operations import TextColumn
from nnkit.errors import ConfigError
from nnkit.export.onnx.answers import add_answers
from nnkit.export.onnx.graph import DEFAULT_OPSET, Graph
from nnkit.export.onnx.inputs import network_inputs
from nnkit.export.onnx.layers import network_outputs
from nnkit.export.onnx.pipelines import register_skl2onnx
from nnkit.export.onnx.proof import Proof, described, proven
from nnkit.export.onnx.tokenizer import tokenizer_files
from nnkit.extras import extra_module
from nnkit.files import write_whole
from nnkit.model import Model, load
from nnkit.run_folder import model_file
from nnkit.versions import nnkit_version

__all__ = ["DEFAULT_OPSET", "Exported", "register_skl2onnx", "to_onnx", "write_onnx"]


@dataclass(frozen=True)
class Exported:
    """The files of an export, and what was proven."""

    paths: tuple[Path, ...]
    proof: Proof


def to_onnx(model: Any, *, opset: int = DEFAULT_OPSET, rows: Any = None) -> Any:
    """Return a model as an ONNX graph, compared with the model in two runtimes.

    Its inputs are the model's columns under their names, each of shape (samples, 1): numbers in double, NaN
    where missing; texts and booleans as strings, empty where missing; dates as int64 seconds. An array or
    pictures are one input, ``X`` or ``pictures``. Its outputs are ``label`` and ``probabilities``, or
    ``value`` in the target's units.

    Parameters
    ----------
    model : Model, estimator or path-like
        A `Model`, a fitted `MLPClassifier` or `MLPRegressor`, a model file or a run's folder.
    opset : int
        The version of ONNX's operators, at least 17.
    rows : table or array, optional
        Rows to compare on, beside made-up ones.

    Returns
    -------
    onnx.ModelProto
        Its metadata hold the comparison and, for a file, the SHA-256 of the model.

    Raises
    ------
    ConfigError
        If a layer has no counterpart, or a column cannot be exported exactly: it is named. Also without the
        packages onnx and onnxruntime.
    """
    return _exported(model, opset, rows)[0]


def write_onnx(
    model: Any, out: str | os.PathLike[str], *, opset: int = DEFAULT_OPSET, rows: Any = None
) -> Exported:
    """Write the graph of `to_onnx`, and for columns of text a tokenizer in Python beside it.

    Raises
    ------
    FileError
        If a file cannot be written. Otherwise as `to_onnx`.
    """
    proto, proof, read = _exported(model, opset, rows)
    out = Path(out)
    files = {out: proto.SerializeToString()}
    texts = [column for column in read.preprocessor.operations if isinstance(column, TextColumn)]
    if texts:
        files |= tokenizer_files(texts, out)
    for path, content in files.items():
        write_whole(path, content)
    return Exported(tuple(files), proof)


def _exported(model: Any, opset: int, rows: Any) -> tuple[Any, Proof, Model]:
    newest = extra_module("onnx").defs.onnx_opset_version()
    Whole(DEFAULT_OPSET, newest)("opset", opset)
    read, digest = _model_of(model)
    graph = Graph(opset)
    inputs, bags = network_inputs(graph, read.preprocessor)
    outputs = [output for member in read.members for output in network_outputs(graph, member, inputs, bags)]
    names = add_answers(graph, outputs, read.loss.link, read.target)
    proof = proven(read, graph.model("", {}), inputs, names, rows)
    metadata = {"nnkit": nnkit_version(), "task": read.task, "proof": json.dumps(described(proof))}
    if digest:
        metadata["model_sha256"] = digest
    return graph.model(_words(read), metadata), proof, read


def _model_of(model: Any) -> tuple[Model, str]:
    """Return a model, and the SHA-256 of its file if it is one."""
    if isinstance(model, Model):
        return model, ""
    if hasattr(model, "as_model"):
        return model.as_model(), ""
    if not isinstance(model, str | os.PathLike):
        raise ConfigError(f"a Model, an estimator or a path is exported, not {type(model).__name__}")
    path = model_file(Path(model))
    read = load(path)
    return read, hashlib.sha256(path.read_bytes()).hexdigest()


def _words(model: Model) -> str:
    """Return what a reader of the graph should know."""
    words = f"A {model.task} model of nnkit. Labels are probabilities above 0.5, or the greatest."
    if model.task == "regression":
        words = "A regression of nnkit."
    if any(isinstance(column, TextColumn) for column in model.preprocessor.operations):
        words += " Texts become ids by the tokenizer in Python that was written beside this file."
    return words
