"""A model as one C99 file without dependencies, for small networks on numbers, as on a microcontroller."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.data.operations import ArrayColumns, CategoryColumn, NumberColumn, PlainRows, TextColumn
from nnkit.engine.places import Place
from nnkit.errors import ConfigError
from nnkit.export.c_parts import ACTIVATIONS, HELPERS, LINKS
from nnkit.files import write_whole
from nnkit.model import Model
from nnkit.nn.layers import (
    Activation,
    Dense,
    Dropout,
    Ensemble,
    LayerNorm,
    PiecewiseLinear,
    Residual,
    Scale,
    layers_in_words,
)
from nnkit.versions import nnkit_version

__all__ = ["write_c"]


def write_c(model: Model, out: str | os.PathLike[str]) -> list[Path]:
    """Write a C99 file with a function from a row's columns to probabilities or values.

    For ``houses.c`` it is ``void houses_predict(const double *columns, float *outputs)``. It computes in
    float, from constant arrays, on the stack alone, and needs the C library's mathematics. Numbers are
    imputed, scaled and flagged as in training, categories are given by their codes.

    Parameters
    ----------
    model : Model
        Of columns of numbers, dates and one-hot categories, or of an array; of `Dense`, `Activation`,
        `Dropout`, `LayerNorm`, `Scale`, `PiecewiseLinear`, `Residual` and `Ensemble`.
    out : path-like
        The file, whose name names the function.

    Returns
    -------
    list of Path
        The file written.

    Raises
    ------
    ConfigError
        If C cannot express a column or a layer, which is named.
    FileError
        If the file cannot be written.
    """
    path = Path(out)
    if path.suffix != ".c":
        raise ConfigError(f"{path}: a C file ends in .c")
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    name = f"_{name}" if name[:1].isdigit() else name
    write_whole(path, _Source(model, name).text().encode())
    return [path]


class _Source:
    """The parts of a C file, as they are found: constants, helpers and functions.

    Parameters
    ----------
    model : Model
    name : str
        What the names that other files see begin with.
    """

    def __init__(self, model: Model, name: str) -> None:
        self.model, self.name = model, name
        self.constants: dict[tuple[str, bytes], str] = {}  # the names of arrays, by type and content
        self.definitions: list[str] = []
        self.helpers: set[str] = set()
        self.functions: list[str] = []

    def text(self) -> str:
        """Return the file."""
        columns, encoding = self._encoding()
        members = [f"network_{number}" for number in range(len(self.model.members))]
        for function, member in zip(members, self.model.members, strict=True):
            values = member.parameters()
            self._function(function, member.places, values, member.inputs or 0, member.output_width)
        decoding, outputs = self._decoding(), self._outputs()
        width, count = self.model.network.inputs, self.model.network.output_width
        predict = [
            f"void {self.name}_predict(const double *columns, float *outputs)\n{{",
            f"    float x[{width}], y[{count}];",
            *_indented(encoding),
            *_indented(_averaged(members, "x", "y", count)),
            *_indented(decoding),
            "}",
        ]
        helpers = [source for name, source in HELPERS.items() if name in self.helpers]
        parts = [
            self._title(columns, outputs),
            "#include <math.h>",
            f"enum {{ {self.name}_columns = {len(columns)}, {self.name}_outputs = {len(outputs)} }};",
            f"void {self.name}_predict(const double *columns, float *outputs);",
            "\n".join(self.definitions),
            *helpers,
            *self.functions,
            "\n".join(predict),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _title(self, columns: Sequence[str], outputs: Sequence[str]) -> str:
        network = self.model.network
        lines = [
            f"A {self.model.task} network: {layers_in_words(network.layers, network.inputs)}.",
            f"Written by nnkit {nnkit_version()}: C99, no allocation; link with -lm.",
            "",
            f"{self.name}_predict reads {len(columns)} columns, NaN where a value is missing:",
            *(f"  {place} {column}" for place, column in enumerate(columns)),
            f"and writes {len(outputs)} outputs:",
            *(f"  {place} {output}" for place, output in enumerate(outputs)),
        ]
        return "/*\n" + "\n".join(f" * {_comment(line)}".rstrip() for line in lines) + "\n */"

    # --- rows to inputs, and outputs to predictions ---

    def _encoding(self) -> tuple[list[str], list[str]]:
        """Return what each column is, and the statements that fill the inputs x."""
        operations = self.model.preprocessor.operations
        first = operations[0]
        if isinstance(first, ArrayColumns | PlainRows):
            return self._encoded_array(first)
        columns: list[str] = []
        statements: list[str] = []
        flags: list[str] = []
        one_hot: list[tuple[int, str]] = []
        for place, op in enumerate(operations):
            if isinstance(op, NumberColumn):
                columns.append(op.column + (", in seconds since 1970" if op.kind == "time" else ""))
                arguments = ", ".join(repr(value) for value in (op.fill, op.shift, op.scale))
                number = f"{self._helper('number')}(columns[{place}], {arguments})"
                number = f"{self._helper('squeezed')}({number})" if op.clipped else number
                statements.append(f"x[{len(statements)}] = (float){number};")
                flags += [f"isnan(columns[{place}]) ? 1.0f : 0.0f"] if op.flagged else []
            elif isinstance(op, CategoryColumn) and not op.embedded:
                codes = ", ".join(f"{code} {value}" for code, value in enumerate(op.values))
                columns.append(f"{op.column}, by its code: {codes}")
                arguments = f"columns[{place}], {op.places}, {op.missing_code}, {op.unseen_code}"
                one_hot.append((op.places, f"{self._helper('one_hot')}({arguments}"))
            else:
                raise _inexpressible(op)
        statements += [f"x[{len(statements) + number}] = {flag};" for number, flag in enumerate(flags)]
        place = len(statements)
        for places, call in one_hot:
            statements.append(f"{call}, x + {place});")
            place += places
        return columns, statements

    def _encoded_array(self, operation: ArrayColumns | PlainRows) -> tuple[list[str], list[str]]:
        if isinstance(operation, PlainRows):
            if operation.tables:
                raise ConfigError("a C file has no place for an Embedding: choose another format")
            operation = ArrayColumns(operation.count, False, 0.0, 1.0)
        count, value = operation.count, "columns[i]"
        if operation.shift_by_column is not None:
            value = f"({value} - {self._constant('double', operation.shift_by_column, 'shift')}[i])"
        if operation.scale_by_column is not None:
            value = f"{value} * {self._constant('double', operation.scale_by_column, 'scale')}[i]"
        loop = f"for (int i = 0; i < {count}; i++) x[i] = (float)({value});"
        return list(operation.names or map("column {}".format, range(count))), [loop]

    def _outputs(self) -> list[str]:
        """Return what each output is."""
        target = self.model.target
        if target.classes is None or self.model.task == "multilabel":
            what = "value of" if target.classes is None else "probability of"
            names = target.output_names or [f"output {number}" for number in range(target.outputs)]
            return [f"{what} {name}" for name in names]
        return [f"probability of {label}" for label in target.classes.tolist()]

    def _decoding(self) -> list[str]:
        """Return the statements from the mean predictions y to the outputs."""
        target = self.model.target
        if self.model.task == "binary":
            return ["outputs[0] = 1.0f - y[0];", "outputs[1] = y[0];"]
        count = target.outputs
        if target.mean is None or target.scale is None:
            return [f"for (int i = 0; i < {count}; i++) outputs[i] = y[i];"]
        statements = []
        for place in range(count):
            value = f"y[{place}] * {target.scale[place]!r} + {target.mean[place]!r}".replace("np.float64", "")
            if target.warp is not None and target.warp.name == "log":
                value = f"exp({value})"
            elif target.warp is not None:
                values, scores = target.warp.knots[place]
                knots = [self._constant("double", one, "knots") for one in (scores, values)]
                value = f"{self._helper('interpolated')}({value}, {', '.join(knots)}, {len(values)})"
            if target.bounds is not None:
                low, high = target.bounds[:, place].tolist()
                value = f"fmin(fmax({value}, {low!r}), {high!r})"
            statements.append(f"outputs[{place}] = (float)({value});")
        return statements

    # --- the network ---

    def _function(
        self, name: str, places: Sequence[Place], values: Mapping[str, NDArray], inputs: int, outputs: int
    ) -> None:
        """Add the function from a network's inputs to its predictions, or to those of a member."""
        lines = [f"float x[{inputs}];", f"for (int i = 0; i < {inputs}; i++) x[i] = input[i];"]
        body = _Body(self, values, lines, "x", inputs)
        link = self.model.loss.link
        *before, last = places
        if isinstance(last.layer, Ensemble):
            body.chain(before)
            if last.layer.inner_shape(last.inputs) != last.inputs:
                raise ConfigError(
                    "a C file has no place for layers of several members side by side, such as BatchEnsemble"
                )
            members = [f"{name}_member_{number}" for number in range(last.layer.members)]
            for member, branch in zip(members, last.branches, strict=True):
                self._function(member, branch, values, body.width, outputs)
            lines += _averaged(members, body.x, "output", outputs)
        else:
            body.chain(places)
            lines.append(f"for (int i = 0; i < {outputs}; i++) output[i] = {body.x}[i];")
            if link != "identity":
                lines.append(f"{self._helper(LINKS[link])}(output, {outputs});")
        head = f"static void {name}(const float *input, float *output)\n{{"
        self.functions.append("\n".join([head, *_indented(lines), "}"]))

    def _helper(self, name: str) -> str:
        """Include a helper, and those that it calls; return its name."""
        self.helpers.add(name)
        return name

    def _constant(self, kind: str, values: ArrayLike, name: str) -> str:
        """Return the name of a constant array; equal ones are one."""
        array = np.asarray(values, np.int32 if kind == "int" else kind.replace("float", "float32")).ravel()
        key = (kind, array.tobytes())
        if key not in self.constants:
            self.constants[key] = f"{name}_{len(self.constants)}"
            numbers = _literals(array)
            rows = [", ".join(numbers[first : first + 10]) for first in range(0, len(numbers), 10)]
            content = ",\n    ".join(rows)
            self.definitions.append(
                f"static const {kind} {self.constants[key]}[{len(array)}] = {{\n    {content}\n}};"
            )
        return self.constants[key]


class _Body:
    """The statements of a function, with the array of the values so far and its width."""

    def __init__(
        self, source: _Source, values: Mapping[str, NDArray], lines: list[str], x: str, width: int
    ) -> None:
        self.source, self.values, self.lines, self.x, self.width = source, values, lines, x, width

    def chain(self, places: Sequence[Place]) -> None:
        """Append the statements of layers."""
        for place in places:
            write = _WRITERS.get(type(place.layer))
            if write is None or len(place.outputs) > 1:
                raise ConfigError(
                    f"a C file has no place for the layer {place.layer.title()}: choose another format"
                )
            write(self, place)

    def call(self, helper: str, *arguments: Any) -> None:
        """Append a call of a helper."""
        self.source.helpers.add(helper)
        self.lines.append(f"{helper}({', '.join(map(str, arguments))});")

    def constant(self, place: Place, name: str) -> str:
        """Return the constant of one of a layer's parameters; NULL for a bias that it has not."""
        full = place.parameter_name(name)
        if full not in self.values:
            return "0"
        return self.source._constant("float", self.values[full], name)

    def array(self, width: int) -> str:
        """Return the name of a new array."""
        name = f"x{len(self.lines)}"
        self.lines.append(f"float {name}[{width}];")
        return name

    def activate(self, layer: Any) -> None:
        """Append the activation at the end of a layer."""
        if layer.activation == "identity":
            return
        if layer.activation not in ACTIVATIONS:
            raise ConfigError(f"a C file has no activation {layer.activation!r}: choose another format")
        self.source.helpers.add(layer.activation)
        of_one = f"{ACTIVATIONS[layer.activation]}({self.x}[i])"
        self.lines.append(f"for (int i = 0; i < {self.width}; i++) {self.x}[i] = {of_one};")

    def dense(self, place: Place) -> None:
        if place.layer.numbers is not None:
            self.bins(place.layer.numbers)
        units = place.layer.units
        y = self.array(units)
        weight, bias = self.constant(place, "weight"), self.constant(place, "bias")
        self.call("dense", self.x, self.width, weight, bias, units, y)
        self.x, self.width = y, units
        self.activate(place.layer)

    def bins(self, layer: Any) -> None:
        if layer.edges is None:
            raise ConfigError("PiecewiseLinear has no edges yet: train the network, or give them")
        columns = [column for column, edges in enumerate(layer.edges) for _ in edges[1:]]
        lows = [edge for edges in layer.edges for edge in edges[:-1]]
        inverses = [1 / width for edges in layer.edges if edges for width in np.diff(edges)]
        constant = self.source._constant
        places = constant("int", columns, "columns")
        ends = [constant("float", lows, "lows"), constant("float", inverses, "inverses")]
        y = self.array(self.width + len(columns))
        self.call("shares", self.x, self.width, places, *ends, len(columns), y)
        self.x, self.width = y, self.width + len(columns)

    def layer_norm(self, place: Place) -> None:
        parameters = self.constant(place, "weight"), self.constant(place, "bias")
        self.call("layer_norm", self.x, self.width, *parameters, f"{place.layer.epsilon!r}")

    def scale(self, place: Place) -> None:
        weight = self.constant(place, "weight")
        self.lines.append(f"for (int i = 0; i < {self.width}; i++) {self.x}[i] *= {weight}[i];")

    def residual(self, place: Place) -> None:
        outer, width = self.x, self.width
        self.x = self.array(width)
        self.lines.append(f"for (int i = 0; i < {width}; i++) {self.x}[i] = {outer}[i];")
        self.chain(place.children)
        self.lines.append(f"for (int i = 0; i < {width}; i++) {outer}[i] += {self.x}[i];")
        self.x = outer


_WRITERS: Mapping[type, Callable[[_Body, Place], None]] = {
    Activation: lambda body, place: body.activate(place.layer),
    Dense: _Body.dense,
    Dropout: lambda body, place: None,
    LayerNorm: _Body.layer_norm,
    PiecewiseLinear: lambda body, place: body.bins(place.layer),
    Residual: _Body.residual,
    Scale: _Body.scale,
}


def _averaged(functions: Sequence[str], x: str, y: str, count: int) -> list[str]:
    """Return the statements that set y to the mean of what functions give for x."""
    if len(functions) == 1:
        return [f"{functions[0]}({x}, {y});"]
    lines = [f"float part[{count}];", f"for (int i = 0; i < {count}; i++) {y}[i] = 0.0f;"]
    for function in functions:
        lines.append(f"{function}({x}, part);")
        lines.append(f"for (int i = 0; i < {count}; i++) {y}[i] += part[i] / {len(functions)}.0f;")
    return lines


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _literals(array: NDArray) -> list[str]:
    """Return numbers as C writes them, exact to the last bit."""
    if not np.isfinite(array).all():
        raise ConfigError("the network has a weight that is not a finite number: train it again")
    suffix = "f" if array.dtype == np.float32 else ""
    return [f"{number}{suffix}" for number in array.astype(str).tolist()]


def _comment(text: str) -> str:
    """Return a text without what would end a comment, or begin another."""
    return re.sub(r"[^\w .,:;()\[\]=<>+%×→-]", "_", text)


def _inexpressible(operation: Any) -> ConfigError:
    """Return the error for a column that is neither a number nor a one-hot category."""
    if isinstance(operation, CategoryColumn):
        name = f"{operation.column!r}, an embedded category"
        return ConfigError(f'a C file has no place for {name}: train with data.categories = "onehot"')
    if isinstance(operation, TextColumn):
        return ConfigError(f"a C file has no place for {operation.column!r}, a column of texts: drop it")
    return ConfigError("a C file has no place for pictures: it takes columns of numbers")
