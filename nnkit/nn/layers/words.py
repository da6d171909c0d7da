"""Layers as text: one line for messages, a table for a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nnkit.engine.places import Shape, width_of
from nnkit.nn.layers.base import Layer

__all__ = ["layers_in_words", "layers_table"]


def layers_in_words(layers: Sequence[Layer], inputs: int | None = None) -> str:
    """Return a line such as ``20 + mean of 5,000 × 32 → 64 relu → 3``."""
    embedded = [layer.describe() for layer in layers if layer.bags]
    first = " + ".join([*([str(inputs)] if inputs else []), *embedded])
    after = [layer.describe() for layer in layers if not layer.bags]
    return " → ".join([*([first] if first else []), *after])


def layers_table(layers: Sequence[Layer], inputs: int | None, dtype: str) -> str:
    """Return a line for each layer with its shape and number of parameters, and a line with the total.

    `inputs` is the number of inputs without embedded vectors, None if unknown; `dtype` that of the
    parameters.
    """
    shape: Shape | None = None if inputs is None else (inputs,)
    total = 0
    lines = [("layer", "shape", "parameters")]
    for depth, copies, layer in _indented(layers):
        if layer.layers:
            lines.append(("  " * depth + layer.title(), _in_words(shape), ""))
            shape = None if shape is None else layer.inner_shape(shape)
            continue
        count = _known(layer, shape, _parameter_count)
        after = _known(layer, shape, lambda one, given: one.output_shape(given))
        total += copies * (count or 0)
        known = "?" if count is None else f"{copies * count:,}"
        title = "  " * depth + layer.title()
        lines.append((title, layer.shape_in_words(_in_words(shape), _in_words(after)), known))
        shape = after
    lines.append(("total", dtype, "?" if inputs is None else f"{total:,}"))
    first, second, third = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(f"{name:<{first}}  {shape:<{second}}  {count:>{third}}" for name, shape, count in lines)


def _indented(layers: Sequence[Layer], depth: int = 0, copies: int = 1) -> Iterator[tuple[int, int, Layer]]:
    """Yield each layer with its depth in containers and its copies; a container comes before its layers."""
    for layer in layers:
        yield depth, copies, layer
        yield from _indented(layer.layers, depth + 1, copies * layer.copies)


def _parameter_count(layer: Layer, shape: Shape) -> int:
    return sum(width_of(parameter.shape) for parameter in layer.parameters(shape).values())


def _known(layer: Layer, shape: Shape | None, question: Callable[[Layer, Shape], Any]) -> Any:
    """Return the answer for rows of a shape; for an unknown shape, the common answer of all, if any."""
    if shape is not None:
        return question(layer, shape)
    one, another = question(layer, (1,)), question(layer, (2,))
    return one if one == another else None


def _in_words(shape: Shape | None) -> str:
    return "?" if shape is None else " × ".join(f"{length:,}" for length in shape)
