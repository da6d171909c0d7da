"""Layers of nnkit's networks that Keras lacks, as its own, for any of its backends.

A file of a Keras model that has one is loaded where this module is imported.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_registered = keras.saving.register_keras_serializable("nnkit")


@_registered
class PiecewiseLinear(keras.layers.Layer):
    """The inputs, followed by each number's shares of its column's bins; `edges` are those of each column."""

    library = "nnkit"

    def __init__(self, edges: Any, **options: Any) -> None:
        super().__init__(**options)
        self.edges = [[float(edge) for edge in column] for column in edges]
        self.columns = [column for column, given in enumerate(self.edges) for _ in given[1:]]
        self.lows = np.array([edge for given in self.edges for edge in given[:-1]])
        self.inverses = np.array([1 / width for given in self.edges for width in np.diff(given)])

    def call(self, x: Any) -> Any:
        lows, inverses = (ops.cast(values, x.dtype) for values in (self.lows, self.inverses))
        shares = ops.clip((ops.take(x, self.columns, axis=1) - lows) * inverses, 0.0, 1.0)
        return ops.concatenate([x, shares], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "edges": self.edges}


@_registered
class Scale(keras.layers.Layer):
    """Each input times a factor that is learnt."""

    library = "nnkit"

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=shape[1:], initializer="ones", name="weight")

    def call(self, x: Any) -> Any:
        return x * self.weight


@_registered
class EmbeddingBag(keras.layers.Layer):
    """The mean, sum or maximum of the vectors of a row's ids, (rows, ids); an id of -1 is none."""

    library = "nnkit"

    def __init__(self, size: int, width: int, reduce: str, **options: Any) -> None:
        super().__init__(**options)
        self.size, self.width, self.reduce = size, width, reduce

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=(self.size, self.width), initializer="normal", name="weight")

    def call(self, ids: Any) -> Any:
        there = ops.cast(ids >= 0, self.weight.dtype)[:, :, None]
        vectors = ops.take(self.weight, ops.maximum(ids, 0), axis=0)
        count = ops.sum(there, axis=1)
        if self.reduce == "max":
            greatest = ops.max(ops.where(there > 0, vectors, -np.inf), axis=1)
            return ops.where(count > 0, greatest, 0.0)
        total = ops.sum(vectors * there, axis=1)
        return total if self.reduce == "sum" else total / ops.maximum(count, 1.0)

    def get_config(self) -> dict[str, Any]:
        own = {"size": self.size, "width": self.width, "reduce": self.reduce}
        return {**super().get_config(), **own}


@_registered
class Ensemble(keras.layers.Layer):
    """The outputs of several members, joined to those of the mean of their predictions."""

    library = "nnkit"

    def __init__(self, link: str, **options: Any) -> None:
        super().__init__(**options)
        self.link = link

    def call(self, outputs: Any) -> Any:
        z = ops.stack(outputs)
        if self.link == "identity":
            return ops.mean(z, axis=0)
        if self.link == "sigmoid":
            yes, no = ops.log_sigmoid(z), ops.log_sigmoid(-z)
            return ops.logsumexp(yes, axis=0) - ops.logsumexp(no, axis=0)
        if self.link == "softmax":
            z = ops.log_softmax(z, axis=2)
        return ops.logsumexp(z, axis=0) - float(np.log(len(outputs)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "link": self.link}
