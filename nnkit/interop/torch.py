"""Networks as PyTorch modules, and back."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.errors import ConfigError, FileError, ModelFileError
from nnkit.extras import extra_module
from nnkit.feed.features import Features, features_from
from nnkit.interop.assembly import model_like
from nnkit.interop.rows import dense_rows
from nnkit.interop.torch_pieces import Piece, piece_of
from nnkit.interop.torch_reading import network_of
from nnkit.model import Model
from nnkit.nn.network import Network

__all__ = ["from_module", "module_inputs", "to_module"]

_LONGEST_REASON = 300


def to_module(model: Model | Network) -> Any:
    """Return a network as a PyTorch module on the CPU, with copies of its parameters, ready to predict.

    A network is an `nn.Sequential` of torch's own layers, and of those in `nnkit.interop.torch_layers` where
    torch has none. The module takes the network's inputs as they are after preprocessing, in the order of
    ``model.preprocessor.output_names``, a tensor of shape (samples, inputs), and then a tuple (ids, starts)
    or (ids, starts, weights) for each embedded column, as `module_inputs` returns them. It returns the raw
    outputs, shape (samples, outputs): logits, or a regression's standardised values. Several networks, and
    the members of an `Ensemble`, give the outputs of their mean prediction.

    Parameters
    ----------
    model : Model or Network

    Returns
    -------
    torch.nn.Module
        In evaluation mode; in training mode dropout is active.

    Raises
    ------
    ConfigError
        If torch is not installed or lacks an activation, or the network has no parameters yet.
    """
    torch = extra_module("torch")
    piece = piece_of(model)
    tensors = dict(piece.named_tensors())
    wide = any(tensor.dtype == np.float64 for name, tensor in tensors.items() if not name.endswith("edges"))
    module = _built(piece, torch)
    module = module.double() if wide else module
    module.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()})
    return module.eval()


def _built(piece: Piece, torch: Any) -> Any:
    from nnkit.interop import torch_layers  # which imports torch

    kind = getattr(torch_layers if piece.own else torch.nn, piece.kind)
    return kind(*(_built(inner, torch) for inner in piece.pieces), *piece.arguments, **piece.options)


def module_inputs(model: Model | Network, X: Any) -> tuple[Any, ...]:
    """Return rows as the arguments of the model's module: ``module(*module_inputs(model, X))``.

    Parameters
    ----------
    model : Model or Network
    X : array, or table
        As for `Model.predict`, or for `Network.outputs`.

    Returns
    -------
    tuple
        A tensor of shape (samples, inputs) in the network's dtype, and for each embedded column a tuple of
        ids, (tokens,), and starts, (samples + 1,), both int64, and weights, (tokens,), where there are any.
    """
    torch = extra_module("torch")
    network = model.network if isinstance(model, Model) else model
    dtype = network.arena.dtype
    rows: Features = model.preprocessor.transform(X) if isinstance(model, Model) else features_from(X, dtype)
    network.check_width(rows)
    bags = []
    for bag in rows.bags:
        arrays = [bag.ids.astype(np.int64), bag.starts.astype(np.int64)]
        arrays += [] if bag.weights is None else [bag.weights.astype(dtype)]
        bags.append(tuple(map(torch.from_numpy, arrays)))
    return (torch.from_numpy(dense_rows(rows, dtype)), *bags)


def from_module(
    module: Any, weights: str | os.PathLike[str] | None = None, like: Model | None = None
) -> Network | Model:
    """Return the network that a PyTorch module describes, with copies of its parameters.

    It reads what `to_module` returns and what an exported file builds, and `nn.Sequential`, also nested, of
    `Linear`, `LayerNorm`, `Dropout`, `Flatten`, `Identity`, activations (`Sigmoid`, `Tanh`, `ReLU`,
    `LeakyReLU`, `ELU`, `GELU`, `SiLU`, `SELU`, `Mish`, `Softplus`, with torch's default arguments) and, in
    front, `Embedding` or `EmbeddingBag`.

    Parameters
    ----------
    module : torch.nn.Module
        It stays unchanged.
    weights : path-like, optional
        A file with a state_dict of the module, ``.safetensors``, or one of `torch.save`, of which only
        tensors are read (``weights_only=True``).
    like : Model, optional
        A model whose preprocessing, target and loss the network is given, such as the one that the module was
        made from.

    Returns
    -------
    Network, or Model with `like`
        float64 if the module has parameters of that type, else float32. The model has no metrics.

    Raises
    ------
    ConfigError
        If the module has an operation that nnkit lacks, its shapes do not chain, or they are not those of
        `like`; if torch is not installed.
    FileError
        If the file of weights cannot be read.
    ModelFileError
        If it holds anything but the module's tensors, such as pickled objects.
    """
    torch = extra_module("torch")
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(f"from_module takes a torch.nn.Module, not {type(module).__name__}")
    if weights is not None:
        module = _with_weights(module, Path(weights), torch)
    network = network_of(module)
    return network if like is None else model_like(like, network)


def _with_weights(module: Any, path: Path, torch: Any) -> Any:
    """Return a copy of a module with the tensors of a file."""
    found = _read(path, torch)
    tensors = isinstance(found, Mapping) and all(isinstance(value, torch.Tensor) for value in found.values())
    if not tensors:
        raise ModelFileError(f"{path}: not a state_dict of tensors; write one by module.state_dict()")
    module = copy.deepcopy(module)
    try:
        module.load_state_dict(found)
    except RuntimeError as error:
        raise ModelFileError(f"{path}: not the module's tensors: {_short(error)}") from error
    return module


def _read(path: Path, torch: Any) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # of a damaged file: from pickle, zipfile, struct and torch
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise ModelFileError(
                f"{path}: holds pickled objects, which can run code when they are read; save the module's "
                "state_dict() in place of the module"
            ) from None
        raise ModelFileError(f"{path}: cannot be read as a state_dict: {_short(error)}") from error


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"
