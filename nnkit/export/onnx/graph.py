"""An ONNX graph that is built node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.extras import extra_module

__all__ = ["DEFAULT_OPSET", "ML_OPSET", "Graph", "element_type"]

# Opset 17 and IR 8 are of 2022: runtimes that are years old read them.
DEFAULT_OPSET, _IR_VERSION, ML_OPSET = 17, 8, 3
_ML = "ai.onnx.ml"


def element_type(dtype: Any) -> int:
    """Return ONNX's number for a NumPy dtype; texts are strings."""
    onnx = extra_module("onnx")
    kind = np.dtype(dtype)
    if kind.kind in "UO":
        return int(onnx.TensorProto.STRING)
    return int(onnx.helper.np_dtype_to_tensor_dtype(kind))


class Graph:
    """Nodes, constants, inputs and outputs.

    Parameters
    ----------
    opset : int
        The version of ONNX's operators, at least 17.
    """

    def __init__(self, opset: int = DEFAULT_OPSET) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.inputs: dict[str, tuple[int, tuple[Any, ...], str]] = {}
        self.outputs: dict[str, tuple[int, tuple[Any, ...], str]] = {}
        self.constants: dict[str, NDArray[Any]] = {}
        self._count = 0

    def _name(self, hint: str) -> str:
        self._count += 1
        return f"nnkit/{hint}_{self._count}"

    def input(self, name: str, dtype: Any, shape: Sequence[Any], words: str = "") -> str:
        """Declare an input; `words` say what it takes."""
        self.inputs[name] = (element_type(dtype), tuple(shape), words)
        return name

    def output(self, name: str, value: str, dtype: Any, shape: Sequence[Any], words: str = "") -> None:
        """Make a value an output of that name."""
        self.nodes.append(
            extra_module("onnx").helper.make_node("Identity", [value], [name], name=self._name("Out"))
        )
        self.outputs[name] = (element_type(dtype), tuple(shape), words)

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Return the name of a constant; equal ones are kept once."""
        array = np.asarray(value, dtype)
        if array.dtype.kind == "U":
            array = array.astype(object)
        for name, known in self.constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and known.tolist() == array.tolist():
                return name
        name = self._name("constant")
        self.constants[name] = array
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return the name of its result."""
        domain = _ML if kind == "LabelEncoder" else ""
        name = self._name(kind)
        helper = extra_module("onnx").helper
        self.nodes.append(
            helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes)
        )
        return name

    def cast(self, value: str, dtype: Any) -> str:
        """Add a conversion to a dtype."""
        return self.add("Cast", value, to=element_type(dtype))

    def model(self, doc: str, metadata: dict[str, str]) -> Any:
        """Return the graph as a ModelProto."""
        onnx = extra_module("onnx")
        helper = onnx.helper

        def described(entries: dict[str, tuple[int, tuple[Any, ...], str]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(name, kind, list(shape), doc_string=words)
                for name, (kind, shape, words) in entries.items()
            ]

        constants = [onnx.numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(
            self.nodes, "nnkit", described(self.inputs), described(self.outputs), constants, doc_string=doc
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain == _ML for node in self.nodes):
            opsets.append(helper.make_opsetid(_ML, ML_OPSET))
        ir = max(_IR_VERSION, helper.find_min_ir_version_for(opsets, True))
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=ir, producer_name="nnkit", doc_string=doc
        )
        helper.set_model_props(model, metadata)
        return model
