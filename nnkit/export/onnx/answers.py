"""From a network's outputs to answers, as nodes: probabilities, labels, values in the target's units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nnkit.data.targets.encoding import TargetEncoder
from nnkit.export.onnx.graph import Graph
from nnkit.nn.losses import Link

__all__ = ["add_answers"]


def add_answers(graph: Graph, outputs: Sequence[str], link: Link, target: TargetEncoder) -> list[str]:
    """Make the mean prediction of several outputs, shape (samples, outputs), the graph's outputs.

    Returns their names: ``label`` and ``probabilities``, or ``value``.
    """
    predicted = [_predicted(graph, graph.cast(z, np.float64), link, target) for z in outputs]
    mean = predicted[0]
    for other in predicted[1:]:
        mean = graph.add("Add", mean, other)
    if len(predicted) > 1:
        mean = graph.add("Div", mean, graph.constant(float(len(predicted))))
    if target.task == "regression":
        return [_value(graph, mean, target)]
    return _classes(graph, mean, target)


def _predicted(graph: Graph, z: str, link: Link, target: TargetEncoder) -> str:
    """Return the probabilities or values of outputs in double; of a binary target those of both classes."""
    if link == "softmax":
        return graph.add("Softmax", z, axis=1)
    if link == "exp":
        return graph.add("Exp", graph.add("Min", z, graph.constant(700.0)))
    if link == "identity":
        return z
    yes = graph.add("Sigmoid", z)
    if target.task != "binary":
        return yes
    return graph.add("Concat", graph.add("Sigmoid", graph.add("Neg", z)), yes, axis=1)


def _named(graph: Graph, name: str) -> str:
    """Return the name of an output, another one where a column has it."""
    while name in graph.inputs:
        name = f"predicted_{name}"
    return name


def _classes(graph: Graph, probabilities: str, target: TargetEncoder) -> list[str]:
    classes = cast(NDArray[Any], target.classes)
    if classes.dtype.kind in "UO":
        classes = classes.astype(str)
    elif classes.dtype.kind in "iu":
        classes = classes.astype(np.int64)
    values = graph.constant(classes)
    several = target.task == "multilabel"
    count = target.outputs if several else len(classes)
    shape: tuple[Any, ...] = ("N", count) if several else ("N",)
    if target.task == "multiclass":
        place = graph.add("ArgMax", probabilities, axis=1, keepdims=0)
    else:
        yes = probabilities if several else graph.add("Gather", probabilities, graph.constant(1), axis=1)
        place = graph.cast(graph.add("Greater", yes, graph.constant(0.5)), np.int64)
    names = _named(graph, "label"), _named(graph, "probabilities")
    columns = ", ".join(map(str, target.output_names if several else classes.tolist()))
    graph.output(names[0], graph.add("Gather", values, place), classes.dtype, shape, f"of {columns}")
    graph.output(names[1], graph.cast(probabilities, np.float32), np.float32, ("N", count), f"of {columns}")
    return list(names)


def _value(graph: Graph, mean: str, target: TargetEncoder) -> str:
    scale, shift = cast(NDArray[Any], target.scale), cast(NDArray[Any], target.mean)
    y = graph.add("Mul", mean, graph.constant(scale, np.float64))
    y = graph.add("Add", y, graph.constant(shift, np.float64))
    if target.warp is not None and target.warp.name == "log":
        y = graph.add("Exp", graph.add("Min", y, graph.constant(700.0)))
    elif target.warp is not None:
        columns = [_between_knots(graph, y, number, *knots) for number, knots in enumerate(target.warp.knots)]
        y = graph.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0]
    if target.bounds is not None:
        low, high = (graph.constant(bound, np.float64) for bound in target.bounds)
        y = graph.add("Min", graph.add("Max", y, low), high)
    name = _named(graph, "value")
    shape: tuple[Any, ...] = ("N", target.outputs)
    if target.flat:
        y, shape = graph.add("Squeeze", y, graph.constant([1], np.int64)), ("N",)
    graph.output(name, y, np.float64, shape, ", ".join(target.output_names))
    return name


def _between_knots(
    graph: Graph, y: str, column: int, values: NDArray[np.float64], scores: NDArray[np.float64]
) -> str:
    """Return the value at a score, linear between two knots, shape (samples, 1)."""
    z = graph.add("Gather", y, graph.constant([column], np.int64), axis=1)
    if len(values) == 1:
        return graph.add("Add", graph.add("Mul", z, graph.constant(0.0)), graph.constant(values[0]))
    z = graph.add("Min", graph.add("Max", z, graph.constant(scores[0])), graph.constant(scores[-1]))
    above = graph.add("GreaterOrEqual", z, graph.constant(scores[None, 1:-1])) if len(scores) > 2 else ""
    one = graph.constant([1], np.int64)
    place = (
        graph.add("ReduceSum", graph.cast(above, np.int64), one, keepdims=1)
        if above
        else graph.cast(graph.add("Mul", z, graph.constant(0.0)), np.int64)
    )
    slopes = np.diff(values) / np.diff(scores)
    low, value, slope = (
        graph.add("Gather", graph.constant(table), place) for table in (scores[:-1], values[:-1], slopes)
    )
    return graph.add("Add", graph.add("Mul", graph.add("Sub", z, low), slope), value)
