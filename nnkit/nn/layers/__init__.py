"""The kinds of layers, one file each, and the assembly of a network from them."""

from __future__ import annotations

from nnkit.nn.layers.activation import Activation
from nnkit.nn.layers.base import Layer
from nnkit.nn.layers.batch_ensemble import BatchEnsemble
from nnkit.nn.layers.building import activations_of, all_layers, known_width, layer_from_json, place_layers
from nnkit.nn.layers.containers import Residual, Sequential
from nnkit.nn.layers.dense import Dense
from nnkit.nn.layers.dropout import Dropout
from nnkit.nn.layers.embedding import Embedding
from nnkit.nn.layers.ensemble import Ensemble
from nnkit.nn.layers.norm import LayerNorm
from nnkit.nn.layers.periodic import Periodic
from nnkit.nn.layers.piecewise import PiecewiseLinear
from nnkit.nn.layers.scale import Scale
from nnkit.nn.layers.words import layers_in_words, layers_table

__all__ = [
    "Activation",
    "BatchEnsemble",
    "Dense",
    "Dropout",
    "Embedding",
    "Ensemble",
    "Layer",
    "LayerNorm",
    "Periodic",
    "PiecewiseLinear",
    "Residual",
    "Scale",
    "Sequential",
    "activations_of",
    "all_layers",
    "known_width",
    "layer_from_json",
    "layers_in_words",
    "layers_table",
    "place_layers",
]
