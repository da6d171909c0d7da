"""Bias, activation and dropout in one kernel, for the layers that end with them.

The draws of dropout are a function of the seed, the epoch, the batch, the layer and the element.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Copy, Operation
from nnkit.engine.layer_pass import LayerPass

__all__ = ["pointwise_backward", "pointwise_forward"]


def pointwise_forward(
    at: LayerPass,
    z: Array,
    activation: str,
    dropout: float,
    bias: str | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[list[Operation], Array]:
    """Return the operations from z to the outputs, and the array of the outputs.

    `z` is the layer's own array named z, or its inputs, which do not change; `dtype` is its type, by default
    that of activations. `activation` and `bias` are names, and `dropout` is the rate.
    """
    drops = at.drops and dropout > 0
    if activation == "identity" and not drops and bias is None:
        return [], z
    width = at.cut(z).shape[1]
    operations: list[Operation] = []
    if z is at.x:
        z = at.buffer("z", width)
        operations.append(Copy(at.x, z))
    function = at.place.functions[activation]
    separate = at.training and function.needs_z
    a = at.buffer("a", width, dtype) if separate else z
    constants = {
        "BIAS": bias is not None,
        "KEEP_Z": separate,
        **_dropout_flags(at, drops),
        "SHARD": at.inputs.row_offset is not None,
    }
    arguments = {
        "z": at.cut(z),
        "a": at.cut(a),
        "bias": None if bias is None else at.summand(bias, dtype),
        "mask": _mask(at, width) if drops else None,
        "layer": at.place.index,
        "key0": at.inputs.seed & 0xFFFFFFFF,
        "key1": at.inputs.seed >> 32,
        "threshold": min(round(dropout * 2**32), 2**32 - 1),
        **_dropout_arguments(at, dropout),
        "row_offset": at.inputs.row_offset or 0,
    }
    return [*operations, at.kernel("forward", {"activation": function.value}, constants, arguments)], a


def pointwise_backward(
    at: LayerPass, delta: Array, activation: str, dropout: float, bias: str | None = None
) -> list[Operation]:
    """Return the operations that turn the outputs' derivative into the derivative of z, in place."""
    drops = at.drops and dropout > 0
    if activation == "identity" and not drops and bias is None:
        return []
    width = at.cut(delta).shape[1]
    function = at.place.functions[activation]
    z = at.buffer("z", width)
    a = at.buffer("a", width) if function.needs_z else z
    constants = {"BIAS": bias is not None, "FROM_Z": function.needs_z, **_dropout_flags(at, drops)}
    arguments = {
        "delta": at.cut(delta),
        "z": at.cut(z),
        "a": at.cut(a),
        "mask": _mask(at, width) if drops else None,
        "bias_gradient": None if bias is None else at.gradient(bias),
        "keep": 1.0 - dropout,
        **_dropout_arguments(at, dropout),
    }
    return [at.kernel("backward", {"activation_derivative": function.derivative}, constants, arguments)]


def _dropout_flags(at: LayerPass, drops: bool) -> dict[str, bool]:
    return {"DROPOUT": drops, "DROPOUT_VARIES": drops and at.inputs.dropout_factors is not None}


def _dropout_arguments(at: LayerPass, rate: float) -> dict[str, Any]:
    return {
        "counters": at.inputs.counters,
        "kept_scale": 1.0 / (1.0 - rate),
        "dropout": np.float64(rate),
        "dropout_factors": at.inputs.dropout_factors,
    }


def _mask(at: LayerPass, width: int) -> Array:
    return at.exact_buffer("mask", (-(-width // 4) * 4,), np.uint8)  # four numbers are drawn at once
