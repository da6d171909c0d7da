"""nnkit's estimators in skl2onnx, which exports whole pipelines of scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.errors import ConfigError
from nnkit.export.onnx.answers import add_answers
from nnkit.export.onnx.graph import ML_OPSET, Graph
from nnkit.export.onnx.layers import network_outputs
from nnkit.extras import extra_module

__all__ = ["register_skl2onnx"]


def register_skl2onnx() -> None:
    """Let skl2onnx export pipelines that end with nnkit's estimators.

    Raises
    ------
    ConfigError
        If skl2onnx is not installed.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from nnkit import MLPClassifier
    >>> from nnkit.export.onnx import register_skl2onnx
    >>> register_skl2onnx()  # doctest: +SKIP
    >>> pipeline = make_pipeline(StandardScaler(), MLPClassifier()).fit(X, y)  # doctest: +SKIP
    >>> skl2onnx.to_onnx(pipeline, X[:1].astype("float32"))  # doctest: +SKIP
    """
    skl2onnx = extra_module("skl2onnx")
    shapes = extra_module("skl2onnx.common.shape_calculator")
    from nnkit.estimators import MLPClassifier, MLPRegressor

    skl2onnx.update_registered_converter(
        MLPClassifier,
        "NnkitMLPClassifier",
        shapes.calculate_linear_classifier_output_shapes,
        _convert,
        options={
            "zipmap": [True, False, "columns"],
            "nocl": [True, False],
            "output_class_labels": [False, True],
        },
    )
    skl2onnx.update_registered_converter(MLPRegressor, "NnkitMLPRegressor", _set_shape, _convert)


def _set_shape(operator: Any) -> None:
    """Tell skl2onnx the shape of a regressor's values."""
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type.shape = [rows, operator.raw_operator.n_outputs_]


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add an estimator's nodes to skl2onnx's graph."""
    estimator = operator.raw_operator
    if estimator.preset is not None:
        raise ConfigError(
            'an estimator with preset = "tables" reads columns of many kinds: export it by '
            "nnkit.export.onnx.to_onnx"
        )
    model = estimator.as_model()
    graph, source = Graph(), operator.inputs[0].full_name
    inputs = graph.cast(source, model.network.arena.dtype)
    outputs = network_outputs(graph, model.network, inputs, [])
    target = model.target
    if target.classes is not None and target.classes.dtype == bool:
        target = replace(target, classes=target.classes.astype(np.int64))  # as skl2onnx declares them
    names = add_answers(graph, outputs, model.loss.link, target)
    if target.task == "regression":  # skl2onnx declares columns of float32
        column = graph.add("Reshape", names[0], graph.constant([-1, target.outputs], np.int64))
        names = [graph.cast(column, np.float32)]
    renamed = dict(zip(names, (variable.full_name for variable in operator.outputs), strict=False))
    for name in [*graph.constants, *(node.output[0] for node in graph.nodes)]:
        renamed.setdefault(name, scope.get_unique_variable_name(name.replace("/", "_")))
    for name, array in graph.constants.items():
        _add_constant(container, renamed[name], array)
    versions = {"": graph.opset, "ai.onnx.ml": ML_OPSET}
    for node in graph.nodes:
        attributes = {
            one.name: extra_module("onnx").helper.get_attribute_value(one) for one in node.attribute
        }
        container.add_node(
            node.op_type,
            [renamed.get(name, name) for name in node.input],
            [renamed[name] for name in node.output],
            op_domain=node.domain,
            op_version=versions[node.domain],
            name=scope.get_unique_operator_name("nnkit"),
            **attributes,
        )


def _add_constant(container: Any, name: str, array: np.ndarray) -> None:
    kind = extra_module("onnx").helper.np_dtype_to_tensor_dtype(array.dtype) if array.dtype != object else 8
    values = [text.encode() for text in array.ravel()] if array.dtype == object else array.ravel().tolist()
    container.add_initializer(name, kind, list(array.shape), values)
