"""Layers in words: one line of them for messages, a table of them for a summary."""

from __future__ import annotations

from collections.abc import Sequence

from nnkit.core.layers import Activation, Dense, Dropout, Embedding, Layer

__all__ = ["layers_in_words", "layers_table"]


def layers_in_words(layers: Sequence[Layer], inputs: int | None = None) -> str:
    """Return the inputs, where they are given, what is embedded beside them, and the layers after them."""
    tables = [_short(layer) for layer in layers if isinstance(layer, Embedding)]
    first = " + ".join([*([str(inputs)] if inputs else []), *tables])
    after = [_short(layer) for layer in layers if not isinstance(layer, Embedding)]
    return " → ".join([*([first] if first else []), *after])


def _short(layer: Layer) -> str:
    if isinstance(layer, Embedding):
        return f"{layer.reduce} of {layer.size:,} × {layer.width}"
    if isinstance(layer, Dense):
        return f"{layer.units}" if layer.activation == "identity" else f"{layer.units} {layer.activation}"
    return f"dropout {layer.rate:g}" if isinstance(layer, Dropout) else layer.name


def layers_table(layers: Sequence[Layer], inputs: int | None, dtype: str) -> str:
    """Return a line for each layer with its shape and number of parameters, and one for all of them.

    Parameters
    ----------
    layers : sequence of Layer
        In their order.
    inputs : int or None
        The number of inputs, without what is embedded; None where it is not known.
    dtype : str
        Of the parameters.
    """
    width, total = inputs, 0
    lines = [("layer", "shape", "parameters")]
    for layer in layers:
        count: int | None = 0
        shape = "?" if width is None else f"{width:,}"
        if isinstance(layer, Embedding):
            count, shape = layer.size * layer.width, f"{layer.size:,} × {layer.width:,}"
            width = None if width is None else width + layer.width
        elif isinstance(layer, Dense):
            count = None if width is None else (width + layer.bias) * layer.units
            shape, width = f"{shape} → {layer.units:,}", layer.units
        total += count or 0
        lines.append((_name(layer), shape, "?" if count is None else f"{count:,}"))
    lines.append(("total", dtype, "?" if inputs is None else f"{total:,}"))
    first, second, third = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(f"{name:<{first}}  {shape:<{second}}  {count:>{third}}" for name, shape, count in lines)


def _name(layer: Layer) -> str:
    if isinstance(layer, Dense):
        return "Dense" if layer.activation == "identity" else f"Dense, {layer.activation}"
    if isinstance(layer, Embedding):
        return f"Embedding, {layer.reduce}"
    return f"Activation, {layer.name}" if isinstance(layer, Activation) else f"Dropout, {layer.rate:g}"
